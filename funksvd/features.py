"""Prior means of new rows, by what a sampled model has learned of the features of rows.

A new user's prior mean is a sum over the items of its set (`engines/features.py` states the
model)::

    bias     sum_j v beta_j          factors     (sum_j v B_j) map          v = n^(-1/2), n items

where beta, B and the map are `item_set_biases`, `item_set_factors` and `item_set_map` of `Weights`;
the same holds for items and the users in their sets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funksvd.weights import Weights

# Codes of no row.
NOWHERE = slice(0)


class RowMeans(NamedTuple):
    """Means of the biases (rows,) and the factors (rows, k) of some rows, float64."""

    biases: np.ndarray
    factors: np.ndarray


class Members(NamedTuple):
    """Sets of rows: row r has the codes others[start[r]:start[r + 1]], ascending, each once.

    start : (rows + 1,)
    others : (n,) codes on the other side
    """

    start: np.ndarray
    others: np.ndarray


def members_of(start: np.ndarray, others: np.ndarray) -> Members:
    """Return the sets of rows whose other codes ascend but may repeat."""
    new = np.ones(len(others), bool)
    new[1:] = others[1:] != others[:-1]
    firsts = start[:-1]
    new[firsts[firsts < len(others)]] = True
    if new.all():
        return Members(start, others)
    before = np.concatenate([[0], np.cumsum(new)])
    return Members(before[start], others[new])


def set_means(weights: Weights, side: int, members: Members) -> RowMeans:
    """Return the prior means of new rows of one side (0 users, 1 items), given their sets.

    They are 0 in a model without sets.
    """
    biases = weights.user_set_biases if side else weights.item_set_biases
    factors = weights.user_set_factors if side else weights.item_set_factors
    turn = weights.user_set_map if side else weights.item_set_map
    n_rows = len(members.start) - 1
    if biases is None or factors is None or turn is None:
        k = weights.user_factors.shape[1]
        return RowMeans(np.zeros(n_rows), np.zeros((n_rows, k)))
    from scipy.sparse import csr_array

    counts = np.diff(members.start)
    values = np.repeat(np.maximum(counts, 1) ** -0.5, counts)
    matrix = csr_array((values, members.others, members.start), (n_rows, len(biases)))
    sums = matrix @ factors.astype(np.float64)
    return RowMeans(matrix @ biases.astype(np.float64), sums @ turn.astype(np.float64))


def set_rows(
    weights: Weights, name: str, n_rows: int, at: np.ndarray | slice
) -> dict[str, np.ndarray]:
    """Return what the ids of a side ("user" or "item") say in sets, in a table of other ids.

    `at` are the codes there of the model's own ids; the others of the `n_rows` say nothing.
    """
    out = {}
    for part in (f"{name}_set_biases", f"{name}_set_factors"):
        old = getattr(weights, part)
        if old is not None:
            moved = np.zeros((n_rows, *old.shape[1:]), old.dtype)
            moved[at] = old if at is not NOWHERE else 0
            out[part] = moved
    return out
