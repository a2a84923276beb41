"""Pictures of a model. They need matplotlib, but no window or display.

Every function returns the matplotlib figure and, if `path` is given, writes it there; the suffix of
the name decides the format (.png, .svg, .pdf). Without matplotlib they raise ImportError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from funksvd.card import BLUE, ORANGE
from funksvd.checks import check_choice
from funksvd.ratings.triples import Ratings

__all__ = [
    "error_by_popularity",
    "factor_map",
    "factor_spectrum",
    "learning_curve",
    "predicted_against_actual",
]

GREY = "0.45"
# Up to this many distinct ratings each has a box of its own; more are drawn as a density.
MOST_BOXES = 20
LONGEST_TITLE = 32

OutputPath = str | os.PathLike[str] | None
Array = NDArray[np.float64]


def learning_curve(history: Any, path: OutputPath = None, floor: float | None = None) -> Any:
    """Draw the RMSE of each epoch.

    Parameters
    ----------
    history : dict of lists, or a fitted FunkSVD
        The dict is `FunkSVD.history_`. If it has `val_rmse`, this is drawn with its best epoch.
    path : str or PathLike, optional
    floor : float, optional
        RMSE that no model can beat, drawn as a dashed line.

    Raises
    ------
    ValueError
        If `history` has no RMSE.
    """
    history = getattr(history, "history_", history)
    training = history.get("rmse")
    if not training:
        raise ValueError("history must hold the rmse of at least one epoch")
    axes = new_axes()
    epochs = np.arange(1, len(training) + 1)
    axes.plot(
        epochs,
        training,
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
    return written(axes, path)


def predicted_against_actual(model: Any, ratings: Ratings, path: OutputPath = None) -> Any:
    """Draw the predictions for ratings of each value.

    Up to 20 distinct values have a box each; more are drawn as a density. A perfect model lies on
    the dashed line; shrinkage towards the mean makes the boxes flatter than the line.

    Parameters
    ----------
    model : fitted FunkSVD
    ratings : Ratings
        Preferably ratings that training has not seen.
    path : str or PathLike, optional
    """
    predicted = predictions(model, ratings)
    actual = ratings.values
    rmse = float(np.sqrt(np.mean((predicted - actual) ** 2)))
    axes = new_axes((6, 5))
    values = np.unique(actual)
    if len(values) <= MOST_BOXES:
        draw_boxes(axes, values, [predicted[actual == value] for value in values])
    else:
        density = axes.hexbin(
            actual, predicted, gridsize=50, bins="log", cmap="Blues", linewidths=0
        )
        axes.figure.colorbar(density, label="ratings")
    ends = values[[0, -1]]
    axes.plot(ends, ends, color=ORANGE, linestyle="--", label="prediction = rating")
    axes.set(
        xlabel="rating", ylabel="prediction", title=f"RMSE {rmse:.4f} on {len(actual):,} ratings"
    )
    axes.legend(loc="upper left")
    return written(axes, path)


def draw_boxes(axes: Any, values: NDArray[Any], groups: Sequence[Array]) -> None:
    """Draw a box of the predictions, `groups`, for each of the distinct ratings, `values`."""
    width = 0.6
    if len(values) > 1:
        width = 0.6 * float(np.diff(values).min())
    drawn = axes.boxplot(
        groups,
        positions=values,
        widths=width,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
    )
    for box, median in zip(drawn["boxes"], drawn["medians"], strict=True):
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


def error_by_popularity(
    model: Any, ratings: Ratings, train: Ratings, path: OutputPath = None, by: str = "item"
) -> Any:
    """Draw the RMSE on `ratings` by the number of ratings that their item (or user) has in `train`.

    Parameters
    ----------
    model : fitted FunkSVD
    ratings : Ratings
        Ratings to measure on, preferably unseen in training.
    train : Ratings
        Ratings to count: those that `model` was trained on.
    path : str or PathLike, optional
    by : {"item", "user"}
    """
    check_choice(by, "by", ("item", "user"))
    squares = (predictions(model, ratings) - ratings.values.astype(np.float64)) ** 2
    bins = np.frexp(popularity(model, ratings, train, by))[1]  # 0, 1, 2-3, 4-7, ...
    present = np.unique(bins).tolist()
    sizes = np.array([np.sum(bins == number) for number in present])
    errors = np.array([np.sqrt(np.mean(squares[bins == number])) for number in present])
    overall = np.sqrt(squares.mean())
    places = range(len(present))
    axes = new_axes((8, 4.5))
    share = axes.twinx()
    share.bar(places, 100 * sizes / sizes.sum(), color="0.87")
    share.set_ylabel("share of the ratings, % (bars)", color=GREY)
    axes.set_zorder(share.get_zorder() + 1)  # the line in front of the bars
    axes.patch.set_visible(False)
    axes.plot(places, errors, color=BLUE, marker="o", label="RMSE")
    axes.axhline(
        overall, color=ORANGE, linestyle="--", linewidth=1, label=f"over all: {overall:.4f}"
    )
    axes.set_xticks(places, [bin_name(number) for number in present], rotation=30, ha="right")
    axes.set(xlabel=f"ratings of the {by} in training", ylabel="RMSE")
    axes.legend()
    return written(axes, path)


def popularity(model: Any, ratings: Ratings, train: Ratings, by: str) -> NDArray[np.int_]:
    """Return (n_ratings,) how many ratings the item (or user) of a rating has in `train`."""
    side = ("user", "item").index(by)
    tables = model._learned().tables
    trained = train.codes_in(tables)[side]
    counts = np.bincount(trained[trained >= 0], minlength=len(tables[side]))
    codes = ratings.codes_in(tables)[side]
    return np.where(codes >= 0, counts[codes], 0)


def bin_name(number: int) -> str:
    """Return the counts in a bin: bin b > 1 holds those from 2^(b-1) to 2^b - 1."""
    if number < 2:
        return str(number)
    return f"{2 ** (number - 1):,}-{2**number - 1:,}"


def factor_map(
    model: Any,
    titles: Mapping[Any, str] | None = None,
    path: OutputPath = None,
    ratings: Ratings | None = None,
    n_items: int = 400,
    n_labels: int = 40,
) -> Any:
    """Draw items in the plane of their factors.

    The plane is that of the two factors or, if there are more, of their first two principal
    components. Items that are near each other are liked by the same users, biases aside.

    Parameters
    ----------
    model : fitted FunkSVD
    titles : dict, optional
        Item id, or its text, -> title; an item without a title is named by its id.
    path : str or PathLike, optional
    ratings : Ratings, optional
        Draw the items that have most ratings here; by default those with the longest factors.
    n_items, n_labels : int
        Largest number of items and of their titles. A title that would cover another is left out.
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
    points, labels = in_plane(factors[chosen])
    axes = new_axes((10, 8))
    axes.scatter(*points.T, s=12, color=BLUE, alpha=0.5, linewidths=0)
    axes.margins(0.08)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=f"{len(points):,} of {len(factors):,} items")
    names = [title_of(titles or {}, item) for item in model.item_ids_[chosen].tolist()]
    write_names(axes, points, names, n_labels)
    return written(axes, path)


