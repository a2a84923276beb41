"""RMSE of FunkSVD on real ratings: the defaults, and tuned settings.

    python benchmarks/bench_accuracy.py --data DIR [--tuned]

DIR holds ``ml-100k/u.data`` (MovieLens 100k as published: fold N of u1-u5 tests rows 20000 (N - 1)
to 20000 N in the order of the file) and ``goodbooks/ratings.csv.gz`` (goodbooks-10k: random tenths
of three seeds). A missing file is left out.
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
    parser.add_argument("--only", choices=DATA, help="one data set")
    options = parser.parse_args()
    if options.data is None:
        files = ", ".join(path for _, path, _ in DATA.values())
        parser.error(f"--data is needed: a folder that holds {files}")
    print_header()
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
