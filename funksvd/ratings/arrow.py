"""What pyarrow does: large text files and Parquet read fast, Arrow columns as ids. Import it only with pyarrow there."""

from __future__ import annotations

import codecs
import io
import os
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings import _keys
from funksvd.ratings._texts import TextCodes
from funksvd.ratings.columns import resolve_columns, shorten
from funksvd.ratings.ids import Codes, Encoded

_UNIT_SEPARATOR = (
    b"\x1f"  # the ASCII character made for this; stands in for separators of several characters
)
_LONGEST_LINE = 1 << 20
_BLOCK = 1 << 20  # bytes of a text file at one time
_BATCH = 1 << 17  # rows of a Parquet file at one time


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
        in_pairs = (
            not opens[1::2].any()
            and opens[::2].all()
            and closes[1::2].all()
            and not closes[::2].any()
        )
        if not in_pairs or (np.searchsorted(quotes, ends) % 2).any():
            raise _ReadersDiffer
        return block


def read_csv(file, sep, skip_rows, n_columns, positions):
    """Users, items (`Encoded` texts) and float64 ratings of a binary file; None where csv might read it differently."""
    from pyarrow import csv

    names = [str(position) for position in range(n_columns)]
    user, item, rating = (names[position] for position in positions)
    delimiter = sep.encode()
    if len(sep) == 1 < len(delimiter):
        return None
    long = len(delimiter) > 1
    tables, parts = (TextCodes(), TextCodes()), ([], [], [])
    try:
        with csv.open_csv(
            pa.PythonFile(_Checked(file, delimiter), "r"),
            read_options=csv.ReadOptions(
                column_names=names, skip_rows=skip_rows, block_size=_BLOCK
            ),
            parse_options=csv.ParseOptions(
                delimiter=_UNIT_SEPARATOR.decode() if long else sep,
                quote_char=False if long else '"',
            ),
            convert_options=csv.ConvertOptions(
                include_columns=[user, item, rating],
                column_types={user: pa.string(), item: pa.string(), rating: pa.float64()},
                null_values=[],  # "NA" and "null" are ids like any other
            ),
        ) as batches:
            for batch in batches:
                for table, part, texts in zip(tables, parts, batch, strict=False):
                    part.append(_codes(table, texts))
                parts[2].append(batch[2].to_numpy())
    except (
        pa.ArrowInvalid,
        _ReadersDiffer,
    ):  # a line with more or fewer fields, a rating that is not a number; the above
        return None
    if not parts[2]:
        return None
    users, items, ratings = map(_concatenated, parts)
    return Encoded(users, tables[0].texts()), Encoded(items, tables[1].texts()), ratings


def _concatenated(parts):
    whole = np.concatenate(parts)
    parts.clear()  # their memory is free before the next come
    return whole


