"""Training one feature after the other: the kernel and its twin, the SVD, and Funk's stop."""

import os
from pathlib import Path

import naive
import numpy as np
import pytest
from featurewise_models import featurewise, some

from funksvd import Ratings
from funksvd.engines import _featurewise
from funksvd.engines.featurewise import FeatureEngine
from funksvd.hyper import resolve
from funksvd.schedules import planned_rate

DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))


# ---- the kernel and its twin ----


def a_block(dtype, weighted, seed):
    """Runs of many lengths whose gathered rows are distinct in each group of eight."""
    rng = np.random.default_rng(seed)
    lengths = np.array([1, 8, 3, 17, 0, 9, 20])
    index = np.concatenate([rng.permutation(20)[:n] for n in lengths]).astype(np.uint16)
    n = len(index)
    rating = rng.normal(3, 1.5, n + 8).astype(dtype)
    cache = rng.normal(3, 1, n + 8).astype(dtype)
    weight = rng.integers(0, 4, n + 8).astype(dtype) if weighted else np.empty(0, dtype)
    run_row = np.array([4, 0, 3, 2, 1, 6, 5], np.int32)
    p = rng.normal(0, 0.5, 7).astype(dtype)
    q = np.append(rng.normal(0, 0.5, 20), 0).astype(dtype)
    run_end = np.cumsum(lengths).astype(np.uint32)
    index = np.append(index, np.zeros(8, np.uint16))
    return p, q, run_row, run_end, index, rating, weight, cache


def advanced(cache, p, q, biases, limits):
    """Return the clipped predictions after a feature or the biases, given those before."""
    change = p + q if biases else p * q
    return np.clip(cache + change, *limits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("limits", "run_rule", "rule"),
    [
        ((-np.inf, np.inf), (0.1, 0.0, -np.inf), (0.2, 0.0, -np.inf)),
        ((1.0, 4.0), (0.0, 0.3, -np.inf), (0.1, 0.0, -np.inf)),
        ((2.0, 9.0), (0.1, 0.0, 0.0), (0.0, 0.2, 0.0)),
        ((-np.inf, np.inf), (0.1, 0.1, -np.inf), (0.1, 0.4, 0.0)),
    ],
)
def test_a_pass_is_that_of_the_twin(dtype, biases, weighted, limits, run_rule, rule):
    p, q, run_row, run_end, index, rating, weight, cache = a_block(dtype, weighted, 1)
    want_p = p.astype(float)
    want_q = q.astype(float)
    loss = _featurewise.train(
        p,
        q,
        run_row,
        run_end,
        index,
        rating,
        weight,
        cache,
        biases,
        np.array([(0.05, *limits), run_rule, rule]),
    )
    want = naive.feature_pass(
        want_p,
        want_q,
        run_row,
        run_end,
        index[:-8],
        rating.astype(float),
        weight.astype(float),
        cache.astype(float),
        biases,
        0.05,
        limits,
        run_rule,
        rule,
    )
    exact = {"rtol": 1e-11} if dtype is np.float64 else {"rtol": 2e-5, "atol": 1e-6}
    np.testing.assert_allclose(p, want_p, **exact)
    np.testing.assert_allclose(q, want_q, **exact)
    np.testing.assert_allclose(loss, want, **exact)
    assert q[-1] == 0
    _featurewise.advance(p, q, run_row, run_end, index, cache, biases, *limits)
    rows = np.repeat(run_row, np.diff(run_end, prepend=0))
    n = len(rows)
    before = a_block(dtype, weighted, 1)[-1]
    want_cache = advanced(before[:n], p[rows], q[index[:-8]], biases, limits)
    np.testing.assert_allclose(cache[:n], want_cache, **exact)
    assert (cache[n:] == before[n:]).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"rating_scale": (2, 4.5)},
        {"rating_scale": (3.8, 5)},
        {"biased": False, "center": False, "init_std": 0.5},
        {
            "min_improvement": 0.01,
            "learning_rate_schedule": "inverse_time",
        },
    ],
    ids=str,
)
def test_training_is_feature_after_feature(params, weighted):
    """Compare with the twin, which keeps no grid: there is one block, whose order it takes over."""
    (users, items), y = some(1500)
    weights = np.random.default_rng(1).integers(1, 4, len(y)) if weighted else None
    model = featurewise(n_epochs=6, dtype="float64", **params)
    ratings = Ratings.from_arrays(users, items, y, weights)
    model.fit(ratings)
    engine = FeatureEngine(ratings, None, resolve(model.get_params()))
    grid = engine.grid
    assert grid.n_bands == 1
    sides = [model.user_factors_, model.item_factors_]
    if not grid.users_run:
        sides.reverse()
    run = np.repeat(grid.run_row, np.diff(grid.run_end, prepend=0))
    cache = np.clip(np.full(len(y), engine.mean), *engine.limits)
    losses = []
    for feature in range(-1 if params.get("biased", True) else 0, 3):
        if feature < 0:
            p, q = (np.zeros(len(side.biases)) for side in engine.sides)
        else:
            p, q = engine._first(feature)
        losses.append(train_with_twin(engine, feature < 0, p, q, cache))
        cache = advanced(
            cache,
            p[run],
            q[grid.index[: len(y)]],
            feature < 0,
            engine.limits,
        )
        if feature >= 0:
            exact = {"rtol": 1e-8, "atol": 1e-12}
            np.testing.assert_allclose(sides[0][grid.run_codes, feature], p, **exact)
            np.testing.assert_allclose(
                sides[1][grid.codes, feature],
                q[: len(grid.codes)],
                **exact,
            )
    np.testing.assert_allclose(model.history_["loss"], losses[-3:], rtol=1e-9)


