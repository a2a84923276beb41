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
from funksvd.weights import Fitted, Trained, Weights, predict

N_FACTORS = 64
N_BEST = 10
# Users whose recommendations are checked against the sorting of all their predictions.
CHECKED_USERS = range(0, 1000, 97)
FEW_USERS = np.arange(0, 1000, 100)
USERS_OF_A_PRODUCT = 1024


# ---- recommend and fold-in of one user, on made-up weights ----


def served_model(n_users, n_items):
    """Return a model of random weights, whose ids are 0, 1, ..."""
    rng = np.random.default_rng(0)
    weights = Weights(
        global_mean=3.5,
        user_factors=random_factors(rng, n_users),
        item_factors=random_factors(rng, n_items),
        user_biases=rng.normal(0, 0.4, n_users).astype(np.float32),
        item_biases=rng.normal(0, 0.4, n_items).astype(np.float32),
    )
    users = IdTable(np.arange(n_users), n_users)
    items = IdTable(np.arange(n_items), n_items)
    model = FunkSVD(n_factors=N_FACTORS, random_state=0)
    trained = Trained({"learning_rate": [0.02] * 20}, n_epochs=20, n_ratings=0)
    return model._take_over(Fitted(weights, (users, items), trained))


def random_factors(rng, rows):
    """Return random float32 factors in aligned memory."""
    factors = aligned(rows, N_FACTORS, np.float32)
    factors[:] = rng.normal(0, 0.3, (rows, N_FACTORS))
    return factors


def ratings_like(shape):
    """Return made-up ratings of the shape of a public data set."""
    return Ratings.from_arrays(*planted(SHAPES[shape]))


def memory_before(shape):
    """Return the arguments of `memory_run`, whose own memory does not count."""
    size = SHAPES[shape]
    return served_model(size.users, size.items), ratings_like(shape)


def memory_run(model, ratings):
    """Recommend for all users; the peak of its memory is measured."""
    model.recommend(n=N_BEST, exclude=ratings)


def bench_recommend(shape):
    """Time `recommend` for all users and a few, beside implicit and the plain matrix product."""
    size = SHAPES[shape]
    model = served_model(size.users, size.items)
    ratings = ratings_like(shape)
    check_recommended(model, ratings)
    runs = {
        "funksvd": lambda: model.recommend(n=N_BEST, exclude=ratings),
        "funksvd, ratings not yet sorted by user": lambda: recommend_unsorted(model, ratings),
        "matrix product alone, NumPy, its own threads": product_run(model.get_weights()),
    }
    try:
        runs["implicit"] = implicit_run(model, ratings)
    except ImportError as error:
        print(f"left out: implicit ({error})")
    # In turn, so that all have the machine's better and worse moments.
    turns = [[median_seconds(run, 1, 0) for run in runs.values()] for _ in range(3)]
    medians = np.median(turns, axis=0).tolist()
    rows = [
        [name, seconds, seconds / medians[0]] for name, seconds in zip(runs, medians, strict=True)
    ]
    print(
        f"{shape}: {size.users:,} users x {size.items:,} items, k={N_FACTORS}, n={N_BEST},"
        f" the {len(ratings):,} pairs seen left out"
    )
    print_table(["recommend for all users", "s", "ratio"], rows, "all users")
    print_few(model, ratings)
    peak = peak_memory("bench_serving", "memory_before", "memory_run", shape)
    megabytes = peak / 1e6
    print(f"peak memory of recommend for all users, beyond model and ratings: {megabytes:.0f} MB\n")
    print_fold_in_of_one(model, size)


def check_recommended(model, ratings):
    """Check some users' recommendations against the sorting of all predictions."""
    ids, _ = model.recommend(np.arange(1000), N_BEST, ratings)
    weights = model.get_weights()
    items = np.arange(len(weights.item_factors), dtype=np.int32)
    start, seen = ratings.by_user()
    for user in CHECKED_USERS:
        scores = predict(weights, np.full(len(items), user, np.int32), items)
        row = np.searchsorted(ratings.user_ids, user)
        seen_codes = seen[start[row] : start[row + 1]]
        scores[ratings.item_ids[seen_codes]] = -np.inf
        best = np.lexsort((items, -scores))[:N_BEST]
        check(ids[user].tolist() == best.tolist(), f"recommend for user {user}")


