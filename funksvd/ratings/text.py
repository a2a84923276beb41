"""Ratings from text files: separators, encodings, compression and lines."""

from __future__ import annotations

import csv
import io
import math
import os
from array import array
from contextlib import contextmanager
from functools import partial
from itertools import islice

import numpy as np

from funksvd.ratings.columns import in_words, resolve_columns, shorten
from funksvd.ratings.ids import Codes, Encoded

_SEPARATORS = ("\t", "::", ",", ";", "|", " ")  # in order of preference
_UNIT_SEPARATOR = (
    "\x1f"  # the ASCII character made for this; stands in for separators that csv cannot take
)
_CHUNK = (
    512  # lines held as lists at one time: too few for the garbage collector to wake up, 15% faster
)
_ARROW_MIN_BYTES = (
    1 << 20
)  # below this, importing pyarrow takes longer than reading the file without it
_METER_BYTES = 1 << 20  # a step of the progress bar


# Text
def read_text(path, columns, sep, header, progress):
    """Return users, items, ratings, and a function that describes the place of the k-th rating."""
    sep = sep or detect_separator(path)
    with open_text(path) as file:
        records = split_lines(file, sep)
        first = next(records, None)
        if first is None:
            raise ValueError(f"{path} holds no ratings, it is empty")
        line, fields = first
        if header is None:
            header = _looks_like_header(fields, columns)
        names = [field.strip() for field in fields] if header else len(fields)
        positions = resolve_columns(names, *columns, where=path)
    n_header = line if header else 0
    table = _parse_with_arrow(path, sep, n_header, len(fields), positions, progress)
    if table is None:
        with open_text(path, progress) as file:
            table = _parse(
                islice(split_lines(file, sep), int(header), None), positions, len(fields)
            )
    return *table, partial(_locate, path, sep, int(header))


@contextmanager
def open_text(path, progress=False):
    """Open a text file, gzip or not, and let every fault of its content say which file it is."""
    import gzip
    import zlib

    try:
        with (
            open_binary(path, progress) as binary,
            io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
        ):
            yield file
    except UnicodeDecodeError as error:
        line = _undecodable_line(path)
        raise ValueError(
            f"{path}: line {line} is not UTF-8 text; save the file as UTF-8"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the gzip data is damaged or cut short ({error})") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def open_binary(path, progress=False):
    """Yield the bytes of a file, gzip or not. The bar moves with what is read from the disk."""
    from tqdm import tqdm

    with (
        tqdm(
            total=os.path.getsize(path),
            desc=f"reading {os.path.basename(path)}",
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=not progress,
        ) as bar,
        _Meter(path, bar) as meter,
        io.BufferedReader(meter, _METER_BYTES) as file,
    ):
        if file.peek(2)[:2] != b"\x1f\x8b":
            yield file
            return
        import gzip

        with gzip.open(file) as unzipped:
            yield unzipped


class _Meter(io.FileIO):
    """A file whose reads move a progress bar."""

    def __init__(self, path, bar):
        super().__init__(path)
        self.bar = bar

    def readinto(self, buffer):
        n = super().readinto(buffer)
        self.bar.update(n)
        return n


def _undecodable_line(path):
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number


def detect_separator(path, width=3):
    with open_text(path) as file:
        line = next(filter(str.strip, file), None)
    if line is None:
        raise ValueError(f"{path} holds no ratings, it is empty")
    for sep in _SEPARATORS:
        if any(len(fields) >= width for _, fields in split_lines([line], sep)):
            return sep
    raise ValueError(
        f"{path}: no separator of {in_words(_SEPARATORS)} cuts the first line, {shorten(line)}, "
        f"into {width} fields or more; pass sep="
    )


def split_lines(lines, sep):
    """Yield line number and fields of each record that is not blank; no fields where quotes are broken."""
    delimiter, quoting = sep, csv.QUOTE_MINIMAL
    if sep == " ":
        lines, quoting = (" ".join(line.split()) for line in lines), csv.QUOTE_NONE
    elif len(sep) > 1:
        lines, quoting = (line.replace(sep, _UNIT_SEPARATOR) for line in lines), csv.QUOTE_NONE
        delimiter = _UNIT_SEPARATOR
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    line, at_end = 1, False
    while not at_end:
        try:
            for fields in reader:
                if len(fields) > 1 or "".join(fields).strip():
                    yield line, fields
                line = reader.line_num + 1
            at_end = True
        except csv.Error as error:
            # A broken record that spans lines may have swallowed any number of good ones: never skip that.
            if reader.line_num > line:
                raise csv.Error(
                    f"quotes opened on line {line} are not closed properly ({error})"
                ) from error
            yield line, []
            line = reader.line_num + 1


def _looks_like_header(fields, columns):
    if any(isinstance(column, str) for column in columns):
        return True
    position = 2 if columns[2] is None else columns[2]
    return position in range(len(fields)) and _number(fields[position], None) is None


def _number(text, otherwise=math.nan):
    try:
        return otherwise if "_" in text else float(text)  # Python's 1_000 is no number elsewhere
    except ValueError:
        return otherwise


def too_long(fields, width):
    """Whether more than `width` fields say something: empty ones at the end of a line do no harm."""
    return len(fields) > width and any(field.strip() for field in fields[width:])


def _parse(records, positions, most):
    """Users, items and ratings of `records`; what is missing, or in a line of over `most` fields, is an empty id or NaN."""
    user_codes, item_codes = Codes(), Codes()
    users, items, ratings = array("i"), array("i"), array("d")
    width = max(positions) + 1
    while rows := [fields for _, fields in islice(records, _CHUNK)]:
        lengths = list(map(len, rows))
        if min(lengths) < width or max(lengths) > most:
            rows = [
                fields if len(fields) >= width and not too_long(fields, most) else [""] * width
                for fields in rows
            ]
        columns = list(zip(*rows, strict=False))
        user_texts, item_texts, rating_texts = (columns[position] for position in positions)
        users.extend(map(user_codes.__getitem__, user_texts))
        items.extend(map(item_codes.__getitem__, item_texts))
        numbers = {
            text: _number(text) for text in set(rating_texts)
        }  # ratings repeat, float() is slow
        ratings.extend(map(numbers.__getitem__, rating_texts))
    users, items, ratings = map(np.asarray, (users, items, ratings))
    return Encoded(users, list(user_codes)), Encoded(items, list(item_codes)), ratings


def _parse_with_arrow(path, sep, skip_rows, n_columns, positions, progress):
    """Do what `_parse` does, many times faster, or return None where there is no pyarrow or the two might differ."""
    if os.path.getsize(path) < _ARROW_MIN_BYTES or sep == " ":
        return None
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return None
    from funksvd.ratings.arrow import read_csv

    with open_binary(path, progress) as file:
        return read_csv(file, sep, skip_rows, n_columns, positions)


def _locate(path, sep, n_header, k):
    with open_text(path) as file:
        number, _ = next(islice(split_lines(file, sep), n_header + k, None))
    return shown(path, number)


def shown(path, number):
    with open_text(path) as file:
        line = next(islice(file, number - 1, None))
    return f"line {number}: {shorten(line)}"
