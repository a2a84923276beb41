"""Replays series of losses to callbacks, to those of this package and to those of Keras."""

import math
import os

import pytest
from hypothesis import strategies as st

from funksvd.callbacks import CallbackList

NAN = math.nan

LOSSES = st.lists(
    st.one_of(
        st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5 + 1e-9, 0.7, 0.8, 1.0, NAN, math.inf]),
        st.floats(0, 2, width=32, allow_subnormal=False),
    ),
    min_size=1,
    max_size=12,
)


class FakeModel:
    """Replays the logs of each epoch to callbacks; the weights are the number of the epoch."""

    def __init__(self, logs, learning_rate=0.01):
        self.logs = logs
        self.n_epochs = len(logs)
        self.current_learning_rate = learning_rate
        self.weights = None
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append((os.path.basename(path), self.weights))

    save_checkpoint = save

    def fit(self, callbacks):
        """Run the epochs; return how many ran."""
        self.stop_training = False
        hooks = CallbackList(callbacks, self, self.n_epochs)
        logs = {}
        hooks.on_train_begin(logs)
        try:
            for epoch, logs in enumerate(self.logs):
                hooks.on_epoch_begin(epoch, {})
                self.weights = epoch
                hooks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            hooks.on_train_end(logs)
        return epoch + 1


def replay(losses, callback, key="val_loss"):
    """Replay a series of losses to a callback; return (number of epochs, the model)."""
    model = FakeModel([{key: loss} for loss in losses])
    return model.fit(callback), model


def same(left, right):
    """Return whether two sequences are equal, where NaN equals NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(left, right, strict=True))


def keras_callbacks():
    """Return the callbacks of Keras; skip the test if it is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras").callbacks
