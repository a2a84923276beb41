"""Rating error, seconds and coverage of solver="gibbs" beside SGD, Surprise and myFM (peers from pip, where installed).

    python benchmarks/bench_bayes.py --data FOLDER              ml-100k u1-u5, goodbooks, a generated set
    python benchmarks/bench_bayes.py --data FOLDER --speed      seconds of a sweep for 1 M and 20 M ratings, 1 and 2 threads
    python benchmarks/bench_bayes.py --data FOLDER --plot FILE  coverage of the intervals, RMSE against seconds

Everything is measured on ratings that the fit did not see; coverage from the model after saving and loading it.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import common
import numpy as np

from funksvd import FunkSVD, Ratings, load
from funksvd.engines.gibbs import GibbsEngine
from funksvd.machine.threads import cpu_count

LEVELS = (0.5, 0.8, 0.95)


def folds(folder):
    """(train, test) of u1 .. u5: fold N tests rows 20000(N-1) .. 20000N of u.data."""
    table = np.loadtxt(Path(folder) / "ml-100k" / "u.data", dtype=np.int64)
    for first in range(0, len(table), 20_000):
        test = np.zeros(len(table), bool)
        test[first : first + 20_000] = True
        yield tuple(Ratings.from_arrays(*table[mask, :3].T) for mask in (~test, test))


def goodbooks(folder):
    yield Ratings.read(Path(folder) / "goodbooks" / "ratings.csv.gz").split(0.1, 0)


def generated(folder):
    yield Ratings.from_arrays(*common.shaped("ml-1m")).split(0.1, 0)


def spent(work, *arguments, **keywords):
    """(seconds, seconds of CPU of all threads) that `work(...)` takes: the second also holds on a busy machine."""
    start, cpu = time.perf_counter(), time.process_time()
    work(*arguments, **keywords)
    return time.perf_counter() - start, time.process_time() - cpu


def ours(**parameters):
    def run(train, test):
        model = FunkSVD(rating_scale=(1, 5), random_state=0, **parameters)
        seconds = spent(model.fit, train)
        coverage = [np.nan] * len(LEVELS)
        if parameters.get("solver") == "gibbs":
            with tempfile.TemporaryDirectory() as folder:
                model.save(Path(folder) / "model.npz")
                model = load(Path(folder) / "model.npz")
            intervals = [model.predict_interval(test, level) for level in LEVELS]
            coverage = [
                np.mean((low <= test.values) & (test.values <= high)) for low, high in intervals
            ]
        return model.evaluate(test)["rmse"], seconds, coverage

    return run


def running_mean(n_factors, n_epochs):
    """What the low-rank model approximates: the mean of the samples' predictions of the test ratings themselves."""

    def run(train, test):
        hyper = SimpleNamespace(**FunkSVD(n_factors, n_epochs, solver="gibbs").get_params())
        engine = GibbsEngine(train, test, hyper, seed=0, n_jobs=cpu_count())
        seconds = spent(lambda: [engine.epoch(epoch, 0.0) for epoch in range(n_epochs)])
        predicted = np.clip(engine.mean + engine.sd * engine.held_sum / engine.kept, 1, 5)
        return common.rmse(predicted, engine.held_out[2]), seconds, [np.nan] * len(LEVELS)

    return run


def surprise(train, test):
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    frame = pd.DataFrame({"u": train.users, "i": train.items, "r": train.values})
    full = Dataset.load_from_df(frame, Reader(rating_scale=(1, 5))).build_full_trainset()
    model = SVD(random_state=0)
    seconds = spent(model.fit, full)
    users, items = test.codes_in(train.tables)
    predicted = [
        model.predict(u, i).est for u, i in zip(users.tolist(), items.tolist(), strict=True)
    ]
    return common.rmse(predicted, test.values), seconds, [np.nan] * len(LEVELS)


def myfm(rank, n_iter):
    def run(train, test):
        from myfm import MyFMRegressor
        from scipy.sparse import csr_array

        users, items = test.codes_in(train.tables)
        shape = train.n_users, train.n_items

        def one_hot(users, items):
            known = [np.flatnonzero(codes >= 0) for codes in (users, items)]
            rows, columns = (
                np.concatenate(known),
                np.concatenate([users[known[0]], shape[0] + items[known[1]]]),
            )
            return csr_array((np.ones(len(rows)), (rows, columns)), (len(users), sum(shape)))

        model = MyFMRegressor(rank=rank, random_seed=0)
        x = one_hot(train.users, train.items)
        group_shapes = [train.n_users, train.n_items]
        seconds = spent(
            model.fit,
            x,
            train.values,
            n_iter=n_iter,
            n_kept_samples=n_iter - 10,
            group_shapes=group_shapes,
        )
        predicted = np.clip(model.predict(one_hot(users, items)), 1, 5)
        return common.rmse(predicted, test.values), seconds, [np.nan] * len(LEVELS)

    return run


