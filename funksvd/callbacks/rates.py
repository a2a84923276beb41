"""Callbacks that change the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from funksvd.callbacks.callback import Callback, Logs
from funksvd.callbacks.monitor import Monitor, is_best, is_count
from funksvd.callbacks.progress import say
from funksvd.checks import check_count, checked_rate


class ReduceLROnPlateau(Monitor):
    """Lowers the learning rate when a monitored quantity has stopped improving.

    The decisions are those of Keras 3, epoch for epoch. The rates that `learning_rate_schedule`
    plans for later epochs are lowered by the same factor. Difference from Keras: a missing
    `monitor` raises an error instead of a warning.

    Parameters
    ----------
    monitor : str, default "val_loss"
        Key of `logs`.
    factor : float in (0, 1), default 0.1
        The new rate is the old one times this.
    patience : int, default 10
        Epochs in a row without improvement after which the rate is lowered; 0 and 1 mean the same.
    verbose : {0, 1}, default 0
        1 writes a line when the rate is lowered.
    mode : {"auto", "min", "max"}, default "auto"
        As in `EarlyStopping`.
    min_delta : float, default 1e-4
        Smallest change that counts as an improvement.
    cooldown : int, default 0
        Epochs after a reduction in which no epoch counts as one without improvement.
    min_lr : float, default 0
        Lower bound of the rate.

    Attributes
    ----------
    best : float or None
        Best value so far.
    wait : int
        Epochs since the last improvement or reduction.
    cooldown_counter : int
        Epochs of the cooldown that are left.

    Raises
    ------
    ValueError
        If a value is not allowed; or at the end of the first epoch, if `monitor` is not in `logs`.
    TypeError
        If `patience` or `cooldown` is not an int.
    """

    STATE: ClassVar = {"best": is_best, "wait": is_count, "cooldown_counter": is_count}

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor={factor!r}; it must be above 0 and below 1")
        if not 0 <= min_lr < np.inf:
            raise ValueError(f"min_lr={min_lr!r}; it must be a finite number, 0 or more")
        self.factor = factor
        self.patience = check_count("patience", patience)
        self.verbose = verbose
        self.cooldown = check_count("cooldown", cooldown)
        self.min_lr = min_lr
        self._reset()

    def _reset(self) -> None:
        self.best = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget an earlier fit."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Lower the rate if the monitored value has not improved for `patience` epochs."""
        current = self._current(logs or {})
        if self.cooldown_counter:
            self.cooldown_counter -= 1
        if self._improves(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.cooldown_counter:
            self.wait += 1
            rate = self.model.current_learning_rate
            # Keras keeps the rate in single precision: a rate that equals min_lr there is not above
            # it.
            if self.wait >= self.patience and np.float32(rate) > np.float32(self.min_lr):
                self._lower(epoch, rate)

    def _lower(self, epoch: int, rate: float) -> None:
        lowered = max(rate * self.factor, self.min_lr)
        self.model.current_learning_rate = lowered
        self.cooldown_counter = self.cooldown
        self.wait = 0
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate lowered to {lowered:g}\n")


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` receives the epoch, counted from 0, and the current rate,
        and returns the rate to use from this epoch on. A function of the epoch alone will do, too.
    verbose : {0, 1}, default 0
        1 writes a line for each epoch.

    Raises
    ------
    TypeError
        If `schedule` is not callable or does not return a number.
    ValueError
        If the number is not finite and above 0.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(
                f"schedule={schedule!r}; it must be a function of epoch and learning rate"
            )
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = takes_rate(schedule)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Set the rate of the epoch."""
        current = self.model.current_learning_rate
        rate = self.schedule(epoch, current) if self._takes_rate else self.schedule(epoch)
        self.model.current_learning_rate = checked_rate(rate, f"schedule({epoch}, {current})")
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate {self.model.current_learning_rate:g}\n")


def takes_rate(schedule: Callable[..., float]) -> bool:
    """Return whether a schedule takes the rate beside the epoch; older Keras gave the epoch alone.

    A function without a readable signature counts as one that takes both.
    """
    try:
        inspect.signature(schedule).bind(0, 0.1)
    except TypeError:
        return False
    except ValueError:  # no readable signature
        return True
    return True
