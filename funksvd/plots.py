"""Pictures of a model. matplotlib is imported inside the functions, and no window or display is needed.

Every function returns the matplotlib figure and, where `path` is given, writes it there; the suffix of the name says in
which format (``.png``, ``.svg``, ``.pdf``).
"""

from __future__ import annotations

from html import escape

import numpy as np

__all__ = [
    "error_by_popularity",
    "factor_map",
    "factor_spectrum",
    "learning_curve",
    "predicted_against_actual",
]

BLUE, ORANGE, GREY = (
    "#1f5fa8",
    "#d9701a",
    "0.45",
)  # told apart by the colour-blind, too, and in grey


def learning_curve(history, path=None, floor=None):
    """Draw the RMSE of each epoch.

    Parameters
    ----------
    history : dict of lists, or a fitted FunkSVD
        ``FunkSVD.history_``; ``val_rmse`` is drawn where there is one, its best epoch marked.
    path : str or PathLike, optional
    floor : float, optional
        RMSE that no model can beat, drawn as a dashed line.

    Raises
    ------
    ValueError
        There is no RMSE in `history`.
    ImportError
        matplotlib is not installed (so of every function here).
    """
    history = getattr(history, "history_", history)
    if not history.get("rmse"):
        raise ValueError("history must hold the rmse of an epoch at least")
    axes = _axes()
    epochs = np.arange(1, len(history["rmse"]) + 1)
    axes.plot(
        epochs,
        history["rmse"],
        color=BLUE,
        marker="o",
        markersize=3,
        label="training (during the epoch)",
    )
    validation = history.get("val_rmse")
    if validation:
        best = int(np.argmin(validation))
        axes.plot(epochs, validation, color=ORANGE, marker="s", markersize=3, label="validation")
        axes.plot(
            epochs[best],
            validation[best],
            color=ORANGE,
            marker="o",
            markersize=11,
            fillstyle="none",
            linestyle="none",
            label=f"best: {validation[best]:.4f} in epoch {epochs[best]}",
        )
    if floor is not None:
        axes.axhline(floor, color="0.3", linestyle="--", linewidth=1, label="noise floor")
    axes.set(xlabel="epoch", ylabel="RMSE")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return _written(axes, path)


def predicted_against_actual(model, ratings, path=None):
    """Draw how the predictions lie at each rating (boxes; up to 20 distinct values), or their density against it.

    A perfect model lies on the dashed line; shrinkage towards the mean makes the boxes flatter than it.

    Parameters
    ----------
    model : fitted FunkSVD
    ratings : Ratings
        Best those that training has not seen.
    path : str or PathLike, optional
    """
    predicted, actual = model._predict(ratings)[0].astype(np.float64), ratings.values
    rmse = float(np.sqrt(np.mean((predicted - actual) ** 2)))
    axes = _axes((6, 5))
    values = np.unique(actual)
    ends = values[[0, -1]]
    if len(values) <= 20:
        width = 0.6 * np.diff(values).min(initial=np.inf) if len(values) > 1 else 0.6
        boxes = axes.boxplot(
            [predicted[actual == value] for value in values],
            positions=values,
            widths=width,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
        )
        for box, median in zip(boxes["boxes"], boxes["medians"], strict=True):
            box.set(facecolor=BLUE, alpha=0.35)
            median.set(color=BLUE, linewidth=2)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.plot(
            [],
            [],
            color=BLUE,
            alpha=0.35,
            linewidth=8,
            label="half of the predictions (whiskers: 90 %)",
        )
    else:
        picture = axes.hexbin(
            actual, predicted, gridsize=50, bins="log", cmap="Blues", linewidths=0
        )
        axes.figure.colorbar(picture, label="ratings")
    axes.plot(ends, ends, color=ORANGE, linestyle="--", label="prediction = rating")
    axes.set(
        xlabel="rating", ylabel="prediction", title=f"RMSE {rmse:.4f} on {len(actual):,} ratings"
    )
    axes.legend(loc="upper left")
    return _written(axes, path)


