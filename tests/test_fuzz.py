"""The fuzzers tell failures apart, print commands that repeat them, and find none in few cases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzz.guarded import CAN_GUARD

TESTS = Path(__file__).resolve().parent
# What the harness says of the failures of tests/fuzz/faulty.py.
FAILURES = {
    "crash": "the process died of SIGSEGV",
    "hang": "the case did not end within 2 seconds",
    "stumble": "ValueError at faulty.py",
    "memory": "MemoryError at ",
}

pytestmark = pytest.mark.skipif(not CAN_GUARD, reason="the fuzzers' limits are those of Linux")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python, with the folder of the tests on its path; return the ended process."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_every_failure_is_found_and_its_command_repeats_it() -> None:
    done = run_python("-m", "fuzz.faulty", "--seed", "1", "--last", "19", "--longest", "2")
    assert done.returncode == 1
    assert re.search(r"\d+  answer", done.stdout)
    assert re.search(r"\d+  refused: n must be an int", done.stdout)
    assert re.search(r"\d+ finds in 20 cases, seed 1", done.stdout)
    commands = re.findall(r"FIND \(\d+ times\): (.*)\n(?s:.*?)repeat it:  python (.*)", done.stdout)
    assert len(commands) == len(FAILURES)
    for words in FAILURES.values():
        command = next(command for found, command in commands if found.startswith(words))
        again = run_python(*command.split(), "--longest", "2")
        assert again.returncode == 1
        assert words in again.stdout
        assert "1 finds in 1 cases" in again.stdout


@pytest.mark.parametrize("fuzzer", ["shapes", "files"])
def test_a_few_cases_of_a_known_seed_have_no_find(fuzzer: str) -> None:
    done = run_python("-m", f"fuzz.{fuzzer}", "--seed", "2", "--last", "30", "--seconds", "600")
    assert done.returncode == 0, done.stdout
    assert "0 finds in 31 cases, seed 2" in done.stdout


OVER_RUN = """
import ctypes, sys
from fuzz.guarded import guarded
array = guarded(3, 16, "f4")
array[:] = 1
ctypes.memset(array.ctypes.data + {offset}, 0, {size})
"""


@pytest.mark.parametrize(
    ("offset", "size", "crashes"),
    [(0, 192, False), (0, 193, True), (-4096, 1, True)],
)
def test_an_over_run_of_a_guarded_array_crashes(offset: int, size: int, crashes: bool) -> None:
    code = OVER_RUN.format(offset=offset, size=size)
    done = run_python("-c", code)
    assert (done.returncode < 0) == crashes, done.stderr


def test_guarded_arrays_are_what_aligned_returns() -> None:
    from fuzz.guarded import guarded

    from funksvd.machine.memory import aligned

    for rows, columns, dtype in [(0, 8, "f4"), (1, 1, "f8"), (3, 257, "f4"), (5000, 8, "f8")]:
        plain = aligned(rows, columns, dtype)
        array = guarded(rows, columns, dtype)
        assert array.dtype == plain.dtype
        assert np.array_equal(array, plain)
        assert array.ctypes.data % 64 == 0
