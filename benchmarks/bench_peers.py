"""Compare FunkSVD, LIBMF and Surprise: seconds an epoch, start-up, time to an equal error, memory.

    git clone https://github.com/cjlin1/libmf
    python benchmarks/bench_peers.py --libmf-source libmf --shapes ml-1m ml-20m --factors 32 100

The newest source of LIBMF is the strongest peer; the package on PyPI has an older one. Before it
times a model the script checks that its validation RMSE beats that of biases alone. LIBMF's newest
source reorders the caller's ratings instead of copying them, so that its memory is the least.
"""

import argparse
import contextlib
import io
import tempfile
import time
import warnings

import libmf_source
import numpy as np
from common import (
    CHUNK,
    SHAPES,
    biases_rmse,
    cache_folder,
    check,
    held_out,
    peak_memory,
    print_header,
    print_table,
    rmse,
    shaped,
)

HEADER = [
    "model",
    "s/epoch",
    "ratio",
    "s before first epoch",
    "best val. RMSE",
    "s to the first peer's best",
    "ratio",
    "peak MB beyond arrays",
]
# Epochs of the two fits whose difference gives the time of an epoch, the same for every model.
SHORT_FIT = 2
LONG_FIT = 22
REPEATS = {"ml-1m": 31, "ml-20m": 11, "netflix": 3}
LIBMF_EPOCHS = (5, 10, 15, 20, 30)
FUNKSVD_EPOCHS = 60  # at most, to reach LIBMF's error
INSTALL_LIBMF = """The package of LIBMF is not installed. A fair build, with SIMD and threads:
    CFLAGS="-O3 -march=native -mavx -DUSEAVX -DUSEOMP -fopenmp" LDFLAGS=-fopenmp \\
        pip install --no-binary libmf --no-cache-dir libmf"""
NOTE_LIBMF = """The package of LIBMF must have been built with
    CFLAGS="-O3 -march=native -mavx -DUSEAVX -DUSEOMP -fopenmp" LDFLAGS=-fopenmp \\
        pip install --no-binary libmf --no-cache-dir libmf
Without SIMD and threads the ratio is unfair. Even so the package bundles an older LIBMF, about half
as fast as its newest source. Its Python binding copies the ratings once more, which counts as its
memory."""
INSTALL_SURPRISE = "Surprise is not installed: pip install scikit-surprise"


def import_libmf():
    """Return the `mf` module of LIBMF's binding, or None if it is not installed.

    Its import prints where it lies; that is kept from the output.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from libmf import mf
    except (ImportError, OSError):
        return None
    return mf


def import_surprise():
    """Return the module of Surprise, or None if it is not installed."""
    try:
        import surprise
    except ImportError:
        return None
    return surprise


def triples(users, items, ratings):
    """Return ratings as (n, 3) float32, the only input that LIBMF's binding takes."""
    table = np.empty((len(users), 3), np.float32)
    for column, values in enumerate((users, items, ratings)):
        table[:, column] = values
    return table


# ------------------------------------------------------------------------------- one fit of each


class NewestLibmf:
    """LIBMF's newest source, compiled by this script."""

    name = "LIBMF, newest source"

    def __init__(self, library):
        self.library = library

    def prepare(self, users, items, ratings):
        """Return the ratings in the form that `fit` takes."""
        return libmf_source.nodes(users, items, ratings)

    def fit(self, table, epochs, factors, threads, l2):
        """Return `libmf_source.Factors` and the seconds of the training."""
        start = time.perf_counter()
        model = libmf_source.train(self.library, table, epochs, factors, threads, l2)
        seconds = time.perf_counter() - start
        return libmf_source.take(self.library, model), seconds

    def factors_of(self, model):
        """Return (mean, factors of users, factors of items)."""
        return model


