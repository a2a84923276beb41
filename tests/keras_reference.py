"""The article's model in Keras 3: two embeddings, their inner product, and what goes with them.

Bias embeddings and a fixed mean are optional. It needs keras and jax (the CPU build is enough).
Import this before anything imports keras, because it chooses the backend.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import keras
import numpy as np

NAMES = ("user_factors", "item_factors", "user_biases", "item_biases")
PENALTIES = ("l2", "l1", "l2_bias", "l1_bias")


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Let JAX keep float64, which it turns into float32 otherwise; float32 stays."""
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", False)
        keras.config.set_floatx("float32")


class Penalty(keras.regularizers.Regularizer):
    """The sum of Keras' L1 and L2; a compiled step may take their numbers as arguments."""

    def __init__(self) -> None:
        self.l1 = keras.regularizers.L1(0.0)
        self.l2 = keras.regularizers.L2(0.0)

    def __call__(self, x: Any) -> Any:
        return self.l1(x) + self.l2(x)


def embedding_model(
    n_users: int,
    n_items: int,
    n_factors: int,
    *,
    mean: float = 0.0,
    biased: bool = False,
    penalised: bool = False,
    non_negative: bool = False,
    dtype: str = "float32",
) -> keras.Model:
    """Return a model of inputs [users, items], all zeros and not compiled.

    `stepper` sets the penalties of a penalised model.
    """
    keras.config.set_floatx(dtype)  # of the loss and its metrics, too
    ids = [keras.Input((), dtype="int32", name=side) for side in ("users", "items")]

    def embedding(
        name: str,
        side: int,
        columns: int,
        constraint: str | None,
    ) -> Any:
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


def set_penalty(layer: Any, penalties: dict[str, Any]) -> None:
    """Set the penalties of an embedding; each of `penalties` is a pair (users, items)."""
    side = NAMES.index(layer.name) % 2
    of_biases = "_bias" if layer.name.endswith("biases") else ""
    layer.embeddings_regularizer.l2.l2 = penalties["l2" + of_biases][side]
    layer.embeddings_regularizer.l1.l1 = penalties["l1" + of_biases][side]


def stepper(model: keras.Model) -> Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Return run(start, penalties, batches) of a compiled and penalised model.

    It returns the squared error of each batch, and by name the tables after every step. The steps
    are Keras' own `train_step`, jitted once for all starts and penalties. `start` has the tables as
    attributes, `penalties` are those of PENALTIES, numbers or pairs (users, items), and a batch is
    ([users, items], ratings, weights).
    """
    embeddings = {layer.name: layer for layer in model.layers if layer.name in NAMES}

    @jax.jit
    def step(
        state: Any,
        penalties: dict[str, Any],
        batch: Any,
    ) -> Any:
        for layer in embeddings.values():
            set_penalty(layer, penalties)
        return model.train_step(state, batch)

    def run(
        start: Any,
        penalties: dict[str, Any],
        batches: list[Any],
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        load(model, start)
        model._symbolic_build(data_batch=batches[0])
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = first = model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
        pairs = {kind: np.broadcast_to(np.float64(penalties[kind]), 2) for kind in PENALTIES}
        errors = []
        tables: dict[str, list[np.ndarray]] = {name: [] for name in NAMES[: len(embeddings)]}
        for batch in batches:
            logs, state = step((*state[:3], first[3]), pairs, batch)
            errors.append(float(logs["mse"]))
            for variable, table in zip(model.trainable_variables, state[0], strict=True):
                tables[variable.path.split("/")[0]].append(np.asarray(table))
        stacked = {name: by_name(name, np.stack(steps)) for name, steps in tables.items()}
        return np.array(errors), stacked

    return run


def optimizer(
    solver: str,
    learning_rate: float,
    momentum: float = 0.0,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    initial_accumulator_value: float = 0.1,
) -> Any:
    """Return Keras' optimizer of a FunkSVD solver, from FunkSVD's parameters."""
    if solver == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=momentum)
    if solver == "adagrad":
        return keras.optimizers.Adagrad(
            learning_rate, initial_accumulator_value=initial_accumulator_value, epsilon=epsilon
        )
    kind = {"adam": keras.optimizers.Adam, "adamax": keras.optimizers.Adamax}[solver]
    return kind(learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon)


def load(model: keras.Model, start: Any) -> None:
    """Take over the `Weights` of a FunkSVD; factors alone if the model has no biases."""
    for name in NAMES[: len(model.weights)]:
        table = getattr(start, name)
        model.get_layer(name).set_weights([table.reshape(len(table), -1)])


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the tables by their names in `Weights`."""
    tables = {}
    for name in NAMES[: len(model.weights)]:
        table = np.asarray(model.get_layer(name).weights[0].value)
        tables[name] = by_name(name, table)
    return tables


def by_name(name: str, table: np.ndarray) -> np.ndarray:
    """Return a table; biases without their axis of length 1."""
    return table[..., 0] if name.endswith("biases") else table
