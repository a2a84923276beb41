"""Model files, npz and safetensors: written whole or not at all, and read without pickle.

Both formats are plain arrays and a piece of JSON. They are read here byte by byte rather than by a
library: nothing in a file is ever executed, reading takes no more memory than the file is large,
and arrays that lie at a multiple of their item size can be mapped instead of read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from funksvd.files.arrays import Arrays
from funksvd.files.ids import packed_ids, stored_ids, table_of, unpacked_ids
from funksvd.files.npz import read_npz, write_npz
from funksvd.files.safetensors import read_safetensors, write_safetensors
from funksvd.hyper import sizes
from funksvd.machine.memory import aligned
from funksvd.machine.replacing import FilePath, replacing
from funksvd.posterior import MOST_TERMS
from funksvd.ratings.ids import IdTable
from funksvd.weights import Fitted, Trained, Weights, check_sets

# Version of the format of model files.
FORMAT = 1
SIDES = ("user", "item")
# Parameters of the machine that trained a model; a file does not keep them.
RUNTIME = (
    "n_jobs",
    "verbose",
    "device",
    "schedule",
    "max_device_bytes",
)
# The errors that zipfile, zlib, json, struct and NumPy raise on bytes that are no whole model.
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


# Endings of formats that a model file is not in.
OTHER_ENDINGS = (".pkl", ".pickle", ".joblib", ".h5", ".hdf5", ".keras", ".pt", ".pth", ".onnx")


class Opened(NamedTuple):
    """The content of a model file.

    model : the model
    training : the part of the JSON that describes a checkpoint's training, or None
    arrays : arrays by name that are not the model's
    """

    model: Any
    training: dict[str, Any] | None
    arrays: Arrays


def save(
    model: Any,
    path: FilePath,
    training: dict[str, Any] | None = None,
    state: Arrays | None = None,
) -> None:
    """Write a model file; see `FunkSVD.save`.

    Parameters
    ----------
    model : FunkSVD
        A fitted model, or one in the middle of `fit`.
    path : safetensors if it ends so, else npz
    training, state : of a checkpoint
        What it needs of the training, as JSON, and more arrays by name.
    """
    check_ending(path)
    fitted = model._fitted_now()
    meta = about_model(model, fitted)
    if training is not None:
        meta["training"] = training
    text = json.dumps(meta, sort_keys=True, default=plain)
    is_safetensors = str(path).endswith(".safetensors")
    arrays: Arrays = {}
    for name, table in zip(SIDES, fitted.tables, strict=True):
        ids = stored_ids(table, name)
        if is_safetensors or ids.dtype.kind == "O":
            arrays |= packed_ids(f"{name}_ids", ids)
        else:
            arrays[f"{name}_ids"] = ids
    arrays |= weight_arrays(fitted.weights)
    arrays |= state or {}
    write = write_safetensors if is_safetensors else write_npz
    with replacing(path) as file:
        write(file, text, arrays)


def check_ending(path: FilePath) -> None:
    """Raise ValueError if a name ends as files of another format do."""
    _, ending = os.path.splitext(os.fspath(path))
    if str(ending).lower() in OTHER_ENDINGS:
        raise ValueError(
            f"{path}: a model is saved as npz or as safetensors, and a name that ends with"
            f" {ending} would say otherwise; pickle.dump(model, file) makes a pickle"
        )


def about_model(model: Any, fitted: Fitted) -> dict[str, Any]:
    """Return what a file says of a model beside its arrays."""
    history = dict(fitted.trained.history)
    history.pop("seconds", None)
    return {
        "format": FORMAT,
        "params": kept_params(model),
        "id_kinds": [table.kind for table in fitted.tables],
        "history": history,
        "n_epochs": fitted.trained.n_epochs,
        "n_ratings": fitted.trained.n_ratings,
        "content": fitted.trained.content,
    }


def weight_arrays(weights: Weights) -> Arrays:
    """Return the weights that a model has, as contiguous arrays by name."""
    arrays = {}
    for field in dataclasses.fields(weights):
        value = getattr(weights, field.name)
        if value is not None:
            arrays[field.name] = np.asarray(value, order="C")
    return arrays


def plain(value: Any) -> Any:
    """Return a NumPy number as one of Python's, which JSON knows; TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a file cannot keep a {type(value).__name__}, got {value!r}")


