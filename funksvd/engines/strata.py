"""The schedule of the block grid: the strata of an epoch, and threads that walk them.

A stratum is B blocks that share no band. Block (x, y) lies in band x of the run side and in band y
of the gathered side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from funksvd.machine.threads import Pool, Stop, stop_of_this_thread


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
    stop : Stop
        No other block starts once it is wanted.
    """

    def __init__(self, meetings: np.ndarray, stop: Stop) -> None:
        n_bands = len(meetings)
        self.left = [
            (stratum, x, y)
            for stratum, gathered in enumerate(meetings.tolist())
            for x, y in enumerate(gathered)
        ]
        # Number of strata that each band has left.
        self.run_done = [0] * n_bands
        self.gathered_done = [0] * n_bands
        self.stop = stop
        self.failed = False
        self.n_working = 0
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

    @property
    def stopped(self) -> bool:
        """Whether no other block may start."""
        return self.failed or self.stop.wanted

    def work_off(self, work: Callable[[int, int], None]) -> None:
        """Call work(x, y) for one block after the other until no more will start."""
        with self.changed:
            self.n_working += 1
        try:
            while (block := self.next_block()) is not None:
                work(*block)
                self.finish(*block)
        except BaseException:
            self.failed = True
            raise
        finally:
            with self.changed:
                self.n_working -= 1
                self.changed.notify_all()

    def fail(self) -> None:
        """Let no other block start, and wait until those that have begun are finished."""
        with self.changed:
            self.failed = True
            self.changed.notify_all()
            while self.n_working:
                self.changed.wait()


def run_blocks(
    meetings: np.ndarray,
    work: Callable[[int, int], None],
    n_jobs: int,
    pool: Pool,
) -> None:
    """Call work(x, y) for every block of an epoch, on threads.

    Which thread runs a block changes nothing: blocks that share a band run in the order of the
    strata. On an exception the blocks that have begun are finished, and no other starts.

    Parameters
    ----------
    meetings : (n_bands, n_bands)
        As `strata` returns them.
    work : callable
    n_jobs : int
    pool : Pool
        It has `n_jobs` threads.
    """
    n_jobs = min(n_jobs, len(meetings))
    stop = stop_of_this_thread()
    schedule = Schedule(meetings, stop)
    if n_jobs == 1:
        for _, x, y in schedule.left:
            work(x, y)
            stop.check()
        return
    jobs = []
    try:
        for _ in range(n_jobs):
            jobs.append(pool.submit(schedule.work_off, work))
        for job in jobs:
            job.result()
    except BaseException:
        schedule.fail()
        raise
    stop.check()
