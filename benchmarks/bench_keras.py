"""FunkSVD beside Keras 3: the 2016 article's model, the same mini-batches, the same numbers.

    python benchmarks/bench_keras.py --sizes ml-1m ml-20m netflix --plot keras.png
    python benchmarks/bench_keras.py --sizes --data DIR

Two embeddings without biases or mean, their inner product, MSE, AdaMax, batches of a million: both train on the same
generated ratings, from the same weights, in the same order (shuffle=False), in one process. Before a time counts, the
losses of all epochs must agree. With --data: the test RMSE of the best validation epoch on real ratings, in the files
that bench_accuracy.py reads.

Needs Keras and JAX: pip install "funksvd[keras]"
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from bench_accuracy import movielens_folds
from common import SHAPES, cache_folder, check, peak_memory, print_header, print_table, rmse, shaped

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

ARTICLE = """The article (2016, Keras on Theano, nearly 100 M ratings of 0.5 M users and almost 20,000 movies, k = 20,
AdaMax, batches of 1 M) reports 300 s an epoch on a CPU, 90 s on a GeForce GTX 960."""
RATE = 0.01  # of AdaMax here: ten times the default, which is slow for the few steps of such large batches


def first_factors(data, factors):
    """Random factors of every id up to the largest, for both models."""
    rng = np.random.default_rng(0)
    return [
        rng.normal(0, 0.3, (int(ids.max()) + 1, factors)).astype(np.float32) for ids in data[:2]
    ]


def embeddings(start, mean=None, l2=0.0, l2_bias=0.0, rate=RATE):
    """The compiled Keras model, which begins with the factors `start`; a `mean` adds bias embeddings to it."""
    import keras

    def rows(table, l2):
        penalty = keras.regularizers.L2(l2) if l2 else None
        layer = keras.layers.Embedding(
            *table.shape, embeddings_initializer="zeros", embeddings_regularizer=penalty
        )
        layer.build()
        layer.set_weights([table])
        return layer

    ids = [keras.Input((), dtype="int32") for _ in start]
    out = keras.layers.Dot(1)(
        [rows(table, l2)(side) for table, side in zip(start, ids, strict=True)]
    )
    if mean is not None:
        biases = [
            rows(np.zeros_like(table[:, :1]), l2_bias)(side)
            for table, side in zip(start, ids, strict=True)
        ]
        out = keras.layers.Rescaling(1, mean)(keras.layers.Add()([out, *biases]))
    model = keras.Model(ids, out)
    model.compile(keras.optimizers.Adamax(rate), "mse")
    return model


def fit_keras(data, options, epochs, split=0.0, shuffle=False):
    """History, with the seconds of each epoch; the first holds the compilation."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seconds = []

        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds.append(time.perf_counter() - self.begun)

    clock, model = Clock(), embeddings(first_factors(data, options.factors))
    history = model.fit(
        list(data[:2]),
        data[2],
        batch_size=options.batch,
        epochs=epochs,
        validation_split=split,
        shuffle=shuffle,
        verbose=0,
        callbacks=[clock],
    ).history
    keras.backend.clear_session()
    return {**history, "seconds": clock.seconds}


def fit_funksvd(data, options, epochs, split=0.0, shuffle=False):
    """History of the same fit."""
    from funksvd import FunkSVD, LambdaCallback

    def begin(logs=None):
        params = model.get_weights()
        start = first_factors(data, options.factors)
        sides = zip(start, data[:2], strict=True)
        params.user_factors, params.item_factors = (table[np.unique(ids)] for table, ids in sides)
        model.set_weights(params)

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
        data[:2],
        data[2],
        validation_split=split,
        validation_split_order="tail",
        callbacks=[LambdaCallback(on_train_begin=begin)],
    )
    return model.history_


# --------------------------------------------------------------------------- for the processes that measure memory


def load_arrays(name, cache, options):
    """Arguments of the two functions below."""
    return shaped(name, cache), options


def run_funksvd(data, options):
    """What is measured: two epochs, from three arrays."""
    fit_funksvd(data, options, 2)


def run_keras(data, options):
    """The same of Keras."""
    fit_keras(data, options, 2)


# ------------------------------------------------------------------------------------------------------ the tables


