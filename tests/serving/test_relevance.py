"""Ranking by exposure and by relevance: equal to sorting all scores of the formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import planted_ratings

from funksvd import FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.serving import relevance
from funksvd.serving.relevance import Liking, relevant_top
from funksvd.serving.seen import Seen
from funksvd.weights import Weights, predict


def liked_ratings(n: int = 4000, seed: int = 0) -> Ratings:
    """Return ratings of users of two groups, each of which takes items of its half; 1 to 5."""
    users, items, values = planted_ratings(n, 80, 60, seed=seed)
    items = items // 2 + users % 2 * 30
    pairs, first = np.unique(users * 60 + items, return_index=True)
    return Ratings.from_arrays(pairs // 60, pairs % 60, np.clip(np.round(values[first]), 1, 5))


def fitted(ratings: Ratings | None = None, **params: Any) -> FunkSVD:
    """Return a small model that knows ratings and exposure."""
    params = {"n_factors": 4, "n_epochs": 8, "random_state": 0, "exposure": True} | params
    return FunkSVD(**params).fit(liked_ratings() if ratings is None else ratings)


def random_model(n_users: int = 40, n_items: int = 300, levels: int = 0, seed: int = 0) -> Weights:
    """Return random weights; with `levels` the factors take so few values that scores are equal."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        drawn = rng.integers(0, levels, shape) / 4 if levels else rng.normal(0.1, 0.4, shape)
        return drawn.astype(np.float32)

    return Weights(
        3.5,
        draw(n_users),
        draw(n_items),
        draw(n_users, 3),
        draw(n_items, 3),
        exposure=np.array([0.1, 0.01, 1.1, 1.0, 5.0]),
        user_exposure=draw(n_users, 2),
        item_exposure=draw(n_items, 2),
    )


