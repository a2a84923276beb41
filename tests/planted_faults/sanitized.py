"""Faults that only a sanitizer sees, planted in kernels built with one; each must be reported.

`.ci/sanitizers` runs it, with the flags of its build in CFLAGS, before the tests of the kernels.
The first run of each has no fault planted, and must be clean.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from .mutants import TESTS, Change, Kernel, changed_sources, compile_kernel, link_package

PYTEST = ("pytest", "-xsq", "-p", "no:cacheprovider")
FOLD_IN = str(TESTS / "training/test_fold_in.py")
SPLITS = str(TESTS / "ratings/test_splits.py")


class Plant(NamedTuple):
    """A fault, the program that meets it, and the words of the sanitizer's report."""

    kernel: Kernel
    fault: str
    change: Change
    program: tuple[str, ...]  # a module of Python and its arguments
    report: str


OUT_OF_BOUNDS = Plant(
    Kernel("training._ridge", "float32"),
    "a write one number behind the memory of the equations",
    Change(
        "training/_ridge.pyx",
        "for i in range(n * n + n):",
        "for i in range(n * n + 2 * n + 1):",
    ),
    (*PYTEST, FOLD_IN, "-k", "test_a_folded_row_is_the_ridge_solution and float32"),
    "AddressSanitizer: heap-buffer-overflow",
)
UNDEFINED_SHIFT = Plant(
    Kernel("ratings._keys", ""),
    "a shift of an int past its width",
    Change(
        "ratings/_keys.pyx",
        "mix(seed + <uint64_t>users[t])",
        "mix(seed + <uint64_t>(users[t] << 31))",
    ),
    (*PYTEST, SPLITS),
    "runtime error: left shift of",
)
RACE = Plant(
    Kernel("ratings._keys", ""),
    "a count that all threads write without a lock",
    Change(
        "machine/_hash.pxi",
        "cdef inline uint64_t mix(uint64_t x) noexcept nogil:\n",
        "cdef uint64_t n_mixed = 0\n\n\n"
        "cdef inline uint64_t mix(uint64_t x) noexcept nogil:\n"
        "    global n_mixed\n"
        "    n_mixed += 1\n",
    ),
    ("tests.fuzz.threads", "--seed", "0", "--last", "2", "--longest", "1800", "--seconds", "1800"),
    "ThreadSanitizer: data race",
)
JOBS = {
    "tests": [OUT_OF_BOUNDS, UNDEFINED_SHIFT],
    "fuzz": [OUT_OF_BOUNDS, UNDEFINED_SHIFT],
    "threads": [RACE],
}


def output_of(plant: Plant, change: Change | None, preload: str) -> tuple[int, str]:
    """Compile a plant's kernel with a change or without; return its program's code and output."""
    with tempfile.TemporaryDirectory(prefix="funksvd-sanitized-") as name:
        folder = Path(name)
        package = folder / "with_kernels" / "funksvd"
        link_package(package)
        changed_sources(folder / "sources", change)
        compile_kernel(plant.kernel, folder / "sources", package)
        paths = os.pathsep.join([str(package.parent), str(TESTS.parent)])
        environment = {**os.environ, "PYTHONPATH": paths, "LD_PRELOAD": preload}
        done = subprocess.run(
            [sys.executable, "-m", *plant.program],
            cwd=package.parent,
            env=environment,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr


def is_reported(plant: Plant, preload: str) -> bool:
    """Return whether the sanitizer reports a fault; write a line about it."""
    _, output = output_of(plant, plant.change, preload)
    found = plant.report in output
    verdict = "caught" if found else "MISSED"
    sys.stdout.write(f"{verdict}  {plant.change.file}: {plant.fault}\n")
    for line in output.splitlines():
        if plant.report in line:
            sys.stdout.write(f"        {line.strip()}\n")
            break
    if not found:
        sys.stdout.write(output)
    return found


def is_clean(plant: Plant, preload: str) -> bool:
    """Return whether the program ends well without the fault; write its output if it does not."""
    code, output = output_of(plant, None, preload)
    if code == 0:
        return True
    sys.stdout.write(f"{output}\n{plant.kernel.source}: it fails without any fault planted\n")
    return False


def main() -> int:
    """Run the program; return the number of faults that were missed or unclean."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted_faults.sanitized")
    parser.add_argument("--job", choices=JOBS, default="tests", help="which faults to plant")
    parser.add_argument("--preload", default="", help="libraries of the sanitizers")
    arguments = parser.parse_args()
    failures = 0
    for plant in JOBS[arguments.job]:
        if not is_clean(plant, arguments.preload) or not is_reported(plant, arguments.preload):
            failures += 1
    return failures


if __name__ == "__main__":
    raise SystemExit(main())
