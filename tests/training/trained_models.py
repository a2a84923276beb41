"""Models and data that the tests of training share."""

import os
from pathlib import Path

import pytest
from conftest import random_ratings

from funksvd import FunkSVD

DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder"
)


def trained_model(**params):
    """Return a model of 60 users and 40 items, with 6 factors."""
    users, items, values = random_ratings(n_users=60, n_items=40)
    params = {"n_factors": 6, "n_epochs": 5, "random_state": 0} | params
    return FunkSVD(**params).fit((users, items), values)


def arrays_of(model):
    """Return the ids, biases and factors of a model."""
    names = ("ids_", "biases_", "factors_")
    return [getattr(model, f"{side}_{name}") for side in ("user", "item") for name in names]
