"""What the commands print: text, tables, JSON and progress."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager, nullcontext

from funksvd.machine.replacing import replacing


# What is shown
def say(args, text):
    """A message, out of the way of JSON."""
    print(text, file=sys.stderr if args.json else sys.stdout, flush=True)


def print_json(value):
    print(json.dumps(value, default=str))


def print_table(names, rows):
    """Columns under their names, numbers and all to the right."""
    texts = [list(map(str, row)) for row in [names, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


@contextmanager
def writer(args, names, n):
    """Yield write(rows, entry): rows of a CSV or, with --json, the entry as a line, to the output or standard output."""
    if args.output is None:
        opened = nullcontext(sys.stdout)
    else:
        opened = replacing(args.output, "w", newline="", encoding="utf-8")
    with opened as file, progress(None, "writing", "row", total=n) as bar:
        out = csv.writer(file, lineterminator="\n")
        if not args.json:
            out.writerow(names)

        def write(rows, entry):
            if args.json:
                file.write(json.dumps(entry, default=str) + "\n")
            else:
                out.writerows(rows)
            bar.update()

        yield write


def shows_progress():
    return sys.stderr.isatty()


def progress(iterable, what, unit, total=None):
    """A bar on a terminal, for what takes more than a second."""
    from tqdm import tqdm

    return tqdm(
        iterable,
        desc=what,
        unit=unit,
        total=total,
        delay=1,
        leave=False,
        disable=not shows_progress(),
    )


def titled(titles, item):
    return [titles.get(str(item), "")] if titles else []


def named(titles, item, side="item"):
    return {side: item} | ({"title": titles.get(str(item), "")} if titles else {})


def count(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
