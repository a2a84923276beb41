"""Hooks into the epoch loop of ``FunkSVD.fit``, in the words of Keras 3.

``fit`` calls, for each callback in the order given::

    set_model(model)
    on_train_begin(logs)
    on_epoch_begin(epoch, logs)     # epoch counts from 0
    on_epoch_end(epoch, logs)
    on_train_end(logs)              # also after an exception or Ctrl-C

At the end of an epoch ``logs`` holds ``loss`` (mean squared error of training), ``rmse``, ``learning_rate``,
``seconds`` and, with validation data, ``val_loss`` and ``val_rmse``. All callbacks get the same dict: one may
add a key that those after it monitor. ``model.stop_training = True`` ends training after the current epoch.
"""

import os
import string
import sys
from contextlib import ExitStack
from numbers import Integral
from typing import Any

import numpy as np

from funksvd.schedules import checked_rate

__all__ = [
    "Callback",
    "EarlyStopping",
    "EpochLines",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgressBar",
]

_LOSSES = ("loss", "rmse", "val_loss", "val_rmse")
_LOG_KEYS = (*_LOSSES, "learning_rate", "seconds")
_LINE_PARTS = {
    "rmse": "rmse {:.4f}",
    "val_rmse": "val_rmse {:.4f}",
    "learning_rate": "lr {:#.3g}",
    "seconds": "{:.2f} s",
}
_HOOKS = ("set_model", "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")


