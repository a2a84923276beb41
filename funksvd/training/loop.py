"""The epoch loops: `Training` is that of `fit`, `update` that of `partial_fit`."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

import funksvd.callbacks as display
from funksvd.callbacks.callback import Callback, CallbackList
from funksvd.engines.choose import engine_for
from funksvd.hyper import Hyper
from funksvd.machine.threads import shielded
from funksvd.ratings.triples import Ratings
from funksvd.schedules import planned_rate
from funksvd.training.exposing import exposure_beside
from funksvd.training.fold_in import Past, solve
from funksvd.training.joining import SIDES, NewRows, extended
from funksvd.weights import Fitted, Trained, Weights, is_finite, rows_of

if TYPE_CHECKING:
    from funksvd.training.checkpoints import Checkpoint


Result = TypeVar("Result")


class Begun(NamedTuple):
    """An epoch, counted from 0, and the engine's state at its beginning."""

    epoch: int
    state: dict[str, np.ndarray]


def diverged(epoch: int, finding: str, learning_rate: float | None) -> FloatingPointError:
    """Return the error of an epoch (from 0) after which a number is not finite.

    `finding` says which number, and `learning_rate` is that of the epoch, or None of an engine that
    has none.
    """
    cure = "lower n_factors"
    if learning_rate is not None:
        cure = f"lower learning_rate (it was {learning_rate:.3g} there)"
    return FloatingPointError(f"training diverged in epoch {epoch + 1}: {finding}; {cure}")


def check_sizes(ratings: Ratings | None, name: str, dtype: str) -> None:
    """Raise ValueError if ratings or weights of a part are so large that their squares overflow."""
    if ratings is None:
        return
    largest = float(np.finfo("float64" if dtype == "float64" else "float32").max)
    most = largest**0.5 / 1000  # for sums of squares
    for what, array in (("ratings", ratings.values), ("sample weights", ratings.weights)):
        if array is None or not len(array):
            continue
        size = max(float(array.max()), -float(array.min()))
        if size > most:
            raise ValueError(
                f"{name} {what} must be at most {most:.2g} in size to be trained in {dtype}, got"
                f" {size:.3g}; scale them down"
            )


def update(
    fitted: Fitted,
    ratings: Ratings,
    hyper: Hyper,
    past: Past,
    *,
    first_epoch: int,
    n_epochs: int,
    learning_rate: float,
    seed: int,
    n_jobs: int,
) -> Fitted:
    """Return a model after SGD on new ratings; the arrays of the given one are not written to.

    New rows start from their ridge solution: new items given the known users, then new users given
    all items. SGD then moves the rows of `ratings` and no other, so that the time grows with the
    ratings, but for one copy of the model.

    Raises
    ------
    FloatingPointError
        If training diverges.
    """
    check_sizes(ratings, "new", hyper.dtype)
    for side in (1, 0):
        fitted = with_new_ids(fitted, ratings, side, hyper, past, n_jobs)
    codes = [
        table.encode(own.ids, name)
        for table, own, name in zip(fitted.tables, ratings.tables, SIDES, strict=True)
    ]
    user_biases, user_factors = (array[codes[0]] for array in rows_of(fitted.weights, 0))
    item_biases, item_factors = (array[codes[1]] for array in rows_of(fitted.weights, 1))
    start = Weights(
        fitted.weights.global_mean, user_biases, item_biases, user_factors, item_factors
    )
    engine = engine_for(hyper)(ratings, None, hyper, seed=seed, n_jobs=n_jobs)
    engine.load(start)
    for epoch in range(first_epoch, first_epoch + n_epochs):
        loss = engine.epoch(epoch, learning_rate)
        if not math.isfinite(loss):
            raise diverged(epoch, f"the loss is {loss}", learning_rate)
    moved = engine.weights()
    if not is_finite(moved):
        raise diverged(epoch, "its last steps left weights that are not finite", learning_rate)
    for side in (0, 1):
        biases, factors = rows_of(moved, side)
        ids = ratings.tables[side].ids
        fitted = extended(fitted, side, ids, NewRows(codes[side], biases, factors, None, 0))
    return fitted


