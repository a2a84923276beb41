"""New ratings in a trained model: `partial_fit` moves only their rows, and learns from them."""

import copy

import numpy as np
import pytest
from conftest import random_ratings
from trained_models import DATA, arrays_of, needs_data, trained_model

from funksvd import FunkSVD, Ratings


def test_partial_fit_moves_only_rows_with_new_ratings():
    model = trained_model()
    before = [array.copy() for array in arrays_of(model)]
    served = copy.copy(model)
    users = np.array([1, 1, 5, 1000, 1000])
    items = np.array([2, 3, 2, 2, 777])
    assert model.partial_fit((users, items), [5.0, 1, 4, 2, 3]) is model
    for array, array_before in zip(arrays_of(served), before, strict=True):
        np.testing.assert_array_equal(array, array_before)
    assert model.user_ids_.tolist() == [*range(60), 1000]
    assert model.item_ids_.tolist() == [*range(40), 777]
    moved_users = (model.user_factors_[:60] != served.user_factors_).any(1)
    moved_items = (model.item_factors_[:40] != served.item_factors_).any(1)
    assert np.flatnonzero(moved_users).tolist() == [1, 5]
    assert np.flatnonzero(moved_items).tolist() == [2, 3]
    assert model.global_mean_ == served.global_mean_
    assert np.isfinite(model.predict((users, items), unknown="raise")).all()


def test_partial_fit_learns_and_does_not_depend_on_the_order_of_rows():
    """The model knows some of the users of the new ratings, which are all one higher."""
    users, items, values = random_ratings(n_users=60, n_items=40)
    X = np.column_stack([users[:600] + 40, items[:600]])
    y = values[:600] + 1.0
    results = []
    for order in (slice(None), np.random.default_rng(0).permutation(600)):
        model = trained_model()
        error = model.evaluate(X, y)["rmse"]
        model.partial_fit(X[order], y[order], n_epochs=20, learning_rate=0.02)
        assert model.evaluate(X, y)["rmse"] < 0.8 * error
        results.append(arrays_of(model))
    for array, other_array in zip(*results, strict=True):
        np.testing.assert_array_equal(array, other_array)


def test_partial_fit_of_an_unfitted_model_is_fit():
    users, items, values = random_ratings(n_users=60, n_items=40)
    X = (users, items)
    fitted = FunkSVD(3, 4, random_state=0).fit(X, values)
    model = FunkSVD(3, 4, random_state=0).partial_fit(X, values)
    assert (fitted.user_factors_ == model.user_factors_).all()
    with pytest.raises(ValueError, match="n_epochs must be an int >= 1, got 0"):
        model.partial_fit(X, values, n_epochs=0)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        model.partial_fit(X, values, learning_rate=1e6)
    assert (fitted.user_factors_ == model.user_factors_).all()


@needs_data
def test_partial_fit_on_one_percent_is_nearly_as_good_as_training_anew():
    ratings = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz")
    train, test = ratings.split(0.1, 0)
    old, new = train.split(0.01, 1)
    trained = FunkSVD(32, random_state=0).fit(train).evaluate(test)["rmse"]
    model = FunkSVD(32, random_state=0).fit(old).partial_fit(new)
    assert model.evaluate(test)["rmse"] < 1.01 * trained
