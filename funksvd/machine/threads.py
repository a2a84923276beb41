"""Threads: how many to use, and loops on several of them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Ratings or ids of one call of a loop over all of them.
CHUNK = 1 << 20


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_cores() -> int:
    """Return the number of threads that n_jobs=-1 stands for: all cores, or a worker's share.

    A worker of joblib, as in a search of scikit-learn with its own n_jobs, gets a share. joblib
    tells its processes their share as OMP_NUM_THREADS; its threads are not told, and get one each.
    """
    joblib = sys.modules.get("joblib.parallel")
    if joblib is None:
        return cpu_count()
    backend = joblib.get_active_backend()[0]
    if not getattr(backend, "nesting_level", 0):
        return cpu_count()
    share = os.environ.get("OMP_NUM_THREADS", "")
    if not share.isdigit():
        return 1
    return min(cpu_count(), max(1, int(share)))


def pool_of(n_jobs: int) -> ThreadPoolExecutor:
    """Return a pool of threads."""
    # Imported here because it takes a tenth of the time of `import funksvd`.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(n_jobs)


@contextlib.contextmanager
def team(n_jobs: int) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]]:
    """Give the block run(function, arguments), a `parallel` whose threads stay until its end."""
    if n_jobs == 1:
        yield in_turn
        return
    with pool_of(n_jobs) as pool:

        def run(function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
            return list(pool.map(function, arguments))

        yield run


def parallel(
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    n_jobs: int,
) -> list[Result]:
    """Return the results of a function for each argument, in order, computed by n_jobs threads."""
    if n_jobs == 1 or len(arguments) < 2:
        return in_turn(function, arguments)
    with pool_of(n_jobs) as pool:
        return list(pool.map(function, arguments))


def in_turn(
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
) -> list[Result]:
    """Return the results of a function for each argument, computed by the caller's thread."""
    return [function(argument) for argument in arguments]
