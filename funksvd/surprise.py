"""Models of Surprise as models of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funksvd.machine.memory import aligned
from funksvd.ratings.encoding import table_and_keys
from funksvd.ratings.ids import IdTable
from funksvd.weights import Fitted, Trained, Weights


class Side(NamedTuple):
    """The users, or the items, of a model: id table, biases (rows,) and factors (rows, k)."""

    table: IdTable
    biases: np.ndarray
    factors: np.ndarray


def from_surprise(algo: Any, make: Callable[..., Any]) -> Any:
    """Return the model of a fitted algorithm of Surprise; see `funksvd.from_surprise`.

    `make` is the class of the model.

    Raises
    ------
    TypeError
        If `algo` is no fitted SVD, SVDpp, NMF or BaselineOnly.
    """
    trainset = getattr(algo, "trainset", None)
    has_weights = hasattr(algo, "pu") or hasattr(algo, "bu")
    if trainset is None or not has_weights:
        raise TypeError(
            "algo must be a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise,"
            f" got {type(algo).__name__}"
        )
    biased = bool(getattr(algo, "biased", True))
    raw_users = [trainset.to_raw_uid(inner) for inner in range(trainset.n_users)]
    raw_items = [trainset.to_raw_iid(inner) for inner in range(trainset.n_items)]
    user_biases = biases_of(algo, "bu", biased, trainset.n_users)
    item_biases = biases_of(algo, "bi", biased, trainset.n_items)
    item_factors = factors_of(algo, "qi", trainset.n_items)
    users = sorted_side("user", raw_users, user_biases, user_factors_of(algo))
    items = sorted_side("item", raw_items, item_biases, item_factors)
    low, high = trainset.rating_scale
    model = make(
        n_factors=users.factors.shape[1],
        biased=biased,
        rating_scale=(float(low), float(high)),
        dtype="float64",
        n_epochs=max(1, int(getattr(algo, "n_epochs", 1))),
    )
    weights = Weights(
        float(trainset.global_mean) if biased else 0.0,
        users.biases,
        items.biases,
        users.factors,
        items.factors,
    )
    n_ratings = sum(len(rated) for rated in trainset.ur.values())
    trained = Trained({}, model.n_epochs, n_ratings)
    return model._take_over(Fitted(weights, (users.table, items.table), trained))


def biases_of(
    algo: Any,
    name: str,
    biased: bool,
    rows: int,
) -> np.ndarray:
    """Return a copy of the biases of one side, in Surprise's order; zeros of an unbiased model."""
    if not biased:
        return np.zeros(rows)
    return np.array(getattr(algo, name), np.float64)


def factors_of(
    algo: Any,
    name: str,
    rows: int,
) -> np.ndarray:
    """Return a copy of the factors of one side; BaselineOnly has none and gets one, of zeros."""
    factors = getattr(algo, name, np.zeros((rows, 1)))
    return np.array(factors, np.float64)


def user_factors_of(algo: Any) -> np.ndarray:
    """Return the users' factors; those of SVD++ with the items that each user has rated.

    The items that a user has rated add sum(y_j) / sqrt(n) to the factors, and are known by now.
    """
    factors = factors_of(algo, "pu", algo.trainset.n_users)
    if hasattr(algo, "yj"):
        for user, rated in algo.trainset.ur.items():
            items = [item for item, _ in rated]
            implicit = algo.yj[items].sum(axis=0)
            factors[user] += implicit / np.sqrt(len(items))
    return factors


def sorted_side(
    name: str,
    raw: list[Any],
    biases: np.ndarray,
    factors: np.ndarray,
) -> Side:
    """Return one side with its rows in the order of the id table.

    Parameters
    ----------
    name : "user" or "item"
    raw : raw ids in Surprise's order
    biases, factors : (rows,), (rows, k) in the same order
    """
    table = table_and_keys(raw, name)[0]
    places = table.encode(raw, name)
    sorted_biases = np.empty_like(biases)
    rows, k = factors.shape
    sorted_factors = aligned(rows, k, np.float64)
    sorted_biases[places] = biases
    sorted_factors[places] = factors
    return Side(table, sorted_biases, sorted_factors)
