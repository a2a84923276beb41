"""Arrays between pages that may not be touched: an over-run is a crash, without any sanitizer."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import os
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import numpy as np
from numpy.typing import DTypeLike

import funksvd
from funksvd.machine import memory

PAGE = mmap.PAGESIZE
PROT_NONE = 0
CAN_GUARD = sys.platform.startswith("linux")


def forbid(address: int) -> None:
    """Forbid any access to the page that starts at an address."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect failed")


def guarded(
    rows: int,
    columns: int,
    dtype: DTypeLike,
) -> np.ndarray:
    """Return zeros (rows, columns), as `funksvd.machine.memory.aligned` does, between two guards.

    The array ends where the second guard begins, or up to 63 bytes before it, since its start is a
    multiple of 64.
    """
    size = rows * columns * np.dtype(dtype).itemsize
    padded = -(-size // memory.CACHE_LINE) * memory.CACHE_LINE
    body = max(PAGE, -(-padded // PAGE) * PAGE)
    flat = np.frombuffer(mmap.mmap(-1, body + 2 * PAGE), np.uint8)
    forbid(flat.ctypes.data)
    forbid(flat.ctypes.data + PAGE + body)
    start = PAGE + body - padded
    own = flat[start : start + size]
    return own.view(dtype).reshape(rows, columns)


def all_modules() -> Iterator[ModuleType]:
    """Import every module of the package that can be imported here, and yield it."""
    yield funksvd
    for found in pkgutil.walk_packages(funksvd.__path__, "funksvd."):
        with contextlib.suppress(ImportError):  # an optional library that is not installed
            yield importlib.import_module(found.name)


@contextlib.contextmanager
def guarded_arrays() -> Iterator[None]:
    """Let every module of the package allocate its aligned arrays between guards.

    It does nothing where pages cannot be forbidden, or if FUNKSVD_PLAIN_MEMORY=1 is set.
    """
    plain = memory.aligned
    with contextlib.ExitStack() as stack:
        if CAN_GUARD and os.environ.get("FUNKSVD_PLAIN_MEMORY") != "1":
            for module in list(all_modules()):
                if getattr(module, "aligned", None) is plain:
                    stack.enter_context(mock.patch.object(module, "aligned", guarded))
        yield
