"""Parameters: each changes the result, each is documented once, and bad values are named."""

import re

import numpy as np
import pytest
from conftest import random_ratings
from random_models import fit_random

from funksvd import FunkSVD

FEATUREWISE = {"training": "featurewise"}
# A value of each parameter, and what else must be set for it to count.
CHANGES = [
    ("n_factors", 5, {}),
    ("n_epochs", 4, {}),
    ("learning_rate", 0.03, {}),
    ("learning_rate_schedule", "cosine", {}),
    ("learning_rate_decay", 0.1, {}),
    ("l2", 0.2, {}),
    ("l2_bias", 0.2, {}),
    ("biased", False, {}),
    ("center", False, {}),
    ("init_std", 0.2, {}),
    ("rating_scale", (3, 4), {}),
    ("dtype", "float64", {}),
    ("random_state", 1, {}),
    ("solver", "adagrad", {}),
    ("momentum", 0.5, {}),
    ("beta_1", 0.5, {"solver": "adam"}),
    ("beta_1", 0.5, {"solver": "adamax"}),
    ("beta_2", 0.9, {"solver": "adam"}),
    ("beta_2", 0.9, {"solver": "adamax"}),
    *(
        ("epsilon", 0.01, {"solver": solver})
        for solver in ("adagrad_row", "adagrad", "adam", "adamax")
    ),
    ("initial_accumulator_value", 1, {"solver": "adagrad"}),
    ("initial_accumulator_value", 1, {"solver": "adagrad_row"}),
    *(
        (name, value, {})
        for name in ("l2", "l1", "l2_bias", "l1_bias")
        for value in ((0.0, 0.15), (0.15, 0.0))
    ),
    ("l1", 0.1, {}),
    ("l1_bias", 0.1, {}),
    ("reg_scale", "row", {}),
    ("non_negative", True, {}),
    ("average", "factors", {"solver": "gibbs"}),
    ("moods", "none", {"solver": "gibbs"}),
    ("sets", False, {"solver": "gibbs"}),
    ("batch_size", 500, {}),
    ("batch_size", 500, {"batch_size": 300}),
    ("shuffle", False, {"batch_size": 300}),
    *(
        (name, value, {"batch_size": 300, "learning_rate": 0.1, "solver": solver})
        for solver in ("sgd", "adagrad", "adam", "adamax")
        for name, value in (
            ("n_factors", 5),
            ("n_epochs", 4),
            ("learning_rate", 0.2),
            ("l2", 0.2),
            ("l2", (0.0, 0.15)),
            ("l1", 0.1),
            ("l1", (0.15, 0.0)),
            ("l2_bias", 0.2),
            ("l1_bias", 0.1),
            ("reg_scale", "row"),
            ("non_negative", True),
            ("biased", False),
            ("center", False),
            ("init_std", 0.2),
            ("dtype", "float64"),
            ("random_state", 1),
        )
    ),
    ("momentum", 0.5, {"batch_size": 300}),
    ("beta_1", 0.5, {"batch_size": 300, "solver": "adam"}),
    ("beta_1", 0.5, {"batch_size": 300, "solver": "adamax"}),
    ("beta_2", 0.9, {"batch_size": 300, "solver": "adam"}),
    ("beta_2", 0.9, {"batch_size": 300, "solver": "adamax"}),
    *(
        ("epsilon", 0.01, {"batch_size": 300, "solver": solver})
        for solver in ("adagrad", "adam", "adamax")
    ),
    ("initial_accumulator_value", 1, {"batch_size": 300, "solver": "adagrad"}),
    ("training", "featurewise", {}),
    ("min_improvement", 0.02, FEATUREWISE | {"n_epochs": 20}),
    *(
        (name, value, FEATUREWISE)
        for name, value in (
            ("n_factors", 5),
            ("n_epochs", 4),
            ("learning_rate", 0.03),
            ("learning_rate_schedule", "cosine"),
            ("learning_rate_decay", 0.1),
            ("l2", 0.2),
            ("l2", (0.0, 0.15)),
            ("l1", 0.1),
            ("l1", (0.15, 0.0)),
            ("l2_bias", 0.2),
            ("l1_bias", 0.1),
            ("reg_scale", "row"),
            ("non_negative", True),
            ("biased", False),
            ("center", False),
            ("init_std", 0.2),
            ("rating_scale", (3, 4)),
            ("dtype", "float64"),
            ("random_state", 1),
        )
    ),
]
CHANGES_NOTHING = {"n_jobs", "verbose"}
OF_A_GPU = {"device", "schedule", "max_device_bytes"}  # in test_cuda.py
OF_EXPOSURE = {"exposure", "unseen_weight", "exposure_l2"}  # in test_exposure.py


def ratings_of_60_users():
    """Return (X, y) with X = (users, items), of 60 users and 40 items."""
    users, items, values = random_ratings(2000, 60, 40)
    return (users, items), values


@pytest.mark.parametrize(("name", "value", "others"), CHANGES)
def test_every_parameter_changes_the_result(name, value, others):
    X, y = ratings_of_60_users()
    params = {"n_factors": 4, "n_epochs": 3, "random_state": 0} | others
    times = np.arange(len(y)) if name == "moods" else None
    model = FunkSVD(**params).fit(X, y, times=times)
    changed = FunkSVD(**params | {name: value}).fit(X, y, times=times)
    assert not np.array_equal(model.predict(X), changed.predict(X))


def test_no_parameter_is_without_such_a_test():
    tested = {name for name, _, _ in CHANGES}
    assert tested | CHANGES_NOTHING | OF_A_GPU | OF_EXPOSURE == set(FunkSVD().get_params())


