"""An epoch on a GPU: ms, updates a second, share of the copy bandwidth, RMSE beside the CPU's.

python benchmarks/bench_gpu.py [--shape netflix] [--cache FOLDER] [--factors 20 32 64 128]
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from common import SHAPES, check, held_out, print_header, print_table, shaped

from funksvd import FunkSVD, Ratings
from funksvd.engines.cuda import CudaEngine
from funksvd.engines.device import open_device
from funksvd.engines.sgd import SgdEngine
from funksvd.hyper import resolve

RATE = 0.02


class Data(NamedTuple):
    """The ratings to train on and to validate on."""

    train: Ratings
    validation: Ratings


def copy_bandwidth(
    cupy: Any,
    n_bytes: int = 1 << 30,
    repeats: int = 10,
) -> float:
    """Return the bytes a second, read and written, of a copy within the card's memory."""
    source = cupy.zeros(n_bytes, np.uint8)
    target = cupy.zeros(n_bytes, np.uint8)
    stream = cupy.cuda.get_current_stream()
    target.data.copy_from_device_async(source.data, n_bytes, stream)
    stream.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        target.data.copy_from_device_async(source.data, n_bytes, stream)
    stream.synchronize()
    return 2 * n_bytes * repeats / (time.perf_counter() - start)


def bytes_a_rating(k: int, half: bool) -> int:
    """Return the least bytes that SGD moves for a rating.

    They are the rating (index and value), two biases and two rows, read and written.
    """
    return 6 + 16 + 4 * k * (2 if half else 4)


def engine_of(cls: type[SgdEngine], data: Data, k: int, **params: Any) -> SgdEngine:
    """Return an engine on the ratings."""
    hyper = resolve(FunkSVD(k, l2=0.05, **params).get_params())
    return cls(data.train, data.validation, hyper, seed=0, n_jobs=2)


def cpu_rmse(
    data: Data,
    k: int,
    epochs: int,
) -> float:
    """Return the validation RMSE of the CPU engine."""
    engine = engine_of(SgdEngine, data, k)
    for epoch in range(epochs):
        engine.epoch(epoch, RATE)
    return engine.validate() ** 0.5


def epoch_seconds(engine: SgdEngine, epochs: int) -> float:
    """Return the seconds of the fastest epoch but the first, which loads the kernels."""
    seconds = []
    for epoch in range(epochs):
        start = time.perf_counter()
        engine.epoch(epoch, RATE)  # ends with the loss on the host: nothing is left running
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:] or seconds)


def bench(
    data: Data,
    k: int,
    bandwidth: float,
    options: argparse.Namespace,
) -> list[list[Any]]:
    """Return the rows of the table for one number of factors."""
    expected = cpu_rmse(data, k, options.epochs)
    rows = []
    for dtype, schedule in product(("float32", "float16"), ("strata", "hogwild")):
        params = {"device": options.device, "dtype": dtype, "schedule": schedule}
        engine = engine_of(CudaEngine, data, k, **params)
        seconds = epoch_seconds(engine, options.epochs)
        rmse = engine.validate() ** 0.5
        del engine
        name = f"k={k} {dtype} {schedule}"
        check(abs(rmse - expected) < 0.01 * expected, f"{name}: {rmse}, the CPU {expected}")
        rate = len(data.train) / seconds
        moved = rate * bytes_a_rating(k, dtype == "float16")
        share = moved / bandwidth * 100
        rows.append([name, seconds * 1e3, rate / 1e6, share, rmse, expected])
    return rows


def main() -> None:
    """Print a row for each number of factors, dtype and schedule."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="netflix")
    parser.add_argument("--cache", help="folder to keep the ratings in")
    parser.add_argument("--factors", type=int, nargs="+", default=[20, 32, 64, 128])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    cupy, card = open_device(options.device)
    card.use()
    name = cupy.cuda.runtime.getDeviceProperties(card.id)["name"].decode()
    bandwidth = copy_bandwidth(cupy)
    copy = f"{bandwidth / 1e9:.0f} GB/s read + written"
    print_header("cupy", card=name, copy=copy, shape=options.shape)
    columns = shaped(options.shape, options.cache)
    mask = held_out(len(columns[0]))
    train = Ratings.from_arrays(*(column[~mask] for column in columns))
    validation = Ratings.from_arrays(*(column[mask] for column in columns))
    rows = []
    for k in options.factors:
        rows += bench(Data(train, validation), k, bandwidth, options)
    print_table(["", "ms an epoch", "M updates/s", "% of copy", "RMSE", "CPU's RMSE"], rows)


if __name__ == "__main__":
    main()
