"""Records of text tables: the separator, the fields of each record, and lines shown in messages."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

from funksvd.ratings.columns import in_words, shorten
from funksvd.ratings.opening import FilePath, open_text

# In order of preference. " " stands for any run of white space.
SEPARATORS = ("\t", "::", ",", ";", "|", " ")
# ASCII's own character for this purpose. It replaces separators of several characters before a
# reader sees the text: Python's csv and pyarrow take separators of one character only.
UNIT_SEPARATOR = "\x1f"

# The number of a record's first line, from 1, and its fields.
Record = tuple[int, list[str]]


class Layout(NamedTuple):
    """How the lines of a text file become ratings.

    sep : separator of the fields
    header_line : number of the line that holds the column names, from 1; 0 without a header
    n_columns : number of fields of the first record; more in a later one are a fault
    positions : positions of the user, the item, the rating and, if times are read, the time column
    """

    sep: str
    header_line: int
    n_columns: int
    positions: tuple[int, ...]

    @property
    def n_header_records(self) -> int:
        """Number of records that come before the first rating: 0 or 1."""
        return 1 if self.header_line else 0


def detect_separator(path: FilePath, least: int = 3) -> str:
    """Return the first of `SEPARATORS` that cuts a file's first line into `least` fields or more.

    Raises
    ------
    ValueError
        If the file is empty, or none of them does.
    """
    with open_text(path) as file:
        line = next(filter(str.strip, file), None)
    if line is None:
        raise ValueError(f"{path} holds no ratings, it is empty")
    for sep in SEPARATORS:
        for _, fields in split_records([line], sep):
            if len(fields) >= least:
                return sep
    raise ValueError(
        f"{path}: no separator of {in_words(SEPARATORS)} cuts the first line, {shorten(line)}, "
        f"into {least} fields or more; pass sep="
    )


def split_records(lines: Iterable[str], sep: str) -> Iterator[Record]:
    """Yield (number of the first line, fields) of each record that is not blank.

    Quotes follow RFC 4180 if the separator is a single character other than a blank, and mean
    nothing otherwise. A line with broken quotes comes as a record without fields.

    Raises
    ------
    csv.Error
        If quotes that were opened on one line are not closed properly on a later one. Such a
        record may have swallowed any number of good ones, so it is never skipped.
    """
    delimiter = sep
    quoting: Literal[0, 3] = csv.QUOTE_NONE
    if sep == " ":
        lines = (" ".join(line.split()) for line in lines)
    elif len(sep) > 1:
        lines = (line.replace(sep, UNIT_SEPARATOR) for line in lines)
        delimiter = UNIT_SEPARATOR
    else:
        quoting = csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    while True:
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield line, fields
                line = reader.line_num + 1
            return
        except csv.Error as error:
            if reader.line_num > line:
                raise csv.Error(
                    f"quotes opened on line {line} are not closed properly ({error})"
                ) from error
            yield line, []
            line = reader.line_num + 1


def has_surplus(fields: list[str], n_columns: int) -> bool:
    """Return whether a record has text beyond `n_columns` fields; empty fields do no harm there."""
    if len(fields) <= n_columns:
        return False
    return any(field.strip() for field in fields[n_columns:])


def line_in_words(path: FilePath, number: int) -> str:
    """Return a line of a text file for a message: its number, from 1, and its text."""
    with open_text(path) as file:
        line = next(islice(file, number - 1, None))
    return f"line {number}: {shorten(line)}"


def number_in(text: str) -> float | None:
    """Return the number that a text spells, None if it spells none."""
    if "_" in text:  # 1_000 is a number in Python and nowhere else
        return None
    try:
        return float(text)
    except ValueError:
        return None
