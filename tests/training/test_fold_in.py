"""New users, items and ratings in a trained model: the ridge solution beside NumPy's and scikit-learn's, and real data."""

import copy
import os
from pathlib import Path

import naive
import numpy as np
import pytest

from funksvd import FunkSVD, Ratings
from funksvd.parameters import resolve
from funksvd.training import fold_in

DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder"
)


def some(n=3000, seed=0, n_users=60, n_items=40):
    rng = np.random.default_rng(seed)
    return rng.integers(0, n_users, n), rng.integers(0, n_items, n), rng.normal(3.5, 1, n)


def fitted(**params):
    users, items, values = some()
    return FunkSVD(**{"n_factors": 6, "n_epochs": 5, "random_state": 0} | params).fit(
        (users, items), values
    )


def arrays_of(model):
    return (
        model.user_ids_,
        model.user_biases_,
        model.user_factors_,
        model.item_ids_,
        model.item_biases_,
        model.item_factors_,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("side", ["users", "items"])
def test_a_folded_row_is_the_ridge_solution(side, dtype):
    model = fitted(dtype=dtype, l2=0.1, l2_bias=0.03)
    rng = np.random.default_rng(1)
    sizes = {1000: 1, 1003: 3, 1001: 50, 1010: 12}
    new = np.repeat(list(sizes), list(sizes.values()))
    known = rng.choice(getattr(model, "item_ids_" if side == "users" else "user_ids_"), len(new))
    values, weights = rng.normal(3.5, 1, len(new)), rng.random(len(new))
    early = 1 / sum(0.02 * 0.97**e for e in range(5))  # of SGD's five epochs
    X = (new, known) if side == "users" else (known, new)
    small = model.fold_in(X, values, sample_weight=weights, side=side, extend=False)
    whole = model.fold_in(X, values, sample_weight=weights, side=side)
    mine, other = ("user", "item") if side == "users" else ("item", "user")
    assert getattr(small, f"{mine}_ids_").tolist() == sorted(sizes)
    for row, (one, n) in enumerate(sorted(sizes.items())):
        at = new == one
        codes = np.searchsorted(getattr(model, f"{other}_ids_"), known[at])
        z = getattr(model, f"{other}_factors_")[codes].astype(np.float64)
        rest = values[at] - model.global_mean_ - getattr(model, f"{other}_biases_")[codes]
        want = naive.ridge(z, rest, weights[at], 0.03 * n + early, 0.1 * n + early)
        got = np.append(
            getattr(small, f"{mine}_biases_")[row], getattr(small, f"{mine}_factors_")[row]
        )
        np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == "float32" else 1e-9, atol=1e-7)
        in_whole = np.searchsorted(getattr(whole, f"{mine}_ids_"), one)
        assert (
            getattr(whole, f"{mine}_factors_")[in_whole] == getattr(small, f"{mine}_factors_")[row]
        ).all()


def test_an_unbiased_row_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = fitted(dtype="float64", biased=False, l2=0.1)
    items, values = model.item_ids_[:20], np.random.default_rng(1).normal(3.5, 1, 20)
    small = model.fold_in((np.full(20, 1000), items), values, extend=False)
    ridge = linear_model.Ridge(
        alpha=0.1 * 20 + 1 / sum(model.history_["learning_rate"]), fit_intercept=False
    )
    ridge.fit(model.item_factors_[:20], values - model.global_mean_)
    np.testing.assert_allclose(small.user_factors_[0], ridge.coef_, rtol=1e-8)
    assert small.user_biases_[0] == 0


