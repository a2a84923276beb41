"""Fits and answers on random extreme shapes, with guard pages round the aligned arrays.

One user, one item, hundreds of factors, repeated pairs, weights of zero, many bands, blocks on
several threads. A fit or an answer may be refused by an error of funksvd's own; the weights must be
finite and the same bits for any number of threads, and excluded items must not be recommended.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from funksvd import FunkSVD, Ratings
from funksvd.ratings import bands

from .guarded import guarded_arrays
from .harness import Case, WrongAnswerError, main

# Ways of training.
WAYS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"solver": "adam"},
    {"solver": "adamax"},
    {"solver": "adagrad"},
    {"solver": "adagrad_row"},
    {"solver": "gibbs"},
    {"solver": "gibbs", "average": "factors"},
    {"solver": "ials"},
    {"training": "featurewise"},
    {"batch_size": 7},
    {"batch_size": 10**6, "solver": "adam"},
    {"batch_size": 64, "shuffle": False, "momentum": 0.5},
]
# Options of those that make steps.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"l1": 0.05},
    {"l1_bias": 0.1},
    {"l2": 5.0},
    {"non_negative": True},
    {"biased": False},
    {"reg_scale": "row"},
    {"rating_scale": (1, 5)},
    {"dtype": "float64"},
    {"center": False},
]
STEPLESS = ("gibbs", "ials")
SIZES = (1, 2, 3, 9, 40, 300)
FACTORS = (0, 1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 100, 257)
RATINGS = (2, 3, 8, 9, 65, 500, 3000)
WIDE_SHARE = 0.02  # of the cases have hundreds of thousands of ratings

# (module, constant, values besides its own): sizes from which other code runs.
THRESHOLDS = [
    ("engines.sgd", "FEWEST_FOR_THREADS", (0,)),
    ("engines.crew", "RATINGS_OF_ONE_THREAD", (0,)),
    ("engines.crew", "RATINGS_OF_A_PART", (64,)),
    ("engines.minibatch", "BUSY", (1,)),
    ("serving.top", "FEW_USERS", (1,)),
]


class Triples(NamedTuple):
    """Ratings to fit: ids, values, and weights or None."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    weights: np.ndarray | None


def pick(rng: np.random.Generator, values: Any) -> Any:
    """Return one of some values."""
    return values[int(rng.integers(len(values)))]


def drawn_params(rng: np.random.Generator) -> dict[str, Any]:
    """Return parameters of a model."""
    way = pick(rng, WAYS)
    params = {
        "n_factors": pick(rng, FACTORS),
        "n_epochs": pick(rng, (1, 2, 9)),
        "random_state": int(rng.integers(9)),
        "n_jobs": pick(rng, (1, 2, 5)),
    }
    if way.get("solver") not in STEPLESS:
        params |= pick(rng, OPTIONS)
    if "training" in way:
        params["n_factors"] = min(params["n_factors"], 3)
    return params | way


def drawn_triples(rng: np.random.Generator, may_be_wide: bool) -> Triples:
    """Return ratings of a random shape."""
    n_users = pick(rng, SIZES)
    n_items = pick(rng, SIZES)
    n = pick(rng, RATINGS)
    if may_be_wide and rng.random() < WIDE_SHARE:
        n_users, n_items, n = 200_000, 70_000, 300_000
    weights = None
    if rng.random() < 1 / 3:
        weights = rng.integers(0, 3, n) / 2
        weights[0] = 1
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    values = np.round(rng.normal(3, 1, n), pick(rng, (0, 8)))
    return Triples(users, items, values, weights)