def test_every_parameter_is_documented_once():
    text = FunkSVD.__doc__.partition("Parameters")[2]
    documented = []
    for line in text.splitlines():
        if re.match(r" {4}\w", line):
            names = line.partition(" :")[0].strip()
            documented += names.split(", ")
    assert sorted(documented) == sorted(FunkSVD().get_params())


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint64])
@pytest.mark.parametrize(
    "others", [{}, {"batch_size": np.uint8(3), "solver": "adamax"}, {"solver": "gibbs"}]
)
def test_whole_numbers_of_numpy_are_those_of_python(kind, others):
    X, y = ratings_of_60_users()

    def factors(number):
        model = FunkSVD(
            n_factors=number(4),
            n_epochs=number(3),
            n_jobs=number(2),
            random_state=number(5),
            verbose=number(0),
            **others,
        )
        return model.fit(X, y).user_factors_

    assert (factors(int) == factors(kind)).all()


@pytest.mark.parametrize("name", ["l2", "learning_rate", "init_std", "momentum"])
def test_numbers_that_no_float_is_near_to_are_refused(name):
    X, y = ratings_of_60_users()
    with pytest.raises(ValueError, match=f"{name} must be"):
        FunkSVD(**{name: 10**400}).fit(X, y)


def test_unknown_parameters_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'lrate'"):
        FunkSVD(lrate=1)
    with pytest.raises(ValueError, match="unknown parameter 'lrate'"):
        FunkSVD().set_params(lrate=1)


def test_a_model_can_be_cloned_by_scikit_learn():
    base = pytest.importorskip("sklearn.base")
    model = FunkSVD(n_factors=3, l2=0.5)
    assert base.clone(model).get_params() == model.get_params()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_factors", -1),
        ("n_factors", 2.5),
        ("n_epochs", -1),
        ("solver", "newton"),
        ("solver", ["sgd"]),
        ("training", "stepwise"),
        ("batch_size", 0),
        ("batch_size", 1e6),
        ("shuffle", 1),
        ("learning_rate", 0),
        ("learning_rate", np.nan),
        ("learning_rate", "fast"),
        ("learning_rate_schedule", "linear"),
        ("learning_rate_decay", 1),
        ("momentum", 1),
        ("beta_1", -0.1),
        ("beta_2", 1),
        ("epsilon", 0),
        ("initial_accumulator_value", -1),
        ("l2", -0.1),
        ("l2", (0.1, -1)),
        ("l1", (1, 2, 3)),
        ("l2_bias", np.inf),
        ("l1_bias", "none"),
        ("reg_scale", "user"),
        ("non_negative", None),
        ("min_improvement", -1),
        ("biased", "yes"),
        ("center", 0.0),
        ("init_std", -1),
        ("rating_scale", (5, 1)),
        ("n_jobs", 0),
        ("n_jobs", "two"),
        ("device", "gpu"),
        ("schedule", "random"),
        ("max_device_bytes", 0),
        ("dtype", "float16"),
        ("random_state", -1),
        ("verbose", 3),
    ],
)
def test_each_parameter_is_checked_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got "):
        fit_random(FunkSVD(**{name: value}))


@pytest.mark.parametrize(
    ("name", "params", "condition"),
    [
        (
            "training",
            {"training": "featurewise", "solver": "adam"},
            "solver is 'sgd'",
        ),
        (
            "batch_size",
            {"batch_size": 9, "training": "featurewise"},
            "training is 'joint'",
        ),
        (
            "batch_size",
            {"batch_size": 9, "solver": "adagrad_row"},
            "solver is 'sgd' or 'adagrad' or 'adam' or 'adamax'",
        ),
        ("shuffle", {"shuffle": False}, "batch_size > 1"),
        (
            "learning_rate",
            {
                "learning_rate": 0.1,
                "learning_rate_schedule": lambda e: 0.1,
                "learning_rate_decay": 0.03,
            },
            "learning_rate_schedule is a name",
        ),
        (
            "learning_rate_decay",
            {"learning_rate_decay": 0.1, "learning_rate_schedule": "cosine"},
            "learning_rate_schedule is 'exponential' or 'inverse_time'",
        ),
        ("momentum", {"momentum": 0.9, "solver": "adam"}, "solver is 'sgd'"),
        (
            "momentum",
            {"momentum": 0.9, "training": "featurewise"},
            "training is 'joint'",
        ),
        ("beta_1", {"beta_1": 0.5}, "solver is 'adam' or 'adamax'"),
        (
            "beta_2",
            {"beta_2": 0.5, "solver": "adagrad"},
            "solver is 'adam' or 'adamax'",
        ),
        (
            "epsilon",
            {"epsilon": 1e-3},
            "solver is 'adagrad_row' or 'adagrad' or 'adam' or 'adamax'",
        ),
        (
            "initial_accumulator_value",
            {"initial_accumulator_value": 1, "solver": "adam"},
            "solver is 'adagrad_row' or 'adagrad'",
        ),
        (
            "training",
            {"training": "featurewise", "device": "cuda"},
            "device is 'cpu'",
        ),
        ("schedule", {"schedule": "hogwild"}, "device is 'cuda'"),
        ("max_device_bytes", {"max_device_bytes": 1}, "device is 'cuda'"),
        (
            "min_improvement",
            {"min_improvement": 1},
            "training is 'featurewise'",
        ),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(name, params, condition):
    with pytest.raises(
        ValueError,
        match=rf"^{name} must be .* unless {re.escape(condition)}, got ",
    ):
        fit_random(FunkSVD(**params))
