"""How fast does a trained model answer, and how good are fold-in, partial_fit and a search?

python benchmarks/bench_serving.py --only recommend
python benchmarks/bench_serving.py --data FOLDER
"""

import argparse
import copy
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
from common import SHAPES, check, median_seconds, peak_memory, planted, print_header, print_table

from funksvd import FunkSVD, Ratings
from funksvd.machine.memory import aligned
from funksvd.ratings.ids import IdTable
from funksvd.weights import Fitted, Weights, predict

K, N = 64, 10
PARTS = ("recommend", "fold-in", "partial-fit", "search")


def served(n_users, n_items, k=K):
    """A model of random parameters, whose ids are 0, 1, ..."""
    rng = np.random.default_rng(0)
    factors = []
    for n in (n_users, n_items):
        rows = aligned(n, k, np.float32)
        rows[:] = rng.normal(0, 0.3, (n, k))
        factors.append(rows)
    biases = [rng.normal(0, 0.4, n).astype(np.float32) for n in (n_users, n_items)]
    model = FunkSVD(n_factors=k, random_state=0)
    tables = tuple(IdTable(np.arange(n), n) for n in (n_users, n_items))
    model._fitted = Fitted(Weights(3.5, *biases, *factors), tables)
    model.history_, model.n_epochs_, model.n_ratings_ = {"learning_rate": [0.02] * 20}, 20, 0
    return model


def ratings_like(shape):
    return Ratings.from_arrays(*planted(SHAPES[shape]))


def memory_before(shape):
    size = SHAPES[shape]
    return served(size.users, size.items), ratings_like(shape)


def memory_run(model, ratings):
    model.recommend(n=N, exclude=ratings)


def bench_recommend(shape):
    """All users and a few, beside implicit on the same factors and the plain matrix product."""
    size = SHAPES[shape]
    model, ratings = served(size.users, size.items), ratings_like(shape)
    params = model.get_weights()
    users = np.arange(1000)
    ids, _ = model.recommend(users, N, ratings)
    start, seen = ratings.by_user()
    for u in range(0, 1000, 97):  # against sorting all predictions
        scores = predict(
            params, np.full(size.items, u, np.int32), np.arange(size.items, dtype=np.int32)
        )
        row = np.searchsorted(ratings.user_ids, u)
        scores[ratings.item_ids[seen[start[row] : start[row + 1]]]] = -np.inf
        check(
            ids[u].tolist() == np.lexsort((np.arange(size.items), -scores))[:N].tolist(),
            f"recommend for user {u}",
        )

    def all_users():
        return model.recommend(n=N, exclude=ratings)

    def first_time():
        ratings._by_user = None
        return all_users()

    blocks = [slice(s, s + 1024) for s in range(0, size.users, 1024)]
    out = np.empty((1024, size.items), np.float32)

    def product():
        for part in blocks:
            p = params.user_factors[part]
            np.matmul(p, params.item_factors.T, out=out[: len(p)])

    runs = {
        "funksvd": all_users,
        "funksvd, ratings not yet sorted by user": first_time,
        "matrix product alone, NumPy, its own threads": product,
    }
    try:
        runs["implicit"] = implicit_run(params, ratings, ids)
    except ImportError as error:
        print(f"left out: implicit ({error})")
    # In turn, so that all have the machine's better and worse moments.
    turns = [[median_seconds(run, 1, 0) for run in runs.values()] for _ in range(3)]
    seconds = dict(zip(runs, np.median(turns, axis=0).tolist(), strict=True))
    rows = [[name, s, s / seconds["funksvd"]] for name, s in seconds.items()]
    print(
        f"{shape}: {size.users:,} users x {size.items:,} items, k={K}, n={N}, the {len(ratings):,} pairs seen left out"
    )
    print_table(["recommend for all users", "s", "ratio"], rows)
    few = np.arange(0, 1000, 100)
    model.recommend(few, N, ratings)
    print_table(
        ["recommend", "ms"],
        [
            ["10 users", 1000 * median_seconds(lambda: model.recommend(few, N, ratings), 30)],
            ["1 user", 1000 * median_seconds(lambda: model.recommend(5, N, ratings), 30)],
            ["similar_items of 1", 1000 * median_seconds(lambda: model.similar_items(5, N), 30)],
        ],
    )
    peak = peak_memory("bench_serving", "memory_before", "memory_run", shape)
    print(
        f"peak memory of recommend for all users, beyond model and ratings: {peak / 1e6:.0f} MB\n"
    )
    items = np.random.default_rng(1).choice(size.items, 50, replace=False)
    X, y = (np.full(50, size.users + 1), items), np.random.default_rng(2).normal(3.5, 1, 50)
    ms = 1000 * median_seconds(lambda: model.fold_in(X, y, extend=False), 50, 5)
    print(f"fold-in of one user with 50 ratings, k={K}: {ms:.3f} ms\n")


def implicit_run(params, ratings, ours):
    """implicit's recommend with one BLAS thread for each of its own, as it asks for; its matrix is made before."""
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = AlternatingLeastSquares(factors=K + 1, use_gpu=False)
    peer.item_factors = np.column_stack([params.item_factors, params.item_biases]).astype(
        np.float32
    )
    n_users = len(params.user_factors)
    peer.user_factors = np.column_stack([params.user_factors, np.ones(n_users)]).astype(np.float32)
    pairs = ratings.user_ids[ratings.users], ratings.item_ids[ratings.items]
    seen = sparse.csr_matrix(
        (np.ones(len(ratings), np.float32), pairs), shape=(n_users, len(params.item_factors))
    )

    def recommend(users, rows):
        with threadpool_limits(1, "blas"):
            return peer.recommend(users, rows, N=N, filter_already_liked_items=True)[0]

    some, everybody = np.arange(len(ours)), np.arange(n_users)
    check((recommend(some, seen[some]) == ours).mean() > 0.999, "implicit recommends other items")
    return lambda: recommend(everybody, seen)


