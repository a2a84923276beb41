"""The contract of all engines: what training asks of them, and the facts in which they differ.

An engine turns ratings and hyper-parameters into weights, an epoch at a time. `training` knows
engines by this contract alone, and `tests/engines/test_contract.py` runs one suite over all.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import ClassVar, Protocol

import numpy as np

from funksvd.hyper import Hyper
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights


class Engine(Protocol):
    """Trains weights on encoded ratings.

    The facts below are those of an engine that takes steps with all factors at once; the others
    override them. A constructor takes::

        (ratings, held_out, hyper, *, seed=0, n_jobs=1)

    where `held_out` is a `Ratings` to validate on, whose ids may be unknown, or None. Neither
    `n_jobs` nor the order of the rows changes a bit of the result.
    """

    # Whether the engine takes steps and so has a learning rate; only such an engine can go on with
    # new ratings (`partial_fit`).
    makes_steps: ClassVar[bool] = True
    # Whether the values of the ratings count; if not, `fit` takes pairs alone, too.
    learns_ratings: ClassVar[bool] = True
    # Whether the learning-rate schedule plans a rate for each epoch. If not, it plans the passes
    # within an epoch, and every epoch starts from the same rate.
    epoch_has_rate: ClassVar[bool] = True
    # Whether a thread other than the one that made the engine may call it.
    any_thread: ClassVar[bool] = True
    # Number of threads that an epoch is worth.
    n_jobs: int

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None: ...

    @classmethod
    def planned_epochs(cls, hyper: Hyper) -> int:
        """Return how many epochs a fit has, if no callback ends it."""
        return hyper.n_epochs

    @classmethod
    def plan(cls, hyper: Hyper) -> Hashable:
        """Return whatever of `n_epochs` the course of training depends on.

        A fit can be prolonged, that is, a checkpoint resumed with more epochs, if this stays equal.
        """
        return hyper.n_epochs if hyper.learning_rate_schedule == "cosine" else None

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Make one pass over all ratings; return the mean squared error seen on the way."""
        ...

    def validate(self) -> float:
        """Return the mean squared error on the held-out ratings."""
        ...

    def weights(self) -> Weights:
        """Return the weights as they are now, in the order of the codes; a copy."""
        ...

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        ...

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that an epoch changes, by name."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        ...

    def check_state(self, state: Mapping[str, np.ndarray], n_epochs: int) -> None:
        """Raise ValueError if the counts in a snapshot from a file are not those after `n_epochs`.

        Names, shapes and dtypes are checked afterwards, against a snapshot of this engine.
        """
        return

    def make_room(self, state: Mapping[str, np.ndarray]) -> None:
        """Give arrays that grow with the epochs the sizes that they have in a snapshot."""
        return
