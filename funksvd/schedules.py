"""Learning-rate schedules: the rate planned for each epoch, before any callback changes it."""

from __future__ import annotations

import math
from typing import Any

from funksvd.checks import checked_rate

__all__ = ["SCHEDULES", "checked_rate", "planned_rate"]


def constant(
    epoch: int,
    n_epochs: int,
    decay: float,
) -> float:
    """Return 1."""
    return 1.0


def exponential(
    epoch: int,
    n_epochs: int,
    decay: float,
) -> float:
    """Return (1 - decay) ** epoch."""
    return float((1 - decay) ** epoch)


def inverse_time(
    epoch: int,
    n_epochs: int,
    decay: float,
) -> float:
    """Return 1 / (1 + decay * epoch)."""
    return 1 / (1 + decay * epoch)


def cosine(
    epoch: int,
    n_epochs: int,
    decay: float,
) -> float:
    """Return half a cosine wave, from 1 in the first epoch to nearly 0 in the last."""
    return 0.5 * (1 + math.cos(math.pi * epoch / n_epochs))


# Each function returns the share of the first rate that is left in `epoch`, which counts from 0 to
# `n_epochs` - 1.
SCHEDULES = {
    "constant": constant,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "cosine": cosine,
}


def planned_rate(hyper: Any, epoch: int) -> float:
    """Return the learning rate planned for an epoch.

    Parameters
    ----------
    hyper : Hyper
        A `learning_rate_schedule` that is a function returns the rate itself.
    epoch : int, from 0
    """
    schedule = hyper.learning_rate_schedule
    if callable(schedule):
        return checked_rate(schedule(epoch), f"learning_rate_schedule({epoch})")
    share = SCHEDULES[schedule](epoch, hyper.n_epochs, hyper.learning_rate_decay)
    rate: float = hyper.learning_rate * share
    return rate
