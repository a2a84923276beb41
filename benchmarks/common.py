"""Shared by the benchmarks: the header, ratings of well-known shapes, clock, memory, tables.

`PRINTED` keeps the header and the tables that this process prints; `save.py` writes them as JSON.
"""

import contextlib
import multiprocessing
import os
import platform
import resource
import shlex
import sys
import tempfile
import time
import traceback
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """Sizes of a public data set, and the spread of its counts (sigma of a log-normal)."""

    users: int
    items: int
    ratings: int
    user_sigma: float
    item_sigma: float


SHAPES = {
    "ml-1m": Shape(6_040, 3_706, 1_000_209, 1.0, 1.6),
    "ml-20m": Shape(138_493, 26_744, 20_000_263, 1.0, 2.2),
    "netflix": Shape(480_189, 17_770, 100_480_507, 1.1, 1.7),
}
RANK = 8  # of the planted model
NOISE = 0.8  # standard deviation of the noise that is added to the planted model
CHUNK = 1 << 20
PRINTED = {"tables": {}}


def print_header(*packages, **settings):
    """Print the command, the machine and the versions that a result depends on."""
    import funksvd

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}"
    versions = [f"Python {platform.python_version()}"]
    versions += [version(package) for package in ("numpy", "funksvd", *packages)]
    header = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": f"{cpu_name()}, {cores} cores usable, {system}",
        "versions": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d"),
    }
    PRINTED.update(header)
    for name, value in header.items():
        print(f"{name:<11}{value}")
    for name, value in settings.items():
        print(f"{name.replace('_', ' '):<11}{value}")
    config = funksvd.show_config()
    if config is not None:
        print("config    ", config)
    print(flush=True)


def cpu_name():
    """Return the model name of the CPU where the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version(package):
    """Return name and version of an installed distribution, or say that it is not installed."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        module = sys.modules.get(package)
        return f"{package} {getattr(module, '__version__', 'not installed')}"


def unique_pairs(users, items, n, user_sigma, item_sigma, rng):
    """Return the keys user * items + item of n distinct pairs, in random order.

    Users and items are drawn with log-normal weights.
    """
    user_weights = rng.lognormal(0, user_sigma, users)
    item_weights = rng.lognormal(0, item_sigma, items)
    user_ends = np.cumsum(user_weights / user_weights.sum())
    item_ends = np.cumsum(item_weights / item_weights.sum())
    keys = np.empty(0, np.int64)
    while len(keys) < n:
        missing = n - len(keys)
        drawn = int(missing * 1.15) + 1000
        more = np.minimum(np.searchsorted(user_ends, rng.random(drawn)), users - 1) * items
        more += np.minimum(np.searchsorted(item_ends, rng.random(drawn)), items - 1)
        keys = np.concatenate([keys, more])
        keys.sort()
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    rng.shuffle(keys)
    return keys[:n]


def planted(shape, seed=0):
    """Make ratings from 1 to 5 of a planted model (mean, biases, `RANK` factors) plus noise.

    Returns
    -------
    users, items : (n,) int32
    ratings : (n,) float32
    """
    rng = np.random.default_rng(seed)
    keys = unique_pairs(
        shape.users, shape.items, shape.ratings, shape.user_sigma, shape.item_sigma, rng
    )
    users, items = (part.astype(np.int32) for part in np.divmod(keys, shape.items))
    del keys
    user_factors = rng.normal(0, 0.35, (shape.users, RANK)).astype(np.float32)
    item_factors = rng.normal(0, 0.8, (shape.items, RANK)).astype(np.float32)
    user_biases = rng.normal(0, 0.35, shape.users).astype(np.float32)
    item_biases = rng.normal(0, 0.5, shape.items).astype(np.float32)
    ratings = np.empty(len(users), np.float32)
    for start in range(0, len(users), CHUNK):
        part = slice(start, start + CHUNK)
        u = users[part]
        i = items[part]
        products = np.einsum("nk,nk->n", user_factors[u], item_factors[i])
        exact = 3.6 + user_biases[u] + item_biases[i] + products
        ratings[part] = np.clip(np.rint(exact + rng.normal(0, NOISE, len(u))), 1, 5)
    return users, items, ratings


def shaped(name, cache=None):
    """Return ratings of the shape `name` of `SHAPES`.

    The folder `cache` keeps them as three .npy files, so that they are made once.
    """
    if cache is None:
        return planted(SHAPES[name])
    paths = [Path(cache) / f"{name}-{part}.npy" for part in ("users", "items", "ratings")]
    if not all(path.exists() for path in paths):
        Path(cache).mkdir(parents=True, exist_ok=True)
        for path, array in zip(paths, planted(SHAPES[name]), strict=True):
            unfinished = path.with_suffix(".part")
            with open(unfinished, "wb") as file:
                np.save(file, array)
            unfinished.replace(path)
    return tuple(np.load(path) for path in paths)