def error_by_popularity(model, ratings, train, path=None, by="item"):
    """Draw the RMSE on `ratings` against how many ratings their item (or user) has in `train`.

    Parameters
    ----------
    model : fitted FunkSVD
    ratings : Ratings
        Those to measure on, best unseen in training.
    train : Ratings
        Those to count, what `model` was trained on.
    path : str or PathLike, optional
    by : {"item", "user"}
    """
    if by not in ("item", "user"):
        raise ValueError(f"by must be 'item' or 'user', got {by!r}")
    side = ("user", "item").index(by)
    trained = train.codes_in(model._learned().tables)[side]
    counts = np.bincount(trained[trained >= 0], minlength=len(model._learned().tables[side]))
    codes = ratings.codes_in(model._learned().tables)[side]
    popularity = np.where(codes >= 0, counts[codes], 0)
    squares = (model._predict(ratings)[0] - ratings.values.astype(np.float64)) ** 2
    bins = np.frexp(popularity)[1]  # 0, 1, 2-3, 4-7, ...
    present = np.unique(bins)
    n = np.array([np.sum(bins == b) for b in present])
    rmse = np.array([np.sqrt(np.mean(squares[bins == b])) for b in present])
    names = [
        "0" if b == 0 else "1" if b == 1 else f"{2 ** (b - 1):,}-{2**b - 1:,}"
        for b in present.tolist()
    ]
    axes = _axes((8, 4.5))
    share = axes.twinx()
    share.bar(range(len(n)), 100 * n / n.sum(), color="0.87")
    share.set_ylabel("share of the ratings, % (bars)", color=GREY)
    axes.set_zorder(share.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(range(len(n)), rmse, color=BLUE, marker="o", label="RMSE")
    axes.axhline(
        np.sqrt(squares.mean()),
        color=ORANGE,
        linestyle="--",
        linewidth=1,
        label=f"over all: {np.sqrt(squares.mean()):.4f}",
    )
    axes.set_xticks(range(len(n)), names, rotation=30, ha="right")
    axes.set(xlabel=f"ratings of the {by} in training", ylabel="RMSE")
    axes.legend()
    return _written(axes, path)


def factor_map(model, titles=None, path=None, ratings=None, n_items=400, n_labels=40):
    """Draw items in the plane of their factors: the two factors, or the first two principal components of more.

    Items that are near each other are liked by the same users, bias aside.

    Parameters
    ----------
    model : fitted FunkSVD
    titles : dict, optional
        Item id, or its text, -> title; an item that is not in it is named by its id.
    path : str or PathLike, optional
    ratings : Ratings, optional
        Where given, the `n_items` with most ratings in it are drawn; else those with the longest factors.
    n_items, n_labels : int
        Points, and titles at most: where two would overlap, the second is left out.
    """
    factors = model.item_factors_.astype(np.float64)
    if factors.shape[1] < 2:
        raise ValueError(
            f"the map needs a model of 2 factors or more, this one has {factors.shape[1]}"
        )
    if ratings is None:
        weight = np.linalg.norm(factors, axis=1)
    else:
        codes = ratings.codes_in(model._learned().tables)[1]
        weight = np.bincount(codes[codes >= 0], minlength=len(factors))
    chosen = np.argsort(-weight, kind="stable")[:n_items]
    labels = "factor 1", "factor 2"
    points = factors[chosen]
    if factors.shape[1] > 2:
        points = points - points.mean(axis=0)
        _, strength, axes_of = np.linalg.svd(points, full_matrices=False)
        points = points @ axes_of[:2].T
        share = strength**2 / max(np.sum(strength**2), 1e-300)
        labels = tuple(
            f"principal component {k + 1} ({share[k]:.0%} of the variance)" for k in (0, 1)
        )
    axes = _axes((10, 8))
    axes.scatter(*points.T, s=12, color=BLUE, alpha=0.5, linewidths=0)
    axes.margins(0.08)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"{len(points):,} of {len(factors):,} items")
    names = [_title(titles, item) for item in model.item_ids_[chosen].tolist()]
    _label(axes, points, names, n_labels)
    return _written(axes, path)


