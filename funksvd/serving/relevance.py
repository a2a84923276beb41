"""The best items by exposure, and by relevance: exposure times the probability of a good rating.

With e the exposure of a pair, r its predicted rating, t the threshold of a good rating and s the
standard deviation of the ratings::

    z = (r - t) / (2 s)          P = (1 + z / sqrt(1 + z^2)) / 2
    relevance = e P  where e > 0,  else  e (1 - P)

P is the probability that a rating around r is at or above t, by Student's t distribution with two
degrees of freedom, whose slope at t is a logistic one's with scale s; it needs a square root alone,
so that its bits are the same everywhere. The second case keeps the relevance rising in both parts
where the model expects that a user does not take an item at all.

The relevance is at most max(e, 0). So a list of the items with the largest exposures holds the n
best once the relevance of its n-th best is above the exposure of its last; lists in which it is not
are made again, eight times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funksvd.posterior import variance
from funksvd.serving.seen import Seen, unwanted_by
from funksvd.serving.top import empty_answer, top
from funksvd.weights import Weights, predict

# Users whose exposures are taken together, and items of all lists together.
USERS_OF_A_PASS = 1 << 13
ITEMS_OF_A_PASS = 1 << 22
# Length of the first lists by exposure, for n items: a multiple of n and a constant.
TIMES_N = 4
AND = 24
# How much longer a list is that did not hold the n best.
LONGER = 8
# The numbers of `Weights.exposure`.
SPREAD, LEAST, LARGEST = 2, 3, 4


class Liking(NamedTuple):
    """The rating from which a user likes an item, and the ratings that are compared with it.

    threshold : a rating, or None for each user's own mean
    risk : multiple of the standard deviation that is added to each prediction
    """

    threshold: float | None = None
    risk: float = 0.0


def exposure_model(weights: Weights, users: np.ndarray) -> Weights:
    """Return the exposures of some users as a model of its own, in the order of `users`.

    A user with code -1 has the mean of all users' factors.
    """
    assert weights.user_exposure is not None
    assert weights.item_exposure is not None
    factors = weights.user_exposure[users]
    unknown = users < 0
    if unknown.any():
        factors[unknown] = weights.user_exposure.mean(axis=0)
    return Weights(
        global_mean=0.0,
        user_biases=np.zeros(len(users), np.float32),
        item_biases=np.zeros(len(weights.item_exposure), np.float32),
        user_factors=factors,
        item_factors=weights.item_exposure,
    )


def relevance(exposure: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the relevance of pairs as float64."""
    wide = exposure.astype(np.float64)
    product: np.ndarray = np.where(wide > 0, wide * probability, wide * (1 - probability))
    return product


def probability_of(
    weights: Weights,
    users: np.ndarray,
    items: np.ndarray,
    liking: Liking,
    n_jobs: int,
) -> np.ndarray:
    """Return (n,) float64: the probability of a good rating for pairs of codes."""
    assert weights.exposure is not None
    rating = predict(weights, users, items, n_jobs).astype(np.float64)
    if liking.risk:
        rating += liking.risk * np.sqrt(variance(weights, users, items))
    if liking.threshold is not None:
        distance = rating - liking.threshold
    else:
        own_mean = weights.global_mean + weights.user_biases.astype(np.float64)
        distance = rating - np.where(users < 0, weights.global_mean, own_mean[users])
    z = distance / (2 * weights.exposure[SPREAD])
    probability: np.ndarray = (1 + z / np.sqrt(1 + z * z)) / 2
    return probability


