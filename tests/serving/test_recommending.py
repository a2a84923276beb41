"""Recommendations and similar rows of a trained model, in all forms of the question."""

import sys

import naive
import numpy as np
import pytest
from served_models import items_seen, trained_model

from funksvd import FunkSVD, Ratings


def test_recommend_for_one_many_and_all():
    model, ratings = trained_model()
    seen = items_seen(ratings)
    ids, scores = model.recommend(n=15, exclude=ratings)
    assert ids.shape == scores.shape == (60, 15)
    seen_in_order = [seen[user] for user in model.user_ids_.tolist()]
    best = naive.recommend(model.predict_all(), model.item_ids_.tolist(), 15, seen_in_order)
    assert ids.tolist() == best
    for users in ([6, 0, 177], np.array([6, 0, 177]), (6, 0, 177)):
        some_ids, some_scores = model.recommend(users, 15, ratings)
        assert some_ids.tolist() == [best[2], best[0], best[59]]
        np.testing.assert_array_equal(some_scores[0], scores[2])
    one_ids, one_scores = model.recommend(6, 15, ratings)
    assert one_ids.tolist() == best[2]
    np.testing.assert_array_equal(one_scores, model.predict((np.full(15, 6), one_ids)))
    batches = list(model.recommend_batches(15, ratings, batch_size=7))
    assert [len(users) for users, _, _ in batches] == [7] * 8 + [4]
    np.testing.assert_array_equal(np.concatenate([items for _, items, _ in batches]), ids)


def test_recommend_is_the_same_for_any_threads_and_form_of_exclude():
    model, ratings = trained_model()
    users = ratings.user_ids[ratings.users]
    items = ratings.item_ids[ratings.items]
    with_unknown = Ratings.from_arrays(np.append(users, -5), np.append(items, -5), np.ones(2001))
    ids, scores = model.recommend(n=20, exclude=ratings)
    for n_jobs in (1, 2, 5):
        model.set_params(n_jobs=n_jobs)
        for exclude in (ratings, with_unknown, (users, items)):
            other_ids, other_scores = model.recommend(n=20, exclude=exclude)
            np.testing.assert_array_equal(other_ids, ids)
            np.testing.assert_array_equal(other_scores, scores)


def test_candidates_and_unknown_users():
    model, _ = trained_model()
    candidates = [7, 14, 700, 10**6]  # the model does not know the last one
    ids, _ = model.recommend(n=5, candidates=candidates)
    assert ids.shape == (60, 3)
    assert set(ids.ravel().tolist()) == {7, 14, 700}
    with pytest.raises(ValueError, match="user 1 is unknown to the model"):
        model.recommend(1)
    with pytest.raises(ValueError, match="2 of 3 users are unknown to the model, the first is 1"):
        model.recommend([0, 1, 2])
    by_bias = model.item_ids_[np.argsort(-model.item_biases_, kind="stable")[:4]]
    assert model.recommend(1, 4, unknown="mean")[0].tolist() == by_bias.tolist()
    ids, scores = model.recommend([0, 1], 4, unknown="nan")
    assert ids[1].tolist() == [None] * 4
    assert np.isnan(scores[1]).all()
    assert ids[0].tolist() == model.recommend(0, 4)[0].tolist()


def test_a_user_who_has_seen_nearly_everything():
    model, _ = trained_model()
    seen = (np.full(198, 6), model.item_ids_[:198])
    ids, scores = model.recommend([6, 9], 5, seen)
    assert set(ids[0, :2].tolist()) == set(model.item_ids_[198:].tolist())
    assert ids[0, 2:].tolist() == [None] * 3
    assert np.isnan(scores[0, 2:]).all()
    assert len(model.recommend(6, 5, seen)[0]) == 2
    assert len(model.recommend(6, 5, (np.full(200, 6), model.item_ids_))[0]) == 0


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
def test_recommend_as_a_table(backend):
    pytest.importorskip(backend)
    nw = pytest.importorskip("narwhals.stable.v2")
    model, _ = trained_model()
    seen = (np.full(198, 6), model.item_ids_[:198])
    ids, scores = model.recommend([6, 9], 5, seen)
    table = nw.from_native(model.recommend([6, 9], 5, seen, table=backend), eager_only=True)
    assert table.columns == ["user", "item", "rank", "score"]
    assert table["user"].to_list() == [6] * 2 + [9] * 5
    assert table["rank"].to_list() == [1, 2, 1, 2, 3, 4, 5]
    assert table["item"].to_list() == [item for item in ids.ravel().tolist() if item is not None]
    assert table["score"].to_list() == scores[~np.isnan(scores)].tolist()


