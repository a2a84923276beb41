"""Does a strong penalty slow training down? The time of an epoch by solver, dtype and l2.

    python benchmarks/bench_penalties.py

A penalty that outweighs the ratings halves factors until they are subnormal numbers, with which a
CPU computes a hundred times slower unless the kernels clear them (`LEAST_FACTOR` of `_vec.h`). Each
fit makes 40 epochs on made-up ratings, on one thread. A ratio is the CPU time of its slowest epoch
of the last 10 over the median of those of the fit with l2=0; the last line is the largest of all.
A fit that diverges counts up to there, since NaN costs no time.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from common import print_header, print_table

SHARES: tuple[float, ...] = (0.0, 0.08, 1.0, 5.0, 20.0)
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "sgd, rows": {"reg_scale": "row"},
    "momentum 0.9": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad_row": {"solver": "adagrad_row"},
    "adagrad": {"solver": "adagrad"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
    "sgd, L1": {"l1": 0.01},
    "batches, sgd": {"batch_size": 1000},
    "batches, momentum": {"batch_size": 1000, "momentum": 0.9},
    "batches, adagrad": {"batch_size": 1000, "solver": "adagrad"},
    "batches, adam": {"batch_size": 1000, "solver": "adam"},
    "batches, adamax": {"batch_size": 1000, "solver": "adamax"},
    "batches, rows": {"batch_size": 1000, "reg_scale": "row"},
    "featurewise": {"training": "featurewise"},
}
N_EPOCHS = 40
LAST = 10


def main() -> None:
    """Print the tables of both dtypes, and the largest ratio."""
    print_header()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    n = 50_000
    X = (rng.integers(0, 2000, n), rng.integers(0, 400, n))
    y = rng.normal(3, 1, n)
    largest = (0.0, "")
    for dtype in ("float32", "float64"):
        rows = []
        for name, params in WAYS.items():
            times = [epoch_times(X, y, dtype=dtype, l2=l2, **params) for l2 in SHARES]
            usual = float(np.median(times[0][-LAST:]))
            ratios = [slowest(of_fit) / usual for of_fit in times]
            rows.append([name, f"{usual * 1000:.1f}", *(f"{ratio:.2f}" for ratio in ratios)])
            worst = int(np.argmax(ratios))
            largest = max(largest, (ratios[worst], f"{name}, {dtype}, l2={SHARES[worst]}"))
        heads = [f"l2={l2}" for l2 in SHARES]
        print_table([f"{dtype}", "ms, l2=0", *heads], rows)
        print(flush=True)
    print(f"largest ratio {largest[0]:.2f}: {largest[1]}")


def epoch_times(X: Any, y: np.ndarray, **params: Any) -> list[float]:
    """Return the seconds of CPU time of each epoch of a fit."""
    from funksvd import Ratings
    from funksvd.engines.choose import engine_for
    from funksvd.model import FunkSVD
    from funksvd.schedules import planned_rate

    model = FunkSVD(64, N_EPOCHS, random_state=0, n_jobs=1, **params)
    model._check_params()
    hyper = model._hyper()
    engine = engine_for(hyper)(Ratings.from_arrays(*X, y), None, hyper, seed=0, n_jobs=1)
    out = []
    with np.errstate(all="ignore"):
        for epoch in range(N_EPOCHS):
            begun = time.thread_time()
            loss = engine.epoch(epoch, planned_rate(hyper, epoch))
            out.append(time.thread_time() - begun)
            if not np.isfinite(loss):
                break
    return out


def slowest(times: list[float]) -> float:
    """Return the time of the slowest of the last epochs."""
    return sorted(times[-LAST:])[-2] if len(times) > 1 else times[0]


if __name__ == "__main__":
    main()