def exposed_top(
    weights: Weights,
    users: np.ndarray,
    n: int,
    seen: Seen | None,
    items: np.ndarray,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answer of `serving.top.top`, ranked by exposure."""
    codes, scores = empty_answer(len(users), min(n, len(items)), np.float32)
    for first in range(0, len(users), USERS_OF_A_PASS):
        part = slice(first, first + USERS_OF_A_PASS)
        codes[part], scores[part] = listed(weights, users[part], n, seen, items, n_jobs)
    return codes, scores


def listed(
    weights: Weights,
    users: np.ndarray,
    n: int,
    seen: Seen | None,
    items: np.ndarray,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, exposures) of the n items with the largest exposures of each user."""
    unwanted = unwanted_by(users, seen)
    own = np.arange(len(users), dtype=np.int32)
    model = exposure_model(weights, users)
    return top(model, own, n, Seen(unwanted.start, unwanted.codes), items, n_jobs)


def relevant_top(
    weights: Weights,
    users: np.ndarray,
    n: int,
    seen: Seen | None,
    items: np.ndarray,
    liking: Liking,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the answer of `serving.top.top`, ranked by relevance, equal ones by code."""
    width = min(n, len(items))
    codes, scores = empty_answer(len(users), width, np.float32)
    length = min(TIMES_N * n + AND, len(items))
    missing = np.arange(len(users))
    while len(missing) and width:
        left = []
        users_of_a_pass = min(USERS_OF_A_PASS, max(1, ITEMS_OF_A_PASS // length))
        for first in range(0, len(missing), users_of_a_pass):
            rows = missing[first : first + users_of_a_pass]
            found = listed(weights, users[rows], length, seen, items, n_jobs)
            best, best_scores, complete = chosen(weights, users[rows], found, width, liking, n_jobs)
            codes[rows] = best
            scores[rows] = best_scores
            if length < len(items):
                left.append(rows[~complete])
        missing = np.concatenate(left) if left else missing[:0]
        length = min(LONGER * length, len(items))
    return codes, scores


def chosen(
    weights: Weights,
    users: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
    n: int,
    liking: Liking,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (codes, scores, whether no other item can be among them) of the n best of lists.

    `found` are the codes and the exposures of each user's list, by falling exposure.
    """
    codes, exposures = found
    filled = codes >= 0
    row_users = np.repeat(users, filled.sum(axis=1))
    probability = probability_of(weights, row_users, codes[filled], liking, n_jobs)
    scores = np.full(codes.shape, -np.inf, np.float32)
    scores[filled] = relevance(exposures[filled], probability)
    order = np.lexsort((codes, -scores))[:, :n]
    best = np.take_along_axis(codes, order, axis=1)
    best_scores = np.take_along_axis(scores, order, axis=1)
    others = np.where(filled[:, -1], np.maximum(exposures[:, -1], 0), -np.inf)
    complete = (best_scores[:, -1] > others) | ~filled[:, -1]
    best_scores[best < 0] = np.nan
    return best, best_scores, complete


def parts_of(
    weights: Weights,
    users: np.ndarray,
    items: np.ndarray,
    liking: Liking,
    n_jobs: int,
) -> dict[str, np.ndarray]:
    """Return the two parts of the relevance of listed items, by name.

    Parameters
    ----------
    users : (m,) codes
    items : (m, n) codes, -1 for none
    """
    exposure = np.full(items.shape, np.nan, np.float32)
    probability = np.full(items.shape, np.nan, np.float32)
    filled = items >= 0
    rows, _ = np.nonzero(filled)
    codes = items[filled]
    model = exposure_model(weights, users)
    exposure[filled] = predict(model, rows.astype(np.int32), codes, n_jobs)
    probability[filled] = probability_of(weights, users[rows], codes, liking, n_jobs)
    return {"exposure": exposure, "probability": probability}


def check_threshold(weights: Weights, threshold: float | None) -> None:
    """Raise ValueError if a threshold lies outside the ratings that the model was fitted to."""
    if threshold is None or weights.exposure is None:
        return
    least, largest = weights.exposure[[LEAST, LARGEST]].tolist()
    if not least <= threshold <= largest:
        raise ValueError(
            f"threshold must lie within the ratings of training, from {least:g} to {largest:g},"
            f" got {threshold!r}"
        )
