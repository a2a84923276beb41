"""Ids of users and items: of any hashable type outside, codes from 0 on inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.machine.threads import CHUNK, cpu_count, parallel
from funksvd.ratings import _keys
from funksvd.ratings.sorting import count_keys


@dataclass(frozen=True)
class Encoded:
    """A column of ids as a dictionary, as of categoricals and Arrow: integer codes into a sequence of ids."""

    codes: np.ndarray
    ids: Any  # an array or list; some may be unused, and some equal

    def __len__(self):
        return len(self.codes)

    def used(self):
        """Places of the ids in use."""
        return np.flatnonzero(count_keys(self.codes, 0, len(self.ids), cpu_count()))

    def map(self, function, name):
        """function(array of the ids in use), which gives a number for each, taken at every code."""
        used = self.used()
        keys = function(
            checked_ids(
                self.ids if len(used) == len(self.ids) else np.asarray(self.ids)[used], name
            )
        )
        places = np.zeros(len(self.ids), keys.dtype)
        places[used] = keys
        return Encoded(self.codes, places).decode()

    def decode(self):
        """Array of the id of every code."""
        out = np.empty(len(self), self.ids.dtype)

        def one(part):  # in parts: NumPy makes int64 of all codes that it is given
            out[part] = self.ids[self.codes[part]]

        parallel(one, [slice(s, s + CHUNK) for s in range(0, len(self), CHUNK)], cpu_count())
        return out


class IdTable:
    """The sorted distinct ids of one side; a code is an id's position in it."""

    def __init__(self, ids, n_ratings=0):
        self.ids = ids
        self.kind = kind_of(ids)
        self.base, self.lookup = 0, None
        if self.kind != "int":
            self.positions = {x: c for c, x in enumerate(ids.tolist())}
        elif len(ids) and is_dense(int(ids[0]), int(ids[-1]), n_ratings):
            self.base = int(ids[0])
            self.lookup = np.full(int(ids[-1]) - self.base + 1, -1, np.int32)
            self.lookup[ids - self.base] = np.arange(len(ids), dtype=np.int32)

    def __len__(self):
        return len(self.ids)

    def encode(self, raw, name, n_jobs=1):
        """int32 codes of raw ids, -1 where an id is unknown. TypeError where they are of another kind."""
        raw = checked_ids(raw, name)
        if isinstance(raw, Encoded):
            return raw.map(lambda ids: self.encode(ids, name), name)
        if len(raw) == 0:
            return np.empty(0, np.int32)
        kind = kind_of(raw)
        if kind != self.kind and self.kind != "mixed":
            raise TypeError(
                f"{name} ids are {kind} here but were {self.kind} in fit; pass ids of the same type"
            )
        if self.kind != "int":
            get = self.positions.get
            return np.fromiter((get(x, -1) for x in raw.tolist()), np.int32, len(raw))
        out = np.empty(len(raw), np.int32)
        if self.lookup is not None:

            def one(part):
                _keys.look_up(raw[part], self.base, self.lookup, out[part])

            parallel(one, [slice(s, s + CHUNK) for s in range(0, len(raw), CHUNK)], n_jobs)
            return out
        at = np.minimum(np.searchsorted(self.ids, raw), len(self.ids) - 1)
        return np.where(self.ids[at] == raw, at, -1).astype(np.int32)


def is_dense(low, high, n_ratings):
    """Whether integer ids get a lookup table: it may take as much memory as a few copies of the ratings, or 64 MiB."""
    return high - low < max(16 * n_ratings, 1 << 24)


