"""Checkpoints: training goes on from them to the same bytes, and a kill at any moment leaves a whole one."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import funksvd
from funksvd import (
    Callback,
    CSVLogger,
    EarlyStopping,
    FunkSVD,
    LambdaCallback,
    ModelCheckpoint,
    Ratings,
    ReduceLROnPlateau,
    files,
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


def some(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    users, items = rng.integers(0, 80, n), rng.integers(0, 50, n)
    return (users, items), 3.5 + rng.normal(0, 0.4, 80)[users] + rng.normal(0, 0.4, 50)[
        items
    ] + rng.normal(0, 0.6, n)


def watched(folder):
    """Callbacks that decide something: the rate falls, and the best weights are not the last."""
    return [
        ModelCheckpoint(folder / "{epoch}.npz"),
        ReduceLROnPlateau("val_loss", 0.3, patience=1, min_delta=1e-2),
        EarlyStopping(patience=99, start_from_epoch=1),
        CSVLogger(folder / "log.csv", append=True),
    ]


def logged(path):
    with open(path, newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


def content(model, folder):
    model.save(folder / "model.npz")
    return (folder / "model.npz").read_bytes()


@pytest.mark.parametrize("params", WAYS, ids=str)
def test_resumed_training_ends_with_the_same_bytes(params, tmp_path):
    X, y = some()
    weights = np.random.default_rng(1).integers(1, 4, len(y)).astype(float)
    settings = {"sample_weight": weights, "validation_split": 0.2}

    def model():
        return FunkSVD(5, N_EPOCHS, random_state=0, **params)

    whole = model().fit(X, y, callbacks=watched(tmp_path), **settings)
    assert params == {"solver": "gibbs"} or len(set(whole.history_["learning_rate"][1:])) > 1
    wanted, log = content(whole, tmp_path), logged(tmp_path / "log.csv")
    n_epochs = whole.n_epochs_
    for epoch in (1, 3, n_epochs - 1, n_epochs):
        resumed = model().fit(
            X, y, callbacks=watched(tmp_path), resume=tmp_path / f"{epoch}.npz", **settings
        )
        assert content(resumed, tmp_path) == wanted
        assert {k: len(v) for k, v in resumed.history_.items()} == dict.fromkeys(
            whole.history_, n_epochs
        )
        assert logged(tmp_path / "log.csv") == log


def test_threads_verbosity_and_the_order_of_rows_may_differ(tmp_path):
    X, y = some(300_000)  # enough for threads
    order = np.random.default_rng(1).permutation(len(y))
    whole = FunkSVD(5, 4, random_state=0, n_jobs=1).fit(
        X, y, callbacks=ModelCheckpoint(tmp_path / "{epoch}.npz")
    )
    other = FunkSVD(5, 4, random_state=0, n_jobs=3)
    other.fit(
        (X[0][order], X[1][order]),
        y[order],
        callbacks=ModelCheckpoint(tmp_path / "b.npz"),
        resume=str(tmp_path / "2.npz"),
    )
    assert content(other, tmp_path) == content(whole, tmp_path)


def test_more_epochs_than_were_planned(tmp_path):
    """The checkpoint knows a seed that nobody chose."""
    X, y = some()
    checkpoint = ModelCheckpoint(tmp_path / "m.npz")
    short = FunkSVD(5, 3).fit(X, y, callbacks=checkpoint)
    longer = FunkSVD(5, 7).fit(X, y, callbacks=checkpoint, resume=tmp_path / "m.npz")
    assert longer.history_["loss"][:3] == short.history_["loss"]
    again = FunkSVD(5, 9).fit(X, y, callbacks=checkpoint, resume=tmp_path / "m.npz")
    assert again.history_["loss"][:7] == longer.history_["loss"]
    assert len(again.history_["loss"]) == again.n_epochs_ == 9


def test_after_ctrl_c_or_an_error_training_goes_on(tmp_path):
    X, y = some()
    whole = FunkSVD(5, 6, random_state=0).fit(X, y, callbacks=ModelCheckpoint(tmp_path / "w.npz"))
    for error in (KeyboardInterrupt, RuntimeError):

        def fail(epoch, logs, error=error):
            if epoch == 4:
                raise error

        keep = ModelCheckpoint(tmp_path / "m.npz")
        model = FunkSVD(5, 6, random_state=0)
        with (
            pytest.raises(RuntimeError)
            if error is RuntimeError
            else pytest.warns(UserWarning, match="interrupted")
        ):
            model.fit(X, y, callbacks=[keep, LambdaCallback(on_epoch_end=fail)])
        assert model.n_epochs_ == 5
        assert (
            load(tmp_path / "m.npz").n_epochs_ == 4
        )  # written when all callbacks are done, and one was not
        model.fit(X, y, callbacks=keep, resume=tmp_path / "m.npz")
        assert content(model, tmp_path) == content(whole, tmp_path)


def test_a_training_that_was_stopped_stays_so(tmp_path):
    X, y = some()

    def fit(resume=None):
        callbacks = [EarlyStopping("val_loss", patience=2), ModelCheckpoint(tmp_path / "m.npz")]
        model = FunkSVD(20, 60, l2=0, l2_bias=0, random_state=0)
        return model.fit(X, y, validation_split=0.2, callbacks=callbacks, resume=resume)

    whole = fit()
    assert whole.n_epochs_ < 60
    assert content(fit(tmp_path / "m.npz"), tmp_path) == content(whole, tmp_path)
    last = load(
        tmp_path / "m.npz"
    )  # not the best epoch: that one stands beside it, for the end of the training
    assert not (last.item_factors_ == whole.item_factors_).all()


def test_a_callback_of_ones_own_keeps_its_state(tmp_path):
    class Mine(Callback):
        def on_train_begin(self, logs=None):
            self.seen, self.total, self.first = [], np.zeros(3), None

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append({"epoch": epoch, "loss": logs["loss"]})
            self.total += logs["loss"]
            if self.first is None:
                self.first = self.model.get_weights()

        def get_state(self):
            return (
                {"seen": self.seen, "total": self.total, "first": self.first}
                if hasattr(self, "seen")
                else {}
            )

        def set_state(self, state):
            self.__dict__.update(state)

    X, y = some()
    for name in ("{epoch}.npz", "{epoch}.safetensors"):
        whole, later = Mine(), Mine()
        FunkSVD(5, 4, random_state=0).fit(X, y, callbacks=[ModelCheckpoint(tmp_path / name), whole])
        FunkSVD(5, 4, random_state=0).fit(
            X,
            y,
            callbacks=[ModelCheckpoint(tmp_path / f"b-{name}"), later],
            resume=tmp_path / name.format(epoch=2),
        )
        assert later.seen == whole.seen
        assert (later.total == whole.total).all()
        assert (later.first.user_factors == whole.first.user_factors).all()
        assert later.first.global_mean == whole.first.global_mean


def test_callbacks_know_how_many_epochs_there_are(tmp_path, capsys):
    X, y = some()

    def seen(resume=None, **params):
        callback = Callback()
        FunkSVD(5, 4, random_state=0, **params).fit(
            X,
            y,
            callbacks=[ModelCheckpoint(tmp_path / "{epoch}.npz"), callback],
            resume=resume,
            verbose=2,
        )
        return callback.params, [line.split()[1] for line in capsys.readouterr().out.splitlines()]

    assert seen() == ({"epochs": 4, "initial_epoch": 0}, ["1/4", "2/4", "3/4", "4/4"])
    assert seen(tmp_path / "3.npz") == ({"epochs": 4, "initial_epoch": 3}, ["4/4"])
    assert seen(training="featurewise")[0] == {"epochs": 5, "initial_epoch": 0}


def test_each_monitor_waits_on_where_it_was(tmp_path):
    """Resumed from every epoch: the same rates, and the same files written by checkpoints that do not always write."""
    X, y = some()

    def fit(folder, resume=None):
        folder.mkdir()
        callbacks = [
            ModelCheckpoint(folder / "state-{epoch}.npz"),
            ModelCheckpoint(folder / "best-{epoch}.npz", save_best_only=True),
            ReduceLROnPlateau(factor=0.9, patience=2, cooldown=2),
        ]
        model = FunkSVD(20, 14, l2=0, l2_bias=0, random_state=0)
        model.fit(X, y, validation_split=0.2, callbacks=callbacks, resume=resume)
        return model.history_["learning_rate"], {
            path.name: load(path).history_["loss"] for path in folder.iterdir()
        }

    rates, files_written = fit(tmp_path / "whole")
    assert len(set(np.round(np.diff(np.log(rates)), 6))) == 2  # lowered beside the schedule
    best = [int(name[5:-4]) for name in files_written if name.startswith("best")]
    assert max(best) < 12
    for epoch in range(1, 14):
        again, more = fit(tmp_path / f"from-{epoch}", tmp_path / "whole" / f"state-{epoch}.npz")
        assert again == rates
        assert more == {name: loss for name, loss in files_written.items() if len(loss) > epoch}


def test_a_state_that_a_file_cannot_keep_is_refused(tmp_path):
    class Mine(Callback):
        def get_state(self):
            return {"file": print}

    with pytest.raises(
        TypeError,
        match="a file cannot keep a builtin_function_or_method, got <built-in function print>",
    ):
        FunkSVD(5, 4).fit(*some(), callbacks=[ModelCheckpoint(tmp_path / "m.npz"), Mine()])
    assert os.listdir(tmp_path) == []


def test_the_order_of_rows_counts_where_batches_are_as_given(tmp_path):
    X, y = some()
    order = np.random.default_rng(1).permutation(len(y))
    other = (X[0][order], X[1][order]), y[order]
    for shuffle in (True, False):
        path = tmp_path / f"{shuffle}-3.npz"

        def fit(X, y, path=tmp_path / f"{shuffle}-{{epoch}}.npz", shuffle=shuffle, **more):
            model = FunkSVD(5, 4, batch_size=500, shuffle=shuffle, random_state=0)
            return model.fit(X, y, callbacks=ModelCheckpoint(path), **more)

        whole = fit(X, y)
        if shuffle:
            assert content(fit(*other, resume=path), tmp_path) == content(whole, tmp_path)
        else:
            with pytest.raises(
                ValueError, match="the training ratings are others: their content differs"
            ):
                fit(*other, resume=path)


# ---- what a checkpoint is ----


def test_a_checkpoint_is_a_model_file(tmp_path):
    X, y = some()
    model = FunkSVD(5, 3, random_state=0)
    model.fit(
        X,
        y,
        callbacks=[
            ModelCheckpoint(tmp_path / "whole.npz"),
            ModelCheckpoint(tmp_path / "weights.npz", save_weights_only=True),
        ],
    )
    for name in ("whole.npz", "weights.npz"):
        for mmap in (False, True):
            assert (load(tmp_path / name, mmap=mmap).predict(X) == model.predict(X)).all()
            assert load(tmp_path / name, mmap=mmap).n_ratings_ == model.n_ratings_ == len(y)
    assert (tmp_path / "weights.npz").read_bytes() == content(model, tmp_path)
    with pytest.raises(ValueError, match="there is a checkpoint during fit only"):
        model.save_checkpoint(tmp_path / "later.npz")


def test_it_is_plain_arrays(tmp_path):
    X, y = some()
    FunkSVD(5, 2, random_state=0).fit(X, y, callbacks=ModelCheckpoint(tmp_path / "m.npz"))
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith("state.")]
        about = json.loads(arrays["meta"].tobytes())["training"]
        assert names
        assert all(np.isfinite(arrays[name]).all() for name in names)
    assert (about["version"], about["seed"]) == (funksvd.__version__, 0)


# ---- what is refused, before any epoch ----


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("resume") / "m.npz"
    X, y = some()
    FunkSVD(5, 4, random_state=0, l2=0.1, l1=(0, 0)).fit(
        X, y, validation_split=0.2, callbacks=ModelCheckpoint(path)
    )
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"l2": 0.2}, "l2 is 0.1 there, 0.2 here"),
        ({"l1": (0, 0.1)}, r"l1 is \[0, 0\] there, \[0, 0.1\] here"),
        ({"n_factors": 6}, "n_factors is 5 there, 6 here"),
        ({"random_state": 1}, "random_state is 0 there, 1 here"),
        ({"random_state": None}, "random_state is 0 there, null here"),
        ({"dtype": "float64"}, 'dtype is "float32" there, "float64" here'),
        (
            {"learning_rate_schedule": lambda epoch: 0.1},
            'learning_rate_schedule is "exponential" there, a function here',
        ),
        ({"n_epochs": 3}, "it has 4 epochs behind it, more than n_epochs=3"),
        ({"y": some(seed=1)[1]}, "the training ratings are others: their content differs"),
        (
            {"X": (some()[0][0] + 1, some()[0][1])},
            "the training ratings are others: their users' ids differs",
        ),
        ({"X": (some()[0][0].astype(str), some()[0][1])}, "the training ratings are others"),
        (
            {"X": (some()[0][0][:-5], some()[0][1][:-5]), "y": some()[1][:-5]},
            r"training ratings are others: their number differs \(2400 there, 2396 here\)",
        ),
        (
            {"sample_weight": np.full(3000, 2.0)},
            "the training ratings are others: their content differs",
        ),
        ({"validation_split": 0.0}, "it was trained with validation ratings"),
        ({"validation_split": 0.3}, r"number differs \(2400 there, 2100 here\)"),
        ({"callbacks": []}, "callbacks that have a state are ModelCheckpoint there, none here"),
        (
            {"callbacks": [ModelCheckpoint("m.npz"), EarlyStopping()]},
            "callbacks that have a state are ModelCheckpoint there, ModelCheckpoint, EarlyStopping here",
        ),
    ],
)
def test_what_differs_is_named(checkpoint, change, said, tmp_path):
    X, y = some()
    data = {
        "X": X,
        "y": y,
        "validation_split": 0.2,
        "callbacks": ModelCheckpoint(tmp_path / "n.npz"),
    }
    data |= {key: value for key, value in change.items() if key in (*data, "sample_weight")}
    params = {"n_factors": 5, "n_epochs": 4, "random_state": 0, "l2": 0.1, "l1": (0, 0)}
    params |= {key: value for key, value in change.items() if key not in data}
    model = FunkSVD(**params)
    with pytest.raises(ValueError, match=rf"cannot be resumed: .*{said}"):
        model.fit(**data, resume=checkpoint)
    assert not hasattr(model, "n_epochs_")
    FunkSVD(5, 4, random_state=0, l2=0.1, l1=[0, 0]).fit(
        X, y, validation_split=0.2, callbacks=ModelCheckpoint(tmp_path / "n.npz"), resume=checkpoint
    )  # the same in every respect


def test_pairs_the_other_way_round_are_other_ratings():
    def prints(users, items):
        (more_users, more_items), y = some()
        users, items = np.append(users, more_users), np.append(items, more_items)
        ratings = Ratings.from_arrays(users, items, np.append([3.0, 3.0], y))
        return ratings.fingerprint(False), ratings.fingerprint(True)

    here, swapped, others = prints([1, 2], [2, 1]), prints([2, 1], [1, 2]), prints([1, 1], [2, 2])
    assert here[0] == swapped[0]
    assert here[1] != swapped[1]
    assert here[0] != others[0]


def test_a_schedule_that_ends_with_the_epochs_needs_as_many(tmp_path):
    X, y = some()
    FunkSVD(5, 4, random_state=0, learning_rate_schedule="cosine").fit(
        X, y, callbacks=ModelCheckpoint(tmp_path / "m.npz")
    )
    with pytest.raises(ValueError, match="cannot be resumed: n_epochs is 4 there, 8 here"):
        FunkSVD(5, 8, random_state=0, learning_rate_schedule="cosine").fit(
            X, y, callbacks=ModelCheckpoint(tmp_path / "m.npz"), resume=tmp_path / "m.npz"
        )


def test_another_version_is_refused_and_other_kernels_are_told(checkpoint, tmp_path, monkeypatch):
    X, y = some()
    data = {"X": X, "y": y, "validation_split": 0.2, "resume": checkpoint}
    model = FunkSVD(5, 4, random_state=0, l2=0.1, l1=(0, 0))
    monkeypatch.setattr("funksvd.training.checkpoints.LEVEL", "v9")
    with pytest.warns(
        UserWarning, match=r"written by the kernels '\w+', these are 'v9': the last bits may differ"
    ):
        model.fit(**data, callbacks=ModelCheckpoint(tmp_path / "n.npz"))
    monkeypatch.setattr(funksvd, "__version__", "9.9")
    with pytest.raises(ValueError, match=r"it was written by funksvd 0\.[\d.]+, this is 9\.9"):
        model.fit(**data, callbacks=ModelCheckpoint(tmp_path / "n.npz"))


def test_a_file_that_is_no_checkpoint(checkpoint, tmp_path):
    X, y = some()
    model = FunkSVD(5, 4, random_state=0)
    with pytest.raises(FileNotFoundError):
        model.fit(X, y, resume=tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("epoch 3")
    with pytest.raises(ValueError, match=r"text\.npz is not a whole funksvd model"):
        model.fit(X, y, resume=tmp_path / "text.npz")
    model.fit(X, y).save(tmp_path / "model.npz")
    with pytest.raises(
        ValueError, match=r"model\.npz is a model without the state of its training"
    ):
        model.fit(X, y, resume=tmp_path / "model.npz")
    assert model.n_epochs_ == 4  # still the fitted one
    whole = checkpoint.read_bytes()
    for size in (len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.npz is not a whole funksvd model"):
            model.fit(X, y, resume=tmp_path / "cut.npz")


# ---- killed ----

TRAIN = """
import os, signal, sys
import numpy as np
from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint
from funksvd.files import model_file as files
sys.path.insert(0, os.path.dirname({test!r}))
from test_resume import some
path, resume = {path!r}, {resume!r}
X, y = some()
{more}
FunkSVD(5, {n_epochs}, random_state=0, learning_rate_decay=0.001).fit(
    X, y, validation_split=0.2, callbacks=[ModelCheckpoint(path), EarlyStopping(patience=9999)], resume=resume)
