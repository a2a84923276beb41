"""ModelCheckpoint."""

from __future__ import annotations

import os

from funksvd.callbacks.monitor import EPOCH_KEYS, Monitor, missing_key
from funksvd.callbacks.progress import say


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
            raise ValueError(
                f"save_freq={save_freq!r}; it must be 'epoch': a model is saved after whole epochs, "
                "and a number counts batches in Keras"
            )
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
            raise missing_key(
                f"ModelCheckpoint: path={self.path!r} has the field {field!r}, which", field, fields
            ) from None
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"ModelCheckpoint: path={self.path!r} cannot be filled in: {error}"
            ) from error

    def _check_path(self, example):
        name = f"ModelCheckpoint: path={self.path!r}"
        import string  # not needed to import funksvd

        template = os.path.dirname(self.path)
        if any(field is not None for _, field, _, _ in string.Formatter().parse(template)):
            raise ValueError(
                f"{name} has a field in its directory; only the file name may have fields"
            )
        from funksvd.machine.replacing import check_writable  # neither is this

        try:
            check_writable(example)
        except (OSError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
