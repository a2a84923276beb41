"""Threads: how many there are, and a loop on several."""

from __future__ import annotations

import contextlib
import os
import sys


def cpu_count():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_cores():
    """What n_jobs=-1 means: all cores; in a worker of joblib (a search of scikit-learn with its own n_jobs) its share.

    joblib's processes are told their share as OMP_NUM_THREADS; its threads are not told, and get one each.
    """
    joblib = sys.modules.get("joblib.parallel")
    if joblib is None or not getattr(joblib.get_active_backend()[0], "nesting_level", 0):
        return cpu_count()
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(cpu_count(), max(1, int(share))) if share.isdigit() else 1


def pool_of(n_jobs):
    from concurrent.futures import (
        ThreadPoolExecutor,
    )  # not before: it takes a tenth of the time of `import funksvd`

    return ThreadPoolExecutor(n_jobs)


@contextlib.contextmanager
def team(n_jobs):
    """`parallel` on threads that stay until the end of the block: run(function, arguments)."""
    if n_jobs == 1:
        yield lambda function, arguments: [function(a) for a in arguments]
        return
    with pool_of(n_jobs) as pool:
        yield lambda function, arguments: list(pool.map(function, arguments))


def parallel(function, arguments, n_jobs):
    """[function(a) for a in arguments] on `n_jobs` threads, results in order."""
    if n_jobs == 1 or len(arguments) < 2:
        return [function(a) for a in arguments]
    with pool_of(n_jobs) as pool:
        return list(pool.map(function, arguments))


CHUNK = 1 << 20
