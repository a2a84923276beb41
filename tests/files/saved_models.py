"""Models that the tests of files write and read."""

import datetime
import uuid

import numpy as np

from funksvd import FunkSVD

FORMATS = ["npz", "safetensors"]
DAY = datetime.timedelta(days=1)
NOON = datetime.datetime(2020, 1, 1, 12, 30)
# Type of ids -> function of a number that makes the id.
ID_TYPES = {
    "int": lambda number: number * 7 - 20,
    "sparse int": lambda number: number * 10**15,
    "str": lambda number: f"né {number}",
    "bytes": lambda number: b"%d\xff" % number,
    "bytes that end with zeros": lambda number: b"x" + bytes(number),
    "UUID": lambda number: uuid.UUID(int=number << 100),
    "datetime": lambda number: NOON + number * DAY + datetime.timedelta(microseconds=number),
    "date": lambda number: datetime.date(2020, 2, 1) + number * DAY,
}


def trained_model(users="int", items="str", **params):
    """Return a model of 12 users and 9 items with ids of some types, and the pairs rated."""
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(12) for item in range(9) if rng.random() < 0.7]
    X = (
        [ID_TYPES[users](user) for user, _ in pairs],
        [ID_TYPES[items](item) for _, item in pairs],
    )
    values = rng.integers(1, 6, len(pairs)).astype(float)
    params = {"n_factors": 5, "n_epochs": 3, "random_state": 0, "n_jobs": 1} | params
    return FunkSVD(**params).fit(X, values, validation_split=0.1), X


def assert_same(model, other, X):
    """Check that two models have the same ids, arrays and predictions."""
    assert type(model) is type(other)
    for name in ("user_ids_", "item_ids_"):
        assert getattr(model, name).tolist() == getattr(other, name).tolist()
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        assert getattr(model, name).dtype == getattr(other, name).dtype
        assert np.array_equal(getattr(model, name), getattr(other, name))
    assert model.global_mean_ == other.global_mean_
    assert np.array_equal(model.predict(X), other.predict(X))
