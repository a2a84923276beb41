"""The checked hyper-parameters of one fit, and the defaults that depend on the solver.

`FunkSVD` stores whatever it is given, `parameters.check` tests the values at the start of a fit,
and `resolve` turns them into a `Hyper`, the only form in which engines see them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Hyper", "of_side", "resolve", "sizes", "solver_of"]

# The learning rate that learning_rate=None stands for: of solvers that take one rating at a time,
# of mini-batches (Keras' own defaults), and of training="featurewise". "gibbs" and
# "ials" make no steps.
RATES = {
    "sgd": 0.02,
    "adagrad_row": 0.05,
    "adagrad": 0.03,
    "adam": 0.003,
    "adamax": 0.01,
    "gibbs": 1.0,
    "ials": 1.0,
}
BATCH_RATES = {"sgd": 0.01, "adagrad": 0.001, "adam": 0.001, "adamax": 0.001}
FEATURE_RATES = {"sgd": 0.015}

# The parameters that mean something to few solvers.
MOMENTS = ("beta_1", "beta_2", "epsilon")
ACCUMULATOR = ("initial_accumulator_value", "epsilon")
OWN_PARAMETERS = {
    "sgd": ("momentum",),
    "adagrad_row": ACCUMULATOR,
    "adagrad": ACCUMULATOR,
    "adam": MOMENTS,
    "adamax": MOMENTS,
    "gibbs": ("average", "sets", "moods"),
    "ials": ("unseen_weight", "exposure_l2"),
}

# (n_factors, n_epochs) that None stands for.
USUAL_SIZES = (100, 40)
SIZES_OF = {"gibbs": (32, 120), "ials": (128, 16)}

Penalty = float | tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Hyper:
    """The checked hyper-parameters of one fit, with sizes and learning rate as numbers.

    The fields are the parameters of `FunkSVD`, which documents them. `learning_rate` is None only
    where `learning_rate_schedule` is a function.
    """

    n_factors: int
    n_epochs: int
    solver: str
    training: str
    batch_size: int
    shuffle: bool
    learning_rate: float | None
    learning_rate_schedule: str | Callable[[int], float]
    learning_rate_decay: float
    momentum: float
    beta_1: float
    beta_2: float
    epsilon: float
    initial_accumulator_value: float
    l2: Penalty
    l1: Penalty
    l2_bias: Penalty
    l1_bias: Penalty
    reg_scale: str
    non_negative: bool
    min_improvement: float
    biased: bool
    center: bool
    init_std: float
    average: str
    moods: str
    exposure: bool
    unseen_weight: float | None
    exposure_l2: float | None
    sets: bool
    rating_scale: tuple[float, float] | None
    n_jobs: int
    device: str
    schedule: str
    max_device_bytes: int | None
    dtype: str
    random_state: int | None
    verbose: int


def of_side(penalty: Penalty, side: str) -> float:
    """Return the penalty of one side ("users" or "items") of a number or a pair (users, items)."""
    if np.ndim(penalty) == 0:
        return float(penalty)  # type: ignore[arg-type]  # a number, as its dimension says
    return float(penalty[("users", "items").index(side)])  # type: ignore[index]


def solver_of(hyper: Hyper) -> str:
    """Return the kernels' name of the solver: "sgd" with momentum keeps state, without it none."""
    if hyper.solver == "sgd" and hyper.momentum:
        return "momentum"
    return hyper.solver


def sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """Return (n_factors, n_epochs) with None replaced by the solver's own."""
    n_factors, n_epochs = SIZES_OF.get(params["solver"], USUAL_SIZES)
    if params["n_factors"] is not None:
        n_factors = params["n_factors"]
    if params["n_epochs"] is not None:
        n_epochs = params["n_epochs"]
    return n_factors, n_epochs


def default_rate(params: Mapping[str, Any]) -> float:
    """Return the learning rate that learning_rate=None stands for."""
    solver = params["solver"]
    if params["training"] == "featurewise":
        return FEATURE_RATES[solver]
    if params["batch_size"] > 1:
        return BATCH_RATES[solver]
    return RATES[solver]


def resolve(params: Mapping[str, Any]) -> Hyper:
    """Return the `Hyper` of checked parameters of `FunkSVD`."""
    values = {}
    for name, value in params.items():
        # NumPy's small integers would overflow.
        values[name] = value.item() if isinstance(value, np.generic) else value
    values["n_factors"], values["n_epochs"] = sizes(values)
    if values["sets"] is None:
        values["sets"] = values["solver"] == "gibbs"
    values["dtype"] = np.dtype(values["dtype"]).name
    if values["learning_rate"] is None and not callable(values["learning_rate_schedule"]):
        values["learning_rate"] = default_rate(values)
    return Hyper(**values)
