"""Damaged and hostile copies of files: noise in their bytes, and false values in their records."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# Whole numbers at the edges of what a length or an offset may be.
EDGES = (0, -1, 1, 2**31, 2**40, 2**62, -(2**62))
DTYPES = ("f8", "i8", "i1", "u4", "S3", "f2", ">i4")


# ---- bytes ---------------------------------------------------------------------------------------


def replace_a_byte(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Give one byte another value."""
    data[at] = int(rng.integers(256))


def delete_bytes(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Delete up to 60 bytes."""
    del data[at : at + int(rng.integers(1, 60))]


def insert_noise(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Insert up to 12 random bytes."""
    data[at:at] = rng.bytes(int(rng.integers(1, 12)))


def write_an_edge(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Write a whole number over 4 or 8 bytes."""
    edge = EDGES[int(rng.integers(len(EDGES)))]
    number = struct.pack("<q", edge)[: int(rng.choice([4, 8]))]
    data[at : at + len(number)] = number


def repeat_bytes(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Repeat up to 4000 bytes."""
    data[at:at] = data[at : at + int(rng.integers(1, 4000))]


def cut(data: bytearray, at: int, rng: np.random.Generator) -> None:
    """Delete all bytes from a place on."""
    del data[at:]


DAMAGES: tuple[Callable[[bytearray, int, np.random.Generator], None], ...] = (
    replace_a_byte,
    delete_bytes,
    insert_noise,
    write_an_edge,
    repeat_bytes,
    cut,
)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with one to five damages."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data)))
        DAMAGES[int(rng.integers(len(DAMAGES)))](data, at, rng)
        if not data:
            data = bytearray(b"x")
    return bytes(data)


# ---- records (JSON) ------------------------------------------------------------------------------


def false_value(old: Any, elsewhere: Path, rng: np.random.Generator) -> Any:
    """Return a value that should not stand where `old` stands."""
    numbers = [-1, 0, 1, 2**31, 2**63, 1e308, float("nan"), float("inf"), -0.5]
    texts = ["", "x", str(elsewhere), "\x1b[2J", "é" * 50]
    others = [None, [], {}, True, [[]], {"array": "state.run_factors"}, [old], str(old)]
    values = [*numbers, *texts, *others]
    return values[int(rng.integers(len(values)))]


def falsify(record: Any, elsewhere: Path, rng: np.random.Generator) -> None:
    """Remove or replace one value somewhere in a record, or add one."""
    if not isinstance(record, (dict, list)) or not record:
        return
    keys: list[Any] = list(record) if isinstance(record, dict) else list(range(len(record)))
    key = keys[int(rng.integers(len(keys)))]
    act = rng.random()
    if act < 0.15:
        del record[key]
    elif act < 0.25 and isinstance(record, dict):
        record["path"] = str(elsewhere)
        record["__class__"] = "x"
    elif act < 0.5 or not isinstance(record[key], (dict, list)):
        record[key] = false_value(record[key], elsewhere, rng)
    else:
        falsify(record[key], elsewhere, rng)


# ---- model files ---------------------------------------------------------------------------------


def npz_parts(content: bytes) -> tuple[Any, Arrays]:
    """Return (record, arrays by name) of a model file."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("meta").tobytes()), arrays


def npz_of(record: Any, arrays: Arrays) -> bytes:
    """Return a model file of a record and arrays."""
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"meta": text, **arrays}.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array), version=(1, 0))
            archive.writestr(f"{name}.npy", member.getvalue())
    return out.getvalue()


def false_array(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an array of another dtype or shape, or with other numbers."""
    act = int(rng.integers(7))
    with np.errstate(all="ignore"):
        if act == 0:
            return array.astype(DTYPES[int(rng.integers(len(DTYPES)))])
        if act == 1:
            return array[..., None]
        if act == 2:
            return array.ravel()[:3]
        if act == 3:
            return np.zeros(0)
        if array.dtype.kind not in "if" or not array.size:
            return array[::-1] if array.ndim else array
        edge = rng.choice([-1, 0, 1, 127, 2**30])
        if act == 4:
            return np.full_like(array, edge)
        changed = array.copy()
        changed.ravel()[int(rng.integers(array.size))] = edge
    return changed


def hostile_npz(content: bytes, elsewhere: Path, rng: np.random.Generator) -> bytes:
    """Return a model file with false values in its record and false arrays."""
    record, arrays = npz_parts(content)
    for _ in range(int(rng.integers(0, 3))):
        falsify(record, elsewhere, rng)
    names = list(arrays)
    for _ in range(int(rng.integers(0, 3))):
        name = names[int(rng.integers(len(names)))]
        arrays[name] = false_array(arrays[name], rng)
    return npz_of(record, arrays)


def hostile_safetensors(content: bytes, elsewhere: Path, rng: np.random.Generator) -> bytes:
    """Return a safetensors file whose header, or the model's record in it, has false values."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    inner = header.get("__metadata__", {})
    name = next(iter(inner), None)
    if name is not None and rng.random() < 0.5:
        record = json.loads(inner[name])
        falsify(record, elsewhere, rng)
        inner[name] = json.dumps(record)
    else:
        falsify(header, elsewhere, rng)
    text = json.dumps(header, default=str).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