class Callback:
    """Base of all callbacks: every hook does nothing.

    Attributes
    ----------
    model : FunkSVD or None
        The model in training. During ``fit`` a callback may use its ``stop_training``, ``n_epochs``,
        ``current_learning_rate``, ``get_weights()``, ``set_weights(weights)`` and ``save(path)``.
    """

    model: Any = None

    def set_model(self, model):
        """Remember the model; called before all other hooks."""
        self.model = model

    def on_train_begin(self, logs=None):
        """Called once, before the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        """Called before each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Called after each epoch, with its losses in `logs`."""

    def on_train_end(self, logs=None):
        """Called once at the end, however training ended."""


class CallbackList:
    """Calls each callback in turn.

    Parameters
    ----------
    callbacks : None, Callback, or list or tuple of Callback
        Objects with the hooks of `Callback`; deriving from it is not required.
    model : FunkSVD
        Handed to each callback's ``set_model``.

    Raises
    ------
    TypeError
        If an entry lacks a hook.
    """

    def __init__(self, callbacks, model):
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, list | tuple):
            callbacks = [callbacks]
        for position, callback in enumerate(callbacks):
            _check_hooks(position, callback)
        self.callbacks = list(callbacks)
        self._begun = []
        for callback in self.callbacks:
            callback.set_model(model)

    def on_train_begin(self, logs):
        """Begin each callback; if one refuses, end those that have begun."""
        try:
            for callback in self.callbacks:
                callback.on_train_begin(logs)
                self._begun.append(callback)
        except BaseException:
            self.on_train_end(logs)
            raise

    def on_epoch_begin(self, epoch, logs):
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs):
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs):
        """End, once, each callback that has begun, even if one before it raises."""
        begun, self._begun = self._begun, []
        with ExitStack() as stack:
            for callback in reversed(begun):  # an ExitStack runs the last one pushed first
                stack.callback(callback.on_train_end, logs)


class _Monitor(Callback):
    """Reads one key of `logs` and judges whether it has improved."""

    def __init__(self, monitor, mode, min_delta=0, best=None):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{type(self).__name__}: mode={mode!r}; allowed are 'auto', 'min' and 'max'")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best = best

    def _current(self, logs):
        name = f"{type(self).__name__}: monitor={self.monitor!r}"
        if self.monitor not in logs:
            raise _missing_key(name, self.monitor, logs)
        if self.mode == "auto" and self.monitor not in _LOSSES:
            raise ValueError(
                f"{name} is better lower or higher? mode='auto' knows only {', '.join(_LOSSES)}; "
                "pass mode='min' or mode='max'"
            )
        return float(logs[self.monitor])

    def _improves(self, value, reference):
        if reference is None:
            return True
        sign = -1 if self.mode == "max" else 1
        # Keras compares in single precision, so 0.8 -> 0.7 is a tie under min_delta=0.1, although
        # 0.7 + 0.1 < 0.8 in double precision, and a gain of 1e-9 is none.
        with np.errstate(over="ignore"):
            return bool(np.float32(sign * value + self.min_delta) < np.float32(sign * reference))


class EarlyStopping(_Monitor):
    """Stop training when a monitored quantity has stopped improving.

    The decisions are those of Keras 3, epoch for epoch: the first value seen counts as an improvement, even
    NaN, which nothing improves on; a change of exactly `min_delta` is none; values are compared in single
    precision.

    Differences from Keras: `restore_best_weights` defaults to True; the best weights are restored however
    training ended (as in Keras when `n_epochs` were reached, and here also after an exception or Ctrl-C) and
    then let go; a missing `monitor` raises instead of never stopping.

    Parameters
    ----------
    monitor : str, default "val_loss"
        Key of `logs`. ``val_`` keys need validation data.
    min_delta : float, default 0
        Smallest change that counts as an improvement; its sign is ignored.
    patience : int, default 0
        Epochs in a row without improvement after which training stops; 0 and 1 mean the same.
    verbose : {0, 1}, default 0
        1 writes a line when the callback stopped training and when it restores weights.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher is better. "auto" is "min" for the losses of `fit`; a key that another
        callback adds needs "min" or "max".
    baseline : float, optional
        While no value beats it, improvements do not make the callback more patient.
    restore_best_weights : bool, default True
        At the end give the model the weights of `best_epoch`. Costs one copy of the parameters.
    start_from_epoch : int, default 0
        The first epochs, this many, are not looked at.

    Attributes
    ----------
    best : float or None
        Best value so far.
    best_epoch : int
        Its epoch, counted from 0.
    stopped_epoch : int
        Epoch, counted from 0, after which the callback stopped training; 0 if it did not.
    wait : int
        Epochs since the last improvement.
    best_weights : object or None
        Weights of `best_epoch` while training.

    Raises
    ------
    ValueError
        For a value that is not allowed, and at the end of the first epoch if `monitor` is not in `logs`.
    TypeError
        If `patience` or `start_from_epoch` is not an int.
    """

    def __init__(
        self,
        monitor="val_loss",
        min_delta=0,
        patience=0,
        verbose=0,
        mode="auto",
        baseline=None,
        restore_best_weights=True,
        start_from_epoch=0,
    ):
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = _check_count("patience", patience)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = _check_count("start_from_epoch", start_from_epoch)
        self._reset()

    def _reset(self):
        self.best = None
        self.best_epoch = 0
        self.best_weights = None
        self.stopped_epoch = 0
        self.wait = 0

    def on_train_begin(self, logs=None):
        self._reset()

    def on_epoch_end(self, epoch, logs=None):
        current = self._current(logs or {})
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._improves(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.verbose and self.stopped_epoch > 0:
            _write(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.best_weights is None:
            return
        if self.verbose:
            _write(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.\n")
        self.model.set_weights(self.best_weights)
        self.best_weights = None


class ModelCheckpoint(_Monitor):
    """Save the model after each epoch, or after each epoch that is the best so far.

    Differences from Keras: the path is checked before the first epoch; a missing directory is an error, not
    created; a missing `monitor` raises instead of saving every epoch; arguments after `monitor` go by name.

    Parameters
    ----------
    path : str or PathLike
        File to write with ``model.save``. Its name may have fields for ``epoch`` (counted from 1) and keys of
        `logs`, as in ``"movies-{epoch:02d}-{val_rmse:.4f}.npz"``. Without them each save replaces the last.
    monitor : str, default "val_loss"
        Key of `logs` that tells which epoch is best; used only with `save_best_only`.
    save_best_only : bool, default False
        Save only if `monitor` improved on `best`.
    mode : {"auto", "min", "max"}, default "auto"
        As in `EarlyStopping`.
    verbose : {0, 1}, default 0
        1 writes a line for each epoch.
    initial_value_threshold : float, optional
        First value of `best`: save nothing that is not better.

    Attributes
    ----------
    best : float or None
        Best value saved. As in Keras it lives on in the next ``fit``, because the file does.

    Raises
    ------
    ValueError
        At construction for a wrong `mode`; before the first epoch for a malformed `path` or an unknown field;
        at the end of the first epoch if `logs` lacks a field or, with `save_best_only`, `monitor`.
    OSError
        Before the first epoch: ``FileNotFoundError`` if the directory does not exist, ``PermissionError`` if
        it cannot be written, ``IsADirectoryError`` if `path` is a directory.
    """

    def __init__(
        self,
        path,
        monitor="val_loss",
        *,
        save_best_only=False,
        mode="auto",
        verbose=0,
        initial_value_threshold=None,
    ):
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.path = os.fsdecode(path)
        self.save_best_only = save_best_only
        self.verbose = verbose

    def on_train_begin(self, logs=None):
        # No logs exist yet; stand-ins show whether the template can be filled. The user's own callbacks may
        # add keys that are unknown here, but the monitor is expected to be one.
        self._check_path(self._fill(0, dict.fromkeys((*_LOG_KEYS, self.monitor), 1.0)))

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if not self.save_best_only:
            self._save(epoch, logs)
            return
        current = self._current(logs)
        if self._improves(current, self.best):
            self._save(epoch, logs)
            self.best = current
        elif self.verbose:
            _write(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}\n")

    def _save(self, epoch, logs):
        path = self._fill(epoch, logs)
        self.model.save(path)
        if self.verbose:
            _write(f"Epoch {epoch + 1}: saved model to {path}\n")

    def _fill(self, epoch, logs):
        fields = {"epoch": epoch + 1, **logs}
        try:
            return self.path.format_map(fields)
        except KeyError as error:
            field = error.args[0]
            raise _missing_key(
                f"ModelCheckpoint: path={self.path!r} has the field {field!r}, which", field, fields
            ) from None
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"ModelCheckpoint: path={self.path!r} cannot be filled in: {error}") from error

    def _check_path(self, example):
        name = f"ModelCheckpoint: path={self.path!r}"
        template = os.path.dirname(self.path)
        if any(field is not None for _, field, _, _ in string.Formatter().parse(template)):
            raise ValueError(f"{name} has a field in its directory; only the file name may have fields")
        directory = os.path.dirname(example) or os.curdir
        if not os.path.isdir(directory):
            raise FileNotFoundError(f"{name}: the directory {directory!r} does not exist; create it first")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(f"{name}: the directory {directory!r} is not writable")
        if os.path.isdir(example):
            raise IsADirectoryError(f"{name} is a directory; add a file name")


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` gets the epoch, counted from 0, and the current rate, and returns
        the rate to use from this epoch on.

    Raises
    ------
    TypeError
        If `schedule` is not callable or does not return a number.
    ValueError
        If the number is not finite and above 0.
    """

    def __init__(self, schedule):
        if not callable(schedule):
            raise TypeError(f"schedule={schedule!r}; it must be a function of epoch and learning rate")
        self.schedule = schedule

    def on_epoch_begin(self, epoch, logs=None):
        current = self.model.current_learning_rate
        rate = self.schedule(epoch, current)
        self.model.current_learning_rate = checked_rate(rate, f"schedule({epoch}, {current})")


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Called as ``function(epoch, logs)``.
    on_train_begin, on_train_end : callable, optional
        Called as ``function(logs)``.
    """

    def __init__(self, on_epoch_begin=None, on_epoch_end=None, on_train_begin=None, on_train_end=None):
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
        }
        self.__dict__.update({name: hook for name, hook in hooks.items() if hook is not None})


class ProgressBar(Callback):
    """One tqdm bar over the epochs with the latest loss and val_rmse; what ``verbose=1`` shows."""

    def on_train_begin(self, logs=None):
        from tqdm.auto import tqdm  # slow to import, and needed only here

        self._bar = tqdm(total=self.model.n_epochs, unit="epoch")

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        shown = {key: f"{logs[key]:.4f}" for key in ("loss", "val_rmse") if key in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, logs=None):
        self._bar.close()


class EpochLines(_Monitor):
    """One line for each epoch; what ``verbose=2`` shows.

    A line reads ``epoch  3/20  rmse 0.8712  val_rmse 0.9125  lr 0.0171  0.03 s *``. The star marks the lowest
    val_loss so far.

    Parameters
    ----------
    write : callable, optional
        Called with each line and its newline; by default they go to standard output.
    """

    def __init__(self, write=None):
        super().__init__("val_loss", "min")
        self.write = _write if write is None else write

    def on_train_begin(self, logs=None):
        self.best = None

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        total = str(self.model.n_epochs)
        parts = [f"epoch {epoch + 1:>{len(total)}}/{total}"]
        parts += [part.format(logs[key]) for key, part in _LINE_PARTS.items() if key in logs]
        mark = ""
        if self.monitor in logs and self._improves(logs[self.monitor], self.best):
            self.best = logs[self.monitor]
            mark = " *"
        self.write("  ".join(parts) + mark + "\n")


def _check_hooks(position, callback):
    if isinstance(callback, type):
        name = callback.__name__
        raise TypeError(f"callbacks[{position}] is the class {name}; pass an instance, {name}(...)")
    for hook in _HOOKS:
        if not callable(getattr(callback, hook, None)):
            raise TypeError(
                f"callbacks[{position}] is {callback!r}, which has no method {hook}; derive it from Callback "
                "or wrap functions, as in LambdaCallback(on_epoch_end=function)"
            )


def _check_count(name, value):
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}; it must be an int")
    if value < 0:
        raise ValueError(f"{name}={value!r}; it must be 0 or more")
    return value


def _missing_key(subject, key, available):
    """The error for a `key` that is not among those `available`."""
    message = f"{subject} is not among the logs; there are {', '.join(available) or 'none'}"
    if key.startswith("val_") and not any(name.startswith("val_") for name in available):
        message += "; pass validation data to fit"
    return ValueError(message)


def _write(text):
    """Write to standard output at once, lifting a progress bar that is on the screen out of the way."""
    from tqdm import tqdm

    tqdm.write(text, end="")
    sys.stdout.flush()
