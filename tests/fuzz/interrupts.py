"""Interrupts at random moments of fits, some of them twice: the model is that of a whole epoch.

A case sends SIGINT to a fit, once or twice, and looks at the model: it is not fitted, or its
weights are those that an undisturbed fit has after as many epochs. Nothing of the training is left,
and the model can be fitted again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from unittest import mock

import numpy as np

from funksvd import FunkSVD, Ratings
from funksvd.engines import sgd

from .harness import Case, WrongAnswerError, main
from .trainings import WAYS, EpochHashes, hash_of, new_model, some_ratings

N_RATINGS = 20_000
N_EPOCHS = 12
TWICE = 1 / 3  # share of the cases that are interrupted a second time


class Interrupter(threading.Thread):
    """Sends SIGINT to this process after some delays, unless it is told to stop."""

    def __init__(self, delays: list[float]) -> None:
        super().__init__()
        self.delays = delays
        self.stopped = threading.Event()

    def run(self) -> None:
        """Wait and send."""
        for delay in self.delays:
            if self.stopped.wait(delay):
                return
            os.kill(os.getpid(), signal.SIGINT)

    def stop(self) -> None:
        """End the thread; an interrupt that is on its way is taken here."""
        self.stopped.set()
        while self.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                self.join()


def fit_interrupted(model: FunkSVD, ratings: Ratings, delays: list[float]) -> str:
    """Fit a model while interrupts come; return how the fit ended."""
    interrupter = Interrupter(delays)
    ended = "ended"
    try:
        try:
            interrupter.start()
            model.fit(ratings, validation_split=0.2)
        finally:
            interrupter.stop()
    except KeyboardInterrupt:
        ended = "raised KeyboardInterrupt"
    return ended


def check(model: FunkSVD, hashes: list[str]) -> str:
    """Check a model that was interrupted; return what it is."""
    if getattr(model, "_training", None) is not None:
        raise WrongAnswerError("the model still holds its training")
    if not model.__sklearn_is_fitted__():
        return "not fitted"
    n_epochs = model.n_epochs_
    if hash_of(model.get_weights()) != hashes[n_epochs - 1]:
        raise WrongAnswerError(f"the weights are not those of {n_epochs} whole epochs")
    lengths = {len(values) for values in model.history_.values()}
    if lengths != {n_epochs}:
        raise WrongAnswerError(f"the history has {lengths} entries after {n_epochs} epochs")
    return "all epochs" if n_epochs == len(hashes) else "whole epochs"


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case; blocks are trained on two threads although the ratings are few."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    ratings = some_ratings(N_RATINGS)
    with mock.patch.object(sgd, "FEWEST_FOR_THREADS", 0):
        hashes = {}
        seconds = {}
        for way in WAYS:
            kept = EpochHashes()
            started = time.monotonic()
            new_model(way, N_EPOCHS, 2).fit(ratings, validation_split=0.2, callbacks=kept)
            seconds[way] = time.monotonic() - started
            hashes[way] = kept.hashes

        def run_case(rng: np.random.Generator) -> str:
            way = list(WAYS)[int(rng.integers(len(WAYS)))]
            delays = [seconds[way] * rng.uniform(0, 1)]
            if rng.random() < TWICE:
                delays.append(float(rng.exponential(0.003)))
            model = new_model(way, N_EPOCHS, 2)
            ended = fit_interrupted(model, ratings, delays)
            found = check(model, hashes[way])
            model.fit(ratings, validation_split=0.2)
            if check(model, hashes[way]) != "all epochs":
                raise WrongAnswerError("a fit after the interrupt did not end")
            return f"{len(delays)} interrupts, fit {ended}: {found}"

        yield run_case


if __name__ == "__main__":
    raise SystemExit(main(__spec__.name, prepared))
