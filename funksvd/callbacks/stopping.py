"""EarlyStopping."""

from __future__ import annotations

from funksvd.callbacks.monitor import Monitor
from funksvd.callbacks.progress import say
from funksvd.checks import check_count


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
        self.patience = check_count("patience", patience)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = check_count("start_from_epoch", start_from_epoch)
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
