"""From raw ids to codes and back."""

from __future__ import annotations

import numpy as np

from funksvd.ratings.tables import as_ids


def asked(users, table, name):
    """(raw ids, whether one id alone was given): None is all ids of the table; a tuple is one id where ids are tuples."""
    if users is None:
        return table.ids, False
    if type(users).__name__ != table.kind and not isinstance(users, (str, bytes, dict, set)):
        if isinstance(users, tuple) and table.kind == "mixed":
            return [users], True
        if isinstance(users, (list, tuple)) or (hasattr(users, "__array__") and np.ndim(users)):
            return users, False
        if np.ndim(users):
            raise TypeError(
                f"{name} must be an id, or a list or array of ids, got {type(users).__name__}"
            )
    return [users], True


def known_codes(raw, table, name, unknown="raise"):
    """int32 codes of raw ids; ValueError where ids are unknown and `unknown` is "raise"."""
    codes = table.encode(as_ids(raw, name), name)
    missing = np.flatnonzero(codes < 0)
    if len(missing) and unknown == "raise":
        first = next(iter(raw[missing[0] : missing[0] + 1]))
        if len(codes) == 1:
            raise ValueError(f"{name} {first!r} is unknown to the model")
        raise ValueError(
            f"{len(missing)} of {len(codes)} {name}s are unknown to the model, the first is {first!r}"
        )
    return codes


def ids_of(table, codes):
    """Ids of codes; with a code of -1 among them an object array, None there."""
    missing = codes < 0
    if not missing.any():
        return table.ids[codes]
    out = np.empty(codes.shape, object)
    out[~missing] = table.ids[codes[~missing]].tolist()
    return out
