"""Checkpoints: training goes on from them to the same bytes."""

import csv
import json
import os

import numpy as np
import pytest
from conftest import planted_ratings

import funksvd
from funksvd import (
    Callback,
    CSVLogger,
    EarlyStopping,
    FunkSVD,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    load,
)

# Each way to train.
WAYS = [
    {},
    {"dtype": "float64"},
    {"learning_rate_schedule": "cosine"},
    {"learning_rate_schedule": "inverse_time"},
    {"momentum": 0.5},
    *({"solver": solver} for solver in ("adagrad_row", "adagrad", "adam", "adamax")),
    {"training": "featurewise"},
    {"training": "featurewise", "dtype": "float64", "rating_scale": (2, 5)},
    {"solver": "adam", "dtype": "float64", "l1": 0.01, "reg_scale": "row", "non_negative": True},
    {"solver": "gibbs"},
    *({"batch_size": 500, "solver": solver} for solver in ("sgd", "adagrad", "adam", "adamax")),
    {"batch_size": 500, "momentum": 0.5, "shuffle": False, "dtype": "float64", "l1": 0.01},
]
N_EPOCHS = 8


def ratings_of(**settings):
    """Return (X, y) of planted ratings, with X = (users, items)."""
    users, items, values = planted_ratings(**settings)
    return (users, items), values


def logged(path):
    """Return the rows of a log, without the seconds."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def saved_bytes(model, folder):
    """Return the bytes of a model's file."""
    model.save(folder / "model.npz")
    return (folder / "model.npz").read_bytes()


# ---- the same bytes ----


@pytest.mark.parametrize("params", WAYS, ids=str)
def test_resumed_training_ends_with_the_same_bytes(params, tmp_path):
    """The callbacks decide: the rate falls, and the best weights are not the last."""
    X, y = ratings_of()
    sample_weight = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)

    def fit(resume=None):
        callbacks = [
            ModelCheckpoint(tmp_path / "{epoch}.npz"),
            ReduceLROnPlateau("val_loss", 0.3, patience=1, min_delta=1e-2),
            EarlyStopping(patience=99, start_from_epoch=1),
            CSVLogger(tmp_path / "log.csv", append=True),
        ]
        return FunkSVD(5, N_EPOCHS, random_state=0, **params).fit(
            X,
            y,
            sample_weight=sample_weight,
            validation_split=0.2,
            callbacks=callbacks,
            resume=resume,
        )

    whole = fit()
    assert params == {"solver": "gibbs"} or len(set(whole.history_["learning_rate"][1:])) > 1
    expected = saved_bytes(whole, tmp_path)
    log = logged(tmp_path / "log.csv")
    n_epochs = whole.n_epochs_
    for epoch in (1, 3, n_epochs - 1, n_epochs):
        resumed = fit(tmp_path / f"{epoch}.npz")
        assert saved_bytes(resumed, tmp_path) == expected
        assert resumed.history_.keys() == whole.history_.keys()
        assert {len(values) for values in resumed.history_.values()} == {n_epochs}
        assert logged(tmp_path / "log.csv") == log


def test_threads_verbosity_and_the_order_of_rows_may_differ(tmp_path):
    (users, items), y = ratings_of(n=300_000)  # enough for several threads
    order = np.random.default_rng(1).permutation(len(y))
    whole = FunkSVD(5, 4, random_state=0, n_jobs=1)
    whole.fit((users, items), y, callbacks=ModelCheckpoint(tmp_path / "{epoch}.npz"))
    other = FunkSVD(5, 4, random_state=0, n_jobs=3)
    other.fit(
        (users[order], items[order]),
        y[order],
        callbacks=ModelCheckpoint(tmp_path / "other.npz"),
        resume=str(tmp_path / "2.npz"),
    )
    assert saved_bytes(other, tmp_path) == saved_bytes(whole, tmp_path)


def test_the_order_of_rows_counts_where_batches_follow_it(tmp_path):
    (users, items), y = ratings_of()
    order = np.random.default_rng(1).permutation(len(y))

    def fit(shuffle, in_order, resume=None):
        model = FunkSVD(5, 4, batch_size=500, shuffle=shuffle, random_state=0)
        rows = slice(None) if in_order else order
        callback = ModelCheckpoint(tmp_path / f"{shuffle}-{{epoch}}.npz")
        return model.fit((users[rows], items[rows]), y[rows], callbacks=callback, resume=resume)

    whole = fit(shuffle=True, in_order=True)
    resumed = fit(shuffle=True, in_order=False, resume=tmp_path / "True-3.npz")
    assert saved_bytes(resumed, tmp_path) == saved_bytes(whole, tmp_path)
    fit(shuffle=False, in_order=True)
    with pytest.raises(ValueError, match="the training ratings are others: their content differs"):
        fit(shuffle=False, in_order=False, resume=tmp_path / "False-3.npz")


