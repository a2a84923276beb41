"""Model files, npz and safetensors: a version, no pickle, written to a temporary name and renamed; and Surprise's models.

Both formats are plain arrays and a piece of JSON. They are read here byte by byte rather than by a library: nothing in
a file is ever executed, memory taken is at most the file's size, and arrays that lie at a multiple of their item size
can be mapped instead of read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import mmap
import os
import re
import struct
import threading
import uuid
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np

from funksvd import engine as engines
from funksvd.gibbs import MOST_TERMS
from funksvd.ids import IdTable, table_and_keys
from funksvd.parameters import sizes

FORMAT = 1  # of the model file
RUNTIME = ("n_jobs", "verbose", "device", "schedule", "max_device_bytes")  # of the machine that trained; not saved
ALIGNMENT = 64
PADDING = 0xD935  # the extra field of a zip member that aligns it (as Android's zipalign)
NPY_MAGIC = b"\x93NUMPY\x01\x00"  # of format 1.0
NPY_HEADER = re.compile(r"\{'descr': '([<>|][iufUSb]\d+)', 'fortran_order': False, 'shape': \(((?:\d+, ?)*\d*)\), \}\s*")
TENSOR_TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}  # safetensors' names

# What zipfile, zlib, json, struct and NumPy raise on bytes that are no whole model.
UNREADABLE = (ValueError, LookupError, TypeError, EOFError, AttributeError, ArithmeticError, RuntimeError, MemoryError,
              zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip

# Id types that a file keeps beside int, str and bytes: how each becomes text and comes back.
ID_TEXT: dict[str, tuple[Callable[..., str], Callable[[str], Any]]] = {
    "UUID": (str, uuid.UUID),
    "datetime": (datetime.isoformat, datetime.fromisoformat),
    "date": (date.isoformat, date.fromisoformat),
}
ID_KINDS = ("int", "str", "bytes", *ID_TEXT)


def save(model, path, training=None, state=None):
    """`FunkSVD.save`; a checkpoint adds what it needs of `training`, as JSON, and arrays."""
    params, kept = model._weights(), kept_params(model)
    history = {k: v for k, v in model.history_.items() if k != "seconds"}
    kinds = [table.kind for table in model._tables]
    meta = {"format": FORMAT, "params": kept, "id_kinds": kinds, "history": history, "n_epochs": model.n_epochs_,
            "n_ratings": model.n_ratings_}  # fmt: skip
    if training is not None:
        meta["training"] = training
    text = json.dumps(meta, sort_keys=True, default=plain)
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    arrays = {name: np.asarray(value, order="C") for name, value in fields.items() if value is not None}
    tables = dict(zip(("user", "item"), model._tables, strict=True))
    if str(path).endswith(".safetensors"):
        for name, table in tables.items():
            arrays |= packed_ids(f"{name}_ids", stored_ids(table, name))
        write = write_safetensors
    else:
        arrays = {f"{name}_ids": stored_ids(table, name) for name, table in tables.items()} | arrays
        write = write_npz
    with replacing(path) as file:
        write(file, text, arrays | (state or {}))


def plain(value):
    """What JSON does not know: a NumPy number as one of Python's; TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a file cannot keep a {type(value).__name__}, got {value!r}")


def kept_params(model):
    """The parameters that a file keeps."""
    kept = {k: v for k, v in model.get_params().items() if k not in RUNTIME and not callable(v)}
    dtype = np.dtype(model.dtype)
    return kept | {"dtype": "float32" if dtype == np.float16 else dtype.name}  # a GPU's storage is not the model's


def stored_ids(table, name):
    """The ids as an array of int, str or bytes."""
    if table.kind not in ID_KINDS:
        raise TypeError(
            f"{name} ids of type {table.kind} cannot be saved; use int, str, bytes or one of {', '.join(ID_TEXT)}"
        )
    if table.kind in ID_TEXT:
        return np.array([ID_TEXT[table.kind][0](x) for x in table.ids])
    if table.ids.dtype.kind == "O" and table.kind == "bytes":  # an array of bytes drops zeros at the end
        return np.array([x.hex() for x in table.ids])
    if table.ids.dtype.kind == "O":
        raise TypeError(f"{name} ids that are str and end with NUL cannot be saved; strip them")
    return table.ids


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """A file that takes the place of `path` when all of it is written; after an error the old one is still there."""
    target = os.path.realpath(os.fspath(path))
    temporary = temporary_beside(target)
    try:
        with open(temporary, mode, **options) as file:
            yield file
        with contextlib.suppress(FileNotFoundError):  # who may read the old one may read the new one
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        raise OSError(error.errno, error.strerror, path) from error  # the name that the caller knows
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def temporary_beside(target):
    """A name for the unfinished file, of this thread alone, in the folder of `target`."""
    return os.path.join(os.path.dirname(target), f".funksvd-{os.getpid()}-{threading.get_ident()}.tmp")