def read_parquet(path, columns, progress=False):
    """Users, items (`Encoded` texts), ratings, and a function that describes the place of the k-th rating."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names, n_groups = file.schema_arrow.names, file.num_row_groups
            start = np.cumsum(
                [0] + [file.metadata.row_group(group).num_rows for group in range(n_groups)]
            )
            chosen = [names[position] for position in resolve_columns(names, *columns, where=path)]
            encoded = [name for name in chosen[:2] if _is_encoded(file, name)]
        users, items, ratings = _read_groups(path, chosen, encoded, start, progress)
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot read this Parquet file ({error})") from error

    def locate(k):
        group = np.searchsorted(start, k, "right") - 1
        with parquet.ParquetFile(path) as file:
            row = (
                file.read_row_group(group, chosen)
                .select(chosen)
                .slice(k - start[group], 1)
                .to_pylist()[0]
            )
        return f"row {k} (from 0): {shorten(str(row))}"

    return users, items, ratings, locate


def _is_encoded(file, name):
    """Whether nearly all texts of a column are codes of Parquet's dictionaries, which Arrow can give as they are.

    Where a dictionary grew too long, pages of texts follow, which Arrow would encode slowly; a text takes 4 bytes for its
    length and some of its own there, a code hardly three.
    """
    if not _is_text(file.schema_arrow.field(name).type):
        return False
    column = [file.schema.column(k).path for k in range(len(file.schema))].index(name)
    chunks = [file.metadata.row_group(group).column(column) for group in range(file.num_row_groups)]
    return sum(chunk.total_uncompressed_size for chunk in chunks) < 3 * file.metadata.num_rows


def _read_groups(path, chosen, encoded, start, progress):
    """The three chosen columns of a Parquet file, a thread for each share of its row groups, which begin at `start`."""
    from pyarrow import parquet
    from tqdm import tqdm

    n_groups = len(start) - 1
    cuts = np.linspace(0, n_groups, min(cpu_count(), max(n_groups, 1)) + 1).astype(int).tolist()
    codes = [np.empty(start[-1], np.int32) for _ in range(2)]
    ratings = np.empty(start[-1])
    with tqdm(
        total=3 * n_groups,
        desc=f"reading {os.path.basename(path)}",
        unit="column chunk",
        delay=1,
        leave=False,
        disable=not progress,
    ) as bar:

        def one(groups):
            with parquet.ParquetFile(
                path, read_dictionary=encoded
            ) as own:  # a reader is for one thread

                def batches(
                    name,
                ):  # one column after the other: what a column takes is free before the next
                    rows = (
                        8 * _BATCH if name in encoded else _BATCH
                    )  # the whole dictionary comes with each batch
                    for group in groups:
                        for batch in own.iter_batches(rows, [group], [name], use_threads=False):
                            yield batch[name]
                        bar.update()

                at = start[groups.start]
                for array in batches(chosen[2]):
                    ratings[at : at + len(array)] = as_numbers(
                        array, f"{path}: the rating column {chosen[2]!r}"
                    )
                    at += len(array)
                part = slice(start[groups.start], at)
                return [
                    _codes_into(out[part], batches(name))
                    for out, name in zip(codes, chosen, strict=False)
                ]

        texts = parallel(one, [range(*cut) for cut in pairwise(cuts)], cpu_count())
    parts = [slice(*start[[*cut]]) for cut in pairwise(cuts)]
    return *(
        _joined(out, parts, own) for out, own in zip(codes, zip(*texts, strict=True), strict=True)
    ), ratings


def _codes_into(out, arrays):
    """A column of ids, which comes as arrays one after the other: its codes into `out`; returns the texts they mean."""
    table, at, others = TextCodes(), 0, []
    for array in arrays:
        if _is_text(array.type.value_type if pa.types.is_dictionary(array.type) else array.type):
            out[at : at + len(array)] = _codes(table, array)
            at += len(array)
        else:  # Arrow encodes them
            others.append(array)
    if not others:
        return table.texts()
    column = pa.chunked_array(others)
    others.clear()
    encoded = encode(column)
    out[:] = encoded.codes
    del column
    pa.default_memory_pool().release_unused()  # before the next column comes
    return encoded.ids


def _codes(table, array):
    """int32 codes from a table of an Arrow array of texts or of a dictionary of texts; a null counts as an empty text."""
    codes = np.empty(len(array), np.int32)
    if pa.types.is_dictionary(array.type):
        texts, places = array.dictionary, array.indices.cast(pa.int32())
        if places.null_count:
            texts, places = (
                pa.concat_arrays([texts, pa.array([""], texts.type)]),
                places.fill_null(len(texts)),
            )
        _keys.look_up(places.to_numpy(), 0, _codes(table, texts), codes)
    elif len(array):
        array = array.fill_null("")
        _, offsets, data = array.buffers()
        offsets = np.frombuffer(
            offsets, np.int64 if pa.types.is_large_string(array.type) else np.int32
        )
        table.encode(
            offsets[array.offset : array.offset + len(array) + 1],
            np.frombuffer(data or b"", np.uint8),
            codes,
        )
    return codes


def text_ids(column):
    """A column of texts in memory as `Encoded`, a thread for each share of it."""
    if not _is_text(column.type):  # views
        column = column.cast(pa.large_string())
    codes = np.empty(len(column), np.int32)
    parts = [
        slice(*cut)
        for cut in pairwise(np.linspace(0, len(codes), cpu_count() + 1).astype(int).tolist())
    ]

    def one(part):
        share = column[part]
        return _codes_into(
            codes[part], share.chunks if isinstance(share, pa.ChunkedArray) else [share]
        )

    return _joined(codes, parts, parallel(one, parts, cpu_count()))


def _is_text(kind):
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _joined(codes, parts, texts):
    """Codes of parts, each for texts of its own, as codes for the texts of all."""
    code_of = Codes()
    for part, own in zip(parts, texts, strict=True):
        places = np.fromiter(map(code_of.__getitem__, own), np.int32, len(own))
        if not np.array_equal(places, np.arange(len(own))):  # nearly always equal in the first
            codes[part] = Encoded(codes[part], places).decode()
    return Encoded(codes, list(code_of))


def as_numbers(column, what):
    """An Arrow column as float64, a null as NaN. ValueError where it holds no numbers."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise ValueError(f"{what} holds {kind}, not numbers")
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


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