def test_folding_leaves_the_model_as_it_is_and_keeps_the_others():
    model = fitted()
    before = [a.copy() for a in arrays_of(model)]
    whole = model.fold_in(([3.0, -7, 1000], model.item_ids_[:3]), [5, 1, 4])
    for a, b in zip(arrays_of(model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole.user_ids_.tolist() == [-7, *range(60), 1000]
    kept = np.isin(whole.user_ids_, np.delete(model.user_ids_, 3))
    np.testing.assert_array_equal(whole.user_factors_[kept], np.delete(model.user_factors_, 3, 0))
    assert (whole.user_factors_[4] != model.user_factors_[3]).any()  # a known user is solved anew
    assert whole.recommend(1000, 3)[0].shape == (3,)


def test_folding_does_not_depend_on_the_order_of_rows_or_threads():
    model = fitted()
    users, items, values = some(4000, seed=5, n_users=700)
    want = model.fold_in((users + 500, items), values)
    order = np.random.default_rng(0).permutation(len(users))
    for n_jobs in (1, 3):
        got = model.set_params(n_jobs=n_jobs).fold_in(
            (users[order] + 500, items[order]), values[order]
        )
        for a, b in zip(arrays_of(got), arrays_of(want), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_the_other_side_does_not_know_is_left_out_with_a_warning():
    model = fitted()
    with pytest.warns(UserWarning, match="2 of 3 ratings are of items unknown to the model"):
        small = model.fold_in(
            ([500, 500, 501], [model.item_ids_[0], -1, -1]), [5.0, 4, 3], extend=False
        )
    alone = model.fold_in(([500], model.item_ids_[:1]), [5.0], extend=False)
    assert (small.user_factors_[0] == alone.user_factors_[0]).all()
    assert (small.user_factors_[1] == 0).all()
    with pytest.raises(TypeError, match="user ids are str here but were int"):
        model.fold_in((["a"], model.item_ids_[:1]), [5.0])
    with pytest.raises(ValueError, match="side must be 'users' or 'items', got 'rows'"):
        model.fold_in(([1], [1]), [5.0], side="rows")


def penalties(counts, side=0, rates=(), n_ratings=1, **params):
    """The penalties of rows with `counts` ratings, as a list."""
    hyper = resolve(FunkSVD(**params).get_params())
    past = fold_in.Past(list(rates), n_ratings)
    return fold_in.penalties(hyper, past, np.array(counts), side).tolist()


def test_penalties_follow_the_parameters():
    assert penalties([4, 1], l2=0.5, l2_bias=0.1) == [[0.4, 2], [0.1, 0.5]]
    rates = [0.5, 0.3]
    assert penalties([4], rates=rates, l2=0.5, l2_bias=0.1) == [[0.4 + 1.25, 2 + 1.25]]
    assert np.isinf(penalties([4], rates=rates, l2=0.5, biased=False)[0][0])


def test_ids_of_any_kind_can_be_folded_in():
    users, items, values = some()
    model = FunkSVD(3, 2, random_state=0).fit((users.astype(str), items), values)
    whole = model.fold_in((["new", "newer"], [1, 2]), [5.0, 3.0])
    assert set(whole.user_ids_) == {*map(str, range(60)), "new", "newer"}
    assert (
        whole.user_factors_[np.searchsorted(whole.user_ids_, "7")]
        == model.user_factors_[np.searchsorted(model.user_ids_, "7")]
    ).all()


def test_partial_fit_moves_only_rows_with_new_ratings():
    model = fitted()
    before = [a.copy() for a in arrays_of(model)]
    served = copy.copy(model)
    users, items = np.array([1, 1, 5, 1000, 1000]), np.array([2, 3, 2, 2, 777])
    assert model.partial_fit((users, items), [5.0, 1, 4, 2, 3]) is model
    for a, b in zip(arrays_of(served), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.user_ids_.tolist() == [*range(60), 1000]
    assert model.item_ids_.tolist() == [*range(40), 777]
    moved = (model.user_factors_[:60] != served.user_factors_).any(1)
    assert np.flatnonzero(moved).tolist() == [1, 5]
    assert np.flatnonzero((model.item_factors_[:40] != served.item_factors_).any(1)).tolist() == [
        2,
        3,
    ]
    assert model.global_mean_ == served.global_mean_
    assert np.isfinite(model.predict((users, items), unknown="raise")).all()


def test_partial_fit_learns_and_is_deterministic():
    users, items, values = some()
    results = []
    for order in (slice(None), np.random.default_rng(0).permutation(600)):
        model = fitted()
        new = (users[:600] + 40, items[:600]), values[:600] + 1.0  # some users known, some not
        error = model.evaluate(*new)["rmse"]
        model.partial_fit(
            (new[0][0][order], new[0][1][order]), new[1][order], n_epochs=20, learning_rate=0.02
        )
        assert model.evaluate(*new)["rmse"] < 0.8 * error
        results.append(arrays_of(model))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_partial_fit_of_a_fresh_model_is_fit():
    users, items, values = some()
    a, b = (FunkSVD(3, 4, random_state=0) for _ in range(2))
    a.fit((users, items), values)
    b.partial_fit((users, items), values)
    assert (a.user_factors_ == b.user_factors_).all()
    with pytest.raises(ValueError, match="n_epochs must be an int >= 1, got 0"):
        b.partial_fit((users, items), values, n_epochs=0)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        b.partial_fit((users, items), values, learning_rate=1e6)
    assert (a.user_factors_ == b.user_factors_).all()


@needs_data
def test_folded_users_of_goodbooks_are_nearly_as_good_as_trained_ones():
    ratings = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz")
    rng = np.random.default_rng(0)
    new = np.isin(ratings.users, rng.choice(ratings.n_users, 10_000, replace=False))
    hidden = new & (rng.random(len(ratings)) < 0.2)

    def part(mask):
        ids = ratings.user_ids[ratings.users[mask]], ratings.item_ids[ratings.items[mask]]
        return Ratings.from_arrays(*ids, ratings.values[mask])

    test = part(hidden)
    params = {"n_factors": 32, "random_state": 0}
    folded = FunkSVD(**params).fit(part(~new)).fold_in(part(new & ~hidden)).evaluate(test)["rmse"]
    trained = FunkSVD(**params).fit(part(~hidden)).evaluate(test)["rmse"]
    biases = (
        FunkSVD(n_factors=1, init_std=0, random_state=0).fit(part(~hidden)).evaluate(test)["rmse"]
    )
    assert folded < 1.03 * trained
    assert folded < biases


@needs_data
def test_partial_fit_on_one_percent_is_nearly_as_good_as_training_anew():
    ratings = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz")
    train, test = ratings.split(0.1, 0)
    old, new = train.split(0.01, 1)
    params = {"n_factors": 32, "random_state": 0}
    trained = FunkSVD(**params).fit(train).evaluate(test)["rmse"]
    assert FunkSVD(**params).fit(old).partial_fit(new).evaluate(test)["rmse"] < 1.01 * trained


def test_penalties_of_sides_and_of_rows():
    sides = {"l2": (0.5, 1), "l2_bias": (0.1, 0.2)}
    assert penalties([4, 1], side=1, reg_scale="row", **sides) == [[0.2, 1], [0.2, 1]]
    assert penalties([4], side=1, **sides) == [[0.8, 4]]
    assert penalties([4], side=0, **sides) == [[0.4, 2]]
    # Keras' loss: the mean of 500 errors, and l2 |p|^2.
    keras = {"reg_scale": "row", "batch_size": 1000, **sides}
    found = penalties([4, 1], side=1, rates=[1.0, 1.0], n_ratings=500, **keras)
    assert found == [pytest.approx(np.array([100, 500]) + 1 / (2 * 2 / 1000))] * 2


@pytest.mark.parametrize("biased", [True, False])
def test_rows_of_a_non_negative_model_are_the_best_without_negative_factors(biased):
    """The conditions of Karush, Kuhn and Tucker: no slope where a factor is above 0, none downhill where it is 0."""
    model = fitted(dtype="float64", l2=0.1, l2_bias=0.03, non_negative=True, biased=biased)
    rng = np.random.default_rng(1)
    new, items = np.repeat([1000, 1001, 1002], [40, 12, 3]), rng.choice(model.item_ids_, 55)
    values, weights = rng.normal(3.5, 1, 55), rng.random(55)
    small = model.fold_in((new, items), values, sample_weight=weights, extend=False)
    assert (small.user_factors_ == 0).any()
    early = 1 / sum(model.history_["learning_rate"])
    for row, user in enumerate(small.user_ids_):
        at = new == user
        codes = np.searchsorted(model.item_ids_, items[at])
        z, b, p = model.item_factors_[codes], small.user_biases_[row], small.user_factors_[row]
        error = values[at] - model.global_mean_ - model.item_biases_[codes] - b - z @ p
        slope = (0.1 * at.sum() + early) * p - z.T @ (weights[at] * error)
        assert (p >= 0).all()
        np.testing.assert_allclose(slope[p > 0], 0, atol=1e-8)
        assert (slope[p == 0] > -1e-8).all()
        bias_slope = (0.03 * at.sum() + early) * b - weights[at] @ error
        assert bias_slope == pytest.approx(0, abs=1e-8) if biased else b == 0


def test_how_far_the_steps_of_each_way_to_train_went():
    X, y = some()[:2], some()[2]

    def length(**params):
        model = FunkSVD(2, 4, learning_rate=0.01, random_state=0, **params).fit(X, y)
        return fold_in.step_length(model._hyper(), model._past())

    usual = 0.01 * sum(0.97**e for e in range(4))
    assert length() == pytest.approx(usual)
    assert length(momentum=0.75) == pytest.approx(4 * usual)
    assert length(training="featurewise") == pytest.approx(usual)
    assert length(solver="adam") == np.inf


@pytest.mark.parametrize("non_negative", [False, True])
def test_a_row_under_l1_is_the_elastic_net_of_scikit_learn(non_negative):
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = fitted(dtype="float64", biased=False, l2=0.01, l1=0.12, non_negative=non_negative)
    params = model.get_weights()
    params.item_factors[:] = np.random.default_rng(0).normal(
        0, 1, (40, 6)
    )  # l1 leaves none in training
    model.set_weights(params)
    items, values = model.item_ids_[:20], np.random.default_rng(1).normal(3.5, 1, 20)
    small = model.fold_in((np.full(20, 1000), items), values, extend=False)
    ridge = 0.01 + 1 / sum(model.history_["learning_rate"]) / 20
    net = linear_model.ElasticNet(
        alpha=0.12 + ridge,
        l1_ratio=0.12 / (0.12 + ridge),
        fit_intercept=False,
        positive=non_negative,
        tol=1e-12,
        max_iter=100_000,
    )
    net.fit(model.item_factors_[:20], values - model.global_mean_)
    np.testing.assert_allclose(small.user_factors_[0], net.coef_, atol=1e-8)
    assert 0 < (net.coef_ == 0).sum() < 6
    assert ((small.user_factors_[0] == 0) == (net.coef_ == 0)).all()


@pytest.mark.parametrize(
    "params", [{}, {"batch_size": 500, "reg_scale": "row"}, {"batch_size": 500}]
)
def test_a_row_under_l1_has_no_slope_but_that_of_the_penalties(params):
    """Biases, weights and sides; where a value is 0 the slope of the errors is at most its threshold."""
    share = 1 / 3000 if "reg_scale" in params else 1
    model = fitted(
        dtype="float64",
        solver="adam",
        l2=(9, 0.2 * share),
        l1=(9, 0.1 * share),
        l2_bias=(9, 0.1 * share),
        l1_bias=(9, 0.2 * share),
        init_std=0.5,
        **params,
    )
    rng, seen = np.random.default_rng(0), []
    for n in (1, 5, 40):
        users = rng.choice(model.user_ids_, n)
        values, weights = rng.normal(3.5, 1, n), rng.random(n)
        one = model.fold_in(
            (users, np.full(n, 1000)), values, sample_weight=weights, side="items", extend=False
        )
        x = np.r_[one.item_biases_[0], one.item_factors_[0]]
        codes = np.searchsorted(model.user_ids_, users)
        z = np.column_stack([np.ones(n), model.user_factors_[codes]])
        slope = z.T @ (weights * (values - model.global_mean_ - model.user_biases_[codes] - z @ x))
        l2, l1 = (
            (n if share == 1 else 1) * np.r_[a, np.full(6, b)] for a, b in ((0.1, 0.2), (0.2, 0.1))
        )
        l1 /= 1 if not params else 2
        np.testing.assert_allclose((slope - l2 * x)[x != 0], (l1 * np.sign(x))[x != 0], atol=1e-9)
        assert (np.abs(slope) <= l1 + 1e-9)[x == 0].all()
        seen += (x == 0).tolist()
    assert 0 < sum(seen) < len(seen)
