"""Callbacks that write as training goes: a progress bar, a line an epoch, a CSV file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any

from funksvd.boundary import check_whole
from funksvd.callbacks.callback import Callback, Logs, State

# Key of `logs` -> its format in a line of `EpochLines`.
LINE_PARTS = {
    "rmse": "rmse {:.4f}",
    "val_rmse": "val_rmse {:.4f}",
    "learning_rate": "lr {:#.3g}",
    "seconds": "{:.2f} s",
}


class ProgressBar(Callback):
    """Shows one tqdm bar over the epochs, with the last loss and val_rmse; used for verbose=1."""

    _bar: Any

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Draw the bar."""
        from tqdm.auto import tqdm  # slow to import, and needed only here

        self._bar = tqdm(
            total=self.params["epochs"], initial=self.params["initial_epoch"], unit="epoch"
        )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Move the bar by one epoch."""
        logs = logs or {}
        shown = {key: f"{logs[key]:.4f}" for key in ("loss", "val_rmse") if key in logs}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the bar."""
        self._bar.close()


class EpochLines(Callback):
    """Writes one line for each epoch; used for verbose=2.

    A line reads ``epoch  3/20  rmse 0.8712  val_rmse 0.9125  lr 0.0171  0.03 s *``. The star marks
    the lowest val_loss so far.

    Parameters
    ----------
    write : callable, optional
        Called with each line and its newline; by default lines go to standard output.
    """

    def __init__(self, write: Callable[[str], Any] | None = None) -> None:
        self.write = say if write is None else write
        self.best: float | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Find the best loss of the epochs before, which a resumed model has."""
        past = getattr(self.model, "history_", {})
        self.best = min(past.get("val_loss", ()), default=None)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the line of the epoch."""
        logs = logs or {}
        total = str(self.params["epochs"])
        parts = [f"epoch {epoch + 1:>{len(total)}}/{total}"]
        parts += [part.format(logs[key]) for key, part in LINE_PARTS.items() if key in logs]
        mark = ""
        if "val_loss" in logs and (self.best is None or logs["val_loss"] < self.best):
            self.best = logs["val_loss"]
            mark = " *"
        self.write("  ".join(parts) + mark + "\n")


class CSVLogger(Callback):
    """Writes a line of a CSV file for each epoch: the epoch, from 0, and the logs sorted by name.

    The file is that of Keras 3, with two differences. Without validation data it has no `val_`
    columns of NA. If a fit resumes with `append`, lines of epochs that are trained again are first
    removed.

    Parameters
    ----------
    filename : str or PathLike
    separator : str, default ","
    append : bool, default False
        Add to an existing file instead of starting a new one, as a resumed training needs.

    Raises
    ------
    OSError
        Before the first epoch, if the file cannot be written.
    """

    _file: IO[str]
    _header: bool
    _keys: list[str] | None

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.filename = os.fsdecode(filename)
        self.separator = separator
        self.append = append

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Open the file."""
        self._keys = None
        mode = "a" if self.append else "w"
        self._file = open(self.filename, mode, newline="")  # noqa: SIM115 - on_train_end closes it
        self._header = not self._file.tell()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the line of the epoch, and the header before the first."""
        import csv  # not needed to import funksvd

        logs = logs or {}
        if self._keys is None:
            self._keys = sorted(logs)
        lines = csv.writer(self._file, delimiter=self.separator)
        if self._header:
            lines.writerow(["epoch", *self._keys])
            self._header = False
        lines.writerow([epoch, *(logs.get(key, "NA") for key in self._keys)])
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Close the file."""
        self._file.close()

    def get_state(self) -> State | None:
        """Return the size of the file, if it is appended to."""
        if not self.append:
            return None
        return {"bytes": os.path.getsize(self.filename) if os.path.exists(self.filename) else 0}

    def check_state(self, state: State) -> None:
        """Raise ValueError if a state from a file is none that `get_state` returns."""
        if state.keys() != {"bytes"}:
            raise ValueError(f"the state of CSVLogger has {', '.join(map(repr, state))}")
        check_whole(state["bytes"], "the size of the log in the state of CSVLogger")

    def set_state(self, state: State) -> None:
        """Remove the lines that were written after the checkpoint."""
        self.check_state(state)
        if state["bytes"] < self._file.tell():
            self._file.truncate(state["bytes"])


def say(text: str) -> None:
    """Write to standard output at once, above a progress bar that may be on the screen."""
    from tqdm import tqdm

    tqdm.write(text, end="")
    sys.stdout.flush()
