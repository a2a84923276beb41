"""From raw ids to id tables and the keys of ratings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from funksvd.boundary import own_keys
from funksvd.machine.threads import cpu_count
from funksvd.ratings.ids import Encoded, IdTable, checked_ids, is_dense, text_array
from funksvd.ratings.sorting import count_keys


class Keyed(NamedTuple):
    """The ids of a column, encoded.

    table : IdTable
    keys : (n,) int32 or int64, raw ids where the table has a lookup table, else codes
    counts : (n_ids,) number of ratings of each code; None where it is not at hand
    """

    table: IdTable
    keys: np.ndarray
    counts: np.ndarray | None


def table_and_keys(raw: Any, name: str) -> Keyed:
    """Return the id table of raw ids and their keys; `name` names the ids in errors."""
    ids = checked_ids(raw, name)
    if isinstance(ids, Encoded):
        return table_of_encoded(ids, name)
    if ids.dtype.kind == "i":
        return table_of_ints(ids)
    return table_of_objects(ids)


def table_of_encoded(ids: Encoded, name: str) -> Keyed:
    """Return the table and keys of an encoded column, from the ids in use alone."""
    tables: list[IdTable] = []

    def keys_of(distinct: np.ndarray) -> np.ndarray:
        table, keys, _ = table_and_keys(distinct, name)
        tables.append(table)
        return own_keys(keys, int(keys.min()), int(keys.max()))

    keys = ids.map(keys_of, name)
    return Keyed(tables[0], keys, None)


def table_of_ints(ids: np.ndarray) -> Keyed:
    """Return the table and keys of integer ids, by counting where they lie close together.

    The keys are a copy. `ids` may be an array that its owner fills again, even while it is read
    here; `count_keys` refuses a copy that does not lie within the bounds found before.
    """
    low = int(ids.min())
    high = max(low, int(ids.max()))  # in an array that changes meanwhile it may be below
    if is_dense(low, high, len(ids)):
        keys = own_keys(ids, low, high)
        counts = count_keys(keys, low, high - low + 1, cpu_count())
        present = np.flatnonzero(counts)
        return Keyed(
            IdTable(present + low, len(ids)),
            keys,
            counts[present],
        )
    distinct, codes = np.unique(ids, return_inverse=True)
    return Keyed(
        IdTable(distinct),
        codes.astype(np.int32),
        None,
    )


def table_of_objects(ids: np.ndarray) -> Keyed:
    """Return the table and keys of texts and other objects.

    Ids of several types that have no order are sorted by type and text.
    """
    values = ids.tolist()
    distinct = list(dict.fromkeys(values))
    try:
        distinct.sort()
    except TypeError:
        distinct.sort(
            key=lambda id_: (
                type(id_).__name__,
                repr(id_),
            )
        )
    codes = {id_: code for code, id_ in enumerate(distinct)}
    keys = np.fromiter(
        map(codes.__getitem__, values),
        np.int32,
        len(values),
    )
    table = IdTable(distinct_array(distinct, ids.dtype.kind in "US"))
    return Keyed(table, keys, None)


def distinct_array(distinct: Iterable[Any], texts: bool) -> np.ndarray:
    """Return sorted distinct ids as an array: of texts where NumPy keeps these, else of objects."""
    distinct = list(distinct)
    if texts or all(type(id_) is str and id_[-1:] != "\0" for id_ in distinct):
        return text_array(distinct)
    array = np.empty(len(distinct), object)
    array[:] = distinct
    return array


class Codes(dict[str, int]):
    """The code of each text; new texts are numbered in the order in which they come."""

    def __missing__(self, text: str) -> int:
        self[text] = code = len(self)
        return code
