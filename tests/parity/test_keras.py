"""Mini-batches beside Keras itself: every weight after every step, and the loss of every epoch.

Whatever the precision of a model, Keras keeps some of its constants as float32: the learning rate, the mean, 1 / size of
a batch, 1 - beta_2^t. So that the two have the same ones, those of the steps here are exact in float32. In float64 every
weight is then within 1e-9 of itself (2e-11 is what is seen). In float32 this cannot be asked of a weight that a step has
brought near zero: its digits are lost, in Keras as here (`test_keras_beside_itself`). There a weight may differ by 1e-5 of
itself and 1e-6 (7e-7 is what is seen) of the root mean square of its table: one in a hundred needs the second part.
"""

import os
from itertools import product
from pathlib import Path

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
TOLERANCE = {
    "float32": (1e-5, 1e-6),
    "float64": (1e-9, 0),
}  # of a weight, of its table's root mean square: see above
USERS, ITEMS, N, BATCH, EPOCHS = 60, 40, 2560, 256, 5


@pytest.fixture(scope="module", autouse=True)
def precision():
    """For this file alone: Keras' callbacks, which other tests compare with, take their decisions in float32."""
    with keras_reference.double_precision():
        yield


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, USERS, N), rng.integers(0, ITEMS, N)
    users[:USERS], items[:ITEMS] = np.arange(USERS), np.arange(ITEMS)
    values = 3.5 + (
        rng.normal(0, 0.7, (USERS, 3))[users] * rng.normal(0, 0.7, (ITEMS, 3))[items]
    ).sum(1)
    values = (values + rng.normal(0, 0.3, N)).astype(np.float32)  # what Keras makes of them
    return users, items, values, rng.integers(0, 5, N) / 2


def batches_of(data):
    """What Keras gets in an epoch, in the order of the ratings."""
    parts = [slice(first, first + BATCH) for first in range(0, len(data[0]), BATCH)]
    return [([data[0][part], data[1][part]], data[2][part], data[3][part]) for part in parts]


