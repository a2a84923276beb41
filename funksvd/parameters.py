"""The tests of FunkSVD's parameters: which values each may have, and beside which others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from funksvd.checks import is_number, is_pair, is_whole
from funksvd.hyper import BATCH_RATES, FEATURE_RATES, OWN_PARAMETERS, RATES
from funksvd.schedules import SCHEDULES

__all__ = ["check"]


class Allowed(NamedTuple):
    """A test of a parameter's value, and what it allows in words."""

    test: Callable[[Any], bool]
    words: str


class Condition(NamedTuple):
    """A test of another parameter, and the same in words."""

    other: str
    test: Callable[[Any], bool]
    words: str


def one_of(*texts: str) -> Allowed:
    """Return the test that a value is one of some texts."""
    return Allowed(lambda value: isinstance(value, str) and value in texts, either(texts))


def either(texts: Iterable[str]) -> str:
    """Return texts in quotes, joined by "or"."""
    return " or ".join(map(repr, texts))


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number of at least 1."""
    return is_whole(value) and value >= 1


def is_size(value: Any) -> bool:
    """Return whether a value is a finite number of at least 0."""
    return is_number(value) and value >= 0


def is_positive(value: Any) -> bool:
    """Return whether a value is a finite number above 0."""
    return is_number(value) and value > 0


def is_penalty(value: Any) -> bool:
    """Return whether a value is a penalty: a size, or one for users and one for items."""
    return is_size(value) or (is_pair(value) and min(value) >= 0)


def is_rating_scale(value: Any) -> bool:
    """Return whether a value is None or a pair of rising numbers."""
    return value is None or (is_pair(value) and value[0] < value[1])


def is_schedule(value: Any) -> bool:
    """Return whether a value is a function or the name of a learning-rate schedule."""
    return callable(value) or (isinstance(value, str) and value in SCHEDULES)


def is_device(value: Any) -> bool:
    """Return whether a value names a device: "cpu", "cuda" or "cuda:N"."""
    return isinstance(value, str) and bool(re.fullmatch(r"cpu|cuda(:\d+)?", value))


def is_dtype(*dtypes: Any) -> Callable[[Any], bool]:
    """Return the test that a value is one of some dtypes, by its name or as NumPy's class."""
    return lambda value: value in dtypes


COUNT = Allowed(is_count, "an int >= 1")
COUNT_OR_NONE = Allowed(lambda value: value is None or is_count(value), "None or an int >= 1")
SIZE = Allowed(is_size, "a finite number >= 0")
POSITIVE = Allowed(is_positive, "a finite number above 0")
POSITIVE_OR_NONE = Allowed(
    lambda value: value is None or is_positive(value), "None or a finite number above 0"
)
SHARE = Allowed(lambda value: is_number(value) and 0 <= value < 1, "in [0, 1)")
TRUTH_OR_NONE = Allowed(
    lambda value: value is None or isinstance(value, bool | np.bool_), "None, True or False"
)
TRUTH = Allowed(lambda value: isinstance(value, bool | np.bool_), "True or False")
PENALTY = Allowed(is_penalty, "a finite number >= 0, or a pair (users, items) of such")

# Parameter -> the test of its value.
ALLOWED = {
    "n_factors": Allowed(
        lambda value: value is None or (is_whole(value) and value >= 0), "None or an int >= 0"
    ),
    "n_epochs": COUNT_OR_NONE,
    "solver": one_of(*RATES),
    "training": one_of("joint", "featurewise"),
    "batch_size": COUNT,
    "shuffle": TRUTH,
    "learning_rate": POSITIVE_OR_NONE,
    "learning_rate_schedule": Allowed(
        is_schedule, f"{either(SCHEDULES)} or a function of the epoch"
    ),
    "learning_rate_decay": SHARE,
    "momentum": SHARE,
    "beta_1": SHARE,
    "beta_2": SHARE,
    "epsilon": POSITIVE,
    "initial_accumulator_value": SIZE,
    "l2": PENALTY,
    "l1": PENALTY,
    "l2_bias": PENALTY,
    "l1_bias": PENALTY,
    "reg_scale": one_of("rating", "row"),
    "non_negative": TRUTH,
    "min_improvement": SIZE,
    "biased": TRUTH,
    "center": TRUTH,
    "init_std": SIZE,
    "average": one_of("low_rank", "factors"),
    "moods": one_of("keep", "variances", "none"),
    "exposure": TRUTH,
    "unseen_weight": POSITIVE_OR_NONE,
    "exposure_l2": POSITIVE_OR_NONE,
    "sets": TRUTH_OR_NONE,
    "rating_scale": Allowed(is_rating_scale, "None or (low, high)"),
    "n_jobs": Allowed(
        lambda value: is_whole(value) and (value == -1 or value >= 1), "-1 or an int >= 1"
    ),
    "device": Allowed(is_device, "'cpu', 'cuda' or 'cuda:N'"),
    "schedule": one_of("strata", "hogwild"),
    "max_device_bytes": COUNT_OR_NONE,
    "dtype": Allowed(
        is_dtype("float32", "float64", np.float32, np.float64), "'float32' or 'float64'"
    ),
    "random_state": Allowed(
        lambda value: value is None or (is_whole(value) and value >= 0), "None or an int >= 0"
    ),
    "verbose": Allowed(lambda value: is_whole(value) and value in (0, 1, 2), "0, 1 or 2"),
}

