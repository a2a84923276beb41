"""New rows of a trained model: ridge solutions, beside those of NumPy and scikit-learn."""

import naive
import numpy as np
import pytest
from conftest import random_ratings
from trained_models import DATA, arrays_of, needs_data, trained_model

from funksvd import FunkSVD, Ratings
from funksvd.hyper import resolve
from funksvd.training import fold_in

# ---- the solution ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("side", ["users", "items"])
def test_a_folded_row_is_the_ridge_solution(side, dtype):
    own, other = ("user", "item") if side == "users" else ("item", "user")
    model = trained_model(dtype=dtype, l2=0.1, l2_bias=0.03)
    other_ids = getattr(model, f"{other}_ids_")
    other_factors = getattr(model, f"{other}_factors_").astype(np.float64)
    other_biases = getattr(model, f"{other}_biases_")
    rng = np.random.default_rng(1)
    n_ratings = {1000: 1, 1001: 50, 1003: 3, 1010: 12}
    new = np.repeat(list(n_ratings), list(n_ratings.values()))
    known = rng.choice(other_ids, len(new))
    values = rng.normal(3.5, 1, len(new))
    sample_weights = rng.random(len(new))
    early = 1 / sum(0.02 * 0.97**epoch for epoch in range(5))  # SGD's five epochs stop short
    X = (new, known) if side == "users" else (known, new)
    small = model.fold_in(X, values, sample_weight=sample_weights, side=side, extend=False)
    whole = model.fold_in(X, values, sample_weight=sample_weights, side=side)
    assert getattr(small, f"{own}_ids_").tolist() == list(n_ratings)
    for row, (new_id, n) in enumerate(n_ratings.items()):
        at = new == new_id
        codes = np.searchsorted(other_ids, known[at])
        rest = values[at] - model.global_mean_ - other_biases[codes]
        expected = naive.ridge(
            other_factors[codes],
            rest,
            sample_weights[at],
            0.03 * n + early,
            0.1 * n + early,
        )
        bias = getattr(small, f"{own}_biases_")[row]
        factors = getattr(small, f"{own}_factors_")[row]
        rtol = 1e-5 if dtype == "float32" else 1e-9
        np.testing.assert_allclose([bias, *factors], expected, rtol=rtol, atol=1e-7)
        row_in_whole = np.searchsorted(getattr(whole, f"{own}_ids_"), new_id)
        assert (getattr(whole, f"{own}_factors_")[row_in_whole] == factors).all()


def test_an_unbiased_row_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = trained_model(dtype="float64", biased=False, l2=0.1)
    items = model.item_ids_[:20]
    values = np.random.default_rng(1).normal(3.5, 1, 20)
    small = model.fold_in((np.full(20, 1000), items), values, extend=False)
    penalty = 0.1 * 20 + 1 / sum(model.history_["learning_rate"])
    ridge = linear_model.Ridge(alpha=penalty, fit_intercept=False)
    ridge.fit(model.item_factors_[:20], values - model.global_mean_)
    np.testing.assert_allclose(small.user_factors_[0], ridge.coef_, rtol=1e-8)
    assert small.user_biases_[0] == 0


@pytest.mark.parametrize("biased", [True, False])
def test_rows_of_a_non_negative_model_are_the_best_without_negative_factors(biased):
    """The conditions of Karush, Kuhn and Tucker.

    There is no slope where a factor is above 0, and none downhill where it is 0.
    """
    model = trained_model(dtype="float64", l2=0.1, l2_bias=0.03, non_negative=True, biased=biased)
    rng = np.random.default_rng(1)
    new = np.repeat([1000, 1001, 1002], [40, 12, 3])
    items = rng.choice(model.item_ids_, 55)
    values = rng.normal(3.5, 1, 55)
    sample_weights = rng.random(55)
    small = model.fold_in((new, items), values, sample_weight=sample_weights, extend=False)
    assert (small.user_factors_ == 0).any()
    early = 1 / sum(model.history_["learning_rate"])
    for row, user in enumerate(small.user_ids_):
        at = new == user
        codes = np.searchsorted(model.item_ids_, items[at])
        z = model.item_factors_[codes]
        b = small.user_biases_[row]
        p = small.user_factors_[row]
        errors = values[at] - model.global_mean_ - model.item_biases_[codes] - b - z @ p
        slope = (0.1 * at.sum() + early) * p - z.T @ (sample_weights[at] * errors)
        assert (p >= 0).all()
        np.testing.assert_allclose(slope[p > 0], 0, atol=1e-8)
        assert (slope[p == 0] > -1e-8).all()
        bias_slope = (0.03 * at.sum() + early) * b - sample_weights[at] @ errors
        assert bias_slope == pytest.approx(0, abs=1e-8) if biased else b == 0


