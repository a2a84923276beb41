"""Arrays in the form in which model files hold them."""

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