@contextlib.contextmanager
def cache_folder(cache):
    """Yield the user's folder, or a temporary one.

    Processes that measure memory read the ratings from it.
    """
    if cache is not None:
        yield cache
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield folder


def held_out(n, share=0.1, seed=1):
    """Return a mask (n,) that is True for the validation ratings."""
    return np.random.default_rng(seed).random(n, dtype=np.float32) < share


def rmse(predicted, ratings):
    """Return the root of the mean squared error, summed in float64."""
    return float(np.sqrt(np.mean(np.square(np.subtract(predicted, ratings, dtype=np.float64)))))


def biases_rmse(train, validation, sweeps=3, damping=5.0):
    """Return the validation RMSE of mean + user bias + item bias, which a model must beat.

    The biases are alternating damped means.
    """
    users, items, ratings = train
    n_users = 1 + max(int(train[0].max()), int(validation[0].max()))
    n_items = 1 + max(int(train[1].max()), int(validation[1].max()))
    mean = ratings.mean(dtype=np.float64)
    user_biases = np.zeros(n_users)
    item_biases = np.zeros(n_items)
    user_counts = np.bincount(users, minlength=n_users)
    item_counts = np.bincount(items, minlength=n_items)
    for _ in range(sweeps):
        residual = ratings - mean - user_biases[users]
        item_biases = np.bincount(items, residual, n_items) / (item_counts + damping)
        residual = ratings - mean - item_biases[items]
        user_biases = np.bincount(users, residual, n_users) / (user_counts + damping)
    users, items, ratings = validation
    return rmse(mean + user_biases[users] + item_biases[items], ratings)


def check(condition, message):
    """End the benchmark unless the condition holds: a wrong result is not worth timing."""
    if not condition:
        raise SystemExit(f"wrong result, nothing timed: {message}")


def median_seconds(function, repeats=5, warmup=1):
    """Return the median wall-clock seconds of `repeats` calls, after `warmup` calls."""
    for _ in range(warmup):
        function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def aligned(shape, dtype, alignment=64):
    """Return an array of zeros that starts at a multiple of `alignment` bytes."""
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.zeros(n_bytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + n_bytes].view(dtype).reshape(shape)


def _status_kib(field):
    """Return a field of this process' status in KiB; OSError where the system does not tell it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


def _resident():
    """Return the bytes of this process now; where the system does not tell, the most so far."""
    try:
        return _status_kib("VmRSS") * 1024
    except OSError:
        return _most_resident()


def _most_resident():
    """Return the largest number of bytes that this process has had."""
    # Linux hands ru_maxrss on from the process that started this one; VmHWM is this program's own.
    try:
        return _status_kib("VmHWM") * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _measured(pipe, module, prepare, run, arguments):
    """Send the growth of the peak of memory through a pipe, or None after an error."""
    try:
        module = import_module(module)
        prepared = getattr(module, prepare)(*arguments)
        with contextlib.suppress(OSError):  # resets the peak, which preparing may have raised
            Path("/proc/self/clear_refs").write_text("5")
        before = _resident()
        getattr(module, run)(*prepared)
        pipe.send(max(0, _most_resident() - before))
    except BaseException:
        traceback.print_exc()
        pipe.send(None)


def peak_memory(module, prepare, run, *arguments):
    """Return by how many bytes ``run(*prepare(*arguments))`` raises the peak of a new process.

    `prepare` and `run` are names of functions of `module`. The result of `prepare`, the caller's
    arrays, is there before the measurement begins and does not count. NaN if the process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, module, prepare, run, arguments))
    process.start()
    sender.close()
    try:
        growth = receiver.recv()
    except EOFError:
        growth = None
    process.join()
    return float("nan") if growth is None else float(growth)


def _cell(value):
    """Return a text as it is and a number with three digits; NaN is a dash."""
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def print_table(header, rows, name=None):
    """Print a table; the first column is flush left, the others flush right.

    `name` is that of the table in the JSON that `save.py` writes; by default it is its number.
    """
    cells = [header]
    for row in rows:
        cells.append([_cell(value) for value in row])
    tables = PRINTED["tables"]
    tables[name or str(len(tables))] = {"header": list(header), "rows": cells[1:]}
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        print("  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip())
    print(flush=True)