def test_more_epochs_than_were_planned(tmp_path):
    """The checkpoint keeps the seed that was drawn."""
    X, y = ratings_of()
    callback = ModelCheckpoint(tmp_path / "m.npz")
    short = FunkSVD(5, 3).fit(X, y, callbacks=callback)
    longer = FunkSVD(5, 7).fit(X, y, callbacks=callback, resume=tmp_path / "m.npz")
    assert longer.history_["loss"][:3] == short.history_["loss"]
    longest = FunkSVD(5, 9).fit(X, y, callbacks=callback, resume=tmp_path / "m.npz")
    assert longest.history_["loss"][:7] == longer.history_["loss"]
    assert len(longest.history_["loss"]) == longest.n_epochs_ == 9


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_training_goes_on_after_ctrl_c_or_an_error(tmp_path, error):
    """The last checkpoint is of the epoch before: it is written after all other callbacks."""
    X, y = ratings_of()
    path = tmp_path / "m.npz"
    whole = FunkSVD(5, 6, random_state=0)
    whole.fit(X, y, callbacks=ModelCheckpoint(tmp_path / "whole.npz"))

    def fail(epoch, logs):
        if epoch == 4:
            raise error

    model = FunkSVD(5, 6, random_state=0)
    callbacks = [ModelCheckpoint(path), LambdaCallback(on_epoch_end=fail)]
    if error is RuntimeError:
        expected = pytest.raises(RuntimeError)
    else:
        expected = pytest.warns(UserWarning, match="interrupted")
    with expected:
        model.fit(X, y, callbacks=callbacks)
    assert model.n_epochs_ == 5
    assert load(path).n_epochs_ == 4
    model.fit(X, y, callbacks=ModelCheckpoint(path), resume=path)
    assert saved_bytes(model, tmp_path) == saved_bytes(whole, tmp_path)


def test_a_training_that_was_stopped_stays_so(tmp_path):
    X, y = ratings_of()
    path = tmp_path / "m.npz"

    def fit(resume=None):
        callbacks = [EarlyStopping("val_loss", patience=2), ModelCheckpoint(path)]
        model = FunkSVD(20, 60, l2=0, l2_bias=0, random_state=0)
        return model.fit(X, y, validation_split=0.2, callbacks=callbacks, resume=resume)

    whole = fit()
    assert whole.n_epochs_ < 60
    assert saved_bytes(fit(path), tmp_path) == saved_bytes(whole, tmp_path)
    # The file's own model is that of the last epoch; the best epoch stands beside it.
    assert not (load(path).item_factors_ == whole.item_factors_).all()


# ---- callbacks ----


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_callback_of_ones_own_keeps_its_state(tmp_path, suffix):
    class Mine(Callback):
        def on_train_begin(self, logs=None):
            self.seen = []
            self.total = np.zeros(3)
            self.first = None

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append({"epoch": epoch, "loss": logs["loss"]})
            self.total += logs["loss"]
            if self.first is None:
                self.first = self.model.get_weights()

        def get_state(self):
            if not hasattr(self, "seen"):
                return {}
            return {"seen": self.seen, "total": self.total, "first": self.first}

        def set_state(self, state):
            self.__dict__.update(state)

    X, y = ratings_of()

    def fit(name, resume=None):
        mine = Mine()
        callbacks = [ModelCheckpoint(tmp_path / f"{name}.{suffix}"), mine]
        FunkSVD(5, 4, random_state=0).fit(X, y, callbacks=callbacks, resume=resume)
        return mine

    whole = fit("{epoch}")
    resumed = fit("resumed", tmp_path / f"2.{suffix}")
    assert resumed.seen == whole.seen
    assert (resumed.total == whole.total).all()
    assert (resumed.first.user_factors == whole.first.user_factors).all()
    assert resumed.first.global_mean == whole.first.global_mean