def part(ratings, mask):
    ids = ratings.user_ids[ratings.users[mask]], ratings.item_ids[ratings.items[mask]]
    return Ratings.from_arrays(*ids, ratings.values[mask])


def bench_fold_in(data):
    """Users held out whole: a fifth of their ratings hidden, the rest folded in."""
    ratings = Ratings.read(data / "goodbooks" / "ratings.csv.gz")
    rng = np.random.default_rng(0)
    new = np.isin(ratings.users, rng.choice(ratings.n_users, 10_000, replace=False))
    hidden = new & (rng.random(len(ratings)) < 0.2)
    test, given, everything = (
        part(ratings, hidden),
        part(ratings, new & ~hidden),
        part(ratings, ~hidden),
    )
    model = FunkSVD(random_state=0).fit(part(ratings, ~new))
    start = time.perf_counter()
    folded = model.fold_in(given)
    seconds = time.perf_counter() - start
    rows = [
        ["folded in", folded.evaluate(test)["rmse"], seconds],
        *timed_fit("retrained on all", FunkSVD(random_state=0), everything, test),
        *timed_fit(
            "retrained, biases only", FunkSVD(1, init_std=0, random_state=0), everything, test
        ),
    ]
    print(
        f"goodbooks: 10,000 users left out of training, RMSE on {len(test):,} hidden ratings of theirs"
    )
    print_table(["", "RMSE", "s"], [[name, f"{rmse:.4f}", s] for name, rmse, s in rows])


def timed_fit(name, model, train, test):
    start = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - start
    yield [name, model.evaluate(test)["rmse"], seconds]


def bench_partial_fit(data, shape):
    """RMSE on goodbooks after 1 % new ratings, and time against the number of new ratings."""
    train, test = Ratings.read(data / "goodbooks" / "ratings.csv.gz").split(0.1, 0)
    old, new = train.split(0.01, 1)
    rows = [*timed_fit("trained on the old 99 %", model := FunkSVD(random_state=0), old, test)]
    start = time.perf_counter()
    more = copy.copy(model).partial_fit(new)
    seconds = time.perf_counter() - start
    rows += [["partial_fit on 1 %", more.evaluate(test)["rmse"], seconds]]
    rows += timed_fit("retrained on all", FunkSVD(random_state=0), train, test)
    print(f"goodbooks: {len(new):,} new ratings, RMSE on {len(test):,} others")
    print_table(["", "RMSE", "s"], [[name, f"{rmse:.4f}", s] for name, rmse, s in rows])
    size = SHAPES[shape]
    big, rng = served(size.users, size.items), np.random.default_rng(0)
    rows = []
    for n in (1000, 10_000, 100_000, 1_000_000):
        X, y = (
            (rng.integers(0, size.users, n), rng.integers(0, size.items, n)),
            rng.normal(3.5, 1, n),
        )
        seconds = median_seconds(lambda X=X, y=y: copy.copy(big).partial_fit(X, y), 3)
        rows.append([f"{n:,}", 1000 * seconds, 1e6 * seconds / n])
    print(f"{shape}: partial_fit of 5 epochs, k={K}")
    print_table(["new ratings", "ms", "us a rating"], rows)


def bench_search(data):
    """12 settings x 3 folds of ml-100k, with 1 and 2 workers."""
    from sklearn.model_selection import GridSearchCV

    table = np.loadtxt(data / "ml-100k" / "u.data", dtype=np.int64)
    grid = {"n_factors": [20, 50, 100], "l2": [0.05, 0.08], "learning_rate": [0.01, 0.02]}
    rows = []
    for n_jobs in (1, 2):
        search = GridSearchCV(
            FunkSVD(random_state=0),
            grid,
            cv=3,
            n_jobs=n_jobs,
            scoring="neg_root_mean_squared_error",
        )
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ids that a fold's training part does not know
            search.fit(table[:, :2], table[:, 2])
        seconds = time.perf_counter() - start
        rows.append(
            [str(n_jobs), seconds, f"{-search.best_score_:.4f}", json.dumps(search.best_params_)]
        )
    check(rows[0][3] == rows[1][3], "the searches picked different settings")
    print("GridSearchCV, 12 settings x 3 folds of ml-100k")
    print_table(["n_jobs", "s", "RMSE", "best"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("FUNKSVD_DATA"),
        help="default: $FUNKSVD_DATA",
    )
    parser.add_argument("--shape", choices=SHAPES, default="ml-20m")
    parser.add_argument("--only", choices=PARTS)
    options = parser.parse_args()
    print_header("implicit", "scikit-learn", "scipy")
    wanted = PARTS if options.only is None else (options.only,)
    if options.data is None and {"fold-in", "partial-fit", "search"} & {*wanted}:
        parser.error(
            "--data is needed: a folder that holds ml-100k/u.data and goodbooks/ratings.csv.gz"
        )
    data = Path(options.data or ".")
    for name in wanted:
        {
            "recommend": lambda: bench_recommend(options.shape),
            "fold-in": lambda: bench_fold_in(data),
            "partial-fit": lambda: bench_partial_fit(data, options.shape),
            "search": lambda: bench_search(data),
        }[name]()


if __name__ == "__main__":
    main()
