"""Predictions of every item, and vectors for an index."""

from __future__ import annotations

import numpy as np

from funksvd.machine.threads import parallel
from funksvd.weights import predict


def predict_all(params, users, n_jobs):
    """(m, n_items) predictions for user codes, those of `engine.predict` to the last bit."""
    items = np.arange(len(params.item_factors), dtype=np.int32)
    out = np.empty((len(users), len(items)), params.user_factors.dtype)
    rows = max(1, (1 << 20) // max(1, len(items)))

    def one(first):
        part = users[first : first + rows]
        pairs = np.repeat(part, len(items)), np.tile(items, len(part))
        out[first : first + rows] = predict(params, *pairs).reshape(len(part), len(items))

    parallel(one, range(0, len(users), rows), n_jobs)
    return out


def item_vectors(params):
    """(n_items, k + 2) vectors whose inner product with `query_vectors` is the prediction: q, b_i, 1."""
    ones = np.ones(len(params.item_factors), params.item_factors.dtype)
    return np.column_stack([params.item_factors, params.item_biases, ones])


def query_vectors(params, users):
    """(m, k + 2) vectors p, 1, mean + b_u of user codes."""
    ones = np.ones(len(users), params.user_factors.dtype)
    rest = params.global_mean + params.user_biases[users]
    return np.column_stack([params.user_factors[users], ones, rest]).astype(
        params.user_factors.dtype
    )
