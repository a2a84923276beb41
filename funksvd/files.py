"""The model file: npz with a version and no pickle, written to a temporary name and renamed."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import numpy as np

from funksvd import engine as engines
from funksvd.ratings import IdTable

FORMAT = 1  # of the model file
RUNTIME = ("n_jobs", "verbose", "device")  # parameters that change no bit of the model, and are not saved

# What NumPy, zipfile, zlib and json raise on bytes that are no whole model.
UNREADABLE = (ValueError, LookupError, TypeError, EOFError, AttributeError, ArithmeticError, RuntimeError, MemoryError,
              zipfile.BadZipFile, zlib.error)  # fmt: skip

# Id types that a file keeps beside int, str and bytes: how each becomes text and comes back.
ID_TEXT: dict[str, tuple[Callable[..., str], Callable[[str], Any]]] = {
    "UUID": (str, uuid.UUID),
    "datetime": (datetime.isoformat, datetime.fromisoformat),
    "date": (date.isoformat, date.fromisoformat),
}


def save(model, path):
    """`FunkSVD.save`."""
    params = model._weights()
    ids = []
    for table, name in zip(model._tables, ("user", "item"), strict=True):
        if table.ids.dtype.kind == "O" and table.kind not in ID_TEXT:
            raise TypeError(
                f"{name} ids of type {table.kind} cannot be saved; use int, str, bytes or one of {', '.join(ID_TEXT)}"
            )
        ids.append(np.array([ID_TEXT[table.kind][0](x) for x in table.ids]) if table.kind in ID_TEXT else table.ids)
    kept = {k: v for k, v in model.get_params().items() if k not in RUNTIME}
    kept["dtype"] = str(np.dtype(model.dtype))
    history = {k: v for k, v in model.history_.items() if k != "seconds"}
    kinds = [table.kind for table in model._tables]
    meta = {"format": FORMAT, "params": kept, "id_kinds": kinds, "history": history, "n_epochs": model.n_epochs_}
    with replacing(path) as file:
        np.savez(file, meta=np.frombuffer(json.dumps(meta, sort_keys=True, default=float).encode(), np.uint8),
                 global_mean=np.float64(params.global_mean), user_ids=ids[0], item_ids=ids[1],
                 user_biases=params.user_biases, item_biases=params.item_biases,
                 user_factors=params.user_factors, item_factors=params.item_factors)  # fmt: skip


@contextlib.contextmanager
def replacing(path, mode="wb", **options):
    """A file that takes the place of `path` when all of it is written; after an error the old one is still there."""
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(temporary, mode, **options) as file:
            yield file
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def load(path, make):
    """`funksvd.load`; `make` is the class of the model."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        version = meta["format"]
        if version > FORMAT:
            raise ValueError(f"it has format {version}, this funksvd reads up to {FORMAT}; upgrade funksvd")
        model = make(**meta["params"])
        users, items = (
            table_of(arrays.pop(name), kind)
            for name, kind in zip(("user_ids", "item_ids"), meta["id_kinds"], strict=True)
        )
        params = engines.Params(float(arrays.pop("global_mean")), **arrays)
        k = model.n_factors
        model._check_params()
        for name, table in (("user", users), ("item", items)):
            if table.ids.ndim != 1 or len(np.unique(table.ids)) != len(table):
                raise ValueError(f"its {name} ids are not a list of distinct ids")
            if getattr(params, f"{name}_factors").dtype != model.dtype:
                raise ValueError(f"its {name} factors are not {model.dtype}")
            shapes = getattr(params, f"{name}_biases").shape, getattr(params, f"{name}_factors").shape
            if shapes != ((len(table),), (len(table), k)):
                raise ValueError(f"its {name} arrays have shapes {shapes}, expected {len(table)} rows of {k}")
            factors = engines.aligned(len(table), k, model.dtype)
            factors[:] = getattr(params, f"{name}_factors")
            setattr(params, f"{name}_factors", factors)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            raise
        raise ValueError(f"{path} is not a funksvd model: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a whole funksvd model: {error}") from error
    model._tables, model.history_, model.n_epochs_ = (users, items), meta["history"], meta["n_epochs"]
    model.interrupted_ = False
    model._adopt(params)
    return model


def table_of(ids, kind):
    """The id table of a file's array."""
    if kind in ID_TEXT:
        values = [ID_TEXT[kind][1](x) for x in ids.tolist()]
        ids = np.empty(len(values), object)
        ids[:] = values
    return IdTable(ids)
