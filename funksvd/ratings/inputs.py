"""Ratings from every form that `fit` takes."""

from __future__ import annotations

import numpy as np

from funksvd.ratings.triples import Ratings


def is_table(X):
    """Whether X is a table: it has named columns. (Asked of the type: a lazy table computes to answer itself.)"""
    return hasattr(type(X), "columns") or hasattr(type(X), "column_names")


def pairs_of(X):
    """(users, items) of a pair of arrays, a table or an (n, 2) array."""
    if isinstance(X, tuple) and len(X) == 2:
        return X
    if is_table(X):
        from funksvd.ratings.tables import columns_of

        return columns_of(X, user=None, item=None)
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != 2:
        raise ValueError(f"X must be (n, 2) or a tuple (users, items), got shape {X.shape}")
    return X[:, 0], X[:, 1]


def as_ratings(X, y=None, weights=None):
    """Ratings of whatever `fit` takes."""
    if isinstance(X, Ratings):
        if weights is not None:
            raise ValueError(
                "these Ratings have their own weights; give them to Ratings.from_arrays(..., weights)"
            )
        return X
    if hasattr(X, "tocoo"):
        if y is not None:
            raise ValueError(
                "a sparse matrix holds the ratings itself: y must be None, or X an array of ids"
            )
        return Ratings.from_sparse(X, weights)
    if y is None:
        if is_table(X):
            return Ratings.from_frame(X, weights=weights)
        raise ValueError(
            "y is missing: this requires y to be passed, but the target y is None; "
            "or else a table, sparse matrix or Ratings that holds them"
        )
    return Ratings.from_arrays(*pairs_of(X), y, weights)
