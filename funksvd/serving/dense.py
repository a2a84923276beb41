"""Predictions for all items, and a model's vectors for a nearest-neighbour index."""

from __future__ import annotations

import numpy as np

from funksvd.machine.threads import parallel
from funksvd.weights import Weights, predict

PREDICTIONS_OF_A_CALL = 1 << 20


def predict_all(
    weights: Weights,
    users: np.ndarray,
    n_jobs: int,
) -> np.ndarray:
    """Return (m, n_items) predictions for user codes, those of `predict` to the last bit."""
    n_items = len(weights.item_factors)
    items = np.arange(n_items, dtype=np.int32)
    out = np.empty((len(users), n_items), weights.user_factors.dtype)
    users_of_a_call = max(1, PREDICTIONS_OF_A_CALL // max(1, n_items))

    def predict_rows(first: int) -> None:
        rows = slice(first, first + users_of_a_call)
        part = users[rows]
        row_users = np.repeat(part, n_items)
        row_items = np.tile(items, len(part))
        flat = predict(weights, row_users, row_items)
        out[rows] = flat.reshape(len(part), n_items)

    parallel(predict_rows, range(0, len(users), users_of_a_call), n_jobs)
    return out


def item_vectors(weights: Weights) -> np.ndarray:
    """Return (n_items, k + 2) vectors (q, b_i, 1) of all items.

    Their inner products with `query_vectors` are the predictions.
    """
    ones = np.ones(len(weights.item_factors), weights.item_factors.dtype)
    return np.column_stack([weights.item_factors, weights.item_biases, ones])


def query_vectors(weights: Weights, users: np.ndarray) -> np.ndarray:
    """Return (m, k + 2) vectors (p, 1, mean + b_u) of user codes."""
    dtype = weights.user_factors.dtype
    ones = np.ones(len(users), dtype)
    rest = weights.global_mean + weights.user_biases[users]
    columns = [weights.user_factors[users], ones, rest]
    return np.column_stack(columns).astype(dtype)
