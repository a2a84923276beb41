"""Hashes of ratings: what they choose in splits, and what they tell of a whole set of ratings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# An odd constant that spreads the bits of a column: 2^64 over the golden ratio.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def smallest(hashes: np.ndarray, columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Return (len(hashes),) bool, True for the `n` smallest hashes.

    `columns`, the most important one first, decide between equal hashes.
    """
    limit = np.partition(hashes, n)[n]
    chosen: np.ndarray = hashes < limit
    missing = n - int(chosen.sum())
    if missing:
        ties = np.flatnonzero(hashes == limit)
        order = np.lexsort([column[ties] for column in reversed(columns)])
        chosen[ties[order[:missing]]] = True
    return chosen


def mixed(hashes: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return hashes that tell the numbers of 64 bits in `column` apart, too."""
    together: np.ndarray = (hashes ^ column.view(np.uint64)) * GOLDEN
    return together


def digest_of_texts(texts: Sequence[str]) -> str:
    """Return a digest of texts in their order."""
    import hashlib  # not needed to import funksvd

    return hashlib.blake2b("\0".join(texts).encode()).hexdigest()


def digest_of_hashes(hashes: np.ndarray, ordered: bool) -> str | int:
    """Return a digest of hashes: of their order, too, if `ordered`."""
    import hashlib  # not needed to import funksvd

    if ordered:
        return hashlib.blake2b(hashes.tobytes()).hexdigest()
    return int(hashes.sum())
