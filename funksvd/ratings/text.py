"""Ratings from delimited text: the header, the parser, and when pyarrow parses instead."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

import numpy as np

from funksvd.ratings.columns import Chosen, Names, RawRatings
from funksvd.ratings.encoding import Codes
from funksvd.ratings.ids import Encoded
from funksvd.ratings.opening import FilePath, open_bytes, open_text
from funksvd.ratings.records import (
    Layout,
    Record,
    detect_separator,
    has_surplus,
    line_in_words,
    number_in,
    split_records,
)
from funksvd.ratings.times import TimeReader

# Records held as lists at one time: too few for the garbage collector to wake up, 15 % faster.
RECORDS_AT_ONCE = 512
# In a file smaller than this, importing pyarrow takes longer than parsing without it.
LEAST_BYTES_FOR_ARROW = 1 << 20


def read_text(
    path: FilePath,
    chosen: Chosen,
    sep: str | None,
    header: bool | None,
    progress: bool = False,
) -> tuple[RawRatings, Callable[[int], str]]:
    """Read ratings from a text file.

    Parameters
    ----------
    path : str or path-like
    chosen : Chosen
        The columns.
    sep, header, progress : as in `reading.read_ratings`

    Returns
    -------
    ratings : RawRatings
        A missing field is an empty id or NaN, and so are all fields of a line with too many.
    locate : function
        locate(k) describes, for a message, the line of rating k.
    """
    layout = _layout_of(path, chosen, sep or detect_separator(path), header)
    ratings = _parse_with_arrow(path, layout, progress)
    if ratings is None:
        with open_text(path, progress) as file:
            records = split_records(file, layout.sep)
            ratings = _parse(islice(records, layout.n_header_records, None), layout)
    return ratings, partial(_line_of, path, layout)


def _layout_of(
    path: FilePath,
    chosen: Chosen,
    sep: str,
    header: bool | None,
) -> Layout:
    """Return the layout of a text file, as its first record shows it."""
    with open_text(path) as file:
        first = next(split_records(file, sep), None)
    if first is None:
        raise ValueError(f"{path} holds no ratings, it is empty")
    line, fields = first
    if header is None:
        header = _is_header(fields, chosen)
    names: Names = len(fields)
    if header:
        names = [field.strip() for field in fields]
    return Layout(
        sep=sep,
        header_line=line if header else 0,
        n_columns=len(fields),
        positions=chosen.positions(names, path),
    )


def _is_header(fields: list[str], chosen: Chosen) -> bool:
    """Return whether the first record holds column names.

    It does if a column was chosen by name, or if its field of the rating is no number.
    """
    user, item, rating, time = chosen
    if isinstance(user, str) or isinstance(item, str) or isinstance(rating, str):
        return True
    if isinstance(time, str):
        return True
    position = 2 if rating is None else rating
    if position not in range(len(fields)):
        return False
    return number_in(fields[position]) is None


def _parse(records: Iterator[Record], layout: Layout) -> RawRatings:
    """Return the ratings of records; see `read_text` for faulty ones."""
    user_codes = Codes()
    item_codes = Codes()
    users = array("i")
    items = array("i")
    values = array("d")
    times = array("d")
    reader = TimeReader("the time column")
    user_at, item_at, value_at, *time_at = layout.positions
    while rows := [fields for _, fields in islice(records, RECORDS_AT_ONCE)]:
        columns = list(zip(*_emptied(rows, layout), strict=False))
        users.extend(map(user_codes.__getitem__, columns[user_at]))
        items.extend(map(item_codes.__getitem__, columns[item_at]))
        texts = columns[value_at]
        value_of = _numbers(set(texts))
        values.extend(map(value_of.__getitem__, texts))
        for position in time_at:
            times.extend(reader.seconds(columns[position]))
    return RawRatings(
        Encoded(np.asarray(users), list(user_codes)),
        Encoded(np.asarray(items), list(item_codes)),
        np.asarray(values),
        np.asarray(times) if time_at else None,
    )


def _emptied(rows: list[list[str]], layout: Layout) -> list[list[str]]:
    """Return rows of fields, with empty fields for each row that is too short or too long."""
    width = max(layout.positions) + 1
    lengths = list(map(len, rows))
    if min(lengths) >= width and max(lengths) <= layout.n_columns:
        return rows
    empty = [""] * width
    emptied = []
    for fields in rows:
        is_good = len(fields) >= width and not has_surplus(fields, layout.n_columns)
        emptied.append(fields if is_good else empty)
    return emptied


def _numbers(texts: Iterable[str]) -> dict[str, float]:
    """Return {text: number}, NaN for no number. Ratings repeat, and float() is slow."""
    numbers = {}
    for text in texts:
        number = number_in(text)
        numbers[text] = math.nan if number is None else number
    return numbers


def _parse_with_arrow(
    path: FilePath,
    layout: Layout,
    progress: bool,
) -> RawRatings | None:
    """Return the ratings that `_parse` would return, read many times faster by pyarrow.

    Return None if there is no pyarrow, the file is small, or the two might read it differently.
    """
    if os.path.getsize(path) < LEAST_BYTES_FOR_ARROW or layout.sep == " ":
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    from funksvd.ratings.arrow_csv import read_csv

    with open_bytes(path, progress) as file:
        return read_csv(file, layout)


def _line_of(path: FilePath, layout: Layout, k: int) -> str:
    """Return the line of rating k for a message."""
    with open_text(path) as file:
        records = split_records(file, layout.sep)
        n_before = layout.n_header_records + k
        number, _ = next(islice(records, n_before, None))
    return line_in_words(path, number)