def with_new_ids(
    fitted: Fitted, ratings: Ratings, side: int, hyper: Hyper, past: Past, n_jobs: int
) -> Fitted:
    """Return a model that also knows the new ids of one side, by their ridge solutions."""
    table = ratings.tables[side]
    unknown = fitted.tables[side].encode(table.ids, SIDES[side]) < 0
    if not unknown.any():
        return fitted
    rows = solve(fitted, ratings, side, hyper, past, n_jobs)
    new = unknown[rows.codes]
    codes = rows.codes[new]
    exposure = None if rows.exposure is None else rows.exposure[new]
    rows = NewRows(codes, rows.biases[new], rows.factors[new], None, rows.left_out, exposure)
    return extended(fitted, side, table.ids[codes], rows)


class Training:
    """Trains a model, from the start or from a checkpoint.

    Parameters
    ----------
    model : FunkSVD
        Its `history_`, `n_epochs_`, `stop_training` and `current_learning_rate` are kept up to
        date.
    ratings, held_out : Ratings, and Ratings or None
    hyper : Hyper
    seed, n_jobs : int
    callbacks : Callback, list of Callback, or None
    verbose : 0, 1 or 2
    checkpoint : Checkpoint or None
    content : hash of the ratings that were given, held-out ones among them

    Raises
    ------
    ValueError
        If the checkpoint is of another training; it says what differs. If ratings are too large.
    """

    def __init__(
        self,
        model: Any,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int,
        n_jobs: int,
        callbacks: Callback | Sequence[Callback] | None,
        verbose: int,
        checkpoint: Checkpoint | None,
        content: list[int],
    ) -> None:
        self.model = model
        self.content = content
        self.ratings = ratings
        self.held_out = held_out
        self.hyper = hyper
        self.seed = seed
        self.engine_class = engine_for(hyper)
        self.n_epochs = self.engine_class.planned_epochs(hyper)
        self.checkpoint = checkpoint
        self.hooks = CallbackList(
            with_display(callbacks, verbose),
            model,
            self.n_epochs,
            0 if checkpoint is None else checkpoint.n_epochs,
        )
        if checkpoint is not None:
            checkpoint.check(self)
        check_sizes(ratings, "training", hyper.dtype)
        check_sizes(held_out, "validation", hyper.dtype)
        self.engine = self.engine_class(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        if checkpoint is not None:
            checkpoint.check_engine(self.engine)
        self.exposure: dict[str, Any] = {}
        if hyper.exposure:
            self.exposure = exposure_beside(ratings, hyper, seed, n_jobs)
        self.thread = threading.get_ident()
        self.begun: Begun | None = None

    def fitted(self) -> Fitted:
        """Return the model as it is now; a copy."""
        model = self.model
        history = {name: list(values) for name, values in model.history_.items()}
        trained = Trained(history, model.n_epochs_, len(self.ratings), self.content)
        weights = replace(self.engine.weights(), **self.exposure)
        return Fitted(weights, self.ratings.tables, trained)

    def whole(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of a function that reads or writes the engine; no signal ends it."""
        if not self.engine.any_thread:
            return function(*arguments)
        return shielded(function, *arguments)

    def _pass(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of a pass over the ratings, which a signal ends early.

        An engine on several threads is then left once none of them is at work any more.
        """
        if self.engine.n_jobs == 1 or not self.engine.any_thread:
            return function(*arguments)
        return shielded(function, *arguments, stoppable=True)

    @cached_property
    def fingerprints(self) -> list[dict[str, Any] | None]:
        """The fingerprints of the training and the validation ratings, for a checkpoint.

        The order of the ratings counts where mini-batches are taken in it (shuffle=False).
        """
        held_out = None
        if self.held_out is not None:
            held_out = self.held_out.fingerprint(False)
        return [self.ratings.fingerprint(not self.hyper.shuffle), held_out]

    def run(self) -> None:
        """Make all epochs, or those after the checkpoint.

        An error or Ctrl-C leaves the model as it was after the last whole epoch. Ctrl-C after at
        least one whole epoch ends training with a warning; everything else is raised.
        """
        model = self.model
        states: list[tuple[Any, dict[str, Any]]] = []
        if self.checkpoint is not None:
            states = self.checkpoint.restore(self)
        first = model.n_epochs_
        planned = self._planned_rate(max(0, first - 1))
        if not first:
            model.current_learning_rate = planned
        logs: dict[str, float] = {}
        epoch = first
        try:
            self.hooks.on_train_begin({})
            for callback, state in states:
                callback.set_state(state)
            for epoch in range(first, self.n_epochs):
                if model.stop_training:
                    return
                self.begun = None  # frees the last snapshot before the next is made
                self.begun = Begun(epoch, self.whole(self.engine.snapshot))
                if epoch and self.engine_class.epoch_has_rate:
                    planned = self._next_rate(epoch, planned)
                logs = self._epoch(epoch)
        except BaseException as error:
            self.whole(self.settle)
            if not model.n_epochs_ or not isinstance(error, KeyboardInterrupt):
                raise
            model.interrupted_ = True
            warnings.warn(
                f"interrupted in epoch {epoch + 1}: the model is that after epoch"
                f" {model.n_epochs_}",
                stacklevel=3,
            )
        finally:
            self.hooks.on_train_end(logs)

    def _planned_rate(self, epoch: int) -> float:
        return planned_rate(self.hyper, epoch if self.engine_class.epoch_has_rate else 0)

    def _next_rate(self, epoch: int, last: float) -> float:
        """Set the rate of an epoch and return the planned one, given that of the epoch before.

        What callbacks have changed of the last rate stays changed, in proportion.
        """
        model = self.model
        planned = self._planned_rate(epoch)
        changed = 1.0
        if model.current_learning_rate != last:
            changed = model.current_learning_rate / last
        model.current_learning_rate = planned * changed
        return planned

    def _check_finite(self, loss: float, epoch: int) -> None:
        """Raise FloatingPointError if a loss of an epoch is not finite."""
        if not math.isfinite(loss):
            raise self.diverged(epoch, f"the loss is {loss}")

    def diverged(self, epoch: int, finding: str) -> FloatingPointError:
        """Return the error of an epoch that left a number, which `finding` names, not finite."""
        rate = self.model.current_learning_rate if self.engine_class.makes_steps else None
        return diverged(epoch, finding, rate)

    def settle(self) -> None:
        """Undo an epoch that did not end, if there is one."""
        begun = self.begun
        if begun is None or self.model.n_epochs_ != begun.epoch:
            return
        self.engine.restore(begun.state)
        for values in self.model.history_.values():
            del values[begun.epoch :]
        self.begun = None

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Make one epoch between its callbacks; return its logs."""
        model = self.model
        begun = time.perf_counter()
        self.hooks.on_epoch_begin(epoch, {})
        loss = self._pass(self.engine.epoch, epoch, model.current_learning_rate)
        self._check_finite(loss, epoch)
        logs = {"loss": loss, "rmse": loss**0.5}
        if self.engine_class.makes_steps:
            logs["learning_rate"] = model.current_learning_rate
        if self.held_out is not None:
            logs["val_loss"] = self._pass(self.engine.validate)
            self._check_finite(logs["val_loss"], epoch)
            logs["val_rmse"] = logs["val_loss"] ** 0.5
        logs["seconds"] = time.perf_counter() - begun
        for name, value in logs.items():
            model.history_.setdefault(name, []).append(value)
        model.n_epochs_ = epoch + 1
        self.hooks.on_epoch_end(epoch, logs)
        return logs


def with_display(
    callbacks: Callback | Sequence[Callback] | None, verbose: int
) -> list[Callback | Any]:
    """Return the user's callbacks as a list, and after them the one that `verbose` asks for."""
    listed: list[Any] = []
    if isinstance(callbacks, list | tuple):
        listed = list(callbacks)
    elif callbacks is not None:
        listed = [callbacks]
    if verbose == 1:
        listed.append(display.ProgressBar())
    elif verbose == 2:
        listed.append(display.EpochLines())
    return listed
