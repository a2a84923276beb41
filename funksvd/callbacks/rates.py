"""Callbacks that change the learning rate."""

from __future__ import annotations

import inspect

import numpy as np

from funksvd.callbacks.callback import Callback
from funksvd.callbacks.monitor import Monitor
from funksvd.callbacks.progress import say
from funksvd.checks import check_count, checked_rate


class ReduceLROnPlateau(Monitor):
    """Lower the learning rate when a monitored quantity has stopped improving.

    The decisions are those of Keras 3, epoch for epoch. What `learning_rate_schedule` plans for later epochs is lowered
    by the same factor. Differences from Keras: a missing `monitor` raises instead of warning.

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
        Epochs after a reduction in which none is counted as without improvement.
    min_lr : float, default 0
        The rate does not go below.

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
        For a value that is not allowed, and at the end of the first epoch if `monitor` is not in `logs`.
    TypeError
        If `patience` or `cooldown` is not an int.
    """

    STATE = ("best", "wait", "cooldown_counter")

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0.0,
    ):
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

    def _reset(self):
        self.best = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        current = self._current(logs or {})
        if self.cooldown_counter:  # then nothing waits
            self.cooldown_counter -= 1
        if self._improves(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.cooldown_counter:
            self.wait += 1
            rate = self.model.current_learning_rate
            # Keras keeps the rate in single precision: one that is min_lr there is not above it.
            if self.wait >= self.patience and np.float32(rate) > np.float32(self.min_lr):
                self.model.current_learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                if self.verbose:
                    say(
                        f"Epoch {epoch + 1}: learning rate lowered to {self.model.current_learning_rate:g}\n"
                    )


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` gets the epoch, counted from 0, and the current rate, and returns
        the rate to use from this epoch on. ``schedule(epoch)`` does, too.
    verbose : {0, 1}, default 0
        1 writes a line for each epoch.

    Raises
    ------
    TypeError
        If `schedule` is not callable or does not return a number.
    ValueError
        If the number is not finite and above 0.
    """

    def __init__(self, schedule, verbose=0):
        if not callable(schedule):
            raise TypeError(
                f"schedule={schedule!r}; it must be a function of epoch and learning rate"
            )
        self.schedule = schedule
        self.verbose = verbose
        try:
            inspect.signature(schedule).bind(0, 0.1)
        except TypeError:  # as Keras, whose older versions gave the epoch alone
            self.schedule = lambda epoch, current: schedule(epoch)
        except ValueError:  # a function that does not tell
            pass

    def on_epoch_begin(self, epoch, logs=None):
        current = self.model.current_learning_rate
        rate = self.schedule(epoch, current)
        self.model.current_learning_rate = checked_rate(rate, f"schedule({epoch}, {current})")
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate {self.model.current_learning_rate:g}\n")
