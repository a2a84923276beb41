"""Callbacks decide as Keras does, and say before the first epoch what is wrong with them."""

import io
import math
import os
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_decisions import SERIES
from tqdm import tqdm

from funksvd.callbacks import (
    Callback,
    CallbackList,
    EarlyStopping,
    EpochLines,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ProgressBar,
)

NAN = math.nan


class FakeModel:
    """The model's side of the contract: an epoch replays one of `logs`, and the weights are its number."""

    def __init__(self, logs, learning_rate=0.01):
        self.logs = logs
        self.n_epochs = len(logs)
        self.current_learning_rate = learning_rate
        self.weights = None
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path, overwrite=True):
        self.saved.append((os.path.basename(path), self.weights))

    save_checkpoint = save

    def fit(self, callbacks):
        """Run the epochs; return how many ran."""
        self.stop_training = False
        hooks = CallbackList(callbacks, self, self.n_epochs)
        logs = {}
        hooks.on_train_begin(logs)
        try:
            for epoch, logs in enumerate(self.logs):
                hooks.on_epoch_begin(epoch, {})
                self.weights = epoch
                hooks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            hooks.on_train_end(logs)
        return epoch + 1


def replay(losses, callback, key="val_loss"):
    model = FakeModel([{key: loss} for loss in losses])
    return model.fit(callback), model


# ---- the rules of Keras 3, word for word, for lower is better ----


@np.errstate(over="ignore")
def keras_less(value, min_delta, reference):
    return reference is None or np.float32(value + min_delta) < np.float32(reference)


def keras_early_stopping(losses, min_delta, patience, baseline, start_from_epoch):
    """Give (epochs run, stopped_epoch, best, best_epoch, wait, weights at the end)."""
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
    epochs, model = replay(losses, stopping)
    return (
        epochs,
        stopping.stopped_epoch,
        stopping.best,
        stopping.best_epoch,
        stopping.wait,
        model.weights,
    )


