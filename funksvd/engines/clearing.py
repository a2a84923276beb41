"""Factors that a strong penalty shrinks become 0 before they are subnormal numbers.

A penalty that outweighs the ratings takes a share of a factor with each of them, until the factor
is a subnormal number, with which a CPU computes a hundred times slower. Factors and states that are
on their way there are set to 0 instead: no prediction changes. A factor that is cleared alone comes
back from those of the other side, and so all rows are cleared together: between epochs, and after a
block where one epoch would be too long. `_minibatch.pyx` clears rows by the same bounds.
"""

from __future__ import annotations

import numpy as np

from funksvd.engines.start import START_CHUNK
from funksvd.hyper import Hyper, of_side, solver_of
from funksvd.machine.threads import parallel

# Factors below the first and states below the second count as tiny, as in `_vec.h`. The second is
# the square of the first: products of two factors, and squares of gradients, are normal numbers.
LEAST = {"float32": (2.0**-50, 2.0**-100), "float64": (2.0**-450, 2.0**-900)}
# Rows are cleared whenever penalties may have shrunk factors by so many powers of e since the last
# time, and at least once in so many epochs; states of solvers fade by themselves.
CLEARED_AFTER = 10.0
MOST_EPOCHS = 1000
MOST_EPOCHS_OF_STATES = 8


def epochs_to_clear(hyper: Hyper, learning_rate: float, visits: float) -> float:
    """Return after how many epochs rows are to be cleared; below 1 after each block.

    `visits` is the average number of ratings of a row of the smaller side.
    """
    if hyper.reg_scale == "row":
        visits = 1
    share = learning_rate * max(of_side(hyper.l2, side) for side in ("users", "items"))
    most = MOST_EPOCHS if solver_of(hyper) == "sgd" else MOST_EPOCHS_OF_STATES
    return min(most, CLEARED_AFTER / max(visits * share, 1e-9))


def clear_rows(factors: np.ndarray, state: np.ndarray, n_jobs: int = 1) -> None:
    """Set the tiny ones among factors and states to 0, in place."""
    least_factor, least_state = LEAST[factors.dtype.name]
    clear(factors, least_factor, n_jobs)
    clear(state, least_state, n_jobs)


def clear(values: np.ndarray, least: float, n_jobs: int = 1) -> None:
    """Set values below a size to 0, in place."""

    def clear_chunk(first: int) -> None:
        part = values[first : first + START_CHUNK]
        part[np.abs(part) < least] = 0

    parallel(clear_chunk, range(0, len(values), START_CHUNK), n_jobs)
