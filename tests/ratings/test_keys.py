"""The kernels on keys and codes of ratings."""

from __future__ import annotations

from collections import Counter

import numpy as np

from funksvd.ratings import _keys


def dealt(seed: int) -> tuple[int, ...]:
    """Return the batch of each of four ratings that are dealt to four batches of one."""
    ratings = np.arange(4, dtype=np.float32)
    out_rating = np.empty(4, np.float32)
    _keys.deal(
        np.array([0, 4]),
        np.zeros(4, np.int32),
        ratings,
        np.empty(0, np.float32),
        0,
        np.arange(4, dtype=np.int32),
        seed,
        np.arange(4),
        np.empty(4, np.int32),
        np.empty(4, np.int32),
        out_rating,
        np.empty(0, np.float32),
    )
    return tuple(np.argsort(out_rating).tolist())


def test_every_deal_is_equally_likely() -> None:
    """The shuffle gives each of the 24 orders equally often, within five standard errors."""
    counts = Counter(dealt(seed * 7919) for seed in range(2400))
    assert len(counts) == 24
    expected = 100
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5
