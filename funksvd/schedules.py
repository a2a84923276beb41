"""Learning-rate schedules: the rate that is planned for each epoch, before any callback changes it."""

from __future__ import annotations

import math
from numbers import Real

__all__ = ["SCHEDULES", "checked_rate", "planned_rate"]

# Each gives the share of the first rate that is left in `epoch`, counted from 0 of `n_epochs`.
SCHEDULES = {
    "constant": lambda epoch, n_epochs, decay: 1.0,
    "exponential": lambda epoch, n_epochs, decay: (1 - decay) ** epoch,
    "inverse_time": lambda epoch, n_epochs, decay: 1 / (1 + decay * epoch),
    "cosine": lambda epoch, n_epochs, decay: 0.5 * (1 + math.cos(math.pi * epoch / n_epochs)),
}


def planned_rate(hyper, epoch):
    """The learning rate of an epoch, by the parameters of FunkSVD; a callable schedule gives the rate itself."""
    schedule = hyper.learning_rate_schedule
    if callable(schedule):
        return checked_rate(schedule(epoch), f"learning_rate_schedule({epoch})")
    return hyper.learning_rate * SCHEDULES[schedule](epoch, hyper.n_epochs, hyper.learning_rate_decay)


def checked_rate(rate, call):
    """What a user's function returned, as a float; TypeError or ValueError where it is no learning rate."""
    message = f"{call} returned {rate!r}; it must return a finite number above 0"
    if not isinstance(rate, Real):
        raise TypeError(message)
    if not 0 < float(rate) < math.inf:
        raise ValueError(message)
    return float(rate)
