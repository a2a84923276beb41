"""Trainings that fuzzers interrupt and kill: all solvers and ways of training."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from funksvd import Callback, FunkSVD, Ratings
from funksvd.weights import Weights

N_USERS, N_ITEMS = 400, 300

# Name -> parameters.
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad": {"solver": "adagrad"},
    "adagrad_row": {"solver": "adagrad_row"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
    "gibbs": {"solver": "gibbs"},
    "factors": {"solver": "gibbs", "average": "factors"},
    "ials": {"solver": "ials"},
    "batches": {"solver": "adam", "batch_size": 500},
    "featurewise": {"training": "featurewise", "n_factors": 3},
}


def some_ratings(n: int) -> Ratings:
    """Return n ratings."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, N_USERS, n)
    items = rng.integers(0, N_ITEMS, n)
    return Ratings.from_arrays(users, items, rng.normal(3.5, 1, n))


def new_model(way: str, n_epochs: int, n_jobs: int) -> FunkSVD:
    """Return a model that trains in one of the ways."""
    params = {"n_factors": 16, "n_epochs": n_epochs, "random_state": 0, "n_jobs": n_jobs}
    return FunkSVD(**params | WAYS[way])


def hash_of(weights: Weights) -> str:
    """Return a hash of a model's biases and factors."""
    content = hashlib.sha1()
    for name in ("user_biases", "item_biases", "user_factors", "item_factors"):
        content.update(np.ascontiguousarray(getattr(weights, name)).tobytes())
    return content.hexdigest()


class EpochHashes(Callback):
    """Keeps a hash of the weights after each epoch."""

    def __init__(self) -> None:
        self.hashes: list[str] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the hash of the weights."""
        self.hashes.append(hash_of(self.model.get_weights()))
