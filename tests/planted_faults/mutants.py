"""Makes a copy of the package with one kernel compiled anew, and runs a test against it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS.parent / "funksvd"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

# Much quicker to compile than the flags of setup.py, and the same arithmetic but for rounding.
COMPILER = os.environ.get("CC", "gcc")
FLAGS = ("-O1", "-g0", "-fPIC", "-shared", "-fwrapv", "-w", "-Wno-psabi")
MORE_FLAGS = tuple(os.environ.get("CFLAGS", "").split())  # as setup.py takes them
DIRECTIVES = ("boundscheck=False", "wraparound=False", "cdivision=True", "initializedcheck=False")
MACROS = {
    "": (),
    "float32": ("-DREAL=float", "-DREAL_BYTES=4"),
    "float64": ("-DREAL=double", "-DREAL_BYTES=8", "-DFUNKSVD_COPIES=0"),
}
LONGEST = 120  # seconds of a test; a fault that makes a loop endless is caught by then

# Exit codes of pytest; others mean that no test ran.
PASSED = 0
FAILED = 1


class BrokenPlantError(Exception):
    """A fault that cannot be planted: its text is gone, or the kernel or the test does not run."""


class Kernel(NamedTuple):
    """A compiled kernel: the name of its source, as "engines._sgd", and its dtype, or ""."""

    source: str
    dtype: str

    @property
    def path(self) -> Path:
        """The source within the package."""
        return Path(self.source.replace(".", "/") + ".pyx")

    @property
    def module(self) -> str:
        """The name of the baseline build, without folders."""
        return f"{self.path.stem}_{self.dtype}" if self.dtype else self.path.stem


class Check(NamedTuple):
    """A test to run: its place in tests/, and an expression that chooses among its parameters."""

    node: str
    chosen: str = ""


class Change(NamedTuple):
    """A change of one source file: a text that occurs there, and the text in its place."""

    file: str
    before: str
    after: str


def built_package() -> Path:
    """Return the folder of a package with compiled kernels: in the source tree, or installed."""
    places = [SOURCE.parent, *map(Path, filter(None, sys.path))]
    for place in places:
        if (place / "funksvd" / "machine" / f"_cpu_float32{SUFFIX}").exists():
            return place.resolve() / "funksvd"
    raise SystemExit("no compiled funksvd is there: install it, or build it in place")


def run(command: Sequence[str], folder: Path) -> None:
    """Run a command of the build in a folder.

    Raises
    ------
    BrokenPlantError
        If it fails; with its output.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise BrokenPlantError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def link_package(package: Path) -> None:
    """Make a package of links to a built one, with the baseline kernels alone."""
    built = built_package()
    for path in built.rglob("*"):
        of_a_level = re.search(r"_v\d\.", path.name)
        if path.is_dir() or of_a_level or "__pycache__" in path.parts:
            continue
        link = package / path.relative_to(built)
        link.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix not in (".pyx", ".pxi", ".h", ".c"):
            link.symlink_to(path)


def changed_sources(folder: Path, change: Change | None) -> None:
    """Write the sources of the kernels to a folder, one of them changed."""
    for path in SOURCE.rglob("*"):
        if path.suffix in (".pyx", ".pxi", ".h"):
            copy = folder / path.relative_to(SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            if change and path == SOURCE / change.file:
                if change.before not in text:
                    raise BrokenPlantError(f"nothing to change in {change.file}: {change.before}")
                text = text.replace(change.before, change.after)
            copy.write_text(text, encoding="utf-8")


def compile_kernel(kernel: Kernel, sources: Path, package: Path) -> None:
    """Compile a kernel from the sources in one folder into a package."""
    stem = kernel.path.stem
    c_file = sources / kernel.path.with_suffix(".c")
    directives = [f"-X{directive}" for directive in DIRECTIVES]
    cython = [sys.executable, "-m", "cython", "-3", *directives, str(kernel.path)]
    run([*cython, "-o", str(c_file)], sources)
    target = package / kernel.path.parent / (kernel.module + SUFFIX)
    target.unlink()  # a link to the kernel without the fault
    macros = [*MACROS[kernel.dtype], f"-DPyInit_{stem}=PyInit_{kernel.module}"]
    include = [f"-I{sysconfig.get_path('include')}", f"-I{c_file.parent}"]
    run(
        [COMPILER, *FLAGS, *MORE_FLAGS, *macros, *include, str(c_file), "-o", str(target), "-lm"],
        sources,
    )


def failure(kernel: Kernel, change: Change | None, checks: Sequence[Check]) -> str | None:
    """Run tests against the package with one kernel compiled anew.

    Returns
    -------
    str or None
        The output of the first run of pytest in which a test failed, or that broke off; None where
        all tests passed.
    """
    with tempfile.TemporaryDirectory(prefix="funksvd-mutant-") as name:
        folder = Path(name)
        package = folder / "with_kernels" / "funksvd"
        link_package(package)
        changed_sources(folder / "sources", change)
        compile_kernel(kernel, folder / "sources", package)
        for check in checks:
            output = failed_output(check, package.parent)
            if output is not None:
                return output
    return None


def failed_output(check: Check, folder: Path) -> str | None:
    """Run one test with the package in a folder; return its output if it fails."""
    path, _, test = check.node.partition("::")
    node = f"{TESTS / path}::{test}"
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", node]
    if check.chosen:
        command += ["-k", check.chosen]
    environment = {**os.environ, "PYTHONPATH": str(folder), "FUNKSVD_ISA": "baseline"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return f"{check.node} did not end within {LONGEST} seconds"
    output = done.stdout + done.stderr
    if done.returncode == PASSED:
        return None
    if done.returncode == FAILED or done.returncode < 0:  # a signal: the kernel crashed
        return output
    raise BrokenPlantError(f"{check.node} could not be run:\n{output}")
