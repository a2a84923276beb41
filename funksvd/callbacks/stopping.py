"""EarlyStopping, the callback that ends training when it no longer helps."""

from __future__ import annotations

from typing import ClassVar

from funksvd.callbacks.callback import Logs
from funksvd.callbacks.monitor import Monitor, is_best, is_count
from funksvd.callbacks.progress import say
from funksvd.checks import check_count
from funksvd.weights import Weights


class EarlyStopping(Monitor):
    """Stops training when a monitored quantity has stopped improving.

    The decisions are those of Keras 3, epoch for epoch: the first value counts as an improvement,
    even if it is NaN, and no value improves on NaN; a change of exactly `min_delta` is no
    improvement; values are compared in single precision.

    Differences from Keras: `restore_best_weights` is True by default; the best weights are
    restored however training ends (in Keras also when `n_epochs` are reached; here also after an
    exception or Ctrl-C), and are then released; a missing `monitor` raises an error instead of
    never stopping.

    Parameters
    ----------
    monitor : str, default "val_loss"
        Key of `logs`. Keys that begin with `val_` need validation data.
    min_delta : float, default 0
        Smallest change that counts as an improvement; its sign is ignored.
    patience : int, default 0
        Epochs in a row without improvement after which training stops; 0 and 1 mean the same.
    verbose : {0, 1}, default 0
        1 writes a line when the callback stops training and when it restores weights.
    mode : {"auto", "min", "max"}, default "auto"
        Whether lower or higher is better. "auto" is "min" for the losses of `fit`; a key that
        another callback adds needs "min" or "max".
    baseline : float, optional
        Until a value beats the baseline, improvements do not reset `wait`.
    restore_best_weights : bool, default True
        Give the model the weights of `best_epoch` at the end. This costs one copy of the weights.
    start_from_epoch : int, default 0
        Number of first epochs to ignore.

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
    best_weights : Weights or None
        Weights of `best_epoch`, during training.

    Raises
    ------
    ValueError
        If a value is not allowed; or at the end of the first epoch, if `monitor` is not in `logs`.
    TypeError
        If `patience` or `start_from_epoch` is not an int.
    """

    STATE: ClassVar = {
        "best": is_best,
        "best_epoch": is_count,
        "best_weights": lambda value: value is None or isinstance(value, Weights),
        "stopped_epoch": is_count,
        "wait": is_count,
    }

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = check_count("patience", patience)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = check_count("start_from_epoch", start_from_epoch)
        self._reset()

    def _reset(self) -> None:
        self.best = None
        self.best_epoch = 0
        self.best_weights: Weights | None = None
        self.stopped_epoch = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forget an earlier fit."""
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Keep the weights of the best epoch; stop after `patience` epochs without improvement."""
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

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Give the model the weights of the best epoch."""
        if self.verbose and self.stopped_epoch > 0:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.best_weights is None:
            return
        if self.verbose:
            say(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.\n")
        self.model.set_weights(self.best_weights)
        self.best_weights = None
