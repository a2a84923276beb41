"""Ids in the form in which model files hold them: as an array of int, text or bytes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np

from funksvd.files.arrays import Arrays
from funksvd.ratings.ids import IdTable, text_array


class IdText(NamedTuple):
    """How ids of a type become text in a file, and how they come back."""

    write: Callable[..., str]
    read: Callable[[str], Any]


# The id types that a file keeps beside int, str and bytes.
ID_TEXT = {
    "UUID": IdText(str, uuid.UUID),
    "datetime": IdText(datetime.isoformat, datetime.fromisoformat),
    "date": IdText(date.isoformat, date.fromisoformat),
}
ID_KINDS = ("int", "str", "bytes", *ID_TEXT)
# Id type -> kinds of NumPy arrays that may hold it in a file.
# NumPy's kinds; an array of objects, "O", holds texts that would be too wide together.
ARRAY_KINDS = {"int": "iu", "str": "UO", "bytes": "SUO", **dict.fromkeys(ID_TEXT, "UO")}


def stored_ids(table: IdTable, name: str) -> np.ndarray:
    """Return the ids of one side as an array of int, str or bytes, or of str as objects.

    Raises
    ------
    TypeError
        If a file cannot keep them.
    """
    if table.kind not in ID_KINDS:
        raise TypeError(
            f"{name} ids of type {table.kind} cannot be saved;"
            f" use int, str, bytes or one of {', '.join(ID_TEXT)}"
        )
    if table.kind in ID_TEXT:
        write = ID_TEXT[table.kind].write
        return text_array([write(own) for own in table.ids])
    if table.ids.dtype.kind != "O":
        ids: np.ndarray = table.ids
        return ids
    if table.kind == "bytes":  # an array of bytes would drop zeros at the end of an id
        return text_array([own.hex() for own in table.ids])
    if not any(own.endswith("\0") for own in table.ids.tolist()):
        return table.ids
    raise TypeError(f"{name} ids that are str and end with NUL cannot be saved; strip them")


def table_of(
    ids: np.ndarray,
    kind: str,
    name: str,
) -> IdTable:
    """Return the id table of a file's array of ids of a kind; `name` is "user" or "item".

    Raises
    ------
    ValueError
        If the array does not hold distinct ids of this kind; whole numbers must be sorted.
    """
    is_known = kind in ID_KINDS and ids.dtype.kind in ARRAY_KINDS[kind]
    if not is_known or ids.ndim != 1 or not len(ids):
        raise ValueError(f"its {name} ids are not a list of ids of type {kind!r}")
    if ids.dtype == np.uint64:
        raise ValueError(f"its {name} ids are uint64; they must be int64")
    if kind in ID_TEXT:
        ids = read_back(ids, ID_TEXT[kind].read)
    elif kind == "bytes" and isinstance(ids[0], str):
        ids = read_back(ids, bytes.fromhex)
    if kind == "int":
        distinct = bool((ids[1:] > ids[:-1]).all())
    else:
        distinct = len(set(ids.tolist())) == len(ids)
    if not distinct:
        raise ValueError(f"its {name} ids are not a list of distinct ids")
    return IdTable(ids)


def read_back(texts: np.ndarray, read: Callable[[str], Any]) -> np.ndarray:
    """Return the ids of an array of texts as an object array."""
    ids = np.empty(len(texts), object)
    ids[:] = [read(text) for text in texts.tolist()]
    return ids


def packed_ids(name: str, ids: np.ndarray) -> Arrays:
    """Return ids as arrays of numbers, for formats without text.

    Whole numbers become int64 under `name`. Texts become "NAME.utf8", bytes become "NAME.bytes":
    all ids one after the other; "NAME.ends" says where each of them ends.
    """
    if ids.dtype.kind in "iu":
        return {name: ids.astype(np.int64)}
    if ids.dtype.kind == "S":
        kind = "bytes"
        pieces = ids.tolist()
    else:
        kind = "utf8"
        pieces = [text.encode() for text in ids.tolist()]
    lengths = [len(piece) for piece in pieces]
    ends = np.cumsum(lengths, dtype=np.int64)
    content = np.frombuffer(b"".join(pieces), np.uint8)
    return {f"{name}.{kind}": content, f"{name}.ends": ends}


def unpacked_ids(name: str, arrays: Arrays) -> np.ndarray:
    """Take the ids of one side out of a file's arrays and return them as one array.

    Raises
    ------
    KeyError
        If there are none.
    ValueError
        If the places where ids end do not fit the content.
    """
    if name in arrays:
        return arrays.pop(name)
    ends = arrays.pop(f"{name}.ends")
    kind = "bytes" if f"{name}.bytes" in arrays else "utf8"
    content = arrays.pop(f"{name}.{kind}").tobytes()
    starts = np.append(0, ends[:-1])
    if (ends < starts).any() or ends[-1] != len(content):
        raise ValueError(f"its {name} do not end where they say")
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    pieces = [content[start:end] for start, end in bounds]
    if kind == "bytes":
        return text_array(pieces)
    return text_array([piece.decode() for piece in pieces])
