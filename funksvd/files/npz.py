"""Models as npz archives, written and read without pickle."""

from __future__ import annotations

import math
import os
import re
import struct
import zipfile

import numpy as np

from funksvd.files.arrays import ALIGNMENT, as_array, mapped

PADDING = 0xD935  # the extra field of a zip member that aligns it (as Android's zipalign)
NPY_MAGIC = b"\x93NUMPY\x01\x00"  # of format 1.0
NPY_HEADER = re.compile(
    r"\{'descr': '([<>|][iufUSb]\d+)', 'fortran_order': False, 'shape': \(((?:\d+, ?)*\d*)\), \}\s*"
)


def write_npz(file, text, arrays):
    """What np.savez writes, with the data of each array at a multiple of 64 bytes, so that it can be mapped."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"meta": np.frombuffer(text.encode(), np.uint8), **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            before = (
                30 + len(info.filename) + 20 + 4
            )  # the header, the sizes in 64 bits, the head of the extra field
            pad = -(file.tell() + before) % ALIGNMENT
            info.extra = struct.pack("<HH", PADDING, pad) + bytes(pad)
            with archive.open(info, "w", force_zip64=True) as member:
                header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
                header += " " * (-(len(header) + 11) % ALIGNMENT) + "\n"
                member.write(NPY_MAGIC + struct.pack("<H", len(header)) + header.encode())
                member.write(array.tobytes())


def read_npz(path, map_arrays):
    """(JSON text, {name: array}) of an npz; checksums of what is mapped are not looked at."""
    arrays = {}
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise ValueError("its arrays are compressed")
        if sum(m.file_size for m in members) > os.path.getsize(path):
            raise ValueError("its arrays overlap")
        for info in members:
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                dtype, shape, header = read_npy_header(member, info.file_size)
                if map_arrays and name != "meta":
                    file.seek(info.header_offset + 26)
                    lengths = struct.unpack("<HH", file.read(4))
                    data = mapped(
                        path,
                        info.header_offset + 30 + sum(lengths) + header,
                        info.file_size - header,
                    )
                else:
                    data = bytearray(member.read())  # these can be written to
            arrays[name] = as_array(data, dtype, shape)
    return arrays.pop("meta").tobytes(), arrays


def read_npy_header(member, size):
    """(dtype, shape, bytes of the header) of an array in the npy format 1.0, as NumPy writes it."""
    start = member.read(10)
    if start[:8] != NPY_MAGIC:
        raise ValueError("it holds what is no array of format 1.0")
    length = struct.unpack("<H", start[8:])[0]
    found = NPY_HEADER.fullmatch(member.read(length).decode("latin-1"))
    if found is None:
        raise ValueError("it holds an array that a model does not have")
    dtype, shape = np.dtype(found[1]), tuple(int(n) for n in found[2].split(",") if n.strip())
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != size - 10 - length:
        raise ValueError("an array of it has another size than it says")
    return dtype, shape, 10 + length
