"""Answers of a model beside slow twins: what is recommended, similar, explained, and given to a vector index."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funksvd import FunkSVD, Ratings
from funksvd.machine.kernels import kernels, levels
from funksvd.ratings.sorting import by_user
from funksvd.serving import top as top_module
from funksvd.serving.dense import predict_all
from funksvd.serving.seen import Seen
from funksvd.weights import Weights, predict


def some_params(n_users, n_items, k, dtype="float32", seed=0, levels=0):
    """Random parameters; with `levels` of few distinct values, so that many predictions are equal."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.integers(0, levels, shape) / 4 if levels else rng.normal(0, 0.4, shape)).astype(
            dtype
        )

    return Weights(3.5, draw(n_users), draw(n_items), draw(n_users, k), draw(n_items, k))


def some_model(seed=0, **params):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 60, 2000) * 3, rng.integers(0, 200, 2000) * 7
    ratings = Ratings.from_arrays(users, items, rng.normal(3.5, 1, 2000))
    model = FunkSVD(**{"n_factors": 6, "n_epochs": 5, "random_state": 0} | params)
    return model.fit(ratings), ratings


def seen_by(ratings):
    out: dict = {}
    for user, item in zip(
        ratings.user_ids[ratings.users].tolist(),
        ratings.item_ids[ratings.items].tolist(),
        strict=True,
    ):
        out.setdefault(user, set()).add(item)
    return out


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_users", "n_items", "k", "n"),
    [(50, 700, 8, 10), (37, 333, 5, 7), (9, 2000, 64, 50), (800, 60, 1, 3)],
)
def test_top_equals_sorting_all_predictions(n_users, n_items, k, n, dtype, level, monkeypatch):
    monkeypatch.setattr(top_module, "kernels", lambda source, dtype: kernels(source, dtype, level))
    check_top(some_params(n_users, n_items, k, dtype), n, seed=1)


@settings(deadline=None, max_examples=60)
@given(
    n_users=st.integers(1, 20),
    n_items=st.integers(1, 300),
    k=st.integers(1, 9),
    n=st.integers(1, 40),
    levels=st.sampled_from([0, 1, 2, 5]),
    seed=st.integers(0, 99),
)
def test_top_of_any_shape_and_with_ties(n_users, n_items, k, n, levels, seed):
    check_top(some_params(n_users, n_items, k, "float32", seed, levels), n, seed)


def check_top(params, n, seed):
    rng = np.random.default_rng(seed)
    n_users, n_items = len(params.user_biases), len(params.item_biases)
    users = rng.integers(-1, n_users, 2 * n_users).astype(np.int32)
    pairs = (
        rng.integers(-1, n_users, 3 * n_items).astype(np.int32),
        rng.integers(-1, n_items, 3 * n_items).astype(np.int32),
    )
    items = np.flatnonzero(rng.random(n_items) < 0.7).astype(np.int32)
    seen = Seen.of_codes(*pairs, n_users, n_items)
    codes, scores = top_module.top(params, users, n, seen, items, n_jobs=2)
    for few in (1, len(users)):  # by the kernel and without
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(top_module, "FEW_USERS", few)
            others = top_module.top(params, users, n, seen, items, n_jobs=2)
        np.testing.assert_array_equal(others[0], codes)
        np.testing.assert_array_equal(others[1], scores)
    rows = [predict(params, np.full(len(items), u, np.int32), items) for u in users]
    seen = [set(pairs[1][pairs[0] == u].tolist()) if u >= 0 else set() for u in users]
    for t, want in enumerate(naive.recommend(rows, items.tolist(), n, seen)):
        assert codes[t, : len(want)].tolist() == want
        assert (codes[t, len(want) :] == -1).all()
        assert np.isnan(scores[t, len(want) :]).all()
        assert (scores[t, : len(want)] == rows[t][np.searchsorted(items, want)]).all()


def test_predictions_of_engine_are_the_formula():
    params = some_params(20, 30, 7, "float64")
    rows = predict_all(params, np.array([3, -1, 19], np.int32), 2)
    want = [[naive.predict(params, u, i) for i in range(30)] for u in (3, -1, 19)]
    np.testing.assert_allclose(rows, want, rtol=1e-12)


def test_recommend_for_one_many_and_all():
    model, ratings = some_model()
    seen = seen_by(ratings)
    ids, scores = model.recommend(n=15, exclude=ratings)
    assert ids.shape == scores.shape == (60, 15)
    rows = model.predict_all()
    want = naive.recommend(
        rows, model.item_ids_.tolist(), 15, [seen[u] for u in model.user_ids_.tolist()]
    )
    assert ids.tolist() == want
    for users in ([6, 0, 177], np.array([6, 0, 177]), (6, 0, 177)):
        some, some_scores = model.recommend(users, 15, ratings)
        assert some.tolist() == [want[2], want[0], want[59]]
        np.testing.assert_array_equal(some_scores[0], scores[2])
    one, one_scores = model.recommend(6, 15, ratings)
    assert one.tolist() == want[2]
    np.testing.assert_array_equal(one_scores, model.predict((np.full(15, 6), one)))
    batches = list(model.recommend_batches(15, ratings, batch_size=7))
    assert [len(users) for users, _, _ in batches] == [7] * 8 + [4]
    np.testing.assert_array_equal(np.concatenate([ids for _, ids, _ in batches]), ids)


