"""The command `funksvd`: it builds the parser from the commands, runs one and reports errors.

Exit codes: 0 success, 1 output pipe closed, 2 error (one line on stderr), 130 interrupted
(Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from funksvd.cli import (
    compare,
    convert,
    demo,
    evaluate,
    fold_in,
    info,
    plot,
    predict,
    recommend,
    similar,
    split,
    train,
    tune,
)
from funksvd.cli.shown import discard, printable
from funksvd.cli.suggesting import SuggestingParser
from funksvd.version import __version__

__all__ = ["main"]

# In the order of the help.
COMMANDS = (
    split,
    train,
    evaluate,
    compare,
    predict,
    recommend,
    similar,
    fold_in,
    tune,
    plot,
    convert,
    info,
    demo,
)
EPILOG = """\
a first session:
  funksvd split ratings.csv -o .                write train.csv and test.csv
  funksvd train train.csv -o movies.npz         train on lines of user,item,rating
  funksvd evaluate movies.npz test.csv          measure the error of its predictions
  funksvd compare ratings.csv                   compare solvers and base lines
  funksvd recommend movies.npz --user 42 --exclude ratings.csv --titles movies.csv
  funksvd recommend movies.npz --all --exclude ratings.csv -o recommendations.csv
  funksvd similar movies.npz --item 50 --titles movies.csv
  funksvd tune ratings.csv                      look for better parameters
  funksvd fold-in movies.npz new_users.csv -o movies.npz

funksvd COMMAND --help explains a command. funksvd demo needs no file.
Results and messages go to standard output; with --json results are JSON, and
messages go to standard error. Warnings, errors and progress bars always do.
Exit codes: 0 success, 1 the reader of a pipe has left, 2 error, 130 Ctrl-C or
SIGTERM.
"""
# The library names arguments where the user of this command has options: pattern -> replacement.
ARGUMENTS_TO_OPTIONS = {
    r"\b(user|item|rating)=(?=['\"\d])": r"--\1-column ",
    r"\b(user|item|rating)=(?!\w)": r"--\1-column",
    r"\bon_bad_lines='(\w+)'": r"--on-bad-lines \1",
    r"\bunknown='(\w+)'": r"--unknown \1",
    r"\bsep=(?!\w)": "--sep",
    r"\bk(?= must be)|\bk=(?!\w)": "--top",
    r"\bexclude=(?!\w)": "--exclude",
    r"\bthreshold(?= must be)|\bthreshold=(?=\d)": "--threshold ",
}
REPORTED = (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError)


class Overview(argparse.RawDescriptionHelpFormatter):
    """Keeps the name and the summary of each command on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        # argparse measures the commands without their own indent, so the longest would not fit.
        self._action_max_length = len("    recommend")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` is by default that of the process."""
    open_closed_streams()
    args = build_parser().parse_args(argv)
    args.lost = None  # the error of a message that could not be printed, see `shown.say`
    try:
        with plain_warnings(), termination_as_interrupt():
            exit_code: int | None = args.run(args)
            sys.stdout.flush()  # so that a closed pipe is noticed here
            if args.lost is not None and not exit_code:
                raise args.lost
    except BrokenPipeError:
        discard(sys.stdout)  # the reader has left (`| head`)
        return 1
    except REPORTED as error:
        flush_or_discard(sys.stdout)
        print(f"funksvd: error: {in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("funksvd: interrupted, nothing was saved", file=sys.stderr)
        return 130
    return exit_code or 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = SuggestingParser(
        prog="funksvd",
        formatter_class=Overview,
        description="Funk's SVD of ratings: train a model, evaluate it and use it.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"funksvd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


def flush_or_discard(stream: TextIO) -> None:
    """Write what a stream holds back, or send it nowhere if that fails, as on a full disk."""
    try:
        stream.flush()
    except OSError:
        discard(stream)


def open_closed_streams() -> None:
    """Replace a standard stream that was closed before the start by one that discards output."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show warnings, such as that of skipped lines, in one line and without source code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"funksvd: warning: {in_one_line(message)}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: `train` then saves what it has learned."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def in_one_line(error: BaseException | str) -> str:
    """Return the text of an error or a warning as one line that names options, not arguments."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    for pattern, replacement in ARGUMENTS_TO_OPTIONS.items():
        text = re.sub(pattern, replacement, text)
    return printable(" ".join(text.split())) or type(error).__name__
