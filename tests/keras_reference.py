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
PENALTIES = ("l2", "l1", "l2_bias", "l1_bias")


@contextlib.contextmanager
def double_precision():
    """float64 in JAX, which it turns into float32 otherwise; float32 stays what it is."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
        keras.config.set_floatx("float32")


class Penalty(keras.regularizers.Regularizer):
    """Keras' L1 and L2 added up; a compiled step may take their numbers as arguments."""

    def __init__(self):
        self.l1, self.l2 = keras.regularizers.L1(0.0), keras.regularizers.L2(0.0)

    def __call__(self, x):
        return self.l1(x) + self.l2(x)


def embedding_model(
    n_users,
    n_items,
    n_factors,
    *,
    mean=0.0,
    biased=False,
    penalised=False,
    non_negative=False,
    dtype="float32",
):
    """A model of inputs [users, items], all zeros and not compiled; `stepper` sets the numbers of a penalised one."""
    keras.config.set_floatx(dtype)  # of the loss and its metrics, too
    ids = [keras.Input((), dtype="int32", name=side) for side in ("users", "items")]

    def embedding(name, side, columns, constraint):
        layer = keras.layers.Embedding(
            (n_users, n_items)[side],
            columns,
            name=name,
            dtype=dtype,
            embeddings_initializer="zeros",
            embeddings_regularizer=Penalty() if penalised else None,
            embeddings_constraint=constraint,
        )
        return layer(ids[side])

    above = "non_neg" if non_negative else None
    factors = [embedding(NAMES[side], side, n_factors, above) for side in (0, 1)]
    out = keras.layers.Dot(1, dtype=dtype)(factors)
    if biased:
        biases = [embedding(NAMES[2 + side], side, 1, None) for side in (0, 1)]
        out = keras.layers.Add(dtype=dtype)([out, *biases])
    if mean:
        out = keras.layers.Rescaling(1, mean, dtype=dtype)(out)
    return keras.Model(ids, out)


def stepper(model):
    """run(params, penalties, batches) -> (squared error of each batch, {name: table after every step}).

    The steps are Keras' own `train_step` of a compiled and penalised model, jitted once for all starts and penalties:
    those of PENALTIES, numbers or pairs (users, items). A batch is ([users, items], ratings, weights).
    """
    embeddings = {layer.name: layer for layer in model.layers if layer.name in NAMES}

    @jax.jit
    def step(state, penalties, batch):
        for name, layer in embeddings.items():
            penalty, side, bias = (
                layer.embeddings_regularizer,
                NAMES.index(name) % 2,
                "_bias" * name.endswith("biases"),
            )
            penalty.l2.l2, penalty.l1.l1 = (
                penalties["l2" + bias][side],
                penalties["l1" + bias][side],
            )
        return model.train_step(state, batch)

    def run(params, penalties, batches):
        load(model, params)
        model._symbolic_build(data_batch=batches[0])
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = first = model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
        penalties = {kind: np.broadcast_to(np.float64(penalties[kind]), 2) for kind in PENALTIES}
        errors, tables = [], {name: [] for name in NAMES[: len(embeddings)]}
        for batch in batches:
            logs, state = step((*state[:3], first[3]), penalties, batch)
            errors.append(float(logs["mse"]))
            for variable, table in zip(model.trainable_variables, state[0], strict=True):
                tables[variable.path.split("/")[0]].append(np.asarray(table))
        return np.array(errors), {
            name: by_name(name, np.stack(steps)) for name, steps in tables.items()
        }

    return run


def optimizer(
    solver,
    learning_rate,
    momentum=0.0,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    initial_accumulator_value=0.1,
):
    """Keras' optimizer of a FunkSVD solver, from FunkSVD's parameters."""
    if solver == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum)
    if solver == "adagrad":
        return keras.optimizers.Adagrad(
            learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon
        )
    kind = {"adam": keras.optimizers.Adam, "adamax": keras.optimizers.Adamax}[solver]
    return kind(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def load(model, params):
    """Weights from the `Weights` of a FunkSVD; factors alone where the model has no biases."""
    for name in NAMES[: len(model.weights)]:
        table = getattr(params, name)
        model.get_layer(name).set_weights([table.reshape(len(table), -1)])


def weights(model):
    """{name: array} as `Weights` has them."""
    names = NAMES[: len(model.weights)]
    return {
        name: by_name(name, np.asarray(model.get_layer(name).weights[0].value)) for name in names
    }


def by_name(name, table):
    """Biases without their axis of length 1."""
    return table[..., 0] if name.endswith("biases") else table
