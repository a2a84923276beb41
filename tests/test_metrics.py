"""Metrics against those of scikit-learn and ranx, against their definitions, and by hand."""

import math

import numpy as np
import pytest

from funksvd import metrics


def ranked_lists(seed, m=40, n_items=60, length=20, graded=False):
    """Return (recommended, relevant): m lists of items, and the items that would be right."""
    rng = np.random.default_rng(seed)
    recommended = np.array([rng.permutation(n_items)[:length] for _ in range(m)])
    relevant = []
    for _ in range(m):
        items = rng.permutation(n_items)[: rng.integers(1, 15)].tolist()
        if graded:
            gains = rng.integers(1, 6, len(items)).tolist()
            relevant.append(dict(zip(items, gains, strict=True)))
        else:
            relevant.append(items)
    return recommended, relevant


def test_by_hand():
    recommended = np.array([["a", "b", "c", "d"], ["c", "d", "a", "b"], ["a", "b", "c", "d"]])
    relevant = [{"a", "c", "x"}, ["b"], []]
    got = metrics.ranking_metrics(recommended, relevant, 3)
    ndcg = (1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)
    assert got == pytest.approx(
        {
            "precision": (2 / 3 + 0) / 2,
            "recall": (2 / 3 + 0) / 2,
            "hit_rate": 0.5,
            "mrr": 0.5,
            "map": (1 + 2 / 3) / 3 / 2,
            "ndcg": ndcg / 2,
            "n": 2,
        }
    )
    for name in ("precision", "recall", "hit_rate", "mrr", "map", "ndcg"):
        assert getattr(metrics, f"{name}_at_k")(recommended, relevant, 3) == got[name]
    assert metrics.coverage(recommended, 8) == 0.5
    assert metrics.coverage(np.array([["a", None]], object), 4) == 0.25
    assert math.isnan(metrics.ndcg_at_k(recommended, [[], [], []]))


def test_short_rows_and_padding_count_as_misses():
    padded = np.array([[1, 2, None, None]], object)
    assert metrics.precision_at_k(padded, [[2]], 4) == 0.25
    assert metrics.precision_at_k([[1, 2]], [[2]], 4) == 0.25


@pytest.mark.parametrize("k", [1, 5, 20, 50])
@pytest.mark.parametrize("graded", [False, True])
def test_ndcg_is_that_of_scikit_learn(k, graded):
    ndcg_score = pytest.importorskip("sklearn.metrics").ndcg_score
    recommended, relevant = ranked_lists(0, length=60, graded=graded)
    truth = np.zeros((40, 60))
    scores = np.zeros((40, 60))
    for row, (items, wanted) in enumerate(zip(recommended, relevant, strict=True)):
        scores[row, items] = np.arange(60, 0, -1)
        for item in wanted:
            truth[row, item] = wanted[item] if graded else 1
    assert metrics.ndcg_at_k(recommended, relevant, k) == pytest.approx(
        ndcg_score(truth, scores, k=k), rel=1e-12
    )


@pytest.mark.filterwarnings("ignore")  # numba's
def test_all_are_those_of_ranx():
    ranx = pytest.importorskip("ranx")
    recommended, relevant = ranked_lists(1, graded=True)
    k = 5
    qrels = ranx.Qrels(
        {
            f"u{t}": {f"i{x}": gain for x, gain in wanted.items()}
            for t, wanted in enumerate(relevant)
        }
    )
    run = ranx.Run(
        {
            f"u{t}": {f"i{x}": 100.0 - r for r, x in enumerate(row)}
            for t, row in enumerate(recommended)
        }
    )
    names = [f"{name}@{k}" for name in metrics.RANKING_METRICS]
    theirs = ranx.evaluate(qrels, run, names, make_comparable=True)
    ours = metrics.ranking_metrics(recommended, relevant, k)
    for name in metrics.RANKING_METRICS:
        assert ours[name] == pytest.approx(theirs[f"{name}@{k}"], rel=1e-9), name


def slow_metrics(row, wanted, k):
    """Return the metrics of one user, written as their definitions."""
    hits = [rank for rank, x in enumerate(row[:k], 1) if x in wanted]
    best = sorted(wanted.values(), reverse=True)[:k]
    gained = sum(
        wanted[x] / math.log2(1 + rank) for rank, x in enumerate(row[:k], 1) if x in wanted
    )
    return {
        "precision": len(hits) / k,
        "recall": len(hits) / len(wanted),
        "hit_rate": float(bool(hits)),
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum(sum(h <= rank for h in hits) / rank for rank in hits) / len(wanted),
        "ndcg": gained / sum(g / math.log2(1 + rank) for rank, g in enumerate(best, 1)),
    }


@pytest.mark.parametrize("k", [1, 7, 25])
def test_all_are_the_definitions(k):
    recommended, relevant = ranked_lists(2, graded=True)
    rows = [
        slow_metrics(row.tolist(), wanted, k)
        for row, wanted in zip(recommended, relevant, strict=True)
    ]
    ours = metrics.ranking_metrics(recommended, relevant, k)
    for name in rows[0]:
        assert ours[name] == pytest.approx(np.mean([row[name] for row in rows]), rel=1e-12)


def test_errors_are_those_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    a, b, w = rng.normal(size=(3, 500))
    w = w**2
    assert metrics.rmse(a, b) == pytest.approx(sk.root_mean_squared_error(a, b), rel=1e-12)
    assert metrics.mae(a, b) == pytest.approx(sk.mean_absolute_error(a, b), rel=1e-12)
    assert metrics.rmse(a, b, w) == pytest.approx(
        sk.root_mean_squared_error(a, b, sample_weight=w), rel=1e-12
    )
    assert metrics.mae(a, b, w) == pytest.approx(
        sk.mean_absolute_error(a, b, sample_weight=w), rel=1e-12
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"got shapes \(3,\) and \(2,\)"):
        metrics.rmse([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="k must be an int >= 1, got 0"):
        metrics.ndcg_at_k([[1]], [[1]], 0)
    with pytest.raises(
        ValueError, match=r"a row for each of the 2 users in relevant, got shape \(1, 1\)"
    ):
        metrics.ndcg_at_k([[1]], [[1], [2]])
