"""The article's model in Keras 3: two embeddings and their inner product; optional bias embeddings and a fixed mean.

Needs keras and jax (the CPU build is enough). Import this before anything imports keras: it chooses the backend.
"""

import contextlib
import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import keras
import numpy as np

NAMES = ("user_factors", "item_factors", "user_biases", "item_biases")


@contextlib.contextmanager
def double_precision():
    """float64 in JAX, which it turns into float32 otherwise; float32 stays what it is."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
        keras.config.set_floatx("float32")


def embedding_model(n_users, n_items, n_factors, *, mean=0.0, biased=False, l2=0.0, l1=0.0, l2_bias=0.0, l1_bias=0.0,
                    non_negative=False, dtype="float32"):  # fmt: skip
    """A model of inputs [users, items], all zeros and not compiled; penalties are numbers or pairs (users, items)."""
    keras.config.set_floatx(dtype)  # of the loss and its metrics, too
    ids = [keras.Input((), dtype="int32", name=side) for side in ("users", "items")]

    def embedding(name, side, columns, l2, l1, constraint):
        l2, l1 = (penalty[side] if isinstance(penalty, tuple) else penalty for penalty in (l2, l1))
        layer = keras.layers.Embedding(
            (n_users, n_items)[side], columns, name=name, dtype=dtype, embeddings_initializer="zeros",
            embeddings_regularizer=keras.regularizers.L1L2(l1=l1, l2=l2) if l1 or l2 else None,
            embeddings_constraint=constraint)  # fmt: skip
        return layer(ids[side])

    above = "non_neg" if non_negative else None
    factors = [embedding(NAMES[side], side, n_factors, l2, l1, above) for side in (0, 1)]
    out = keras.layers.Dot(1, dtype=dtype)(factors)
    if biased:
        biases = [embedding(NAMES[2 + side], side, 1, l2_bias, l1_bias, None) for side in (0, 1)]
        out = keras.layers.Add(dtype=dtype)([out, *biases])
    if mean:
        out = keras.layers.Rescaling(1, mean, dtype=dtype)(out)
    return keras.Model(ids, out)


def optimizer(solver, learning_rate, momentum=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7, initial_accumulator_value=0.1):
    """Keras' optimizer of a FunkSVD solver, from FunkSVD's parameters."""
    if solver == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum)
    if solver == "adagrad":
        return keras.optimizers.Adagrad(learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon)
    kind = {"adam": keras.optimizers.Adam, "adamax": keras.optimizers.Adamax}[solver]
    return kind(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def load(model, params):
    """Weights from the `Params` of a FunkSVD; factors alone where the model has no biases."""
    for name in NAMES[: len(model.weights)]:
        table = getattr(params, name)
        model.get_layer(name).set_weights([table.reshape(len(table), -1)])


def weights(model):
    """{name: array} as `Params` has them."""
    tables = {name: np.asarray(model.get_layer(name).weights[0].value) for name in NAMES[: len(model.weights)]}
    return {name: table[:, 0] if name.endswith("biases") else table for name, table in tables.items()}
