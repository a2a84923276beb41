"""The schedule of the block grid: strata, and threads that walk them."""

from __future__ import annotations

import threading

import numpy as np


def strata(seed, epoch, n_bands):
    """(B, B): the gathered band that run band x meets in stratum d of an epoch, at [d, x]; all of a stratum differ."""
    x = np.arange(n_bands)
    return np.random.default_rng([seed, 2, epoch]).permutation(n_bands)[(x + x[:, None]) % n_bands]


def run_blocks(order, n_bands, work, n_jobs, pool):
    """work(x, y) for every (stratum, x, y) of `order`: a block starts when both its bands have left the stratum before.

    Dataflow instead of a barrier: a thread takes the first block that may start, and which thread runs a block changes
    nothing. On an exception (Ctrl-C too) the blocks begun are finished, no other starts.
    """
    if n_jobs == 1:
        for _, x, y in order:
            work(x, y)
        return
    ready, left = threading.Condition(), list(order)
    rows, columns, stopped = [0] * n_bands, [0] * n_bands, []

    def next_block():
        """Waits for a block that may start; None: nothing is left to do."""
        with ready:
            while left and not stopped:
                for number, (d, x, y) in enumerate(left):
                    if rows[x] == d == columns[y]:
                        del left[number]
                        return x, y
                ready.wait()
        return None

    def stop():
        with ready:
            stopped.append(True)
            ready.notify_all()

    def worker():
        try:
            while (block := next_block()) is not None:
                x, y = block
                work(x, y)
                with ready:
                    rows[x] += 1
                    columns[y] += 1
                    ready.notify_all()
        except BaseException:
            stop()
            raise

    futures = [pool.submit(worker) for _ in range(n_jobs)]
    try:
        for future in futures:
            future.result()
    except BaseException:
        stop()
        for future in futures:
            future.exception()  # waits for it
        raise
