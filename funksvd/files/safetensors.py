"""Models as safetensors files."""

from __future__ import annotations

import json
import math
import os
import struct

import numpy as np

from funksvd.files.arrays import ALIGNMENT, as_array, mapped

TENSOR_TYPES = {
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "|u1",
}  # safetensors' names


def write_safetensors(file, text, arrays):
    """The format of Hugging Face's safetensors: the length of the header, the header as JSON, the arrays without gaps."""
    names = {dtype: name for name, dtype in TENSOR_TYPES.items()}
    arrays = {
        name: array.astype(array.dtype.newbyteorder("<"), copy=False)
        for name, array in arrays.items()
    }
    arrays = dict(
        sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))
    )  # wide ones first: all aligned
    header, end = {"__metadata__": {"funksvd": text}}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": names[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-(8 + len(encoded)) % ALIGNMENT)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    for array in arrays.values():
        file.write(array.tobytes())


def read_safetensors(path, map_arrays):
    """(JSON text, {name: array}) of a file in the format of safetensors."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8 or struct.unpack("<Q", start)[0] > size - 8:
            raise ValueError("it is neither npz nor safetensors")
        data = 8 + struct.unpack("<Q", start)[0]
        header = json.loads(file.read(data - 8))
        text = header.pop("__metadata__")["funksvd"]
        arrays, total = {}, 0
        for name, tensor in header.items():
            dtype, shape = np.dtype(TENSOR_TYPES[tensor["dtype"]]), tensor["shape"]
            first, end = tensor["data_offsets"]
            if (
                not all(isinstance(n, int) and n >= 0 for n in [first, *shape])
                or first > size - data
            ):
                raise ValueError(f"its array {name!r} lies outside of the file")
            n_bytes = math.prod(shape) * dtype.itemsize
            total += n_bytes
            if n_bytes != end - first or total > size:
                raise ValueError(f"its array {name!r} has another size than it says")
            if map_arrays:
                content = mapped(path, data + first, n_bytes)
            else:
                file.seek(data + first)
                content = bytearray(file.read(n_bytes))
            arrays[name] = as_array(content, dtype, tuple(shape))
    return text, arrays