def train_with_twin(engine, biases, p, q, cache):
    """Train one feature or the biases in place with the twin; return its last loss."""
    grid = engine.grid
    hyper = engine.hyper
    n = len(grid)
    weight = [] if grid.weight is None else grid.weight[:n]
    arrays = (
        grid.run_row,
        grid.run_end,
        grid.index[:n],
        grid.rating[:n],
        weight,
    )
    rule = (hyper.l2_bias if biases else hyper.l2, 0.0, -np.inf)

    def make_pass(number):
        rate = planned_rate(hyper, number)
        squares = naive.feature_pass(p, q, *arrays, cache, biases, rate, engine.limits, rule, rule)
        return squares / grid.total_weight

    return naive.passes(make_pass, hyper.n_epochs, hyper.min_improvement)[1]


# ---- what it is good for ----


def test_on_a_full_matrix_it_is_the_svd():
    """Each feature is the next pair of singular vectors.

    Funk: "it is the SVD, less the need for all the numbers".
    """
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(30, 4)))
    right, _ = np.linalg.qr(rng.normal(size=(20, 4)))
    matrix = left * [20, 12, 7, 3] @ right.T
    users, items = (index.ravel() for index in np.indices(matrix.shape))
    model = featurewise(
        4,
        2000,
        biased=False,
        center=False,
        l2=0,
        learning_rate=0.003,
        learning_rate_schedule="constant",
        min_improvement=1e-10,
        dtype="float64",
    )
    model.fit((users, items), matrix.ravel())
    for f, size in enumerate((20, 12, 7, 3)):
        got = np.outer(model.user_factors_[:, f], model.item_factors_[:, f])
        want = size * np.outer(left[:, f], right[:, f])
        np.testing.assert_allclose(got, want, atol=0.02)  # a finite step leaves a little
    assert model.history_["rmse"][-1] < 0.01


def test_planted_ratings_are_found():
    X, y = some(20_000, 300, 200)
    model = featurewise(6, 60, l2=0.02).fit(X, y, validation_split=0.1)
    assert model.history_["val_rmse"][1] < 0.36  # the noise is 0.3, without factors it is 0.77
    assert model.history_["val_rmse"][0] > 0.5  # one of the two is missing


@pytest.mark.skipif(
    not DATA.is_dir(),
    reason="real ratings are not there: FUNKSVD_DATA names their folder",
)
def test_rmse_on_ml_100k():
    """The RMSE lies between biases alone (0.943 in the literature) and joint factors (0.912)."""
    ratings = np.loadtxt(DATA / "ml-100k" / "u.data", dtype=np.int64)
    test = np.arange(len(ratings)) // 20_000 == 2
    model = featurewise(20, 40, rating_scale=(1, 5)).fit(ratings[~test, :2], ratings[~test, 2])
    assert 0.89 < model.evaluate(ratings[test, :2], ratings[test, 2])["rmse"] < 0.925


# ---- when a feature is done ----


def passes_of(monkeypatch, X, y, **params):
    seen = []
    whole = FeatureEngine._train

    def train(self, biases, number, *rest):
        loss = whole(self, biases, number, *rest)
        seen.append((number, loss))
        return loss

    monkeypatch.setattr(FeatureEngine, "_train", train)
    model = featurewise(**params).fit(X, y)
    monkeypatch.undo()
    return model, seen


@pytest.mark.parametrize("min_improvement", [0, 1e-4, 0.003, 0.05, 9])
def test_a_feature_is_done_when_it_improves_no_more(monkeypatch, min_improvement):
    X, y = some()
    model, seen = passes_of(
        monkeypatch,
        X,
        y,
        k=4,
        n_epochs=30,
        min_improvement=min_improvement,
    )
    by_feature = {}
    for number, loss in seen:
        by_feature.setdefault(number // 30 - 1, []).append(loss)
    assert list(by_feature) == [-1, 0, 1, 2, 3]
    for feature, losses in by_feature.items():
        count, last = naive.passes(losses.__getitem__, 30, min_improvement)
        assert len(losses) == count
        if feature >= 0:
            assert model.history_["loss"][feature] == last
    if min_improvement == 9:
        assert {len(losses) for losses in by_feature.values()} == {30}  # none was ever that good


def test_steps_follow_the_schedule_within_a_feature(monkeypatch):
    X, y = some()
    rates = []
    whole = FeatureEngine._train

    def train(self, biases, number, run, other, rate):
        rates.append(rate)
        return whole(self, biases, number, run, other, rate)

    monkeypatch.setattr(FeatureEngine, "_train", train)
    model = featurewise(
        2,
        5,
        min_improvement=9,
        learning_rate=0.1,
        learning_rate_schedule="inverse_time",
        learning_rate_decay=0.5,
    ).fit(X, y)
    assert model.history_["learning_rate"] == [0.1, 0.1]
    np.testing.assert_allclose(rates, 3 * [0.1 / (1 + 0.5 * e) for e in range(5)])
