"""Arrays and ids as the model files hold them."""

from __future__ import annotations

import mmap

import numpy as np

ALIGNMENT = 64


def mapped(path, offset, size):
    """The bytes of a file as a read-only map, shared by all processes that map it."""
    if size == 0:
        return b""
    first = offset - offset % mmap.ALLOCATIONGRANULARITY
    with open(path, "rb") as file:
        whole = mmap.mmap(
            file.fileno(), offset + size - first, access=mmap.ACCESS_READ, offset=first
        )
    return memoryview(whole)[offset - first :]


def as_array(data, dtype, shape):
    """An array of the bytes, in the byte order of the machine; a copy only where they lie at odd places."""
    array = np.frombuffer(data, dtype).reshape(shape)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native if native.flags.aligned else native.copy()


def packed_ids(name, ids):
    """Ids as arrays of numbers: int64, or the UTF-8 (or bytes) of all one after the other and where each ends."""
    if ids.dtype.kind in "iu":
        return {name: ids.astype(np.int64)}
    pieces = ids.tolist() if ids.dtype.kind == "S" else [x.encode() for x in ids.tolist()]
    kind = "bytes" if ids.dtype.kind == "S" else "utf8"
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return {f"{name}.{kind}": np.frombuffer(b"".join(pieces), np.uint8), f"{name}.ends": ends}


def unpacked_ids(name, arrays):
    """The ids of `packed_ids`, or as they stand in an npz; their arrays are taken out of `arrays`."""
    if name in arrays:
        return arrays.pop(name)
    ends = arrays.pop(f"{name}.ends")
    kind = "bytes" if f"{name}.bytes" in arrays else "utf8"
    content = arrays.pop(f"{name}.{kind}").tobytes()
    starts = np.append(0, ends[:-1])
    if (ends < starts).any() or ends[-1] != len(content):
        raise ValueError(f"its {name} do not end where they say")
    pieces = [content[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return np.array(pieces if kind == "bytes" else [piece.decode() for piece in pieces])
