"""The batches of an epoch: ratings sorted by their rows, then dealt at random or in file order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from funksvd.ratings import _keys

# How many ratings are dealt to the batches at a time: their shuffle stays in the cache.
DEAL = 1 << 16
DEAL_STREAM = 2  # of an engine's random numbers

# Runs a function on each of some arguments, on the threads of a team.
Run = Callable[[Callable[[int], None], Sequence[int]], object]


class Batches(NamedTuple):
    """The ratings of an epoch, one batch after the other, each grouped by its rows.

    `row` and `other` are codes of the first and of the second side. An empty `weight` means that
    all ratings weigh 1.
    """

    row: np.ndarray
    other: np.ndarray
    rating: np.ndarray
    weight: np.ndarray

    def part(
        self,
        first: int,
        size: int,
    ) -> Batches:
        """Return at most `size` ratings from the place `first` on."""
        return Batches(*(column[first : first + size] for column in self))


class HeldOut(NamedTuple):
    """Ratings to validate on; -1 is the code of an unknown id."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    weights: np.ndarray


def group_pairs(
    rows: np.ndarray,
    others: np.ndarray,
    n_rows: int,
    n_others: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of ratings by (row, other), and where the ratings of each row start.

    Repeated pairs stay in the order in which they come.
    """
    n = len(rows)
    by_other = np.empty(n, np.int32)
    order = np.empty(n, np.int32)
    start = np.zeros(n_rows + 1, np.int64)
    places = np.arange(n, dtype=np.int32)
    _keys.group(others, places, np.zeros(n_others + 1, np.int64), by_other)
    _keys.group(rows[by_other], by_other, start, order)
    return order, start


def canonical(
    codes: tuple[np.ndarray, np.ndarray],
    values: np.ndarray,
    weights: np.ndarray | None,
    n_codes: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return `group_pairs`, with repeated pairs by value and weight.

    The ratings then stand in the same order, in whichever order they were given.
    """
    rows, others = codes
    order, start = group_pairs(rows, others, *n_codes)
    same_row = np.diff(rows[order]) == 0
    same = same_row & (np.diff(others[order]) == 0)
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        places = order[tied]
        keys = [values[places], others[places], rows[places]]
        if weights is not None:
            keys.insert(0, weights[places])
        order[tied] = places[np.lexsort(keys)]
    return order, start


class Sorted(NamedTuple):
    """Ratings sorted by row and other: those of a row begin at start[row].

    The three columns are those of `Batches`; `start` stands for their rows.
    """

    start: np.ndarray
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]


def in_file_order(
    batches: Batches,
    order: np.ndarray,
    batch_size: int,
) -> Batches:
    """Return ratings B at a time as they were given, each batch sorted by its rows.

    `batches` holds all ratings sorted by their rows, and `order` their places as given.
    """
    n = len(order)
    places = np.empty(n, np.int32)
    _keys.group(
        order // np.int32(batch_size),
        np.arange(n, dtype=np.int32),
        np.zeros(-(-n // batch_size) + 1, np.int64),
        places,
    )
    return Batches(*(column[places] if len(column) else column for column in batches))


def deal(
    ratings: Sorted,
    batch_size: int,
    seeds: tuple[int, int],
    run: Run,
    out: Batches,
) -> None:
    """Deal every rating to a random batch.

    For each stretch of ratings it is drawn how many of them go to which batch; then the stretch is
    shuffled.

    Parameters
    ----------
    ratings : Sorted
    batch_size : int
    seeds : (int, int)
        The seed of the engine, and the epoch.
    run : Run
        Each stretch is dealt on one thread.
    out : Batches
        Room for all ratings.
    """
    seed, epoch = seeds
    n = len(out.row)
    starts = np.arange(0, n, batch_size)
    n_batches = len(starts)
    size = max(DEAL, 4 * n_batches)
    rng = np.random.default_rng([seed, DEAL_STREAM, epoch])
    left = np.diff(starts, append=n)
    firsts = range(0, n, size)
    hands = []
    for first in firsts:
        stretch = min(size, n - first)
        hand = rng.multivariate_hypergeometric(left, stretch, method="marginals")
        hands.append(hand)
        left -= hand
    cursors = starts + np.cumsum(hands, axis=0) - hands
    stretch_seeds = rng.integers(0, 2**64, len(hands), np.uint64)

    def deal_stretch(number: int) -> None:
        numbers = np.arange(n_batches, dtype=np.int32)
        hand = np.repeat(numbers, hands[number])
        shuffle = (hand, stretch_seeds[number], cursors[number])
        _keys.deal(
            ratings.start,
            *ratings.columns,
            firsts[number],
            *shuffle,
            *out,
        )

    run(deal_stretch, range(len(hands)))