def test_callbacks_know_how_many_epochs_there_are(tmp_path, capsys):
    X, y = ratings_of()

    def fit(resume=None, **params):
        """Return the callback's `params` and the epochs that are printed."""
        callback = Callback()
        FunkSVD(5, 4, random_state=0, **params).fit(
            X,
            y,
            callbacks=[ModelCheckpoint(tmp_path / "{epoch}.npz"), callback],
            resume=resume,
            verbose=2,
        )
        lines = capsys.readouterr().out.splitlines()
        return callback.params, [line.split()[1] for line in lines]

    assert fit() == ({"epochs": 4, "initial_epoch": 0}, ["1/4", "2/4", "3/4", "4/4"])
    resumed = fit(tmp_path / "3.npz")
    assert resumed == ({"epochs": 4, "initial_epoch": 3}, ["4/4"])
    assert fit(training="featurewise")[0] == {"epochs": 5, "initial_epoch": 0}


def test_each_monitor_waits_on_from_where_it_was(tmp_path):
    """Training is resumed from every epoch.

    The rates are the same, and so are the files of checkpoints that do not always write.
    """
    X, y = ratings_of()

    def fit(folder, resume=None):
        """Return the rates, and the losses in each file that was written."""
        folder.mkdir()
        callbacks = [
            ModelCheckpoint(folder / "state-{epoch}.npz"),
            ModelCheckpoint(folder / "best-{epoch}.npz", save_best_only=True),
            ReduceLROnPlateau(factor=0.9, patience=2, cooldown=2),
        ]
        model = FunkSVD(20, 14, l2=0, l2_bias=0, random_state=0, learning_rate=0.05)
        model.fit(X, y, validation_split=0.2, callbacks=callbacks, resume=resume)
        losses = {path.name: load(path).history_["loss"] for path in folder.iterdir()}
        return model.history_["learning_rate"], losses

    rates, losses = fit(tmp_path / "whole")
    falls = np.round(np.diff(np.log(rates)), 6)
    assert len(set(falls)) == 2  # by the schedule alone, and by the callback as well
    best = [int(name[len("best-") : -len(".npz")]) for name in losses if name.startswith("best")]
    assert max(best) < 12
    for epoch in range(1, 14):
        resume = tmp_path / "whole" / f"state-{epoch}.npz"
        rates_again, losses_again = fit(tmp_path / f"from-{epoch}", resume)
        assert rates_again == rates
        later = {name: values for name, values in losses.items() if len(values) > epoch}
        assert losses_again == later


def test_a_state_that_a_file_cannot_keep_is_refused(tmp_path):
    class Mine(Callback):
        def get_state(self):
            return {"file": print}

    X, y = ratings_of()
    callbacks = [ModelCheckpoint(tmp_path / "m.npz"), Mine()]
    message = "a file cannot keep a builtin_function_or_method, got <built-in function print>"
    with pytest.raises(TypeError, match=message):
        FunkSVD(5, 4).fit(X, y, callbacks=callbacks)
    assert os.listdir(tmp_path) == []


# ---- the file ----


def test_a_checkpoint_is_a_model_file(tmp_path):
    X, y = ratings_of()
    model = FunkSVD(5, 3, random_state=0)
    callbacks = [
        ModelCheckpoint(tmp_path / "whole.npz"),
        ModelCheckpoint(tmp_path / "weights.npz", save_weights_only=True),
    ]
    model.fit(X, y, callbacks=callbacks)
    for name in ("whole.npz", "weights.npz"):
        for mmap in (False, True):
            loaded = load(tmp_path / name, mmap=mmap)
            assert (loaded.predict(X) == model.predict(X)).all()
            assert loaded.n_ratings_ == model.n_ratings_ == len(y)
    assert (tmp_path / "weights.npz").read_bytes() == saved_bytes(model, tmp_path)
    with pytest.raises(ValueError, match="there is a checkpoint during fit only"):
        model.save_checkpoint(tmp_path / "later.npz")


def test_a_checkpoint_is_plain_arrays(tmp_path):
    X, y = ratings_of()
    FunkSVD(5, 2, random_state=0).fit(X, y, callbacks=ModelCheckpoint(tmp_path / "m.npz"))
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith("state.")]
        about = json.loads(arrays["meta"].tobytes())["training"]
        assert names
        assert all(np.isfinite(arrays[name]).all() for name in names)
    assert about["version"] == funksvd.__version__
    assert about["seed"] == 0
