"""Which ratings of a user pull a prediction up or down."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funksvd.serving.asked import known_codes
from funksvd.weights import predict


class Explanation(NamedTuple):
    """Why a user gets this prediction for an item: prediction = baseline + contributions.sum() + rest.

    baseline : global mean + the item's bias
    items, ratings : the user's own ratings, the strongest pull first
    contributions : how far each of them pulls the prediction up or down
    rest : what the ratings given do not explain: training that has not settled, or ratings that were not given
    """

    prediction: float
    baseline: float
    items: npt.NDArray[Any]
    ratings: npt.NDArray[Any]
    contributions: npt.NDArray[Any]
    rest: float


def explain(fitted, user, item, ratings, penalty_of):
    """`FunkSVD.explain` for raw ids; `penalty_of(count)` is that of `fold_in.penalties`."""
    params = fitted.weights
    tables = fitted.tables
    u, i = (
        known_codes([raw], table, name)
        for raw, table, name in zip((user, item), tables, ("user", "item"), strict=True)
    )
    own = ratings.users == ratings.tables[0].encode([user], "user")[0]
    items = tables[1].encode(ratings.item_ids[ratings.items[own]], "item")
    values, items = ratings.values[own][items >= 0].astype(np.float64), items[items >= 0]
    pulls = contributions(params, i[0], items, values, penalty_of(len(items)))
    order = np.argsort(-np.abs(pulls), kind="stable")
    baseline = params.global_mean + float(params.item_biases[i[0]])
    prediction = float(predict(params, u, i)[0])
    return Explanation(
        prediction,
        baseline,
        tables[1].ids[items[order]],
        values[order],
        pulls[order],
        prediction - baseline - float(pulls.sum()),
    )


def contributions(params, item, items, values, penalty):
    """How far each rating of one user pulls the prediction for an item (Hu, Koren, Volinsky 2008, section 5).

    With the items given, a user's bias and factors are linear in the user's ratings: x = A^-1 sum_t z_t (r_t - mean - b_t),
    z = (1, q), A = sum_t z_t z_t' + penalty. So the prediction is a sum over them, of
    z_i' A^-1 z_t (r_t - mean - b_t).
    """
    z = params.item_factors[[item, *items]].astype(np.float64)
    weigh = np.full(z.shape[1], penalty[1])
    if np.isfinite(penalty[0]):  # else the model has no biases
        z, weigh = np.column_stack([np.ones(len(z)), z]), np.concatenate([penalty[:1], weigh])
    target, z = z[0], z[1:]
    inverse = np.linalg.solve(z.T @ z + np.diag(weigh), target)
    return (z @ inverse) * (values - params.global_mean - params.item_biases[items])
