"""Weights, the learned arrays of a model, and the prediction for pairs of codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.threads import parallel

PAIR_CHUNK = 1 << 18


@dataclass
class Weights:
    """A model: mean, biases (n,), factors (n, n_factors), in the order of the codes."""

    global_mean: float
    user_biases: np.ndarray
    item_biases: np.ndarray
    user_factors: np.ndarray
    item_factors: np.ndarray
    # How sure a sampled model is, see `sampled`: noise variance, scale and kurtosis, (3,); rows of both sides, (n + 1, 4).
    noise: np.ndarray | None = None
    user_posterior: np.ndarray | None = None
    item_posterior: np.ndarray | None = None


def predict(params, users, items, n_jobs=1):
    """mean + (b_u + b_i) + p_u . q_i for int32 codes; -1 is an unknown id: bias 0, no factors."""
    out = np.empty(len(users), params.user_factors.dtype)
    kernel = kernels("_predict", out.dtype).predict

    def one(part):
        kernel(
            params.user_factors,
            params.user_biases,
            params.item_factors,
            params.item_biases,
            params.global_mean,
            users[part],
            items[part],
            out[part],
        )

    parts = [slice(s, s + PAIR_CHUNK) for s in range(0, len(users), PAIR_CHUNK)]
    parallel(one, parts, n_jobs)
    return out