def kept_params(model: Any) -> dict[str, Any]:
    """Return the parameters that a file keeps: all but the machine's and those that are functions.

    The model of a GPU that stores float16 is float32.
    """
    kept = {}
    for name, value in model.get_params().items():
        if name not in RUNTIME and not callable(value):
            kept[name] = value
    dtype = np.dtype(model.dtype)
    kept["dtype"] = "float32" if dtype == np.float16 else dtype.name
    return kept


def load(
    path: FilePath,
    make: Callable[..., Any],
    map_arrays: bool = False,
) -> Any:
    """Return the model in a file; see `funksvd.load`. `make` is the class of the model."""
    return opened(path, make, map_arrays).model


def opened(
    path: FilePath,
    make: Callable[..., Any],
    map_arrays: bool = False,
) -> Opened:
    """Read a model file, build the model, and check that all of it fits together.

    Raises
    ------
    ValueError
        If the file is no whole model, or is one of a newer version.
    OSError
        If there is no such file, or it may not be read.
    """
    try:
        meta, arrays = read_file(path, map_arrays)
        check_format(meta["format"])
        model = make(**meta["params"])
        model._check_params()
        tables = read_tables(arrays, meta["id_kinds"])
        weights = read_weights(arrays)
        check_shapes(model, weights, tables)
        check_moods(weights, len(tables[0]))
        check_exposure(weights)
        check_mean(weights)
        check_history(meta["history"])
        check_count(meta["n_epochs"], "epochs")
        check_count(meta["n_ratings"], "ratings")
        if not map_arrays:
            check_values(weights)
            weights = with_aligned_factors(weights)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except OSError as error:
        raise ValueError(f"{path} is not a funksvd model: {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a whole funksvd model: {error}") from error
    content = meta.get("content")  # files of earlier versions have none
    trained = Trained(meta["history"], meta["n_epochs"], meta["n_ratings"], content)
    model._take_over(Fitted(weights, tables, trained))
    return Opened(model, meta.get("training"), arrays)


def read_file(path: FilePath, map_arrays: bool) -> tuple[dict[str, Any], Arrays]:
    """Return (JSON, arrays by name) of a file of either format.

    It is opened once, so that all is of one file, also if another one takes its name meanwhile.
    """
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
        read = read_npz if is_zip else read_safetensors
        text, arrays = read(file, map_arrays)
    return json.loads(text), arrays


def check_format(version: Any) -> None:
    """Raise ValueError if the format of a file is none, or one of a newer funksvd."""
    if type(version) is not int or version < 1:
        raise ValueError(f"its format is {version!r}")
    if version > FORMAT:
        raise ValueError(
            f"it has format {version}, this funksvd reads up to {FORMAT}; upgrade funksvd"
        )


def read_tables(arrays: Arrays, kinds: list[str]) -> tuple[IdTable, IdTable]:
    """Take the ids out of a file's arrays; return the id tables of users and items."""
    user_kind, item_kind = kinds
    users = table_of(unpacked_ids("user_ids", arrays), user_kind, "user")
    items = table_of(unpacked_ids("item_ids", arrays), item_kind, "item")
    return users, items


def read_weights(arrays: Arrays) -> Weights:
    """Take the weights out of a file's arrays and return them."""
    own: dict[str, Any] = {}
    for field in dataclasses.fields(Weights):
        if field.name in arrays:
            own[field.name] = arrays.pop(field.name)
    own["global_mean"] = float(own["global_mean"])
    return Weights(**own)


def with_aligned_factors(weights: Weights) -> Weights:
    """Return weights whose factors are copies in aligned memory, on huge pages where they help."""
    return dataclasses.replace(
        weights,
        user_factors=aligned_copy(weights.user_factors),
        item_factors=aligned_copy(weights.item_factors),
    )


def aligned_copy(factors: np.ndarray) -> np.ndarray:
    """Return a copy of factors in aligned memory."""
    rows, k = factors.shape
    copy = aligned(rows, k, factors.dtype)
    copy[:] = factors
    return copy