class PackagedLibmf:
    """LIBMF as the package on PyPI bundles it, an older version."""

    name = "LIBMF, package"

    def prepare(self, users, items, ratings):
        """Return the ratings in the form that `fit` takes."""
        return triples(users, items, ratings)

    def fit(self, table, epochs, factors, threads, l2):
        """Return a trained model and the seconds of its fit."""
        # P and Q are penalised as in FunkSVD: l2 with every rating, no l1.
        model = import_libmf().MF(
            k=factors,
            nr_threads=threads,
            nr_bins=26,
            nr_iters=epochs,
            quiet=True,
            eta=0.1,
            copy_data=False,
            lambda_p1=0.0,
            lambda_q1=0.0,
            lambda_p2=l2,
            lambda_q2=l2,
        )
        start = time.perf_counter()
        model.fit(table)
        return model, time.perf_counter() - start

    def factors_of(self, model):
        """Return (mean, factors of users, factors of items).

        `MF.predict` of the binding is not used: it gives other numbers than the factors, worse than
        the mean rating.
        """
        return model.model.b, model.p_factors(), model.q_factors()


def predict_libmf(peer, model, users, items):
    """Return the predictions of a peer's model; rows without ratings are NaN and get the mean."""
    mean, user_factors, item_factors = peer.factors_of(model)
    predicted = np.empty(len(users), np.float32)
    for start in range(0, len(users), CHUNK):
        part = slice(start, start + CHUNK)
        predicted[part] = np.einsum(
            "nk,nk->n", user_factors[users[part]], item_factors[items[part]]
        )
    return np.where(np.isnan(predicted), mean, predicted)


def peers_of(library):
    """Return the peers that are there, the strongest first."""
    found = []
    if library is not None:
        found.append(NewestLibmf(libmf_source.load(library)))
    if import_libmf() is not None:
        found.append(PackagedLibmf())
    return found


def fit_funksvd(train, epochs, factors, threads, l2, validation=None, callbacks=None):
    """Return a trained FunkSVD model."""
    from funksvd import FunkSVD

    users, items, ratings = train
    model = FunkSVD(n_factors=factors, n_epochs=epochs, l2=l2, n_jobs=threads, random_state=0)
    if validation is not None:
        validation = (validation[:2], validation[2])
    return model.fit(
        (users, items), ratings, validation_data=validation, callbacks=callbacks, verbose=0
    )


def reach_target(target):
    """Return a callback that notes the seconds from now until val_rmse is at most `target`.

    It ends training once val_rmse has not improved for three epochs.
    """
    from funksvd.callbacks import Callback

    class Target(Callback):
        start = time.perf_counter()
        seconds = np.nan
        best = np.inf
        best_epoch = -1

        def on_epoch_end(self, epoch, logs=None):
            if target is not None and logs["val_rmse"] <= target and np.isnan(self.seconds):
                self.seconds = time.perf_counter() - self.start
            if logs["val_rmse"] < self.best:
                self.best = logs["val_rmse"]
                self.best_epoch = epoch
            elif epoch >= self.best_epoch + 3:
                self.model.stop_training = True

    return Target()


# ------------------------------------------------------------- for processes that measure memory


def load_arrays(name, cache, *settings):
    """Return the arguments of `run_funksvd`."""
    return shaped(name, cache), *settings


def run_funksvd(train, factors, threads, l2):
    """Fit two epochs from three arrays."""
    fit_funksvd(train, 2, factors, threads, l2)


def load_nodes(name, cache, library, *settings):
    """Return the arguments of `run_libmf` for LIBMF's newest source."""
    peer = NewestLibmf(libmf_source.load(library))
    return peer, peer.prepare(*shaped(name, cache)), *settings


def load_triples(name, cache, library, *settings):
    """Return the arguments of `run_libmf` for the package."""
    import_libmf()
    peer = PackagedLibmf()
    return peer, peer.prepare(*shaped(name, cache)), *settings


def run_libmf(peer, table, factors, threads, l2):
    """Fit two epochs from a peer's own form of the ratings."""
    peer.fit(table, 2, factors, threads, l2)


# ------------------------------------------------------------------------------------- the table


