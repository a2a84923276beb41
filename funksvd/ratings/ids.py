"""Ids of users and items: of any hashable type outside, codes from 0 on inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.machine.threads import (
    CHUNK,
    cpu_count,
    parallel,
)
from funksvd.ratings import _keys  # type: ignore[attr-defined]  # compiled
from funksvd.ratings.sorting import count_keys

# The two sides of the ratings, as positions in pairs.
USERS, ITEMS = 0, 1

# A lookup table may have this many entries, which are 64 MiB, or this many for each rating.
SMALL_TABLE = 1 << 24
ENTRIES_A_RATING = 16
# An array of texts may have this many characters, which are 64 MiB, or this many for each character
# of the texts; and a text in it this many, since answers repeat texts.
SMALL_TEXTS = 1 << 24
MOST_PADDING = 16
LONGEST_TEXT = 1 << 10


def chunks_of(n: int) -> list[slice]:
    """Return n places in slices of CHUNK."""
    return [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]


@dataclass(frozen=True, eq=False, repr=False)
class Encoded:
    """A column of ids as a dictionary: integer codes into a sequence of ids.

    Categoricals and Arrow dictionaries come in this form. Some ids may be unused, and some equal.

    Attributes
    ----------
    codes : (n,) int32 or int64
    ids : array or list
    """

    codes: np.ndarray
    ids: Any

    def __len__(self) -> int:
        return len(self.codes)

    def used(self) -> np.ndarray:
        """Return the positions of the ids that some code refers to.

        Raises
        ------
        ValueError
            If a code is no position in the ids.
        """
        counts = count_keys(self.codes, 0, len(self.ids), cpu_count())
        return np.flatnonzero(counts)

    def map(
        self,
        function: Callable[[Any], np.ndarray],
        name: str,
    ) -> np.ndarray:
        """Return the number that a function gives to the id of each code.

        Parameters
        ----------
        function : callable
            It takes an array of the ids in use and returns a number for each.
        name : str
            Name of the ids in error messages.
        """
        used = self.used()
        ids = self.ids if len(used) == len(self.ids) else np.asarray(self.ids)[used]
        numbers = function(checked_ids(ids, name))
        by_position = np.zeros(len(self.ids), numbers.dtype)
        by_position[used] = numbers
        return Encoded(self.codes, by_position).decode()

    def decode(self) -> np.ndarray:
        """Return the id of every code."""
        out = np.empty(len(self), self.ids.dtype)

        def decode_part(part: slice) -> None:
            out[part] = self.ids[self.codes[part]]

        # In parts, since NumPy makes int64 of all codes that it is given.
        parallel(
            decode_part,
            chunks_of(len(self)),
            cpu_count(),
        )
        return out


class IdTable:
    """The sorted distinct ids of one side; a code is an id's position among them.

    Parameters
    ----------
    ids : (n_ids,) array
    n_ratings : int
        Number of ratings; for how many the table may take memory.

    Attributes
    ----------
    kind : str
        The type of the ids: "int", "str", "bytes", another type's name, or "mixed".
    base, lookup : int, and (span,) int32 or None
        Of integer ids that lie close together: ``lookup[id - base]`` is the code, -1 of none.
    """

    def __init__(self, ids: np.ndarray, n_ratings: int = 0) -> None:
        if ids.dtype.kind in "iu":  # differences of narrower ids would overflow
            ids = ids.astype(np.int64, copy=False)
        self.ids = ids
        self.kind = kind_of(ids)
        self.base = 0
        self.lookup: np.ndarray | None = None
        if self.kind != "int":
            self.positions = {id_: code for code, id_ in enumerate(ids.tolist())}
        elif len(ids) and is_dense(int(ids[0]), int(ids[-1]), n_ratings):
            self.base = int(ids[0])
            self.lookup = np.full(
                int(ids[-1]) - self.base + 1,
                -1,
                np.int32,
            )
            self.lookup[ids - self.base] = np.arange(len(ids), dtype=np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, raw: Any, name: str, n_jobs: int = 1) -> np.ndarray:
        """Return the int32 codes of raw ids; -1 is an unknown id.

        Raises
        ------
        TypeError
            If the ids are of another kind than the table's. `name` says of which side they are.
        """
        ids = checked_ids(raw, name)
        if isinstance(ids, Encoded):
            return ids.map(lambda distinct: self.encode(distinct, name), name)
        if len(ids) == 0:
            return np.empty(0, np.int32)
        kind = kind_of(ids)
        if kind != self.kind and self.kind != "mixed":
            raise TypeError(
                f"{name} ids are {kind} here but were {self.kind} in fit; pass ids of the same type"
            )
        if self.kind != "int":
            get = self.positions.get
            return np.fromiter(
                (get(id_, -1) for id_ in ids.tolist()),
                np.int32,
                len(ids),
            )
        if self.lookup is not None:
            return self._looked_up(ids, self.lookup, n_jobs)
        at = np.minimum(
            np.searchsorted(self.ids, ids),
            len(self.ids) - 1,
        )
        return np.where(self.ids[at] == ids, at, -1).astype(np.int32)

    def _looked_up(
        self,
        ids: np.ndarray,
        lookup: np.ndarray,
        n_jobs: int,
    ) -> np.ndarray:
        """Return the codes of integer ids by the lookup table."""
        out = np.empty(len(ids), np.int32)

        def look_up_part(part: slice) -> None:
            _keys.look_up(ids[part], self.base, lookup, out[part])

        parallel(look_up_part, chunks_of(len(ids)), n_jobs)
        return out


def is_dense(low: int, high: int, n_ratings: int) -> bool:
    """Return whether integer ids from low to high get a lookup table.

    It may take as much memory as a few copies of the ratings, or 64 MiB.
    """
    return high - low < max(ENTRIES_A_RATING * n_ratings, SMALL_TABLE)


def kind_of(ids: np.ndarray) -> str:
    """Return the type of ids: "int", "str", "bytes", another type's name, or "mixed"."""
    if ids.dtype.kind in "iu":
        return "int"
    if ids.dtype.kind == "U":
        return "str"
    if ids.dtype.kind == "S":
        return "bytes"
    kinds = {type(id_).__name__ for id_ in ids.tolist()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def checked_ids(raw: Any, name: str) -> Any:
    """Return ids as a one-dimensional array, or unchanged if they are `Encoded`.

    Whole numbers become int32 or int64; the others are str, bytes or objects.

    Raises
    ------
    ValueError
        If ids are missing or masked, or if two different ones could become equal.
    """
    if isinstance(raw, Encoded):
        return raw
    refuse_mask(raw, f"{name} ids")
    ids = as_array(raw)
    if ids.ndim != 1:
        raise ValueError(f"{name} ids must be one-dimensional, got shape {ids.shape}")
    if ids.dtype.kind == "M":
        ids = times_as_objects(ids, name)
    if ids.dtype.kind == "f":
        ids = floats_as_ints(ids, name)
    ids = ints_in_64_bits(ids, name)
    if ids.dtype.kind == "O" and any(id_ is None or id_ != id_ for id_ in ids.tolist()):
        raise ValueError(f"{name} ids hold missing values (None or NaN); drop these ratings first")
    if ids.dtype.kind in "iub" and ids.dtype not in (
        np.int32,
        np.int64,
    ):
        ids = ids.astype(np.int64)
    return ids


def as_array(raw: Any) -> np.ndarray:
    """Return ids in an array; a list becomes objects where NumPy would change its ids."""
    if not isinstance(raw, list | tuple):
        return np.asarray(raw)
    kinds = {type(id_) for id_ in raw}
    texts = bool(kinds) and all(issubclass(kind, str | bytes) for kind in kinds)
    if texts and any(id_[-1:] in ("\0", b"\0") for id_ in raw):
        return np.fromiter(raw, object, len(raw))  # NumPy would drop the zeros at the end
    if texts and len(kinds) == 1:
        return text_array(raw)
    numbers = all(issubclass(kind, int | float | np.number) for kind in kinds)
    if numbers or (len(kinds) == 1 and tuple not in kinds):
        return np.asarray(raw)
    # NumPy would make text of numbers beside text, and rows of tuples.
    return np.fromiter(raw, object, len(raw))


def text_array(texts: Sequence[Any]) -> np.ndarray:
    """Return texts of one type, str or bytes, as an array of fixed width, or else of objects.

    NumPy gives every text the width of the longest. Where this would take much more memory than the
    texts themselves, as when one id of many is very long, the array is one of objects.
    """
    lengths = list(map(len, texts))
    longest = max(lengths, default=0)
    is_large = len(lengths) * longest > max(SMALL_TEXTS, MOST_PADDING * sum(lengths))
    if is_large or longest > LONGEST_TEXT:
        return np.fromiter(texts, object, len(texts))
    return np.asarray(texts)


def times_as_objects(ids: np.ndarray, name: str) -> np.ndarray:
    """Return NumPy times as dates or datetimes; ValueError if these would be coarser."""
    if ids.dtype == "M8[D]":
        return ids.astype(object)  # dates, as in a list of them
    # As objects NumPy would give nanoseconds as bare integers.
    microseconds = ids.astype("M8[us]")
    changed = microseconds.astype(ids.dtype) != ids
    if changed[~np.isnat(ids)].any():
        raise ValueError(f"{name} ids are times finer than a microsecond; pass them as int or str")
    return microseconds.astype(object)


def floats_as_ints(ids: np.ndarray, name: str) -> np.ndarray:
    """Return whole numbers stored as floats as int64; ValueError if they are not whole numbers."""
    if not np.isfinite(ids).all() or (ids != np.floor(ids)).any():
        raise ValueError(
            f"{name} ids are floats that are not whole numbers, or missing; pass int or str ids"
        )
    # NumPy makes floats, too, of ints that have no common integer type.
    if len(ids) and np.abs(ids).max() >= 2**53:
        raise ValueError(
            f"{name} ids are floats of 2**53 or more, or ints that do not fit 64 bits with a sign:"
            " as floats different ones would be equal; pass smaller ones, or str"
        )
    return ids.astype(np.int64)


def ints_in_64_bits(ids: np.ndarray, name: str) -> np.ndarray:
    """Return ids with Python's ints as int64; ValueError if an int does not fit."""
    try:
        if ids.dtype.kind == "O" and len(ids) and all(type(id_) is int for id_ in ids.tolist()):
            return ids.astype(np.int64)
        if ids.dtype == np.uint64 and len(ids) and ids.max() > np.iinfo(np.int64).max:
            raise OverflowError
    except OverflowError:
        raise ValueError(
            f"{name} ids must fit 64 bits with a sign; pass larger ones as str"
        ) from None
    return ids


def refuse_mask(values: Any, name: str) -> None:
    """Raise ValueError for an array of numpy.ma with masked entries, whose mask would be lost."""
    if not isinstance(values, np.ma.MaskedArray):
        return
    n_masked = np.count_nonzero(values.mask)
    if n_masked:
        raise ValueError(
            f"{n_masked} {name} are masked; pass the others alone, such as array[~array.mask]"
        )
