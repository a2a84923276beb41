"""The decisions of callbacks on series of losses that are hard to judge.

``python tests/keras_decisions.py`` asks Keras 3 and prints the table `keras_decisions.json`. The
tests compare funksvd's callbacks with it where Keras is not installed.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAN = math.nan
SERIES = {
    "falling": [5, 4, 3, 2, 1],
    "rising": [1, 2, 3, 4, 5],
    "plateau": [1, 1, 1, 1, 1, 1, 1, 1],
    "ties with the best": [3, 2, 3, 2, 3, 2, 1],
    "one late gain": [3, 4, 4, 4, 2, 4, 4, 4, 4],
    "steps of exactly min_delta": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    "steps just over min_delta": [1.0, 0.8999, 0.7998, 0.6997],
    "gains below single precision": [1.0, 1 - 1e-9, 1 - 2e-9, 1 - 3e-9],
    "creep": [1.0, 0.96, 0.92, 0.88, 0.84],
    "NaN first": [NAN, 1, 0.5, 0.2],
    "NaN inside": [2, NAN, 1, NAN, NAN, NAN],
    "NaN only": [NAN, NAN, NAN],
    "infinite first": [math.inf, math.inf, 3, 2],
    "huge": [1e39, 1e38, 1e37],
    "one": [0.5],
    "waves": [4, 3, 3.5, 3.5, 2.9, 3, 3, 3, 3, 2.85, 2.95, 2.95],
}
STOPPING = [
    {
        "min_delta": min_delta,
        "patience": patience,
        "baseline": baseline,
        "start_from_epoch": start,
        "restore_best_weights": True,
    }
    for min_delta, baseline in ((0, None), (0.1, None), (0, 0.85), (0.1, 2))
    for patience in (0, 1, 2, 3)
    for start in (0, 2)
]
STOPPING += [
    {"patience": 2, "restore_best_weights": False},
    {"patience": 1, "mode": "max", "restore_best_weights": True},
]
PLATEAU = [
    {
        "factor": 0.5,
        "patience": patience,
        "min_delta": min_delta,
        "cooldown": cooldown,
        "min_lr": min_lr,
    }
    for patience in (0, 1, 2)
    for min_delta, min_lr in ((0, 0), (0.1, 0.03))
    for cooldown in (0, 1, 3)
] + [{"factor": 0.1, "patience": 2, "mode": "max"}]
CHECKPOINT = [
    {"save_best_only": True, "initial_value_threshold": threshold, "mode": mode}
    for threshold in (None, 0.85, 2.0)
    for mode in ("auto", "max")
] + [{}]


@dataclass
class Optimizer:
    """Keras' optimizer, as far as its callbacks know it."""

    learning_rate: float = 0.1


class Model:
    """A model for the callbacks of both; the weights of an epoch are its number."""

    def __init__(self) -> None:
        self.optimizer = Optimizer()
        self.saved: list[str] = []
        self.stop_training = False
        self.weights = -1

    @property
    def current_learning_rate(self) -> float:
        return self.optimizer.learning_rate

    @current_learning_rate.setter
    def current_learning_rate(self, rate: float) -> None:
        self.optimizer.learning_rate = rate

    def get_weights(self) -> int:
        return self.weights

    def set_weights(self, weights: int) -> None:
        self.weights = weights

    def save(self, path: Any, overwrite: bool = True) -> None:
        self.saved.append(Path(path).name)

    save_checkpoint = save

    def run(self, callback: Any, losses: list[float], **more: float) -> list[float]:
        """Run epochs with these losses; return the learning rate after each."""
        callback.set_model(self)
        callback.on_train_begin({})
        rates = []
        for epoch, loss in enumerate(losses):
            self.weights = epoch
            logs = {"val_loss": loss} | more
            callback.on_epoch_begin(epoch, {})
            callback.on_epoch_end(epoch, logs)
            if hasattr(callback, "after_epoch"):  # only funksvd's have it
                callback.after_epoch(epoch, logs)
            rates.append(self.optimizer.learning_rate)
            if self.stop_training:
                break
        callback.on_train_end({})
        return rates


Make = Callable[..., Any]


def stopping(
    make: Make,
    losses: list[float],
    arguments: dict[str, Any],
) -> list[Any]:
    """Return [epochs run, stopped_epoch, best_epoch, wait, epoch of the weights at the end]."""
    model = Model()
    callback = make(**arguments)
    epochs = len(model.run(callback, losses))
    return [epochs, callback.stopped_epoch, callback.best_epoch, callback.wait, model.weights]


def plateau(
    make: Make,
    losses: list[float],
    arguments: dict[str, Any],
) -> list[float]:
    """Return the learning rate after each epoch, with six digits."""
    return [float(f"{rate:.6g}") for rate in Model().run(make(**arguments), losses)]


def checkpoint(
    make: Make,
    losses: list[float],
    arguments: dict[str, Any],
) -> list[str]:
    """Return the names of the files of two runs; the best loss lives on in the second."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model()
        callback = make(os.path.join(folder, "{epoch:02d}-{val_loss:.2f}.keras"), **arguments)
        model.run(callback, losses)
        model.run(callback, losses[::-1])
        return model.saved


def logger(
    make: Make,
    losses: list[float],
    arguments: dict[str, Any],
) -> str:
    """Return the text of the CSV file of two runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "log.csv")
        for _ in range(2):
            Model().run(make(path, **arguments), losses, loss=0.1, learning_rate=1e-3)
        with open(path, newline="") as file:
            return file.read()


# Callback -> the function that asks it, and the settings to ask it with.
ASKED = {
    "EarlyStopping": (stopping, STOPPING),
    "ReduceLROnPlateau": (plateau, PLATEAU),
    "ModelCheckpoint": (checkpoint, CHECKPOINT),
    "CSVLogger": (logger, [{}, {"append": True}, {"separator": ";"}]),
}


LOGGED = ("NaN inside", "huge")  # the series that a CSVLogger is asked about


def decisions(callbacks: Any, name: str) -> dict[str, list[Any]]:
    """Return for each series the decisions of a callback with each of its settings."""
    ask, settings = ASKED[name]
    callback = getattr(callbacks, name)
    decided = {}
    for title, losses in SERIES.items():
        if name != "CSVLogger" or title in LOGGED:
            decided[title] = [ask(callback, losses, arguments) for arguments in settings]
    return decided


def main() -> None:
    """Print the decisions of Keras as JSON, a series a line."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    table: dict[str, Any] = {"Keras": keras.__version__}
    for name in ASKED:
        for title, found in decisions(keras.callbacks, name).items():
            table[f"{name}: {title}"] = found
    lines = []
    for key, value in table.items():
        lines.append(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}")
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
