"""Fits that `kill -9` ends at random moments: each resume must end with the undisturbed bytes.

    python tests/training/killed_fits.py [KILLS [SEED]]

Every solver and every way of training is killed in turn, in a forked process that writes a
checkpoint after each epoch, until it has had its share of the kills. The program then goes on from
the last checkpoint to the end and compares the model with one that nothing disturbed. It exits
with 1 if one differs or a checkpoint is not whole. `test_killed.py` runs a few of them.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, Ratings, load

BATCH = {"batch_size": 500}
WAYS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9, "learning_rate": 0.002},
    "adagrad_row": {"solver": "adagrad_row"},
    "adagrad": {"solver": "adagrad"},
    "adam": {"solver": "adam"},
    "adamax": {"solver": "adamax"},
    "sgd, rows": {"reg_scale": "row", "dtype": "float64"},
    "batches, sgd": BATCH,
    "batches, momentum": BATCH | {"momentum": 0.9},
    "batches, adagrad": BATCH | {"solver": "adagrad"},
    "batches, adam": BATCH | {"solver": "adam"},
    "batches, adamax": BATCH | {"solver": "adamax"},
    "featurewise": {"training": "featurewise", "n_factors": 500, "n_epochs": 2},
    "gibbs, low rank": {"solver": "gibbs"},
    "gibbs, factors": {"solver": "gibbs", "average": "factors"},
}
N_EPOCHS = 500
# Seconds from the start of a process to its kill, at most.
LONGEST_LIFE = 0.3


class Result(NamedTuple):
    """What came of the kills of one way: their number, and the faults that were found."""

    kills: int
    faults: list[str]


def some_ratings() -> Ratings:
    """Return ratings at random."""
    rng = np.random.default_rng(0)
    n = 3000
    return Ratings.from_arrays(rng.integers(0, 80, n), rng.integers(0, 50, n), rng.normal(3, 1, n))


def trained(params: dict[str, Any], ratings: Ratings, path: Path | None) -> FunkSVD:
    """Train to the end, from the checkpoint at a path if there is one."""
    model = FunkSVD(**{"n_factors": 5, "n_epochs": N_EPOCHS, "random_state": 0} | params)
    callbacks: list[Any] = [EarlyStopping(patience=10**6)]
    if path is not None:
        callbacks.append(ModelCheckpoint(path))
    resume = path if path is not None and path.exists() else None
    return model.fit(ratings, validation_split=0.2, callbacks=callbacks, resume=resume)


def file_of(model: FunkSVD, folder: Path) -> bytes:
    """Return the bytes of a model's file."""
    path = folder / "model.npz"
    model.save(path)
    return path.read_bytes()


def killed(params: dict[str, Any], ratings: Ratings, path: Path, seconds: float) -> bool:
    """Train in a new process and kill it after some seconds; return whether it still ran."""
    child = os.fork()
    if child == 0:
        try:
            trained(params, ratings, path)
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_one_way(
    params: dict[str, Any], ratings: Ratings, n_kills: int, rng: np.random.Generator
) -> Result:
    """Kill one way of training until it had its kills, and see what is left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = file_of(trained(params, ratings, None), folder)
        faults = []
        kills = 0
        fits = 0
        while kills < n_kills:
            path = folder / f"checkpoint-{fits}.npz"
            fits += 1
            while kills < n_kills and killed(
                params, ratings, path, float(rng.uniform(0.005, LONGEST_LIFE))
            ):
                kills += 1
                if path.exists() and not load(path).n_epochs_:
                    faults.append("a checkpoint without an epoch")
            if file_of(trained(params, ratings, path), folder) != whole:
                faults.append(f"other bytes after {kills} kills")
        return Result(kills, faults)


def run(n_kills: int, seed: int, ways: dict[str, dict[str, Any]] = WAYS) -> dict[str, Result]:
    """Kill all ways, about equally often; return the result of each."""
    ratings = some_ratings()
    rng = np.random.default_rng(seed)
    each = -(-n_kills // len(ways))
    return {name: kill_one_way(params, ratings, each, rng) for name, params in ways.items()}


def main() -> int:
    """Run the program; return its exit code."""
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    sys.stdout.write(f"seed {seed}\n")
    results = run(n_kills, seed)
    for name, result in results.items():
        sys.stdout.write(
            f"{result.kills:4} kills, {', '.join(result.faults) or 'resumed exactly'}: {name}\n"
        )
    sys.stdout.write(f"{sum(result.kills for result in results.values())} kills in all\n")
    return int(any(result.faults for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
