"""ModelCheckpoint saves when that of Keras does, and finds a bad path before the first epoch."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replays import LOSSES, NAN, FakeModel, keras_callbacks, replay, same

from funksvd.callbacks import ModelCheckpoint


def test_checkpoint_saves_as_keras(tmp_path):
    keras = keras_callbacks()
    path = str(tmp_path / "m-{epoch:02d}-{val_loss:.2f}.keras")

    @given(
        LOSSES, st.booleans(), st.sampled_from([None, 0.3, 0.5]), st.sampled_from(["auto", "max"])
    )
    @settings(max_examples=200, deadline=None)
    def check(series, best_only, threshold, mode):
        saved = []
        for kind in (ModelCheckpoint, keras.ModelCheckpoint):
            callback = kind(
                path, save_best_only=best_only, initial_value_threshold=threshold, mode=mode
            )
            # Twice, since `best` lives on in a second fit.
            runs = [replay(series, callback)[1].saved for _ in range(2)]
            saved.append((runs, callback.best if best_only else None))
        (ours, our_best), (theirs, their_best) = saved
        assert ours == theirs
        assert same([our_best], [their_best])

    check()


def test_checkpoint_fills_its_template(tmp_path):
    path = tmp_path / "m-{epoch:02d}-{val_loss:.4f}-{{x}}.npz"  # {{x}} is no field
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
    # In a second fit, too, only a model better than the file of the first is saved.
    assert replay([3, 2, 1], callback)[1].saved == [("3", 2)]


def test_checkpoint_forgets_a_best_that_was_not_written(tmp_path):
    callback = ModelCheckpoint(tmp_path / "m.npz", save_best_only=True)
    model = FakeModel([{"val_loss": 1}])
    model.save_checkpoint = lambda path: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        model.fit(callback)
    assert callback.best is None


def test_checkpoint_writes_lines(tmp_path, capsys):
    replay([1, 2], ModelCheckpoint(tmp_path / "m.npz", save_best_only=True, verbose=1))
    assert capsys.readouterr().out == (
        f"Epoch 1: saved model to {tmp_path}{os.sep}m.npz\n"
        "Epoch 2: val_loss did not improve from 1.00000\n"
    )


def error_of(path, error):
    """Return the message of the error that a path raises before the first epoch."""
    model = FakeModel([{"val_loss": 1}])
    with pytest.raises(error) as caught:
        model.fit(ModelCheckpoint(path))
    assert model.weights is None
    return str(caught.value)


def test_checkpoint_finds_an_unknown_field_before_the_first_epoch():
    assert error_of("m-{mape:.2f}.npz", ValueError) == (
        "ModelCheckpoint: path='m-{mape:.2f}.npz' has the field 'mape', which is not among the"
        " logs; there are epoch, loss, rmse, val_loss, val_rmse, learning_rate, seconds"
    )


@pytest.mark.parametrize(
    "path", ["m-{epoch", "m-{}", "m-{0}.npz", "m-{epoch.x}", "m-{loss:d}", "{loss[0]}"]
)
def test_checkpoint_finds_a_malformed_template_before_the_first_epoch(path):
    assert f"path={path!r} cannot be filled in: " in error_of(path, ValueError)


def test_checkpoint_takes_its_own_monitor_as_a_field(tmp_path):
    callback = ModelCheckpoint(tmp_path / "{ndcg:.1f}", "ndcg", mode="max", save_best_only=True)
    assert replay([0.1, 0.3, 0.2], callback, key="ndcg")[1].saved == [("0.1", 0), ("0.3", 1)]


def test_checkpoint_field_without_validation_data(tmp_path):
    with pytest.raises(
        ValueError, match=r"'val_loss', which .* there are epoch, loss; pass validation"
    ):
        replay([1], ModelCheckpoint(tmp_path / "{val_loss}"), key="loss")


def test_checkpoint_finds_an_unwritable_directory_before_the_first_epoch(tmp_path, monkeypatch):
    assert "does not exist; create it first" in error_of(
        tmp_path / "none" / "m.npz", FileNotFoundError
    )
    assert "is a directory; add a file name" in error_of(tmp_path, IsADirectoryError)
    assert "has a field in its directory" in error_of(tmp_path / "{epoch}" / "m.npz", ValueError)

    def denied(*_, **__):  # root may write anywhere
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("funksvd.machine.replacing.open", denied, raising=False)
    assert f"{str(tmp_path)!r} is not writable" in error_of(tmp_path / "m.npz", PermissionError)


def test_checkpoint_takes_arguments_after_the_monitor_only_by_name():
    # In Keras the third and fourth argument are verbose and save_best_only.
    with pytest.raises(TypeError):
        ModelCheckpoint("m.npz", "val_loss", 1, True)