def stepper(data, dtype, **params):
    """Of Keras' model for `compare`: one for all penalties."""
    hyper = parameters.resolve(FunkSVD(**params).get_params())
    mean = float(np.float32(np.average(data[2].astype(np.float64), weights=data[3])))
    keras = keras_reference.embedding_model(
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
    keras.compile(
        keras_reference.optimizer(hyper.solver, hyper.learning_rate, **settings),
        "mse",
        weighted_metrics=["mse"],
    )
    return keras_reference.stepper(keras)


def engine_of(data, dtype, **params):
    """(engine, its parameters, the models that it will list after every step)."""
    model = FunkSVD(
        5, batch_size=BATCH, shuffle=False, reg_scale="row", init_std=0.3, dtype=dtype, **params
    )
    parameters.check(model)
    hyper = parameters.resolve(model.get_params())
    weights = None if (data[3] == 1).all() else data[3]
    engine, steps = MiniBatchEngine(Ratings.from_arrays(*data[:3], weights), None, hyper), []
    engine.mean = float(np.float32(engine.mean))  # as Keras' Rescaling keeps it

    def step(*batch):
        original(*batch)
        steps.append(engine.weights())

    original, engine._step = engine._step, step
    return engine, hyper, steps


def compare(run, data, dtype, **params):
    """Fifty steps of an engine beside those of Keras, from the same start."""
    engine, hyper, steps = engine_of(data, dtype, **params)
    start = engine.weights()
    # At exactly 0, where they start, JAX takes 1 for the gradient of |x|; funksvd 0, as TensorFlow and PyTorch
    if hyper.biased:
        rng = np.random.default_rng(1)
        start.user_biases, start.item_biases = (
            rng.normal(0, 0.1, n).astype(dtype) for n in (USERS, ITEMS)
        )
        engine.load(start)
    batches = batches_of(data)
    errors, want = run(start, vars(hyper), batches * EPOCHS)
    sizes = [weights.sum() for *_, weights in batches]
    for epoch in range(EPOCHS):
        loss = np.average(errors[epoch * len(batches) : (epoch + 1) * len(batches)], weights=sizes)
        assert engine.epoch(epoch, hyper.learning_rate) == pytest.approx(loss, rel=1e-5)
    assert len(steps) == len(errors) == 50
    relative, of_rms = TOLERANCE[dtype]
    for name, tables in want.items():
        got = np.stack([getattr(params, name) for params in steps])
        rms = np.sqrt(np.mean(tables**2, axis=tuple(range(1, tables.ndim)), keepdims=True))
        too_far = np.abs(got - tables) > relative * np.abs(tables) + of_rms * rms
        assert not too_far.any(), (
            f"{name} after step {1 + too_far.reshape(len(steps), -1).any(1).argmax()}"
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_weight_after_every_step(data, solver, dtype):
    """All eight ways of L2, L1 and biases, with and without."""
    data = (*data[:3], np.ones(N))
    for biased in (False, True):
        run = stepper(data, dtype, biased=biased, **SOLVERS[solver])
        for l2, l1 in product((0.0, 2**-9), (0.0, 2**-10)):
            biases = {"l2_bias": l2, "l1_bias": l1 / 2} if biased else {"l2_bias": 0.0}
            compare(run, data, dtype, l2=l2, l1=l1, biased=biased, **biases, **SOLVERS[solver])


@pytest.mark.parametrize("solver", SOLVERS)
def test_keras_beside_itself(data, solver):
    """Float32: some weights of Keras are beyond 1e-5 of themselves where the ratings of a batch come in reverse order.

    Of 0.03 to 0.5 % that is seen, of ours of 0.04 to 0.9 %.
    """
    data = (*data[:3], np.ones(N))
    run, batches = (
        stepper(data, "float32", biased=False, **SOLVERS[solver]),
        batches_of(data) * EPOCHS,
    )
    reverse = [
        ([ids[::-1] for ids in pair], values[::-1], weights[::-1])
        for pair, values, weights in batches
    ]
    engine, hyper, steps = engine_of(
        data, "float32", l2=2**-9, l1=2**-10, l2_bias=0.0, biased=False, **SOLVERS[solver]
    )
    start = engine.weights()
    for epoch in range(EPOCHS):
        engine.epoch(epoch, hyper.learning_rate)
    want, reordered = (
        run(start, vars(hyper), order)[1]["user_factors"] for order in (batches, reverse)
    )
    ours = np.stack([step.user_factors for step in steps])
    beyond = [np.mean(np.abs(got - want) > 1e-5 * np.abs(want)) for got in (ours, reordered)]
    assert beyond[0] < 0.01
    assert beyond[1] > 0


def test_weights_sides_and_the_lower_bound(data):
    """`sample_weight`, a penalty for each side, factors kept at 0 or above, and a smaller last batch, all at once."""
    data, params = [x[:2432] for x in data], {"non_negative": True, **SOLVERS["adamax"]}
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
def test_fit_with_the_articles_callbacks(data, stopping, tmp_path):
    """model.fit of both: the last ratings held out, early stopping, the best model kept; every loss, the same epochs."""
    import keras

    users, items, values, _ = data
    start = []
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
    ours = EarlyStopping("val_loss", **{"restore_best_weights": False, **stopping})
    model.fit(
        (users, items),
        values,
        validation_split=0.1,
        validation_split_order="tail",
        callbacks=[begin, ours, ModelCheckpoint(tmp_path / "best.npz", save_best_only=True)],
    )

    theirs = keras_reference.embedding_model(USERS, ITEMS, 4)
    theirs.compile(keras_reference.optimizer("adamax", 2**-4), "mse")
    keras_reference.load(theirs, start[0])
    stop = keras.callbacks.EarlyStopping("val_loss", **stopping)
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True
    )
    history = theirs.fit(
        [users, items],
        values,
        batch_size=300,
        epochs=150,
        validation_split=0.1,
        shuffle=False,
        verbose=0,
        callbacks=[stop, keep],
    )
    assert 5 < model.n_epochs_ == len(history.epoch) < 150
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(model.history_[name], history.history[name], rtol=1e-5)
    for tables, weights in (
        (model, keras_reference.weights(theirs)),
        (load(tmp_path / "best.npz"), None),
    ):
        if weights is None:
            theirs.load_weights(tmp_path / "best.weights.h5")
            weights = keras_reference.weights(theirs)
        for name, want in weights.items():
            np.testing.assert_allclose(
                getattr(tables, f"{name}_"), want, rtol=1e-4, atol=1e-5 * np.abs(want).max()
            )


@needs_data
@keras_copies
@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_at_or_below_keras_on_real_ratings():
    """ml-100k, fold u1, each at its best validation epoch: the defaults, and mini-batches like those of Keras."""
    import keras

    users, items, values = np.loadtxt(
        DATA / "ml-100k" / "u.data", dtype=np.int64, usecols=(0, 1, 2)
    ).T
    test, known = slice(20_000), slice(20_000, None)
    held = np.random.default_rng(2).random(80_000) < 0.1
    ids, held_ids = ((users[known][part], items[known][part]) for part in (~held, held))
    y, held_y = values[known][~held].astype(np.float32), values[known][held].astype(np.float32)
    theirs = keras_reference.embedding_model(944, 1683, 20)
    rng = np.random.default_rng(0)
    for table in theirs.weights:
        table.assign(rng.uniform(-0.05, 0.05, table.shape))  # as Keras' own
    theirs.compile(keras_reference.optimizer("adamax", 0.01), "mse")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    theirs.fit(
        list(ids),
        y,
        batch_size=10_000,
        epochs=300,
        validation_data=(list(held_ids), held_y),
        verbose=0,
        callbacks=[stop],
    )
    predicted = theirs.predict([users[test], items[test]], batch_size=20_000, verbose=0).ravel()
    want = np.sqrt(np.mean((values[test] - predicted) ** 2))
    assert want < 1
    batches = {"solver": "adamax", "batch_size": 10_000, "learning_rate": 0.01, "n_factors": 20}
    for params in ({}, batches):
        model = FunkSVD(n_epochs=300, random_state=0, **params)
        model.fit(
            ids,
            y,
            validation_data=(held_ids, held_y),
            callbacks=EarlyStopping("val_loss", patience=3),
        )
        assert model.evaluate((users[test], items[test]), values[test])["rmse"] <= want
