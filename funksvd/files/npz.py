"""Models as npz archives, written and read without pickle.

An npz is a zip file of arrays in the npy format. NumPy reads these files, and they are what
`np.savez` writes but for one thing: the data of every array starts at a multiple of 64 bytes, so
that it can be mapped into memory.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from typing import IO, Any, NamedTuple

import numpy as np

from funksvd.files.arrays import ALIGNMENT, Arrays, as_array, mapped, size_of

# The extra field of a zip member that aligns its data, as of Android's zipalign.
PADDING = 0xD935
# Bytes of a member before its padding: the zip header without the name, the sizes in 64 bits, and
# the head of the extra field.
ZIP_HEADER = 30
ZIP_SIZES = 20
EXTRA_HEAD = 4
# Place, in a member's header, of the lengths of its name and of its extra fields.
ZIP_LENGTHS = 26
# Of the npy format 1.0. The length of the header follows, as two bytes.
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_START = len(NPY_MAGIC) + 2
NPY_HEADER = re.compile(
    r"\{'descr': '([<>|][iufUSb]\d+)', 'fortran_order': False, "
    r"'shape': \(((?:\d+, ?)*\d*)\), \}\s*"
)


class NpyHeader(NamedTuple):
    """The header of an array in the npy format, and its own size in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int


def write_npz(
    file: IO[bytes],
    text: str,
    arrays: Arrays,
) -> None:
    """Write the JSON text of a model, as an array of bytes named "meta", and its arrays."""
    meta = np.frombuffer(text.encode(), np.uint8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"meta": meta, **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            before = ZIP_HEADER + len(info.filename) + ZIP_SIZES + EXTRA_HEAD
            padding = -(file.tell() + before) % ALIGNMENT
            info.extra = struct.pack("<HH", PADDING, padding) + bytes(padding)
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(npy_header(array))
                member.write(array.tobytes())


def npy_header(array: np.ndarray) -> bytes:
    """Return the header of an array in the npy format, a multiple of 64 bytes long."""
    descr = array.dtype.str
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padding = -(NPY_START + len(header) + 1) % ALIGNMENT
    header += " " * padding + "\n"
    return NPY_MAGIC + struct.pack("<H", len(header)) + header.encode()


def read_npz(file: IO[bytes], map_arrays: bool) -> tuple[str, Arrays]:
    """Return (JSON text, arrays by name) of an open npz.

    With `map_arrays` the arrays are maps of the file, whose checksums are not checked.

    Raises
    ------
    ValueError, zipfile.BadZipFile, ...
        If the file is damaged or no model; see `model_file.UNREADABLE`.
    """
    arrays: Arrays = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_members(members, size_of(file))
        for info in members:
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                header = read_npy_header(member, info.file_size)
                data: Any
                if map_arrays and name != "meta":
                    start = data_start(file, info) + header.size
                    data = mapped(file, start, info.file_size - header.size)
                else:
                    data = bytearray(member.read())  # unlike bytes, it can be written to
            arrays[name] = as_array(data, header.dtype, header.shape)
    text = arrays.pop("meta").tobytes().decode()
    return text, arrays


def check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError if members could take more memory than the file of `size` bytes."""
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its arrays are compressed")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its arrays overlap")


def data_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return the offset in the file at which the content of a member starts."""
    file.seek(info.header_offset + ZIP_LENGTHS)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    return int(info.header_offset + ZIP_HEADER + name_length + extra_length)


def read_npy_header(member: IO[bytes], size: int) -> NpyHeader:
    """Read the header of an array in the npy format 1.0, as NumPy writes it.

    Parameters
    ----------
    member : file at its start, left at the start of the data
    size : bytes of the member

    Raises
    ------
    ValueError
        If it is no such header, or if the array has another size than the member.
    """
    start = member.read(NPY_START)
    if start[: len(NPY_MAGIC)] != NPY_MAGIC:
        raise ValueError("it holds a member that is no array of format 1.0")
    (length,) = struct.unpack("<H", start[len(NPY_MAGIC) :])
    text = member.read(length).decode("latin-1")
    found = NPY_HEADER.fullmatch(text)
    if found is None:
        raise ValueError("it holds an array that a model does not have")
    dtype = np.dtype(found[1])
    lengths = found[2].split(",")
    shape = tuple(int(length) for length in lengths if length.strip())
    n_bytes = math.prod(shape) * dtype.itemsize
    if dtype.itemsize == 0 or n_bytes != size - NPY_START - length:
        raise ValueError("an array of it has another size than it says")
    return NpyHeader(dtype, shape, NPY_START + length)
