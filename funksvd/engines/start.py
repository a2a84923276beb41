"""The state that training starts from: random factors, solver states, and the kernels' rule."""

from __future__ import annotations

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel
from funksvd.parameters import of_side

START_CHUNK = 1 << 14


def rule(hyper, side, learning_rate, penalties=True):
    """The kernels' `Rule` of one side; without `penalties` they are left to the caller."""
    out = {
        name: of_side(getattr(hyper, name), side) if penalties else 0.0
        for name in ("l2", "l1", "l2_bias", "l1_bias")
    }
    out |= {
        name: getattr(hyper, name)
        for name in ("momentum", "beta_1", "beta_2", "epsilon", "n_factors")
    }
    out |= {
        "rate": learning_rate,
        "bias_rate": learning_rate * hyper.biased,
        "low": 0.0 if hyper.non_negative else -np.inf,
    }
    return [out[name] for name in kernels("engines._sgd", hyper.dtype).RULE]


def first_state(solver, rows, width, dtype, hyper, padded=False):
    """(state, extra) of a solver before the first step, as the kernels' `block` takes them; `padded`: 4 extra for all."""
    n = kernels("engines._sgd", dtype).n_states(solver)
    if n is None:
        return np.empty((rows, 0), dtype), np.empty((rows, 0), dtype)
    own = 1 if solver == "adagrad_row" and not padded else 4
    state, extra = aligned(rows, n * width, dtype), np.zeros((rows, own), dtype)
    if solver.startswith("adagrad"):
        state[:] = extra[:] = hyper.initial_accumulator_value
    elif solver != "momentum":
        extra[:, :2] = 1  # the clocks, beta^0
    return state, extra


def start_factors(factors, place, counts, side, hyper, seed, n_jobs):
    """Random factors by code, in chunks with a generator of their own; rows without ratings stay at the mean.

    place[code] is the row of a code, counts[code] are its ratings; `side` 0 is the one with runs.
    """

    def one(first):
        part = slice(first, first + START_CHUNK)
        rng = np.random.default_rng([seed, 1, side, first])
        start = rng.standard_normal((len(place[part]), hyper.n_factors), dtype=factors.dtype)
        start *= factors.dtype.type(hyper.init_std)
        start[counts[part] == 0] = 0
        if hyper.non_negative:
            np.abs(start, out=start)
        factors[place[part], : hyper.n_factors] = start

    parallel(one, range(0, len(place), START_CHUNK), n_jobs)
