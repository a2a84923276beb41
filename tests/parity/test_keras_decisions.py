"""Callbacks decide as those of Keras 3: as recorded, and as Keras itself where it is installed."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_decisions import ASKED, Model, decisions

from funksvd import (
    CSVLogger,
    EarlyStopping,
    FunkSVD,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    callbacks,
)

RECORDED = json.loads((Path(__file__).parents[1] / "keras_decisions.json").read_text())
RATINGS = ([1, 2, 3, 1, 2, 3, 4], [1, 1, 1, 2, 2, 3, 3]), [4.0, 3, 2, 5, 1, 3, 2]


@pytest.mark.parametrize("name", ASKED)
def test_decisions_are_those_recorded_of_keras(name) -> None:
    _, settings = ASKED[name]
    for title, found in decisions(callbacks, name).items():
        recorded = RECORDED[f"{name}: {title}"]
        for ours, theirs, setting in zip(found, recorded, settings, strict=True):
            assert ours == theirs, (title, setting)


@pytest.mark.parametrize("name", ASKED)
def test_decisions_are_those_of_keras(name) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    assert decisions(callbacks, name) == decisions(keras.callbacks, name)


def test_the_record_tells_settings_apart() -> None:
    """Two settings that differ in one of these arguments alone differ in their decisions."""
    told = {
        "EarlyStopping": {"min_delta", "patience", "baseline", "start_from_epoch"},
        "ReduceLROnPlateau": {"patience", "cooldown"},
        "ModelCheckpoint": {"initial_value_threshold", "mode"},
    }
    for name, arguments in told.items():
        assert told_apart(name) == arguments


def told_apart(name: str) -> set[str]:
    """Return the arguments of a callback that alone change a recorded decision."""
    _, settings = ASKED[name]
    series = [RECORDED[key] for key in RECORDED if key.startswith(name)]
    decided = list(zip(*series, strict=True))
    found = set()
    for i, j in itertools.combinations(range(len(settings)), 2):
        changed = changed_arguments(settings[i], settings[j])
        if len(changed) == 1 and decided[i] != decided[j]:
            found |= changed
    return found


def changed_arguments(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the names of the arguments in which two settings differ."""
    names = one.keys() | other.keys()
    return {name for name in names if one.get(name) != other.get(name)}


# ---- differences from Keras, and what Keras has not ----


def test_a_lowered_rate_stays_lowered_under_a_schedule() -> None:
    schedule = {"learning_rate_schedule": "inverse_time", "learning_rate_decay": 0.5}
    model = FunkSVD(2, 5, learning_rate=0.1, random_state=0, **schedule)
    # It lowers the rate after every epoch but the first.
    lower = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10)
    model.fit(*RATINGS, callbacks=lower)
    wanted = 0.1 / (1 + 0.5 * np.arange(5)) * 0.5 ** np.array([0, 0, 1, 2, 3])
    np.testing.assert_allclose(model.history_["learning_rate"], wanted)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"factor": 1}, ValueError, "factor=1; it must be above 0 and below 1"),
        ({"factor": 0}, ValueError, "factor=0; it must be above 0 and below 1"),
        ({"patience": -1}, ValueError, "patience=-1; it must be 0 or more"),
        ({"cooldown": 1.5}, TypeError, "cooldown=1.5; it must be an int"),
        ({"min_lr": -1}, ValueError, "min_lr=-1; it must be a finite number, 0 or more"),
        (
            {"mode": "low"},
            ValueError,
            "ReduceLROnPlateau: mode='low'; allowed are 'auto', 'min' and 'max'",
        ),
    ],
)
def test_plateau_refuses(
    arguments,
    error,
    message,
) -> None:
    with pytest.raises(error) as caught:
        ReduceLROnPlateau(**arguments)
    assert str(caught.value) == message


