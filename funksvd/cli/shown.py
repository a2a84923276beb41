"""The output of the commands: messages, tables, JSON and progress bars."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import IO, Any

from funksvd.machine.replacing import replacing

WriteRows = Callable[[Iterable[Sequence[Any]], dict[str, Any]], None]


def say(args: argparse.Namespace, text: str) -> None:
    """Print a message: on standard output, or with --json on standard error.

    A reader that has left, or a full disk, ends no training: the rest goes nowhere, and `main`
    reports `args.lost` at the end.
    """
    stream = sys.stderr if args.json else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        args.lost = error
        discard(stream)


def discard(stream: Any) -> None:
    """Send the rest of a stream nowhere, so that it does not fail again at exit."""
    with suppress(OSError):  # a stream that is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(value: Any) -> str:
    """Return a value as text whose control characters, which a terminal obeys, are spelt out."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say_interrupted(args: argparse.Namespace, n_epochs: int) -> None:
    """Print that Ctrl-C ended training after some whole epochs."""
    say(
        args,
        f"Stopped by Ctrl-C after {count(n_epochs, 'epoch')}; the model learned so far is saved.",
    )


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(value, default=str))


def fit_for(file: IO[str], rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    """Return the rows of a table, without control characters if the file is a terminal."""
    if not file.isatty():
        return rows
    return [[printable(value) for value in row] for row in rows]


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print columns under their names, all aligned to the right."""
    texts = [[printable(value) for value in row] for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        padded = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        print("  ".join(padded))


@contextmanager
def writer(args: argparse.Namespace, names: Sequence[str], n: int) -> Iterator[WriteRows]:
    """Open the output, a file or standard output, of a command that writes a table.

    Parameters
    ----------
    args : the options; `output` and `json` are used
    names : names of the columns
    n : int, how often the yielded function will be called, for the progress bar

    Yields
    ------
    write(rows, entry)
        Writes `rows` to the table or, with --json, `entry` as one line of JSON.
    """
    opened: AbstractContextManager[Any]
    if args.output is None:
        opened = nullcontext(sys.stdout)
    else:
        opened = replacing(args.output, "w", newline="", encoding="utf-8")
    with opened as file, progress(None, "writing", "row", total=n) as bar:
        table = csv.writer(file, lineterminator="\n")
        if not args.json:
            table.writerow(names)

        def write(rows: Iterable[Sequence[Any]], entry: dict[str, Any]) -> None:
            if args.json:
                file.write(json.dumps(entry, default=str) + "\n")
            else:
                table.writerows(fit_for(file, rows))
            bar.update()

        yield write


def shows_progress() -> bool:
    """Return whether progress bars are shown: only on a terminal."""
    return sys.stderr.isatty()


def progress(iterable: Any, label: str, unit: str, total: int | None = None) -> Any:
    """Return a tqdm bar over an iterable, or over None; it appears after a second."""
    from tqdm import tqdm

    return tqdm(
        iterable,
        desc=label,
        unit=unit,
        total=total,
        delay=1,
        leave=False,
        disable=not shows_progress(),
    )


def title_cell(titles: dict[str, str], item: Any) -> list[str]:
    """Return the cells that the title of an item fills in a row: none if there are no titles."""
    return [titles.get(str(item), "")] if titles else []


def named(titles: dict[str, str], row_id: Any, side: str = "item") -> dict[str, Any]:
    """Return the JSON entry of an id, with its title if there are titles."""
    entry = {side: row_id}
    if titles:
        entry["title"] = titles.get(str(row_id), "")
    return entry


def count(n: int, noun: str) -> str:
    """Return a number with its noun in the right form."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def size_of(path: str) -> str:
    """Return the size of a file in words."""
    return f"{os.path.getsize(path):,} bytes"
