"""Parts of ratings: some rows of a column, and the ratings whose ids a table does not know."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funksvd.ratings.ids import IdTable


class Unknown(NamedTuple):
    """Ratings with an id that a table does not know; sorted, so that sums have equal bits.

    users, items : (n,) int32 codes; -1 is an unknown id
    values, weights : (n,)
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    weights: np.ndarray


def sorted_unknown(
    users: np.ndarray,
    items: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
) -> Unknown:
    """Return ratings as `Unknown`, in an order that is a function of their set."""
    columns = (users, items, values, weights)
    order = np.lexsort(columns)
    return Unknown(*(column[order] for column in columns))


def rows_of(column: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray | None:
    """Return some rows of a column, None if the column is missing."""
    return None if column is None else column[rows]


def keys_of(table: IdTable, codes: np.ndarray) -> np.ndarray:
    """Return the keys that stand for codes of a table; see `Ratings.keys`."""
    if table.lookup is None:
        return codes
    keys: np.ndarray = table.ids[codes]
    return keys
