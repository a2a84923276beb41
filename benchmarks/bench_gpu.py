"""An epoch on a GPU: ms, updates a second, share of the card's copy bandwidth, and RMSE beside the CPU's.

python benchmarks/bench_gpu.py [--shape netflix] [--cache FOLDER] [--factors 20 32 64 128]
"""

import argparse
import time
from types import SimpleNamespace

import numpy as np
from common import SHAPES, check, held_out, print_header, print_table, shaped

from funksvd import FunkSVD, Ratings
from funksvd.engines.cuda import CudaEngine
from funksvd.engines.device import open_device
from funksvd.engines.sgd import SgdEngine


def copy_bandwidth(cupy, n_bytes=1 << 30, repeats=10):
    """Bytes a second, read and written, of a copy within the card's memory."""
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


def bytes_a_rating(k, half):
    """What SGD moves at least: a rating (index and value), two biases and two rows, read and written."""
    return 6 + 16 + 4 * k * (2 if half else 4)


def engine(cls, train, validation, k, device, **params):
    hyper = SimpleNamespace(**FunkSVD(k, device=device, l2=0.05, **params).get_params())
    return cls(train, validation, hyper, seed=0, n_jobs=2)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="netflix")
    parser.add_argument("--cache", help="folder to keep the ratings in")
    parser.add_argument("--factors", type=int, nargs="+", default=[20, 32, 64, 128])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    cupy, card = open_device(args.device)
    card.use()
    name = cupy.cuda.runtime.getDeviceProperties(card.id)["name"].decode()
    bandwidth = copy_bandwidth(cupy)
    print_header(
        "cupy", card=name, copy=f"{bandwidth / 1e9:.0f} GB/s read + written", shape=args.shape
    )
    users, items, values = shaped(args.shape, args.cache)
    mask = held_out(len(values))
    validation = Ratings.from_arrays(users[mask], items[mask], values[mask])
    train = Ratings.from_arrays(users[~mask], items[~mask], values[~mask])
    rows = []
    for k in args.factors:
        cpu = engine(SgdEngine, train, validation, k, "cpu")
        for epoch in range(args.epochs):
            cpu.epoch(epoch, 0.02)
        expected = cpu.validate() ** 0.5
        del cpu
        for dtype in ("float32", "float16"):
            for schedule in ("strata", "hogwild"):
                gpu = engine(
                    CudaEngine, train, validation, k, args.device, dtype=dtype, schedule=schedule
                )
                seconds = []
                for epoch in range(args.epochs):
                    start = time.perf_counter()
                    gpu.epoch(
                        epoch, 0.02
                    )  # ends with the loss on the host: nothing is left running
                    seconds.append(time.perf_counter() - start)
                rmse = gpu.validate() ** 0.5
                check(
                    abs(rmse - expected) < 0.01 * expected,
                    f"k={k} {dtype} {schedule}: {rmse}, the CPU {expected}",
                )
                best = min(seconds[1:] or seconds)  # the first one loads the kernels
                moved = len(train) * bytes_a_rating(k, dtype == "float16") / best
                rows.append(
                    (
                        f"k={k} {dtype} {schedule}",
                        best * 1e3,
                        len(train) / best / 1e6,
                        moved / bandwidth * 100,
                        rmse,
                        expected,
                    )
                )
                del gpu
    print_table(["", "ms an epoch", "M updates/s", "% of copy", "RMSE", "CPU's RMSE"], rows)


if __name__ == "__main__":
    main()
