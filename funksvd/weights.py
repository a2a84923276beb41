"""The learned arrays of a model, the ids that their rows belong to, and the prediction for pairs.

The prediction formula stands in `_formula.pxi`, which the kernels that train include as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.threads import parallel
from funksvd.ratings.ids import IdTable

PAIRS_OF_A_CALL = 1 << 18


@dataclass(frozen=True, eq=False)
class Weights:
    """The learned arrays of a model; rows are in the order of the codes.

    Attributes
    ----------
    global_mean : float
    user_biases, item_biases : (n_users,), (n_items,)
    user_factors, item_factors : (n_users, n_factors), (n_items, n_factors)
    noise : (3,) or None
        Of a sampled model alone, as the next two: noise variance, scale of the posterior variances,
        and kurtosis of the residuals. `posterior` gives them meaning.
    user_posterior, item_posterior : (n_users + 1, 4), (n_items + 1, 4), or None
        How uncertain each row is; the last row is that of an unknown id.
    """

    global_mean: float
    user_biases: np.ndarray
    item_biases: np.ndarray
    user_factors: np.ndarray
    item_factors: np.ndarray
    noise: np.ndarray | None = None
    user_posterior: np.ndarray | None = None
    item_posterior: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fitted model knows: its weights and the id tables (users, items) of their rows.

    A model holds one and replaces it whole, so that a reader who takes it once never sees new
    arrays with old codes.
    """

    weights: Weights
    tables: tuple[IdTable, IdTable]


def predict(weights: Weights, users: np.ndarray, items: np.ndarray, n_jobs: int = 1) -> np.ndarray:
    """Return mean + (b_u + b_i) + p_u . q_i for pairs of codes.

    Parameters
    ----------
    weights : Weights
    users, items : (n,) int32
        Codes; -1 is an unknown id, with bias 0 and no factors.
    n_jobs : int

    Returns
    -------
    (n,) of the dtype of the factors
    """
    out = np.empty(len(users), weights.user_factors.dtype)
    kernel = kernels("_predict", out.dtype).predict

    def predict_part(part: slice) -> None:
        kernel(
            weights.user_factors,
            weights.user_biases,
            weights.item_factors,
            weights.item_biases,
            weights.global_mean,
            users[part],
            items[part],
            out[part],
        )

    starts = range(0, len(users), PAIRS_OF_A_CALL)
    parallel(predict_part, [slice(start, start + PAIRS_OF_A_CALL) for start in starts], n_jobs)
    return out