def epochs_in_turn(fits, repeats):
    """Time the models in turn, so that a slow minute of the machine hits all of them.

    Parameters
    ----------
    fits : dict
        For each model a function that makes a fit of some epochs and returns its seconds.

    Returns
    -------
    seconds : dict
        For each model the median seconds of an epoch, and before the first epoch.
    ratios : dict
        For each model the median ratio of its epoch to that of the first model.
    """
    turns = {model: [] for model in fits}
    for _ in range(repeats):
        for model, fit in fits.items():
            short = fit(SHORT_FIT)
            long = fit(LONG_FIT)
            epoch = (long - short) / (LONG_FIT - SHORT_FIT)
            turns[model].append((epoch, max(0.0, short - SHORT_FIT * epoch)))
    seconds = {}
    ratios = {}
    first = np.array(next(iter(turns.values())))[:, 0]
    for model, rows in turns.items():
        table = np.array(rows)
        found = table[:, 0] / first
        seconds[model] = np.median(table, axis=0)
        ratios[model] = float(np.median(found))
        if len(ratios) > 1:
            limits = f"between {found.min():.1f} and {found.max():.1f}"
            print(f"{model}'s ratio of an epoch lay {limits} in {repeats} turns")
    return seconds, ratios


def check_libmf(peer, train, validation, floor, settings):
    """Return a peer's best validation RMSE and the seconds of that fit."""
    table = peer.prepare(*train)
    trace = []
    for epochs in LIBMF_EPOCHS:
        model, seconds = peer.fit(table, epochs, *settings)
        error = rmse(predict_libmf(peer, model, *validation[:2]), validation[2])
        trace.append((error, seconds, epochs))
    best, to_best, epochs = min(trace)
    message = f"{peer.name}: validation RMSE {best:.4f} is not below {floor:.4f}, that of biases"
    check(best < floor, message)
    print(f"{peer.name}: best of {LIBMF_EPOCHS} epochs: {best:.4f} after {epochs}", flush=True)
    return best, to_best


def check_funksvd(train, validation, floor, target, settings):
    """Return FunkSVD's best validation RMSE and the seconds until it is at most `target`.

    `target` is the peer's best validation RMSE, or None.
    """
    watch = reach_target(target)
    fit_funksvd(train, FUNKSVD_EPOCHS, *settings, validation, watch)
    best = watch.best
    message = f"FunkSVD's validation RMSE {best:.4f} is not below {floor:.4f}, that of biases"
    check(best < floor, message)
    print(f"FunkSVD's best: {best:.4f} after {watch.best_epoch + 1} epochs")
    if target is not None and np.isnan(watch.seconds):
        print(f"FunkSVD did not reach {target:.4f} ")
    return best, watch.seconds


def bench_surprise(train, validation, factors, l2):
    """Return the seconds of an epoch of Surprise, and of its start-up.

    The start-up builds its trainset from raw ids.
    """
    surprise = import_surprise()
    columns = [column.tolist() for column in train]
    rows = [(*row, None) for row in zip(*columns, strict=True)]
    start = time.perf_counter()
    dataset = surprise.dataset.Dataset(surprise.Reader(rating_scale=(1, 5)))
    trainset = dataset.construct_trainset(rows)
    setup = time.perf_counter() - start
    seconds = []
    for _ in range(2):
        model = surprise.SVD(n_factors=factors, n_epochs=1, reg_all=l2, random_state=0)
        start = time.perf_counter()
        model.fit(trainset)
        seconds.append(time.perf_counter() - start)
    some = slice(20_000)  # its predict is a loop in Python
    users, items, ratings = (column[some].tolist() for column in validation)
    pairs = zip(users, items, strict=True)
    error = rmse([model.predict(user, item).est for user, item in pairs], ratings)
    spread = float(np.std(ratings))  # one epoch need not beat converged biases
    message = f"Surprise's validation RMSE {error:.4f} is not below {spread:.4f}, that of the mean"
    check(error < spread, message)
    print(f"Surprise's validation RMSE after its one epoch: {error:.4f}")
    return min(seconds), setup


