"""Mini-batches beside Keras itself: every weight after every step, and the loss of every epoch.

Whatever the precision of a model, Keras keeps some of its constants as float32: the learning rate,
the mean, 1 / size of a batch, 1 - beta_2^t. So that both have the same constants, those of the
steps here are exact in float32. In float64 every weight is then within 1e-9 of itself (2e-11 is
seen). In float32 this cannot be asked of a weight that a step has brought near zero: its digits are
lost, in Keras as here (`test_keras_beside_itself`). There a weight may differ by 1e-5 of itself and
by 1e-6 (7e-7 is seen) of the root mean square of its table: one in a hundred needs the second part.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from funksvd import (
    EarlyStopping,
    FunkSVD,
    LambdaCallback,
    ModelCheckpoint,
    Ratings,
    load,
    parameters,
)
from funksvd.engines.minibatch import MiniBatchEngine
from funksvd.hyper import Hyper, resolve
from funksvd.weights import Weights

keras_reference = pytest.importorskip(
    "keras_reference", reason="needs Keras and JAX: pip install 'funksvd[keras]'"
)

SOLVERS = {
    "sgd": {"solver": "sgd", "learning_rate": 0.5},
    "momentum": {"solver": "sgd", "momentum": 0.875, "learning_rate": 2**-4},
    "adagrad": {"solver": "adagrad", "learning_rate": 2**-4, "initial_accumulator_value": 2**-3},
    "adam": {
        "solver": "adam",
        "learning_rate": 2**-8,
        "beta_1": 0.875,
        "beta_2": 1 - 2**-10,
        "epsilon": 2**-23,
    },
    "adamax": {
        "solver": "adamax",
        "learning_rate": 2**-7,
        "beta_1": 0.875,
        "beta_2": 1 - 2**-10,
        "epsilon": 2**-23,
    },
}
DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder"
)
# How Keras 3.15 copies its variables.
keras_copies = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
OPTIMIZER = ("momentum", "beta_1", "beta_2", "epsilon", "initial_accumulator_value")
USERS = 60
ITEMS = 40
N = 2560
BATCH = 256
EPOCHS = 5


class Tolerance(NamedTuple):
    """How far a weight may be: a part of itself, and a part of its table's root mean square."""

    relative: float
    of_rms: float


TOLERANCE = {"float32": Tolerance(1e-5, 1e-6), "float64": Tolerance(1e-9, 0)}


@pytest.fixture(scope="module", autouse=True)
def precision() -> Any:
    """Let JAX keep float64 in this file alone.

    Keras' callbacks, which other tests compare with, take their decisions in float32.
    """
    with keras_reference.double_precision():
        yield


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    """Return (users, items, values, weights) of a planted model; every id is among them."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, USERS, N)
    items = rng.integers(0, ITEMS, N)
    users[:USERS] = np.arange(USERS)
    items[:ITEMS] = np.arange(ITEMS)
    p = rng.normal(0, 0.7, (USERS, 3))
    q = rng.normal(0, 0.7, (ITEMS, 3))
    exact = 3.5 + (p[users] * q[items]).sum(1)
    values = exact + rng.normal(0, 0.3, N)
    return users, items, values.astype(np.float32), rng.integers(0, 5, N) / 2  # float32 as Keras'


def batches_of(data: Any) -> list[Any]:
    """Return the batches of an epoch as Keras takes them, in the order of the ratings."""
    users, items, values, weights = data
    parts = [slice(first, first + BATCH) for first in range(0, len(users), BATCH)]
    return [([users[part], items[part]], values[part], weights[part]) for part in parts]


def stepper(data: Any, dtype: str, **params: Any) -> Callable[..., Any]:
    """Return the stepper of Keras' model, one for all penalties."""
    hyper = resolve(FunkSVD(**params).get_params())
    mean = float(np.float32(np.average(data[2].astype(np.float64), weights=data[3])))
    keras_model = keras_reference.embedding_model(
        USERS,
        ITEMS,
        5,
        mean=mean,
        biased=hyper.biased,
        penalised=True,
        non_negative=hyper.non_negative,
        dtype=dtype,
    )
    settings = {name: getattr(hyper, name) for name in OPTIMIZER}
    optimizer = keras_reference.optimizer(hyper.solver, hyper.learning_rate, **settings)
    keras_model.compile(optimizer, "mse", weighted_metrics=["mse"])
    return keras_reference.stepper(keras_model)


