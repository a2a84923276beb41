"""Memory for large arrays, aligned to vectors and on huge pages."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np
from numpy.typing import DTypeLike

HUGE_PAGE = 2 << 20
CACHE_LINE = 64


def aligned(
    rows: int,
    columns: int,
    dtype: DTypeLike,
) -> np.ndarray:
    """Return zeros (rows, columns) that start at a multiple of 64 bytes.

    A large array lies on huge pages where Linux has them: factors are read at random, and with
    pages of 4 KiB most reads miss the TLB, so that predictions take twice the time.
    """
    size = rows * columns * np.dtype(dtype).itemsize
    boundary = CACHE_LINE
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        boundary = HUGE_PAGE
        flat = huge_pages(size + boundary)
    else:
        flat = np.zeros(size + boundary, np.uint8)
    start = -flat.ctypes.data % boundary
    own = flat[start : start + size]
    return own.view(dtype).reshape(rows, columns)


def huge_pages(size: int) -> np.ndarray:
    """Return `size` zero bytes that Linux is advised to keep on huge pages."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # this Linux is built without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)
