"""The ratings of a user that pull a prediction up or down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from funksvd.ratings.triples import Ratings
from funksvd.serving.asked import known_codes
from funksvd.weights import Fitted, Weights, predict


class Explanation(NamedTuple):
    """Why a user gets a prediction: it is baseline + contributions.sum() + rest.

    prediction : before any clipping
    baseline : global mean + the item's bias
    items, ratings : the user's own ratings, the strongest pull first
    contributions : how far each of these ratings pulls the prediction up or down
    rest : the part that the given ratings do not explain, because training has not settled or
        because ratings are missing among them
    exposure : of the user and the item, where the model knows it beside ratings; else None
    exposure_contributions : how much of it follows from the user having taken each of the items, in
        their order; they sum up to the exposure if the ratings are those of training
    """

    prediction: float
    baseline: float
    items: NDArray[Any]
    ratings: NDArray[Any]
    contributions: NDArray[Any]
    rest: float
    exposure: float | None = None
    exposure_contributions: NDArray[Any] | None = None


def explain(
    fitted: Fitted,
    user: Any,
    item: Any,
    ratings: Ratings,
    penalty_of: Callable[[int], NDArray[Any]],
) -> Explanation:
    """Explain the prediction for raw ids; see `FunkSVD.explain`.

    Parameters
    ----------
    fitted : Fitted
    user, item : raw ids
    ratings : Ratings, the user's among them
    penalty_of : function of a number of ratings
        Returns (2,) the penalties of a row with so many ratings, as `fold_in.penalties` does.
    """
    weights = fitted.weights
    users_table, items_table = fitted.tables
    user_code = known_codes([user], users_table, "user")
    item_code = known_codes([item], items_table, "item")
    items, values = ratings_of(user, ratings, fitted)
    penalty = penalty_of(len(items))
    pulls = contributions(weights, item_code[0], items, values, penalty)
    order = np.argsort(-np.abs(pulls), kind="stable")
    baseline = weights.global_mean + float(weights.item_biases[item_code[0]])
    prediction = float(predict(weights, user_code, item_code)[0])
    of_exposure: tuple[float | None, NDArray[Any] | None] = (None, None)
    if weights.user_exposure is not None:
        of_exposure = exposure_parts(weights, user_code[0], item_code[0], items[order])
    return Explanation(
        prediction=prediction,
        baseline=baseline,
        items=items_table.ids[items[order]],
        ratings=values[order],
        contributions=pulls[order],
        rest=prediction - baseline - float(pulls.sum()),
        exposure=of_exposure[0],
        exposure_contributions=of_exposure[1],
    )


def ratings_of(
    user: Any,
    ratings: Ratings,
    fitted: Fitted,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (the model's item codes, float64 ratings) of a user, for the items that it knows."""
    users_table, _ = ratings.tables
    user_code = users_table.encode([user], "user")[0]
    own = ratings.users == user_code
    item_ids = ratings.item_ids[ratings.items[own]]
    items = fitted.tables[1].encode(item_ids, "item")
    values = ratings.values[own].astype(np.float64)
    known = items >= 0
    return items[known], values[known]


def contributions(
    weights: Weights,
    item: int,
    items: NDArray[Any],
    values: NDArray[Any],
    penalty: NDArray[Any],
) -> NDArray[Any]:
    """Return (n,) how far each rating of one user pulls the prediction for an item.

    Given the items, a user's bias and factors x are linear in the user's ratings r_t of items t
    (Hu, Koren, Volinsky 2008, section 5): with z = (1, q),

        x = A^-1 sum_t z_t (r_t - mean - b_t),  A = sum_t z_t z_t' + diag(penalty).

    So the prediction for item i is a sum over the ratings, of z_i' A^-1 z_t (r_t - mean - b_t).

    Parameters
    ----------
    weights : Weights
    item : code of the item to predict for
    items, values : (n,) codes and ratings of the items that the user has rated
    penalty : (2,) weights of bias^2 and of factor^2; infinite for the bias of an unbiased model
    """
    z = weights.item_factors[[item, *items]].astype(np.float64)
    diagonal = np.full(z.shape[1], penalty[1])
    if np.isfinite(penalty[0]):
        z = np.column_stack([np.ones(len(z)), z])
        diagonal = np.append(penalty[0], diagonal)
    target = z[0]
    rated = z[1:]
    a = rated.T @ rated + np.diag(diagonal)
    reach = rated @ np.linalg.solve(a, target)
    rest = values - weights.global_mean - weights.item_biases[items]
    pulls: NDArray[Any] = reach * rest
    return pulls


def exposure_parts(
    weights: Weights, user: int, item: int, items: NDArray[Any]
) -> tuple[float, NDArray[Any]]:
    """Return (exposure of a pair, (n,) shares of it that follow from the user's items).

    Given the items, a user's row is linear in the user's pairs (Hu, Koren, Volinsky 2008, section
    5): the share of item t in the exposure of item i is q_i' A^-1 q_t, with A that of
    `engines/_exposure.pyx`, whatever the pairs' sample weights, which are taken as 1 here.
    """
    assert weights.exposure is not None
    assert weights.user_exposure is not None
    assert weights.item_exposure is not None
    every = weights.item_exposure.astype(np.float64)
    unseen_weight, penalty = weights.exposure[:2].tolist()
    taken = every[items]
    total_weight = len(items) + unseen_weight * len(every)
    a = unseen_weight * (every.T @ every) + taken.T @ taken
    a += np.eye(every.shape[1]) * penalty * total_weight
    shares: NDArray[Any] = taken @ np.linalg.solve(a, every[item])
    exposure = float(weights.user_exposure[user].astype(np.float64) @ every[item])
    return exposure, shares
