"""Fixtures and made-up ratings that many tests share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """Run every test in an empty folder.

    Whatever it starts imports the installed package, never the source tree.
    """
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def random_ratings(n=3000, n_users=80, n_items=50, seed=0):
    """Return (users, items, values): int ids and ratings without structure, pairs may repeat."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    return users, items, rng.normal(3.5, 1, n)


def planted_ratings(n=3000, n_users=80, n_items=50, seed=0, rank=2, noise=0.3):
    """Return (users, items, values): ratings of a planted model with user biases, plus noise."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items, n)
    p = rng.normal(0, 1, (n_users, rank))
    q = rng.normal(0, 0.5, (n_items, rank))
    truth = 3.5 + rng.normal(0, 0.4, n_users)[users] + (p[users] * q[items]).sum(1)
    return users, items, truth + rng.normal(0, noise, n)