def kind_of(ids):
    if ids.dtype.kind in "iu":
        return "int"
    if ids.dtype.kind == "U":
        return "str"
    if ids.dtype.kind == "S":
        return "bytes"
    kinds = {type(x).__name__ for x in ids.tolist()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def checked_ids(raw, name):
    """A 1-d array of ids: int32 or int64 where they are whole numbers, else str, bytes or objects; or `Encoded`."""
    if isinstance(raw, Encoded):
        return raw
    refuse_mask(raw, f"{name} ids")
    kinds = {type(x) for x in raw} if isinstance(raw, (list, tuple)) else set()
    if kinds and kinds <= {str, bytes} and any(x[-1:] in ("\0", b"\0") for x in raw):
        ids = np.fromiter(raw, object, len(raw))  # NumPy would drop the zeros
    elif all(issubclass(k, (int, float, np.number)) for k in kinds) or (
        len(kinds) == 1 and tuple not in kinds
    ):
        ids = np.asarray(raw)
    else:  # NumPy would make text of numbers beside text, and rows of tuples
        ids = np.fromiter(raw, object, len(raw))
    if ids.ndim != 1:
        raise ValueError(f"{name} ids must be one-dimensional, got shape {ids.shape}")
    if ids.dtype == "M8[D]":
        ids = ids.astype(object)  # dates, as in a list of them
    if ids.dtype.kind == "M":  # NumPy gives nanoseconds back as bare integers
        micro = ids.astype("M8[us]")
        if (micro.astype(ids.dtype) != ids)[~np.isnat(ids)].any():
            raise ValueError(
                f"{name} ids are times finer than a microsecond; pass them as int or str"
            )
        ids = micro.astype(object)
    if ids.dtype.kind == "f":
        if not np.isfinite(ids).all() or (ids != np.floor(ids)).any():
            raise ValueError(
                f"{name} ids are floats that are not whole numbers, or missing; pass int or str ids"
            )
        if (
            len(ids) and np.abs(ids).max() >= 2**53
        ):  # also what NumPy makes of ints that fit no type together
            raise ValueError(
                f"{name} ids are floats of 2**53 or more, or ints that do not fit 64 bits with a sign: as "
                "floats different ones would be equal; pass smaller ones, or str"
            )
        ids = ids.astype(np.int64)
    try:
        if ids.dtype.kind == "O" and len(ids) and all(type(x) is int for x in ids.tolist()):
            ids = ids.astype(np.int64)
        if ids.dtype == np.uint64 and len(ids) and ids.max() > np.iinfo(np.int64).max:
            raise OverflowError
    except OverflowError:
        raise ValueError(
            f"{name} ids must fit 64 bits with a sign; pass larger ones as str"
        ) from None
    if ids.dtype.kind == "O" and any(x is None or x != x for x in ids.tolist()):
        raise ValueError(f"{name} ids hold missing values (None or NaN); drop these ratings first")
    if ids.dtype.kind in "iub" and ids.dtype not in (np.int32, np.int64):
        ids = ids.astype(np.int64)
    return ids


def refuse_mask(values, what):
    """ValueError for an array of numpy.ma in which something is masked: the mask would be lost."""
    mask = getattr(values, "mask", None)
    if isinstance(values, np.ma.MaskedArray) and np.any(mask):
        raise ValueError(
            f"{np.count_nonzero(mask)} {what} are masked; pass the others alone, such as array[~array.mask]"
        )


def table_and_keys(raw, name):
    """The id table of raw ids, their integer keys (`keys - base` is a place in its lookup), and counts where at hand."""
    ids = checked_ids(raw, name)
    if isinstance(ids, Encoded):
        found = []

        def keys_of(distinct):
            found.append(table_and_keys(distinct, name))
            keys = found[0][1]
            return keys if abs(keys).max() >= 1 << 31 else keys.astype(np.int32)

        keys = ids.map(keys_of, name)
        return found[0][0], keys, None
    if ids.dtype.kind == "i":
        low, high = int(ids.min()), int(ids.max())
        if is_dense(low, high, len(ids)):
            counts = count_keys(ids, low, high - low + 1, cpu_count())
            present = np.flatnonzero(counts)
            return IdTable(present + low, len(ids)), ids, counts[present]
        unique, codes = np.unique(ids, return_inverse=True)
        return IdTable(unique), codes.astype(np.int32), None
    values = ids.tolist()
    distinct = list(dict.fromkeys(values))
    try:
        distinct.sort()
    except TypeError:  # of several types: by type and text
        distinct.sort(key=lambda x: (type(x).__name__, repr(x)))
    unique = np.array(distinct) if ids.dtype.kind in "US" else np.empty(len(distinct), object)
    if unique.dtype.kind == "O":
        unique[:] = distinct
        if all(type(x) is str and x[-1:] != "\0" for x in distinct):
            unique = np.array(distinct)
    rank = {x: c for c, x in enumerate(distinct)}
    return IdTable(unique), np.fromiter(map(rank.__getitem__, values), np.int32, len(values)), None


class Codes(dict):
    """Text -> code, numbered in order of appearance."""

    def __missing__(self, text):
        self[text] = code = len(self)
        return code