def test_recommend_is_the_same_for_any_threads_and_form_of_exclude():
    model, ratings = some_model()
    pairs = ratings.user_ids[ratings.users], ratings.item_ids[ratings.items]
    with_more = Ratings.from_arrays(np.append(pairs[0], -5), np.append(pairs[1], -5), np.ones(2001))
    want = model.recommend(n=20, exclude=ratings)
    for n_jobs in (1, 2, 5):
        model.set_params(n_jobs=n_jobs)
        for exclude in (ratings, with_more, pairs):
            for a, b in zip(model.recommend(n=20, exclude=exclude), want, strict=True):
                np.testing.assert_array_equal(a, b)


def test_candidates_and_unknown_users():
    model, _ = some_model()
    some = [7, 14, 700, 10**6]  # one that the model does not know
    ids, _ = model.recommend(n=5, candidates=some)
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
    model, _ = some_model()
    seen = np.full(198, 6), model.item_ids_[:198]
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
    model, _ = some_model()
    seen = np.full(198, 6), model.item_ids_[:198]
    ids, scores = model.recommend([6, 9], 5, seen)
    table = nw.from_native(model.recommend([6, 9], 5, seen, table=backend), eager_only=True)
    assert table.columns == ["user", "item", "rank", "score"]
    assert table["user"].to_list() == [6] * 2 + [9] * 5
    assert table["rank"].to_list() == [1, 2, 1, 2, 3, 4, 5]
    assert table["item"].to_list() == [x for x in ids.ravel().tolist() if x is not None]
    assert table["score"].to_list() == scores[~np.isnan(scores)].tolist()


def test_scores_are_clipped_after_ranking():
    model, _ = some_model(rating_scale=(3.4, 3.6))
    ids, scores = model.recommend(6, 30)
    assert scores.max() <= np.float32(3.6)
    free, _ = some_model()
    assert ids.tolist() == free.recommend(6, 30)[0].tolist()


@pytest.mark.parametrize("measure", ["cosine", "dot"])
@pytest.mark.parametrize("side", ["item", "user"])
def test_similar(side, measure):
    model, _ = some_model(dtype="float64")
    ids, factors = getattr(model, f"{side}_ids_"), getattr(model, f"{side}_factors_")
    find = getattr(model, f"similar_{side}s")
    if measure == "cosine":
        factors = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    product = factors @ factors.T
    np.fill_diagonal(product, -np.inf)
    want = ids[np.argsort(-product, axis=1)[:, :5]]
    found, scores = find(n=5, measure=measure)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_allclose(scores, -np.sort(-product, axis=1)[:, :5], rtol=1e-12)
    assert find(ids[3], 5, measure)[0].tolist() == want[3].tolist()


def test_a_row_of_zeros_is_similar_to_nothing():
    model, _ = some_model()
    model.item_factors_[4] = 0
    _, scores = model.similar_items(model.item_ids_[4], 3)
    assert scores.tolist() == [0, 0, 0]


def test_vectors_for_an_index():
    model, _ = some_model()
    product = model.query_vectors([6, 9]) @ model.item_vectors().T
    np.testing.assert_allclose(product, model.predict_all([6, 9]), rtol=1e-5)
    assert model.query_vectors(6).shape == (1, 8)


def test_vectors_in_faiss():
    faiss = pytest.importorskip("faiss")
    model, _ = some_model()
    index = faiss.IndexFlatIP(8)
    index.add(model.item_vectors())
    _, found = index.search(model.query_vectors(), 5)
    assert model.item_ids_[found].tolist() == model.recommend(n=5)[0].tolist()


def test_vectors_in_usearch():
    usearch = pytest.importorskip("usearch.index")
    model, _ = some_model()
    index = usearch.Index(ndim=8, metric="ip", dtype="f32")
    index.add(np.arange(len(model.item_ids_)), model.item_vectors())
    found = index.search(model.query_vectors([6, 9]), 5, exact=True).keys
    assert model.item_ids_[found.astype(int)].tolist() == model.recommend([6, 9], 5)[0].tolist()


