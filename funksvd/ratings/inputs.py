"""Ratings and pairs from every form that `fit` and `predict` take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.ratings.triples import Ratings


def is_table(X: Any) -> bool:
    """Return whether X is a table, that is, has named columns.

    The type is asked, not X itself: a lazy table would compute its columns to answer.
    """
    return hasattr(type(X), "columns") or hasattr(type(X), "column_names")


def is_single_id(X: Any) -> bool:
    """Return whether X is one id, and no collection of ids or pairs."""
    if isinstance(X, str | bytes | np.generic):
        return True
    return not (hasattr(X, "__len__") or hasattr(X, "__iter__") or is_table(X))


def is_list_of(X: Any, width: int) -> bool:
    """Return whether X is a list of tuples of so many entries, by its first one."""
    return isinstance(X, list) and bool(X) and isinstance(X[0], tuple) and len(X[0]) == width


def pairs_of(X: Any) -> tuple[Any, Any]:
    """Return the columns (users, items) of a pair of arrays, a table or an (n, 2) array.

    The array may be a list of pairs, whose ids keep their types.
    """
    if isinstance(X, tuple) and len(X) == 2:
        return X
    if is_list_of(X, 2):
        users, items = zip(*X, strict=True)
        return list(users), list(items)
    if is_table(X):
        from funksvd.ratings.tables import columns_of

        users, items = columns_of(X, user=None, item=None)
        return users, items
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != 2:
        raise ValueError(f"X must be (n, 2) or a tuple (users, items), got shape {X.shape}")
    return X[:, 0], X[:, 1]


def holds_ratings(X: Any) -> bool:
    """Return whether X holds ratings beside its pairs of ids; a table does by a third column."""
    if is_table(X):
        from funksvd.ratings.tables import narwhals

        return len(narwhals().from_native(X).collect_schema().names()) > 2
    is_triples = is_list_of(X, 3) or (isinstance(X, tuple) and len(X) == 3)
    return is_triples or isinstance(X, Ratings) or hasattr(X, "tocoo")


def as_known(X: Any) -> Ratings:
    """Return the pairs of `exclude=`, in any form that `fit` takes, with ratings of 1 if need be.

    Raises
    ------
    TypeError, ValueError
        If X is in none of these forms; the message names the argument.
    """
    if is_single_id(X):
        raise TypeError(
            "exclude= must be ratings, or pairs (user ids, item ids) of items that users know,"
            f" got {type(X).__name__}"
        )
    try:
        if holds_ratings(X):
            return as_ratings(X)
        users, items = pairs_of(X)
        return Ratings.from_arrays(users, items, np.ones(len(users)))
    except ValueError as error:
        raise ValueError(f"exclude=: {error}") from error


def as_ratings(
    X: Any,
    y: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    times: Any = None,
) -> Ratings:
    """Return the ratings in X, or in X and y, in any form that `fit` takes.

    Raises
    ------
    ValueError
        If y, weights or times are given beside an X that holds its own, or if y is missing.
    """
    if isinstance(X, Ratings):
        if weights is not None:
            raise ValueError(
                "these Ratings have their own weights;"
                " give them to Ratings.from_arrays(..., weights)"
            )
        if times is not None:
            raise ValueError(
                "these Ratings have times of their own, or should have: give them to"
                " Ratings.from_arrays(..., times=)"
            )
        return X
    if hasattr(X, "tocoo"):
        if y is not None:
            raise ValueError(
                "a sparse matrix holds the ratings itself: y must be None, or X an array of ids"
            )
        return Ratings.from_sparse(X, weights, times)
    if y is None:
        if is_table(X):
            return ratings_of_table(X, weights, times)
        if is_list_of(X, 3):
            X = tuple(map(list, zip(*X, strict=True)))
        if isinstance(X, tuple) and len(X) == 3:
            return Ratings.from_arrays(*X, weights, times)
        # The first words are those that scikit-learn's checks look for.
        raise ValueError(
            "y is missing: this requires y to be passed, but the target y is None; "
            "or else a table, sparse matrix or Ratings that holds them"
        )
    users, items = pairs_of(X)
    return Ratings.from_arrays(users, items, y, weights, times)


def ratings_of_table(X: Any, weights: npt.ArrayLike | None, times: Any) -> Ratings:
    """Return the ratings of a table; `times`, if given, take the place of its column of times."""
    if times is None:
        return Ratings.from_frame(X, weights=weights)
    from funksvd.ratings.tables import columns_of

    users, items, values = columns_of(X, user=None, item=None, rating=None)
    return Ratings.from_arrays(users, items, values, weights, times)