def check_writable(path):
    """OSError or ValueError, before any work, where `replacing` could not write: it tries the temporary file."""
    if not path:
        raise ValueError("the name of a file to write is empty")
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot write {path}: it is a directory; add a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"cannot write {path}: it is no regular file, and it would be replaced")
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    if not os.path.isdir(directory):
        raise FileNotFoundError(f"cannot write {path}: the directory {directory!r} does not exist; create it first")
    temporary = temporary_beside(target)
    try:
        os.stat(target)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long
        raise OSError(f"cannot write {path}: {error.strerror}") from error
    try:
        with open(temporary, "wb"):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path}: the directory {directory!r} is not writable ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def load(path, make, map_arrays=False):
    """`funksvd.load`; `make` is the class of the model."""
    return opened(path, make, map_arrays)[0]


def opened(path, make, map_arrays=False):
    """(model, what the file says of its training or None, arrays that are not the model's)."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        read = read_npz if start[:2] == b"PK" else read_safetensors
        text, arrays = read(path, map_arrays)
        meta = json.loads(text)
        version = meta["format"]
        if type(version) is not int or version < 1:
            raise ValueError(f"its format is {version!r}")
        if version > FORMAT:
            raise ValueError(f"it has format {version}, this funksvd reads up to {FORMAT}; upgrade funksvd")
        model = make(**meta["params"])
        tables = [
            table_of(unpacked_ids(f"{name}_ids", arrays), kind, name)
            for name, kind in zip(("user", "item"), meta["id_kinds"], strict=True)
        ]
        fields = [field.name for field in dataclasses.fields(engines.Params)]
        own = {name: arrays.pop(name) for name in fields if name in arrays}
        params = engines.Params(float(own.pop("global_mean")), **own)
        model._check_params()
        check_shapes(model, params, tables)
        history, n_epochs = checked_history(meta["history"]), meta["n_epochs"]
        n_ratings = meta["n_ratings"]
        for number, name in ((n_epochs, "epochs"), (n_ratings, "ratings")):
            if not isinstance(number, int) or number < 0:
                raise ValueError(f"its number of {name} is {number!r}")
        if not math.isfinite(params.global_mean):
            raise ValueError(f"its mean is {params.global_mean}")
        if not map_arrays:
            for name in ("user_biases", "item_biases", "user_factors", "item_factors"):
                if not np.isfinite(getattr(params, name)).all():
                    raise ValueError(f"its {name} hold NaN or infinity")
            for name in ("user_factors", "item_factors"):
                read_only = getattr(params, name)
                factors = engines.aligned(*read_only.shape, model.dtype)
                factors[:] = read_only
                setattr(params, name, factors)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise ValueError(f"{path} is not a funksvd model: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a whole funksvd model: {error}") from error
    return fitted(model, tables, params, history, n_epochs, n_ratings), meta.get("training"), arrays


def fitted(model, tables, params, history, n_epochs, n_ratings):
    """The model with what `fit` would have set."""
    model.n_ratings_ = n_ratings
    model._tables, model.history_, model.n_epochs_, model.interrupted_ = tuple(tables), history, n_epochs, False
    model._adopt(params)
    return model


def check_shapes(model, params, tables):
    """ValueError where arrays do not fit each other."""
    for name, table in zip(("user", "item"), tables, strict=True):
        factors, biases = getattr(params, f"{name}_factors"), getattr(params, f"{name}_biases")
        if not factors.dtype == biases.dtype == model.dtype:
            raise ValueError(f"its {name} factors are not {model.dtype}")
        shapes = biases.shape, factors.shape
        width = sizes(model.get_params())[0]
        if params.noise is not None and model.average == "low_rank":
            width *= min(max(params.user_factors.shape[-1] // width, 2), MOST_TERMS)
        if shapes != ((len(table),), (len(table), width)):
            raise ValueError(f"its {name} arrays have shapes {shapes}, expected {len(table)} rows of {width}")
        posterior = getattr(params, f"{name}_posterior")
        if (posterior is None) != (params.noise is None):
            raise ValueError(f"its {name} posterior or its noise is missing")
        if posterior is not None and (posterior.shape, params.noise.shape) != ((len(table) + 1, 4), (3,)):
            raise ValueError(
                f"its {name} posterior and its noise have shapes {posterior.shape} and {params.noise.shape}, expected"
                f" {(len(table) + 1, 4)} and (3,)"
            )


def checked_history(history):
    """ValueError where it is not {name: list of numbers}."""
    lists = history.values() if isinstance(history, dict) else [None]
    if not all(isinstance(values, list) and all(isinstance(x, (int, float)) for x in values) for values in lists):
        raise ValueError("its history is not lists of numbers")
    return history


def table_of(ids, kind, name):
    """The id table of a file's array."""
    array_kinds = {"int": "iu", "str": "U", "bytes": "SU"}.get(kind, "U")
    if kind not in ID_KINDS or ids.dtype.kind not in array_kinds or ids.ndim != 1 or not len(ids):
        raise ValueError(f"its {name} ids are not a list of ids of type {kind!r}")
    if kind in ID_TEXT or (kind, ids.dtype.kind) == ("bytes", "U"):
        come_back = bytes.fromhex if kind == "bytes" else ID_TEXT[kind][1]
        values = [come_back(x) for x in ids.tolist()]
        ids = np.empty(len(values), object)
        ids[:] = values
    if ids.dtype == np.uint64:
        raise ValueError(f"its {name} ids are uint64; they must be int64")
    if kind == "int":  # sorted, as the search for sparse ids needs
        distinct = bool((ids[1:] > ids[:-1]).all())
    else:
        distinct = len(set(ids.tolist())) == len(ids)
    if not distinct:
        raise ValueError(f"its {name} ids are not a list of distinct ids")
    return IdTable(ids)


