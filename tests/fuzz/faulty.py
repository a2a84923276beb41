"""A fuzzer whose cases fail in each way that the harness tells apart; a test runs it."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator

import numpy as np

from funksvd.checks import checked_n

from .harness import MEMORY, Case, main

KINDS = ("answer", "refusal", "crash", "hang", "stumble", "memory")


def run_case(rng: np.random.Generator) -> str:
    """Fail, or not, as the generator says."""
    kind = KINDS[int(rng.integers(len(KINDS)))]
    if kind == "refusal":
        checked_n(0)
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "hang":
        time.sleep(3600)
    if kind == "stumble":
        np.zeros(3) + np.zeros(2)
    if kind == "memory":
        np.ones(2 * MEMORY, np.uint8)
    return kind


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case."""
    yield run_case


if __name__ == "__main__":
    raise SystemExit(main(__spec__.name, prepared))
