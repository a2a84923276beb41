"""The state that training starts from: random factors, solver states, and the kernels' rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from funksvd.hyper import Hyper, of_side
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel

START_CHUNK = 1 << 14  # rows that one call starts, or shrinks
# Numbers that a row keeps beside its factors' states: two clocks and two states of its bias.
EXTRAS = 4


def rule(hyper: Hyper, side: str, learning_rate: float, penalties: bool = True) -> list[float]:
    """Return the kernels' `Rule` of one side, as a list in the order of `RULE`.

    Parameters
    ----------
    hyper : Hyper
    side : "users" or "items"
    learning_rate : float
    penalties : bool
        If False they are 0 in the rule, since the caller applies them.
    """
    values = {
        "rate": learning_rate,
        "bias_rate": learning_rate * hyper.biased,
        "low": 0.0 if hyper.non_negative else -np.inf,
    }
    for name in ("l2", "l1", "l2_bias", "l1_bias"):
        values[name] = of_side(getattr(hyper, name), side) if penalties else 0.0
    for name in ("momentum", "beta_1", "beta_2", "epsilon", "n_factors"):
        values[name] = getattr(hyper, name)
    return [values[name] for name in kernels("engines._sgd", hyper.dtype).RULE]


def first_state(
    solver: str,
    rows: int,
    width: int,
    dtype: npt.DTypeLike,
    hyper: Hyper,
    padded: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a solver's states before the first step, as the kernels' `block` takes them.

    Parameters
    ----------
    solver : str
        The kernels' name of it.
    rows, width : int
        Number of rows, and of a row's factors with the padding.
    dtype : float32 or float64
    hyper : Hyper
    padded : bool
        Whether `extra` has four columns with every solver that keeps states.

    Returns
    -------
    state : (rows, n_states * width)
    extra : (rows, 0, 1 or 4)
    """
    n_states = kernels("engines._sgd", dtype).n_states(solver)
    if n_states is None:
        return np.empty((rows, 0), dtype), np.empty((rows, 0), dtype)
    n_extras = 1 if solver == "adagrad_row" and not padded else EXTRAS
    state = aligned(rows, n_states * width, dtype)
    extra = np.zeros((rows, n_extras), dtype)
    if solver.startswith("adagrad"):
        state[:] = hyper.initial_accumulator_value
        extra[:] = hyper.initial_accumulator_value
    elif solver != "momentum":
        extra[:, :2] = 1  # the clocks, which hold beta^0
    return state, extra


def start_factors(
    factors: np.ndarray,
    place: np.ndarray,
    counts: np.ndarray,
    side: int,
    hyper: Hyper,
    seed: int,
    n_jobs: int,
) -> None:
    """Fill the factors with random numbers; rows without ratings stay 0.

    The numbers depend on the code, not on the row: each chunk of codes has a generator of its own.

    Parameters
    ----------
    factors : (rows, at least n_factors)
    place : (n_ids,)
        Row of each code.
    counts : (n_ids,)
        Number of ratings of each code.
    side : int
        0 for the side that has runs, 1 for the other.
    hyper : Hyper
    seed, n_jobs : int
    """

    def start_chunk(first: int) -> None:
        part = slice(first, first + START_CHUNK)
        rng = np.random.default_rng([seed, 1, side, first])
        shape = (len(place[part]), hyper.n_factors)
        start: np.ndarray[Any, Any] = rng.standard_normal(shape, dtype=factors.dtype)
        start *= factors.dtype.type(hyper.init_std)
        start[counts[part] == 0] = 0
        if hyper.non_negative:
            np.abs(start, out=start)
        factors[place[part], : hyper.n_factors] = start

    parallel(start_chunk, range(0, len(place), START_CHUNK), n_jobs)
