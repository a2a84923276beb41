"""Penalties that outweigh the ratings leave zeros, not subnormal numbers, which are slow."""

import numpy as np
import pytest

from funksvd import FunkSVD, Ratings
from funksvd.engines.choose import engine_for

WAYS = {
    "sgd": {},
    "rows": {"reg_scale": "row"},
    "momentum": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad_row": {"solver": "adagrad_row"},
    "adagrad": {"solver": "adagrad"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
    "batches, sgd": {"batch_size": 100},
    "batches, momentum": {"batch_size": 100, "momentum": 0.9},
    "batches, adam": {"batch_size": 100, "solver": "adam"},
    "featurewise": {"training": "featurewise"},
}


def trained(n_epochs, **params):
    """Return an engine after some epochs on a full matrix of noise."""
    users, items = np.divmod(np.arange(200 * 30), 30)
    ratings = Ratings.from_arrays(users, items, np.random.default_rng(0).normal(3, 1, len(users)))
    hyper = FunkSVD(8, 40, **params)._hyper()
    engine = engine_for(hyper)(ratings, None, hyper, seed=0, n_jobs=1)
    for epoch in range(n_epochs):
        assert np.isfinite(engine.epoch(epoch, hyper.learning_rate))
    return engine


def subnormal_share(engine):
    """Return the share of subnormal numbers among all that an epoch changes."""
    arrays = [array for array in engine.snapshot().values() if array.dtype.kind == "f"]
    tiny = [(array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny) for array in arrays]
    return sum(int(found.sum()) for found in tiny) / sum(array.size for array in arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("l2", [0.5, 5.0])
@pytest.mark.parametrize("way", WAYS)
def test_no_factor_and_no_state_fades_into_subnormal_numbers(way, l2, dtype):
    n_epochs = 8 if way == "featurewise" else 60
    assert subnormal_share(trained(n_epochs, l2=l2, dtype=dtype, **WAYS[way])) < 0.01


def test_faded_factors_are_zeros():
    engine = trained(60, l2=5.0)
    weights = engine.weights()
    assert not weights.user_factors.any()
    assert not weights.item_factors.any()
    assert weights.user_biases.all()