@pytest.mark.parametrize("non_negative", [False, True])
def test_a_row_under_l1_is_the_elastic_net_of_scikit_learn(non_negative):
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = trained_model(
        dtype="float64", biased=False, l2=0.01, l1=0.12, non_negative=non_negative
    )
    weights = model.get_weights()
    # Training under this l1 leaves no factors to start from.
    weights.item_factors[:] = np.random.default_rng(0).normal(0, 1, (40, 6))
    model.set_weights(weights)
    items = model.item_ids_[:20]
    values = np.random.default_rng(1).normal(3.5, 1, 20)
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
    """Biases, sample weights and sides count; where a value is 0 the slope is within the threshold.

    The penalties of users are 9 in all, and must not count for items.
    """
    by_row = "reg_scale" in params
    share = 1 / 3000 if by_row else 1
    model = trained_model(
        dtype="float64",
        solver="adam",
        l2=(9, 0.2 * share),
        l1=(9, 0.1 * share),
        l2_bias=(9, 0.1 * share),
        l1_bias=(9, 0.2 * share),
        init_std=0.5,
        **params,
    )
    rng = np.random.default_rng(0)
    is_zero = []
    for n in (1, 5, 40):
        users = rng.choice(model.user_ids_, n)
        values = rng.normal(3.5, 1, n)
        sample_weights = rng.random(n)
        X = (users, np.full(n, 1000))
        small = model.fold_in(X, values, sample_weight=sample_weights, side="items", extend=False)
        x = np.append(small.item_biases_[0], small.item_factors_[0])
        codes = np.searchsorted(model.user_ids_, users)
        z = np.column_stack([np.ones(n), model.user_factors_[codes]])
        rest = values - model.global_mean_ - model.user_biases_[codes]
        slope = z.T @ (sample_weights * (rest - z @ x))
        times = 1 if by_row else n
        l2 = times * np.array([0.1, *6 * [0.2]])
        l1 = times * np.array([0.2, *6 * [0.1]])
        if params:  # in mini-batches l1 stands beside the whole squared error
            l1 /= 2
        rest_of_slope = slope - l2 * x
        threshold = l1 * np.sign(x)
        np.testing.assert_allclose(rest_of_slope[x != 0], threshold[x != 0], atol=1e-9)
        assert (np.abs(slope) <= l1 + 1e-9)[x == 0].all()
        is_zero += (x == 0).tolist()
    assert 0 < sum(is_zero) < len(is_zero)


# ---- the penalties ----


def penalties(counts, side=0, rates=(), n_ratings=1, **params):
    """Return the penalties of rows with `counts` ratings, as a list."""
    hyper = resolve(FunkSVD(**params).get_params())
    past = fold_in.Past(list(rates), n_ratings)
    return fold_in.penalties(hyper, past, np.array(counts), side).tolist()


def test_penalties_follow_the_parameters():
    assert penalties([4, 1], l2=0.5, l2_bias=0.1) == [[0.4, 2], [0.1, 0.5]]
    rates = [0.5, 0.3]
    assert penalties([4], rates=rates, l2=0.5, l2_bias=0.1) == [[0.4 + 1.25, 2 + 1.25]]
    assert np.isinf(penalties([4], rates=rates, l2=0.5, biased=False)[0][0])


def test_penalties_of_sides_and_of_rows():
    sides = {"l2": (0.5, 1), "l2_bias": (0.1, 0.2)}
    assert penalties([4, 1], side=1, reg_scale="row", **sides) == [[0.2, 1], [0.2, 1]]
    assert penalties([4], side=1, **sides) == [[0.8, 4]]
    assert penalties([4], side=0, **sides) == [[0.4, 2]]
    # Keras' loss is the mean of 500 squared errors, plus l2 |p|^2.
    keras = {"reg_scale": "row", "batch_size": 1000, **sides}
    found = penalties([4, 1], side=1, rates=[1.0, 1.0], n_ratings=500, **keras)
    assert found == [pytest.approx(np.array([100, 500]) + 1 / (2 * 2 / 1000))] * 2


def test_the_length_of_the_steps_of_each_way_to_train():
    users, items, values = random_ratings(n_users=60, n_items=40)

    def length(**params):
        model = FunkSVD(2, 4, learning_rate=0.01, random_state=0, **params)
        model.fit((users, items), values)
        return fold_in.step_length(model._hyper(), fold_in.past_of(model._fitted))

    usual = 0.01 * sum(0.97**epoch for epoch in range(4))
    assert length() == pytest.approx(usual)
    assert length(momentum=0.75) == pytest.approx(4 * usual)
    assert length(training="featurewise") == pytest.approx(usual)
    assert length(solver="adam") == np.inf


