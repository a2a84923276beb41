"""Ranking of unseen items: relevance beside its parts, popularity and implicit's ALS.

    python benchmarks/bench_ranking.py --data FOLDER                 ml-100k, goodbooks, made-up
    python benchmarks/bench_ranking.py --data FOLDER --sets ml-100k
    python benchmarks/bench_ranking.py --data FOLDER --memory        also the peak memory of a fit

A random tenth of the ratings is the test. Test ratings of at least 4 are relevant, and every list
is chosen from all items that the user has not rated in training. funksvd has its defaults, implicit
the best of nine settings, chosen on the test itself, which favours it. The made-up set has
planted tastes in what users take, beside the planted ratings.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
import scipy.sparse

from funksvd import FunkSVD, Ratings
from funksvd.machine.threads import cpu_count

SETS = ("ml-100k", "goodbooks", "made-up")
# Of implicit: weight of a given pair beside one that is not, and penalty; 128 factors, as funksvd.
ALPHAS = (2.0, 10.0, 50.0)
PENALTIES = (1.0, 10.0, 100.0)
FACTORS = 128

Make = Callable[[Ratings], FunkSVD]


class Result(NamedTuple):
    """NDCG@10, recall@20 and the seconds of the fit."""

    ndcg: float
    recall: float
    seconds: float


def ratings_of(name: str, folder: str) -> Ratings:
    """Return the ratings of a set."""
    if name == "ml-100k":
        return Ratings.read(Path(folder) / "ml-100k" / "u.data")
    if name == "goodbooks":
        return Ratings.read(Path(folder) / "goodbooks" / "ratings.csv.gz")
    return made_up()


def made_up(n_users: int = 3000, n_items: int = 2000, each: int = 60, seed: int = 0) -> Ratings:
    """Return ratings of items that users take by planted tastes, and rate by other ones."""
    rng = np.random.default_rng(seed)
    popularity = rng.normal(0, 1.2, n_items)
    taste = rng.normal(0, 1, (n_users, 6)) @ rng.normal(0, 0.7, (6, n_items))
    # The largest of Gumbel-perturbed logits are a draw without replacement.
    perturbed = popularity + taste + rng.gumbel(size=(n_users, n_items))
    items = np.argpartition(-perturbed, each, axis=1)[:, :each].ravel()
    users = np.repeat(np.arange(n_users), each)
    p = rng.normal(0, 1, (n_users, 4))
    q = rng.normal(0, 0.35, (n_items, 4))
    stars = 3.5 + rng.normal(0, 0.4, n_items)[items] + (p[users] * q[items]).sum(1)
    stars += rng.normal(0, 0.7, len(users))
    return Ratings.from_arrays(users, items, np.clip(np.round(stars), 1, 5))


def funksvd(**params: object) -> Make:
    """Return a function that fits a FunkSVD of these parameters."""
    return lambda train: FunkSVD(random_state=0, **params).fit(train)


def implicit_als(alpha: float, penalty: float) -> Make:
    """Return a function that fits implicit's ALS, as a model of solver="ials" with its factors."""

    def fit(train: Ratings) -> FunkSVD:
        from implicit.als import AlternatingLeastSquares

        ones = np.ones(len(train), np.float32)
        shape = (train.n_users, train.n_items)
        pairs = scipy.sparse.coo_matrix((ones, (train.users, train.items)), shape).tocsr()
        als = AlternatingLeastSquares(
            factors=FACTORS,
            alpha=alpha,
            regularization=penalty,
            num_threads=cpu_count(),
            random_state=0,
        )
        als.fit(pairs, show_progress=False)
        return with_factors(train, als.user_factors, als.item_factors)

    return fit


def with_factors(train: Ratings, users: np.ndarray, items: np.ndarray) -> FunkSVD:
    """Return a model that ranks by the products of given factors."""
    model = FunkSVD(FACTORS, 1, solver="ials", random_state=0).fit(train)
    model.set_weights(replace(model.get_weights(), user_factors=users, item_factors=items))
    return model


def measured(make: Make, train: Ratings, test: Ratings, **options: object) -> Result:
    """Return the result of a model."""
    start = time.perf_counter()
    model = make(train)
    return result_of(model, train, test, time.perf_counter() - start, **options)


def result_of(
    model: FunkSVD, train: Ratings, test: Ratings, seconds: float, **options: object
) -> Result:
    """Return the metrics of a fitted model."""
    lists = {"exclude": train, "threshold": 4, **options}
    return Result(
        model.evaluate(test, k=10, **lists)["ndcg"],
        model.evaluate(test, k=20, **lists)["recall"],
        seconds,
    )


def popularity(model: FunkSVD, train: Ratings, test: Ratings) -> Result:
    """Return the result of lists of the most popular items."""
    lists = {"exclude": train, "threshold": 4, "baselines": True}
    ten, twenty = (model.evaluate(test, k=k, **lists)["baselines"]["popularity"] for k in (10, 20))
    return Result(ten["ndcg"], twenty["recall"], 0.0)


def best_of_implicit(train: Ratings, test: Ratings) -> tuple[str, Result]:
    """Return (its settings, the result) of implicit's best setting by NDCG."""
    results = {}
    for alpha in ALPHAS:
        for penalty in PENALTIES:
            name = f"implicit ALS, alpha={alpha:g}, regularization={penalty:g}"
            results[name] = measured(implicit_als(alpha, penalty), train, test)
    best = max(results, key=lambda name: results[name].ndcg)
    return f"{best}: best of nine", results[best]


def rows_of(train: Ratings, test: Ratings) -> Iterator[tuple[str, Result]]:
    """Yield (name, result) of each model."""
    for solver in ("gibbs", "sgd"):
        start = time.perf_counter()
        model = FunkSVD(solver=solver, exposure=True, random_state=0).fit(train)
        seconds = time.perf_counter() - start
        for by in ("relevance", "rating"):
            yield f"{solver}, exposure=True, by {by}", result_of(model, train, test, seconds, by=by)
    yield "ials", measured(funksvd(solver="ials"), train, test)
    yield "most popular", popularity(model, train, test)
    try:
        import implicit  # noqa: F401 - whether it is installed
    except ImportError:
        return
    yield best_of_implicit(train, test)


def prepare(name: str, folder: str) -> tuple[str, Ratings]:
    """Return the training ratings, for the process that measures memory."""
    return name, ratings_of(name, folder).split(0.1, 0)[0]


def fit_for_memory(name: str, train: Ratings) -> None:
    """Fit the default model of relevance."""
    FunkSVD(solver="gibbs", exposure=True, random_state=0).fit(train)


def main() -> None:
    """Print the table of each set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, metavar="FOLDER")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # implicit asks for it
    common.print_header("implicit")
    for name in args.sets:
        train, test = ratings_of(name, args.data).split(0.1, 0)
        rows = []
        for row, result in rows_of(train, test):
            rows.append([row, *result])
            print(f"{name}: {row}: {result.ndcg:.4f}", flush=True)
        common.print_table([name, "NDCG@10", "recall@20", "s"], rows, name)
        if args.memory:
            peak = common.peak_memory("bench_ranking", "prepare", "fit_for_memory", name, args.data)
            print(f"peak memory of a fit with exposure=True: {(peak or 0) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
