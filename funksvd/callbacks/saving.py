"""ModelCheckpoint, the callback that saves a model during training."""

from __future__ import annotations

import os
from collections.abc import Mapping

from funksvd.callbacks.callback import Logs
from funksvd.callbacks.monitor import EPOCH_KEYS, Monitor, missing_key
from funksvd.callbacks.progress import say


class ModelCheckpoint(Monitor):
    """Saves the model after each epoch, or after each epoch that is the best so far.

    ``fit(..., resume=file)`` goes on from a saved file and ends with the same bytes as if training
    had never stopped: besides the model the file holds the solver's state, the seed, the history
    and the state of all callbacks.

    Differences from Keras: the path is checked before the first epoch; a missing directory is an
    error and is not created; a missing `monitor` raises an error instead of saving every epoch;
    `save_freq` may not be a number, which counts batches in Keras; files are written when all
    callbacks are done with the epoch; arguments after `monitor` must be passed by name.

    Parameters
    ----------
    path : str or PathLike
        File to write; `load` reads it as it reads any model. Its name may have fields for `epoch`
        (counted from 1) and keys of `logs`, as in ``"movies-{epoch:02d}-{val_rmse:.4f}.npz"``.
        Without fields each save replaces the last one.
    monitor : str, default "val_loss"
        Key of `logs` that decides which epoch is best; used only with `save_best_only`.
    save_best_only : bool, default False
        Save only if `monitor` improves on `best`.
    save_weights_only : bool, default False
        Save the model alone. The file is smaller, but training cannot be resumed from it.
    mode : {"auto", "min", "max"}, default "auto"
        As in `EarlyStopping`.
    save_freq : "epoch"
        The only choice: after an epoch a model is whole and its validation loss known.
    verbose : {0, 1}, default 0
        1 writes a line for each epoch.
    initial_value_threshold : float, optional
        First value of `best`: an epoch that is not better is not saved.

    Attributes
    ----------
    best : float or None
        Best value saved. As in Keras it lives on in the next `fit`, because the file does.

    Raises
    ------
    ValueError
        At construction, for a wrong `mode` or `save_freq`; before the first epoch, for a malformed
        `path` or an unknown field; at the end of the first epoch, if `logs` lacks a field or, with
        `save_best_only`, `monitor`.
    OSError
        Before the first epoch: FileNotFoundError if the directory does not exist, PermissionError
        if it is not writable, IsADirectoryError if `path` is a directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        *,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str = "epoch",
        verbose: int = 0,
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.path = os.fsdecode(path)
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        if save_freq != "epoch":
            raise ValueError(
                f"save_freq={save_freq!r}; it must be 'epoch': a model is saved after whole epochs,"
                " and a number counts batches in Keras"
            )
        self.save_freq = save_freq
        self.verbose = verbose
        # The file that `after_epoch` is to write, and `best` as it was before this epoch.
        self._due: str | None = None
        self._best_before = self.best

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Check the path, filled in with stand-ins, since no logs exist yet.

        The stand-ins include the monitor, which another callback may add to the logs; other keys
        that callbacks may add are not known here.
        """
        self._due = None
        self._check_path(self._filled(0, dict.fromkeys((*EPOCH_KEYS, self.monitor), 1.0)))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Decide whether to save this epoch, and under which name."""
        logs = logs or {}
        self._due = None
        self._best_before = self.best
        if self.save_best_only:
            current = self._current(logs)
            if not self._improves(current, self.best):
                if self.verbose:
                    say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}\n")
                return
            self.best = current
        self._due = self._filled(epoch, logs)

    def after_epoch(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the file, if this epoch is to be saved."""
        if self._due is None:
            return
        try:
            if self.save_weights_only:
                self.model.save(self._due)
            else:
                self.model.save_checkpoint(self._due)
        except BaseException:
            self.best = self._best_before  # since no file holds the new best
            raise
        if self.verbose:
            say(f"Epoch {epoch + 1}: saved model to {self._due}\n")

    def _filled(self, epoch: int, logs: Mapping[str, float]) -> str:
        """Return the path with its fields filled in."""
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

    def _check_path(self, example: str) -> None:
        """Raise an error if a file like `example`, a filled path, could not be written."""
        import string  # not needed to import funksvd

        from funksvd.machine.replacing import check_writable

        name = f"ModelCheckpoint: path={self.path!r}"
        directory = os.path.dirname(self.path)
        if any(field is not None for _, field, _, _ in string.Formatter().parse(directory)):
            raise ValueError(
                f"{name} has a field in its directory; only the file name may have fields"
            )
        try:
            check_writable(example)
        except (OSError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