@contextlib.contextmanager
def drawn_sizes(rng: np.random.Generator) -> Iterator[None]:
    """Let small data take the ways of large data: more bands, threads, other passes."""
    least = pick(rng, (1, 1, 2, 5, 13))
    usual = bands.choose_bands

    def choose_bands(*arguments: Any) -> int:
        return max(least, usual(*arguments))

    with contextlib.ExitStack() as stack:
        grid = importlib.import_module("funksvd.ratings.grid")
        stack.enter_context(mock.patch.object(grid, "choose_bands", choose_bands))
        for name, constant, others in THRESHOLDS:
            module = importlib.import_module(f"funksvd.{name}")
            value = pick(rng, (getattr(module, constant), *others))
            stack.enter_context(mock.patch.object(module, constant, value))
        yield


def check_weights(model: FunkSVD, triples: Triples, params: dict[str, Any], share: float) -> None:
    """Check that the weights are finite, and the same bits for another number of threads."""
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        if not np.isfinite(getattr(model, name)).all():
            raise WrongAnswerError(f"{name} is not finite: {params}")
    other = params | {"n_jobs": 3 if params["n_jobs"] == 1 else 1}
    again = FunkSVD(**other).fit(Ratings.from_arrays(*triples), validation_split=share)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        if getattr(model, name).tobytes() != getattr(again, name).tobytes():
            raise WrongAnswerError(f"{name} depends on n_jobs: {params}")


def check_recommended(model: FunkSVD, ratings: Ratings, users: np.ndarray | None, n: int) -> None:
    """Check that no item is recommended to a user who has rated it."""
    items, _ = model.recommend(users, n, exclude=ratings)
    rows = model.user_ids_ if users is None else users
    pairs = zip(ratings.user_ids[ratings.users], ratings.item_ids[ratings.items], strict=True)
    rated = set(pairs)
    for user, row in zip(rows.tolist(), items.tolist(), strict=True):
        if any((user, item) in rated for item in row):
            raise WrongAnswerError("an excluded item is recommended")


def ask(model: FunkSVD, ratings: Ratings, triples: Triples, rng: np.random.Generator) -> None:
    """Ask a model for each kind of answer."""
    users, items, values, _ = triples
    predictions = [model.predict((users, items)), model.predict((users[:3] + 10**6, items[:3]))]
    if not np.isfinite(np.concatenate(predictions)).all():
        raise WrongAnswerError("a prediction is not finite")
    asked = None if len(model.user_ids_) < 999 else model.user_ids_[:50]
    check_recommended(model, ratings, asked, pick(rng, (1, 5, 999)))
    model.similar_items(model.item_ids_[:40], 3)
    model.explain(users[0], items[0], ratings)
    model.evaluate(ratings)
    if model.solver == "gibbs":
        model.predict((users, items), return_std=True)
        model.recommend(model.user_ids_[:2], 3, risk=-0.5)
    model.fold_in((users[:9] + 10**6, items[:9]), values[:9])
    model.fold_in((users[:9], items[:9] + 10**6), values[:9], side="items")
    if model.solver not in STEPLESS:
        model.partial_fit((users[:5] + 999, items[:5] + 999), values[:5], n_epochs=2)


def run_case(rng: np.random.Generator) -> str:
    """Fit a model to ratings of a random shape and ask it everything."""
    params = drawn_params(rng)
    triples = drawn_triples(rng, may_be_wide="batch_size" not in params)
    if params.get("solver") == "ials":  # it learns from pairs that are given, not from dislikes
        triples = triples._replace(values=np.abs(triples.values) + 1)
    share = pick(rng, (0, 0.3)) if len(triples.values) > 9 else 0
    with drawn_sizes(rng):
        ratings = Ratings.from_arrays(*triples)
        model = FunkSVD(**params).fit(ratings, validation_split=share)
        if len(ratings) < 9999 and rng.random() < 0.5:
            check_weights(model, triples, params, share)
        ask(model, ratings, triples, rng)
    return f"{params.get('solver', 'sgd')} fitted and asked"


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case, with guard pages round all aligned arrays."""
    warnings.simplefilter("ignore")
    with guarded_arrays():
        yield run_case


if __name__ == "__main__":
    raise SystemExit(main(__spec__.name, prepared))
