"""Models that the tests of serving ask."""

import numpy as np
from conftest import random_ratings

from funksvd import FunkSVD, Ratings
from funksvd.weights import Weights


def random_weights(n_users, n_items, k, dtype="float32", seed=0, levels=0):
    """Return random weights; `levels` is how many values they take, so that scores are equal."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        drawn = rng.integers(0, levels, shape) / 4 if levels else rng.normal(0, 0.4, shape)
        return drawn.astype(dtype)

    return Weights(3.5, draw(n_users), draw(n_items), draw(n_users, k), draw(n_items, k))


def trained_model(**params):
    """Return a model and its ratings: user ids are 0, 3, ... 177, item ids 0, 7, ... 1393."""
    users, items, values = random_ratings(2000, 60, 200)
    ratings = Ratings.from_arrays(users * 3, items * 7, values)
    model = FunkSVD(**{"n_factors": 6, "n_epochs": 5, "random_state": 0} | params)
    return model.fit(ratings), ratings


def items_seen(ratings):
    """Return {user id: set of the ids of the items that the user has rated}."""
    users = ratings.user_ids[ratings.users].tolist()
    items = ratings.item_ids[ratings.items].tolist()
    seen: dict = {}
    for user, item in zip(users, items, strict=True):
        seen.setdefault(user, set()).add(item)
    return seen
