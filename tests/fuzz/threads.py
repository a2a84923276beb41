"""Many threads on one model and one `Ratings`: every answer must be that of one thread alone.

The fits have more ratings than the least for which an engine starts threads of its own, so that
blocks are trained in parallel. For ThreadSanitizer, for free-threaded Python (PYTHON_GIL=0), and
as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funksvd import FunkSVD, Ratings, load
from funksvd.engines.sgd import FEWEST_FOR_THREADS

from .harness import Case, WrongAnswerError, main

N_RATINGS = FEWEST_FOR_THREADS + FEWEST_FOR_THREADS // 4
N_USERS, N_ITEMS = 3000, 800
THREADS = 8
JOBS_OF_A_THREAD = 3
USUAL: dict[str, Any] = {"n_factors": 8, "n_epochs": 2, "random_state": 0, "n_jobs": 2}
FITS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"solver": "adam"},
    "batches": {"batch_size": 5000, "solver": "adamax"},
    "gibbs": {"solver": "gibbs", "n_epochs": 6},
    "featurewise": {"training": "featurewise", "n_factors": 2, "n_epochs": 3},
}

Job = Callable[[], str]


class Shared(NamedTuple):
    """What all threads use: ids, ratings of them, a model, a sampled one, and a folder."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    ratings: Ratings
    model: FunkSVD
    sampled: FunkSVD
    folder: Path


def hashed(*arrays: np.ndarray) -> str:
    """Return a hash of the bytes of arrays."""
    content = hashlib.sha1()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def made(folder: Path) -> Shared:
    """Return ratings, and models of them."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, N_USERS, N_RATINGS)
    items = rng.integers(0, N_ITEMS, N_RATINGS)
    values = rng.normal(3, 1, N_RATINGS)
    ratings = Ratings.from_arrays(users, items, values)
    model = FunkSVD(16, 2, random_state=0, n_jobs=2).fit(ratings)
    sampled = FunkSVD(4, 8, solver="gibbs", random_state=0, n_jobs=2).fit(ratings)
    return Shared(users, items, values, ratings, model, sampled, folder)


def fit(shared: Shared, **params: Any) -> str:
    """Fit a model to the shared ratings; return a hash of its factors."""
    model = FunkSVD(**USUAL | params).fit(shared.ratings, validation_split=0.1)
    return hashed(model.user_factors_, model.item_factors_)


def saved(shared: Shared) -> str:
    """Save the shared model and load the file; return a hash of its factors."""
    path = shared.folder / f"{threading.get_ident()}.npz"
    shared.model.save(path)
    return hashed(load(path).item_factors_)


def folded_in(shared: Shared) -> str:
    """Fold new users in; return a hash of all factors."""
    pairs = (shared.users[:500] + N_USERS, shared.items[:500])
    return hashed(shared.model.fold_in(pairs, shared.values[:500], extend=False).user_factors_)


def jobs_of(shared: Shared) -> dict[str, Job]:
    """Return what the threads do, by name."""
    pairs = (shared.users, shared.items)
    few = (shared.users[:99], shared.items[:99])
    texts = np.char.add("u", shared.users[:20_000].astype(str))
    jobs: dict[str, Job] = {
        "predict": lambda: hashed(shared.model.predict(pairs)),
        "recommend": lambda: hashed(
            shared.model.recommend(shared.model.user_ids_[:500], 10, exclude=shared.ratings)[0]
        ),
        "similar": lambda: hashed(shared.model.similar_items(None, 5)[0]),
        "by_user": lambda: hashed(*shared.ratings.by_user()),
        "split": lambda: hashed(shared.ratings.split(0.2, 3)[1].values),
        "text": lambda: hashed(
            Ratings.from_arrays(texts, shared.items[:20_000], shared.values[:20_000]).users
        ),
        "interval": lambda: hashed(*shared.sampled.predict_interval(few)),
        "fold_in": lambda: folded_in(shared),
        "save": lambda: saved(shared),
    }
    for name, params in FITS.items():
        jobs[name] = lambda params=params: fit(shared, **params)  # type: ignore[misc]
    return jobs


def wrong_jobs(
    names: list[str],
    jobs: dict[str, Job],
    expected: dict[str, str],
) -> list[str]:
    """Do some jobs; return a line on each whose result is another one."""
    wrong = []
    for name in names:
        try:
            if jobs[name]() != expected[name]:
                wrong.append(f"{name}: another result")
        except Exception:
            wrong.append(f"{name}: {traceback.format_exc()[-600:]}")
    return wrong


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case: eight threads, each of which does a few jobs."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="funksvd-threads-") as name:
        shared = made(Path(name))
        jobs = jobs_of(shared)
        expected = {name: job() for name, job in jobs.items()}

        def run_case(rng: np.random.Generator) -> str:
            wrong: list[str] = []
            threads = []
            for _ in range(THREADS):
                names = rng.choice(list(jobs), JOBS_OF_A_THREAD).tolist()

                def work(names: list[str] = names) -> None:
                    wrong.extend(wrong_jobs(names, jobs, expected))

                threads.append(threading.Thread(target=work))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if wrong:
                raise WrongAnswerError(f"{len(wrong)} wrong: {wrong[0]}")
            return f"{THREADS} threads, {JOBS_OF_A_THREAD} jobs each"

        yield run_case


if __name__ == "__main__":
    raise SystemExit(main(__spec__.name, prepared))