class Recorded(NamedTuple):
    """An engine, its hyper-parameters, and the weights that it appends after every step."""

    engine: MiniBatchEngine
    hyper: Hyper
    steps: list[Weights]


def engine_of(data: Any, dtype: str, **params: Any) -> Recorded:
    """Return an engine in file order, recorded."""
    options = {"batch_size": BATCH, "shuffle": False, "reg_scale": "row", "init_std": 0.3}
    model = FunkSVD(5, dtype=dtype, **options | params)
    parameters.check(model)
    hyper = resolve(model.get_params())
    weights = None if (data[3] == 1).all() else data[3]
    engine = MiniBatchEngine(Ratings.from_arrays(*data[:3], weights), None, hyper)
    engine.mean = float(np.float32(engine.mean))  # as Keras' Rescaling keeps it
    steps: list[Weights] = []
    step = engine._step

    def recorded_step(*batch: Any) -> None:
        step(*batch)
        steps.append(engine.weights())

    engine._step = recorded_step
    return Recorded(engine, hyper, steps)


def start_of(engine: MiniBatchEngine, dtype: str) -> Weights:
    """Return the weights of the start, with random biases, which are loaded into the engine.

    At exactly 0, where biases start otherwise, JAX takes 1 for the gradient of |x|; funksvd takes
    0, as TensorFlow and PyTorch do.
    """
    start = engine.weights()
    if engine.hyper.biased:
        rng = np.random.default_rng(1)
        user_biases = rng.normal(0, 0.1, USERS).astype(dtype)
        item_biases = rng.normal(0, 0.1, ITEMS).astype(dtype)
        start = replace(start, user_biases=user_biases, item_biases=item_biases)
        engine.load(start)
    return start


def compare(run: Callable[..., Any], data: Any, dtype: str, **params: Any) -> None:
    """Compare fifty steps of an engine with those of Keras, from the same start."""
    engine, hyper, steps = engine_of(data, dtype, **params)
    start = start_of(engine, dtype)
    batches = batches_of(data)
    errors, want = run(start, vars(hyper), batches * EPOCHS)
    sizes = [weights.sum() for *_, weights in batches]
    for epoch, of_epoch in enumerate(errors.reshape(EPOCHS, -1)):
        loss = np.average(of_epoch, weights=sizes)
        assert engine.epoch(epoch, hyper.learning_rate) == pytest.approx(loss, rel=1e-5)
    assert len(steps) == len(errors) == 50
    for name, tables in want.items():
        got = np.stack([getattr(weights, name) for weights in steps])
        assert_near(name, got, tables, TOLERANCE[dtype])


def assert_near(name: str, got: np.ndarray, want: np.ndarray, tolerance: Tolerance) -> None:
    """Compare the tables after every step; the message names the first step that differs."""
    axes = tuple(range(1, want.ndim))
    rms = np.sqrt(np.mean(want**2, axis=axes, keepdims=True))
    allowed = tolerance.relative * np.abs(want) + tolerance.of_rms * rms
    too_far = np.abs(got - want) > allowed
    first = 1 + too_far.reshape(len(got), -1).any(1).argmax()
    assert not too_far.any(), f"{name} after step {first}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_weight_after_every_step(data, solver, dtype) -> None:
    """L2, L1 and biases, with and without: all eight ways."""
    data = (*data[:3], np.ones(N))
    for biased in (False, True):
        run = stepper(data, dtype, biased=biased, **SOLVERS[solver])
        for l2, l1 in product((0.0, 2**-9), (0.0, 2**-10)):
            biases = {"l2_bias": l2, "l1_bias": l1 / 2} if biased else {"l2_bias": 0.0}
            compare(run, data, dtype, l2=l2, l1=l1, biased=biased, **biases, **SOLVERS[solver])


