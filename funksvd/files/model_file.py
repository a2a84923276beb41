"""Model files, npz and safetensors: a version, no pickle, written to a temporary name and renamed; and Surprise's models.

Both formats are plain arrays and a piece of JSON. They are read here byte by byte rather than by a library: nothing in
a file is ever executed, memory taken is at most the file's size, and arrays that lie at a multiple of their item size
can be mapped instead of read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np

from funksvd.files.arrays import packed_ids, unpacked_ids
from funksvd.files.npz import read_npz, write_npz
from funksvd.files.safetensors import read_safetensors, write_safetensors
from funksvd.machine.memory import aligned
from funksvd.machine.replacing import replacing
from funksvd.parameters import sizes
from funksvd.posterior import MOST_TERMS
from funksvd.ratings.ids import IdTable
from funksvd.weights import Fitted, Weights

FORMAT = 1  # of the model file
RUNTIME = (
    "n_jobs",
    "verbose",
    "device",
    "schedule",
    "max_device_bytes",
)  # of the machine that trained; not saved
# What zipfile, zlib, json, struct and NumPy raise on bytes that are no whole model.
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
# Id types that a file keeps beside int, str and bytes: how each becomes text and comes back.
ID_TEXT: dict[str, tuple[Callable[..., str], Callable[[str], Any]]] = {
    "UUID": (str, uuid.UUID),
    "datetime": (datetime.isoformat, datetime.fromisoformat),
    "date": (date.isoformat, date.fromisoformat),
}
ID_KINDS = ("int", "str", "bytes", *ID_TEXT)


def save(model, path, training=None, state=None):
    """`FunkSVD.save`; a checkpoint adds what it needs of `training`, as JSON, and arrays."""
    fitted = model._fitted_now()
    params, kept = fitted.weights, kept_params(model)
    history = {k: v for k, v in model.history_.items() if k != "seconds"}
    kinds = [table.kind for table in fitted.tables]
    meta = {
        "format": FORMAT,
        "params": kept,
        "id_kinds": kinds,
        "history": history,
        "n_epochs": model.n_epochs_,
        "n_ratings": model.n_ratings_,
    }
    if training is not None:
        meta["training"] = training
    text = json.dumps(meta, sort_keys=True, default=plain)
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    arrays = {
        name: np.asarray(value, order="C") for name, value in fields.items() if value is not None
    }
    tables = dict(zip(("user", "item"), fitted.tables, strict=True))
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
    return kept | {
        "dtype": "float32" if dtype == np.float16 else dtype.name
    }  # a GPU's storage is not the model's


def stored_ids(table, name):
    """The ids as an array of int, str or bytes."""
    if table.kind not in ID_KINDS:
        raise TypeError(
            f"{name} ids of type {table.kind} cannot be saved; use int, str, bytes or one of {', '.join(ID_TEXT)}"
        )
    if table.kind in ID_TEXT:
        return np.array([ID_TEXT[table.kind][0](x) for x in table.ids])
    if (
        table.ids.dtype.kind == "O" and table.kind == "bytes"
    ):  # an array of bytes drops zeros at the end
        return np.array([x.hex() for x in table.ids])
    if table.ids.dtype.kind == "O":
        raise TypeError(f"{name} ids that are str and end with NUL cannot be saved; strip them")
    return table.ids


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
            raise ValueError(
                f"it has format {version}, this funksvd reads up to {FORMAT}; upgrade funksvd"
            )
        model = make(**meta["params"])
        tables = [
            table_of(unpacked_ids(f"{name}_ids", arrays), kind, name)
            for name, kind in zip(("user", "item"), meta["id_kinds"], strict=True)
        ]
        fields = [field.name for field in dataclasses.fields(Weights)]
        own = {name: arrays.pop(name) for name in fields if name in arrays}
        params = Weights(**own | {"global_mean": float(own["global_mean"])})
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
                factors = aligned(*read_only.shape, model.dtype)
                factors[:] = read_only
                params = dataclasses.replace(params, **{name: factors})
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise ValueError(f"{path} is not a funksvd model: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a whole funksvd model: {error}") from error
    model._take_over(Fitted(params, tuple(tables)), history, n_epochs, n_ratings)
    return model, meta.get("training"), arrays


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
            raise ValueError(
                f"its {name} arrays have shapes {shapes}, expected {len(table)} rows of {width}"
            )
        posterior = getattr(params, f"{name}_posterior")
        if (posterior is None) != (params.noise is None):
            raise ValueError(f"its {name} posterior or its noise is missing")
        if posterior is not None and (posterior.shape, params.noise.shape) != (
            (len(table) + 1, 4),
            (3,),
        ):
            raise ValueError(
                f"its {name} posterior and its noise have shapes {posterior.shape} and {params.noise.shape}, expected"
                f" {(len(table) + 1, 4)} and (3,)"
            )


def checked_history(history):
    """ValueError where it is not {name: list of numbers}."""
    lists = history.values() if isinstance(history, dict) else [None]
    if not all(
        isinstance(values, list) and all(isinstance(x, (int, float)) for x in values)
        for values in lists
    ):
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
