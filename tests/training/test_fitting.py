"""`get_weights` and `set_weights`: copies, and only of the same model."""

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, LambdaCallback


def fitted(n_users=80, n_factors=4, **params):
    users, items, values = random_ratings(n_users=n_users)
    model = FunkSVD(n_factors, 2, random_state=0, **params)
    return model.fit((users, items), values)


def test_get_weights_is_a_copy():
    model = fitted()
    weights = model.get_weights()
    weights.user_factors[:] = 0
    weights.item_biases[:] = 0
    assert model.user_factors_.any()
    assert model.item_biases_.any()


def test_set_weights_copies():
    model = fitted()
    weights = model.get_weights()
    model.set_weights(weights)
    weights.user_factors[:] = 0
    assert model.user_factors_.any()


@pytest.mark.parametrize(
    "other",
    [{"n_users": 40}, {"n_factors": 5}, {"dtype": "float64"}],
    ids=["users", "factors", "dtype"],
)
def test_weights_of_another_model_are_refused(other):
    model = fitted()
    before = model.predict(([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="weights are of another model: their user_"):
        model.set_weights(fitted(**other).get_weights())
    np.testing.assert_array_equal(model.predict(([0, 1], [0, 1])), before)


def test_weights_must_be_weights():
    with pytest.raises(TypeError, match="weights must be those of get_weights"):
        fitted().set_weights([np.zeros(3)])


@pytest.mark.parametrize("solver", ["sgd", "gibbs"])
def test_weights_of_another_model_are_refused_in_a_callback(solver):
    users, items, values = random_ratings()
    small = fitted(n_users=40).get_weights()
    model = FunkSVD(4, 2, solver=solver, random_state=0)
    callback = LambdaCallback(on_epoch_end=lambda epoch, logs: model.set_weights(small))
    with pytest.raises(ValueError, match="weights are of another model"):
        model.fit((users, items), values, callbacks=callback)