def naive_scores(weights: Weights, user: int, threshold: float | None) -> np.ndarray:
    """Return (n_items,) float32: the relevance of every item for one user, pair by pair."""
    assert weights.user_exposure is not None
    assert weights.item_exposure is not None
    assert weights.exposure is not None
    n_items = len(weights.item_factors)
    zeros = np.zeros(n_items, np.float32)
    exposures = Weights(
        0.0, weights.user_biases * 0, zeros, weights.user_exposure, weights.item_exposure
    )
    pairs = (np.full(n_items, user, np.int32), np.arange(n_items, dtype=np.int32))
    ratings = predict(weights, *pairs).tolist()
    limit = weights.global_mean + float(weights.user_biases[user])
    limit = limit if threshold is None else threshold
    out = []
    for exposure, rating in zip(predict(exposures, *pairs).tolist(), ratings, strict=True):
        z = (rating - limit) / (2 * float(weights.exposure[2]))
        probability = (1 + z / (1 + z * z) ** 0.5) / 2
        share = probability if exposure > 0 else 1 - probability
        out.append(exposure * share)
    return np.array(out, np.float32)


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("threshold", [None, 4.0])
@pytest.mark.parametrize("n", [1, 10, 400])
def test_ranking_equals_sorting_all_scores(
    levels: int, threshold: float | None, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many lists by exposure are too short at first, and users come in small blocks."""
    monkeypatch.setattr(relevance, "TIMES_N", 1)
    monkeypatch.setattr(relevance, "AND", 0)
    monkeypatch.setattr(relevance, "USERS_OF_A_PASS", 17)
    weights = random_model(levels=levels)
    rng = np.random.default_rng(1)
    start = np.arange(0, 41 * 20, 20)
    unwanted = np.sort(rng.permuted(np.tile(np.arange(300), (40, 1)), axis=1)[:, :20], axis=1)
    seen = Seen(start, unwanted.ravel().astype(np.int32))
    items = np.flatnonzero(rng.random(300) < 0.9).astype(np.int32)
    users = np.arange(40, dtype=np.int32)
    codes, scores = relevant_top(weights, users, n, seen, items, Liking(threshold), 1)
    for user in users:
        left = np.setdiff1d(items, unwanted[user])
        expected = naive_scores(weights, user, threshold)[left]
        order = np.lexsort((left, -expected))[:n]
        filled = codes[user] >= 0
        np.testing.assert_array_equal(codes[user][filled], left[order])
        np.testing.assert_array_equal(scores[user][filled], expected[order])
        assert filled.sum() == min(n, len(left))


@pytest.mark.parametrize("solver", ["sgd", "gibbs"])
def test_ratings_are_learned_as_without_exposure(solver: str) -> None:
    both = fitted(solver=solver)
    alone = fitted(solver=solver, exposure=False)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        np.testing.assert_array_equal(getattr(both, name), getattr(alone, name))
    assert both.history_["rmse"] == alone.history_["rmse"]


def test_exposure_is_that_of_ials_alone() -> None:
    ratings = liked_ratings()
    weights = fitted(ratings).get_weights()
    alone = FunkSVD(solver="ials", random_state=0).fit(ratings)
    np.testing.assert_array_equal(weights.user_exposure, alone.user_factors_)
    np.testing.assert_array_equal(weights.item_exposure, alone.item_factors_)


def test_threads_and_the_order_of_the_rows_change_no_bit() -> None:
    ratings = liked_ratings()
    order = np.random.default_rng(1).permutation(len(ratings))
    users = ratings.user_ids[ratings.users][order]
    items = ratings.item_ids[ratings.items][order]
    shuffled = Ratings.from_arrays(users, items, ratings.values[order])
    one = fitted(ratings, n_jobs=1).get_weights()
    other = fitted(shuffled, n_jobs=3).get_weights()
    for name in ("exposure", "user_exposure", "item_exposure"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))


def test_relevance_ranks_better_than_either_part() -> None:
    """Users take items of their half, and like some of these."""
    train, test = liked_ratings(6000).split(0.2, 0)
    model = fitted(train, n_factors=2, n_epochs=30)
    ndcg = {}
    for by in ("relevance", "rating", "exposure"):
        ndcg[by] = model.evaluate(test, exclude=train, k=5, threshold=4, by=by)["ndcg"]
    assert ndcg["relevance"] > max(ndcg["rating"], ndcg["exposure"]) + 0.02


def test_relevance_is_what_a_model_with_exposure_ranks_by() -> None:
    model = fitted()
    ids, scores = model.recommend([1, 2], 5)
    again, _ = model.recommend([1, 2], 5, by="relevance")
    np.testing.assert_array_equal(ids, again)
    rated, ratings = model.recommend([1, 2], 5, by="rating")
    np.testing.assert_array_equal(ratings[0], model.predict(([1] * 5, rated[0])))
    assert (scores <= 1.5).all()
    assert (ratings > 2).all()


def test_tables_show_both_parts() -> None:
    pytest.importorskip("pandas")
    model = fitted()
    table = model.recommend([1, 2], 5, table="pandas")
    assert list(table.columns) == ["user", "item", "rank", "score", "exposure", "probability"]
    product = table.exposure * table.probability
    np.testing.assert_allclose(table.score, product, rtol=1e-5)


def test_an_unknown_user_gets_the_mean_exposure() -> None:
    model = fitted()
    ids, _ = model.recommend(10**6, 5, unknown="mean", by="exposure")
    weights = model.get_weights()
    assert weights.user_exposure is not None
    mean = weights.item_exposure @ weights.user_exposure.mean(axis=0)
    np.testing.assert_array_equal(ids, model.item_ids_[np.argsort(-mean, kind="stable")[:5]])


def test_a_risk_counts_in_the_probability() -> None:
    model = fitted(solver="gibbs")
    safe = model.recommend(None, 60, risk=-3.0)[1]
    bold = model.recommend(None, 60, risk=3.0)[1]
    assert safe[:, 0].mean() < bold[:, 0].mean()


def test_a_folded_user_has_both_rows() -> None:
    ratings = liked_ratings()
    model = fitted(ratings)
    own = ratings.user_ids[ratings.users] == 7
    items = ratings.item_ids[ratings.items[own]]
    stranger = np.full(len(items), 1000)
    folded = model.fold_in((stranger, items), ratings.values[own])
    weights = folded.get_weights()
    place = np.flatnonzero(folded.user_ids_ == 1000)[0]
    row = np.flatnonzero(folded.user_ids_ == 7)[0]
    np.testing.assert_array_equal(weights.user_exposure[place], weights.user_exposure[row])
    best, _ = folded.recommend(1000, 5, exclude=(stranger, items))
    assert (best // 30 == 1).mean() > 0.7


def test_a_user_is_folded_in_from_pairs_alone() -> None:
    """Without sets, pairs tell nothing about ratings."""
    for params in ({"solver": "sgd"}, {"solver": "gibbs", "sets": False}):
        model = fitted(**params)
        stranger = (np.full(4, 1000), np.array([31, 33, 35, 40]))
        folded = model.fold_in(stranger)
        bias = folded.item_biases_[folded.item_ids_ == 31][0]
        assert folded.predict(([1000], [31]))[0] == pytest.approx(folded.global_mean_ + bias)
        best, _ = folded.recommend(1000, 5, exclude=stranger)
        assert (best >= 30).all()


@pytest.mark.parametrize("name", ["model.npz", "model.safetensors"])
def test_a_file_keeps_both_parts(name: str, tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / name)
    read = load(tmp_path / name)
    for ours, theirs in zip(read.recommend(None, 5), model.recommend(None, 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_resumed_fit_has_the_same_exposure(tmp_path: Path) -> None:
    path = tmp_path / "{epoch}.npz"
    ratings = liked_ratings()
    whole = fitted(ratings)
    FunkSVD(4, 8, random_state=0, exposure=True).fit(ratings, callbacks=ModelCheckpoint(path))
    resumed = FunkSVD(4, 8, random_state=0, exposure=True)
    resumed.fit(ratings, callbacks=ModelCheckpoint(path), resume=tmp_path / "3.npz")
    np.testing.assert_array_equal(resumed.recommend(None, 5)[1], whole.recommend(None, 5)[1])
    # A checkpoint of the middle ranks by relevance, too.
    assert load(tmp_path / "3.npz").recommend(1, 5)[1].max() < 1.5


def test_partial_fit_keeps_the_exposure_and_solves_that_of_new_users() -> None:
    model = fitted()
    model.partial_fit((np.full(4, 1000), np.array([31, 33, 35, 40])), [4.0, 5.0, 4.0, 5.0])
    best, _ = model.recommend(1000, 5)
    assert (best >= 30).all()


def test_explain_says_both_parts() -> None:
    ratings = liked_ratings()
    model = fitted(ratings)
    why = model.explain(7, 40, ratings)
    assert why.exposure is not None
    assert why.exposure_contributions.sum() == pytest.approx(why.exposure, abs=1e-3)
    weights = model.get_weights()
    own = weights.user_exposure[model.user_ids_ == 7] @ weights.item_exposure.T
    assert why.exposure == pytest.approx(own[0][model.item_ids_ == 40][0], rel=1e-4)
    assert len(why.exposure_contributions) == len(why.items)


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"exposure": False}, {"by": "relevance"}, r"FunkSVD\(\.\.\., exposure=True\)"),
        ({"exposure": False}, {"threshold": 4}, "threshold= means nothing to by='rating'"),
        ({}, {"threshold": 6}, "from 1 to 5, got 6"),
        ({}, {"by": "stars"}, "by must be"),
        ({}, {"by": "exposure", "risk": 1.0}, "it has no standard deviation"),
    ],
)
def test_rankings_that_a_model_cannot_make_are_refused(
    params: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    model = fitted(**params)
    with pytest.raises(ValueError, match=message):
        model.recommend(1, 5, **options)


def test_a_model_of_pairs_ranks_by_exposure_alone() -> None:
    model = FunkSVD(4, 5, solver="ials", random_state=0).fit(liked_ratings())
    ids, _ = model.recommend(1, 5)
    np.testing.assert_array_equal(model.recommend(1, 5, by="exposure")[0], ids)
    with pytest.raises(ValueError, match="knows none"):
        model.recommend(1, 5, by="relevance")


def test_constant_ratings_are_told_of_pairs() -> None:
    ratings = liked_ratings()
    ones = Ratings.from_arrays(ratings.users, ratings.items, np.ones(len(ratings)))
    with pytest.warns(UserWarning, match="solver='ials'"):
        FunkSVD(2, 1).fit(ones)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    model = fitted()
    weights = model.get_weights()
    assert model._fitted is not None
    model._fitted = model._fitted._replace(weights=replace(weights, item_exposure=None))
    model.save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="a part of its exposure is missing"):
        load(tmp_path / "model.npz")