@pytest.mark.parametrize("biased", [True, False])
def test_an_explanation_adds_up_and_is_exact_for_a_folded_user(biased):
    model, ratings = some_model(dtype="float64", biased=biased)
    items, values = model.item_ids_[[3, 40, 100, 150]], np.array([5.0, 1, 4, 2])
    folded = model.fold_in((np.full(4, 1), items), values, extend=False)
    why = folded.explain(1, model.item_ids_[7], (np.full(4, 1), items), values)
    assert why.prediction == folded.predict(([1], model.item_ids_[[7]]))[0]
    assert why.baseline + why.contributions.sum() + why.rest == pytest.approx(
        why.prediction, rel=1e-12
    )
    assert abs(why.rest) < 1e-9  # the user's row is the ridge solution itself
    assert (np.diff(np.abs(why.contributions)) <= 0).all()
    found = zip(why.items.tolist(), why.ratings.tolist(), strict=True)
    assert sorted(found) == sorted(zip(items.tolist(), values, strict=True))
    # Without one rating the prediction loses its contribution, were the others' weights left as they are; and a rating
    # at the item's own baseline pulls nothing.
    level = folded.global_mean_ + folded.item_biases_[40]
    again = model.fold_in(
        (np.full(4, 1), items), np.where(items == items[1], level, values), extend=False
    )
    pull = dict(zip(why.items.tolist(), why.contributions, strict=True))[int(items[1])]
    moved = folded.predict(([1], model.item_ids_[[7]])) - again.predict(([1], model.item_ids_[[7]]))
    assert moved[0] == pytest.approx(pull, rel=1e-6)
    trained = model.explain(6, model.item_ids_[7], ratings)
    assert trained.baseline + trained.contributions.sum() + trained.rest == pytest.approx(
        trained.prediction, rel=1e-9
    )


def test_ids_of_tuples_are_one_user():
    model = FunkSVD(2, 2, random_state=0).fit(
        ([(1, 2), (3, 4), (1, 2)], [1, 2, 3]), [1.0, 2.0, 3.0]
    )
    assert model.recommend((1, 2), 2)[0].shape == (2,)
    assert model.recommend([(1, 2), (3, 4)], 2)[0].shape == (2, 2)


def test_bad_requests_are_refused():
    model, _ = some_model()
    for call, error, said in [
        (lambda: model.recommend(6, 0), ValueError, "n must be an int >= 1, got 0"),
        (lambda: model.recommend(6, 2.0), ValueError, "n must be an int >= 1, got 2.0"),
        (
            lambda: model.recommend(6, unknown="skip"),
            ValueError,
            "unknown must be 'raise' or 'mean' or 'nan', got 'skip'",
        ),
        (lambda: model.recommend("6"), TypeError, "user ids are str here but were int in fit"),
        (lambda: model.recommend(6, candidates=["a"]), TypeError, "item ids are str here"),
        (lambda: model.similar_items(1), ValueError, "item 1 is unknown"),
        (
            lambda: model.similar_items(7, measure="l2"),
            ValueError,
            "measure must be 'cosine' or 'dot', got 'l2'",
        ),
        (lambda: model.predict_all([1]), ValueError, "user 1 is unknown"),
        (lambda: FunkSVD().recommend(6), ValueError, "not fitted"),
    ]:
        with pytest.raises(error, match=said):
            call()


def test_tables_need_narwhals(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "narwhals.stable.v2", None)
    with pytest.raises(ImportError, match=r"funksvd\[frames\]"):
        some_model()[0].recommend(6, table="pandas")


@pytest.mark.parametrize("n_jobs", [1, 2, 7])
@pytest.mark.parametrize("carries", [True, False])
def test_sorting_by_user_is_stable_for_any_threads(n_jobs, carries):
    rng = np.random.default_rng(0)
    users, items = (
        rng.integers(0, n, 500).astype(np.int32) for n in (40, 30)
    )  # with repeated pairs
    places = np.arange(500, dtype=np.int32)
    order = np.lexsort((places, items, users))
    start, found, carried, _ = by_user(users, items, places if carries else None, 41, 30, n_jobs)
    np.testing.assert_array_equal(start, np.searchsorted(users[order], np.arange(42)))
    np.testing.assert_array_equal(found, items[order])
    if carries:
        np.testing.assert_array_equal(carried, order)


def test_ratings_by_user_are_sorted_pairs():
    rng = np.random.default_rng(0)
    ratings = Ratings.from_arrays(rng.integers(0, 9, 200), rng.integers(0, 30, 200), np.ones(200))
    start, items = ratings.by_user()
    pairs = [(u, int(i)) for u in range(ratings.n_users) for i in items[start[u] : start[u + 1]]]
    assert pairs == sorted(zip(ratings.users.tolist(), ratings.items.tolist(), strict=True))
    assert ratings.by_user() is ratings.by_user()


def test_slack_covers_both_ways_to_round():
    """Scores that differ by the last bit only: the kernel's own sums must not decide."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 64).astype(np.float32)
    factors = np.tile(base, (4000, 1))
    swap = rng.permuted(np.tile(np.arange(64), (4000, 1)), axis=1)
    params = Weights(
        0.0,
        np.zeros(3, np.float32),
        np.zeros(4000, np.float32),
        np.ones((3, 64), np.float32),
        np.take_along_axis(factors, swap, 1),
    )
    check_top(params, 5, 0)