def check_shapes(
    model: Any,
    weights: Weights,
    tables: tuple[IdTable, IdTable],
) -> None:
    """Raise ValueError if arrays fit neither each other nor the parameters of the model."""
    width, _ = sizes(model.get_params())
    if width and weights.noise is not None and model.average == "low_rank":
        # The mean of many samples has the rank of several.
        terms = weights.user_factors.shape[-1] // width
        width *= min(max(terms, 2), MOST_TERMS)
    for name, table in zip(SIDES, tables, strict=True):
        biases = getattr(weights, f"{name}_biases")
        factors = getattr(weights, f"{name}_factors")
        if not factors.dtype == biases.dtype == model.dtype:
            raise ValueError(f"its {name} factors are not {model.dtype}")
        rows = len(table)
        shapes = (biases.shape, factors.shape)
        if shapes != ((rows,), (rows, width)):
            raise ValueError(
                f"its {name} arrays have shapes {shapes}, expected {rows} rows of {width}"
            )
        check_posterior(name, getattr(weights, f"{name}_posterior"), weights.noise, rows)
    check_sets(weights)


def check_exposure(weights: Weights) -> None:
    """Raise ValueError if the arrays of the exposure are not whole, or do not fit each other."""
    users = weights.user_exposure
    items = weights.item_exposure
    if (users is None) != (items is None) or (users is not None and weights.exposure is None):
        raise ValueError("a part of its exposure is missing")
    if weights.exposure is not None:
        n_numbers = 2 if users is None else 5
        shape = weights.exposure.shape
        if shape != (n_numbers,) or not (weights.exposure[:2] > 0).all():
            raise ValueError(f"its exposure is {weights.exposure}, expected {n_numbers} numbers")
    if users is None or items is None:
        return
    shapes = (users.shape, items.shape)
    k = users.shape[-1]
    expected = ((len(weights.user_biases), k), (len(weights.item_biases), k))
    if shapes != expected or not users.dtype == items.dtype == np.float32:
        raise ValueError(f"its exposure has shapes {shapes}, expected {expected} of float32")


def check_posterior(
    name: str,
    posterior: np.ndarray | None,
    noise: np.ndarray | None,
    rows: int,
) -> None:
    """Raise ValueError if the posterior of a side with so many rows lacks, or has another shape."""
    if (posterior is None) != (noise is None):
        raise ValueError(f"its {name} posterior or its noise is missing")
    if posterior is None or noise is None:
        return
    expected = ((rows + 1, 4), (3,))
    if (posterior.shape, noise.shape) != expected:
        raise ValueError(
            f"its {name} posterior and its noise have shapes {posterior.shape} and {noise.shape},"
            f" expected {expected[0]} and {expected[1]}"
        )


def check_moods(weights: Weights, n_users: int) -> None:
    """Raise ValueError if the arrays of moods do not fit each other and the users."""
    parts = [weights.mood_start, weights.mood_times, weights.mood_means]
    n_missing = sum(part is None for part in parts)
    if n_missing not in (0, 3) or (weights.moods is None) != (weights.mood_levels is None):
        raise ValueError("its arrays of moods are not whole")
    if weights.moods is None or weights.mood_levels is None:
        if n_missing == 0:
            raise ValueError("its moods have no variances")
        return
    if weights.moods.shape[1:] != (3,) or weights.mood_levels.shape != (n_users,):
        raise ValueError(f"its arrays of moods do not fit {n_users} users")
    start, times, means = parts
    if start is None or times is None or means is None:
        return
    n = len(times)
    if start.shape != (n_users + 1,) or means.shape != (n, len(weights.moods)):
        raise ValueError(f"its arrays of moods do not fit {n_users} users")
    if start[0] != 0 or start[-1] != n or np.any(np.diff(start) < 0):
        raise ValueError("its moods are not in the order of the users")


def check_mean(weights: Weights) -> None:
    """Raise ValueError if the mean is not finite."""
    if not math.isfinite(weights.global_mean):
        raise ValueError(f"its mean is {weights.global_mean}")


def check_values(weights: Weights) -> None:
    """Raise ValueError if a bias, a factor or what an id says in sets is not finite."""
    for name, array in weight_arrays(weights).items():
        checked = name.endswith(("biases", "factors", "map"))
        if checked and not np.isfinite(array).all():
            raise ValueError(f"its {name} hold NaN or infinity")


def check_history(history: Any) -> None:
    """Raise ValueError if a history is not lists of numbers by name."""
    lists = history.values() if isinstance(history, dict) else [None]
    for values in lists:
        if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
            raise ValueError("its history is not lists of numbers")


def check_count(number: Any, name: str) -> None:
    """Raise ValueError if a file's number of something is no whole number of at least 0."""
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"its number of {name} is {number!r}")
