"""Models as files in the safetensors format of Hugging Face.

Such a file is the length of the header in 8 bytes, the header as JSON, and the arrays without gaps.
The JSON text of a model stands in the header's metadata.
"""

from __future__ import annotations

import json
import math
import struct
from typing import IO, Any

import numpy as np

from funksvd.files.arrays import ALIGNMENT, Arrays, as_array, mapped, size_of

# The format's name of a dtype -> NumPy's.
TENSOR_TYPES = {
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "|u1",
}
# Bytes of the length that stands before the header.
LENGTH = 8


def write_safetensors(
    file: IO[bytes],
    text: str,
    arrays: Arrays,
) -> None:
    """Write the JSON text of a model and its arrays."""
    ordered = widest_first(arrays)
    names = {dtype: name for name, dtype in TENSOR_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"funksvd": text}}
    end = 0
    for name, array in ordered.items():
        start = end
        end = start + array.nbytes
        header[name] = {
            "dtype": names[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(LENGTH + len(encoded)) % ALIGNMENT)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    for array in ordered.values():
        file.write(array.tobytes())


def widest_first(arrays: Arrays) -> Arrays:
    """Return the arrays in little-endian order of bytes, sorted so that all of them are aligned."""
    little = {}
    for name, array in arrays.items():
        little[name] = array.astype(array.dtype.newbyteorder("<"), copy=False)
    order = sorted((-array.itemsize, name) for name, array in little.items())
    return {name: little[name] for _, name in order}


def read_safetensors(file: IO[bytes], map_arrays: bool) -> tuple[str, Arrays]:
    """Return (JSON text, arrays by name) of an open file; with `map_arrays` they are maps of it.

    Raises
    ------
    ValueError, KeyError, ...
        If the file is damaged or no model; see `model_file.UNREADABLE`.
    """
    size = size_of(file)
    file.seek(0)
    start = file.read(LENGTH)
    if len(start) < LENGTH:
        raise ValueError("it is neither npz nor safetensors")
    (length,) = struct.unpack("<Q", start)
    if length > size - LENGTH:
        raise ValueError("it is neither npz nor safetensors")
    header = json.loads(file.read(length))
    text: str = header.pop("__metadata__")["funksvd"]
    data = LENGTH + length
    check_tensors(header, size - data)
    arrays = {}
    for name, tensor in header.items():
        first, end = tensor["data_offsets"]
        content: Any
        if map_arrays:
            content = mapped(file, data + first, end - first)
        else:
            file.seek(data + first)
            content = bytearray(file.read(end - first))
        dtype = np.dtype(TENSOR_TYPES[tensor["dtype"]])
        arrays[name] = as_array(content, dtype, tuple(tensor["shape"]))
    return text, arrays


def check_tensors(header: dict[str, Any], size: int) -> None:
    """Check the places and sizes of all arrays before any of them is read.

    Parameters
    ----------
    header : dict, without the metadata
    size : bytes of the file behind the header

    Raises
    ------
    ValueError
        If an array lies outside of the file or has another size than it says, or if the arrays
        would take more memory than the file.
    """
    total = 0
    for name, tensor in header.items():
        shape = tensor["shape"]
        first, end = tensor["data_offsets"]
        if not are_counts([first, *shape]) or first > size:
            raise ValueError(f"its array {name!r} lies outside of the file")
        dtype = np.dtype(TENSOR_TYPES[tensor["dtype"]])
        n_bytes = math.prod(shape) * dtype.itemsize
        total += n_bytes
        if n_bytes != end - first or total > size:
            raise ValueError(f"its array {name!r} has another size than it says")


def are_counts(values: list[Any]) -> bool:
    """Return whether all values are whole numbers of at least 0."""
    return all(isinstance(value, int) and value >= 0 for value in values)
