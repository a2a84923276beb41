"""Threads that work on parts of the rows of both sides, each with scratch memory of its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

from funksvd.machine.memory import aligned
from funksvd.machine.threads import Pool, stop_of_this_thread

# Parts of a side's rows, at most. They depend on the data alone, never on the number of threads.
MOST_PARTS = 48
# Ratings of a part of rows that cost as much as their ratings, at least; a row itself costs as much
# as ROW_COST ratings.
RATINGS_OF_A_PART = 1 << 14
ROW_COST = 20
# Ratings up to which one thread works alone.
RATINGS_OF_ONE_THREAD = 50_000

Item = TypeVar("Item")
Result = TypeVar("Result")


class RowPart(NamedTuple):
    """Rows [first, last) of one side (0 users, 1 items)."""

    side: int
    first: int
    last: int


def threads_for(n_ratings: int, n_jobs: int) -> int:
    """Return how many of `n_jobs` threads are worth waking for this many ratings."""
    return n_jobs if n_ratings > RATINGS_OF_ONE_THREAD else 1


def parts_by_load(side: int, start: np.ndarray) -> list[RowPart]:
    """Return parts of about equal load, where row r has start[r + 1] - start[r] ratings."""
    n_rows = len(start) - 1
    load = start[1:] + ROW_COST * np.arange(1, n_rows + 1)
    n_parts = int(min(MOST_PARTS, max(1, load[-1] // RATINGS_OF_A_PART)))
    ends = np.searchsorted(load, load[-1] * np.arange(1, n_parts) / n_parts) + 1
    bounds = [0, *np.minimum(ends, n_rows).tolist(), n_rows]
    return [RowPart(side, first, last) for first, last in pairwise(bounds) if first < last]


def equal_parts(
    side: int,
    n_rows: int,
    least: int,
) -> list[RowPart]:
    """Return parts of equally many rows, at least `least`, for work that all rows cost alike."""
    size = max(least, -(-n_rows // MOST_PARTS))
    return [RowPart(side, first, min(first + size, n_rows)) for first in range(0, n_rows, size)]


def total_of(parts: list[np.ndarray]) -> np.ndarray:
    """Return the sum of the results of parts, added in their order."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total += part
    return total


class Crew:
    """Up to `n_jobs` threads, which end with this object.

    Parameters
    ----------
    n_jobs : int
    scratch_size : int
        Number of float32 of each thread's scratch, which starts at a multiple of 64 bytes.
    """

    def __init__(self, n_jobs: int, scratch_size: int) -> None:
        self.n_jobs = n_jobs
        self.scratch_size = scratch_size
        self.free_scratch: list[np.ndarray] = []
        self.pool = Pool(n_jobs)

    def map(
        self,
        function: Callable[[np.ndarray, Item], Result],
        items: Sequence[Item],
        least: int = 3,
    ) -> list[Result]:
        """Return [function(scratch, item) for each item]; each thread takes the next one.

        One part of each side is not worth waking a thread: it takes `least` items to do so.

        After an exception (Ctrl-C, too) the items that were begun are finished and no other is.
        """
        results: list[Result | None] = [None] * len(items)
        waiting = deque(enumerate(items))
        stop = stop_of_this_thread()

        def work() -> None:
            scratch = self._take_scratch()
            try:
                while not stop.wanted:
                    try:
                        number, item = waiting.popleft()
                    except IndexError:  # another thread took the last one
                        return
                    results[number] = function(scratch, item)
            finally:
                self.free_scratch.append(scratch)

        n_threads = min(self.n_jobs, len(items)) if len(items) >= least else 1
        others = []
        try:
            for _ in range(n_threads - 1):
                others.append(self.pool.submit(work))
            work()
        finally:
            waiting.clear()
            for other in others:
                other.exception()  # waits for it
        for other in others:
            other.result()
        stop.check()
        return results  # type: ignore[return-value]  # all are filled

    def begin(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Start a function on another thread; return a function that waits for its result.

        Without another thread it runs once its result is wanted.
        """
        if self.n_jobs == 1:
            return cache(function)
        process = os.getpid()
        job = self.pool.submit(function)

        def result() -> Result:
            if os.getpid() != process:  # a forked process has not got the thread
                return function()
            found: Result = job.result()
            return found

        return result

    def _take_scratch(self) -> np.ndarray:
        try:
            return self.free_scratch.pop()
        except IndexError:
            scratch: np.ndarray = aligned(1, self.scratch_size, np.float32)
            return scratch.ravel()
