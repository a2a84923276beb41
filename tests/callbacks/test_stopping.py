"""EarlyStopping decides as that of Keras does, and restores the best weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_decisions import SERIES
from replays import LOSSES, NAN, FakeModel, keras_callbacks, replay, same

from funksvd.callbacks import EarlyStopping, LambdaCallback

SETTINGS = [
    {"min_delta": min_delta, "patience": patience, "baseline": baseline, "start_from_epoch": start}
    for min_delta in (0, 0.1)
    for patience in (0, 1, 2, 3)
    for baseline in (None, 0.85, 2)
    for start in (0, 2)
]
ARGUMENTS = st.fixed_dictionaries(
    {
        "min_delta": st.sampled_from([0, 1e-9, 0.1, 0.25]),
        "patience": st.integers(0, 4),
        "baseline": st.sampled_from([None, 0.3, 0.5, 0.8, NAN]),
        "start_from_epoch": st.integers(0, 4),
    }
)


# The rules of Keras 3, word for word, where lower is better


@np.errstate(over="ignore")
def keras_less(value, min_delta, reference):
    """Return whether a value is lower than a reference, in single precision."""
    return reference is None or np.float32(value + min_delta) < np.float32(reference)


def keras_early_stopping(losses, min_delta, patience, baseline, start_from_epoch):
    """Return (epochs run, stopped_epoch, best, best_epoch, wait, weights at the end)."""
    best = best_weights = None
    wait = stopped_epoch = best_epoch = 0
    for epoch, current in enumerate(losses):
        if epoch < start_from_epoch:
            continue
        if best_weights is None:
            best_weights = best_epoch = epoch
        wait += 1
        if keras_less(current, min_delta, best):
            best = current
            best_weights = best_epoch = epoch
            if keras_less(current, min_delta, baseline):
                wait = 0
            continue
        if wait >= patience and epoch > 0:
            stopped_epoch = epoch
            break
    return (
        epoch + 1,
        stopped_epoch,
        best,
        best_epoch,
        wait,
        epoch if best_weights is None else best_weights,
    )


def outcome(losses, stopping):
    """Return the tuple of `keras_early_stopping` for a callback."""
    epochs, model = replay(losses, stopping)
    return (
        epochs,
        stopping.stopped_epoch,
        stopping.best,
        stopping.best_epoch,
        stopping.wait,
        model.weights,
    )


@pytest.mark.parametrize("name", SERIES)
def test_early_stopping_decides_as_the_rules(name):
    for setting in SETTINGS:
        expected = keras_early_stopping(SERIES[name], **setting)
        assert same(outcome(SERIES[name], EarlyStopping(**setting)), expected), setting


@given(LOSSES, ARGUMENTS)
@settings(max_examples=300, deadline=None)
def test_early_stopping_decides_as_the_rules_on_any_series(series, setting):
    assert same(outcome(series, EarlyStopping(**setting)), keras_early_stopping(series, **setting))


@given(LOSSES, ARGUMENTS.filter(lambda setting: setting["baseline"] is None))
@settings(max_examples=50, deadline=None)
def test_higher_is_better_mirrors_lower_is_better(series, setting):
    expected = outcome(series, EarlyStopping(**setting))
    found = outcome([-loss for loss in series], EarlyStopping(mode="max", **setting))
    assert same(found[:2] + found[3:], expected[:2] + expected[3:])


# Keras itself


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("name", SERIES)
def test_early_stopping_decides_as_keras(name, restore):
    keras = keras_callbacks()
    for setting in SETTINGS:
        setting = dict(setting, restore_best_weights=restore)
        expected = outcome(SERIES[name], keras.EarlyStopping(**setting))
        assert same(outcome(SERIES[name], EarlyStopping(**setting)), expected), setting


def test_early_stopping_decides_as_keras_on_any_series():
    keras = keras_callbacks()

    @given(LOSSES, ARGUMENTS, st.booleans(), st.sampled_from(["min", "max"]))
    @settings(max_examples=200, deadline=None)
    def check(series, setting, restore, mode):
        setting = dict(setting, restore_best_weights=restore, mode=mode)
        expected = outcome(series, keras.EarlyStopping(**setting))
        assert same(outcome(series, EarlyStopping(**setting)), expected)

    check()


# Differences from Keras, and messages


def test_best_weights_are_restored_and_released_when_stopped():
    callback = EarlyStopping(patience=2)
    epochs, model = replay([3, 2, 4, 4, 1], callback)
    assert callback.stopped_epoch == 3
    assert model.stop_training
    assert (epochs, model.weights) == (4, 1)
    assert callback.best_weights is None


def test_best_weights_are_restored_when_the_epochs_ran_out():
    callback = EarlyStopping(patience=9)
    _, model = replay([3, 2, 4], callback)
    assert (callback.stopped_epoch, model.stop_training, model.weights) == (0, False, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_best_weights_are_restored_after_an_exception(error):
    def fail(epoch, logs):
        if epoch == 2:
            raise error

    model = FakeModel([{"val_loss": loss} for loss in (1, 2, 3)])
    with pytest.raises(error):
        model.fit([EarlyStopping(patience=9), LambdaCallback(on_epoch_begin=fail)])
    assert model.weights == 0


def test_last_weights_stay_without_restoring():
    assert replay([1, 2, 3], EarlyStopping(patience=9, restore_best_weights=False))[1].weights == 2


def test_early_stopping_starts_afresh_in_each_fit():
    callback = EarlyStopping(patience=1)
    replay([0.1, 0.2], callback)
    replay([5, 4, 3], callback)
    assert callback.get_state() == {
        "best": 3,
        "best_epoch": 2,
        "best_weights": None,
        "stopped_epoch": 0,
        "wait": 0,
    }


def test_early_stopping_writes_lines(capsys):
    replay([2, 1, 3], EarlyStopping(verbose=1))
    assert capsys.readouterr().out == (
        "Epoch 3: early stopping\nRestoring model weights from the end of the best epoch: 2.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": -1}, ValueError, "patience=-1; it must be 0 or more"),
        ({"patience": 1.5}, TypeError, "patience=1.5; it must be an int"),
        ({"start_from_epoch": -2}, ValueError, "start_from_epoch=-2; it must be 0 or more"),
        (
            {"mode": "down"},
            ValueError,
            "EarlyStopping: mode='down'; allowed are 'auto', 'min' and 'max'",
        ),
    ],
)
def test_early_stopping_checks_its_arguments(arguments, error, message):
    with pytest.raises(error) as caught:
        EarlyStopping(**arguments)
    assert str(caught.value) == message
