"""Errors of predictions, and the quality of ranked lists, on plain arrays.

The ranking metrics take `recommended`, (m, n) item ids, best first, as `FunkSVD.recommend` returns
them, and `relevant`, the items that would have been right for each of the m users: a list, set or
array of ids, or a dict of id and gain (only ndcg uses gains). They return the mean over the users
who have a relevant item, and NaN if there are none. At most the first k recommended items count.
The definitions are those of trec_eval and ranx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from funksvd.checks import checked_n

RANKING_METRICS = ("precision", "recall", "hit_rate", "mrr", "map", "ndcg")

Array = NDArray[np.float64]


def rmse(y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Return the root of the (weighted) mean squared error."""
    squares = errors_of(y_true, y_pred) ** 2
    return float(np.sqrt(np.average(squares, weights=as_weights(sample_weight))))


def mae(y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Return the (weighted) mean absolute error."""
    errors = np.abs(errors_of(y_true, y_pred))
    return float(np.average(errors, weights=as_weights(sample_weight)))


def as_weights(sample_weight: ArrayLike | None) -> NDArray[Any] | None:
    """Return sample weights as an array, or None."""
    return None if sample_weight is None else np.asarray(sample_weight)


def errors_of(y_true: ArrayLike, y_pred: ArrayLike) -> Array:
    """Return the differences of two arrays (n,) in float64; ValueError for other shapes."""
    true = np.asarray(y_true, np.float64)
    predicted = np.asarray(y_pred, np.float64)
    if true.shape != predicted.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            "y_true and y_pred must be (n,) with n >= 1, got shapes"
            f" {true.shape} and {predicted.shape}"
        )
    return true - predicted


def precision_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return the number of relevant items among the first k, divided by k."""
    return ranking_metrics(recommended, relevant, k)["precision"]


def recall_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return the share of all relevant items that is among the first k."""
    return ranking_metrics(recommended, relevant, k)["recall"]


def hit_rate_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return the share of users with a relevant item among the first k."""
    return ranking_metrics(recommended, relevant, k)["hit_rate"]


def mrr_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return 1 / rank of the first relevant item among the first k, or else 0."""
    return ranking_metrics(recommended, relevant, k)["mrr"]


def map_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return the mean average precision.

    For a user it is the sum of the precision at the rank of each relevant item among the first k,
    divided by the number of relevant items.
    """
    return ranking_metrics(recommended, relevant, k)["map"]


def ndcg_at_k(recommended: ArrayLike, relevant: Sequence[Any], k: int = 10) -> float:
    """Return the normalised discounted cumulative gain (Jarvelin and Kekalainen 2002).

    For a user it is the sum of gain / log2(1 + rank) over the first k, divided by its largest
    possible value.
    """
    return ranking_metrics(recommended, relevant, k)["ndcg"]


def coverage(recommended: ArrayLike, n_items: int) -> float:
    """Return the share of `n_items` items that are recommended to at least one user."""
    distinct = set(np.asarray(recommended).ravel().tolist())
    distinct.discard(None)  # fills the rows of users with too few items
    return len(distinct) / n_items


def novelty(times_recommended: ArrayLike, n_takers: ArrayLike, n_users: int) -> float:
    """Return the mean self-information of the recommended items, in bits.

    An item that a share p of the users has taken has the information -log2(p): 0 if everybody has,
    and 1 more for each halving (Vargas and Castells 2011). An item that nobody has taken counts as
    if one user had.

    Parameters
    ----------
    times_recommended : (n_items,), how often each item is recommended
    n_takers : (n_items,), number of users who have taken each item
    n_users : int, number of all users who have taken items

    Returns
    -------
    float
        The mean over all recommendations; NaN if there are none.
    """
    times = np.asarray(times_recommended)
    information = np.log2(n_users / np.maximum(n_takers, 1))
    total = times.sum()
    return float(times @ information / total) if total else float("nan")


def ranking_metrics(
    recommended: ArrayLike, relevant: Sequence[Any], k: int = 10
) -> dict[str, float]:
    """Return all ranking metrics at k.

    Returns
    -------
    dict
        "precision", "recall", "hit_rate", "mrr", "map" and "ndcg"; and "n", the number of users
        over which they are means.
    """
    table = np.asarray(recommended)
    if table.ndim != 2 or len(table) != len(relevant):
        raise ValueError(
            "recommended must be (m, n) with a row for each of the"
            f" {len(relevant)} users in relevant, got shape {table.shape}"
        )
    k = checked_n(k, "k")
    discount = discounts(k)
    gains = []
    ideals = []
    counts = []
    for row, wanted in zip(table[:, :k].tolist(), relevant, strict=True):
        gain_of = gains_of(wanted)
        if gain_of:
            missing = [0.0] * (k - len(row))
            gains.append([gain_of.get(item, 0.0) for item in row] + missing)
            best = sorted(gain_of.values(), reverse=True)[:k]
            ideals.append(discount[: len(best)] @ best)
            counts.append(len(gain_of))
    if not counts:
        undefined: dict[str, float] = dict.fromkeys(RANKING_METRICS, float("nan"))
        return undefined | {"n": 0}
    gain = np.array(gains)
    per_user = hit_metrics(gain > 0, np.array(counts))
    per_user["ndcg"] = gain @ discount / np.array(ideals)
    means: dict[str, float] = {name: float(per_user[name].mean()) for name in RANKING_METRICS}
    return means | {"n": len(counts)}


def gains_of(wanted: Any) -> Mapping[Any, float]:
    """Return {item: gain} of the relevant items of a user; items whose gain is not positive drop.

    A list, set or array of items gives each the gain 1.
    """
    if not isinstance(wanted, dict):
        items = wanted.tolist() if hasattr(wanted, "tolist") else wanted
        return dict.fromkeys(items, 1.0)
    return {item: gain for item, gain in wanted.items() if gain > 0}


def discounts(k: int) -> Array:
    """Return (k,) the weights 1 / log2(1 + rank) of the ranks from 1 to k."""
    weights: Array = 1 / np.log2(np.arange(2, k + 2))
    return weights


def user_metrics(hit: NDArray[np.bool_], n_relevant: NDArray[np.int_]) -> dict[str, Array]:
    """Return all ranking metrics of each user, where every relevant item has the gain 1.

    Parameters
    ----------
    hit : (n_users, k), whether the item at a rank is relevant
    n_relevant : (n_users,), the number of relevant items, at least 1

    Returns
    -------
    dict
        Name of each of `RANKING_METRICS` -> (n_users,).
    """
    k = hit.shape[1]
    discount = discounts(k)
    best_gains = discount.cumsum()
    per_user = hit_metrics(hit, n_relevant)
    per_user["ndcg"] = hit @ discount / best_gains[np.minimum(n_relevant, k) - 1]
    return per_user


def hit_metrics(hit: NDArray[np.bool_], n_relevant: NDArray[np.int_]) -> dict[str, Array]:
    """Return the metrics, for each user, that depend on hits alone.

    Parameters
    ----------
    hit : (n_users, k), whether the item at a rank is relevant
    n_relevant : (n_users,), the number of relevant items
    """
    k = hit.shape[1]
    rank = np.arange(1, k + 1)
    hits_so_far = hit.cumsum(axis=1)
    n_hits = hits_so_far[:, -1]
    return {
        "precision": n_hits / k,
        "recall": n_hits / n_relevant,
        "hit_rate": hit.any(axis=1),
        "mrr": (hit / rank).max(axis=1),
        "map": (hit * hits_so_far / rank).sum(axis=1) / n_relevant,
    }
