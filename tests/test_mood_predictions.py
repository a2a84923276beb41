"""Predictions at a time: the bridge between ratings, its decay, and models that keep moods."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import random_ratings

from funksvd import FunkSVD, Ratings, load
from funksvd.moods import (
    PRIOR_VARIANCE,
    RATED_VARIANCE,
    TIME_CONSTANTS,
    correlations,
    mood_at,
    places_after,
)
from funksvd.posterior import variance

DAY = 86_400
NOW = 1_000_000_000


def ratings_of(n=2000, n_users=40, seed=0):
    """Return ratings with times within a month."""
    users, items, values = random_ratings(n, n_users, 30, seed=seed)
    times = NOW + np.random.default_rng(seed).integers(0, 30 * DAY, n)
    return Ratings.from_arrays(users, items, values, times=times)


@pytest.fixture(scope="module")
def model():
    return FunkSVD(3, 16, solver="gibbs", random_state=0).fit(ratings_of())


@pytest.fixture(scope="module")
def weights(model):
    """Return weights with moods and variances that are large enough to be seen."""
    weights = model.get_weights()
    moods = weights.moods.copy()
    moods[:, PRIOR_VARIANCE] = [0.3, 0.5, 0.9]
    moods[:, RATED_VARIANCE] = [0.2, 0.1, 0.3]
    means = np.random.default_rng(5).normal(size=weights.mood_means.shape).astype(np.float32)
    return replace(weights, moods=moods, mood_means=means)


def test_a_mood_is_the_regression_on_all_of_the_users_moods(weights):
    """The two neighbours say all, since the processes are Markov chains."""
    rng = np.random.default_rng(1)
    for user in (0, 7, 39):
        own = slice(*weights.mood_start[user : user + 2])
        rated = weights.mood_times[own]
        assert (np.diff(rated) >= 0).all()
        for time in (rated[0] - 50, rated[-1] + DAY, *rng.integers(rated[0], rated[-1], 5)):
            mean = -weights.mood_levels[user]
            left = 0.0
            for process, (constant, prior, known) in enumerate(weights.moods):
                place = np.searchsorted(rated, time, side="right")
                chain = np.insert(rated, place, time)
                steps = np.exp(-np.maximum(np.diff(chain) / constant, 1e-3))
                whole = np.eye(len(chain))
                for i in range(len(chain)):
                    whole[i, i + 1 :] = whole[i + 1 :, i] = np.cumprod(steps[i:])
                among = np.delete(np.delete(whole, place, 0), place, 1)
                to = np.delete(whole[place], place)
                shares = np.linalg.solve(among, to)
                mean += shares @ weights.mood_means[own, process]
                left += prior - (prior - known) * (shares @ to)
            got = mood_at(weights, np.array([user]), np.array([time]))
            assert got.mean[0] == pytest.approx(mean, abs=1e-4)
            assert got.variance[0] == pytest.approx(left, rel=1e-4)


def test_after_the_last_rating_the_mood_decays_and_the_interval_widens(weights):
    last = weights.mood_times[weights.mood_start[4] - 1]
    gaps = np.array([0, 10, 1000, DAY, 100 * DAY])
    users = np.full(len(gaps), 3)
    items = np.zeros(len(gaps), np.int32)
    mood = mood_at(weights, users, last + gaps)
    assert (np.diff(mood.variance) > 0).all()
    assert mood.mean[-1] == pytest.approx(-weights.mood_levels[3])
    stationary = weights.moods[:, PRIOR_VARIANCE].sum()
    assert mood.variance[-1] == pytest.approx(stationary)
    assert mood.variance[0] < 0.7 * stationary
    untimed = variance(weights, users, items)
    timed = variance(weights, users, items, last + gaps)
    assert untimed[0] == pytest.approx(timed[-1])
    np.testing.assert_allclose(timed - mood.variance, untimed - stationary, rtol=1e-6)


def test_correlations_fall_exponentially():
    np.testing.assert_allclose(
        correlations(np.array([0, 600, np.inf]), 600.0), [0.999, 0.3679, 0], atol=1e-4
    )


def test_places_after_are_those_of_a_search_in_each_row():
    rng = np.random.default_rng(0)
    times = np.concatenate([np.sort(rng.integers(0, 9, n)) for n in (4, 0, 7)])
    first = np.array([0, 4, 4, 4, 0])
    last = np.array([4, 4, 11, 11, 4])
    asked = np.array([5, 5, 0, 9, -1])
    wanted = [
        a + np.searchsorted(times[a:b], t, side="right")
        for a, b, t in zip(first, last, asked, strict=True)
    ]
    assert places_after(times, first, last, asked).tolist() == wanted


def test_predict_adds_the_mood_of_the_time(model):
    train = ratings_of()
    pairs = train.user_ids[train.users[:50]], train.item_ids[train.items[:50]]
    plain = model.predict(pairs)
    timed = model.predict(pairs, times=train.times[:50])
    weights = model.get_weights()
    mood = mood_at(weights, train.users[:50], train.times[:50])
    np.testing.assert_allclose(timed, plain + mood.mean, rtol=1e-5)
    assert np.abs(timed - plain).max() > 1e-4
    dates = train.times[:50].astype("datetime64[s]")
    np.testing.assert_array_equal(model.predict(pairs, times=dates), timed)
    part = Ratings.from_arrays(*pairs, train.values[:50], times=train.times[:50])
    np.testing.assert_array_equal(model.predict(part), timed)
    _, std = model.predict(pairs, return_std=True)
    _, timed_std = model.predict(pairs, return_std=True, times=train.times[:50])
    assert (timed_std < std).all()
    low, high = model.predict_interval(pairs, times=train.times[:50])
    np.testing.assert_allclose((low + high) / 2, timed, rtol=1e-4)
    error = np.sqrt(np.mean((timed - part.values) ** 2))
    assert model.evaluate(part)["rmse"] == pytest.approx(error, rel=1e-5)


def test_one_time_stands_for_all_pairs(model):
    alike = model.predict(([1, 2], [3, 4]), times=[NOW, NOW])
    np.testing.assert_array_equal(model.predict(([1, 2], [3, 4]), times=NOW), alike)


def test_recommend_at_a_time_shifts_the_scores_and_keeps_the_order(model):
    ids, scores = model.recommend([1, 2], 5)
    same_ids, timed = model.recommend([1, 2], 5, at=NOW)
    np.testing.assert_array_equal(ids, same_ids)
    for row, user in enumerate([1, 2]):
        wanted = model.predict(([user] * 5, ids[row]), times=NOW)
        np.testing.assert_allclose(timed[row], wanted, rtol=1e-5)
    assert np.abs(timed - scores).max() > 1e-6
    risky_ids, risky = model.recommend([1, 2], 5, risk=-1.0, at=NOW)
    for row, user in enumerate([1, 2]):
        mean, std = model.predict(([user] * 5, risky_ids[row]), return_std=True, times=NOW)
        np.testing.assert_allclose(risky[row], mean - std, rtol=1e-5)


def test_unknown_users_have_no_mood(model):
    mood = mood_at(model.get_weights(), np.array([-1]), np.array([NOW]))
    assert mood.mean[0] == 0
    assert mood.variance[0] == model.get_weights().moods[:, PRIOR_VARIANCE].sum()


@pytest.mark.parametrize(
    "parameters", [{"solver": "sgd"}, {"solver": "gibbs", "moods": "variances"}]
)
def test_times_in_vain_are_refused(parameters):
    model = FunkSVD(2, 8, random_state=0, **parameters).fit(ratings_of())
    with pytest.raises(ValueError, match="times say nothing to this model; they do to one of sol"):
        model.predict(([1], [2]), times=[NOW])
    with pytest.raises(ValueError, match="times say nothing to this model"):
        model.recommend(1, at=NOW)
    assert model.evaluate(ratings_of(seed=1))["n"] == 2000


def test_bad_times_are_refused(model):
    with pytest.raises(ValueError, match="must be one time a rating"):
        model.predict(([1], [2]), times=[NOW, NOW])
    with pytest.raises(ValueError, match="must not be negative"):
        model.predict(([1], [2]), times=[-NOW])


@pytest.mark.parametrize("name", ["m.npz", "m.safetensors"])
def test_files_keep_moods(tmp_path, model, name):
    path = tmp_path / name
    model.save(path)
    test = ratings_of(seed=1)
    for mmap in (False, True):
        assert load(path, mmap=mmap).evaluate(test) == model.evaluate(test)


DAMAGES = {
    "mood_start": (lambda array: array[::-1].copy(), "not in the order of the users"),
    "mood_times": (lambda array: array[:-1].copy(), "do not fit"),
    "mood_levels": (lambda array: array[:-1].copy(), "do not fit"),
    "mood_means": (lambda array: array[:, :-1].copy(), "do not fit"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_moods_are_refused(tmp_path, model, name):
    damage, message = DAMAGES[name]
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    arrays[name] = damage(arrays[name])
    np.savez(tmp_path / "damaged.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "damaged.npz")


def test_without_moods_kept_a_model_has_no_number_a_rating(tmp_path):
    model = FunkSVD(2, 8, solver="gibbs", random_state=0, moods="variances").fit(ratings_of())
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert {name for name in file.files if name.startswith("mood")} == {"moods", "mood_levels"}
    loaded = load(tmp_path / "m.npz")
    _, std = loaded.predict(([1], [2]), return_std=True)
    assert std == model.predict(([1], [2]), return_std=True)[1]


def test_folded_users_have_no_mood_and_the_others_keep_theirs(model):
    users = model.user_ids_
    new = model.fold_in(([users[3], -5, -5], [1, 1, 2]), [3.0, 4.0, 2.0])
    others = [user for user in users.tolist() if user != users[3]]
    pairs = others, [1] * len(others)
    np.testing.assert_array_equal(new.predict(pairs, times=NOW), model.predict(pairs, times=NOW))
    folded = ([users[3], -5], [1, 1])
    np.testing.assert_array_equal(new.predict(folded, times=NOW), new.predict(folded))
    alone = model.fold_in(([-5, -5], [1, 2]), [4.0, 2.0], extend=False)
    np.testing.assert_array_equal(alone.predict(([-5], [1]), times=NOW), new.predict(([-5], [1])))
    items = model.fold_in(([users[0], users[1]], [77, 77]), [4.0, 2.0], side="items")
    known = ([users[0]], [1])
    np.testing.assert_array_equal(items.predict(known, times=NOW), model.predict(known, times=NOW))


def test_the_time_constants_are_those_of_the_docs(weights):
    np.testing.assert_array_equal(weights.moods[:, 0], TIME_CONSTANTS)
