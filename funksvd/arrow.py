"""What pyarrow does: large text files and Parquet read fast, Arrow columns as ids. Import it only with pyarrow there."""

import codecs
import io
import os
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from funksvd.ids import Encoded
from funksvd.reading import resolve_columns, shorten
from funksvd.threads import cpu_count, parallel

_UNIT_SEPARATOR = b"\x1f"  # the ASCII character made for this; stands in for separators of several characters
_LONGEST_LINE = 1 << 20
_BLOCK = 1 << 22  # each has a dictionary of its own: smaller ones take more memory


class _ReadersDiffer(Exception):  # noqa: N818
    """Arrow and Python's csv might read this file differently."""


class _Checked(io.RawIOBase):
    """The bytes of a text file on their way to Arrow, looked at for what two readers of CSV might read differently."""

    def __init__(self, file, sep):
        self.file = file
        self.decode = codecs.getincrementaldecoder("utf-8")().decode
        self.long = sep if len(sep) > 1 else None  # quotes mean nothing beside these
        self.held = b""  # the start of what may be a long separator
        self.line = b""  # the start of a line whose end is still to come
        self.edge = np.zeros(256, bool)
        self.edge[[*b"\r\n", sep[0]]] = True

    def readable(self):
        return True

    def read(self, size=-1):
        block = b"..."
        out = b""
        while block and not out:
            block = self.file.read(size)
            try:
                self.decode(block, final=not block)
            except UnicodeDecodeError:
                raise _ReadersDiffer from None
            out = self._one_separator(block) if self.long else self._check_quotes(block)
        return out

    def _one_separator(self, block):
        if _UNIT_SEPARATOR in block:
            raise _ReadersDiffer
        out = (self.held + block).replace(self.long, _UNIT_SEPARATOR)
        starts = (self.long[:n] for n in range(len(self.long) - 1, 0, -1) if block)
        self.held = next(filter(out.endswith, starts), b"")
        return out[: len(out) - len(self.held)]

    def _check_quotes(self, block):
        """Quotes may enclose whole fields without quotes and line ends in them."""
        if b'"' not in block and b'"' not in self.line:  # nearly always
            self.line = block[max(block.rfind(b"\n"), block.rfind(b"\r")) + 1 :]
            return block
        data = self.line + block
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1 if block else len(data)
        lines, self.line = data[:end], data[end:]
        if len(self.line) > _LONGEST_LINE:
            raise _ReadersDiffer
        text = np.frombuffer(b"\n" + lines + b"\n", np.uint8)
        quotes = np.flatnonzero(text == ord('"'))
        opens, closes = self.edge[text[quotes - 1]], self.edge[text[quotes + 1]]
        ends = np.flatnonzero((text == ord("\n")) | (text == ord("\r")))
        in_pairs = not opens[1::2].any() and opens[::2].all() and closes[1::2].all() and not closes[::2].any()
        if not in_pairs or (np.searchsorted(quotes, ends) % 2).any():
            raise _ReadersDiffer
        return block


def read_csv(file, sep, skip_rows, n_columns, positions):
    """Users, items (`Encoded` texts) and float64 ratings of a binary file; None where csv might read it differently."""
    from pyarrow import csv

    names = [str(position) for position in range(n_columns)]
    user, item, rating = (names[position] for position in positions)
    id_type = pa.dictionary(pa.int32(), pa.string())
    delimiter = sep.encode()
    if len(sep) == 1 < len(delimiter):
        return None
    long = len(delimiter) > 1
    try:
        table = csv.read_csv(
            pa.PythonFile(_Checked(file, delimiter), "r"),
            read_options=csv.ReadOptions(column_names=names, skip_rows=skip_rows, block_size=_BLOCK),
            parse_options=csv.ParseOptions(delimiter=_UNIT_SEPARATOR.decode() if long else sep,
                                           quote_char=False if long else '"'),
            convert_options=csv.ConvertOptions(
                include_columns=[user, item, rating],
                column_types={user: id_type, item: id_type, rating: pa.float64()},
                null_values=[],  # "NA" and "null" are ids like any other
            ),
        )  # fmt: skip
    except (pa.ArrowInvalid, _ReadersDiffer):  # a line with more or fewer fields, a rating that is not a number; the above
        return None
    columns = [table[name] for name in (user, item, rating)]
    del table
    pa.default_memory_pool().release_unused()  # what parsing took
    ratings = columns.pop().to_numpy()
    return *_encode_both(columns), ratings


def read_parquet(path, columns, progress=False):
    """Users, items (`Encoded` texts), ratings, and a function that describes the place of the k-th rating."""
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
        chosen = [names[position] for position in resolve_columns(names, *columns, where=path)]
        with parquet.ParquetFile(path) as file:
            table = pa.concat_tables(_row_groups(file, path, chosen, progress)).select(chosen)
        found = list(table.columns)
        del table
        ratings = as_numbers(found.pop(), f"{path}: the rating column {chosen[2]!r}")
        users, items = _encode_both(found)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(f"{path}: cannot read this Parquet file ({error})") from error

    def locate(k):
        first = 0
        with parquet.ParquetFile(path) as file:
            for rows in _row_groups(file, path, chosen, False):
                if k < first + len(rows):
                    row = rows.select(chosen).slice(k - first, 1).to_pylist()[0]
                    return f"row {k} (from 0): {shorten(str(row))}"
                first += len(rows)

    return users, items, ratings, locate


def _row_groups(file, path, columns, progress):
    """The tables of a Parquet file's row groups, ids that are text as dictionaries, made by a thread for each group."""
    from pyarrow import parquet
    from tqdm import tqdm

    def encoded(table):
        for name in columns[:2]:
            if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
                table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
        return table

    yield encoded(file.schema_arrow.empty_table().select(columns))
    with tqdm(total=file.num_row_groups, desc=f"reading {os.path.basename(path)}", unit="row group", delay=1, leave=False,
              disable=not progress) as bar:  # fmt: skip

        def one(group):
            with parquet.ParquetFile(path) as own:  # a reader is for one thread
                table = encoded(own.read_row_group(group, columns, use_threads=False))
            bar.update()
            return table

        yield from parallel(one, range(file.num_row_groups), cpu_count())


def as_numbers(column, what):
    """An Arrow column as float64, a null as NaN. ValueError where it holds no numbers."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ValueError(f"{what} holds {kind}, not numbers")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _encode_both(columns):
    """`encode` of each column in a list, which is emptied so that their memory is free at once."""
    columns.reverse()
    encoded = []
    while columns:
        encoded.append(encode(columns.pop()))
        pa.default_memory_pool().release_unused()
    return encoded


def encode(column):
    """An Arrow column as `Encoded` texts; a null or NaN becomes an empty text."""
    encoded = column.dictionary_encode().combine_chunks()
    values = encoded.dictionary
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
        with suppress(pa.ArrowInvalid):  # pandas makes floats of a column of integers with gaps
            values = values.cast(pa.int64())
    texts = [text or "" for text in values.cast(pa.string()).to_pylist()] + [""]
    codes = encoded.indices.cast(pa.int32()).fill_null(len(texts) - 1)
    return Encoded(codes.to_numpy(), texts)