def test_plateau_without_its_monitor_names_those_there_are() -> None:
    with pytest.raises(
        ValueError,
        match=r"monitor='val_loss' is not among the logs; there are loss, rmse, learning_rate",
    ):
        FunkSVD(2, 2).fit(*RATINGS, callbacks=ReduceLROnPlateau())


def test_plateau_says_what_it_did(capsys) -> None:
    Model().run(ReduceLROnPlateau(patience=1, min_lr=0.05, verbose=1), [1, 1, 1, 1])
    assert capsys.readouterr().out == "Epoch 2: learning rate lowered to 0.05\n"  # and stays there
    Model().run(ReduceLROnPlateau(patience=1, verbose=1), [1, 1, 1])
    assert (
        capsys.readouterr().out
        == "Epoch 2: learning rate lowered to 0.01\nEpoch 3: learning rate lowered to 0.001\n"
    )


@pytest.mark.parametrize("freq", [0, 3, 1.5, "batch", None])
def test_numbers_as_save_freq_are_refused(freq) -> None:
    """In Keras such numbers count batches."""
    with pytest.raises(ValueError, match=rf"^save_freq={freq!r}; it must be 'epoch'"):
        ModelCheckpoint("m.npz", save_freq=freq)


def test_csv_holds_the_history(tmp_path) -> None:
    model = FunkSVD(2, 3).fit(
        *RATINGS, validation_split=0.3, callbacks=CSVLogger(tmp_path / "log.csv")
    )
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,learning_rate,loss,rmse,seconds,val_loss,val_rmse"
    columns = np.array([line.split(",") for line in lines[1:]], float).T
    for name, values in zip(lines[0].split(",")[1:], columns[1:], strict=True):
        assert values.tolist() == model.history_[name]
    assert columns[0].tolist() == [0, 1, 2]


def test_csv_is_closed_after_an_error_and_checked_before_the_first_epoch(tmp_path) -> None:
    def fail(epoch: int, logs: dict[str, float]) -> None:
        raise RuntimeError("mine")

    logger = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(RuntimeError, match="mine"):
        FunkSVD(2, 3).fit(*RATINGS, callbacks=[logger, LambdaCallback(on_epoch_end=fail)])
    assert logger._file.closed
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    begun = []
    note = LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))
    with pytest.raises(FileNotFoundError):
        FunkSVD(2, 3).fit(*RATINGS, callbacks=[CSVLogger(tmp_path / "no" / "log.csv"), note])
    assert not begun


def test_a_callback_may_predict_with_the_model_of_the_moment() -> None:
    seen = []

    def look(epoch: int, logs: dict[str, float]) -> None:
        seen.append(squared_error(model))

    model = FunkSVD(2, 6, learning_rate=0.1, l2=0, l2_bias=0)
    model.fit(*RATINGS, callbacks=LambdaCallback(on_epoch_end=look))
    assert (np.diff(seen) < 0).all()
    assert seen[-1] == pytest.approx(squared_error(model))


def squared_error(model: FunkSVD) -> float:
    """Return the mean squared error on RATINGS."""
    pairs, values = RATINGS
    return float(np.mean((model.predict(pairs) - values) ** 2))


def test_a_loss_that_is_not_finite_ends_training() -> None:
    """Keras' TerminateOnNaN ends training too; here it is an error.

    The model is that of the last whole epoch.
    """
    stopping = EarlyStopping("loss", patience=9)

    def spoil(epoch: int, logs: dict[str, float]) -> None:
        if epoch == 3:
            weights = model.get_weights()
            weights.user_factors[0] = np.nan
            model.set_weights(weights)

    model = FunkSVD(2, 9)
    with pytest.raises(
        FloatingPointError, match="diverged in epoch 4: the loss is nan; lower learning_rate"
    ):
        model.fit(*RATINGS, callbacks=[stopping, LambdaCallback(on_epoch_begin=spoil)])
    assert model.n_epochs_ == 3
    assert np.isfinite(model.predict(RATINGS[0])).all()
