"""The schedule of the block grid: the strata of an epoch, and threads that walk them.

A stratum is B blocks that share no band. Block (x, y) lies in band x of the run side and in band y
of the gathered side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from concurrent.futures import Executor  # it takes a seventh of the time of `import funksvd`


def strata(seed: int, epoch: int, n_bands: int) -> np.ndarray:
    """Return the strata of an epoch, in the order in which they are trained.

    Returns
    -------
    (n_bands, n_bands) int64
        In stratum d, band x of the run side meets band [d, x] of the gathered side.
    """
    bands = np.arange(n_bands)
    order = np.random.default_rng([seed, 2, epoch]).permutation(n_bands)
    meetings: np.ndarray = order[(bands + bands[:, None]) % n_bands]
    return meetings


class Schedule:
    """Hands out the blocks of an epoch to threads: dataflow, with no barrier between strata.

    A block may start once both of its bands have left the stratum before.

    Parameters
    ----------
    meetings : (n_bands, n_bands)
        As `strata` returns them.
    """

    def __init__(self, meetings: np.ndarray) -> None:
        n_bands = len(meetings)
        self.left = [
            (stratum, x, y)
            for stratum, gathered in enumerate(meetings.tolist())
            for x, y in enumerate(gathered)
        ]
        # Number of strata that each band has left.
        self.run_done = [0] * n_bands
        self.gathered_done = [0] * n_bands
        self.stopped = False
        self.changed = threading.Condition()

    def next_block(self) -> tuple[int, int] | None:
        """Wait for a block that may start, and return it as (x, y); None if no more will start."""
        with self.changed:
            while self.left and not self.stopped:
                for number, (stratum, x, y) in enumerate(self.left):
                    if self.run_done[x] == stratum == self.gathered_done[y]:
                        del self.left[number]
                        return x, y
                self.changed.wait()
        return None

    def finish(self, x: int, y: int) -> None:
        """Note that block (x, y) is done."""
        with self.changed:
            self.run_done[x] += 1
            self.gathered_done[y] += 1
            self.changed.notify_all()

    def stop(self) -> None:
        """Let no other block start."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def work_off(self, work: Callable[[int, int], None]) -> None:
        """Call work(x, y) for one block after the other until no more will start."""
        try:
            while (block := self.next_block()) is not None:
                work(*block)
                self.finish(*block)
        except BaseException:
            self.stop()
            raise


def run_blocks(
    meetings: np.ndarray,
    work: Callable[[int, int], None],
    n_jobs: int,
    pool: Executor,
) -> None:
    """Call work(x, y) for every block of an epoch, on threads.

    Which thread runs a block changes nothing: blocks that share a band run in the order of the
    strata. On an exception, Ctrl-C too, the blocks that have begun are finished, and no other
    starts.

    Parameters
    ----------
    meetings : (n_bands, n_bands)
        As `strata` returns them.
    work : callable
    n_jobs : int
    pool : Executor
        It has `n_jobs` threads.
    """
    n_jobs = min(n_jobs, len(meetings))
    schedule = Schedule(meetings)
    if n_jobs == 1:
        for _, x, y in schedule.left:
            work(x, y)
        return
    futures = [pool.submit(schedule.work_off, work) for _ in range(n_jobs)]
    try:
        for future in futures:
            future.result()
    except BaseException:
        schedule.stop()
        for future in futures:
            future.exception()  # waits until the thread has left its block
        raise
