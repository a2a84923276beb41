"""Pools of threads, and work that no signal ends half-way."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from funksvd.machine.threads import Pool, parallel, shielded


def test_results_are_in_order():
    assert Pool(3).map(lambda number: 2 * number, range(50)) == list(range(0, 100, 2))


def test_the_exception_of_the_first_argument_is_raised():
    """Arguments are begun in order, so that the first one that fails is always begun."""
    together = threading.Barrier(3)

    def fail(number):
        together.wait()
        raise ValueError(f"argument {number}")

    with pytest.raises(ValueError, match="argument 0"):
        Pool(3).map(fail, range(9))


def test_a_pool_has_its_number_of_threads():
    together = threading.Barrier(3)
    idents = Pool(3).map(lambda _: (together.wait(), threading.get_ident())[1], range(3))
    assert len(set(idents)) == 3


def test_threads_end_with_their_pool():
    pool = Pool(3)
    together = threading.Barrier(3)
    idents = set(pool.map(lambda _: (together.wait(), threading.get_ident())[1], range(3)))
    assert idents <= set(sys._current_frames())
    del pool
    for _ in range(1000):
        if not idents & set(sys._current_frames()):
            break
        threading.Event().wait(0.01)
    assert not idents & set(sys._current_frames())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_pool_works_on_in_a_forked_process():
    code = (  # in a process of its own: other libraries here may have threads that no fork survives
        "import os, signal\n"
        "from funksvd.machine.threads import Pool\n"
        "pool = Pool(2)\n"
        "pool.map(abs, range(9))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"  # ends a child that hangs
        "    os._exit(0 if pool.map(abs, [-1, -2]) == [1, 2] else 1)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_pool_works_for_a_thread_that_outlives_the_main_thread():
    code = (
        "import threading, time\n"
        "from funksvd.machine.threads import parallel\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print(parallel(abs, [-1, -2, -3], 2))\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[1, 2, 3]\n", "")


def interrupt():
    """Send this process a SIGINT, as Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def test_shielded_returns_the_result_or_raises_the_error():
    assert shielded(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        shielded(divmod, 7, 0)


@pytest.mark.parametrize("n_signals", [1, 2, 5])
def test_shielded_work_ends_before_the_interrupt_is_raised(n_signals):
    done = []

    def work():
        for _ in range(n_signals):
            interrupt()
            threading.Event().wait(0.01)  # the main thread hears of it meanwhile
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        shielded(work)
    assert done == [True]


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_a_loop_over_parts_ends_early_where_that_is_asked_for(n_jobs):
    begun = []

    def work(number):
        begun.append(number)
        if number == 0:
            interrupt()
        threading.Event().wait(0.05)

    with pytest.raises(KeyboardInterrupt):
        shielded(parallel, work, range(1000), n_jobs, stoppable=True)
    assert 0 < len(begun) < 1000