def factor_spectrum(model, path=None):
    """Draw the singular values of the product of the factors, in units of a rating.

    Each bar is the root mean square that one direction adds to the predictions over all users and items. Where the bars
    fall to nothing, further factors are idle; where the last ones are still high, more factors may help.

    Parameters
    ----------
    model : fitted FunkSVD
    path : str or PathLike, optional
    """
    users, items = model.user_factors_.astype(np.float64), model.item_factors_.astype(np.float64)
    # The singular values of P Q^T are those of R_P R_Q^T, k x k, where P and Q are orthogonal times R.
    small = np.linalg.qr(users, mode="r") @ np.linalg.qr(items, mode="r").T
    strength = np.linalg.svd(small, compute_uv=False) / np.sqrt(len(users) * len(items))
    axes = _axes()
    axes.bar(range(1, len(strength) + 1), strength, color=BLUE, width=0.9)
    power = np.cumsum(strength**2)
    needed = min(int(np.searchsorted(power, 0.9 * power[-1])) + 1, len(strength))
    axes.axvline(
        needed + 0.5,
        color=ORANGE,
        linestyle="--",
        linewidth=1,
        label=f"90 % of the variance: {needed}",
    )
    of_biases = (
        float(np.sqrt(np.mean(b.astype(np.float64) ** 2)))
        for b in (model.user_biases_, model.item_biases_)
    )
    axes.set(
        xlabel="direction, strongest first",
        ylabel="RMS over all predictions",
        title="All {} directions: {:.3f}; biases of users: {:.3f}, of items: {:.3f}".format(
            len(strength), power[-1] ** 0.5, *of_biases
        ),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return _written(axes, path)


def _axes(size=(7, 4.5)):
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "funksvd[plots]"') from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no global state, no choice of a backend
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def _written(axes, path):
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes.figure


def _title(titles, item):
    titles = titles or {}
    return str(titles.get(item, titles.get(str(item), item)))


def _label(axes, points, names, n_labels):
    """Write the names of the first points, those left out that would cover another name."""
    figure = axes.figure
    figure.draw_without_rendering()  # fixes the layout that the boxes are measured in
    taken = []
    for point, name in zip(points, names, strict=True):
        short = name if len(name) <= 32 else name[:31] + "…"
        text = axes.annotate(
            short.replace("$", r"\$"), point, xytext=(3, 3), textcoords="offset points", fontsize=7
        )
        box = text.get_window_extent(figure.canvas.get_renderer()).padded(2)
        if any(box.overlaps(other) for other in taken) or not axes.bbox.containsx(box.x1):
            text.remove()
        else:
            taken.append(box)
        if len(taken) == n_labels:
            return


def model_html(model):
    """The `_repr_html_` of a model: sizes, the curve as SVG, and the parameters. Needs no matplotlib."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(repr(value))}</td></tr>"
        for name, value in model.get_params().items()
    )
    parameters = f"<details><summary>parameters</summary><table>{rows}</table></details>"
    if not hasattr(model, "user_ids_"):
        return f"<div><b>{type(model).__name__}</b>, not fitted{parameters}</div>"
    users, items, k = len(model.user_ids_), len(model.item_ids_), model.user_factors_.shape[1]
    shapes = [("users", users, model.user_ids_), ("items", items, model.item_ids_)]
    sizes = "".join(
        f"<tr><td>{name}</td><td>{n:,}</td><td>ids {escape(str(ids[0]))} to {escape(str(ids[-1]))}</td></tr>"
        for name, n, ids in shapes
    )
    last = {
        name: values[-1]
        for name, values in model.history_.items()
        if name in ("rmse", "val_rmse") and values
    }
    errors = ", ".join(f"{name} {value:.4f}" for name, value in last.items())
    return (
        f"<div><b>{type(model).__name__}</b>, {model.n_epochs_} epochs{', ' + errors if errors else ''}"
        f"<table>{sizes}<tr><td>factors</td><td>{k:,}</td><td>{model.user_factors_.dtype}, "
        f"{(users + items) * (k + 1) * model.user_factors_.itemsize / 1e6:,.1f} MB</td></tr>"
        f"<tr><td>mean</td><td>{model.global_mean_:.4f}</td><td></td></tr></table>"
        f"{_curve_svg(model.history_)}{parameters}</div>"
    )


def _curve_svg(history, width=360, height=150):
    """The learning curve as inline SVG; it takes the text colour of the page."""
    lines = [
        (name, history[name], colour)
        for name, colour in (("rmse", BLUE), ("val_rmse", ORANGE))
        if history.get(name)
    ]
    if not lines:
        return ""
    low, high = min(min(y) for _, y, _ in lines), max(max(y) for _, y, _ in lines)
    left, right, top, bottom = 48, width - 70, 12, height - 24
    n = max(len(y) for _, y, _ in lines)

    def place(epoch, value):
        x = left + (right - left) * epoch / max(n - 1, 1)
        return f"{x:.1f},{bottom - (bottom - top) * (value - low) / ((high - low) or 1):.1f}"

    def text(x, y, anchor, words, colour="currentColor"):
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{words}</text>'

    drawn = f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.4"/>'
    drawn += text(left - 4, top + 4, "end", f"{high:.3f}") + text(
        left - 4, bottom + 4, "end", f"{low:.3f}"
    )
    drawn += text(left, height - 6, "middle", 1) + text(right, height - 6, "middle", f"{n} epochs")
    names, last = {"rmse": "training", "val_rmse": "validation"}, None
    for name, y, colour in sorted(lines, key=lambda line: -line[1][-1]):
        points = " ".join(place(epoch, value) for epoch, value in enumerate(y))
        at = float(points.rpartition(",")[2]) + 4
        last = at if last is None else max(at, last + 13)  # names do not cover each other
        drawn += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        drawn += text(right + 4, f"{last:.1f}", "start", names[name], colour)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="RMSE by epoch">{drawn}</svg>'
    )
