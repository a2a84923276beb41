"""Rating error, seconds and coverage of solver="gibbs" beside other solvers and peers.

    python benchmarks/bench_bayes.py --data FOLDER              three sets of ratings
    python benchmarks/bench_bayes.py --data FOLDER --speed      seconds of 1 M and 20 M ratings
    python benchmarks/bench_bayes.py --data FOLDER --plot FILE  coverage, RMSE against seconds

The sets are ml-100k u1-u5, goodbooks and generated ratings; --speed runs one thread and two. The
peers come from pip and are left out where they are not installed. Everything is measured on ratings
that the fit did not see; coverage is that of the model after saving and loading it.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bench_peers
import common
import libmf_source
import numpy as np

from funksvd import FunkSVD, Ratings, load
from funksvd.engines.gibbs import GibbsEngine
from funksvd.hyper import resolve
from funksvd.machine.threads import cpu_count

COVERAGES = (0.5, 0.8, 0.95)
# LIBMF has no defaults that suit ratings: epochs, factors and penalty are the best of l2 0.05, 0.1
# and 0.2 and of 20 and 40 epochs on other splits (seed 11) of ml-100k and goodbooks.
LIBMF = (20, 32)
LIBMF_L2 = 0.1
NO_COVERAGE = [np.nan] * len(COVERAGES)

Split = tuple[Ratings, Ratings]


class Spent(NamedTuple):
    """Seconds on the clock, and of the CPU in all threads: these hold on a busy machine, too."""

    clock: float
    cpu: float


class Result(NamedTuple):
    """RMSE on the test ratings, time of the fit, and share of them in intervals of `COVERAGES`."""

    rmse: float
    spent: Spent
    coverage: list[float]


Run = Callable[[Ratings, Ratings], Result]


def folds(folder: str) -> Iterator[Split]:
    """Yield (train, test) of u1 to u5: fold N tests rows 20000 (N - 1) to 20000 N of u.data."""
    table = np.loadtxt(Path(folder) / "ml-100k" / "u.data", dtype=np.int64)
    for first in range(0, len(table), 20_000):
        test = np.zeros(len(table), bool)
        test[first : first + 20_000] = True
        train_part, test_part = (Ratings.from_arrays(*table[mask, :3].T) for mask in (~test, test))
        yield train_part, test_part


def goodbooks(folder: str) -> Iterator[Split]:
    """Yield (train, test) of goodbooks-10k, once."""
    yield Ratings.read(Path(folder) / "goodbooks" / "ratings.csv.gz").split(0.1, 0)


def generated(folder: str) -> Iterator[Split]:
    """Yield (train, test) of made-up ratings of ml-1m's shape, once."""
    yield Ratings.from_arrays(*common.shaped("ml-1m")).split(0.1, 0)


def timed(work: Callable[..., Any], *arguments: Any, **keywords: Any) -> Spent:
    """Return the `Spent` of a call."""
    start = time.perf_counter()
    cpu = time.process_time()
    work(*arguments, **keywords)
    return Spent(time.perf_counter() - start, time.process_time() - cpu)


def share_inside(model: FunkSVD, ratings: Ratings, coverage: float) -> float:
    """Return the share of ratings that lies in the model's intervals."""
    low, high = model.predict_interval(ratings, coverage)
    return float(np.mean((low <= ratings.values) & (ratings.values <= high)))


def funksvd(**parameters: Any) -> Run:
    """Return a run of FunkSVD with these parameters."""

    def run(train: Ratings, test: Ratings) -> Result:
        model = FunkSVD(rating_scale=(1, 5), random_state=0, **parameters)
        spent = timed(model.fit, train)
        coverage = NO_COVERAGE
        if parameters.get("solver") == "gibbs":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.npz"
                model.save(path)
                model = load(path)
            coverage = [share_inside(model, test, asked) for asked in COVERAGES]
        return Result(model.evaluate(test)["rmse"], spent, coverage)

    return run


def running_mean(n_factors: int, n_epochs: int) -> Run:
    """Return a run whose predictions are the means of the samples' own.

    The low-rank model approximates them.
    """

    def run(train: Ratings, test: Ratings) -> Result:
        model = FunkSVD(n_factors, n_epochs, solver="gibbs")
        hyper = resolve(model.get_params())
        engine = GibbsEngine(train, test, hyper, seed=0, n_jobs=cpu_count())

        def sweeps() -> None:
            for epoch in range(n_epochs):
                engine.epoch(epoch, 0.0)

        spent = timed(sweeps)
        mean = engine.held_out_sum / engine.sums.n_samples
        predicted = np.clip(engine.mean + engine.std * mean, 1, 5)
        return Result(common.rmse(predicted, engine.held_out.values), spent, NO_COVERAGE)

    return run


