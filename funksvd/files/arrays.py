"""Arrays in the form in which model files hold them."""

from __future__ import annotations

import mmap
import os
from typing import IO, Any

import numpy as np

ALIGNMENT = 64

Arrays = dict[str, np.ndarray]


def mapped(
    file: IO[bytes],
    offset: int,
    size: int,
) -> memoryview:
    """Return bytes of an open file as a read-only map, which all processes that map it share.

    The maps of one open file are of one file, also if another one takes its name meanwhile.
    """
    if size == 0:
        return memoryview(b"")
    skipped = offset % mmap.ALLOCATIONGRANULARITY
    whole = mmap.mmap(
        file.fileno(),
        skipped + size,
        access=mmap.ACCESS_READ,
        offset=offset - skipped,
    )
    return memoryview(whole)[skipped:]


def size_of(file: IO[bytes]) -> int:
    """Return the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


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
