"""Arrow columns as ids and numbers. Import it only where pyarrow is installed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings import _keys
from funksvd.ratings._texts import TextCodes
from funksvd.ratings.ids import Codes, Encoded


def is_text(dtype: pa.DataType) -> bool:
    """Return whether an Arrow type is text with offsets, the form that `TextCodes` takes."""
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def is_dictionary(dtype: pa.DataType) -> bool:
    """Return whether an Arrow type is a dictionary: integer codes into a few values."""
    return bool(pa.types.is_dictionary(dtype))


def shares(n: int, count: int) -> list[slice]:
    """Return `count` slices of nearly equal length that cover range(n), in order."""
    cuts = np.linspace(0, n, count + 1).astype(int).tolist()
    return [slice(first, last) for first, last in pairwise(cuts)]


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

    return joined(codes, parts, parallel(encode_part, parts, cpu_count()))


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
        if is_text(dtype.value_type if is_dictionary(dtype) else dtype):
            out[done : done + len(array)] = codes_of(table, array)
            done += len(array)
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
            texts = pa.concat_arrays([texts, pa.array([""], texts.type)])
        _keys.look_up(places.to_numpy(), 0, codes_of(table, texts), codes)
    elif len(array):
        array = array.fill_null("")
        _, offset_buffer, text_buffer = array.buffers()
        offset_dtype = np.int64 if pa.types.is_large_string(array.type) else np.int32
        offsets = np.frombuffer(offset_buffer, offset_dtype)
        own_offsets = offsets[array.offset : array.offset + len(array) + 1]
        table.encode(own_offsets, np.frombuffer(text_buffer or b"", np.uint8), codes)
    return codes


def joined(codes: np.ndarray, parts: list[slice], texts: Iterable[list[str]]) -> Encoded:
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
        places = np.fromiter(map(code_of.__getitem__, own_texts), np.int32, len(own_texts))
        # The first part nearly always keeps its codes.
        if not np.array_equal(places, np.arange(len(own_texts))):
            codes[part] = Encoded(codes[part], places).decode()
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
    texts = [text or "" for text in values.cast(pa.string()).to_pylist()]
    texts.append("")
    codes = encoded.indices.cast(pa.int32()).fill_null(len(texts) - 1)
    return Encoded(codes.to_numpy(), texts)


def as_numbers(column: Any, name: str) -> np.ndarray:
    """Return an Arrow column as float64, a null as NaN; ValueError if it holds no numbers.

    `name` stands for the column in the message.
    """
    dtype = column.type
    is_whole = pa.types.is_integer(dtype)
    if not (is_whole or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)):
        raise ValueError(f"{name} holds {dtype}, not numbers")
    numbers: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers
