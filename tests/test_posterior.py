"""How sure a sampled model is: standard deviations, intervals, noise weights, rows of new ids."""

from dataclasses import replace

import naive
import numpy as np
import pytest
from gibbs_checks import distinct_ratings

from funksvd import FunkSVD, Ratings, load
from funksvd.features import members_of, set_means
from funksvd.posterior import row_posterior


def share_inside(model, ratings, coverage):
    """Return the share of ratings that lies in the model's intervals."""
    low, high = model.predict_interval(ratings, coverage)
    return np.mean((low <= ratings.values) & (ratings.values <= high))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A saved and loaded model of users of whom every tenth scatters twice as much; held-out."""
    users, items, values = distinct_ratings(20_000, 300, 200)
    more_noise = np.random.default_rng(5).normal(0, 0.87, len(values))
    values = values + (users % 10 == 0) * more_noise
    train, held_out = Ratings.from_arrays(users, items, values).split(0.2)
    path = tmp_path_factory.mktemp("noisy") / "m.npz"
    FunkSVD(6, 40, solver="gibbs", random_state=0).fit(train).save(path)
    return load(path), held_out


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_intervals_of_a_saved_model(noisy, coverage):
    assert share_inside(*noisy, coverage) == pytest.approx(coverage, abs=0.03)


def test_intervals_are_clipped_to_the_rating_scale(noisy):
    model, held_out = noisy
    model.rating_scale = (1, 5)
    low, high = model.predict_interval(held_out, 0.99)
    model.rating_scale = None
    assert low.min() == 1
    assert high.max() == 5


def test_noise_weights_and_standard_deviations(noisy):
    model, _ = noisy
    weights = model.user_noise_weights_
    assert np.median(weights[::10]) < 0.5 * np.median(weights[1::10])
    X = (np.array([0, 1]), np.array([3, 3]))
    mean, std = model.predict(X, return_std=True)
    assert std[0] > std[1] > 0
    np.testing.assert_array_equal(mean, model.predict(X))
    with pytest.warns(UserWarning, match="unknown"):
        _, strange = model.predict((np.array([10**6]), np.array([3])), return_std=True)
    assert strange[0] > std[1]


def test_careful_recommendations(noisy):
    model, _ = noisy
    items, scores = model.recommend(1, 5, risk=-1.0)
    mean, std = model.predict((np.ones(5, int), items), return_std=True)
    np.testing.assert_allclose(scores, mean - std, rtol=1e-5)


def test_other_models_have_no_standard_deviations():
    users, items, values = distinct_ratings(100)
    model = FunkSVD(2, 1, random_state=0).fit((users, items), values)
    with pytest.raises(ValueError, match="solver='gibbs'"):
        model.predict((users, items), return_std=True)
    sampled = FunkSVD(2, 2, solver="gibbs", random_state=0).fit((users, items), values)
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\), got 1"):
        sampled.predict_interval((users, items), 1)


class HalfGiven:
    """Models without every fifth user, and what they learn of these from half of their ratings."""

    def __init__(self):
        users, items, values = distinct_ratings(20_000, 300, 200)
        half = np.random.default_rng(0).random(len(users)) < 0.5
        self.known = users % 5 != 0
        self.given = ~self.known & half
        self.asked = ~self.known & ~half
        self.columns = (users, items, values)

    def pairs(self, chosen):
        users, items, _ = self.columns
        return users[chosen], items[chosen]

    def values(self, chosen):
        return self.columns[2][chosen]

    def fit(self, chosen):
        model = FunkSVD(6, 40, solver="gibbs", random_state=0)
        return model.fit(self.pairs(chosen), self.values(chosen))


def test_fold_in_has_its_own_posterior():
    """New users are nearly as good and as sure as after a fit with their ratings."""
    case = HalfGiven()
    asked = case.pairs(case.asked)
    base = case.fit(case.known)
    folded = base.fold_in(case.pairs(case.given), case.values(case.given))
    whole = case.fit(case.known | case.given)
    errors = [model.evaluate(asked, case.values(case.asked))["rmse"] for model in (folded, whole)]
    assert errors[0] < 1.03 * errors[1]
    held_out = Ratings.from_arrays(*asked, case.values(case.asked))
    for coverage in (0.5, 0.8, 0.95):
        assert share_inside(folded, held_out, coverage) == pytest.approx(coverage, abs=0.03)
    alone = base.fold_in(case.pairs(case.given), case.values(case.given), extend=False)
    np.testing.assert_array_equal(
        alone.predict(asked, return_std=True), folded.predict(asked, return_std=True)
    )
    known = case.pairs(case.known)
    _, before = base.predict(known, return_std=True)
    _, after = folded.predict(known, return_std=True)
    np.testing.assert_array_equal(after, before)


def ratings_by_taste(seed=0):
    """Return (users, items, values) where what a user rates says what it likes."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(0, 1, (300, 2)), rng.normal(0, 1, (120, 2))
    liking = p @ q.T
    rated = rng.random(liking.shape) < 1 / (1 + np.exp(1.5 - 1.5 * liking))
    users, items = np.nonzero(rated)
    return users, items, 3 + liking[rated] + rng.normal(0, 1, len(users))


