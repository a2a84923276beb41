"""Runs numbered cases in a process of their own, and says what came of them.

The process that runs the cases may crash, run out of memory or hang. Another one watches it, counts
such an end as a find of the case that had begun, and starts again at the next case.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import IO, NamedTuple

import numpy as np

import funksvd

try:
    import resource
except ImportError:  # Windows has no limits
    resource = None  # type: ignore[assignment]

PACKAGE = os.path.dirname(os.path.abspath(funksvd.__file__))
LONGEST = 300  # seconds of a case; SIGALRM ends the process that takes longer
MEMORY = 1 << 30  # bytes that the cases may ask for beyond the memory of the imports
REPORT_LINES = 200  # of what a crashed process wrote to stderr

# A case: it draws from the generator, and returns a word on what it did. An exception is a find,
# unless `refusal` says that funksvd raised it on purpose.
Case = Callable[[np.random.Generator], str]


class Find(NamedTuple):
    """A case that failed: its number, the first case of its process, and what happened."""

    number: int
    first: int
    what: str
    detail: str


class Result(NamedTuple):
    """Outcomes of all cases, the finds among them, and the number of cases that ran."""

    outcomes: Counter[str]
    finds: list[Find]
    n_cases: int


class WrongAnswerError(Exception):
    """An answer that is not what it must be."""


# ---- the process that runs the cases -------------------------------------------------------------


def place_of(error: BaseException) -> traceback.FrameSummary:
    """Return the frame that raised an exception."""
    return traceback.extract_tb(error.__traceback__)[-1]


def is_refusal(error: BaseException) -> bool:
    """Return whether funksvd raised an exception on purpose, by a `raise` of its own.

    A ValueError that NumPy raises inside of funksvd is a defect: its words say nothing to a user.
    """
    if not isinstance(error, (ValueError, FloatingPointError, OSError)):
        return False
    frame = place_of(error)
    if not os.path.abspath(frame.filename).startswith(PACKAGE):
        return False
    line = frame.line or "raise"  # the sources of kernels are not installed
    return line.startswith("raise")


def words_of(error: BaseException) -> str:
    """Return the kind, the place and the first words of an exception."""
    frame = place_of(error)
    name = os.path.basename(frame.filename)
    return f"{type(error).__name__} at {name}:{frame.lineno}: {str(error)[:90]}"


def kind_of(message: str) -> str:
    """Return the beginning of a message, without what differs between cases."""
    without_folders = re.sub(r"/\S+/", "", message)
    return re.sub(r"\d+", "N", without_folders).partition(":")[0][:50]


def limit_memory() -> None:
    """Limit the memory of this process, except under a sanitizer, which maps terabytes."""
    if resource is None or not sys.platform.startswith("linux"):
        return
    if "san" in os.environ.get("LD_PRELOAD", ""):
        return
    with open("/proc/self/statm") as file:
        data_pages = int(file.read().split()[5])
    limit = data_pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def outcome_of(case: Case, rng: np.random.Generator) -> dict[str, str]:
    """Run a case; return {"outcome": ...} or {"find": ..., "detail": ...}."""
    try:
        return {"outcome": case(rng)}
    except Exception as error:
        if is_refusal(error):
            return {"outcome": f"refused: {kind_of(str(error))}"}
        return {"find": words_of(error), "detail": traceback.format_exc()}


def run_cases(
    case: Case,
    arguments: argparse.Namespace,
    out: IO[str],
) -> None:
    """Run cases until the time is over or the last one is done; write a line of JSON on each."""
    stop = time.monotonic() + arguments.seconds
    limit_memory()
    number = arguments.first
    while time.monotonic() < stop and (arguments.last is None or number <= arguments.last):
        print(json.dumps({"begins": number}), file=out, flush=True)
        if hasattr(signal, "alarm"):
            signal.alarm(arguments.longest)
        outcome = outcome_of(case, np.random.default_rng([arguments.seed, number]))
        print(json.dumps(outcome), file=out, flush=True)
        number += 1
    if hasattr(signal, "alarm"):
        signal.alarm(0)


# ---- the process that watches --------------------------------------------------------------------


def command_of(program: str, arguments: argparse.Namespace, first: int, last: int) -> str:
    """Return the command that repeats cases first ... last."""
    return f"python -m {program} --seed {arguments.seed} --first {first} --last {last}"


def child_command(
    program: str,
    arguments: argparse.Namespace,
    first: int,
    seconds: float,
) -> list[str]:
    """Return the command of the process that runs the cases from `first` on."""
    options = ["--child", "--seed", str(arguments.seed), "--first", str(first)]
    options += ["--seconds", str(seconds), "--longest", str(arguments.longest)]
    if arguments.last is not None:
        options += ["--last", str(arguments.last)]
    return [sys.executable, "-m", program, *options]


def end_in_words(code: int, longest: int) -> str:
    """Return how a process ended."""
    if code == -getattr(signal, "SIGALRM", 0):
        return f"the case did not end within {longest} seconds"
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with code {code}"


def watch_child(
    process: subprocess.Popen[str],
    first: int,
    result: Result,
) -> int:
    """Read the lines of a process until its end; return the number of the case that began last."""
    number = first - 1
    assert process.stdout is not None
    for line in process.stdout:
        if not line.startswith("{"):
            continue  # a sanitizer may print there
        message = json.loads(line)
        if "begins" in message:
            number = message["begins"]
        elif "find" in message:
            result.finds.append(Find(number, first, message["find"], message["detail"]))
        else:
            result.outcomes[message["outcome"]] += 1
    return number


def watch(program: str, arguments: argparse.Namespace) -> Result:
    """Run the cases in processes, one after another that dies; return what came of them."""
    stop = time.monotonic() + arguments.seconds
    result = Result(Counter(), [], 0)
    first = arguments.first
    while (left := stop - time.monotonic()) > 0:
        if arguments.last is not None and first > arguments.last:
            break
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            command = child_command(program, arguments, first, left)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            last = watch_child(process, first, result)
            code = process.wait()
            errors.seek(0)
            report = errors.readlines()
        if code == 0:
            first = last + 1
            break
        if last < first:
            raise SystemExit(f"no case could begin:\n{''.join(report)}")
        kept = [line for line in report if not line.startswith("Extension modules")]
        detail = "".join(kept[-REPORT_LINES:])
        result.finds.append(Find(last, first, end_in_words(code, arguments.longest), detail))
        first = last + 1
    return result._replace(n_cases=first - arguments.first)


def show(program: str, arguments: argparse.Namespace, result: Result) -> None:
    """Print each kind of find once, with the command that repeats it, and the sums."""
    for outcome, count in result.outcomes.most_common():
        print(f"{count:7d}  {outcome}")
    kinds = Counter(find.what for find in result.finds)
    shown: set[str] = set()
    for find in result.finds:
        if find.what in shown:
            continue
        shown.add(find.what)
        print(f"FIND ({kinds[find.what]} times): {find.what}\n{find.detail}")
        print(f"repeat it:  {command_of(program, arguments, find.number, find.number)}")
        if find.first < find.number:
            print(
                f"with the cases before it:  "
                f"{command_of(program, arguments, find.first, find.number)}"
            )
    print(f"{len(result.finds)} finds in {result.n_cases} cases, seed {arguments.seed}")


def parsed(program: str) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    parser.add_argument("--seed", type=int, help="of all cases; by default a fresh one")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--last", type=int, help="number of the last case")
    parser.add_argument("--longest", type=int, default=LONGEST, help="seconds that a case may take")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(1 << 31)
    return arguments


def main(program: str, prepare: Callable[[], contextlib.AbstractContextManager[Case]]) -> int:
    """Run a fuzzer from the command line; return its exit code.

    Parameters
    ----------
    program : str
        The name of its module.
    prepare : callable
        It returns a context whose value is the case; the process that runs the cases enters it.
    """
    arguments = parsed(program)
    if arguments.child:
        faulthandler.enable()
        with prepare() as case:
            run_cases(case, arguments, sys.stdout)
        return 0
    print(f"seed {arguments.seed}", flush=True)
    result = watch(program, arguments)
    show(program, arguments, result)
    return 1 if result.finds else 0
