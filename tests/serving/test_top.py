"""The best items of many users, beside the sorting of all their predictions."""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served_models import random_weights

from funksvd.machine.kernels import kernels, levels
from funksvd.serving import top as top_module
from funksvd.serving.seen import Seen
from funksvd.weights import Weights, predict


def check_top(weights, n, seed):
    """Check `top` for random users, candidates and unwanted pairs, some of them unknown."""
    rng = np.random.default_rng(seed)
    n_users = len(weights.user_biases)
    n_items = len(weights.item_biases)
    users = rng.integers(-1, n_users, 2 * n_users).astype(np.int32)
    unwanted_users = rng.integers(-1, n_users, 3 * n_items).astype(np.int32)
    unwanted_items = rng.integers(-1, n_items, 3 * n_items).astype(np.int32)
    items = np.flatnonzero(rng.random(n_items) < 0.7).astype(np.int32)
    seen = Seen.of_codes(unwanted_users, unwanted_items, n_users, n_items)
    codes, scores = top_module.top(weights, users, n, seen, items, n_jobs=2)
    for few_users in (1, len(users)):  # by the kernel, and from all scores at once
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(top_module, "FEW_USERS", few_users)
            other_codes, other_scores = top_module.top(weights, users, n, seen, items, n_jobs=2)
        np.testing.assert_array_equal(other_codes, codes)
        np.testing.assert_array_equal(other_scores, scores)
    rows = [predict(weights, np.full(len(items), user, np.int32), items) for user in users]
    unwanted = [set(unwanted_items[unwanted_users == user].tolist()) for user in users]
    for row, user in enumerate(users):
        if user < 0:
            unwanted[row] = set()
    for row, best in enumerate(naive.recommend(rows, items.tolist(), n, unwanted)):
        filled = len(best)
        assert codes[row, :filled].tolist() == best
        assert (codes[row, filled:] == -1).all()
        assert np.isnan(scores[row, filled:]).all()
        assert (scores[row, :filled] == rows[row][np.searchsorted(items, best)]).all()


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("n_users", "n_items", "k", "n"),
    [(50, 700, 8, 10), (37, 333, 5, 7), (9, 2000, 64, 50), (800, 60, 1, 3)],
)
def test_top_equals_sorting_all_predictions(n_users, n_items, k, n, dtype, level, monkeypatch):
    monkeypatch.setattr(top_module, "kernels", lambda source, dtype: kernels(source, dtype, level))
    check_top(random_weights(n_users, n_items, k, dtype), n, seed=1)


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
    check_top(random_weights(n_users, n_items, k, "float32", seed, levels), n, seed)


def test_slack_covers_rounding_in_another_order():
    """All scores are sums of the same numbers in other orders, and differ in the last bits alone.

    The kernel's own sums must not decide.
    """
    rng = np.random.default_rng(0)
    factors = np.tile(rng.normal(0, 1, 64).astype(np.float32), (4000, 1))
    orders = rng.permuted(np.tile(np.arange(64), (4000, 1)), axis=1)
    weights = Weights(
        global_mean=0.0,
        user_biases=np.zeros(3, np.float32),
        item_biases=np.zeros(4000, np.float32),
        user_factors=np.ones((3, 64), np.float32),
        item_factors=np.take_along_axis(factors, orders, 1),
    )
    check_top(weights, 5, 0)
