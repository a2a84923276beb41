"""Arrays and ids in the form in which model files hold them."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from funksvd.machine.replacing import FilePath

ALIGNMENT = 64

Arrays = dict[str, np.ndarray]


def mapped(
    path: FilePath,
    offset: int,
    size: int,
) -> memoryview:
    """Return bytes of a file as a read-only map, which all processes that map it share."""
    if size == 0:
        return memoryview(b"")
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    with open(path, "rb") as file:
        whole = mmap.mmap(
            file.fileno(),
            skipped + size,
            access=mmap.ACCESS_READ,
            offset=offset - skipped,
        )
    return memoryview(whole)[skipped:]


def as_array(
    data: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
) -> np.ndarray:
    """Return bytes as an array in the byte order of the machine.

    It is a copy only if the bytes lie at odd places or in the other byte order.
    """
    array = np.frombuffer(data, dtype).reshape(shape)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native if native.flags.aligned else native.copy()


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
        return np.array(pieces)
    return np.array([piece.decode() for piece in pieces])