def write_npz(file, text, arrays):
    """What np.savez writes, with the data of each array at a multiple of 64 bytes, so that it can be mapped."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {"meta": np.frombuffer(text.encode(), np.uint8), **arrays}.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            before = 30 + len(info.filename) + 20 + 4  # the header, the sizes in 64 bits, the head of the extra field
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
                    data = mapped(path, info.header_offset + 30 + sum(lengths) + header, info.file_size - header)
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


def mapped(path, offset, size):
    """The bytes of a file as a read-only map, shared by all processes that map it."""
    if size == 0:
        return b""
    first = offset - offset % mmap.ALLOCATIONGRANULARITY
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), offset + size - first, access=mmap.ACCESS_READ, offset=first)
    return memoryview(whole)[offset - first :]


def as_array(data, dtype, shape):
    """An array of the bytes, in the byte order of the machine; a copy only where they lie at odd places."""
    array = np.frombuffer(data, dtype).reshape(shape)
    native = array.astype(dtype.newbyteorder("="), copy=False)
    return native if native.flags.aligned else native.copy()


def write_safetensors(file, text, arrays):
    """The format of Hugging Face's safetensors: the length of the header, the header as JSON, the arrays without gaps."""
    names = {dtype: name for name, dtype in TENSOR_TYPES.items()}
    arrays = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in arrays.items()}
    arrays = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))  # wide ones first: all aligned
    header, end = {"__metadata__": {"funksvd": text}}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype.str], "shape": list(array.shape), "data_offsets": [start, end]}
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
            if not all(isinstance(n, int) and n >= 0 for n in [first, *shape]) or first > size - data:
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


def from_surprise(algo, make):
    """`funksvd.from_surprise`; `make` is the class of the model."""
    trainset = getattr(algo, "trainset", None)
    if trainset is None or not any(hasattr(algo, name) for name in ("pu", "bu")):
        raise TypeError(f"algo must be a fitted SVD, SVDpp, NMF or BaselineOnly of Surprise, got {type(algo).__name__}")
    n_users, n_items = trainset.n_users, trainset.n_items
    biased = bool(getattr(algo, "biased", True))
    user_factors = np.array(getattr(algo, "pu", np.zeros((n_users, 1))), np.float64)
    item_factors = np.array(getattr(algo, "qi", np.zeros((n_items, 1))), np.float64)
    if hasattr(algo, "yj"):  # SVD++: what a user has rated adds to his factors, and is known by now
        for user, rated in trainset.ur.items():
            user_factors[user] += algo.yj[[item for item, _ in rated]].sum(axis=0) / np.sqrt(len(rated))
    biases = [np.array(getattr(algo, name), np.float64) if biased else np.zeros(n) for name, n in
              (("bu", n_users), ("bi", n_items))]  # fmt: skip
    sides = []
    for name, n, to_raw, factors, bias in (
        ("user", n_users, trainset.to_raw_uid, user_factors, biases[0]),
        ("item", n_items, trainset.to_raw_iid, item_factors, biases[1]),
    ):
        raw = [to_raw(inner) for inner in range(n)]
        table = table_and_keys(raw, name)[0]
        place = table.encode(raw, name)
        sides.append((table, np.empty_like(bias), engines.aligned(n, factors.shape[1], np.float64)))
        sides[-1][1][place], sides[-1][2][place] = bias, factors
    (users, user_biases, p), (items, item_biases, q) = sides
    mean = float(trainset.global_mean) if biased else 0.0
    scale = tuple(map(float, trainset.rating_scale))
    model = make(n_factors=p.shape[1], biased=biased, rating_scale=scale, dtype="float64",
                 n_epochs=max(1, int(getattr(algo, "n_epochs", 1))))  # fmt: skip
    return fitted(model, (users, items), engines.Params(mean, user_biases, item_biases, p, q), {}, model.n_epochs,
                  sum(map(len, trainset.ur.values())))  # fmt: skip