# ---- the model around the new rows ----


def test_folding_leaves_the_model_and_its_other_rows_as_they_are():
    model = trained_model()
    before = [array.copy() for array in arrays_of(model)]
    whole = model.fold_in(([3.0, -7, 1000], model.item_ids_[:3]), [5, 1, 4])
    for array, array_before in zip(arrays_of(model), before, strict=True):
        np.testing.assert_array_equal(array, array_before)
    assert whole.user_ids_.tolist() == [-7, *range(60), 1000]
    kept = np.isin(whole.user_ids_, np.delete(model.user_ids_, 3))
    np.testing.assert_array_equal(whole.user_factors_[kept], np.delete(model.user_factors_, 3, 0))
    assert (whole.user_factors_[4] != model.user_factors_[3]).any()  # a known user is solved anew
    assert whole.recommend(1000, 3)[0].shape == (3,)


def test_folding_does_not_depend_on_the_order_of_rows_or_threads():
    model = trained_model()
    users, items, values = random_ratings(4000, n_users=700, n_items=40, seed=5)
    users = users + 500
    expected = arrays_of(model.fold_in((users, items), values))
    order = np.random.default_rng(0).permutation(len(users))
    for n_jobs in (1, 3):
        model.set_params(n_jobs=n_jobs)
        found = arrays_of(model.fold_in((users[order], items[order]), values[order]))
        for array, expected_array in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, expected_array)


def test_ratings_of_unknown_items_are_left_out_with_a_warning():
    model = trained_model()
    item = model.item_ids_[0]
    with pytest.warns(UserWarning, match="2 of 3 ratings are of items unknown to the model"):
        small = model.fold_in(([500, 500, 501], [item, -1, -1]), [5.0, 4, 3], extend=False)
    alone = model.fold_in(([500], [item]), [5.0], extend=False)
    assert (small.user_factors_[0] == alone.user_factors_[0]).all()
    assert (small.user_factors_[1] == 0).all()
    with pytest.raises(TypeError, match="user ids are str here but were int"):
        model.fold_in((["a"], [item]), [5.0])
    with pytest.raises(ValueError, match="side must be 'users' or 'items', got 'rows'"):
        model.fold_in(([1], [1]), [5.0], side="rows")


def test_ids_of_any_kind_can_be_folded_in():
    users, items, values = random_ratings(n_users=60, n_items=40)
    model = FunkSVD(3, 2, random_state=0).fit((users.astype(str), items), values)
    whole = model.fold_in((["new", "newer"], [1, 2]), [5.0, 3.0])
    assert set(whole.user_ids_) == {*map(str, range(60)), "new", "newer"}
    row_in_whole = np.searchsorted(whole.user_ids_, "7")
    row = np.searchsorted(model.user_ids_, "7")
    assert (whole.user_factors_[row_in_whole] == model.user_factors_[row]).all()


@needs_data
def test_folded_users_of_goodbooks_are_nearly_as_good_as_trained_ones():
    ratings = Ratings.read(DATA / "goodbooks" / "ratings.csv.gz")
    rng = np.random.default_rng(0)
    new = np.isin(ratings.users, rng.choice(ratings.n_users, 10_000, replace=False))
    hidden = new & (rng.random(len(ratings)) < 0.2)

    def part(mask):
        users = ratings.user_ids[ratings.users[mask]]
        items = ratings.item_ids[ratings.items[mask]]
        return Ratings.from_arrays(users, items, ratings.values[mask])

    def error(model):
        return model.evaluate(part(hidden))["rmse"]

    model = FunkSVD(32, random_state=0).fit(part(~new))
    folded = error(model.fold_in(part(new & ~hidden)))
    trained = error(FunkSVD(32, random_state=0).fit(part(~hidden)))
    biases = error(FunkSVD(1, init_std=0, random_state=0).fit(part(~hidden)))
    assert folded < 1.03 * trained
    assert folded < biases


def test_the_order_of_repeated_pairs_with_weights_changes_no_bit():
    model = trained_model(dtype="float64")
    users = np.full(60, 999)
    items = np.repeat(model.item_ids_[:20], 3)
    weights = np.random.default_rng(0).random(60)
    found = set()
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(60)
        X = (users[order], items[order])
        rows = model.fold_in(X, np.full(60, 3.3), sample_weight=weights[order], extend=False)
        found.add(rows.user_factors_.tobytes())
    assert len(found) == 1