def bench_size(name, cache, options):
    """Check and time both on one shape, and print its table; returns the histories with validation."""
    data = shaped(name, cache)
    n, epochs = len(data[0]), options.epochs
    print(
        f"## {name}: {n:,} ratings, k = {options.factors}, batches of {options.batch:,}, {options.threads} threads"
    )
    fits = {"Keras": fit_keras, "FunkSVD": fit_funksvd}
    memory = {}
    curves = {model: fit(data, options, epochs, 0.1) for model, fit in fits.items()}
    timed = {model: fit(data, options, 3) for model, fit in fits.items()}
    apart = max(
        float(np.max(np.abs(np.divide(history["FunkSVD"][loss], history["Keras"][loss]) - 1)))
        for history, loss in ((curves, "loss"), (curves, "val_loss"), (timed, "loss"))
    )
    print(
        f"losses and validation losses of {epochs} epochs, the largest difference: {apart:.1e} of the loss"
    )
    check(apart < 1e-4, f"the losses differ by {apart:.1e}")
    for model, fit in fits.items():
        timed[f"{model}, shuffled"], memory[f"{model}, shuffled"] = (
            fit(data, options, 3, shuffle=True),
            np.nan,
        )
    for model, run in (("FunkSVD", "run_funksvd"), ("Keras", "run_keras")):
        memory[model] = (
            np.nan
            if options.no_memory
            else peak_memory("bench_keras", "load_arrays", run, name, cache, options)
        )
    seconds = {model: float(np.median(history["seconds"][1:])) for model, history in timed.items()}
    rows = []
    for model, of_epoch in sorted(seconds.items(), key=lambda one: one[1]):
        history = curves.get(model)
        best = "-" if history is None else f"{min(history['val_loss']) ** 0.5:.4f}"
        total = np.nan if history is None else sum(history["seconds"])
        ours = seconds["FunkSVD, shuffled" if "shuffled" in model else "FunkSVD"]
        rows.append(
            [model, of_epoch, of_epoch / ours, n / of_epoch / 1e6, best, total, memory[model] / 1e6]
        )
    header = [
        "model",
        "s/epoch",
        "ratio",
        "M ratings/s",
        "best val. RMSE",
        f"s for {epochs} epochs",
    ]
    print_table([*header, "peak MB beyond arrays"], rows)
    return curves


def plot(curves, path):
    """Validation RMSE against epochs and against seconds, a row of axes for each size."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(curves), 2, figsize=(9, 3.2 * len(curves)), squeeze=False, layout="constrained"
    )
    for (by_epoch, by_second), (name, histories) in zip(axes, curves.items(), strict=True):
        for model, history in histories.items():
            error, style = np.sqrt(history["val_loss"]), {"Keras": "o-", "FunkSVD": "x--"}[model]
            by_epoch.plot(np.arange(1, len(error) + 1), error, style, label=model)
            by_second.plot(np.cumsum(history["seconds"]), error, style, label=model)
        by_epoch.set(xlabel="epochs", ylabel="validation RMSE", title=name)
        by_second.set(xlabel="seconds", xscale="log", title=name)
        by_epoch.legend()
    figure.savefig(path, dpi=120)
    print("curves in", path)


def best_keras(train, validation, test, l2, options):
    """Test RMSE of a Keras model at its best validation epoch; FunkSVD's `l2` adds mean, biases and the penalty."""
    import keras

    ids = [np.concatenate([part[side] for part in (train, validation, test)]) for side in (0, 1)]
    start = [
        table / 10 for table in first_factors(ids, options.factors)
    ]  # about as small as Keras' own
    mean = float(train[2].mean()) if l2 else None
    l2 /= len(start[0])  # a mean over the ratings, spread over the rows
    model = embeddings(start, mean, l2, l2)
    model.fit(
        list(train[:2]),
        train[2],
        batch_size=options.data_batch,
        epochs=300,
        verbose=0,
        validation_data=(list(validation[:2]), validation[2]),
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
        ],
    )
    out = rmse(model.predict(list(test[:2]), batch_size=1 << 16, verbose=0).ravel(), test[2])
    keras.backend.clear_session()
    return out


