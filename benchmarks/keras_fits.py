"""The article's model in Keras 3 and in FunkSVD for bench_keras.py, fitted in the same ways."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from common import rmse

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

RATE = 0.01  # of AdaMax: ten times its default, which is slow for few steps of such large batches
PATIENCE = 3
MOST_EPOCHS = 300

History = dict[str, list[float]]


class Triples(NamedTuple):
    """Ratings: integer ids and values."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray


class Parts(NamedTuple):
    """Ratings to train on, to choose the best epoch by, and to test on."""

    train: Triples
    validation: Triples
    test: Triples


class Penalties(NamedTuple):
    """What Keras' model has beside the article's: a mean with bias embeddings, and L2."""

    mean: float | None = None
    l2: float = 0.0


def first_factors(
    users: np.ndarray,
    items: np.ndarray,
    n_factors: int,
) -> list[np.ndarray]:
    """Return random factors of every id up to the largest, for both models."""
    rng = np.random.default_rng(0)
    factors = []
    for ids in (users, items):
        shape = (int(ids.max()) + 1, n_factors)
        factors.append(rng.normal(0, 0.3, shape).astype(np.float32))
    return factors


def embedding(table: np.ndarray, l2: float) -> Any:
    """Return an embedding layer that starts with a table."""
    import keras

    layer = keras.layers.Embedding(
        *table.shape,
        embeddings_initializer="zeros",
        embeddings_regularizer=keras.regularizers.L2(l2) if l2 else None,
    )
    layer.build()
    layer.set_weights([table])
    return layer


def keras_model(start: list[np.ndarray], extra: Penalties) -> Any:
    """Return the compiled Keras model, which begins with the factors `start`."""
    import keras

    ids = [keras.Input((), dtype="int32") for _ in start]
    sides = list(zip(start, ids, strict=True))
    out = keras.layers.Dot(1)([embedding(table, extra.l2)(side) for table, side in sides])
    if extra.mean is not None:
        biases = [embedding(np.zeros_like(table[:, :1]), extra.l2)(side) for table, side in sides]
        out = keras.layers.Add()([out, *biases])
        out = keras.layers.Rescaling(1, extra.mean)(out)
    model = keras.Model(ids, out)
    model.compile(keras.optimizers.Adamax(RATE), "mse")
    return model


def clock() -> Any:
    """Return a callback of Keras that notes the seconds of each epoch."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.begun = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.begun)

    return Clock()


def fit_keras(
    data: Triples,
    options: argparse.Namespace,
    epochs: int,
    split: float = 0.0,
    shuffle: bool = False,
) -> History:
    """Return the history, with the seconds of each epoch; the first holds the compilation."""
    import keras

    timer = clock()
    model = keras_model(first_factors(data.users, data.items, options.factors), Penalties())
    history = model.fit(
        [data.users, data.items],
        data.values,
        batch_size=options.batch,
        epochs=epochs,
        validation_split=split,
        shuffle=shuffle,
        verbose=0,
        callbacks=[timer],
    ).history
    keras.backend.clear_session()
    return {**history, "seconds": timer.seconds}


def fit_funksvd(
    data: Triples,
    options: argparse.Namespace,
    epochs: int,
    split: float = 0.0,
    shuffle: bool = False,
) -> History:
    """Return the history of the same fit."""
    from funksvd import FunkSVD, LambdaCallback

    def begin(logs: Any = None) -> None:
        users, items = first_factors(data.users, data.items, options.factors)
        start = replace(
            model.get_weights(),
            user_factors=users[np.unique(data.users)],
            item_factors=items[np.unique(data.items)],
        )
        model.set_weights(start)

    model = FunkSVD(
        options.factors,
        epochs,
        solver="adamax",
        batch_size=options.batch,
        shuffle=shuffle,
        learning_rate=RATE,
        learning_rate_schedule="constant",
        l2=0,
        l2_bias=0,
        biased=False,
        center=False,
        n_jobs=options.threads,
        random_state=0,
    )
    model.fit(
        (data.users, data.items),
        data.values,
        validation_split=split,
        validation_split_order="tail",
        callbacks=[LambdaCallback(on_train_begin=begin)],
    )
    return model.history_


def best_keras(
    parts: Parts,
    l2: float,
    options: argparse.Namespace,
) -> float:
    """Return the test RMSE of a Keras model at its best validation epoch.

    `l2` is as FunkSVD's; it adds mean and biases as well.
    """
    import keras

    train, validation, test = parts
    users = np.concatenate([part.users for part in parts])
    items = np.concatenate([part.items for part in parts])
    # About as small as Keras' own start.
    start = [table / 10 for table in first_factors(users, items, options.factors)]
    extra = Penalties()
    if l2:
        # A mean over the ratings, spread over the rows.
        extra = Penalties(float(train.values.mean()), l2 / len(start[0]))
    model = keras_model(start, extra)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True)
    model.fit(
        [train.users, train.items],
        train.values,
        batch_size=options.data_batch,
        epochs=MOST_EPOCHS,
        verbose=0,
        validation_data=([validation.users, validation.items], validation.values),
        callbacks=[stop],
    )
    predicted = model.predict([test.users, test.items], batch_size=1 << 16, verbose=0)
    keras.backend.clear_session()
    return rmse(predicted.ravel(), test.values)


def best_funksvd(parts: Parts, **params: Any) -> float:
    """Return the test RMSE of a FunkSVD at its best validation epoch."""
    from funksvd import EarlyStopping, FunkSVD, Ratings

    train, validation, test = parts
    model = FunkSVD(n_epochs=MOST_EPOCHS, random_state=0, **params)
    model.fit(
        (train.users, train.items),
        train.values,
        validation_data=((validation.users, validation.items), validation.values),
        callbacks=EarlyStopping("val_loss", patience=PATIENCE, restore_best_weights=True),
    )
    return model.evaluate(Ratings.from_arrays(*test))["rmse"]
