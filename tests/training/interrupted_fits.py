"""Fits that signals interrupt at random moments: each must leave a whole epoch, or no model.

    python tests/training/interrupted_fits.py [TRIALS [SEED]]

A third of the fits gets two signals within 10 ms. The program counts how the fits ended, and exits
with 1 if a model is torn, unusable, or still in training. `test_interrupts.py` runs a few of them.
"""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections import Counter
from types import FrameType
from typing import Any

import numpy as np

from funksvd import Callback, EarlyStopping, FunkSVD, Ratings

# So many ratings that the engines use threads, which wait for each other's blocks.
N_RATINGS = 220_000
WAYS: dict[str, dict[str, Any]] = {
    "sgd, one thread": {"n_jobs": 1},
    "sgd": {},
    "adam": {"solver": "adam"},
    "batches": {"batch_size": 60_000, "solver": "adamax"},
    "featurewise": {"training": "featurewise", "n_epochs": 3, "n_factors": 6},
    "gibbs": {"solver": "gibbs", "n_factors": 8},
}


class Kept(Callback):
    """Keeps the bytes of the model after each epoch."""

    def __init__(self) -> None:
        self.epochs: dict[bytes, int] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epochs[content(self.model)] = epoch + 1


class Alarms:
    """Raises KeyboardInterrupt in the main thread, as Ctrl-C does, a number of times."""

    def __init__(self) -> None:
        self.left = 0
        signal.signal(signal.SIGALRM, self.ring)

    def ring(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        if self.left == 0:
            return
        self.left -= 1
        raise KeyboardInterrupt

    def start(self, number: int, first: float, gap: float) -> None:
        """Begin to ring, `first` seconds from now and then every `gap` seconds."""
        self.left = number
        signal.setitimer(signal.ITIMER_REAL, first, gap)

    def stop(self) -> None:
        """End ringing."""
        self.left = 0
        signal.setitimer(signal.ITIMER_REAL, 0)


def content(model: FunkSVD) -> bytes:
    """Return the bytes of a model's arrays."""
    weights = model.get_weights()
    arrays = (weights.user_biases, weights.item_biases, weights.user_factors, weights.item_factors)
    return b"".join(array.tobytes() for array in arrays)


def some_ratings() -> Ratings:
    """Return ratings at random."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 3000, N_RATINGS)
    items = rng.integers(0, 900, N_RATINGS)
    return Ratings.from_arrays(users, items, rng.normal(3, 1, N_RATINGS))


def new_model(params: dict[str, Any]) -> FunkSVD:
    """Return a model of one of the ways."""
    return FunkSVD(**{"n_factors": 24, "n_epochs": 6, "random_state": 0, "n_jobs": 2} | params)


def outcome(model: FunkSVD, whole: dict[bytes, int], ratings: Ratings, best: bool) -> str:
    """Return in words what a fit has left; "TORN" and "BROKEN" must not be among them.

    `best` says that the weights may be those of an earlier epoch, the best one.
    """
    if model._training is not None:
        return "BROKEN: still in training"
    try:
        now = content(model)
    except ValueError as error:
        if "not fitted yet" not in str(error):
            raise
        return "no model"
    if now not in whole:
        return "TORN: no whole epoch"
    if whole[now] != model.n_epochs_ and not best:
        return "TORN: another epoch"
    if len(model.history_["loss"]) != model.n_epochs_:
        return "TORN: history"
    if not np.isfinite(model.predict(ratings)).all():
        return "BROKEN: predictions"
    return "whole epoch"


def interrupted(
    alarms: Alarms, name: str, ratings: Ratings, whole: Kept, seconds: float, rng: Any
) -> str:
    """Interrupt one fit; return how it ended."""
    model = new_model(WAYS[name])
    two = rng.random() < 1 / 3
    stopping = EarlyStopping("loss", patience=99) if rng.random() < 0.5 else None
    said = "returned"
    first = float(rng.uniform(0.001, seconds))
    gap = float(rng.uniform(0.0002, 0.01))
    try:
        alarms.start(1 + two, first, gap)
        model.fit(ratings, callbacks=stopping)
    except KeyboardInterrupt:
        said = "raised"
    finally:
        alarms.left = 0  # no call: a signal could come before it
        alarms.stop()
    left = outcome(model, whole.epochs, ratings, best=stopping is not None)
    return f"{'two signals' if two else 'one signal'}, {said}, {left}"


def run(trials: int, seed: int) -> Counter[str]:
    """Interrupt fits of all ways in turn; return how many ended in which way."""
    warnings.simplefilter("ignore")
    ratings = some_ratings()
    rng = np.random.default_rng(seed)
    alarms = Alarms()
    ended: Counter[str] = Counter()
    for number, name in enumerate(WAYS):
        whole = Kept()
        begun = time.perf_counter()
        new_model(WAYS[name]).fit(ratings, callbacks=whole)
        seconds = time.perf_counter() - begun
        for _ in range(number, trials, len(WAYS)):
            ended[interrupted(alarms, name, ratings, whole, seconds, rng)] += 1
    return ended


def main() -> int:
    """Run the program; return its exit code."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    ended = run(trials, seed)
    sys.stdout.write(f"{trials} fits, seed {seed}:\n")
    for how, count in sorted(ended.items()):
        sys.stdout.write(f"{count:6} {how}\n")
    return int(any("TORN" in how or "BROKEN" in how for how in ended))


if __name__ == "__main__":
    sys.exit(main())