def bench_shape(name, cache, factors, library, options):
    """Check and time every model on one shape, and print its table."""
    data = shaped(name, cache)
    withheld = held_out(len(data[0]))
    train = tuple(column[~withheld] for column in data)
    validation = tuple(column[withheld] for column in data)
    floor = biases_rmse(train, validation)
    settings = factors, options.threads, options.l2
    in_words = "k = {}, {} threads, l2 = {}".format(*settings)
    print(f"## {name}: {len(data[0]):,} ratings, {in_words}")
    print(f"validation RMSE of biases alone: {floor:.4f}", flush=True)

    def measure(prepare, run, *more):
        if options.no_memory:
            return np.nan
        return peak_memory("bench_peers", prepare, run, name, cache, *more, *settings)

    def seconds_of_fit(epochs):
        start = time.perf_counter()
        fit_funksvd(data, epochs, *settings)
        return time.perf_counter() - start

    def seconds_of_peer(peer):
        table = peer.prepare(*data)
        return lambda epochs: peer.fit(table, epochs, *settings)[1]

    fits = {"FunkSVD": seconds_of_fit}
    errors = {}
    memory = {}
    target = None
    for peer in peers_of(library):
        errors[peer.name] = check_libmf(peer, train, validation, floor, settings)
        if target is None:
            target = errors[peer.name][0]
        load = "load_nodes" if isinstance(peer, NewestLibmf) else "load_triples"
        memory[peer.name] = measure(load, "run_libmf", library)
        fits[peer.name] = seconds_of_peer(peer)
    errors["FunkSVD"] = check_funksvd(train, validation, floor, target, settings)
    memory["FunkSVD"] = measure("load_arrays", "run_funksvd")
    seconds, ratios = epochs_in_turn(fits, options.repeats or REPEATS[name])
    rows = []
    for model in fits:
        rows.append((model, *seconds[model], ratios[model], *errors[model], memory[model]))
    if import_surprise() is not None and name == "ml-1m":
        epoch, setup = bench_surprise(train, validation, factors, options.l2)
        epoch *= len(data[0]) / len(train[0])
        unknown = (np.nan, np.nan, np.nan)
        rows.append(("Surprise, one thread", epoch, setup, epoch / rows[0][1], *unknown))
    print_rows(rows, f"{name}, k = {factors}")


def print_rows(rows, name):
    """Print the table of one shape, whose name is `name`; the first row is that of FunkSVD."""
    own_to_target = rows[0][5]
    cells = []
    for model, epoch, setup, ratio, best, to_target, peak in rows:
        error = "-" if np.isnan(best) else f"{best:.4f}"
        own_ratio = to_target / own_to_target
        cells.append([model, epoch, ratio, setup, error, to_target, own_ratio, peak / 1e6])
    print()
    print_table(HEADER, cells, name)


def main():
    """Print one table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["ml-1m", "ml-20m"])
    parser.add_argument("--factors", type=int, nargs="+", default=[32])
    parser.add_argument(
        "--libmf-source",
        metavar="DIR",
        help="folder of LIBMF's source, to compile and compare with",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--l2", type=float, default=0.05, help="the same for all models (default 0.05)"
    )
    parser.add_argument(
        "--repeats", type=int, help=f"turns in which every model is timed (default {REPEATS})"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep the generated ratings in this folder")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    options = parser.parse_args()
    difference = f"(fit of {LONG_FIT} epochs - fit of {SHORT_FIT}) / {LONG_FIT - SHORT_FIT}"
    measured = f"FunkSVD and LIBMF in turn: {difference}, medians over the turns"
    print_header("libmf", "scikit-surprise", measured=measured)
    if options.libmf_source is None:
        print("--libmf-source DIR adds LIBMF's newest source, the strongest peer.")
    print(NOTE_LIBMF if import_libmf() else INSTALL_LIBMF)
    if "ml-1m" in options.shapes and not import_surprise():
        print(INSTALL_SURPRISE)
    print("The ratios are the model's seconds over FunkSVD's.\n", flush=True)
    with cache_folder(options.cache) as cache, tempfile.TemporaryDirectory() as folder:
        library = None
        if options.libmf_source is not None:
            library = libmf_source.build(options.libmf_source, folder)
        for name in options.shapes:
            for factors in options.factors:
                bench_shape(name, cache, factors, library, options)


if __name__ == "__main__":
    main()
