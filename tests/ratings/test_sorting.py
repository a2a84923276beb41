"""Stable sorts of ratings by user."""

import numpy as np
import pytest

from funksvd import Ratings
from funksvd.ratings.sorting import by_user


@pytest.mark.parametrize("n_jobs", [1, 2, 7])
@pytest.mark.parametrize("carries", [True, False])
def test_sorting_by_user_is_stable_for_any_threads(n_jobs, carries):
    """The 500 ratings of 40 users and 30 items have repeated pairs."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 40, 500).astype(np.int32)
    items = rng.integers(0, 30, 500).astype(np.int32)
    places = np.arange(500, dtype=np.int32)
    order = np.lexsort((places, items, users))
    start, found, carried, _ = by_user(users, items, places if carries else None, 41, 30, n_jobs)
    np.testing.assert_array_equal(start, np.searchsorted(users[order], np.arange(42)))
    np.testing.assert_array_equal(found, items[order])
    if carries:
        np.testing.assert_array_equal(carried, order)


def test_ratings_by_user_are_sorted_pairs():
    rng = np.random.default_rng(0)
    ratings = Ratings.from_arrays(rng.integers(0, 9, 200), rng.integers(0, 30, 200), np.ones(200))
    start, items = ratings.by_user()
    pairs = []
    for user in range(ratings.n_users):
        pairs += [(user, item) for item in items[start[user] : start[user + 1]].tolist()]
    assert pairs == sorted(zip(ratings.users.tolist(), ratings.items.tolist(), strict=True))
    assert ratings.by_user() is ratings.by_user()