def test_prior_means_of_new_rows_come_from_their_sets():
    """A user of whom only the set is known is predicted better than by biases alone."""
    users, items, values = ratings_by_taste()
    known = users % 5 != 0
    model = FunkSVD(4, 40, solver="gibbs", random_state=0)
    model.fit((users[known], items[known]), values[known])
    weights = model.get_weights()
    new = ~known
    codes, rows = np.unique(users[new], return_inverse=True)
    start = np.searchsorted(rows, np.arange(len(codes) + 1))
    means = set_means(weights, 0, members_of(start, items[new]))
    one = slice(start[3], start[4])  # the twin, of one user
    share = 1 / np.sqrt(start[4] - start[3])
    own = items[new][one]
    assert means.biases[3] == pytest.approx(share * weights.item_set_biases[own].sum(), rel=1e-5)
    factors = share * weights.item_set_factors[own].sum(0) @ weights.item_set_map
    np.testing.assert_allclose(means.factors[3], factors, rtol=1e-4, atol=1e-6)
    biases = weights.global_mean + weights.item_biases[items[new]]
    of_sets = means.biases[rows]
    of_sets = of_sets + np.sum(means.factors[rows] * weights.item_factors[items[new]], axis=1)
    errors = [np.std(values[new] - predicted) for predicted in (biases + of_sets, biases)]
    assert errors[0] < 0.9 * errors[1]


def test_what_ids_say_in_sets_follows_them(tmp_path):
    """It is saved, moves with the ids of an extended model, and new ids say nothing yet."""
    users, items, values = distinct_ratings(600)
    model = FunkSVD(2, 8, solver="gibbs", random_state=0).fit((2 * users, items), values)
    model.save(tmp_path / "m.safetensors")
    saved = load(tmp_path / "m.safetensors").get_weights()
    np.testing.assert_array_equal(saved.user_set_factors, model.get_weights().user_set_factors)
    wider = model.fold_in(([1, 1, 3], [0, 1, 2]), [3.0, 4.0, 5.0])
    old = np.isin(wider.user_ids_, model.user_ids_)
    wide = wider.get_weights()
    np.testing.assert_array_equal(wide.user_set_factors[old], saved.user_set_factors)
    assert not wide.user_set_biases[~old].any()
    assert not model.fold_in(([1], [0]), [3.0], extend=False).get_weights().user_set_biases.any()
    harmed = replace(saved, user_set_map=saved.user_set_map[:1])
    with pytest.raises(ValueError, match="user_set arrays"):
        model.set_weights(harmed)


def test_new_ratings_need_fold_in_and_another_fit_forgets_the_posterior():
    users, items, values = distinct_ratings(300)
    model = FunkSVD(2, 2, solver="gibbs", random_state=0).fit((users, items), values)
    assert model.user_noise_weights_.shape == model.user_ids_.shape
    with pytest.raises(ValueError, match="partial_fit"):
        model.partial_fit((users, items), values)
    model.set_params(solver="sgd", n_epochs=1).fit((users, items), values)
    assert not hasattr(model, "user_noise_weights_")


@pytest.mark.parametrize("n", [1, 4, 6, 30])
def test_new_row_equals_naive(n):
    rng = np.random.default_rng(n)
    g = rng.normal(size=(n, 5))
    y = rng.normal(size=n)
    noise = rng.uniform(0.5, 2, n)
    more = rng.uniform(0, 1, n)
    root = rng.normal(size=(5, 5))
    prior = root @ root.T
    got = row_posterior(g, y, prior, np.linalg.inv(prior), noise, more)
    for ours, theirs in zip(got, naive.gibbs_row(g, y, prior, noise, more), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