def same(left, right):
    """Equal, where NaN equals NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(left, right, strict=True))


SETTINGS = [
    {"min_delta": min_delta, "patience": patience, "baseline": baseline, "start_from_epoch": start}
    for min_delta in (0, 0.1)
    for patience in (0, 1, 2, 3)
    for baseline in (None, 0.85, 2)
    for start in (0, 2)
]
losses = st.lists(
    st.one_of(
        st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5 + 1e-9, 0.7, 0.8, 1.0, NAN, math.inf]),
        st.floats(0, 2, width=32, allow_subnormal=False),
    ),
    min_size=1,
    max_size=12,
)
arguments = st.fixed_dictionaries(
    {
        "min_delta": st.sampled_from([0, 1e-9, 0.1, 0.25]),
        "patience": st.integers(0, 4),
        "baseline": st.sampled_from([None, 0.3, 0.5, 0.8, NAN]),
        "start_from_epoch": st.integers(0, 4),
    }
)


@pytest.mark.parametrize("name", SERIES)
def test_early_stopping_decides_as_the_rules(name):
    for setting in SETTINGS:
        expected = keras_early_stopping(SERIES[name], **setting)
        assert same(outcome(SERIES[name], EarlyStopping(**setting)), expected), setting


@given(losses, arguments)
@settings(max_examples=300, deadline=None)
def test_early_stopping_decides_as_the_rules_on_any_series(series, setting):
    assert same(outcome(series, EarlyStopping(**setting)), keras_early_stopping(series, **setting))


@given(losses, arguments.filter(lambda setting: setting["baseline"] is None))
@settings(max_examples=50, deadline=None)
def test_higher_is_better_mirrors_lower_is_better(series, setting):
    low, high = EarlyStopping(**setting), EarlyStopping(mode="max", **setting)
    expected = outcome(series, low)
    found = outcome([-loss for loss in series], high)
    assert same(found[:2] + found[3:], expected[:2] + expected[3:])


# ---- the same against Keras itself ----


@pytest.fixture(scope="module")
def keras_callbacks():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras").callbacks


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("name", SERIES)
def test_early_stopping_decides_as_keras(keras_callbacks, name, restore):
    for setting in SETTINGS:
        setting = dict(setting, restore_best_weights=restore)
        expected = outcome(SERIES[name], keras_callbacks.EarlyStopping(**setting))
        assert same(outcome(SERIES[name], EarlyStopping(**setting)), expected), setting


def test_early_stopping_decides_as_keras_on_any_series(keras_callbacks):
    @given(losses, arguments, st.booleans(), st.sampled_from(["min", "max"]))
    @settings(max_examples=200, deadline=None)
    def check(series, setting, restore, mode):
        setting = dict(setting, restore_best_weights=restore, mode=mode)
        expected = outcome(series, keras_callbacks.EarlyStopping(**setting))
        assert same(outcome(series, EarlyStopping(**setting)), expected)

    check()


def test_checkpoint_saves_as_keras(keras_callbacks, tmp_path):
    path = str(tmp_path / "m-{epoch:02d}-{val_loss:.2f}.keras")

    @given(
        losses, st.booleans(), st.sampled_from([None, 0.3, 0.5]), st.sampled_from(["auto", "max"])
    )
    @settings(max_examples=200, deadline=None)
    def check(series, best_only, threshold, mode):
        saved = []
        for kind in (ModelCheckpoint, keras_callbacks.ModelCheckpoint):
            callback = kind(
                path, save_best_only=best_only, initial_value_threshold=threshold, mode=mode
            )
            runs = [
                replay(series, callback)[1].saved for _ in range(2)
            ]  # `best` lives on in a second fit
            saved.append((runs, callback.best if best_only else None))
        (ours, our_best), (theirs, their_best) = saved
        assert ours == theirs
        assert same([our_best], [their_best])

    check()


def test_learning_rates_are_those_of_keras(keras_callbacks):
    rates = []
    for kind in (LearningRateScheduler, keras_callbacks.LearningRateScheduler):
        model = FakeModel([{}] * 4)
        model.optimizer = type("Optimizer", (), {"learning_rate": 0.1})()
        model.fit(kind(lambda epoch, rate: rate * 0.5 if epoch else rate))
        rates.append((model.optimizer.learning_rate, model.current_learning_rate))
    (_, ours), (theirs, _) = rates
    assert ours == pytest.approx(0.01 / 8)
    assert theirs == pytest.approx(0.1 / 8)


# ---- EarlyStopping: what Keras has not, or has otherwise ----


def test_best_weights_are_restored_and_let_go_when_stopped():
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
    assert (callback.best, callback.best_epoch, callback.stopped_epoch, callback.wait) == (
        3,
        2,
        0,
        0,
    )


def test_early_stopping_says_what_it_did(capsys):
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
def test_early_stopping_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        EarlyStopping(**arguments)
    assert str(caught.value) == message


# ---- a monitor that is not there ----


@pytest.mark.parametrize(
    "make",
    [
        EarlyStopping,
        lambda monitor: EarlyStopping(monitor, start_from_epoch=5),
        lambda monitor: ModelCheckpoint("model.npz", monitor, save_best_only=True),
    ],
)
@pytest.mark.parametrize(
    ("monitor", "logs", "message"),
    [
        ("val_loss", {"loss": 1, "rmse": 1}, "there are loss, rmse; pass validation data to fit"),
        ("val_los", {"loss": 1, "val_loss": 1}, "there are loss, val_loss"),
        ("accuracy", {"loss": 1}, "there are loss"),
        ("loss", {}, "there are none"),
    ],
)
def test_missing_monitor_is_named_with_those_there_are(make, monitor, logs, message):
    callback = make(monitor)
    with pytest.raises(ValueError, match="is not among the logs") as caught:
        FakeModel([logs, logs]).fit(callback)
    name = type(callback).__name__
    assert str(caught.value) == f"{name}: monitor={monitor!r} is not among the logs; {message}"


def test_key_of_another_callback_can_be_monitored_if_its_mode_is_given():
    ndcg = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(ndcg=[0.1, 0.3, 0.2][epoch]))
    model = FakeModel([{"loss": 1}, {"loss": 1}, {"loss": 1}])
    model.fit([ndcg, EarlyStopping("ndcg", mode="max")])
    assert model.weights == 1
    with pytest.raises(
        ValueError, match=r"'ndcg' is better lower or higher\? .* pass mode='min' or mode"
    ):
        model.fit([ndcg, EarlyStopping("ndcg")])


# ---- ModelCheckpoint ----


def test_checkpoint_fills_its_template(tmp_path):
    path = (
        tmp_path / "m-{epoch:02d}-{val_loss:.4f}-{{x}}.npz"
    )  # a Path, and braces that are no field
    assert replay([0.5, 0.25], ModelCheckpoint(path))[1].saved == [
        ("m-01-0.5000-{x}.npz", 0),
        ("m-02-0.2500-{x}.npz", 1),
    ]


def test_checkpoint_without_best_only_needs_no_monitor(tmp_path):
    _, model = replay([1, 2], ModelCheckpoint(tmp_path / "m.npz"), key="loss")
    assert model.saved == [("m.npz", 0), ("m.npz", 1)]


def test_checkpoint_saves_the_best_only(tmp_path):
    callback = ModelCheckpoint(tmp_path / "{epoch}", save_best_only=True, initial_value_threshold=4)
    assert replay([4, 3, 3, NAN, 2, 5], callback)[1].saved == [("2", 1), ("5", 4)]
    assert callback.best == 2
    assert replay([3, 2, 1], callback)[1].saved == [
        ("3", 2)
    ]  # no worse than the file of the first fit


def test_checkpoint_forgets_a_best_that_was_not_written(tmp_path):
    callback = ModelCheckpoint(tmp_path / "m.npz", save_best_only=True)
    model = FakeModel([{"val_loss": 1}])
    model.save_checkpoint = lambda path: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        model.fit(callback)
    assert callback.best is None


def test_checkpoint_says_what_it_did(tmp_path, capsys):
    replay([1, 2], ModelCheckpoint(tmp_path / "m.npz", save_best_only=True, verbose=1))
    assert capsys.readouterr().out == (
        f"Epoch 1: saved model to {tmp_path}{os.sep}m.npz\nEpoch 2: val_loss did not improve from 1.00000\n"
    )


def refused(path, error):
    """Refuse a path before the first epoch; give the message."""
    model = FakeModel([{"val_loss": 1}])
    with pytest.raises(error) as caught:
        model.fit(ModelCheckpoint(path))
    assert model.weights is None
    return str(caught.value)


def test_checkpoint_refuses_an_unknown_field_before_the_first_epoch():
    assert refused("m-{mape:.2f}.npz", ValueError) == (
        "ModelCheckpoint: path='m-{mape:.2f}.npz' has the field 'mape', which is not among the logs; "
        "there are epoch, loss, rmse, val_loss, val_rmse, learning_rate, seconds"
    )


@pytest.mark.parametrize(
    "path", ["m-{epoch", "m-{}", "m-{0}.npz", "m-{epoch.x}", "m-{loss:d}", "{loss[0]}"]
)
def test_checkpoint_refuses_a_malformed_template_before_the_first_epoch(path):
    assert f"path={path!r} cannot be filled in: " in refused(path, ValueError)


def test_checkpoint_takes_its_own_monitor_as_a_field(tmp_path):
    callback = ModelCheckpoint(tmp_path / "{ndcg:.1f}", "ndcg", mode="max", save_best_only=True)
    assert replay([0.1, 0.3, 0.2], callback, key="ndcg")[1].saved == [("0.1", 0), ("0.3", 1)]


def test_checkpoint_field_without_validation_data(tmp_path):
    with pytest.raises(
        ValueError, match=r"'val_loss', which .* there are epoch, loss; pass validation"
    ):
        replay([1], ModelCheckpoint(tmp_path / "{val_loss}"), key="loss")


def test_checkpoint_refuses_a_directory_it_cannot_write_before_the_first_epoch(
    tmp_path, monkeypatch
):
    assert "does not exist; create it first" in refused(
        tmp_path / "none" / "m.npz", FileNotFoundError
    )
    assert "is a directory; add a file name" in refused(tmp_path, IsADirectoryError)
    assert "has a field in its directory" in refused(tmp_path / "{epoch}" / "m.npz", ValueError)

    def denied(*_, **__):  # root may write anywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("funksvd.machine.replacing.open", denied, raising=False)
    assert f"{str(tmp_path)!r} is not writable" in refused(tmp_path / "m.npz", PermissionError)


def test_checkpoint_takes_arguments_after_the_monitor_only_by_name():
    # Keras has them in another order: there these are verbose and save_best_only.
    with pytest.raises(TypeError):
        ModelCheckpoint("m.npz", "val_loss", 1, True)


# ---- LearningRateScheduler ----


def test_schedule_sets_the_rate_of_each_epoch():
    seen = []
    model = FakeModel([{}] * 3, learning_rate=0.08)
    spy = LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(model.current_learning_rate)
    )
    model.fit(
        [LearningRateScheduler(lambda epoch, rate: np.float32(rate / 2) if epoch else rate), spy]
    )
    assert seen == pytest.approx([0.08, 0.04, 0.02])
    assert all(type(rate) is float for rate in seen)


def test_schedule_of_the_epoch_alone():
    seen = []
    model = FakeModel([{}] * 3)
    spy = LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(model.current_learning_rate)
    )
    model.fit([LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1)), spy])
    assert seen == [0.1, 0.05, 0.1 / 3]

    def broken(epoch, rate):
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        FakeModel([{}]).fit(LearningRateScheduler(broken))


@pytest.mark.parametrize(
    ("rate", "error"),
    [
        (0, ValueError),
        (-0.1, ValueError),
        (NAN, ValueError),
        (math.inf, ValueError),
        (None, TypeError),
        ("1", TypeError),
    ],
)
def test_schedule_must_give_a_finite_number_above_zero(rate, error):
    with pytest.raises(error) as caught:
        FakeModel([{}]).fit(LearningRateScheduler(lambda epoch, current: rate))
    assert (
        str(caught.value)
        == f"schedule(0, 0.01) returned {rate!r}; it must return a finite number above 0"
    )


def test_schedule_must_be_callable():
    with pytest.raises(
        TypeError, match=r"schedule=0\.1; it must be a function of epoch and learning rate"
    ):
        LearningRateScheduler(0.1)


# ---- the list ----


def recorder(name, events):
    return LambdaCallback(
        on_train_begin=lambda logs: events.append((name, "begin")),
        on_epoch_begin=lambda epoch, logs: events.append((name, "epoch", epoch)),
        on_epoch_end=lambda epoch, logs: events.append((name, "end of epoch", epoch)),
        on_train_end=lambda logs: events.append((name, "end")),
    )


def test_hooks_are_called_in_the_order_of_the_list():
    events = []
    callbacks = (recorder("a", events), recorder("b", events))
    model = FakeModel([{}, {}])
    model.fit(callbacks)
    stages = [
        ("begin",),
        ("epoch", 0),
        ("end of epoch", 0),
        ("epoch", 1),
        ("end of epoch", 1),
        ("end",),
    ]
    assert events == [(name, *stage) for stage in stages for name in "ab"]
    assert all(callback.model is model for callback in callbacks)


def test_those_that_have_begun_end_when_one_refuses_to_begin():
    events = []
    bad = LambdaCallback(
        on_train_begin=lambda logs: 1 / 0, on_train_end=lambda logs: events.append("never")
    )
    with pytest.raises(ZeroDivisionError):
        FakeModel([{}]).fit([recorder("a", events), bad, recorder("b", events)])
    assert events == [("a", "begin"), ("a", "end")]


def test_all_end_once_though_one_raises():
    events = []
    hooks = CallbackList(
        [LambdaCallback(on_train_end=lambda logs: 1 / 0), recorder("b", events)], None
    )
    hooks.on_train_begin({})
    with pytest.raises(ZeroDivisionError):
        hooks.on_train_end({})
    hooks.on_train_end({})
    assert events == [("b", "begin"), ("b", "end")]


@pytest.mark.parametrize(
    ("given", "count"),
    [(None, 0), ([], 0), (Callback(), 1), ([Callback()], 1), ((Callback(), Callback()), 2)],
)
def test_list_accepts_none_one_or_many(given, count):
    assert len(CallbackList(given, None).callbacks) == count
    assert FakeModel([{}]).fit(given) == 1


def test_list_accepts_any_object_with_the_hooks():
    class Own:
        set_model = on_train_begin = on_epoch_begin = on_epoch_end = on_train_end = (
            lambda *arguments: None
        )

    assert FakeModel([{}]).fit(Own()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "loss",
            r"callbacks\[0\] is 'loss', which has no method set_model; derive it from Callback",
        ),
        ([Callback(), abs], r"callbacks\[1\] is .*abs.*LambdaCallback\(on_epoch_end=function\)"),
        ([Callback], r"callbacks\[0\] is the class Callback; pass an instance, Callback\(\.\.\.\)"),
        (LambdaCallback(on_epoch_end=3), "has no method on_epoch_end"),
    ],
)
def test_list_refuses_what_lacks_a_hook(given, message):
    with pytest.raises(TypeError, match=message):
        CallbackList(given, None)


def test_lambda_callback_refuses_a_hook_that_is_not_there():
    with pytest.raises(TypeError):
        LambdaCallback(on_batch_end=print)


# ---- progress ----


def logs_of(rmse, val_rmse, **more):
    return {
        "loss": rmse**2,
        "rmse": rmse,
        "learning_rate": 0.0171,
        "seconds": 0.0312,
        "val_loss": val_rmse**2,
        "val_rmse": val_rmse,
        **more,
    }


def test_epoch_lines_mark_the_best_so_far(capsys):
    FakeModel([logs_of(0.95, 0.9), logs_of(0.8712, 0.9125), logs_of(0.8, 0.85)]).fit(EpochLines())
    assert capsys.readouterr().out == (
        "epoch 1/3  rmse 0.9500  val_rmse 0.9000  lr 0.0171  0.03 s *\n"
        "epoch 2/3  rmse 0.8712  val_rmse 0.9125  lr 0.0171  0.03 s\n"
        "epoch 3/3  rmse 0.8000  val_rmse 0.8500  lr 0.0171  0.03 s *\n"
    )


def test_epoch_lines_align_the_epochs_and_go_where_they_are_sent():
    lines = []
    callback = EpochLines(write=lines.append)
    logs = {
        "loss": 1,
        "rmse": 1,
        "learning_rate": 0.5,
        "seconds": 12.5,
    }  # no validation data, no mark
    FakeModel([logs] * 10).fit(callback)
    assert lines[0] == "epoch  1/10  rmse 1.0000  lr 0.500  12.50 s\n"
    assert lines[9] == "epoch 10/10  rmse 1.0000  lr 0.500  12.50 s\n"
    FakeModel([logs_of(9, 9)]).fit(callback)
    FakeModel([logs_of(9, 9)]).fit(callback)
    assert (
        lines[-1] == lines[-2] == "epoch 1/1  rmse 9.0000  val_rmse 9.0000  lr 0.0171  0.03 s *\n"
    )


def test_epoch_lines_follow_a_redirected_standard_output():
    callback = EpochLines()
    with redirect_stdout(io.StringIO()) as out:
        FakeModel([logs_of(1, 1)]).fit(callback)
    assert out.getvalue().startswith("epoch 1/1  rmse 1.0000")


def test_progress_bar_counts_epochs_and_shows_the_losses(capsys):
    FakeModel([logs_of(0.9, 0.95), logs_of(0.5, 0.75)]).fit(ProgressBar())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/2" in captured.err
    assert "loss=0.2500, val_rmse=0.7500" in captured.err
    assert captured.err.endswith("\n")


def test_progress_bar_closes_after_an_exception(capsys):
    bar = ProgressBar()  # a name for it, as a bar that is collected closes itself
    fail = LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (1 - epoch))
    with pytest.raises(ZeroDivisionError):
        FakeModel([{"loss": 1}] * 3).fit([bar, fail])
    assert not tqdm._instances
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1/3" in last
    assert "loss=1.0000]" in last