def surprise(train: Ratings, test: Ratings) -> Result:
    """Run Surprise's SVD with its defaults."""
    import pandas as pd
    from surprise import SVD, Dataset, Reader

    frame = pd.DataFrame({"u": train.users, "i": train.items, "r": train.values})
    full = Dataset.load_from_df(frame, Reader(rating_scale=(1, 5))).build_full_trainset()
    model = SVD(random_state=0)
    spent = timed(model.fit, full)
    users, items = test.codes_in(train.tables)
    pairs = zip(users.tolist(), items.tolist(), strict=True)
    predicted = [model.predict(user, item).est for user, item in pairs]
    return Result(common.rmse(predicted, test.values), spent, NO_COVERAGE)


def libmf(peer: Any) -> Run:
    """Return a run of LIBMF as `bench_peers.py` trains it; strangers get the mean.

    `peer` is one of `bench_peers.peers_of`.
    """

    def run(train: Ratings, test: Ratings) -> Result:
        table = peer.prepare(train.users, train.items, train.values)
        fitted = []

        def fit() -> None:
            fitted.append(peer.fit(table, *LIBMF, cpu_count(), LIBMF_L2)[0])

        spent = timed(fit)
        users, items = test.codes_in(train.tables)
        known = (users >= 0) & (items >= 0)
        predicted = np.full(len(users), np.mean(train.values))
        predicted[known] = bench_peers.predict_libmf(peer, fitted[0], users[known], items[known])
        return Result(common.rmse(np.clip(predicted, 1, 5), test.values), spent, NO_COVERAGE)

    return run