def recommend_unsorted(model, ratings):
    """Recommend for all users as the first time, when the ratings are not sorted by user."""
    ratings._by_user = None
    model.recommend(n=N_BEST, exclude=ratings)


def product_run(weights):
    """Return a function that multiplies the factors of all users and items, block by block."""
    n_users = len(weights.user_factors)
    out = np.empty((USERS_OF_A_PRODUCT, len(weights.item_factors)), np.float32)

    def product():
        for first in range(0, n_users, USERS_OF_A_PRODUCT):
            p = weights.user_factors[first : first + USERS_OF_A_PRODUCT]
            np.matmul(p, weights.item_factors.T, out=out[: len(p)])

    return product


def implicit_run(model, ratings):
    """Return implicit's recommend for all users, on the same factors.

    It runs with one BLAS thread for each of its own threads, as it asks for, and its sparse matrix
    is made before.
    """
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse
    from threadpoolctl import threadpool_limits

    weights = model.get_weights()
    n_users = len(weights.user_factors)
    n_items = len(weights.item_factors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = AlternatingLeastSquares(factors=N_FACTORS + 1, use_gpu=False)
    items = np.column_stack([weights.item_factors, weights.item_biases])
    users = np.column_stack([weights.user_factors, np.ones(n_users)])
    peer.item_factors = items.astype(np.float32)
    peer.user_factors = users.astype(np.float32)
    pairs = (ratings.user_ids[ratings.users], ratings.item_ids[ratings.items])
    ones = np.ones(len(ratings), np.float32)
    seen = sparse.csr_matrix((ones, pairs), shape=(n_users, n_items))

    def recommend(users, rows):
        with threadpool_limits(1, "blas"):
            ids, _ = peer.recommend(users, rows, N=N_BEST, filter_already_liked_items=True)
        return ids

    some = np.arange(1000)
    ours, _ = model.recommend(some, N_BEST, ratings)
    agreement = (recommend(some, seen[some]) == ours).mean()
    check(agreement > 0.999, "implicit recommends other items")
    everybody = np.arange(n_users)
    return lambda: recommend(everybody, seen)


def print_few(model, ratings):
    """Print the time of questions about a few ids."""
    model.recommend(FEW_USERS, N_BEST, ratings)
    questions = {
        "10 users": lambda: model.recommend(FEW_USERS, N_BEST, ratings),
        "1 user": lambda: model.recommend(5, N_BEST, ratings),
        "similar_items of 1": lambda: model.similar_items(5, N_BEST),
    }
    rows = [[name, 1000 * median_seconds(ask, 30)] for name, ask in questions.items()]
    print_table(["recommend", "ms"], rows, "few users")


def print_fold_in_of_one(model, size):
    """Print the time of the fold-in of one user."""
    items = np.random.default_rng(1).choice(size.items, 50, replace=False)
    values = np.random.default_rng(2).normal(3.5, 1, 50)
    X = (np.full(50, size.users + 1), items)
    milliseconds = 1000 * median_seconds(lambda: model.fold_in(X, values, extend=False), 50, 5)
    print(f"fold-in of one user with 50 ratings, k={N_FACTORS}: {milliseconds:.3f} ms\n")


# ---- fold-in, partial_fit and a search, on real ratings ----


def read_goodbooks(data):
    """Return the ratings of goodbooks."""
    return Ratings.read(data / "goodbooks" / "ratings.csv.gz")


def part_of(ratings, mask):
    """Return some of the ratings, with only the ids that they have."""
    users = ratings.user_ids[ratings.users[mask]]
    items = ratings.item_ids[ratings.items[mask]]
    return Ratings.from_arrays(users, items, ratings.values[mask])


def timed(train, test):
    """Return [RMSE on test ratings, seconds] of a function that returns a trained model."""
    start = time.perf_counter()
    model = train()
    seconds = time.perf_counter() - start
    return [f"{model.evaluate(test)['rmse']:.4f}", seconds]


def bench_fold_in(data):
    """Hold out users whole: hide a fifth of their ratings, and fold in the rest."""
    ratings = read_goodbooks(data)
    rng = np.random.default_rng(0)
    is_new = np.isin(ratings.users, rng.choice(ratings.n_users, 10_000, replace=False))
    is_hidden = is_new & (rng.random(len(ratings)) < 0.2)
    test = part_of(ratings, is_hidden)
    given = part_of(ratings, is_new & ~is_hidden)
    everything = part_of(ratings, ~is_hidden)
    model = FunkSVD(random_state=0).fit(part_of(ratings, ~is_new))
    biases = FunkSVD(1, init_std=0, random_state=0)
    rows = [
        ["folded in", *timed(lambda: model.fold_in(given), test)],
        ["retrained on all", *timed(lambda: FunkSVD(random_state=0).fit(everything), test)],
        ["retrained, biases only", *timed(lambda: biases.fit(everything), test)],
    ]
    print(
        f"goodbooks: 10,000 users left out of training, RMSE on {len(test):,} hidden ratings of"
        " theirs"
    )
    print_table(["", "RMSE", "s"], rows, "fold_in")


def bench_partial_fit(data, shape):
    """Print the RMSE on goodbooks after 1 % new ratings, and the time by their number."""
    train, test = read_goodbooks(data).split(0.1, 0)
    old, new = train.split(0.01, 1)
    model = FunkSVD(random_state=0)
    rows = [
        ["trained on the old 99 %", *timed(lambda: model.fit(old), test)],
        ["partial_fit on 1 %", *timed(lambda: copy.copy(model).partial_fit(new), test)],
        ["retrained on all", *timed(lambda: FunkSVD(random_state=0).fit(train), test)],
    ]
    print(f"goodbooks: {len(new):,} new ratings, RMSE on {len(test):,} others")
    print_table(["", "RMSE", "s"], rows, "partial_fit, RMSE")
    size = SHAPES[shape]
    model = served_model(size.users, size.items)
    rng = np.random.default_rng(0)
    rows = []
    for n in (1000, 10_000, 100_000, 1_000_000):
        seconds = partial_fit_seconds(model, size, n, rng)
        rows.append([f"{n:,}", 1000 * seconds, 1e6 * seconds / n])
    print(f"{shape}: partial_fit of 5 epochs, k={N_FACTORS}")
    print_table(["new ratings", "ms", "us a rating"], rows, "partial_fit")


def partial_fit_seconds(model, size, n, rng):
    """Return the seconds of `partial_fit` on n random ratings of known ids."""
    X = (rng.integers(0, size.users, n), rng.integers(0, size.items, n))
    values = rng.normal(3.5, 1, n)
    return median_seconds(lambda: copy.copy(model).partial_fit(X, values), 3)


def bench_search(data):
    """Search 12 settings x 3 folds of ml-100k with scikit-learn, by 1 and 2 workers."""
    table = np.loadtxt(data / "ml-100k" / "u.data", dtype=np.int64)
    rows = [search_row(table, n_jobs) for n_jobs in (1, 2)]
    check(rows[0][3] == rows[1][3], "the searches picked different settings")
    print("GridSearchCV, 12 settings x 3 folds of ml-100k")
    print_table(["n_jobs", "s", "RMSE", "best"], rows, "search")


def search_row(table, n_jobs):
    """Return [workers, seconds, RMSE, best settings] of one search."""
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(
        FunkSVD(random_state=0),
        {"n_factors": [20, 50, 100], "l2": [0.05, 0.08], "learning_rate": [0.01, 0.02]},
        cv=3,
        n_jobs=n_jobs,
        scoring="neg_root_mean_squared_error",
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold's training part does not know all ids
        search.fit(table[:, :2], table[:, 2])
    seconds = time.perf_counter() - start
    return [str(n_jobs), seconds, f"{-search.best_score_:.4f}", json.dumps(search.best_params_)]


PARTS = {
    "recommend": lambda data, shape: bench_recommend(shape),
    "fold-in": lambda data, shape: bench_fold_in(data),
    "partial-fit": lambda data, shape: bench_partial_fit(data, shape),
    "search": lambda data, shape: bench_search(data),
}


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
    wanted = list(PARTS) if options.only is None else [options.only]
    if options.data is None and wanted != ["recommend"]:
        parser.error(
            "--data is needed: a folder that holds ml-100k/u.data and goodbooks/ratings.csv.gz"
        )
    data = Path(options.data or ".")
    for name in wanted:
        PARTS[name](data, options.shape)


if __name__ == "__main__":
    main()
