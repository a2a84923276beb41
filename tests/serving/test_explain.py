"""Explanations: the ratings that pull a prediction up or down."""

import numpy as np
import pytest
from served_models import trained_model


@pytest.mark.parametrize("biased", [True, False])
def test_an_explanation_adds_up_and_is_exact_for_a_folded_user(biased):
    model, ratings = trained_model(dtype="float64", biased=biased)
    users = np.full(4, 1)
    items = model.item_ids_[[3, 40, 100, 150]]
    values = np.array([5.0, 1, 4, 2])
    folded = model.fold_in((users, items), values, extend=False)
    why = folded.explain(1, model.item_ids_[7], (users, items), values)
    assert why.prediction == folded.predict(([1], model.item_ids_[[7]]))[0]
    total = why.baseline + why.contributions.sum() + why.rest
    assert total == pytest.approx(why.prediction, rel=1e-12)
    assert abs(why.rest) < 1e-9  # the user's row is the ridge solution itself
    assert (np.diff(np.abs(why.contributions)) <= 0).all()
    found = zip(why.items.tolist(), why.ratings.tolist(), strict=True)
    assert sorted(found) == sorted(zip(items.tolist(), values, strict=True))
    trained = model.explain(6, model.item_ids_[7], ratings)
    total = trained.baseline + trained.contributions.sum() + trained.rest
    assert total == pytest.approx(trained.prediction, rel=1e-9)


@pytest.mark.parametrize("biased", [True, False])
def test_a_contribution_is_what_the_prediction_loses_with_the_rating(biased):
    """A rating at the item's own baseline pulls nothing, and leaves the other pulls as they are."""
    model, _ = trained_model(dtype="float64", biased=biased)
    users = np.full(4, 1)
    items = model.item_ids_[[3, 40, 100, 150]]
    values = np.array([5.0, 1, 4, 2])
    folded = model.fold_in((users, items), values, extend=False)
    why = folded.explain(1, model.item_ids_[7], (users, items), values)
    baseline = folded.global_mean_ + folded.item_biases_[40]
    without = np.where(items == items[1], baseline, values)
    again = model.fold_in((users, items), without, extend=False)
    pulls = dict(zip(why.items.tolist(), why.contributions, strict=True))
    pair = ([1], model.item_ids_[[7]])
    lost = folded.predict(pair) - again.predict(pair)
    assert lost[0] == pytest.approx(pulls[int(items[1])], rel=1e-6)
