"""Raw ids of a question as codes, and the codes of its answer as ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from funksvd.ratings.ids import IdTable
from funksvd.ratings.tables import as_ids


def asked(
    users: Any,
    table: IdTable,
    name: str,
) -> tuple[Any, bool]:
    """Return (raw ids, whether a single id was given).

    None stands for all ids of the table. A tuple is one id if the model's ids are tuples or of
    mixed types.

    Raises
    ------
    TypeError
        If `users` has several entries and is neither a list, nor a tuple, nor an array.
    """
    if users is None:
        return table.ids, False
    is_id = type(users).__name__ == table.kind
    if is_id or isinstance(users, str | bytes | dict | set):
        return [users], True
    if isinstance(users, tuple) and table.kind == "mixed":
        return [users], True
    is_array = hasattr(users, "__array__") and np.ndim(users) > 0
    if isinstance(users, list | tuple) or is_array:
        return users, False
    if np.ndim(users):
        raise TypeError(
            f"{name} must be an id, or a list or array of ids, got {type(users).__name__}"
        )
    return [users], True


def known_codes(
    raw: Any,
    table: IdTable,
    name: str,
    unknown: str = "raise",
) -> np.ndarray:
    """Return the int32 codes of raw ids, -1 for an unknown one.

    Raises
    ------
    ValueError
        If an id is unknown to the table and `unknown` is "raise".
    """
    codes: np.ndarray = table.encode(as_ids(raw, name), name)
    missing = np.flatnonzero(codes < 0)
    if len(missing) == 0 or unknown != "raise":
        return codes
    place = missing[0]
    first = next(iter(raw[place : place + 1]))
    if len(codes) == 1:
        raise ValueError(f"{name} {first!r} is unknown to the model")
    raise ValueError(
        f"{len(missing)} of {len(codes)} {name}s are unknown to the model, the first is {first!r}"
    )


def ids_of(table: IdTable, codes: np.ndarray) -> np.ndarray:
    """Return the ids of codes; if a code is -1, an object array with None in its place."""
    missing = codes < 0
    if not missing.any():
        ids: np.ndarray = table.ids[codes]
        return ids
    out = np.empty(codes.shape, object)
    out[~missing] = table.ids[codes[~missing]].tolist()
    return out
