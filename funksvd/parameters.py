"""What the parameters of FunkSVD may be, alone and together; the learning rate of each solver."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import numpy as np

from funksvd.checks import number, pair, text, whole
from funksvd.schedules import SCHEDULES

__all__ = ["check", "resolved", "sizes"]

# What learning_rate=None stands for: of solvers that take one rating at a time, of mini-batches (Keras' own), and of
# training="featurewise".
# "gibbs" makes no steps.
RATES = {
    "sgd": 0.02,
    "adagrad_row": 0.05,
    "adagrad": 0.03,
    "adam": 0.003,
    "adamax": 0.01,
    "gibbs": 1.0,
}
BATCH_RATES = {"sgd": 0.01, "adagrad": 0.001, "adam": 0.001, "adamax": 0.001}
FEATURE_RATES = {"sgd": 0.015}
# What n_factors=None and n_epochs=None stand for.
SIZES = {"gibbs": (32, 120)}
USUAL = (100, 40)
# A test of each parameter, and what it allows in words.
COUNT = lambda x: whole(x) and x >= 1, "an int >= 1"
SIZE = lambda x: number(x) and x >= 0, "a finite number >= 0"
POSITIVE = lambda x: number(x) and x > 0, "a finite number above 0"
SHARE = lambda x: number(x) and 0 <= x < 1, "in [0, 1)"
TRUTH = lambda x: isinstance(x, (bool, np.bool_)), "True or False"
PENALTY = (
    lambda x: (number(x) and x >= 0) or (pair(x) and min(x) >= 0),
    "a finite number >= 0, or a pair (users, items) of such",
)
ALLOWED = {
    "n_factors": (lambda x: x is None or COUNT[0](x), "None or an int >= 1"),
    "n_epochs": (lambda x: x is None or COUNT[0](x), "None or an int >= 1"),
    "solver": text(*RATES),
    "training": text("joint", "featurewise"),
    "batch_size": COUNT,
    "shuffle": TRUTH,
    "learning_rate": (
        lambda x: x is None or (number(x) and x > 0),
        "None or a finite number above 0",
    ),
    "learning_rate_schedule": (
        lambda x: callable(x) or (isinstance(x, str) and x in SCHEDULES),
        f"{' or '.join(map(repr, SCHEDULES))} or a function of the epoch",
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
    "reg_scale": text("rating", "row"),
    "non_negative": TRUTH,
    "min_improvement": SIZE,
    "biased": TRUTH,
    "center": TRUTH,
    "init_std": SIZE,
    "average": text("low_rank", "factors"),
    "rating_scale": (lambda x: x is None or (pair(x) and x[0] < x[1]), "None or (low, high)"),
    "n_jobs": (lambda x: whole(x) and (x == -1 or x >= 1), "-1 or an int >= 1"),
    "device": (
        lambda x: isinstance(x, str) and bool(re.fullmatch(r"cpu|cuda(:\d+)?", x)),
        "'cpu', 'cuda' or 'cuda:N'",
    ),
    "schedule": text("strata", "hogwild"),
    "max_device_bytes": (lambda x: x is None or COUNT[0](x), "None or an int >= 1"),
    "dtype": (
        lambda x: x in ("float32", "float64", np.float32, np.float64),
        "'float32' or 'float64'",
    ),
    "random_state": (lambda x: x is None or (whole(x) and x >= 0), "None or an int >= 0"),
    "verbose": (lambda x: whole(x) and x in (0, 1, 2), "0, 1 or 2"),
}
# On a GPU: more factors do not fit a warp's registers.
ON_CUDA = {
    "n_factors": (
        lambda x: x is None or (COUNT[0](x) and x <= 512),
        "None or an int from 1 to 512 on a GPU",
    ),
    "dtype": (
        lambda x: x in ("float32", "float16", np.float32, np.float16),
        "'float32' or 'float16' on a GPU",
    ),
}
BATCHES_ON_CUDA = {
    "dtype": (lambda x: x in ("float32", np.float32), "'float32' for mini-batches on a GPU")
}
# What has to hold for a parameter to mean anything: another one, a test of it, and the same in words.
BY_ITSELF = (
    "learning_rate_schedule",
    lambda x: not callable(x),
    "learning_rate_schedule is a name",
)
DECAYS = (
    "learning_rate_schedule",
    lambda x: x in ("exponential", "inverse_time"),
    "learning_rate_schedule is 'exponential' or 'inverse_time'",
)
JOINT = ("training", lambda x: x == "joint", "training is 'joint'")
SGD = ("solver", lambda x: x == "sgd", "solver is 'sgd'")
MOMENTS = ("solver", lambda x: x in ("adam", "adamax"), "solver is 'adam' or 'adamax'")
ACCUMULATES = (
    "solver",
    lambda x: x in ("adagrad_row", "adagrad"),
    "solver is 'adagrad_row' or 'adagrad'",
)
CPU = ("device", lambda x: x == "cpu", "device is 'cpu'")
CUDA = ("device", lambda x: x != "cpu", "device is 'cuda'")
SINGLE = ("batch_size", lambda x: x == 1, "batch_size is 1")
NEEDS = {
    "training": [SGD, CPU],
    "batch_size": [
        JOINT,
        (
            "solver",
            lambda x: x in BATCH_RATES,
            f"solver is one of {', '.join(map(repr, BATCH_RATES))}",
        ),
    ],
    "shuffle": [("batch_size", lambda x: x > 1, "batch_size > 1")],
    "learning_rate": [BY_ITSELF],
    "learning_rate_decay": [DECAYS],
    "momentum": [JOINT, SGD],
    "beta_1": [MOMENTS],
    "beta_2": [MOMENTS],
    "epsilon": [
        ("solver", lambda x: x not in ("sgd", "gibbs"), "solver is neither 'sgd' nor 'gibbs'")
    ],
    "initial_accumulator_value": [ACCUMULATES],
    "average": [("solver", lambda x: x == "gibbs", "solver is 'gibbs'")],
    "schedule": [CUDA, SINGLE],
    "max_device_bytes": [CUDA],
    "min_improvement": [("training", lambda x: x == "featurewise", "training is 'featurewise'")],
}
# What solver="gibbs" does not use, beside those that need another solver or training="featurewise" anyway.
STEPS = ("solver", lambda x: x != "gibbs", "solver is other than 'gibbs'")
UNUSED = (
    "batch_size",
    "learning_rate",
    "learning_rate_schedule",
    "learning_rate_decay",
    "l2",
    "l1",
    "l2_bias",
    "l1_bias",
    "reg_scale",
    "non_negative",
    "center",
    "init_std",
    "dtype",
    "device",
)
NEEDS |= {name: [STEPS, *NEEDS.get(name, [])] for name in UNUSED}


def check(model):
    """ValueError, naming the parameter, what it may be and what it is, where one has a value that is not allowed.

    A parameter that means nothing beside the others must have its default. DeviceError where there is no such GPU.
    """
    params = model.get_params()
    rules = dict(ALLOWED)
    if params["device"] != "cpu":
        rules |= ON_CUDA if params["batch_size"] == 1 else ON_CUDA | BATCHES_ON_CUDA
    for name, value in params.items():
        test, allowed = rules[name]
        if not test(value):
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
    params["dtype"] = np.dtype(params["dtype"]).name
    for name, needs in NEEDS.items():
        default = inspect.signature(type(model)).parameters[name].default
        for other, test, words in needs:
            if params[name] != default and not test(params[other]):
                raise ValueError(f"{name} must be {default!r} unless {words}, got {params[name]!r}")
    if params["device"] != "cpu":
        from funksvd.engines.device import open_device

        open_device(params["device"])


def sizes(params):
    """(n_factors, n_epochs) that a dict of parameters stands for."""
    given = params["n_factors"], params["n_epochs"]
    return tuple(
        usual if size is None else size
        for size, usual in zip(given, SIZES.get(params["solver"], USUAL), strict=True)
    )


def resolved(params, **more):
    """A namespace of checked parameters, in which sizes and the learning rate are numbers."""
    params = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in params.items()
    }
    hyper = SimpleNamespace(**params, **more)  # NumPy's small integers would overflow
    hyper.n_factors, hyper.n_epochs = sizes(params)
    if hyper.learning_rate is None and not callable(hyper.learning_rate_schedule):
        featurewise, batches = hyper.training == "featurewise", hyper.batch_size > 1
        hyper.learning_rate = (FEATURE_RATES if featurewise else BATCH_RATES if batches else RATES)[
            hyper.solver
        ]
    return hyper


def of_side(value, side):
    """A penalty of one side: a number for both sides, or a pair (users, items)."""
    return float(value if np.ndim(value) == 0 else value[("users", "items").index(side)])


def solver_of(hyper):
    """The kernels' name of the solver: "sgd" with momentum keeps state, without it keeps none."""
    return "momentum" if hyper.solver == "sgd" and hyper.momentum else hyper.solver


BURN_IN = 10


def burn_in(n_epochs):
    """Sweeps that are not kept: 10, of short runs a quarter."""
    return min(BURN_IN, n_epochs // 4)