@pytest.mark.parametrize("solver", SOLVERS)
def test_keras_beside_itself(data, solver) -> None:
    """In float32 Keras does not agree with itself on the ratings of a batch in reverse order.

    0.03 to 0.5 % of its weights are then seen beyond 1e-5 of themselves; of ours 0.04 to 0.9 %.
    """
    data = (*data[:3], np.ones(N))
    run = stepper(data, "float32", biased=False, **SOLVERS[solver])
    batches = batches_of(data) * EPOCHS
    reverse = []
    for pair, values, weights in batches:
        reverse.append(([ids[::-1] for ids in pair], values[::-1], weights[::-1]))
    penalties = {"l2": 2**-9, "l1": 2**-10, "l2_bias": 0.0, "biased": False}
    engine, hyper, steps = engine_of(data, "float32", **penalties, **SOLVERS[solver])
    start = engine.weights()
    for epoch in range(EPOCHS):
        engine.epoch(epoch, hyper.learning_rate)
    _, want = run(start, vars(hyper), batches)
    _, reordered = run(start, vars(hyper), reverse)
    users = want["user_factors"]
    ours = np.stack([step.user_factors for step in steps])
    assert share_beyond(ours, users) < 0.01
    assert share_beyond(reordered["user_factors"], users) > 0


def share_beyond(got: np.ndarray, want: np.ndarray) -> float:
    """Return the share of weights that differ by more than 1e-5 of themselves."""
    return float(np.mean(np.abs(got - want) > 1e-5 * np.abs(want)))


def test_weights_sides_and_the_lower_bound(data) -> None:
    """All at once: sample weights, a penalty for each side, no factor below 0, a smaller batch."""
    data = [column[:2432] for column in data]
    params = {"non_negative": True, **SOLVERS["adamax"]}
    penalties = {"l2": (2**-10, 2**-8), "l1_bias": (2**-9, 0.0), "l2_bias": (0.0, 2**-8)}
    compare(stepper(data, "float64", **params), data, "float64", **penalties, **params)


@keras_copies
@pytest.mark.parametrize(
    "stopping",
    [
        {"patience": 2, "min_delta": 0.02},
        {"patience": 1, "min_delta": 0.01, "restore_best_weights": True},
    ],
)
def test_fit_with_the_articles_callbacks(data, stopping, tmp_path) -> None:
    """Compare `fit` of both, with the article's callbacks: every loss, and the same epochs.

    The last ratings are held out, training stops early, and the best model is kept.
    """
    model = fit_ours(data, stopping, tmp_path / "best.npz")
    theirs, losses = fit_theirs(data, stopping, tmp_path / "best.weights.h5", model.start)
    fitted = model.fitted
    assert 5 < fitted.n_epochs_ == len(losses["loss"]) < 150
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(fitted.history_[name], losses[name], rtol=1e-5)
    assert_same_tables(fitted, theirs)
    theirs.load_weights(tmp_path / "best.weights.h5")
    assert_same_tables(load(tmp_path / "best.npz"), theirs)


class Ours(NamedTuple):
    """A fitted model and the weights that it started from."""

    fitted: FunkSVD
    start: Weights


