"""Resuming is refused, before any epoch, where the checkpoint is of another training."""

import numpy as np
import pytest
from conftest import planted_ratings

from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, Ratings

USERS, ITEMS, VALUES = planted_ratings()
X = (USERS, ITEMS)
PARAMS = {"n_factors": 5, "n_epochs": 4, "random_state": 0, "l2": 0.1, "l1": (0, 0)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return the file of a checkpoint after four epochs with PARAMS."""
    path = tmp_path_factory.mktemp("resume") / "m.npz"
    FunkSVD(**PARAMS).fit(X, VALUES, validation_split=0.2, callbacks=ModelCheckpoint(path))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
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
    ],
    ids=str,
)
def test_another_parameter_is_named(checkpoint, change, message):
    model = FunkSVD(**PARAMS | change)
    with pytest.raises(ValueError, match=rf"cannot be resumed: .*{message}"):
        model.fit(
            X,
            VALUES,
            validation_split=0.2,
            callbacks=ModelCheckpoint("m.npz"),
            resume=checkpoint,
        )
    assert not hasattr(model, "n_epochs_")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"y": planted_ratings(seed=1)[2]},
            "the training ratings are others: their content differs",
        ),
        (
            {"X": (USERS + 1, ITEMS)},
            "the training ratings are others: their users' ids differs",
        ),
        ({"X": (USERS.astype(str), ITEMS)}, "the training ratings are others"),
        (
            {"X": (USERS[:-5], ITEMS[:-5]), "y": VALUES[:-5]},
            r"training ratings are others: their number differs \(2400 there, 2396 here\)",
        ),
        (
            {"sample_weight": np.full(3000, 2.0)},
            "the training ratings are others: their content differs",
        ),
        ({"validation_split": 0.0}, "it was trained with validation ratings"),
        ({"validation_split": 0.3}, r"number differs \(2400 there, 2100 here\)"),
        (
            {"callbacks": []},
            "callbacks that have a state are ModelCheckpoint there, none here",
        ),
        (
            {"callbacks": [ModelCheckpoint("m.npz"), EarlyStopping()]},
            "callbacks that have a state are ModelCheckpoint there, ModelCheckpoint, EarlyStopping"
            " here",
        ),
    ],
)
def test_other_ratings_and_callbacks_are_named(checkpoint, change, message):
    arguments = {
        "X": X,
        "y": VALUES,
        "validation_split": 0.2,
        "callbacks": ModelCheckpoint("m.npz"),
    }
    model = FunkSVD(**PARAMS)
    with pytest.raises(ValueError, match=rf"cannot be resumed: .*{message}"):
        model.fit(**arguments | change, resume=checkpoint)
    assert not hasattr(model, "n_epochs_")


def test_a_list_and_a_tuple_are_the_same_parameter(checkpoint):
    callback = ModelCheckpoint("m.npz")
    model = FunkSVD(**PARAMS | {"l1": [0, 0]})
    model.fit(X, VALUES, validation_split=0.2, callbacks=callback, resume=checkpoint)
    assert model.n_epochs_ == 4


def test_pairs_the_other_way_round_are_other_ratings():
    def fingerprints(users, items):
        ratings = Ratings.from_arrays(
            np.append(users, USERS),
            np.append(items, ITEMS),
            np.append([3.0, 3.0], VALUES),
        )
        return ratings.fingerprint(False), ratings.fingerprint(True)

    here = fingerprints([1, 2], [2, 1])
    swapped = fingerprints([2, 1], [1, 2])
    others = fingerprints([1, 1], [2, 2])
    assert here[0] == swapped[0]
    assert here[1] != swapped[1]
    assert here[0] != others[0]


def test_a_schedule_that_ends_with_the_epochs_needs_as_many(tmp_path):
    path = tmp_path / "m.npz"
    model = FunkSVD(5, 4, random_state=0, learning_rate_schedule="cosine")
    model.fit(X, VALUES, callbacks=ModelCheckpoint(path))
    model.set_params(n_epochs=8)
    with pytest.raises(ValueError, match="cannot be resumed: n_epochs is 4 there, 8 here"):
        model.fit(X, VALUES, callbacks=ModelCheckpoint(path), resume=path)


def test_another_version_is_refused_and_other_kernels_give_a_warning(checkpoint, monkeypatch):

    def fit():
        callback = ModelCheckpoint("m.npz")
        FunkSVD(**PARAMS).fit(
            X, VALUES, validation_split=0.2, callbacks=callback, resume=checkpoint
        )

    monkeypatch.setattr("funksvd.training.checkpoints.LEVEL", "v9")
    message = r"written by the kernels '\w+', these are 'v9': the last bits may differ"
    with pytest.warns(UserWarning, match=message):
        fit()
    monkeypatch.setattr("funksvd.training.checkpoints.__version__", "9.9")
    with pytest.raises(ValueError, match=r"it was written by funksvd 0\.[\d.]+, this is 9\.9"):
        fit()


def test_a_file_that_is_no_checkpoint(checkpoint, tmp_path):
    model = FunkSVD(5, 4, random_state=0)
    with pytest.raises(FileNotFoundError):
        model.fit(X, VALUES, resume=tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("epoch 3")
    with pytest.raises(ValueError, match=r"text\.npz is not a whole funksvd model"):
        model.fit(X, VALUES, resume=tmp_path / "text.npz")
    model.fit(X, VALUES).save(tmp_path / "model.npz")
    message = r"model\.npz is a model without the state of its training"
    with pytest.raises(ValueError, match=message):
        model.fit(X, VALUES, resume=tmp_path / "model.npz")
    assert model.n_epochs_ == 4  # the model is still the fitted one
    whole = checkpoint.read_bytes()
    for size in (len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.npz is not a whole funksvd model"):
            model.fit(X, VALUES, resume=tmp_path / "cut.npz")