def test_tables_need_narwhals(monkeypatch):
    monkeypatch.setitem(sys.modules, "narwhals.stable.v2", None)
    model, _ = trained_model()
    with pytest.raises(ImportError, match=r"funksvd\[frames\]"):
        model.recommend(6, table="pandas")


def test_scores_are_clipped_after_ranking():
    model, _ = trained_model(rating_scale=(3.4, 3.6))
    ids, scores = model.recommend(6, 30)
    assert scores.max() <= np.float32(3.6)
    free, _ = trained_model()
    assert ids.tolist() == free.recommend(6, 30)[0].tolist()


@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("side", ["item", "user"])
def test_similar_rows_are_those_of_a_matrix_product(side, measure):
    model, _ = trained_model(dtype="float64")
    ids = getattr(model, f"{side}_ids_")
    factors = getattr(model, f"{side}_factors_")
    similar = getattr(model, f"similar_{side}s")
    if measure == "cosine":
        factors = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    product = factors @ factors.T
    np.fill_diagonal(product, -np.inf)
    best = ids[np.argsort(-product, axis=1)[:, :5]]
    found, scores = similar(n=5, measure=measure)
    np.testing.assert_array_equal(found, best)
    np.testing.assert_allclose(scores, -np.sort(-product, axis=1)[:, :5], rtol=1e-12)
    assert similar(ids[3], 5, measure)[0].tolist() == best[3].tolist()


def test_a_row_of_zeros_is_similar_to_nothing():
    model, _ = trained_model()
    model.item_factors_[4] = 0
    _, scores = model.similar_items(model.item_ids_[4], 3)
    assert scores.tolist() == [0, 0, 0]


def test_a_tuple_is_one_user_where_ids_are_tuples():
    users = [(1, 2), (3, 4), (1, 2)]
    model = FunkSVD(2, 2, random_state=0).fit((users, [1, 2, 3]), [1.0, 2.0, 3.0])
    assert model.recommend((1, 2), 2)[0].shape == (2,)
    assert model.recommend([(1, 2), (3, 4)], 2)[0].shape == (2, 2)


BAD_REQUESTS = [
    (lambda model: model.recommend(6, 0), ValueError, "n must be an int >= 1, got 0"),
    (lambda model: model.recommend(6, 2.0), ValueError, "n must be an int >= 1, got 2.0"),
    (
        lambda model: model.recommend(6, unknown="skip"),
        ValueError,
        "unknown must be 'raise' or 'mean' or 'nan', got 'skip'",
    ),
    (
        lambda model: model.recommend("6"),
        TypeError,
        "user ids are str here but were int in fit",
    ),
    (
        lambda model: model.recommend(6, candidates=["a"]),
        TypeError,
        "item ids are str here",
    ),
    (lambda model: model.similar_items(1), ValueError, "item 1 is unknown"),
    (
        lambda model: model.similar_items(7, measure="l2"),
        ValueError,
        "measure must be 'cosine' or 'dot', got 'l2'",
    ),
    (lambda model: model.predict_all([1]), ValueError, "user 1 is unknown"),
    (lambda model: FunkSVD().recommend(6), ValueError, "not fitted"),
]


@pytest.mark.parametrize(("ask", "error", "message"), BAD_REQUESTS)
def test_bad_requests_are_refused(ask, error, message):
    model, _ = trained_model()
    with pytest.raises(error, match=message):
        ask(model)


@pytest.mark.parametrize("as_pairs", [False, True])
def test_items_excluded_by_ids_in_another_order_are_left_out(as_pairs):
    """Mixed ids are sorted by type and text, 10 before 9, and whole numbers by size."""
    rng = np.random.default_rng(0)
    n_users, n_items = 60, 2000
    users = rng.integers(0, n_users, 20_000).tolist()
    items = rng.integers(0, n_items, 20_000).tolist()
    model = FunkSVD(4, 2, random_state=0)
    model.fit(([*users, 0], [*items, "x"]), rng.normal(3, 1, 20_001))
    best = model.recommend(None, 50)[0]
    pairs = []
    for user, row in zip(model.user_ids_.tolist(), best.tolist(), strict=True):
        pairs += [(int(user), int(item)) for item in row if item != "x"]
    known_users, known_items = np.array(pairs).T
    exclude = (known_users, known_items)
    if not as_pairs:
        exclude = Ratings.from_arrays(known_users, known_items, np.ones(len(pairs)))
    for asked in (None, model.user_ids_[:5].tolist()):  # packed, and from all scores at once
        ids = model.recommend(asked, 20, exclude)[0]
        shown = set()
        for user, row in zip(model.user_ids_.tolist(), ids.tolist(), strict=False):
            shown |= {(user, item) for item in row}
        assert not shown & set(pairs)
