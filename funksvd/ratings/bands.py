"""The bands of the block grid: how many there are, which side has runs, and which ids go where.

Every choice is a function of the ratings and the seed alone, never of the machine or the number of
threads, so that training gives the same bits everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from funksvd.ratings import _grid, _keys  # type: ignore[attr-defined]  # compiled

if TYPE_CHECKING:
    from funksvd.ratings.triples import Ratings

# Bytes of a gathered band's factors. It is about an L2 cache: the popular rows stay in there. With
# half of it there are twice as many bands and shorter runs, and an epoch of 20 M ratings takes 1.06
# to 1.10 of the time at 64 to 128 factors. With twice of it nothing is gained (L2 of 2 MiB).
BAND_BYTES = 1024 * 1024
# Average number of ratings in a run. More bands shorten runs, and below this number the gain of the
# cache is lost.
RUN_LENGTH = 8
# Average number of ratings in a block. Smaller blocks cost more in the schedule than in the kernel.
BLOCK_RATINGS = 4096
LEAST_BANDS_WANTED = 8

# The same on a GPU, where one warp trains a block.
WARP_RATINGS = 64
MOST_WARP_BANDS = 512

# Number of rows of a gathered band: its rows, and a spare one, are numbered in 16 bits.
BAND_ROWS = 65000


class Bands(NamedTuple):
    """How the ids of one side are dealt out to bands.

    codes : (n_ids,) int64, codes of the ids, band after band
    starts : (n_bands + 1,) int64, where each band starts in `codes`
    counts : (n_ids,) int64, number of ratings of each code
    """

    codes: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Number of ids in each band."""
        return np.diff(self.starts)


def users_have_more(ratings: Ratings, user_counts: np.ndarray, item_counts: np.ndarray) -> bool:
    """Return whether the users are the larger side, given the number of ratings of each code.

    The larger side has more ids. Between equal numbers of ids the counts decide, and between equal
    counts the ratings themselves, so that the answer for the transposed ratings is the opposite. A
    matrix that equals its transpose has no larger side: the answer is True.
    """
    if len(user_counts) != len(item_counts):
        return len(user_counts) > len(item_counts)
    orders = [
        (np.sort(user_counts), np.sort(item_counts)),
        (user_counts, item_counts),
    ]
    for of_users, of_items in orders:
        if (of_users != of_items).any():
            return first_is_more(of_users, of_items)
    users = ratings.users
    items = ratings.items
    return first_is_more(hash_sums(ratings, users, items), hash_sums(ratings, items, users))


def first_is_more(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Return whether ours is larger than theirs at the first difference; True if there is none."""
    different = np.flatnonzero(ours != theirs)
    return not len(different) or bool(ours[different[0]] > theirs[different[0]])


def hash_sums(ratings: Ratings, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each code of one side a hash of its row of ratings, whatever their order.

    `own` and `others` are the codes of the ratings on this side and on the other one.
    """
    hashes = np.empty(len(own), np.uint64)
    _keys.hash_ratings(others, others, ratings.values, np.uint64(0), hashes)
    if ratings.weights is not None:
        of_weights = np.empty(len(own), np.uint64)
        _keys.hash_ratings(others, others, ratings.weights, np.uint64(1), of_weights)
        hashes *= of_weights | np.uint64(1)
    sums = np.zeros(ratings.n_users, np.uint64)
    np.add.at(sums, own, hashes)
    return sums


def choose_bands(
    n: int,
    n_runs: int,
    n_gathered: int,
    row_bytes: int,
) -> int:
    """Return the number of bands for a CPU.

    Parameters
    ----------
    n : int
        Number of ratings.
    n_runs, n_gathered : int
        Number of ids of the run side and of the gathered side.
    row_bytes : int
        Bytes of one row of factors.
    """
    for_cache = -(-n_gathered * row_bytes // BAND_BYTES)
    wanted = max(LEAST_BANDS_WANTED, for_cache)
    for_runs = n // (RUN_LENGTH * max(1, n_runs))
    for_blocks = int((n / BLOCK_RATINGS) ** 0.5)
    affordable = min(for_runs, for_blocks)
    return max(
        1,
        min(wanted, affordable),
        least_bands(n_gathered),
    )


def choose_warp_bands(n: int, busiest: int, n_gathered: int) -> int:
    """Return the number of bands for a GPU.

    The blocks of the busiest id's band run one after the other. There are so many bands that its
    ratings take as long as any other band's, and that a block holds WARP_RATINGS. More than
    MOST_WARP_BANDS would cost more in the set-up than in an epoch.

    Parameters
    ----------
    n, busiest : int
        Number of ratings, and number of those of the id that has most.
    n_gathered : int
        Number of ids of the gathered side.
    """
    for_balance = n // busiest
    for_blocks = int((n / WARP_RATINGS) ** 0.5)
    return max(
        1,
        min(for_balance, for_blocks, MOST_WARP_BANDS),
        least_bands(n_gathered),
    )


def least_bands(n_gathered: int) -> int:
    """Return the number of bands below which a band's rows do not fit 16 bits."""
    return -(-n_gathered // BAND_ROWS)


def deal_out(
    counts: np.ndarray,
    n_bands: int,
    rng: np.random.Generator,
) -> Bands:
    """Return bands with about equal numbers of ratings, whose members are shuffled.

    Parameters
    ----------
    counts : (n_ids,) int64
        Number of ratings of each code.
    n_bands : int
    rng : Generator
        It orders ids with equal counts, and the ids within a band.
    """
    n_ids = len(counts)
    ties = rng.permutation(n_ids)
    by_count = ties[np.argsort(-counts[ties], kind="stable")]
    most = max(-(-n_ids // n_bands), min(n_ids, BAND_ROWS))
    band = np.zeros(n_ids, np.int32)
    _grid.assign_bands(counts, by_count, n_bands, most, band)
    shuffled = rng.permutation(n_ids)
    codes = shuffled[np.argsort(band[shuffled], kind="stable")]
    starts = np.zeros(n_bands + 1, np.int64)
    np.cumsum(
        np.bincount(band, minlength=n_bands),
        out=starts[1:],
    )
    return Bands(codes, starts, counts)
