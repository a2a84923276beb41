"""RMSE of FunkSVD on real ratings: the defaults, and tuned settings.

    python benchmarks/bench_accuracy.py --data DIR [--tuned | --times]

DIR holds ``ml-100k/u.data`` (MovieLens 100k as published: fold N of u1-u5 tests rows 20000 (N - 1)
to 20000 N in the order of the file) and ``goodbooks/ratings.csv.gz`` (goodbooks-10k: random tenths
of three seeds). A missing file is left out.

``--times`` compares the sampler with and without the times of MovieLens 100k, on u1 to u5 and on a
forecast: the last tenth of each user's ratings.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from common import print_header, print_table

# Chosen by validation inside the training ratings, never on the ratings reported here: on random
# splits of seeds 11 to 13, with a fifth (ml-100k) or a tenth (goodbooks) held out.
TUNED = {
    "ml-100k": {
        "n_factors": 1000,
        "n_epochs": 60,
        "learning_rate": 0.01,
        "learning_rate_decay": 0.02,
        "l2": 0.085,
        "init_std": 0.02,
    },
    "goodbooks": {"n_factors": 256, "n_epochs": 60, "init_std": 0.03},
}
# The sampler, without and with the times of the ratings.
SAMPLER = {"solver": "gibbs", "n_factors": 16, "n_epochs": 60}
TIMED = {"without times": SAMPLER | {"moods": "none"}, "with times": SAMPLER}
COVERAGES = (0.5, 0.8, 0.95)
FOLD = 20_000
SEEDS = (3, 4, 5)  # of splits on which no setting was chosen


def movielens_folds(path):
    """Yield ((users, items), ratings) to train and to test for the official folds u1 to u5."""
    users, items, ratings = np.loadtxt(path, dtype=np.int64, usecols=(0, 1, 2)).T
    rows = np.arange(len(ratings))
    for start in range(0, len(ratings), FOLD):
        test = (rows >= start) & (rows < start + FOLD)
        parts = []
        for part in (~test, test):
            parts.append(((users[part], items[part]), ratings[part].astype(np.float32)))
        yield parts


def timed_splits(path):
    """Yield (name of the split, train, test) of MovieLens 100k: u1 to u5, and the forecast."""
    from funksvd import Ratings

    table = np.loadtxt(path, dtype=np.int64)
    users, _, _, times = table.T
    rows = np.arange(len(table))
    order = np.lexsort((times, users))
    counts = np.bincount(users)
    first = np.cumsum(counts) - counts
    rank = np.empty(len(table), np.int64)
    rank[order] = rows - first[users[order]]
    tests = [("u1-u5", rows // FOLD == fold) for fold in range(5)]
    tests.append(("last tenth of each user", rank >= np.ceil(0.9 * counts[users])))
    for name, test in tests:
        parts = [
            Ratings.from_arrays(part[:, 0], part[:, 1], part[:, 2].astype(float), times=part[:, 3])
            for part in (table[~test], table[test])
        ]
        yield name, *parts


def compare_times(path):
    """Print the RMSE and the coverage of intervals without and with times."""
    from funksvd import FunkSVD

    results = {}
    for split, train, test in timed_splits(path):
        for setting, params in TIMED.items():
            start = time.perf_counter()
            model = FunkSVD(**params, random_state=0, rating_scale=(1, 5)).fit(train)
            seconds = time.perf_counter() - start
            shares = []
            for coverage in COVERAGES:
                low, high = model.predict_interval(test, coverage)
                shares.append(np.mean((low <= test.values) & (test.values <= high)))
            row = [model.evaluate(test)["rmse"], *shares, seconds]
            results.setdefault((split, setting), []).append(row)
            print(f"{split}, {setting}: {row[0]:.4f}", flush=True)
    rows = []
    for (split, setting), found in results.items():
        rmse, *shares, seconds = np.mean(found, axis=0)
        shown = "/".join(f"{share:.3f}" for share in shares)
        rows.append([split, setting, f"{rmse:.4f}", shown, seconds])
    print()
    print_table(["ml-100k, test", "sampler", "RMSE", "in 50/80/95 % intervals", "s a fit"], rows)


def evaluate_movielens(path, params):
    """Yield the RMSE of each official fold."""
    from funksvd import FunkSVD, Ratings

    for (train, train_ratings), (test, test_ratings) in movielens_folds(path):
        model = FunkSVD(**params, random_state=0).fit(train, train_ratings)
        yield model.evaluate(Ratings.from_arrays(*test, test_ratings))["rmse"]


def evaluate_goodbooks(path, params):
    """Yield the RMSE of a random tenth for each seed."""
    from funksvd import FunkSVD, Ratings

    ratings = Ratings.read(path)
    for seed in SEEDS:
        train, test = ratings.split(0.1, seed)
        yield FunkSVD(**params, random_state=0).fit(train).evaluate(test)["rmse"]


DATA = {
    "ml-100k": ("u1-u5", "ml-100k/u.data", evaluate_movielens),
    "goodbooks": ("90/10, 3 seeds", "goodbooks/ratings.csv.gz", evaluate_goodbooks),
}


def main():
    """Print one line for each data set and setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("FUNKSVD_DATA")
    parser.add_argument("--data", metavar="DIR", default=data, help="default: $FUNKSVD_DATA")
    parser.add_argument(
        "--tuned", action="store_true", help="the settings of TUNED as well as the defaults"
    )
    parser.add_argument("--times", action="store_true", help="the sampler with and without times")
    parser.add_argument("--only", choices=DATA, help="one data set")
    options = parser.parse_args()
    if options.data is None:
        files = ", ".join(path for _, path, _ in DATA.values())
        parser.error(f"--data is needed: a folder that holds {files}")
    print_header()
    if options.times:
        compare_times(Path(options.data) / "ml-100k" / "u.data")
        return
    rows = []
    for name, (folds, relative, evaluate) in DATA.items():
        path = Path(options.data) / relative
        if options.only not in (None, name):
            continue
        if not path.exists():
            print(f"left out: {relative} is not in the data folder")
            continue
        settings = {"defaults": {}}
        if options.tuned:
            settings["tuned"] = TUNED[name]
        for setting, params in settings.items():
            start = time.perf_counter()
            errors = list(evaluate(path, params))
            seconds = time.perf_counter() - start
            shown = " ".join(f"{error:.4f}" for error in errors)
            print(f"{name}, {setting} {params or ''}: {shown}", flush=True)
            mean = f"{np.mean(errors):.4f}"
            spread = f"{np.std(errors):.4f}"
            rows.append([f"{name}, {folds}", setting, mean, spread, seconds])
    print()
    print_table(["ratings", "settings", "mean RMSE", "sd of folds", "s in all"], rows, "RMSE")


if __name__ == "__main__":
    main()
