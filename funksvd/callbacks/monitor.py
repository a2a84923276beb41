"""Callbacks that watch a loss: stop, save, lower the learning rate. They decide as those of Keras 3 do."""

from __future__ import annotations

import numpy as np

from funksvd.callbacks.callback import Callback

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
            raise ValueError(
                f"{type(self).__name__}: mode={mode!r}; allowed are 'auto', 'min' and 'max'"
            )
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best = best

    def _current(self, logs):
        name = f"{type(self).__name__}: monitor={self.monitor!r}"
        if self.monitor not in logs:
            raise missing_key(name, self.monitor, logs)
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


def missing_key(subject, key, available):
    """The error for a `key` that is not among those `available`."""
    message = f"{subject} is not among the logs; there are {', '.join(available) or 'none'}"
    if key.startswith("val_") and not any(name.startswith("val_") for name in available):
        message += "; pass validation data to fit"
    return ValueError(message)