"""
HALF = """
whole = files.write_npz
def half(file, text, arrays):
    if '"n_epochs": 4,' in text and '"training"' in text:
        file.write(b"PK and half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, text, arrays)
files.write_npz = half
"""


def train(path, n_epochs, resume=None, more=""):
    code = TRAIN.format(
        test=__file__, path=str(path), resume=resume and str(resume), n_epochs=n_epochs, more=more
    )
    return subprocess.Popen([sys.executable, "-c", code])


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX's")


@needs_kill
def test_killed_in_the_middle_of_a_checkpoint_the_one_before_is_whole(tmp_path):
    path = tmp_path / "m.npz"
    assert train(path, 6, more=HALF).wait(60) == -signal.SIGKILL
    assert load(path).n_epochs_ == 3
    assert any(name.endswith(".tmp") for name in os.listdir(tmp_path))  # the half
    assert train(path, 6, resume=path).wait(60) == 0
    whole = tmp_path / "whole.npz"
    assert train(whole, 6).wait(60) == 0
    assert (
        files.opened(path, FunkSVD)[1]["callbacks"] == files.opened(whole, FunkSVD)[1]["callbacks"]
    )
    assert content(load(path), tmp_path) == content(load(whole), tmp_path)


@needs_kill
def test_killed_at_any_moment_training_goes_on_to_the_same_bytes(tmp_path):
    path, rng, n_epochs = tmp_path / "m.npz", np.random.default_rng(0), 1000
    killed = 0
    for _ in range(4):
        process = train(path, n_epochs, resume=path if path.exists() else None)
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        killed += process.wait(60) == -signal.SIGKILL
        assert 0 < load(path).n_epochs_ <= n_epochs
    assert killed
    X, y = some()
    callbacks = [ModelCheckpoint(path), EarlyStopping(patience=9999)]
    model = FunkSVD(5, n_epochs, random_state=0, learning_rate_decay=0.001)
    model.fit(X, y, validation_split=0.2, callbacks=callbacks, resume=path)
    whole = FunkSVD(5, n_epochs, random_state=0, learning_rate_decay=0.001)
    whole.fit(X, y, validation_split=0.2, callbacks=EarlyStopping(patience=9999))
    assert content(model, tmp_path) == content(whole, tmp_path)
