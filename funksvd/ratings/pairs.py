"""Pairs of user and item that a user took, with or without ratings, as ratings of 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.ratings.inputs import as_ratings, is_table, pairs_of
from funksvd.ratings.triples import Ratings
from funksvd.ratings.values import check_finite, checked_values


def as_pairs(
    X: Any,
    y: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    times: Any = None,
) -> Ratings:
    """Return the pairs in X as ratings of 1; X is in any form that `fit` takes.

    Ratings may stand beside the pairs: they must be above 0, and their values do not count.

    Raises
    ------
    ValueError
        If a rating is 0, negative, NaN or infinite.
    """
    if y is None and not isinstance(X, Ratings) and not hasattr(X, "tocoo"):
        users, items, values = bare_pairs(X)
        if values is None:
            values = np.ones(len(users), np.float32)
        ratings = Ratings.from_arrays(users, items, values, weights, times)
    else:
        ratings = as_ratings(X, y, weights, times)
    check_taken(ratings.values)
    return ratings.with_values(np.ones(len(ratings), np.float32))


def bare_pairs(X: Any) -> tuple[Any, Any, Any]:
    """Return (users, items, ratings) of pairs; the ratings are None where X has none."""
    if not is_table(X):
        return (*pairs_of(X), None)
    from funksvd.ratings.tables import columns_of

    try:
        return columns_of(X, user=None, item=None, rating=None)  # type: ignore[return-value]
    except ValueError:  # no column of ratings
        return (*columns_of(X, user=None, item=None), None)  # type: ignore[return-value]


def check_taken(ratings: npt.ArrayLike) -> None:
    """Raise ValueError unless every rating of a pair that counts as taken is above 0."""
    values = checked_values(ratings)
    check_finite(values)
    bad = np.flatnonzero(values <= 0)
    if len(bad):
        raise ValueError(
            f"pairs are items that a user took, but {len(bad)} of {len(values)} ratings are 0 or"
            f" negative, the first, {values[bad[0]]}, at index {bad[0]}; leave these pairs out"
            " (pairs that are not given count as not taken), and say by sample_weight how much"
            " each pair counts"
        )
