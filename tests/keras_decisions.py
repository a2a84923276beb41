"""What callbacks decide on series of losses that are hard to judge; `python tests/keras_decisions.py` asks Keras 3.

It prints the table `keras_decisions.json`, which the tests hold funksvd's callbacks to where Keras is not installed.
"""

import json
import math
import os
import sys
import tempfile
from types import SimpleNamespace

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


class Model:
    """The model's side: an epoch's weights are its number."""

    def __init__(self):
        self.optimizer, self.saved, self.stop_training = (
            SimpleNamespace(learning_rate=0.1),
            [],
            False,
        )

    current_learning_rate = property(
        lambda self: self.optimizer.learning_rate,
        lambda self, rate: setattr(self.optimizer, "learning_rate", rate),
    )

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append(os.path.basename(path))

    save_checkpoint = save

    def run(self, callback, losses, **more):
        """The learning rate after each epoch."""
        callback.set_model(self)
        callback.on_train_begin({})
        rates = []
        for epoch, loss in enumerate(losses):
            self.weights = epoch
            logs = {"val_loss": loss} | more
            callback.on_epoch_begin(epoch, {})
            callback.on_epoch_end(epoch, logs)
            if hasattr(callback, "after_epoch"):  # funksvd's
                callback.after_epoch(epoch, logs)
            rates.append(self.optimizer.learning_rate)
            if self.stop_training:
                break
        callback.on_train_end({})
        return rates


def stopping(make, losses, arguments):
    """[epochs run, stopped_epoch, best_epoch, wait, epoch of the weights at the end]."""
    model, callback = Model(), make(**arguments)
    epochs = len(model.run(callback, losses))
    return [epochs, callback.stopped_epoch, callback.best_epoch, callback.wait, model.weights]


def plateau(make, losses, arguments):
    return [float(f"{rate:.6g}") for rate in Model().run(make(**arguments), losses)]


def checkpoint(make, losses, arguments):
    """Names of the files of two runs: `best` lives on in the second."""
    with tempfile.TemporaryDirectory() as folder:
        model, callback = (
            Model(),
            make(os.path.join(folder, "{epoch:02d}-{val_loss:.2f}.keras"), **arguments),
        )
        model.run(callback, losses)
        model.run(callback, losses[::-1])
        return model.saved


def logger(make, losses, arguments):
    """The CSV file of two runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "log.csv")
        for _ in range(2):
            Model().run(make(path, **arguments), losses, loss=0.1, learning_rate=1e-3)
        with open(path, newline="") as file:
            return file.read()


ASKED = {
    "EarlyStopping": (stopping, STOPPING),
    "ReduceLROnPlateau": (plateau, PLATEAU),
    "ModelCheckpoint": (checkpoint, CHECKPOINT),
    "CSVLogger": (logger, [{}, {"append": True}, {"separator": ";"}]),
}


def decisions(callbacks, name):
    """{series: what the callback decides with each of its settings}."""
    ask, settings = ASKED[name]
    return {
        title: [ask(getattr(callbacks, name), losses, arguments) for arguments in settings]
        for title, losses in SERIES.items()
        if name != "CSVLogger" or title in ("NaN inside", "huge")
    }


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    lines = {"Keras": keras.__version__}
    for name in ASKED:
        lines |= {
            f"{name}: {title}": found for title, found in decisions(keras.callbacks, name).items()
        }
    text = (
        f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}"
        for key, value in lines.items()
    )
    sys.stdout.write("{\n" + ",\n".join(text) + "\n}\n")
