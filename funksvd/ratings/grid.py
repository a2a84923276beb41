"""The block grid: ratings cut into B x B blocks that threads can work on at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from funksvd.ratings import _grid

BAND_BYTES = 512 * 1024  # a gathered band's factors, about an L2: its popular rows stay in there
RUN_LENGTH = 8  # more bands shorten runs; below this the gain of the cache is lost
BLOCK_RATINGS = 4096  # smaller blocks cost more in the schedule than in the kernel
WARP_RATINGS, WARP_BANDS = 64, 512  # on a GPU


@dataclass(frozen=True)
class Grid:
    """Ratings in B x B blocks; see `Ratings.grid`."""

    users_run: bool  # the runs are users', the gathered side is the items'
    n_bands: int
    run_codes: np.ndarray  # code of each row of the run side, band after band
    run_bands: np.ndarray  # (B + 1,) where each band starts
    codes: np.ndarray
    bands: np.ndarray
    run_counts: np.ndarray  # ratings of each code
    counts: np.ndarray
    block_start: np.ndarray  # (B * B + 1,) ratings
    block_runs: np.ndarray  # (B * B + 1,) runs
    run_row: np.ndarray
    run_end: np.ndarray
    index: np.ndarray
    rating: np.ndarray
    mean: float  # of the ratings, weighted
    weight: np.ndarray | None = None  # (n + 8,) beside `rating`
    total_weight: float = 0.0  # their number, where they have no weights

    def __len__(self):
        return int(self.block_start[-1])


def choose_bands(n, n_runs, n_gathered, row_bytes):
    """B, a function of the data alone, never of the machine or the number of threads."""
    cache = -(-n_gathered * row_bytes // BAND_BYTES)
    wanted = max(8, cache)
    affordable = min(n // (RUN_LENGTH * max(1, n_runs)), int((n / BLOCK_RATINGS) ** 0.5))
    return int(max(1, min(wanted, affordable), -(-n_gathered // 65000)))


def choose_warp_bands(n, busiest, n_gathered):
    """B for a GPU, a function of the data alone: so many that the busiest row's ratings, one block after the other, take
    as long as any band's, and that blocks hold 64 ratings; more than 512 cost more in the set-up than in an epoch.
    """
    return int(
        max(
            1,
            min(n // busiest, int((n / WARP_RATINGS) ** 0.5), WARP_BANDS),
            -(-n_gathered // 65000),
        )
    )


def band_layout(counts, n_bands, rng):
    """(codes band after band, where each band starts): equal loads, members shuffled."""
    tie = rng.permutation(len(counts))
    order = tie[np.argsort(-counts[tie], kind="stable")]
    band = np.zeros(len(counts), np.int32)
    most = max(-(-len(counts) // n_bands), min(len(counts), 65000))
    _grid.assign_bands(counts, order, n_bands, most, band)
    shuffled = rng.permutation(len(counts))
    codes = shuffled[np.argsort(band[shuffled], kind="stable")]
    return codes, np.concatenate([[0], np.cumsum(np.bincount(band, minlength=n_bands))]).astype(
        np.int64
    )