# The tests that replace those above on a GPU. More factors do not fit a warp's registers.
ALLOWED_ON_CUDA = {
    "n_factors": Allowed(
        lambda value: value is None or (is_count(value) and value <= 512),
        "None or an int from 1 to 512 on a GPU",
    ),
    "dtype": Allowed(
        is_dtype("float32", "float16", np.float32, np.float16), "'float32' or 'float16' on a GPU"
    ),
}
BATCHES_ON_CUDA = {
    "dtype": Allowed(is_dtype("float32", np.float32), "'float32' for mini-batches on a GPU"),
}

NAMED_SCHEDULE = Condition(
    "learning_rate_schedule", lambda value: not callable(value), "learning_rate_schedule is a name"
)
DECAYING_SCHEDULE = Condition(
    "learning_rate_schedule",
    lambda value: value in ("exponential", "inverse_time"),
    "learning_rate_schedule is 'exponential' or 'inverse_time'",
)
JOINT = Condition("training", lambda value: value == "joint", "training is 'joint'")
FEATUREWISE = Condition(
    "training", lambda value: value == "featurewise", "training is 'featurewise'"
)
STEPS = Condition(
    "solver",
    lambda value: value not in ("gibbs", "ials"),
    "solver is neither 'gibbs' nor 'ials'",
)
RATED = Condition("solver", lambda value: value != "ials", "solver is other than 'ials'")
ON_CPU = Condition("device", lambda value: value == "cpu", "device is 'cpu'")
ON_CUDA = Condition("device", lambda value: value != "cpu", "device is 'cuda'")
SINGLE_RATINGS = Condition("batch_size", lambda value: value == 1, "batch_size is 1")
BATCHES = Condition("batch_size", lambda value: value > 1, "batch_size > 1")


def solver_among(solvers: Iterable[str]) -> Condition:
    """Return the condition that the solver is one of some."""
    names = tuple(solvers)
    return Condition("solver", lambda value: value in names, f"solver is {either(names)}")


def solver_with(parameter: str) -> Condition:
    """Return the condition that the solver is one of those that use a parameter of few."""
    return solver_among(name for name, own in OWN_PARAMETERS.items() if parameter in own)


# The conditions of n_factors=0, a model of biases alone.
BIASES_ONLY = [
    JOINT,
    SINGLE_RATINGS,
    Condition("biased", bool, "biased is True"),
    Condition("solver", lambda value: value != "ials", "solver is other than 'ials'"),
    ON_CPU,
]

# Parameter -> the conditions without which it means nothing and must keep its default.
NEEDS = {
    "training": [solver_among(FEATURE_RATES), ON_CPU],
    "batch_size": [STEPS, JOINT, solver_among(BATCH_RATES)],
    "shuffle": [BATCHES],
    "learning_rate": [STEPS, NAMED_SCHEDULE],
    "learning_rate_schedule": [STEPS],
    "learning_rate_decay": [STEPS, DECAYING_SCHEDULE],
    "momentum": [JOINT, solver_with("momentum")],
    "beta_1": [solver_with("beta_1")],
    "beta_2": [solver_with("beta_2")],
    "epsilon": [solver_with("epsilon")],
    "initial_accumulator_value": [solver_with("initial_accumulator_value")],
    "l2": [STEPS],
    "l1": [STEPS],
    "l2_bias": [STEPS],
    "l1_bias": [STEPS],
    "reg_scale": [STEPS],
    "non_negative": [STEPS],
    "min_improvement": [FEATUREWISE],
    "biased": [RATED],
    "center": [STEPS],
    "init_std": [STEPS],
    "average": [solver_with("average")],
    "moods": [solver_with("moods")],
    "exposure": [RATED],
    "unseen_weight": [solver_with("unseen_weight")],
    "exposure_l2": [solver_with("exposure_l2")],
    "rating_scale": [RATED],
    "sets": [solver_with("sets")],
    "device": [STEPS],
    "schedule": [ON_CUDA, SINGLE_RATINGS],
    "max_device_bytes": [ON_CUDA],
    "dtype": [STEPS],
}


def check(model: Any) -> None:
    """Check the parameters of a model, alone and together.

    Raises
    ------
    ValueError
        If a value is not allowed, or if a parameter that means nothing beside the others differs
        from its default. It names the parameter, its value and what is allowed.
    """
    params = model.get_params()
    allowed = dict(ALLOWED)
    if params["device"] != "cpu":
        allowed |= ALLOWED_ON_CUDA
        if params["batch_size"] != 1:
            allowed |= BATCHES_ON_CUDA
    for name, value in params.items():
        if not allowed[name].test(value):
            raise ValueError(f"{name} must be {allowed[name].words}, got {value!r}")
    params["dtype"] = np.dtype(params["dtype"]).name
    signature = inspect.signature(type(model))
    for name, conditions in NEEDS.items():
        default = signature.parameters[name].default
        for other, test, words in conditions:
            if params[name] != default and not test(params[other]):
                raise ValueError(f"{name} must be {default!r} unless {words}, got {params[name]!r}")
    for other, test, words in BIASES_ONLY:
        if params["n_factors"] == 0 and not test(params[other]):
            raise ValueError(f"n_factors must be at least 1 unless {words}, got 0")
