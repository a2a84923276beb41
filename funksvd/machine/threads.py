"""Threads: how many to use, and loops on several of them."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from queue import SimpleQueue

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Ratings or ids of one call of a loop over all of them.
CHUNK = 1 << 20
# Seconds that a thread waits at a time. A signal may wake any thread of the process, and the main
# thread, which alone calls the handlers of signals, looks for one when it has waited so long.
PATIENCE = 0.1


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


class Job:
    """A call that another thread makes, at most once."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._function: Callable[..., Any] | None = function
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self._ended = False
        self._to_do = threading.Lock()
        self._unfinished = threading.Lock()
        self._unfinished.acquire()

    def run(self) -> None:
        """Make the call, unless another thread makes it."""
        function = self._function
        if function is None or not self._to_do.acquire(blocking=False):
            return
        try:
            self._result = function(*self._arguments)
        except BaseException as error:
            self._error = error
        # Whoever keeps the job need not keep the arrays that the function works on.
        self._function = None
        self._arguments = ()
        self._ended = True
        self._unfinished.release()

    def exception(self) -> BaseException | None:
        """Wait for the end of the call; return the exception that it raised, or None."""
        while not self._ended:
            if self._unfinished.acquire(timeout=PATIENCE):
                self._unfinished.release()
        return self._error

    def result(self) -> Any:
        """Wait for the end of the call; return its result, or raise its exception."""
        error = self.exception()
        if error is not None:
            raise error
        return self._result


class Pool:
    """Up to `n_jobs` threads, which start when there is work and end with this object.

    Unlike those of concurrent.futures they also work for a thread that goes on after the main
    thread has ended, and in a process that was forked: it starts threads of its own.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self._start_over()

    def _start_over(self) -> None:
        from queue import SimpleQueue  # not needed to import funksvd

        self._process = os.getpid()
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        # Ends the threads, which get the dead reference instead of a job. No line of Python runs
        # for that: in a `__del__` the KeyboardInterrupt of a signal would be lost.
        self._end = weakref.ref(self, self._jobs.put)
        self._n_threads = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Job:
        """Have a thread call a function; return the job.

        Raises
        ------
        RuntimeError
            If the system refuses the first thread; it may refuse later ones.
        """
        if self._process != os.getpid():  # no thread lives on in a forked process
            self._start_over()
        job = Job(function, arguments)
        self._jobs.put(job)
        if self._n_threads < self.n_jobs:
            try:
                _thread.start_new_thread(serve, (self._jobs, self._end))
            except RuntimeError:
                if not self._n_threads:
                    raise
            else:
                self._n_threads += 1
        return job

    def map(
        self, function: Callable[[Argument], Result], arguments: Sequence[Argument]
    ) -> list[Result]:
        """Return [function(argument) for each argument]; each thread takes the next one.

        If calls raise, those that have begun are finished, no other is begun, and the exception of
        the first argument is raised.
        """
        results: list[Any] = [None] * len(arguments)
        errors: dict[int, BaseException] = {}
        waiting = deque(enumerate(arguments))
        stop = stop_of_this_thread()

        def work() -> None:
            while not (errors or stop.wanted):
                try:
                    number, argument = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    results[number] = function(argument)
                except BaseException as error:
                    errors[number] = error

        jobs = []
        try:
            for _ in range(min(self.n_jobs, len(arguments))):
                jobs.append(self.submit(work))
            for job in jobs:
                job.result()
        finally:
            waiting.clear()
            for job in jobs:
                job.exception()  # waits for it
        if errors:
            raise errors[min(errors)]
        stop.check()
        return results


def serve(jobs: SimpleQueue[Any], end: weakref.ref[Pool]) -> None:
    """Run jobs until there is the end, which stays for the other threads."""
    while (job := jobs.get()) is not end:
        job.run()
        del job
    jobs.put(end)


class Stopped(Exception):  # noqa: N818  # no error: nobody sees it but `shielded`
    """Work ended early because `shielded` wanted it to."""


class Stop:
    """Whether work in parts is to end after the parts that have begun."""

    wanted = False

    def check(self) -> None:
        """Raise Stopped if the work is to end."""
        if self.wanted:
            raise Stopped


class _OfThread(threading.local):
    """The stop of each thread's work; that of a thread outside of `shielded` is never wanted."""

    stop = Stop()


_of_thread = _OfThread()


def stop_of_this_thread() -> Stop:
    """Return the stop that work which this thread deals out to others must look at."""
    return _of_thread.stop


def shielded(function: Callable[..., Result], *arguments: Any, stoppable: bool = False) -> Result:
    """Return the result of a function that no signal can end half-way.

    Python calls the handlers of signals in the main thread alone, between any two of its steps, and
    what they raise (KeyboardInterrupt) leaves whatever it was doing undone. So the function runs on
    a thread of its own; an exception that reaches the main thread meanwhile is raised once the
    function has ended. Other threads, which no signal reaches, call the function themselves.

    Parameters
    ----------
    function : callable
    arguments : its arguments
    stoppable : bool
        Whether such an exception asks loops over parts (`Pool.map` for example) to end early; the
        function is then left by an exception.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return function(*arguments)
    stop = Stop()

    def call() -> Result:
        _of_thread.stop = stop
        try:
            return function(*arguments)
        finally:
            del _of_thread.stop

    job = Job(call, ())
    pending: BaseException | None = None
    begun = False
    while True:
        try:
            if not begun:
                begun = True
                start(job)
            error = job.exception()
            break
        except BaseException as raised:
            pending = pending or raised
            stop.wanted = stoppable
    if pending is not None:
        raise pending
    if error is not None:
        raise error
    result: Result = job.result()
    return result


def start(job: Job) -> None:
    """Run a job on a new thread; on this one if the system has no other."""
    try:
        _thread.start_new_thread(job.run, ())
    except RuntimeError:
        job.run()


@contextlib.contextmanager
def team(n_jobs: int) -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]]:
    """Give the block run(function, arguments), a `parallel` whose threads stay until its end."""
    yield in_turn if n_jobs == 1 else Pool(n_jobs).map


def parallel(
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    n_jobs: int,
) -> list[Result]:
    """Return the results of a function for each argument, in order, computed by n_jobs threads."""
    if n_jobs == 1 or len(arguments) < 2:
        return in_turn(function, arguments)
    return Pool(n_jobs).map(function, arguments)


def in_turn(
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
) -> list[Result]:
    """Return the results of a function for each argument, computed by the caller's thread."""
    stop = stop_of_this_thread()
    results = []
    for argument in arguments:
        stop.check()
        results.append(function(argument))
    return results