def in_plane(factors: Array) -> tuple[Array, list[str]]:
    """Return (points, labels of the two axes) of rows of two factors or more."""
    if factors.shape[1] == 2:
        return factors, ["factor 1", "factor 2"]
    centred = factors - factors.mean(axis=0)
    _, strength, components = np.linalg.svd(centred, full_matrices=False)
    variance = strength**2
    share = variance / max(np.sum(variance), 1e-300)
    labels = []
    for number in (1, 2):
        labels.append(f"principal component {number} ({share[number - 1]:.0%} of the variance)")
    return centred @ components[:2].T, labels


def factor_spectrum(model: Any, path: OutputPath = None) -> Any:
    """Draw the singular values of the product of the factors, in units of a rating.

    Each bar is the root mean square that one direction adds to the predictions over all users and
    items. Where the bars fall to nothing, further factors are idle; where the last ones are still
    high, more factors may help.

    Parameters
    ----------
    model : fitted FunkSVD
    path : str or PathLike, optional
    """
    # The singular values of P Q^T are those of R_P R_Q^T, k x k, where P and Q are orthogonal
    # matrices times R_P and R_Q.
    small = triangle_of(model.user_factors_) @ triangle_of(model.item_factors_).T
    n_pairs = len(model.user_ids_) * len(model.item_ids_)
    strength = np.linalg.svd(small, compute_uv=False) / np.sqrt(n_pairs)
    axes = new_axes()
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
    axes.set(
        xlabel="direction, strongest first",
        ylabel="RMS over all predictions",
        title=(
            f"All {len(strength)} directions: {power[-1] ** 0.5:.3f};"
            f" biases of users: {root_mean_square(model.user_biases_):.3f},"
            f" of items: {root_mean_square(model.item_biases_):.3f}"
        ),
    )
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return written(axes, path)


def predictions(model: Any, ratings: Ratings) -> Array:
    """Return the predictions of a model for the pairs of some ratings, without a warning.

    A pair with an unknown id gets the mean and the known bias.
    """
    fitted = model._learned()
    codes = ratings.codes_in(fitted.tables)
    predicted: Array = model._clipped(model._predict(fitted, *codes)).astype(np.float64)
    return predicted


def triangle_of(factors: NDArray[Any]) -> Array:
    """Return the triangular matrix R of the QR decomposition, in float64."""
    return cast(Array, np.linalg.qr(factors.astype(np.float64), mode="r"))  # typed as (Q, R)


def root_mean_square(values: NDArray[Any]) -> float:
    """Return the root of the mean square, computed in float64."""
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def new_axes(size: tuple[float, float] = (7, 4.5)) -> Any:
    """Return empty axes in a figure of this size in inches.

    They are made without pyplot, which has global state and chooses a backend.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "funksvd[plots]"') from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return axes


def written(axes: Any, path: OutputPath) -> Any:
    """Return the figure, after writing it to a file if there is a path."""
    if path is not None:
        axes.figure.savefig(path, dpi=150)
    return axes.figure


def title_of(titles: Mapping[Any, str], item: Any) -> str:
    """Return the title of an item id, or the id."""
    return str(titles.get(item, titles.get(str(item), item)))


def write_names(axes: Any, points: Array, names: Sequence[str], n_labels: int) -> None:
    """Write the names of the first points, without those that would cover another name."""
    figure = axes.figure
    figure.draw_without_rendering()  # fixes the layout in which the boxes are measured
    taken: list[Any] = []
    for point, name in zip(points, names, strict=True):
        short = name if len(name) <= LONGEST_TITLE else name[: LONGEST_TITLE - 1] + "…"
        text = axes.annotate(
            short.replace("$", r"\$"), point, xytext=(3, 3), textcoords="offset points", fontsize=7
        )
        box = text.get_window_extent(figure.canvas.get_renderer()).padded(2)
        is_covered = any(box.overlaps(other) for other in taken)
        if is_covered or not axes.bbox.containsx(box.x1):
            text.remove()
        else:
            taken.append(box)
        if len(taken) == n_labels:
            return
