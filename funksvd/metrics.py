"""Errors of predictions, and the quality of ranked lists, on plain arrays.

The ranking metrics take `recommended`, (m, n) item ids, best first, as `FunkSVD.recommend` returns them, and `relevant`,
for each of the m users the items that would have been right: a list, set or array of ids, or a dict of id and gain (only
ndcg tells gains apart). The answer is the mean over the users who have a relevant item; without one it is undefined and
NaN. At most the first k recommended count. Definitions as in trec_eval and ranx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.checks import checked_n


def rmse(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Root of the (weighted) mean squared error."""
    return float(np.sqrt(_average(_errors(y_true, y_pred) ** 2, sample_weight)))


def mae(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> float:
    """(Weighted) mean absolute error."""
    return float(_average(np.abs(_errors(y_true, y_pred)), sample_weight))


def _average(errors, weights):
    return np.average(errors, weights=None if weights is None else np.asarray(weights))


def _errors(y_true, y_pred):
    y_true, y_pred = np.asarray(y_true, np.float64), np.asarray(y_pred, np.float64)
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or not len(y_true):
        raise ValueError(
            f"y_true and y_pred must be (n,) with n >= 1, got shapes {y_true.shape} and {y_pred.shape}"
        )
    return y_true - y_pred


def precision_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Relevant ones among the first k, divided by k."""
    return ranking_metrics(recommended, relevant, k)["precision"]


def recall_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Relevant ones among the first k, divided by all relevant ones."""
    return ranking_metrics(recommended, relevant, k)["recall"]


def hit_rate_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Share of users with a relevant one among the first k."""
    return ranking_metrics(recommended, relevant, k)["hit_rate"]


def mrr_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """1 / rank of the first relevant one among the first k, else 0."""
    return ranking_metrics(recommended, relevant, k)["mrr"]


def map_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Precision at the rank of each relevant one among the first k, summed and divided by the number of relevant ones."""
    return ranking_metrics(recommended, relevant, k)["map"]


def ndcg_at_k(recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Sum of gain / log2(1 + rank) over the first k, divided by its largest possible value (Jarvelin, Kekalainen 2002)."""
    return ranking_metrics(recommended, relevant, k)["ndcg"]


def coverage(recommended: npt.ArrayLike, n_items: int) -> float:
    """Share of n_items items that are recommended to somebody."""
    return len({x for x in np.asarray(recommended).ravel().tolist() if x is not None}) / n_items


def ranking_metrics(
    recommended: npt.ArrayLike, relevant: Sequence[Any], k: int = 10
) -> dict[str, float]:
    """{"precision", "recall", "hit_rate", "mrr", "map", "ndcg"} at k, and "n", the number of users they are means of."""
    recommended = np.asarray(recommended)
    if recommended.ndim != 2 or len(recommended) != len(relevant):
        raise ValueError(
            f"recommended must be (m, n) with a row for each of the {len(relevant)} users in relevant, "
            f"got shape {recommended.shape}"
        )
    k = checked_n(k, "k")
    gains, ideal, counts = [], [], []
    discount = 1 / np.log2(np.arange(2, k + 2))
    for row, wanted in zip(recommended[:, :k].tolist(), relevant, strict=True):
        of = (
            wanted
            if isinstance(wanted, dict)
            else dict.fromkeys(getattr(wanted, "tolist", lambda w=wanted: w)(), 1.0)
        )
        of = {x: gain for x, gain in of.items() if gain > 0}
        if of:
            gains.append([of.get(x, 0.0) for x in row] + [0.0] * (k - len(row)))
            best = sorted(of.values(), reverse=True)[:k]
            ideal.append(discount[: len(best)] @ best)
            counts.append(len(of))
    if not counts:
        return dict.fromkeys(
            ("precision", "recall", "hit_rate", "mrr", "map", "ndcg"), float("nan")
        ) | {"n": 0}
    gain, n_relevant, rank = np.array(gains), np.array(counts), np.arange(1, k + 1)
    hit = gain > 0
    so_far = hit.cumsum(1)
    per_user = {
        "precision": so_far[:, -1] / k,
        "recall": so_far[:, -1] / n_relevant,
        "hit_rate": hit.any(1),
        "mrr": (hit / rank).max(1),
        "map": (hit * so_far / rank).sum(1) / n_relevant,
        "ndcg": gain @ discount / np.array(ideal),
    }
    return {name: float(values.mean()) for name, values in per_user.items()} | {"n": len(counts)}
