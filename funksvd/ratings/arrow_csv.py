"""Large text files read by pyarrow, many times faster than by Python's csv, with the same result.

The bytes pass a check on their way to Arrow. If the two readers might read them differently, the
file is left to Python's csv. Import this module only where pyarrow is installed.
"""

from __future__ import annotations

import codecs
import io
from typing import IO, Any

import numpy as np
import pyarrow as pa

from funksvd.ratings._texts import TextCodes
from funksvd.ratings.arrow import codes_of, seconds_of
from funksvd.ratings.columns import RawRatings
from funksvd.ratings.ids import Encoded
from funksvd.ratings.records import UNIT_SEPARATOR, Layout
from funksvd.ratings.times import TimeReader

BYTES_OF_A_BLOCK = 1 << 20  # as Arrow reads them
LONGEST_LINE = 1 << 20  # bytes; a longer line with quotes is left to Python's csv
WINDOW = 1 << 16  # half of the longest field of Python's csv
UNIT_BYTE = UNIT_SEPARATOR.encode()
QUOTE = b'"'


class ReadersDiffer(Exception):  # noqa: N818  # it is no error: the other reader takes over
    """Arrow and Python's csv might read this file differently."""


class CheckedFile(io.RawIOBase):
    """The bytes of a text file on their way to Arrow.

    A separator of several characters is replaced by `UNIT_SEPARATOR`, and quotes mean nothing then.

    Parameters
    ----------
    file : binary file
    sep : bytes
        The separator.
    """

    def __init__(self, file: IO[bytes], sep: bytes) -> None:
        self.file = file
        self.sep = sep
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.held = b""  # end of the last block, which may be the start of a long separator
        self.line = b""  # start of a line whose end has not come yet
        self.is_edge = np.zeros(256, bool)  # the bytes that may stand beside a quoted field
        self.is_edge[[*b"\r\n", sep[0]]] = True

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, b"" at the end.

        Raises
        ------
        ReadersDiffer
            If the bytes are not UTF-8, may have a field that is too long for Python's csv, hold
            `UNIT_SEPARATOR` beside a long separator, or hold quotes other than around whole fields.
        """
        while True:
            block = self.file.read(size)
            if has_long_line(block):
                raise ReadersDiffer
            try:
                self.decode(block, final=not block)
            except UnicodeDecodeError:
                raise ReadersDiffer from None
            if len(self.sep) > 1:
                out = self._with_unit_separators(block)
            else:
                self._check_quotes(block)
                out = block
            if out or not block:
                return out

    def _with_unit_separators(self, block: bytes) -> bytes:
        """Return the next bytes with long separators replaced; b"" is the last block."""
        if UNIT_BYTE in block:
            raise ReadersDiffer
        out = (self.held + block).replace(self.sep, UNIT_BYTE)
        self.held = self._started_separator(out) if block else b""
        return out[: len(out) - len(self.held)]

    def _started_separator(self, data: bytes) -> bytes:
        """Return the longest end of `data` that the next block may complete to a separator."""
        for length in range(len(self.sep) - 1, 0, -1):
            if data.endswith(self.sep[:length]):
                return self.sep[:length]
        return b""

    def _check_quotes(self, block: bytes) -> None:
        """Raise `ReadersDiffer` if the lines that end in a block have quotes of another use.

        b"" is the last block, which ends the last line.
        """
        if QUOTE not in block and QUOTE not in self.line:  # nearly always
            self.line = block[start_of_last_line(block) :]
            return
        data = self.line + block
        end = start_of_last_line(data) if block else len(data)
        self.line = data[end:]
        if len(self.line) > LONGEST_LINE:
            raise ReadersDiffer
        if not self._encloses_fields(data[:end]):
            raise ReadersDiffer

    def _encloses_fields(self, lines: bytes) -> bool:
        """Return whether all quotes enclose whole fields that hold no quote and no line end."""
        text = np.frombuffer(b"\n" + lines + b"\n", np.uint8)
        quotes = np.flatnonzero(text == ord(QUOTE))
        edge_before = self.is_edge[text[quotes - 1]]
        edge_after = self.is_edge[text[quotes + 1]]
        opening = slice(0, None, 2)  # opening and closing quotes take turns
        closing = slice(1, None, 2)
        if not edge_before[opening].all() or edge_after[opening].any():
            return False
        if edge_before[closing].any() or not edge_after[closing].all():
            return False
        is_line_end = (text == ord("\n")) | (text == ord("\r"))
        quotes_before = np.searchsorted(quotes, np.flatnonzero(is_line_end))
        return not (quotes_before % 2).any()


def has_long_line(block: bytes) -> bool:
    """Return whether a line may be longer than the longest field of Python's csv.

    Blocks are a whole number of windows but for the last one, so that such a line fills a window.
    """
    for start in range(0, len(block) - WINDOW + 1, WINDOW):
        end = start + WINDOW
        if block.find(b"\n", start, end) < 0 and block.find(b"\r", start, end) < 0:
            return True
    return False


def start_of_last_line(data: bytes) -> int:
    """Return the position behind the last line end, 0 if there is none."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


def read_csv(file: IO[bytes], layout: Layout) -> RawRatings | None:
    """Read ratings from a binary file of text with a known layout.

    Return None if Python's csv might read the file differently, or if a line has more or fewer
    fields than the first or a rating that is no number.
    """
    if len(layout.sep) == 1 and not layout.sep.isascii():  # Arrow's separators are single bytes
        return None
    user_table = TextCodes()
    item_table = TextCodes()
    users: list[np.ndarray] = []
    items: list[np.ndarray] = []
    values: list[np.ndarray] = []
    times: list[np.ndarray] = []
    reader = TimeReader("the time column")
    try:
        with _batches(file, layout) as batches:
            for batch in batches:
                users.append(codes_of(user_table, batch[0]))
                items.append(codes_of(item_table, batch[1]))
                values.append(batch[2].to_numpy())
                if batch.num_columns > 3:
                    times.append(seconds_of(batch[3], reader))
    except (pa.ArrowInvalid, ReadersDiffer):
        return None
    if not values:
        return None
    return RawRatings(
        Encoded(_concatenated(users), user_table.texts()),
        Encoded(_concatenated(items), item_table.texts()),
        _concatenated(values),
        _concatenated(times) if times else None,
    )


def _batches(file: IO[bytes], layout: Layout) -> Any:
    """Open a file as batches of columns: ratings as float64, all others as texts."""
    from pyarrow import csv

    names = [str(position) for position in range(layout.n_columns)]
    wanted = [names[position] for position in layout.positions]
    user, item, rating, *others = wanted
    column_types = {user: pa.string(), item: pa.string(), rating: pa.float64()}
    column_types |= dict.fromkeys(others, pa.string())
    is_long = len(layout.sep) > 1
    return csv.open_csv(
        pa.PythonFile(CheckedFile(file, layout.sep.encode()), "r"),
        read_options=csv.ReadOptions(
            column_names=names, skip_rows=layout.header_line, block_size=BYTES_OF_A_BLOCK
        ),
        parse_options=csv.ParseOptions(
            delimiter=UNIT_SEPARATOR if is_long else layout.sep,
            quote_char=False if is_long else '"',
        ),
        convert_options=csv.ConvertOptions(
            include_columns=wanted,
            column_types=column_types,
            null_values=[],  # "NA" and "null" are ids like any other
        ),
    )


def _concatenated(parts: list[np.ndarray]) -> np.ndarray:
    """Return the parts of a column as one array; the list is emptied, to free their memory."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole
