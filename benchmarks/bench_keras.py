"""FunkSVD beside Keras 3: the 2016 article's model, the same mini-batches, the same numbers.

    python benchmarks/bench_keras.py --sizes ml-1m ml-20m netflix --plot keras.png
    python benchmarks/bench_keras.py --sizes --data DIR

The model is two embeddings without biases or mean, their inner product, MSE, AdaMax and batches of
a million. Both train on the same generated ratings, from the same weights, in the same order
(shuffle=False), in one process. Before a time counts, the losses of all epochs must agree. --data
adds the test RMSE of the best validation epoch on real ratings, in the files that bench_accuracy.py
reads.

It needs Keras and JAX: pip install "funksvd[keras]"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_accuracy import movielens_folds
from common import SHAPES, cache_folder, check, peak_memory, print_header, print_table, shaped
from keras_fits import (
    RATE,
    History,
    Parts,
    Triples,
    best_funksvd,
    best_keras,
    fit_funksvd,
    fit_keras,
)

ARTICLE = """The article (2016, Keras on Theano, nearly 100 M ratings of 0.5 M users and almost
20,000 movies, k = 20, AdaMax, batches of 1 M) reports 300 s an epoch on a CPU, 90 s on a GeForce
GTX 960."""
TIMED_EPOCHS = 3
KERAS_L2 = 0.08  # a mean over the ratings, as FunkSVD's l2

FITS: dict[str, Callable[..., History]] = {"Keras": fit_keras, "FunkSVD": fit_funksvd}

# ------------------------------------------------------- for the processes that measure memory


def load_arrays(
    name: str,
    cache: str,
    options: argparse.Namespace,
) -> tuple[Any, Any]:
    """Return the arguments of the two functions below."""
    return Triples(*shaped(name, cache)), options


def run_funksvd(data: Triples, options: argparse.Namespace) -> None:
    """Fit two epochs, from three arrays."""
    fit_funksvd(data, options, 2)


def run_keras(data: Triples, options: argparse.Namespace) -> None:
    """Do the same with Keras."""
    fit_keras(data, options, 2)


# ---------------------------------------------------------------------------- a table for each size


def largest_difference(
    ours: History,
    theirs: History,
    loss: str,
) -> float:
    """Return the largest difference of a loss, as a part of it."""
    ratios = np.divide(ours[loss], theirs[loss])
    return float(np.max(np.abs(ratios - 1)))


def memory_of(
    name: str,
    cache: str,
    options: argparse.Namespace,
) -> dict[str, float]:
    """Return the peak of memory of two epochs of each model, in bytes beyond the arrays."""
    if options.no_memory:
        return {}
    runs = {"FunkSVD": "run_funksvd", "Keras": "run_keras"}
    arguments = (name, cache, options)
    return {
        model: peak_memory("bench_keras", "load_arrays", run, *arguments)
        for model, run in runs.items()
    }


def bench_size(
    name: str,
    cache: str,
    options: argparse.Namespace,
) -> dict[str, History]:
    """Check and time both on one shape, and print its table; return the validated histories."""
    data = Triples(*shaped(name, cache))
    print(
        f"## {name}: {len(data.values):,} ratings, k = {options.factors}, "
        f"batches of {options.batch:,}, {options.threads} threads"
    )
    curves = {model: fit(data, options, options.epochs, 0.1) for model, fit in FITS.items()}
    timed = {model: fit(data, options, TIMED_EPOCHS) for model, fit in FITS.items()}
    compared = ((curves, "loss"), (curves, "val_loss"), (timed, "loss"))
    apart = max(
        largest_difference(histories["FunkSVD"], histories["Keras"], loss)
        for histories, loss in compared
    )
    print(
        f"losses and validation losses of {options.epochs} epochs, "
        f"the largest difference: {apart:.1e} of the loss"
    )
    check(apart < 1e-4, f"the losses differ by {apart:.1e}")
    for model, fit in FITS.items():
        timed[f"{model}, shuffled"] = fit(data, options, TIMED_EPOCHS, shuffle=True)
    memory = memory_of(name, cache, options)
    print_size(name, timed, curves, memory, len(data.values))
    return curves


def print_size(
    name: str,
    timed: dict[str, History],
    curves: dict[str, History],
    memory: dict[str, float],
    n: int,
) -> None:
    """Print the table of one size, the fastest model first."""
    seconds = {}
    for model, history in timed.items():
        seconds[model] = float(np.median(history["seconds"][1:]))
    epochs = len(curves["Keras"]["loss"])
    rows = []
    for model in sorted(seconds, key=seconds.__getitem__):
        ours = seconds["FunkSVD, shuffled" if "shuffled" in model else "FunkSVD"]
        best = "-"
        total = np.nan
        if model in curves:
            best = f"{min(curves[model]['val_loss']) ** 0.5:.4f}"
            total = sum(curves[model]["seconds"])
        rows.append(
            [
                model,
                seconds[model],
                seconds[model] / ours,
                n / seconds[model] / 1e6,
                best,
                total,
                memory.get(model, np.nan) / 1e6,
            ]
        )
    header = [
        "model",
        "s/epoch",
        "ratio",
        "M ratings/s",
        "best val. RMSE",
        f"s for {epochs} epochs",
        "peak MB beyond arrays",
    ]
    print_table(header, rows, name)


def plot(curves: dict[str, dict[str, History]], path: str) -> None:
    """Draw validation RMSE by epochs and by seconds, a row of axes for each size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    size = (9, 3.2 * len(curves))
    figure, axes = plt.subplots(len(curves), 2, figsize=size, squeeze=False, layout="constrained")
    styles = {"Keras": "o-", "FunkSVD": "x--"}
    for (by_epoch, by_second), (name, histories) in zip(axes, curves.items(), strict=True):
        for model, history in histories.items():
            error = np.sqrt(history["val_loss"])
            by_epoch.plot(np.arange(1, len(error) + 1), error, styles[model], label=model)
            by_second.plot(np.cumsum(history["seconds"]), error, styles[model], label=model)
        by_epoch.set(xlabel="epochs", ylabel="validation RMSE", title=name)
        by_second.set(xlabel="seconds", xscale="log", title=name)
        by_epoch.legend()
    figure.savefig(path, dpi=120)
    print("curves in", path)