SETS = {"ml-100k": folds, "goodbooks": goodbooks, "generated": generated}
RUNS = {
    "gibbs, k=16, 12 sweeps": ours(n_factors=16, n_epochs=12, solver="gibbs"),
    "gibbs, k=16, 60 sweeps": ours(n_factors=16, n_epochs=60, solver="gibbs"),
    "  its running mean": running_mean(16, 60),
    "  means of the factors": ours(n_factors=16, n_epochs=60, solver="gibbs", average="factors"),
    "gibbs, k=32, 120 sweeps": ours(n_factors=32, n_epochs=120, solver="gibbs"),
    "  its running mean, k=32": running_mean(32, 120),
    **{
        f"{solver}, defaults": ours(solver=solver)
        for solver in ("sgd", "adagrad_row", "adagrad", "adam", "adamax")
    },
    "Surprise SVD, defaults": surprise,
    "myFM, rank 16, 60 sweeps": myfm(16, 60),
    "myFM, rank 32, 200 sweeps": myfm(32, 200),
}


def measured(name, run, folder):
    """(RMSE, `spent`, coverage), each the mean over the set's splits; None where a peer is not installed."""
    try:
        results = [run(train, test) for train, test in SETS[name](folder)]
    except ImportError:
        return None
    return [np.mean([np.atleast_1d(r[part]) for r in results], axis=0) for part in range(3)]


def speed():
    """Seconds of the sweeps and of the whole fit, by threads."""
    rows = []
    for name, sweeps in (("ml-1m", 60), ("ml-20m", 30)):
        ratings = Ratings.from_arrays(*common.shaped(name))
        seconds = {}
        for n_jobs in (1, 2):
            model = FunkSVD(16, sweeps, solver="gibbs", random_state=0, n_jobs=n_jobs)
            seconds[n_jobs] = *spent(model.fit, ratings), sum(model.history_["seconds"])
        rows.append(
            [
                f"{name}, k=16, {sweeps} sweeps",
                *seconds[1],
                *seconds[2],
                seconds[1][2] / seconds[2][2],
            ]
        )
    common.print_table(
        [
            "ratings",
            "fit, 1 thread",
            "of CPU",
            "its sweeps",
            "fit, 2 threads",
            "of CPU",
            "its sweeps",
            "ratio of sweeps",
        ],
        rows,
    )


def plot(path, results, folder):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    asked = np.linspace(0.05, 0.99, 20)
    for name in ("ml-100k", "goodbooks"):
        train, test = next(SETS[name](folder))
        model = FunkSVD(16, 60, solver="gibbs", rating_scale=(1, 5), random_state=0).fit(train)
        ends = [model.predict_interval(test, level) for level in asked]
        left.plot(
            asked,
            [np.mean((low <= test.values) & (test.values <= high)) for low, high in ends],
            "o-",
            label=name,
        )
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    left.set(
        xlabel="coverage asked for", ylabel="share of held-out ratings inside", title="Intervals"
    )
    left.legend()
    shown = [
        (run, found)
        for (name, run), found in results.items()
        if name == "ml-100k" and not run.startswith(" ")
    ]
    for number, (run, (error, seconds, _)) in enumerate(shown):
        right.plot(seconds[0], error[0], "os^"[number // 10], label=run)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    right.set(
        xscale="log", xlabel="seconds of fit, mean over u1-u5", ylabel="test RMSE", title="ml-100k"
    )
    figure.savefig(path, dpi=150)
    print("wrote", path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, help="folder with ml-100k/u.data and goodbooks/ratings.csv.gz"
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--speed", action="store_true", help="seconds only")
    parser.add_argument("--plot", help="write the two plots to this file")
    parser.add_argument(
        "--slow", action="store_true", help="peers on the larger sets too (myFM takes many minutes)"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # test ids that a fold's train part does not have
    common.print_header("myfm", "scikit-surprise")
    if options.speed:
        return speed()
    results = {}
    for name in options.sets:
        rows = []
        for label, run in RUNS.items():
            if label.startswith("myFM") and name != "ml-100k" and not options.slow:
                continue
            found = measured(name, run, options.data)
            if found is not None:
                results[name, label] = found
                error, seconds, coverage = found
                shown = [f"{c:.3f}" if np.isfinite(c) else "-" for c in coverage]
                rows.append([label, f"{error[0]:.4f}", *map(float, seconds), *shown])
        common.print_table(
            [name, "RMSE", "seconds", "of CPU", *(f"{level:.0%}" for level in LEVELS)], rows
        )
    if options.plot:
        plot(options.plot, results, options.data)


if __name__ == "__main__":
    main()
