"""Damaged and hostile files: models, checkpoints, CSV, Parquet and Arrow.

Each is read as a user would. A case is fine if it gives something that answers, or one ValueError
or OSError of funksvd's own that names the file. Crashes, other exceptions, memory beyond a limit,
endless work and files written elsewhere are finds.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import funksvd
from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, Ratings
from funksvd.ratings import text

from .harness import Case, WrongAnswerError, is_refusal, main
from .mutations import damaged, hostile_npz, hostile_safetensors

# Name -> parameters of a training whose checkpoints are damaged.
TRAININGS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"solver": "adam"},
    "gibbs": {"solver": "gibbs"},
    "factors": {"solver": "gibbs", "average": "factors"},
    "ials": {"solver": "ials"},
    "batches": {"batch_size": 100, "solver": "adamax"},
    "featurewise": {"training": "featurewise"},
}
USUAL: dict[str, Any] = {"n_factors": 3, "n_epochs": 8, "random_state": 0, "n_jobs": 1}
N_RATINGS, N_USERS, N_ITEMS = 600, 20, 15


class Folder(NamedTuple):
    """Where a fuzzer's files are.

    path : the folder
    originals : file contents by name
    hostile : the file that is read
    elsewhere : a file that nobody may write
    """

    path: Path
    originals: dict[str, bytes]
    hostile: Path
    elsewhere: Path


def some_ratings() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (users, items, values)."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, N_USERS, N_RATINGS)
    items = rng.integers(0, N_ITEMS, N_RATINGS)
    return users, items, rng.normal(3.5, 1, N_RATINGS)


def fit(name: str, checkpoint: Path, **more: Any) -> FunkSVD:
    """Train as `TRAININGS` says, with a checkpoint after each epoch."""
    users, items, values = some_ratings()
    model = FunkSVD(**USUAL | TRAININGS[name])
    callbacks = [EarlyStopping(patience=99), ModelCheckpoint(checkpoint)]
    return model.fit((users, items), values, validation_split=0.2, callbacks=callbacks, **more)


def written_models(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a checkpoint and a safetensors file of each training."""
    for name in TRAININGS:
        checkpoint = path / f"{name}.npz"
        model = fit(name, checkpoint)
        yield f"{name}.npz", checkpoint.read_bytes()
        model.save(path / f"{name}.safetensors")
        yield f"{name}.safetensors", (path / f"{name}.safetensors").read_bytes()


def written_tables(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of ratings as CSV, Parquet and an Arrow stream."""
    users, items, values = some_ratings()
    lines = ["user,item,rating,time"]
    for user, item, value in zip(users, items, values, strict=True):
        lines.append(f'{user},"i{item}",{value:.3f},9')
    csv = "\n".join(lines).encode()
    yield "ratings.csv", csv
    yield "ratings.csv.gz", gzip.compress(csv, mtime=0)
    if importlib.util.find_spec("pyarrow") is None:
        return
    import pyarrow as pa
    from pyarrow import parquet

    names = pa.array([f"u{user}" for user in users])
    columns = {"user": names, "item": pa.array(items), "rating": pa.array(values)}
    parquet.write_table(pa.table(columns), path / "ratings.parquet")
    yield "ratings.parquet", (path / "ratings.parquet").read_bytes()
    stream = io.BytesIO()
    table = pa.table(columns | {"item": pa.array(items.astype(str)).dictionary_encode()})
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    yield "ratings.arrow", stream.getvalue()


def check_untouched(folder: Folder) -> None:
    """Check that nobody wrote the file elsewhere; remove it for the next case."""
    if folder.elsewhere.exists():
        folder.elsewhere.unlink()
        raise WrongAnswerError("a file was written where the damaged file said")


@contextlib.contextmanager
def refusals_name(path: Path) -> Iterator[None]:
    """Pass errors on; turn one of funksvd's that does not name the file into a find."""
    try:
        yield
    except Exception as error:
        if is_refusal(error) and str(path) not in str(error):
            words = f"{type(error).__name__} does not name the file: {error}"
            raise WrongAnswerError(words) from error
        raise


# ---- what is done with a file --------------------------------------------------------------------


def read_model(folder: Folder, rng: np.random.Generator) -> None:
    """Load a model and ask it."""
    with refusals_name(folder.hostile):
        model = funksvd.load(folder.hostile, mmap=bool(rng.integers(2)))
    users, items, values = some_ratings()
    model.predict((model.user_ids_[:2], model.item_ids_[:2]))
    model.recommend(model.user_ids_[:1], 3)
    if model.user_ids_.dtype.kind in "iu" and model.item_ids_.dtype.kind in "iu":
        model.fold_in((users[:3], items[:3]), values[:3])


def resume(folder: Folder, name: str) -> None:
    """Resume a training from a checkpoint, with callbacks that write their own."""
    with refusals_name(folder.hostile):
        fit(name, folder.path / "own.npz", resume=folder.hostile)


def read_ratings(folder: Folder, rng: np.random.Generator) -> None:
    """Read ratings from a file, by Arrow's reader or by Python's, and fit a model."""
    least = int(rng.choice([0, 1 << 20]))
    bad_lines = str(rng.choice(["raise", "skip"]))
    with mock.patch.object(text, "LEAST_BYTES_FOR_ARROW", least), refusals_name(folder.hostile):
        ratings = Ratings.read(folder.hostile, on_bad_lines=bad_lines)
    FunkSVD(2, 1, random_state=0).fit(ratings)


def read_arrow(folder: Folder) -> str:
    """Fit a model to a table that Arrow reads; Arrow itself does not check the values."""
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(folder.hostile.read_bytes()) as stream:
            table = stream.read_all()
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError):
        return "arrow: refused by Arrow"
    FunkSVD(2, 1, random_state=0).fit(table)
    return "arrow: read"


def mutant(folder: Folder, name: str, rng: np.random.Generator) -> bytes:
    """Return a damaged or hostile copy of an original."""
    content = folder.originals[name]
    structured = rng.random() < 0.6
    if name.endswith(".npz") and structured:
        return hostile_npz(content, folder.elsewhere, rng)
    if name.endswith(".safetensors") and structured:
        return hostile_safetensors(content, folder.elsewhere, rng)
    if name.endswith(".gz") and structured:
        return gzip.compress(damaged(gzip.decompress(content), rng), mtime=0)
    return damaged(content, rng)


def use(folder: Folder, name: str, rng: np.random.Generator) -> str:
    """Read the hostile copy of an original; return what was done."""
    stem, _, kind = name.partition(".")
    if kind == "npz" and rng.random() < 0.6:
        resume(folder, stem)
        return "checkpoint: resumed"
    if kind in ("npz", "safetensors"):
        read_model(folder, rng)
        return f"{kind}: loaded and asked"
    if kind == "arrow":
        return read_arrow(folder)
    read_ratings(folder, rng)
    return f"{kind}: read"


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case, in a folder of its own with the originals."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with tempfile.TemporaryDirectory(prefix="funksvd-fuzz-") as name:
        path = Path(name)
        originals = dict([*written_models(path), *written_tables(path)])
        folder = Folder(path, originals, path / "hostile", path / "elsewhere")
        kinds = sorted(originals)

        def run_case(rng: np.random.Generator) -> str:
            chosen = kinds[int(rng.integers(len(kinds)))]
            folder.hostile.write_bytes(mutant(folder, chosen, rng))
            try:
                return use(folder, chosen, rng)
            finally:
                check_untouched(folder)

        yield run_case


if __name__ == "__main__":
    raise SystemExit(main(__spec__.name, prepared))