# ------------------------------------------------------------------------------------- real ratings


def movielens(path: Path) -> tuple[Triples, np.ndarray]:
    """Return the ratings of ml-100k, and which are those of the test fold u1."""
    (train, known), (withheld, unknown) = next(movielens_folds(path))
    users, items = (
        np.concatenate(ids).astype(np.int32) for ids in zip(train, withheld, strict=True)
    )
    values = np.concatenate([known, unknown])
    return Triples(users, items, values), np.arange(len(values)) >= len(known)


def goodbooks(path: Path, rng: np.random.Generator) -> tuple[Triples, np.ndarray]:
    """Return the ratings of goodbooks, and which are a random tenth."""
    from funksvd import Ratings

    ratings = Ratings.read(path)
    values = ratings.values.astype(np.float32)
    return Triples(ratings.users, ratings.items, values), rng.random(len(values)) < 0.1


def real_ratings(folder: str) -> Iterator[tuple[str, Parts]]:
    """Yield the name and the parts of ml-100k's fold u1 and of goodbooks."""
    rng = np.random.default_rng(2)
    paths = {"ml-100k, u1": "ml-100k/u.data", "goodbooks": "goodbooks/ratings.csv.gz"}
    for name, relative in paths.items():
        path = Path(folder) / relative
        if not path.exists():
            print(f"{relative} is not in {folder}")
            continue
        ratings, test = goodbooks(path, rng) if name == "goodbooks" else movielens(path)
        validation = ~test & (rng.random(len(test)) < 0.1)
        masks = (~test & ~validation, validation, test)
        parts = [Triples(*(column[mask] for column in ratings)) for mask in masks]
        yield name, Parts(*parts)


def bench_accuracy(options: argparse.Namespace) -> None:
    """Print the test RMSE at the best validation epoch, on real ratings."""
    batches = {
        "n_factors": options.factors,
        "solver": "adamax",
        "batch_size": options.data_batch,
        "learning_rate": RATE,
        "learning_rate_schedule": "constant",
    }
    keras_ways = {
        "Keras, as in the article": 0.0,
        "Keras, with mean, biases and L2": KERAS_L2,
    }
    funksvd_ways: dict[str, dict[str, Any]] = {
        "FunkSVD, defaults": {},
        "FunkSVD, the same k": {"n_factors": options.factors},
        "FunkSVD, mini-batches of AdaMax": batches,
    }
    for name, parts in real_ratings(options.data):
        n = sum(len(part.values) for part in parts)
        print(f"## {name}: {n:,} ratings, k = {options.factors}, test RMSE")
        rows = []
        for way, l2 in keras_ways.items():
            start = time.perf_counter()
            error = best_keras(parts, l2, options)
            rows.append([way, f"{error:.4f}", time.perf_counter() - start])
        for way, params in funksvd_ways.items():
            start = time.perf_counter()
            error = best_funksvd(parts, **params)
            rows.append([way, f"{error:.4f}", time.perf_counter() - start])
        print_table(["model", "test RMSE", "s"], rows, f"RMSE on {name}")


def options_of_command_line() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", choices=SHAPES, default=["ml-1m", "ml-20m"])
    parser.add_argument("--factors", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=10, help="of the curves (default 10)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--plot", metavar="FILE", help="draw validation RMSE against epochs and seconds"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep the generated ratings in this folder")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument(
        "--data", metavar="DIR", help="compare accuracy on the real ratings of this folder, too"
    )
    parser.add_argument(
        "--data-batch", type=int, default=10_000, help="batches there (default 10,000)"
    )
    return parser.parse_args()


def main() -> None:
    """Print one table for each size, and one for each set of real ratings."""
    options = options_of_command_line()
    try:
        import jax  # noqa: F401
        import keras  # noqa: F401
    except ImportError:
        raise SystemExit("Keras or JAX is not installed: pip install 'funksvd[keras]'") from None
    print_header(
        "keras",
        "jax",
        measured="median of the epochs after the first, which compiles, without validation",
    )
    print(ARTICLE + "\n", flush=True)
    curves = {}
    with cache_folder(options.cache) as cache:
        for name in options.sizes:
            curves[name] = bench_size(name, cache, options)
    if options.plot and curves:
        plot(curves, options.plot)
    if options.data:
        bench_accuracy(options)


if __name__ == "__main__":
    main()