def one_hot(users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> Any:
    """Return a sparse matrix with a column for each user and each item; -1 has none."""
    from scipy.sparse import csr_array

    rows = []
    columns = []
    for codes, first in ((users, 0), (items, shape[0])):
        known = np.flatnonzero(codes >= 0)
        rows.append(known)
        columns.append(first + codes[known])
    rows = np.concatenate(rows)
    columns = np.concatenate(columns)
    return csr_array((np.ones(len(rows)), (rows, columns)), (len(users), sum(shape)))


def myfm(rank: int, n_iter: int) -> Run:
    """Return a run of myFM's Gibbs sampler."""

    def run(train: Ratings, test: Ratings) -> Result:
        from myfm import MyFMRegressor

        shape = (train.n_users, train.n_items)
        model = MyFMRegressor(rank=rank, random_seed=0)
        spent = timed(
            model.fit,
            one_hot(train.users, train.items, shape),
            train.values,
            n_iter=n_iter,
            n_kept_samples=n_iter - 10,
            group_shapes=list(shape),
        )
        asked = one_hot(*test.codes_in(train.tables), shape)
        predicted = np.clip(model.predict(asked), 1, 5)
        return Result(common.rmse(predicted, test.values), spent, NO_COVERAGE)

    return run


SETS = {"ml-100k": folds, "goodbooks": goodbooks, "generated": generated}
RUNS = {
    "gibbs, k=16, 12 sweeps": funksvd(n_factors=16, n_epochs=12, solver="gibbs"),
    "gibbs, k=16, 60 sweeps": funksvd(n_factors=16, n_epochs=60, solver="gibbs"),
    "  its running mean": running_mean(16, 60),
    "  without sets": funksvd(n_factors=16, n_epochs=60, solver="gibbs", sets=False),
    "  means of the factors": funksvd(n_factors=16, n_epochs=60, solver="gibbs", average="factors"),
    "gibbs, k=32, 120 sweeps": funksvd(n_factors=32, n_epochs=120, solver="gibbs"),
    "  its running mean, k=32": running_mean(32, 120),
    "sgd, defaults": funksvd(solver="sgd"),
    "adagrad_row, defaults": funksvd(solver="adagrad_row"),
    "adagrad, defaults": funksvd(solver="adagrad"),
    "adam, defaults": funksvd(solver="adam"),
    "adamax, defaults": funksvd(solver="adamax"),
    "Surprise SVD, defaults": surprise,
    "myFM, rank 16, 60 sweeps": myfm(16, 60),
    "myFM, rank 32, 200 sweeps": myfm(32, 200),
}


def mean_result(set_name: str, run: Run, folder: str) -> Result | None:
    """Return the mean `Result` over a set's splits; None where a peer is not installed."""
    try:
        results = [run(train, test) for train, test in SETS[set_name](folder)]
    except ImportError:
        return None
    spent = np.mean([result.spent for result in results], axis=0)
    coverage = np.mean([result.coverage for result in results], axis=0)
    return Result(np.mean([result.rmse for result in results]), Spent(*spent), coverage.tolist())


def print_speed() -> None:
    """Print the seconds of the sweeps and of whole fits, by threads."""
    header = ["ratings"]
    for threads in ("1 thread", "2 threads"):
        header += [f"fit, {threads}", "of CPU", "its sweeps"]
    header.append("ratio of sweeps")
    rows = []
    for name, n_sweeps in (("ml-1m", 60), ("ml-20m", 30)):
        ratings = Ratings.from_arrays(*common.shaped(name))
        row = [f"{name}, k=16, {n_sweeps} sweeps"]
        sweeps = []
        for n_jobs in (1, 2):
            model = FunkSVD(16, n_sweeps, solver="gibbs", random_state=0, n_jobs=n_jobs)
            spent = timed(model.fit, ratings)
            sweeps.append(sum(model.history_["seconds"]))
            row += [*spent, sweeps[-1]]
        rows.append([*row, sweeps[0] / sweeps[1]])
    common.print_table(header, rows, "speed")


def print_set(
    set_name: str, runs: dict[str, Run], options: argparse.Namespace
) -> dict[str, Result]:
    """Print the table of one set of ratings; return {run: Result}."""
    print(f"## {set_name}")
    header = ["model", "RMSE", "seconds", "of CPU"]
    header += [f"{coverage:.0%}" for coverage in COVERAGES]
    results = {}
    rows = []
    for name, run in runs.items():
        if name.startswith("myFM") and set_name != "ml-100k" and not options.slow:
            continue
        result = mean_result(set_name, run, options.data)
        if result is None:
            continue
        results[name] = result
        shown = [f"{share:.3f}" if np.isfinite(share) else "-" for share in result.coverage]
        rows.append([name, f"{result.rmse:.4f}", *result.spent, *shown])
    common.print_table(header, rows, set_name)
    return results


def draw_coverage(axes: Any, folder: str) -> None:
    """Draw the share of held-out ratings in the intervals against the coverage asked for."""
    asked = np.linspace(0.05, 0.99, 20)
    for name in ("ml-100k", "goodbooks"):
        train, test = next(SETS[name](folder))
        model = FunkSVD(16, 60, solver="gibbs", rating_scale=(1, 5), random_state=0).fit(train)
        axes.plot(asked, [share_inside(model, test, share) for share in asked], "o-", label=name)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(
        xlabel="coverage asked for",
        ylabel="share of held-out ratings inside",
        title="Intervals",
    )
    axes.legend()


def draw_errors(axes: Any, results: dict[str, Result]) -> None:
    """Draw the RMSE against the seconds of the fit."""
    shown = [(name, result) for name, result in results.items() if not name.startswith(" ")]
    for number, (name, result) in enumerate(shown):
        axes.plot(result.spent.clock, result.rmse, "os^"[number // 10], label=name)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    axes.set(
        xscale="log",
        xlabel="seconds of fit, mean over u1-u5",
        ylabel="test RMSE",
        title="ml-100k",
    )


def plot(path: str, results: dict[str, Result], folder: str) -> None:
    """Write both plots to a file; `results` are those of ml-100k."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_coverage(left, folder)
    draw_errors(right, results)
    figure.savefig(path, dpi=150)
    print("wrote", path)


def chosen_runs(library: str | None, options: argparse.Namespace) -> dict[str, Run]:
    """Return the runs that are asked for; `library` is LIBMF's newest source, compiled."""
    runs = dict(RUNS)
    for peer in bench_peers.peers_of(library):
        runs[f"{peer.name}, k={LIBMF[1]}"] = libmf(peer)
    if not options.runs:
        return runs
    wanted = {}
    for name, run in runs.items():
        if any(text in name for text in options.runs):
            wanted[name] = run
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, help="folder with ml-100k/u.data and goodbooks/ratings.csv.gz"
    )
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=list(SETS), help="sets of ratings to run"
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="TEXT", help="only the models whose names hold one of these"
    )
    parser.add_argument(
        "--libmf-source", metavar="DIR", help="folder of LIBMF's source, to compile and run, too"
    )
    parser.add_argument("--speed", action="store_true", help="print seconds only")
    parser.add_argument("--plot", help="write the two plots to this file")
    parser.add_argument(
        "--slow",
        action="store_true",
        help="run myFM on the larger sets, too, which takes many minutes",
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # test ids that a fold's train part does not have
    common.print_header("libmf", "myfm", "scikit-surprise")
    if options.speed:
        print_speed()
        return
    with tempfile.TemporaryDirectory() as folder:
        library = None
        if options.libmf_source is not None:
            library = libmf_source.build(options.libmf_source, folder)
        runs = chosen_runs(library, options)
        results = {name: print_set(name, runs, options) for name in options.sets}
    if options.plot:
        plot(options.plot, results.get("ml-100k", {}), options.data)


if __name__ == "__main__":
    main()
