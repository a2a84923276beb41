"""Callbacks that write as training goes: a progress bar, a line an epoch, a CSV file."""

from __future__ import annotations

import os
import sys

from funksvd.callbacks.callback import Callback

_LINE_PARTS = {
    "rmse": "rmse {:.4f}",
    "val_rmse": "val_rmse {:.4f}",
    "learning_rate": "lr {:#.3g}",
    "seconds": "{:.2f} s",
}


class ProgressBar(Callback):
    """One tqdm bar over the epochs with the latest loss and val_rmse; what ``verbose=1`` shows."""

    def on_train_begin(self, logs=None):
        from tqdm.auto import tqdm  # slow to import, and needed only here

        self._bar = tqdm(
            total=self.params["epochs"], initial=self.params["initial_epoch"], unit="epoch"
        )

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        shown = {key: f"{logs[key]:.4f}" for key in ("loss", "val_rmse") if key in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, logs=None):
        self._bar.close()


class EpochLines(Callback):
    """One line for each epoch; what ``verbose=2`` shows.

    A line reads ``epoch  3/20  rmse 0.8712  val_rmse 0.9125  lr 0.0171  0.03 s *``. The star marks the lowest
    val_loss so far.

    Parameters
    ----------
    write : callable, optional
        Called with each line and its newline; by default they go to standard output.
    """

    def __init__(self, write=None):
        self.write = say if write is None else write

    def on_train_begin(self, logs=None):
        self.best = min(
            getattr(self.model, "history_", {}).get("val_loss", ()), default=None
        )  # of epochs before `resume`

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        total = str(self.params["epochs"])
        parts = [f"epoch {epoch + 1:>{len(total)}}/{total}"]
        parts += [part.format(logs[key]) for key, part in _LINE_PARTS.items() if key in logs]
        mark = ""
        if "val_loss" in logs and (self.best is None or logs["val_loss"] < self.best):
            self.best = logs["val_loss"]
            mark = " *"
        self.write("  ".join(parts) + mark + "\n")


class CSVLogger(Callback):
    """A line of a CSV file for each epoch: ``epoch``, counted from 0, and the logs in the order of their names.

    The file is that of Keras 3. Differences: without validation data there are no ``val_`` columns of NA; after a
    resumed checkpoint `append` first takes away the lines of epochs that come again.

    Parameters
    ----------
    filename : str or PathLike
    separator : str, default ","
    append : bool, default False
        Add to the file that there is, as for a resumed training, instead of starting it anew.

    Raises
    ------
    OSError
        Before the first epoch, if the file cannot be written.
    """

    _file = _keys = None

    def __init__(self, filename, separator=",", append=False):
        self.filename = os.fsdecode(filename)
        self.separator = separator
        self.append = append

    def on_train_begin(self, logs=None):
        self._keys = None
        self._file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115 - closed in on_train_end
        self._header = not self._file.tell()

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self._keys is None:
            self._keys = sorted(logs)
        import csv  # not needed to import funksvd

        lines = csv.writer(self._file, delimiter=self.separator)
        if self._header:
            lines.writerow(["epoch", *self._keys])
            self._header = False
        lines.writerow([epoch, *(logs.get(key, "NA") for key in self._keys)])
        self._file.flush()

    def on_train_end(self, logs=None):
        self._file.close()

    def get_state(self):
        if self.append:
            return {"bytes": os.path.getsize(self.filename) if os.path.exists(self.filename) else 0}
        return None

    def set_state(self, state):
        if state["bytes"] < self._file.tell():
            self._file.truncate(state["bytes"])


def say(text):
    """Write to standard output at once, lifting a progress bar that is on the screen out of the way."""
    from tqdm import tqdm

    tqdm.write(text, end="")
    sys.stdout.flush()
