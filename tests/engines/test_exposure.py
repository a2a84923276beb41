"""The exposure engine, solver="ials": weighted least squares over all pairs."""

from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_matrix

from funksvd import FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.engines import exposure
from funksvd.engines.exposure import ITEMS, USERS, ExposureEngine, Settings, SidePairs
from funksvd.hyper import resolve
from funksvd.machine.kernels import kernels, levels

Pairs = tuple[np.ndarray, np.ndarray]


def some_pairs(n: int = 3000, n_users: int = 90, n_items: int = 400, seed: int = 0) -> Pairs:
    """Return distinct pairs of two groups of users, each of which takes its half of the items.

    User 0 takes nearly all of the half, so that one row has more pairs than the kernel gathers at
    a time.
    """
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = rng.integers(0, n_items // 2, n) + users % 2 * (n_items // 2)
    items = np.where(rng.random(n) < 0.1, rng.integers(0, n_items, n), items)
    users = np.append(users, np.zeros(n_items, int))
    items = np.append(items, np.arange(n_items))
    taken = np.unique(users * n_items + items)
    return taken // n_items, taken % n_items


def fitted(pairs: Any, **params: Any) -> FunkSVD:
    """Return a small model of pairs."""
    params = {"n_factors": 6, "n_epochs": 5, "random_state": 0} | params
    return FunkSVD(solver="ials", **params).fit(pairs)


def engine_of(ratings: Ratings, k: int) -> ExposureEngine:
    """Return the engine of a model with k factors."""
    model = FunkSVD(k, solver="ials", unseen_weight=0.3, exposure_l2=0.02)
    return ExposureEngine(ratings, None, resolve(model.get_params()), seed=1)


# --------------------------------------------------------------------------------------- the twin


def naive_side(
    others: np.ndarray, given: np.ndarray, unseen_weight: float, penalty: float
) -> np.ndarray:
    """Return the rows that minimise the objective, each by least squares over all items.

    `given` (rows, others) are the weights of the given pairs, 0 elsewhere. The penalty of a row is
    `penalty` times the weight of all its pairs.
    """
    n_others, k = others.shape
    rows = []
    for own in given:
        weight = penalty * (own.sum() + unseen_weight * n_others)
        equations = np.vstack(
            [
                np.sqrt(own)[:, None] * others,
                np.sqrt(unseen_weight) * others,
                np.sqrt(weight) * np.eye(k),
            ]
        )
        right = np.concatenate([np.sqrt(own), np.zeros(n_others + k)])
        rows.append(np.linalg.lstsq(equations, right)[0])
    return np.array(rows)


def naive_loss(
    users: np.ndarray, items: np.ndarray, given: np.ndarray, unseen_weight: float
) -> float:
    """Return the weighted squared error over all pairs, for each unit of the given weight."""
    scores = users @ items.T
    error = np.sum(given * (1 - scores) ** 2) + unseen_weight * np.sum(scores**2)
    return float(error / given.sum())


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 6, 32, 64])
def test_a_sweep_equals_the_twin(k: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "kernels", lambda name, dtype: kernels(name, dtype, level))
    users, items = some_pairs(n_users=30, n_items=300)
    weights = np.random.default_rng(1).integers(1, 5, len(users)) / 2
    ratings = Ratings.from_arrays(users, items, np.ones(len(users)), weights)
    given = coo_matrix((weights, (users, items))).toarray()
    engine = engine_of(ratings, k)
    start = engine.weights()
    loss = engine.epoch(0, 1.0)
    got = engine.weights()
    items_now = naive_side(start.user_factors.astype(float), given.T, 0.3, 0.02)
    users_now = naive_side(items_now, given, 0.3, 0.02)
    np.testing.assert_allclose(got.item_factors, items_now, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(got.user_factors, users_now, rtol=1e-3, atol=2e-5)
    assert loss == pytest.approx(naive_loss(users_now, items_now, given, 0.3), rel=1e-4)


def test_repeated_pairs_count_as_one_of_their_weights_together() -> None:
    users, items = some_pairs()
    twice = (np.append(users, users[:100]), np.append(items, items[:100]))
    weights = np.ones(len(users))
    weights[:100] = 2
    ones = np.ones(len(users))
    together = fitted(Ratings.from_arrays(users, items, ones, weights))
    apart = fitted(twice)
    np.testing.assert_allclose(apart.item_factors_, together.item_factors_, atol=1e-4)


def test_a_row_without_pairs_is_zero() -> None:
    others = np.ones((5, 8), np.float32)
    pairs = SidePairs(np.array([0, 0, 1]), np.array([3], np.int32), np.ones(1, np.float32))
    rows = exposure.new_rows(others, pairs, Settings(0.1, 0.01))
    assert not rows[0].any()
    assert rows[1].all()


# --------------------------------------------------------------------------------------- fits


def test_the_objective_falls_in_every_epoch() -> None:
    users, items = some_pairs()
    losses = fitted((users, items), n_epochs=12).history_["loss"]
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert losses[0] < 1


def test_all_forms_of_pairs_give_the_same_model() -> None:
    users, items = some_pairs()
    model = fitted((users, items))
    ratings = np.random.default_rng(0).integers(1, 6, len(users))
    forms = [
        np.column_stack([users, items]),
        coo_matrix((ratings, (users, items))),
        Ratings.from_arrays(users, items, ratings),
    ]
    for form in forms:
        np.testing.assert_array_equal(fitted(form).item_factors_, model.item_factors_)


def test_a_table_of_pairs_needs_no_ratings() -> None:
    pandas = pytest.importorskip("pandas")
    users, items = some_pairs()
    model = fitted((users, items))
    table = pandas.DataFrame({"user": users, "item": items, "hour": users % 24})
    rated = table.assign(rating=5)
    for form in (table, rated):
        np.testing.assert_array_equal(fitted(form).item_factors_, model.item_factors_)
    with pytest.raises(ValueError, match="0 or negative"):
        fitted(rated.assign(rating=0))


def test_new_items_of_a_group_are_recommended_to_it() -> None:
    """Users of a group take items of its half: nearly all recommendations are such items."""
    users, items = some_pairs()
    model = fitted((users, items), n_epochs=10)
    ids = np.arange(1, 90)
    best, _ = model.recommend(ids, 10, exclude=(users, items))
    assert np.mean(best // 200 == ids[:, None] % 2) > 0.95
    similar, _ = model.similar_items([5, 205], 10)
    assert np.mean(similar // 200 == np.array([[0], [1]])) > 0.7


def test_a_folded_user_has_the_row_of_training() -> None:
    users, items = some_pairs()
    weights = np.random.default_rng(1).integers(1, 5, len(users)) / 2
    given = Ratings.from_arrays(users, items, np.ones(len(users)), weights)
    model = fitted(given)
    again = model.fold_in(given)
    np.testing.assert_array_equal(again.user_factors_, model.user_factors_)
    own = users == 7
    alone = (np.full(own.sum(), 1000), items[own])
    one = model.fold_in(alone, sample_weight=weights[own], extend=False)
    place = np.flatnonzero(model.user_ids_ == 7)[0]
    np.testing.assert_array_equal(one.user_factors_[0], model.user_factors_[place])


def test_items_are_folded_in_too() -> None:
    users, items = some_pairs()
    model = fitted((users, items))
    own = items == 30
    more = model.fold_in((users[own], np.full(own.sum(), 1000)), side="items")
    similar, _ = more.similar_items(1000, 10)
    assert np.mean(similar < 200) > 0.8
    assert 30 in similar


@pytest.mark.parametrize("name", ["model.npz", "model.safetensors"])
def test_a_file_keeps_the_model(name: str, tmp_path: Path) -> None:
    users, items = some_pairs()
    model = fitted((users, items))
    model.save(tmp_path / name)
    read = load(tmp_path / name)
    np.testing.assert_array_equal(read.user_factors_, model.user_factors_)
    stranger = (np.full(3, 1000), np.arange(3))
    rows = [each.fold_in(stranger, extend=False).user_factors_ for each in (model, read)]
    np.testing.assert_array_equal(*rows)


def test_a_resumed_fit_has_the_same_bytes(tmp_path: Path) -> None:
    users, items = some_pairs()
    path = tmp_path / "{epoch}.npz"
    whole = FunkSVD(6, 5, solver="ials", random_state=0)
    whole.fit((users, items), validation_split=0.1, callbacks=ModelCheckpoint(path))
    resumed = FunkSVD(6, 5, solver="ials", random_state=0)
    resumed.fit(
        (users, items),
        validation_split=0.1,
        callbacks=ModelCheckpoint(path),
        resume=tmp_path / "2.npz",
    )
    np.testing.assert_array_equal(resumed.user_factors_, whole.user_factors_)
    np.testing.assert_array_equal(resumed.item_factors_, whole.item_factors_)
    assert resumed.history_["val_loss"] == whole.history_["val_loss"]


def test_the_scale_of_the_sample_weights_changes_nothing() -> None:
    users, items = some_pairs()
    uneven = np.random.default_rng(1).integers(1, 5, len(users)) / 2
    ones = np.ones(len(users))
    light, heavy = (
        fitted(Ratings.from_arrays(users, items, ones, scale * uneven)) for scale in (1, 64)
    )
    np.testing.assert_array_equal(light.item_factors_, heavy.item_factors_)


def test_the_weight_of_pairs_that_are_not_given_follows_from_the_density() -> None:
    hyper = resolve(FunkSVD(solver="ials").get_params())
    sparse = Ratings.from_arrays(np.arange(100), np.arange(100), np.ones(100))
    users, items = np.divmod(np.arange(100), 10)
    dense = Ratings.from_arrays(users, items, np.ones(100))
    assert exposure.settings_of(hyper, sparse).unseen_weight == pytest.approx(8 / 100)
    assert exposure.settings_of(hyper, dense).unseen_weight == 1.0


def test_every_parameter_matters() -> None:
    users, items = some_pairs()
    plain = fitted((users, items)).item_factors_
    for change in ({"unseen_weight": 0.7}, {"exposure_l2": 0.3}, {"n_epochs": 6}):
        assert (fitted((users, items), **change).item_factors_ != plain).any()
    names = inspect.signature(FunkSVD).parameters
    assert {"unseen_weight", "exposure_l2"} <= names.keys()


def test_users_and_items_have_solutions_of_the_same_kind() -> None:
    """Solving the items once more, given the users, is a half of the next epoch."""
    users, items = some_pairs()
    engine = engine_of(Ratings.from_arrays(users, items, np.ones(len(users))), 8)
    engine.epoch(0, 1.0)
    rows = exposure.new_rows(engine.factors[USERS], engine.pairs[ITEMS], engine.settings)
    engine.epoch(1, 1.0)
    np.testing.assert_array_equal(rows, engine.factors[ITEMS])


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_ratings_that_are_not_above_zero_are_refused(bad: float) -> None:
    users, items = some_pairs()
    ratings = np.ones(len(users))
    ratings[4] = bad
    with pytest.raises(ValueError, match=f"1 of {len(users)} ratings are 0 or.*{bad}, at index 4"):
        FunkSVD(solver="ials").fit((users, items), ratings)


def test_predictions_say_that_they_are_no_ratings() -> None:
    model = fitted(some_pairs())
    with pytest.warns(UserWarning, match="predicts exposure"):
        predicted = model.predict(([0, 1], [1, 2]))
    expected = (model.user_factors_[:2] * model.item_factors_[1:3]).sum(1)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)


def test_it_takes_no_steps() -> None:
    model = fitted(some_pairs())
    with pytest.raises(ValueError, match="use fold_in for new"):
        model.partial_fit(some_pairs())


@pytest.mark.parametrize("params", [{"l2": 0.1}, {"biased": False}, {"rating_scale": (1, 5)}])
def test_parameters_of_other_solvers_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(params))} must be .* unless solver"):
        fitted(some_pairs(), **params)
