"""Every solver of FunkSVD: RMSE against epochs and seconds on real ratings, and what an epoch costs.

    python benchmarks/bench_solvers.py --data DIR [--plot solvers.png]
    python benchmarks/bench_solvers.py --speed ml-1m ml-20m [--cache FOLDER]

DIR holds ``ml-100k/u.data`` and ``goodbooks/ratings.csv.gz``. Of each a random tenth is validation and another one is
test; defaults, except for what the table names. The seconds of an epoch are those of the training pass alone.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from common import SHAPES, print_header, print_table, shaped

SOLVERS = {
    "sgd": {},
    "sgd, momentum 0.9": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad_row": {"solver": "adagrad_row"},
    "adagrad": {"solver": "adagrad"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
}
OTHERS = {  # whose epochs are not passes of the same kind
    "featurewise": {"training": "featurewise"},
    "gibbs": {"solver": "gibbs"},
}
DATA = {"ml-100k": "ml-100k/u.data", "goodbooks": "goodbooks/ratings.csv.gz"}
SEED = 3  # of the splits: on seeds 11 to 13 the learning rates were chosen
REPEATS = 9


def fit(train, validation, params):
    """(model of the best epoch, validation RMSE of every epoch, seconds since the start of each epoch's end)."""
    from funksvd import EarlyStopping, FunkSVD

    model = FunkSVD(random_state=0, **params)
    model.fit(
        train, validation_data=validation, callbacks=EarlyStopping("val_loss", patience=10**6)
    )
    seconds = model.setup_seconds_ + np.cumsum(model.history_["seconds"])
    return model, np.array(model.history_["val_rmse"]), seconds


def bench_accuracy(name, path, plot):
    """Print the table of one data set; draw its curves into the axes of `plot`."""
    from funksvd import Ratings

    train, test = Ratings.read(path).split(0.1, SEED)
    train, validation = train.split(1 / 9, SEED)
    rows = []
    for solver, params in {**SOLVERS, **OTHERS}.items():
        model, errors, seconds = fit(train, validation, params)
        best = int(errors.argmin())
        rows.append(
            [
                solver,
                f"{model.evaluate(test)['rmse']:.4f}",
                f"{errors[best]:.4f}",
                str(best + 1),
                seconds[best],
            ]
        )
        for axis, x in (
            zip(plot, (np.arange(1, len(errors) + 1), seconds), strict=True)
            if plot is not None
            else ()
        ):
            axis.plot(x, errors, label=solver, lw=1)
    print(
        f"## {name}: {len(train):,} ratings to train, {len(test):,} to test, the model of the best epoch"
    )
    print_table(["", "test RMSE", "validation RMSE", "best epoch", "s until then"], rows)


def bench_speed(name, cache, factors):
    """Print what an epoch of each solver costs; the solvers take turns."""

    from funksvd import FunkSVD, Ratings
    from funksvd.engines.choose import engine_for
    from funksvd.parameters import resolve

    users, items, values = shaped(name, cache)
    ratings = Ratings.from_arrays(users, items, values)
    engines, seconds = {}, {}
    for solver, params in SOLVERS.items():
        hyper = resolve(FunkSVD(factors, **params).get_params())
        engines[solver] = (
            engine_for(hyper)(ratings, None, hyper, seed=0, n_jobs=2),
            hyper.learning_rate,
        )
        seconds[solver] = []
    for number in range(REPEATS + 1):
        for solver, (engine, rate) in engines.items():
            start = time.perf_counter()
            engine.epoch(number, rate)
            seconds[solver].append(time.perf_counter() - start)
    base = np.array(seconds["sgd"][1:])
    print(
        f"## {name}: {len(ratings):,} ratings, k = {factors}, two threads, median of {REPEATS} epochs in turns"
    )
    rows = [
        [solver, 1000 * np.median(s[1:]), np.median(np.array(s[1:]) / base)]
        for solver, s in seconds.items()
    ]
    print_table(["", "ms an epoch", "ratio to sgd"], rows)


def main():
    """Print one table for each data set or shape."""
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
    print_header()
    for name in options.speed:
        bench_speed(name, options.cache, options.factors)
    if options.data is None or options.speed:
        return
    figure = axes = None
    if options.plot:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(
            len(DATA), 2, figsize=(10, 4 * len(DATA)), layout="constrained", sharey="row"
        )
    for row, (name, relative) in enumerate(DATA.items()):
        path = Path(options.data) / relative
        if path.exists():
            bench_accuracy(name, path, axes[row] if axes is not None else None)
        else:
            print(f"left out: {relative} is not in the data folder")
    if figure is not None:
        panels = [(name, unit) for name in DATA for unit in ("epochs", "seconds")]
        for axis, (name, unit) in zip(axes.flat, panels, strict=True):
            low = min((line.get_ydata().min() for line in axis.lines), default=0)
            axis.set(
                title=name, xlabel=unit, ylabel="validation RMSE", ylim=(low - 0.005, low + 0.1)
            )
            axis.grid(alpha=0.3)
        axes.flat[0].legend()
        figure.savefig(options.plot, dpi=120)
        print("drawn:", options.plot)


if __name__ == "__main__":
    main()