def fit_ours(data: Any, stopping: dict[str, Any], path: Path) -> Ours:
    """Fit FunkSVD as the article does, and keep the best model in a file."""
    users, items, values, _ = data
    start: list[Weights] = []
    model = FunkSVD(
        4,
        150,
        solver="adamax",
        learning_rate=2**-4,
        learning_rate_schedule="constant",
        batch_size=300,
        shuffle=False,
        l2=0,
        l2_bias=0,
        biased=False,
        center=False,
        init_std=0.5,
        random_state=0,
    )
    begin = LambdaCallback(on_train_begin=lambda logs: start.append(model.get_weights()))
    stop = EarlyStopping("val_loss", **{"restore_best_weights": False, **stopping})
    keep = ModelCheckpoint(path, save_best_only=True)
    model.fit(
        (users, items),
        values,
        validation_split=0.1,
        validation_split_order="tail",
        callbacks=[begin, stop, keep],
    )
    return Ours(model, start[0])


def fit_theirs(data: Any, stopping: dict[str, Any], path: Path, start: Weights) -> tuple[Any, Any]:
    """Fit Keras' model in the same way; return it and its losses by name."""
    import keras

    users, items, values, _ = data
    model = keras_reference.embedding_model(USERS, ITEMS, 4)
    model.compile(keras_reference.optimizer("adamax", 2**-4), "mse")
    keras_reference.load(model, start)
    stop = keras.callbacks.EarlyStopping("val_loss", **stopping)
    keep = keras.callbacks.ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
    history = model.fit(
        [users, items],
        values,
        batch_size=300,
        epochs=150,
        validation_split=0.1,
        shuffle=False,
        verbose=0,
        callbacks=[stop, keep],
    )
    return model, history.history


def assert_same_tables(ours: FunkSVD, theirs: Any) -> None:
    """Compare the factors of both."""
    for name, want in keras_reference.weights(theirs).items():
        atol = 1e-5 * np.abs(want).max()
        np.testing.assert_allclose(getattr(ours, f"{name}_"), want, rtol=1e-4, atol=atol)


@needs_data
@keras_copies
@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_at_or_below_keras_on_real_ratings() -> None:
    """Compare test RMSEs of the best validation epochs, on fold u1 of ml-100k.

    FunkSVD trains with its defaults, and with mini-batches like those of Keras.
    """
    path = DATA / "ml-100k" / "u.data"
    users, items, values = np.loadtxt(path, dtype=np.int64, usecols=(0, 1, 2)).T
    test = slice(20_000)
    held = np.random.default_rng(2).random(80_000) < 0.1
    known = [column[20_000:] for column in (users, items, values.astype(np.float32))]
    train = [column[~held] for column in known]
    validation = [column[held] for column in known]
    predicted = fit_keras_like_the_article(train, validation).predict(
        [users[test], items[test]], batch_size=20_000, verbose=0
    )
    want = np.sqrt(np.mean((values[test] - predicted.ravel()) ** 2))
    assert want < 1
    batches = {"solver": "adamax", "batch_size": 10_000, "learning_rate": 0.01, "n_factors": 20}
    for params in ({}, batches):
        model = FunkSVD(n_epochs=300, random_state=0, **params)
        model.fit(
            tuple(train[:2]),
            train[2],
            validation_data=(tuple(validation[:2]), validation[2]),
            callbacks=EarlyStopping("val_loss", patience=3),
        )
        assert model.evaluate((users[test], items[test]), values[test])["rmse"] <= want


def fit_keras_like_the_article(train: list[np.ndarray], validation: list[np.ndarray]) -> Any:
    """Return Keras' model of (users, items, values) at its best validation epoch."""
    import keras

    model = keras_reference.embedding_model(944, 1683, 20)
    rng = np.random.default_rng(0)
    for table in model.weights:
        table.assign(rng.uniform(-0.05, 0.05, table.shape))  # as Keras' own start
    model.compile(keras_reference.optimizer("adamax", 0.01), "mse")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    model.fit(
        train[:2],
        train[2],
        batch_size=10_000,
        epochs=300,
        validation_data=(validation[:2], validation[2]),
        verbose=0,
        callbacks=[stop],
    )
    return model
