"""Learning-rate schedules: the rate that is planned for each epoch, before any callback changes it."""

from __future__ import annotations

import math

from funksvd.checks import checked_rate

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
    return hyper.learning_rate * SCHEDULES[schedule](
        epoch, hyper.n_epochs, hyper.learning_rate_decay
    )
