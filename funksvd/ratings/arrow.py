"""Arrow columns as ids and numbers. Import it only where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from funksvd.boundary import check_arrow
from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings._keys import look_up
from funksvd.ratings._texts import TextCodes
from funksvd.ratings.encoding import Codes
from funksvd.ratings.ids import Encoded
from funksvd.ratings.times import TimeReader


def is_text(dtype: pa.DataType) -> bool:
    """Return whether an Arrow type is text with offsets, the form that `TextCodes` takes."""
    if pa.types.is_large_string(dtype):
        return True
    return bool(pa.types.is_string(dtype))


def is_dictionary(dtype: pa.DataType) -> bool:
    """Return whether an Arrow type is a dictionary: integer codes into a few values."""
    return bool(pa.types.is_dictionary(dtype))


def check_column(column: Any, name: str) -> None:
    """Raise ValueError if an Arrow column is damaged; `name` stands for it in the message.

    The offsets of texts are checked by `TextCodes`, and whether they are UTF-8 when they are
    decoded: here both would take as long as reading them.
    """
    check_arrow(column, name, full=not is_text(column.type))


def shares(n: int, count: int) -> list[slice]:
    """Return `count` slices of nearly equal length that cover range(n), in order."""
    parts = []
    for k in range(count):
        first = k * n // count
        end = (k + 1) * n // count
        parts.append(slice(first, end))
    return parts


def text_ids(column: Any) -> Encoded:
    """Return an Arrow column of texts as `Encoded`, with a thread for each share of it."""
    if not is_text(column.type):  # texts as views, without offsets
        column = column.cast(pa.large_string())
    codes = np.empty(len(column), np.int32)
    parts = shares(len(codes), cpu_count())

    def encode_part(part: slice) -> list[str]:
        share = column[part]
        arrays = share.chunks if isinstance(share, pa.ChunkedArray) else [share]
        return codes_into(codes[part], arrays)

    texts = parallel(encode_part, parts, cpu_count())
    return joined(codes, parts, texts)


def codes_into(out: np.ndarray, arrays: Iterable[Any]) -> list[str]:
    """Encode a column of ids that comes as one Arrow array after the other.

    Parameters
    ----------
    out : (n,) int32
        The codes are written to it.
    arrays : iterable of Arrow arrays of one type, of n values together

    Returns
    -------
    list of str
        The text of each code.
    """
    table = TextCodes()
    done = 0
    others = []
    for array in arrays:
        dtype = array.type
        if is_dictionary(dtype):
            dtype = dtype.value_type
        if is_text(dtype):
            end = done + len(array)
            out[done:end] = codes_of(table, array)
            done = end
        else:  # Arrow encodes them, all at once
            others.append(array)
    if not others:
        texts: list[str] = table.texts()
        return texts
    column = pa.chunked_array(others)
    others.clear()
    encoded = encode(column)
    out[:] = encoded.codes
    del column
    pa.default_memory_pool().release_unused()  # before the next column needs memory
    return list(encoded.ids)


def codes_of(table: Any, array: Any) -> np.ndarray:
    """Return (n,) int32 codes of an Arrow array of texts, or of a dictionary of texts.

    `table`, a `TextCodes`, numbers the texts and learns the new ones. A null counts as an empty
    text.
    """
    codes = np.empty(len(array), np.int32)
    if is_dictionary(array.type):
        texts = array.dictionary
        places = array.indices.cast(pa.int32())
        if places.null_count:
            places = places.fill_null(len(texts))
            empty = pa.array([""], texts.type)
            texts = pa.concat_arrays([texts, empty])
        text_codes = codes_of(table, texts)
        if not look_up(places.to_numpy(), 0, text_codes, codes):
            raise ValueError("a code lies outside of its Arrow dictionary")
    elif len(array):
        if array.null_count:
            array = array.fill_null("")
        _, offset_buffer, text_buffer = array.buffers()
        is_large = pa.types.is_large_string(array.type)
        offsets = np.frombuffer(offset_buffer, np.int64 if is_large else np.int32)
        first = array.offset
        end = first + len(array)
        data = np.frombuffer(text_buffer or b"", np.uint8)
        table.encode(offsets[first : end + 1], data, codes)
    return codes


def joined(
    codes: np.ndarray,
    parts: list[slice],
    texts: Iterable[list[str]],
) -> Encoded:
    """Return one column of parts that were encoded apart; `codes` is changed in place.

    Parameters
    ----------
    codes : (n,) int32
        In each part a code is a position in the texts of that part.
    parts : the parts as slices of `codes`
    texts : the distinct texts of each part
    """
    code_of = Codes()
    for part, own_texts in zip(parts, texts, strict=True):
        places = np.array([code_of[text] for text in own_texts], np.int32)
        unchanged = np.arange(len(places))
        if not np.array_equal(places, unchanged):  # nearly always equal in the first part
            own_codes = Encoded(codes[part], places)
            codes[part] = own_codes.decode()
    return Encoded(codes, list(code_of))


def encode(column: Any) -> Encoded:
    """Return an Arrow column as `Encoded` texts; a null or NaN becomes an empty text."""
    encoded = column.dictionary_encode().combine_chunks()
    values = encoded.dictionary
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
        # pandas turns a column of integers with gaps into floats.
        with suppress(pa.ArrowInvalid):
            values = values.cast(pa.int64())
    values = values.cast(pa.string()).fill_null("")
    texts = values.to_pylist()
    codes = encoded.indices.cast(pa.int32())
    codes = codes.fill_null(len(texts))
    texts.append("")
    return Encoded(codes.to_numpy(), texts)


def as_numbers(column: Any, name: str) -> np.ndarray:
    """Return an Arrow column as float64, a null as NaN; ValueError if it holds no numbers.

    `name` stands for the column in the message.
    """
    dtype = column.type
    is_whole = pa.types.is_integer(dtype)
    is_real = pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)
    if not (is_whole or is_real):
        raise ValueError(f"{name} holds {dtype}, not numbers")
    floats = column.cast(pa.float64(), safe=False)
    numbers: np.ndarray = floats.to_numpy(zero_copy_only=False)
    return numbers


def seconds_of(column: Any, reader: TimeReader) -> np.ndarray:
    """Return an Arrow column of times as float64: numbers as they are, dates as seconds in UTC.

    `reader` reads texts that are no plain numbers. A null becomes NaN.

    Raises
    ------
    TypeError
        If the column holds neither numbers, dates nor texts, or mixes two forms of times.
    """
    dtype = column.type
    if pa.types.is_date(dtype) or pa.types.is_timestamp(dtype):
        column = column.cast(pa.timestamp("s", getattr(dtype, "tz", None)), safe=False)
        return as_numbers(column.cast(pa.int64()), reader.name)
    if is_dictionary(dtype):
        column = column.cast(dtype.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        numbers = None
        with suppress(pa.ArrowInvalid):  # many times faster than one text at a time
            numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            reader.note_numbers(numbers)
        if numbers is None:
            numbers = np.array(reader.seconds(column.to_pylist()), np.float64)
        return numbers
    return as_numbers(column, reader.name)
