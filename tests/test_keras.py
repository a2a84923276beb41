"""Mini-batches beside Keras itself: every weight after every step, and the loss of every epoch.

"Within 1e-5 relative" cannot be asked of a weight that a step has brought near zero: its digits are lost, in Keras as
here. So a weight may differ by 1e-5 of itself, plus 1e-5 (float32) or 1e-7 (float64) of the root mean square of its
table. (Also in float64 some of Keras' constants are float32.)
"""

import os
from pathlib import Path

import numpy as np
import pytest

from funksvd import EarlyStopping, FunkSVD, LambdaCallback, ModelCheckpoint, Ratings, load, parameters
from funksvd.minibatch import MiniBatchEngine

keras_reference = pytest.importorskip("keras_reference", reason="needs Keras and JAX: pip install 'funksvd[keras]'")

SOLVERS = {  # Keras keeps the learning rate as float32: these are exact in it
    "sgd": {"solver": "sgd", "learning_rate": 0.5},
    "momentum": {"solver": "sgd", "momentum": 0.9, "learning_rate": 2**-4},
    "adagrad": {"solver": "adagrad", "learning_rate": 2**-4},
    "adam": {"solver": "adam", "learning_rate": 2**-8},
    "adamax": {"solver": "adamax", "learning_rate": 2**-7},
}
DATA = Path(os.environ.get("FUNKSVD_DATA", "nowhere"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real ratings are not there: FUNKSVD_DATA names their folder")
# How Keras 3.15 copies its variables.
keras_copies = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
OPTIMIZER = ("momentum", "beta_1", "beta_2", "epsilon", "initial_accumulator_value")
USERS, ITEMS, N, BATCH, EPOCHS = 60, 40, 2000, 200, 5


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
    values = 3.5 + (rng.normal(0, 0.7, (USERS, 3))[users] * rng.normal(0, 0.7, (ITEMS, 3))[items]).sum(1)
    values = (values + rng.normal(0, 0.3, N)).astype(np.float32)  # what Keras makes of them
    return users, items, values, rng.integers(0, 5, N) / 2


def pair(data, dtype="float32", weighted=False, **params):
    """(engine, compiled Keras model of the same start, learning rate)."""
    users, items, values, weights = data
    model = FunkSVD(5, batch_size=BATCH, shuffle=False, reg_scale="row", init_std=0.3, dtype=dtype, **params)
    parameters.check(model)
    hyper = parameters.resolved(model.get_params())
    engine = MiniBatchEngine(Ratings.from_arrays(users, items, values, weights if weighted else None), None, hyper)
    engine.mean = float(np.float32(engine.mean))  # as Keras' Rescaling keeps it
    penalties = {name: getattr(hyper, name) for name in ("l2", "l1", "l2_bias", "l1_bias", "non_negative")}
    keras = keras_reference.embedding_model(
        USERS, ITEMS, 5, mean=engine.mean, biased=hyper.biased, dtype=dtype, **penalties)  # fmt: skip
    settings = {name: getattr(hyper, name) for name in OPTIMIZER}
    keras.compile(keras_reference.optimizer(hyper.solver, hyper.learning_rate, **settings), "mse", weighted_metrics=["mse"])
    params = engine.params()
    # At exactly 0, where they start, JAX takes 1 for the gradient of |x|; funksvd 0, as TensorFlow and PyTorch
    if hyper.biased:
        rng = np.random.default_rng(1)
        params.user_biases, params.item_biases = rng.normal(0, 0.1, USERS), rng.normal(0, 0.1, ITEMS)
        engine.load(params)
    keras_reference.load(keras, engine.params())
    return engine, keras, hyper.learning_rate


def assert_same_weights(engine, keras, dtype, step):
    params = engine.params()
    for name, want in keras_reference.weights(keras).items():
        got, rms = getattr(params, name), np.sqrt(np.mean(want**2))
        absolute = rms * (1e-7 if dtype == "float64" else 1e-5)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=absolute, err_msg=f"{name} after step {step}")


def compare(data, dtype, weighted=False, **params):
    """Steps one at a time: the engine's are its own, its epoch cut in pieces."""
    engine, keras, rate = pair(data, dtype, weighted, **params)
    users, items, values, weights = data
    weights = weights if weighted else np.ones(len(users))
    sizes, errors = [], []

    def step(batch, *rest):
        original(batch, *rest)
        part = slice((len(errors) % 10) * BATCH, (len(errors) % 10 + 1) * BATCH)
        logs = keras.train_on_batch([users[part], items[part]], values[part], weights[part], return_dict=True)
        sizes.append(weights[part].sum())
        errors.append(float(logs["mse"]))
        assert_same_weights(engine, keras, dtype, len(errors))

    original, engine._step = engine._step, step
    for epoch in range(EPOCHS):
        assert engine.epoch(epoch, rate) == pytest.approx(np.average(errors[-10:], weights=sizes[-10:]), rel=1e-5)
    assert len(errors) == 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_weight_after_every_step(data, solver, dtype):
    """Half of the eight ways: each of L2, L1 and biases with and without, beside the others with and without."""
    for l2, l1, biased in ((0.0, 0.0, False), (0.002, 0.0, True), (0.0, 0.001, True), (0.002, 0.001, False)):
        biases = {"l2_bias": l2, "l1_bias": l1 / 2} if biased else {}
        compare(data, dtype, l2=l2, l1=l1, biased=biased, **biases, **SOLVERS[solver])


def test_weights_sides_and_the_lower_bound(data):
    """`sample_weight`, a penalty for each side, factors kept at 0 or above, and a smaller last batch, all at once."""
    params = {"l2": (0.001, 0.003), "l1_bias": (0.002, 0.0), "l2_bias": (0.0, 0.004), "non_negative": True}
    compare([x[:1950] for x in data], "float64", weighted=True, **params, **SOLVERS["adamax"])


@keras_copies
@pytest.mark.parametrize(
    "stopping", [{"patience": 2, "min_delta": 0.02}, {"patience": 1, "min_delta": 0.01, "restore_best_weights": True}]
)
def test_fit_with_the_articles_callbacks(data, stopping, tmp_path):
    """model.fit of both: the last ratings held out, early stopping, the best model kept; every loss, the same epochs."""
    import keras

    users, items, values, _ = data
    start = []
    model = FunkSVD(4, 150, solver="adamax", learning_rate=2**-4, learning_rate_schedule="constant", batch_size=300,
                    shuffle=False, l2=0, l2_bias=0, biased=False, center=False, init_std=0.5, random_state=0)  # fmt: skip
    begin = LambdaCallback(on_train_begin=lambda logs: start.append(model.get_weights()))
    ours = EarlyStopping("val_loss", **{"restore_best_weights": False, **stopping})
    model.fit((users, items), values, validation_split=0.1, validation_split_order="tail",
              callbacks=[begin, ours, ModelCheckpoint(tmp_path / "best.npz", save_best_only=True)])  # fmt: skip

    theirs = keras_reference.embedding_model(USERS, ITEMS, 4)
    theirs.compile(keras_reference.optimizer("adamax", 2**-4), "mse")
    keras_reference.load(theirs, start[0])
    stop = keras.callbacks.EarlyStopping("val_loss", **stopping)
    keep = keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True)
    history = theirs.fit([users, items], values, batch_size=300, epochs=150, validation_split=0.1, shuffle=False, verbose=0,
                         callbacks=[stop, keep])  # fmt: skip
    assert 5 < model.n_epochs_ == len(history.epoch) < 150
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(model.history_[name], history.history[name], rtol=1e-5)
    for tables, weights in ((model, keras_reference.weights(theirs)), (load(tmp_path / "best.npz"), None)):
        if weights is None:
            theirs.load_weights(tmp_path / "best.weights.h5")
            weights = keras_reference.weights(theirs)
        for name, want in weights.items():
            np.testing.assert_allclose(getattr(tables, f"{name}_"), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@needs_data
@keras_copies
@pytest.mark.filterwarnings("ignore:.*unknown to the model")
def test_at_or_below_keras_on_real_ratings():
    """ml-100k, fold u1, each at its best validation epoch: the defaults, and mini-batches like those of Keras."""
    import keras

    users, items, values = np.loadtxt(DATA / "ml-100k" / "u.data", dtype=np.int64, usecols=(0, 1, 2)).T
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
    theirs.fit(list(ids), y, batch_size=10_000, epochs=300, validation_data=(list(held_ids), held_y), verbose=0,
               callbacks=[stop])  # fmt: skip
    predicted = theirs.predict([users[test], items[test]], batch_size=20_000, verbose=0).ravel()
    want = np.sqrt(np.mean((values[test] - predicted) ** 2))
    assert want < 1
    batches = {"solver": "adamax", "batch_size": 10_000, "learning_rate": 0.01, "n_factors": 20}
    for params in ({}, batches):
        model = FunkSVD(n_epochs=300, random_state=0, **params)
        model.fit(ids, y, validation_data=(held_ids, held_y), callbacks=EarlyStopping("val_loss", patience=3))
        assert model.evaluate((users[test], items[test]), values[test])["rmse"] <= want
