"""Callbacks that watch a loss: stop, save, lower the learning rate. They decide as those of Keras 3 do."""

import os
from numbers import Integral

import numpy as np

from funksvd.hooks import Callback
from funksvd.progress import say

LOSSES = ("loss", "rmse", "val_loss", "val_rmse")
EPOCH_KEYS = (*LOSSES, "learning_rate", "seconds")


class Monitor(Callback):
    """Reads one key of `logs` and judges whether it has improved."""

    STATE: tuple[str, ...] = ("best",)  # attributes that a checkpoint keeps

    def get_state(self):
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state):
        self.__dict__.update(state)

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
        if self.mode == "auto" and self.monitor not in LOSSES:
            raise ValueError(
                f"{name} is better lower or higher? mode='auto' knows only {', '.join(LOSSES)}; "
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


class EarlyStopping(Monitor):
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

    STATE = ("best", "best_epoch", "best_weights", "stopped_epoch", "wait")

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
            say(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.best_weights is None:
            return
        if self.verbose:
            say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.\n")
        self.model.set_weights(self.best_weights)
        self.best_weights = None


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
        self.patience = _check_count("patience", patience)
        self.verbose = verbose
        self.cooldown = _check_count("cooldown", cooldown)
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
                    say(f"Epoch {epoch + 1}: learning rate lowered to {self.model.current_learning_rate:g}\n")


class ModelCheckpoint(Monitor):
    """Save the model after each epoch, or after each epoch that is the best so far.

    ``fit(..., resume=file)`` goes on from a saved file, and ends with the same bytes as if training had never stopped:
    besides the model it holds the solver's state, the seed, the history and the state of all callbacks.

    Differences from Keras: the path is checked before the first epoch; a missing directory is an error, not
    created; a missing `monitor` raises instead of saving every epoch; a number as `save_freq`, which counts batches
    there, is refused; files are written when all callbacks are done with the epoch; arguments after `monitor` go by name.

    Parameters
    ----------
    path : str or PathLike
        File to write; ``load`` reads it as any model. Its name may have fields for ``epoch`` (counted from 1) and keys
        of `logs`, as in ``"movies-{epoch:02d}-{val_rmse:.4f}.npz"``. Without them each save replaces the last.
    monitor : str, default "val_loss"
        Key of `logs` that tells which epoch is best; used only with `save_best_only`.
    save_best_only : bool, default False
        Save only if `monitor` improved on `best`.
    save_weights_only : bool, default False
        Save the model alone, from which training cannot be resumed: a smaller file.
    mode : {"auto", "min", "max"}, default "auto"
        As in `EarlyStopping`.
    save_freq : "epoch"
        There is nothing else: a model is whole, and its validation loss known, after an epoch.
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
        At construction for a wrong `mode` or `save_freq`; before the first epoch for a malformed `path` or an unknown field;
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
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        verbose=0,
        initial_value_threshold=None,
    ):
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.path = os.fsdecode(path)
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        if save_freq != "epoch":
            raise ValueError(f"save_freq={save_freq!r}; it must be 'epoch': a model is saved after whole epochs, "
                             "and a number counts batches in Keras")  # fmt: skip
        self.save_freq = save_freq
        self.verbose = verbose
        self._due = None

    def on_train_begin(self, logs=None):
        self._due = None
        # No logs exist yet; stand-ins show whether the template can be filled. The user's own callbacks may
        # add keys that are unknown here, but the monitor is expected to be one.
        self._check_path(self._fill(0, dict.fromkeys((*EPOCH_KEYS, self.monitor), 1.0)))

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        self._due, self._best_before = None, self.best
        if self.save_best_only:
            current = self._current(logs)
            if not self._improves(current, self.best):
                if self.verbose:
                    say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}\n")
                return
            self.best = current
        self._due = self._fill(epoch, logs)

    def after_epoch(self, epoch, logs=None):
        if self._due is None:
            return
        try:
            if self.save_weights_only:
                self.model.save(self._due)
            else:
                self.model.save_checkpoint(self._due)
        except BaseException:
            self.best = self._best_before  # no file has it
            raise
        if self.verbose:
            say(f"Epoch {epoch + 1}: saved model to {self._due}\n")

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
        import string  # not needed to import funksvd

        template = os.path.dirname(self.path)
        if any(field is not None for _, field, _, _ in string.Formatter().parse(template)):
            raise ValueError(f"{name} has a field in its directory; only the file name may have fields")
        from funksvd.files import check_writable  # neither is this

        try:
            check_writable(example)
        except (OSError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error


def _check_count(name, value, least=0):
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}; it must be an int")
    if value < least:
        raise ValueError(f"{name}={value!r}; it must be {least} or more")
    return value


def _missing_key(subject, key, available):
    """The error for a `key` that is not among those `available`."""
    message = f"{subject} is not among the logs; there are {', '.join(available) or 'none'}"
    if key.startswith("val_") and not any(name.startswith("val_") for name in available):
        message += "; pass validation data to fit"
    return ValueError(message)


