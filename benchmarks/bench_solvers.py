"""Every solver of FunkSVD: RMSE by epochs and seconds on real ratings, and the time of an epoch.

    python benchmarks/bench_solvers.py --data DIR [--plot solvers.png]
    python benchmarks/bench_solvers.py --speed ml-1m ml-20m [--cache FOLDER]

DIR holds ``ml-100k/u.data`` and ``goodbooks/ratings.csv.gz``. A random tenth of each is validation
and another tenth is test. Solvers have their defaults, except for the parameters that the table
names. The seconds of an epoch are those of the training pass alone.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import SHAPES, print_header, print_table, shaped

SOLVERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd, momentum 0.9": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad_row": {"solver": "adagrad_row"},
    "adagrad": {"solver": "adagrad"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
}
# Their epochs are not passes of the same kind.
OTHERS = {
    "featurewise": {"training": "featurewise"},
    "gibbs": {"solver": "gibbs"},
}
DATA = {"ml-100k": "ml-100k/u.data", "goodbooks": "goodbooks/ratings.csv.gz"}
SEED = 3  # of the splits; the learning rates were chosen on seeds 11 to 13
REPEATS = 9


class Fit(NamedTuple):
    """The model of the best epoch; of every epoch its validation RMSE, and when it ended."""

    model: Any
    errors: np.ndarray
    seconds: np.ndarray


def fit(
    train: Any,
    validation: Any,
    params: dict[str, Any],
) -> Fit:
    """Fit a model to the end of its epochs and return it as it was at its best."""
    from funksvd import EarlyStopping, FunkSVD

    model = FunkSVD(random_state=0, **params)
    keep_best = EarlyStopping("val_loss", patience=10**6)
    model.fit(train, validation_data=validation, callbacks=keep_best)
    seconds = model.setup_seconds_ + np.cumsum(model.history_["seconds"])
    return Fit(model, np.array(model.history_["val_rmse"]), seconds)


def bench_accuracy(
    name: str,
    path: Path,
    axes: Any,
) -> None:
    """Print the table of one data set; draw its curves into the axes, if there are any."""
    from funksvd import Ratings

    train, test = Ratings.read(path).split(0.1, SEED)
    train, validation = train.split(1 / 9, SEED)
    rows = []
    for solver, params in {**SOLVERS, **OTHERS}.items():
        fitted = fit(train, validation, params)
        best = int(fitted.errors.argmin())
        error = fitted.model.evaluate(test)["rmse"]
        rows.append(
            [
                solver,
                f"{error:.4f}",
                f"{fitted.errors[best]:.4f}",
                str(best + 1),
                fitted.seconds[best],
            ]
        )
        if axes is not None:
            by_epoch, by_second = axes
            by_epoch.plot(np.arange(1, len(fitted.errors) + 1), fitted.errors, label=solver, lw=1)
            by_second.plot(fitted.seconds, fitted.errors, label=solver, lw=1)
    print(
        f"## {name}: {len(train):,} ratings to train, {len(test):,} to test, "
        "the model of the best epoch"
    )
    print_table(["", "test RMSE", "validation RMSE", "best epoch", "s until then"], rows, name)


def epoch_seconds(engines: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the seconds of REPEATS epochs of each engine after the first; they take turns."""
    seconds: dict[str, list[float]] = {solver: [] for solver in engines}
    for epoch in range(REPEATS + 1):
        for solver, engine in engines.items():
            start = time.perf_counter()
            engine.epoch(epoch, engine.hyper.learning_rate)
            seconds[solver].append(time.perf_counter() - start)
    return {solver: np.array(times[1:]) for solver, times in seconds.items()}


def bench_speed(
    name: str,
    cache: str | None,
    factors: int,
) -> None:
    """Print the time of an epoch of each solver."""
    from funksvd import FunkSVD, Ratings
    from funksvd.engines.choose import engine_for
    from funksvd.hyper import resolve

    users, items, values = shaped(name, cache)
    ratings = Ratings.from_arrays(users, items, values)
    engines = {}
    for solver, params in SOLVERS.items():
        hyper = resolve(FunkSVD(factors, **params).get_params())
        engines[solver] = engine_for(hyper)(ratings, None, hyper, seed=0, n_jobs=2)
    seconds = epoch_seconds(engines)
    print(
        f"## {name}: {len(ratings):,} ratings, k = {factors}, two threads, "
        f"median of {REPEATS} epochs in turns"
    )
    rows = []
    for solver, times in seconds.items():
        rows.append([solver, 1000 * np.median(times), np.median(times / seconds["sgd"])])
    print_table(["", "ms an epoch", "ratio to sgd"], rows, name)


def options_of_command_line() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("FUNKSVD_DATA"),
        help="default: $FUNKSVD_DATA",
    )
    parser.add_argument(
        "--plot", metavar="PNG", help="draw RMSE against epochs and seconds (needs matplotlib)"
    )
    parser.add_argument(
        "--speed",
        nargs="+",
        choices=SHAPES,
        default=[],
        help="time epochs on ratings of these shapes",
    )
    parser.add_argument("--factors", type=int, default=32, help="of --speed (default: 32)")
    parser.add_argument("--cache", metavar="FOLDER", help="keep the made-up ratings there")
    options = parser.parse_args()
    if options.data is None and not options.speed:
        parser.error("--data or --speed is needed")
    return options


def empty_figure() -> tuple[Any, Any]:
    """Return a figure with two axes for each data set."""
    import matplotlib.pyplot as plt

    size = (10, 4 * len(DATA))
    return plt.subplots(len(DATA), 2, figsize=size, layout="constrained", sharey="row")


def save_figure(
    figure: Any,
    axes: Any,
    path: str,
) -> None:
    """Label the axes and write the figure to a file."""
    panels = [(name, unit) for name in DATA for unit in ("epochs", "seconds")]
    for axis, (name, unit) in zip(axes.flat, panels, strict=True):
        low = min((line.get_ydata().min() for line in axis.lines), default=0)
        axis.set(title=name, xlabel=unit, ylabel="validation RMSE")
        axis.set(ylim=(low - 0.005, low + 0.1))
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(path, dpi=120)
    print("drawn:", path)


def main() -> None:
    """Print one table for each data set or shape."""
    options = options_of_command_line()
    print_header()
    for name in options.speed:
        bench_speed(name, options.cache, options.factors)
    if options.data is None or options.speed:
        return
    figure = None
    axes = [None] * len(DATA)
    if options.plot:
        figure, axes = empty_figure()
    for (name, relative), row in zip(DATA.items(), axes, strict=True):
        path = Path(options.data) / relative
        if path.exists():
            bench_accuracy(name, path, row)
        else:
            print(f"left out: {relative} is not in the data folder")
    if figure is not None:
        save_figure(figure, axes, options.plot)


if __name__ == "__main__":
    main()
