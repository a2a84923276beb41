"""The base class of callbacks that watch a loss. They decide as those of Keras 3 do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from funksvd.callbacks.callback import Callback, Logs, State
from funksvd.checks import is_whole

LOSSES = ("loss", "rmse", "val_loss", "val_rmse")
EPOCH_KEYS = (*LOSSES, "learning_rate", "seconds")


def is_best(value: Any) -> bool:
    """Return whether a value is None or a number, which may be NaN or infinite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number of at least 0."""
    return is_whole(value) and value >= 0


class Monitor(Callback):
    """Reads one key of `logs` and decides whether it has improved.

    Parameters
    ----------
    monitor : str
        Key of `logs`.
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" is "min" and knows the losses of `fit` alone.
    min_delta : float
        Smallest change that counts as an improvement; its sign is ignored.
    best : float or None
        Value that the first one has to improve on.
    """

    # The attributes that a checkpoint keeps, and a test of each one's value.
    STATE: ClassVar[dict[str, Callable[[Any], bool]]] = {"best": is_best}

    def __init__(
        self, monitor: str, mode: str, min_delta: float = 0, best: float | None = None
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                f"{type(self).__name__}: mode={mode!r}; allowed are 'auto', 'min' and 'max'"
            )
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best = best

    def get_state(self) -> State:
        """Return the attributes named in `STATE`."""
        return {name: getattr(self, name) for name in self.STATE}

    def check_state(self, state: State) -> None:
        """Raise ValueError if a state from a file is none that `get_state` returns."""
        name = type(self).__name__
        if state.keys() != self.STATE.keys():
            raise ValueError(
                f"the state of {name} has {', '.join(map(repr, state))},"
                f" expected {', '.join(map(repr, self.STATE))}"
            )
        for key, is_allowed in self.STATE.items():
            if not is_allowed(state[key]):
                raise ValueError(f"the state of {name} has {key}={state[key]!r}")

    def set_state(self, state: State) -> None:
        """Take over the attributes that `get_state` returned; ValueError if it holds others."""
        self.check_state(state)
        for name in self.STATE:
            setattr(self, name, state[name])

    def _current(self, logs: Logs) -> float:
        """Return the monitored value.

        Raises
        ------
        ValueError
            If `logs` lacks it, or if mode="auto" does not know whether lower or higher is better.
        """
        name = f"{type(self).__name__}: monitor={self.monitor!r}"
        if self.monitor not in logs:
            raise missing_key(name, self.monitor, logs)
        if self.mode == "auto" and self.monitor not in LOSSES:
            raise ValueError(
                f"{name} is better lower or higher? mode='auto' knows only {', '.join(LOSSES)}; "
                "pass mode='min' or mode='max'"
            )
        return float(logs[self.monitor])

    def _improves(self, value: float, reference: float | None) -> bool:
        """Return whether a value is better than a reference by more than `min_delta`.

        Every value, even NaN, improves on None.
        """
        if reference is None:
            return True
        sign = -1 if self.mode == "max" else 1
        # Keras compares in single precision. There 0.8 -> 0.7 is a tie under min_delta=0.1, though
        # 0.7 + 0.1 < 0.8 in double precision; and a change of 1e-9 is no improvement.
        with np.errstate(over="ignore"):
            return bool(np.float32(sign * value + self.min_delta) < np.float32(sign * reference))


def missing_key(subject: str, key: str, available: Iterable[str]) -> ValueError:
    """Return the error that `key`, which `subject` names, is not among the available keys."""
    keys = list(available)
    message = f"{subject} is not among the logs; there are {', '.join(keys) or 'none'}"
    if key.startswith("val_") and not any(name.startswith("val_") for name in keys):
        message += "; pass validation data to fit"
    return ValueError(message)
