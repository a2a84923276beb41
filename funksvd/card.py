"""The HTML card that a notebook shows for a model: sizes, learning curve and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

# Readers who are colour-blind, and grey prints, can tell these apart.
BLUE = "#1f5fa8"
ORANGE = "#d9701a"

# History key -> (name in the picture, colour).
CURVES = {"rmse": ("training", BLUE), "val_rmse": ("validation", ORANGE)}

WIDTH = 360
HEIGHT = 150
# Edges of the plot within the picture; there is room for labels around it.
LEFT = 48
RIGHT = WIDTH - 70
TOP = 12
BOTTOM = HEIGHT - 24
LINE_HEIGHT = 13

History = Mapping[str, Sequence[float]]


class Curve(NamedTuple):
    """One line of the learning curve."""

    name: str
    colour: str
    values: Sequence[float]


def model_html(model: Any) -> str:
    """Return the card of a model, fitted or not. It needs no matplotlib."""
    rows = [
        table_row(escape(name), escape(repr(value))) for name, value in model.get_params().items()
    ]
    parameters = f"<details><summary>parameters</summary><table>{''.join(rows)}</table></details>"
    title = f"<b>{type(model).__name__}</b>"
    if not hasattr(model, "user_ids_"):
        return f"<div>{title}, not fitted{parameters}</div>"
    facts = [f"{model.n_epochs_} epochs"]
    for name in CURVES:
        if model.history_.get(name):
            facts.append(f"{name} {model.history_[name][-1]:.4f}")
    return (
        f"<div>{title}, {', '.join(facts)}<table>{size_rows(model)}</table>"
        f"{curve_svg(model.history_)}{parameters}</div>"
    )


def size_rows(model: Any) -> str:
    """Return the rows of a table that give the sizes of a fitted model."""
    n_users = len(model.user_ids_)
    n_items = len(model.item_ids_)
    n_factors = model.user_factors_.shape[1]
    n_bytes = (n_users + n_items) * (n_factors + 1) * model.user_factors_.itemsize
    rows = [
        table_row("users", f"{n_users:,}", id_range(model.user_ids_)),
        table_row("items", f"{n_items:,}", id_range(model.item_ids_)),
        table_row(
            "factors", f"{n_factors:,}", f"{model.user_factors_.dtype}, {n_bytes / 1e6:,.1f} MB"
        ),
        table_row("mean", f"{model.global_mean_:.4f}", ""),
    ]
    return "".join(rows)


def id_range(ids: Any) -> str:
    """Return the first and the last of some ids in words."""
    return f"ids {escape(str(ids[0]))} to {escape(str(ids[-1]))}"


def table_row(*cells: str) -> str:
    """Return a row of an HTML table."""
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def curve_svg(history: History) -> str:
    """Return the learning curve as inline SVG in the text colour of the page, or "" without one."""
    curves = []
    for key, (name, colour) in CURVES.items():
        if history.get(key):
            curves.append(Curve(name, colour, history[key]))
    if not curves:
        return ""
    low = min(min(curve.values) for curve in curves)
    high = max(max(curve.values) for curve in curves)
    n_epochs = max(len(curve.values) for curve in curves)
    drawn = [
        f'<path d="M{LEFT},{TOP}V{BOTTOM}H{RIGHT}" fill="none" stroke="currentColor"'
        ' stroke-opacity="0.4"/>',
        svg_text(LEFT - 4, TOP + 4, "end", f"{high:.3f}"),
        svg_text(LEFT - 4, BOTTOM + 4, "end", f"{low:.3f}"),
        svg_text(LEFT, HEIGHT - 6, "middle", "1"),
        svg_text(RIGHT, HEIGHT - 6, "middle", f"{n_epochs} epochs"),
    ]
    name_height = float("-inf")
    for curve in sorted(curves, key=last_value, reverse=True):  # from the top of the picture
        points = []
        for epoch, value in enumerate(curve.values):
            x = LEFT + (RIGHT - LEFT) * epoch / max(n_epochs - 1, 1)
            y = BOTTOM - (BOTTOM - TOP) * (value - low) / ((high - low) or 1)
            points.append(f"{x:.1f},{y:.1f}")
        # The name stands at the end of its curve, but does not cover the name above it.
        name_height = max(y + 4, name_height + LINE_HEIGHT)
        drawn.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{curve.colour}"'
            ' stroke-width="2"/>'
        )
        drawn.append(svg_text(RIGHT + 4, name_height, "start", curve.name, curve.colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11" role="img"'
        f' aria-label="RMSE by epoch">{"".join(drawn)}</svg>'
    )


def last_value(curve: Curve) -> float:
    """Return the value of the last epoch."""
    return curve.values[-1]


def svg_text(x: float, y: float, anchor: str, words: str, colour: str = "currentColor") -> str:
    """Return a text element of SVG."""
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'
