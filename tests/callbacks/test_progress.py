"""Progress bars and lines of epochs."""

import io
from contextlib import redirect_stdout

import pytest
from replays import FakeModel
from tqdm import tqdm

from funksvd.callbacks import EpochLines, LambdaCallback, ProgressBar


def logs_of(rmse, val_rmse):
    """Return the logs of an epoch with validation data."""
    return {
        "loss": rmse**2,
        "rmse": rmse,
        "learning_rate": 0.0171,
        "seconds": 0.0312,
        "val_loss": val_rmse**2,
        "val_rmse": val_rmse,
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
    # Without validation data there is no mark.
    logs = {"loss": 1, "rmse": 1, "learning_rate": 0.5, "seconds": 12.5}
    FakeModel([logs] * 10).fit(callback)
    assert lines[0] == "epoch  1/10  rmse 1.0000  lr 0.500  12.50 s\n"
    assert lines[9] == "epoch 10/10  rmse 1.0000  lr 0.500  12.50 s\n"
    FakeModel([logs_of(9, 9)]).fit(callback)
    FakeModel([logs_of(9, 9)]).fit(callback)
    last = "epoch 1/1  rmse 9.0000  val_rmse 9.0000  lr 0.0171  0.03 s *\n"
    assert lines[-2:] == [last, last]


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
    bar = ProgressBar()  # kept, since a bar that is collected closes itself
    fail = LambdaCallback(on_epoch_begin=lambda epoch, logs: 1 / (1 - epoch))
    with pytest.raises(ZeroDivisionError):
        FakeModel([{"loss": 1}] * 3).fit([bar, fail])
    assert not tqdm._instances
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1/3" in last
    assert "loss=1.0000]" in last