def best_funksvd(train, validation, test, **params):
    """Test RMSE of a FunkSVD at its best validation epoch."""
    from funksvd import EarlyStopping, FunkSVD, Ratings

    model = FunkSVD(n_epochs=300, random_state=0, **params)
    model.fit(
        train[:2],
        train[2],
        validation_data=(validation[:2], validation[2]),
        callbacks=EarlyStopping("val_loss", patience=3, restore_best_weights=True),
    )
    return model.evaluate(Ratings.from_arrays(*test))["rmse"]


def real_ratings(folder):
    """Yield name, (train, validation, test) of ml-100k's fold u1 and of goodbooks."""
    from funksvd import Ratings

    rng = np.random.default_rng(2)
    for name, path in (
        ("ml-100k, u1", "ml-100k/u.data"),
        ("goodbooks", "goodbooks/ratings.csv.gz"),
    ):
        if not (Path(folder) / path).exists():
            print(f"{path} is not in {folder}")
            continue
        if name == "goodbooks":
            ratings = Ratings.read(Path(folder) / path)
            users, items, values = ratings.users, ratings.items, ratings.values.astype(np.float32)
            test = rng.random(len(values)) < 0.1
        else:
            (train, known), (withheld, unknown) = next(movielens_folds(Path(folder) / path))
            users, items = (
                np.concatenate(ids).astype(np.int32) for ids in zip(train, withheld, strict=True)
            )
            values, test = (
                np.concatenate([known, unknown]),
                np.arange(len(known) + len(unknown)) >= len(known),
            )
        validation = ~test & (rng.random(len(values)) < 0.1)
        yield (
            name,
            tuple(
                (users[part], items[part], values[part])
                for part in (~test & ~validation, validation, test)
            ),
        )


def bench_accuracy(options):
    """Test RMSE at the best validation epoch, on real ratings."""
    batches = {
        "n_factors": options.factors,
        "solver": "adamax",
        "batch_size": options.data_batch,
        "learning_rate": RATE,
        "learning_rate_schedule": "constant",
    }
    ways = [
        ("Keras, as in the article", lambda parts: best_keras(*parts, 0.0, options)),
        ("Keras, with mean, biases and L2", lambda parts: best_keras(*parts, 0.08, options)),
        ("FunkSVD, defaults", lambda parts: best_funksvd(*parts)),
        ("FunkSVD, the same k", lambda parts: best_funksvd(*parts, n_factors=options.factors)),
        ("FunkSVD, mini-batches of AdaMax", lambda parts: best_funksvd(*parts, **batches)),
    ]
    for name, parts in real_ratings(options.data):
        print(
            f"## {name}: {sum(len(part[0]) for part in parts):,} ratings, k = {options.factors}, test RMSE"
        )
        rows = []
        for way, run in ways:
            start = time.perf_counter()
            rows.append([way, f"{run(parts):.4f}", time.perf_counter() - start])
        print_table(["model", "test RMSE", "s"], rows)


def main():
    """Print one table for each size, and one for each set of real ratings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", choices=SHAPES, default=["ml-1m", "ml-20m"])
    parser.add_argument("--factors", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1_000_000)
    parser.add_argument("--epochs", type=int, default=10, help="of the curves (default 10)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--plot", metavar="FILE", help="draw validation RMSE against epochs and seconds"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep the generated ratings in this folder")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument(
        "--data", metavar="DIR", help="compare accuracy on the real ratings of this folder, too"
    )
    parser.add_argument(
        "--data-batch", type=int, default=10_000, help="batches there (default 10,000)"
    )
    options = parser.parse_args()
    try:
        import jax  # noqa: F401
        import keras  # noqa: F401
    except ImportError:
        raise SystemExit("Keras or JAX is not installed: pip install 'funksvd[keras]'") from None
    print_header(
        "keras",
        "jax",
        measured="median of the epochs after the first, which compiles, without validation",
    )
    print(ARTICLE + "\n", flush=True)
    curves = {}
    with cache_folder(options.cache) as cache:
        for name in options.sizes:
            curves[name] = bench_size(name, cache, options)
    if options.plot and curves:
        plot(curves, options.plot)
    if options.data:
        bench_accuracy(options)


if __name__ == "__main__":
    main()
