"""`funksvd train` on small files, and the reading of files that all commands share."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from command_checks import SMALL, fails, made_rows, out_json, run, shown, write_table

import funksvd
from funksvd import cli

pytest_plugins = ["command_files"]


def test_messages_tell_ratings_epochs_and_error(folder, tmp_path, capsys):
    path = tmp_path / "m.npz"
    out = shown(capsys, "train", folder / "ratings.csv", "-o", path, *SMALL)
    assert "Read 900 ratings by 60 users of 39 items" in out
    assert out.count("\nepoch ") == 4
    best = min(funksvd.load(path).history_["val_rmse"])
    assert f"validation RMSE {best:.4f} on the 10% of the ratings held out" in out
    assert f"Saved the model to {path}" in out


def test_json_has_the_best_epoch(folder, tmp_path, capsys):
    path = tmp_path / "m.npz"
    [trained], messages = out_json(capsys, "train", folder / "ratings.csv", "-o", path, *SMALL)
    assert trained["val_rmse"] == min(funksvd.load(path).history_["val_rmse"])
    assert trained["users"] == 60
    assert "epoch 4/4" in messages


def test_same_seed_by_default(folder, tmp_path):
    path = tmp_path / "m.npz"
    run("train", folder / "ratings.csv", "-o", path, *SMALL)
    assert path.read_bytes() == (folder / "model.npz").read_bytes()


def test_every_parameter_is_an_option(folder, tmp_path):
    path = tmp_path / "m.npz"
    options = """
        --n-factors 3 --epochs 2 --solver sgd --learning-rate 0.01
        --learning-rate-schedule inverse_time --learning-rate-decay 0 --l2 0.1,0.3 --l2-bias 0.2
        --no-biased --init-std 0.3 --rating-scale 1 5 --n-jobs 1 --device cpu --dtype float64
        --random-state 7 --validation-split 0 --no-center --reg-scale row --training joint
        --batch-size 1 --shuffle --momentum 0 --beta-1 0.9 --beta-2 0.999 --epsilon 1e-7
        --initial-accumulator-value 0.1 --l1 0 --l1-bias 0,0 --no-non-negative
        --min-improvement 1e-4
    """
    assert run("train", folder / "ratings.csv", "-o", path, *options.split()) == 0
    model = funksvd.load(path)
    params = model.get_params()
    assert tuple(params["rating_scale"]) == (1, 5)
    expected = {
        "n_factors": 3,
        "n_epochs": 2,
        "learning_rate": 0.01,
        "learning_rate_decay": 0,
        "learning_rate_schedule": "inverse_time",
        "l2": [0.1, 0.3],
        "l2_bias": 0.2,
        "l1_bias": [0, 0],
        "center": False,
        "reg_scale": "row",
        "biased": False,
        "init_std": 0.3,
        "dtype": "float64",
        "random_state": 7,
    }
    assert {name: params[name] for name in expected} == expected
    assert model.user_factors_.dtype == np.float64
    assert "val_rmse" not in model.history_


@pytest.mark.parametrize("name", [n for n in funksvd.FunkSVD().get_params() if n != "verbose"])
def test_every_parameter_has_a_help_text(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"--{name.replace('_', '-')}" in out
    assert "see FunkSVD" not in out


def test_training_goes_on_from_a_checkpoint(folder, tmp_path, capsys):
    ratings = folder / "ratings.csv"
    state = tmp_path / "state.npz"

    def trained(name, *options):
        path = tmp_path / name
        assert run("train", ratings, "-o", path, "--n-factors", 3, *options) == 0
        return path.read_bytes()

    whole = trained("whole.npz", "--epochs", 9)
    trained("short.npz", "--epochs", 4, "--checkpoint", state)
    assert trained("long.npz", "--epochs", 9, "--resume", state) == whole
    assert funksvd.load(state).n_epochs_ == 9
    options = ["-o", tmp_path / "m.npz", "--epochs", "9", "--resume", state]
    error = fails(capsys, "train", ratings, *options)
    assert "cannot be resumed: n_factors is 3 there, 100 here" in error
    error = fails(capsys, "train", "no.csv", "--checkpoint", tmp_path / "no" / "c.npz")
    assert "does not exist" in error


# Errors come before a large file is read.


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/m.npz", "does not exist"),
        (".", "is a directory"),
        (os.devnull, "regular file"),
        ("", "is empty"),
        ("m" * 300, "too long"),
        ("m.npz", "no-such-file.csv"),
    ],
)
def test_output_is_checked_before_the_file_is_read(capsys, output, message):
    assert message in fails(capsys, "train", "no-such-file.csv", "-o", output)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_output_in_a_folder_of_the_kernel(capsys):
    assert "not writable" in fails(capsys, "train", "no-such-file.csv", "-o", "/proc/m.npz")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_directory_without_permission(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "not writable" in fails(capsys, "train", "no-such-file.csv", "-o", tmp_path / "m.npz")


def test_parameters_are_checked_before_the_file_is_read(capsys):
    error = fails(capsys, "train", "no-such-file.csv", "--learning-rate", "-1")
    assert "learning_rate" in error


def test_divergence_is_one_line(folder, tmp_path, capsys):
    path = tmp_path / "m.npz"
    options = [*SMALL, "--learning-rate", "1e6"]
    error = fails(capsys, "train", folder / "ratings.csv", "-o", path, *options)
    assert "lower learning_rate" in error
    assert not path.exists()


# Files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    error = fails(capsys, "train", tmp_path / "pipe", "-o", tmp_path / "m.npz")
    assert "is not a file but a pipe" in error


def test_wrong_column_names_the_option(folder, tmp_path, capsys):
    options = ["-o", tmp_path / "m.npz", "--user", "usr_id"]
    error = fails(capsys, "train", folder / "ratings.csv", *options)
    assert "--user-column 'usr_id'" in error
    assert "did you mean 'user_id'" in error


@pytest.mark.parametrize(
    ("first_line", "options"),
    [
        ([], "--user 3 --item 2 --rating 0 --no-header"),
        ([("r", "x", "i", "u")], "--user u --item i --rating r --header"),
    ],
)
def test_columns_separator_and_header(folder, tmp_path, first_line, options):
    rows = [(rating, "x", item, user) for user, item, rating in made_rows()]
    source = write_table(tmp_path / "r.txt", [*first_line, *rows], sep="|")
    path = tmp_path / "m.npz"
    assert run("train", source, "-o", path, "--sep", "|", *options.split(), *SMALL) == 0
    assert path.read_bytes() == (folder / "model.npz").read_bytes()


def test_bad_lines(tmp_path, capsys):
    rows = [("user", "item", "rating"), *made_rows(), ("1", "2", "many")]
    source = write_table(tmp_path / "bad.csv", rows)
    argv = ["train", source, "-o", tmp_path / "m.npz", *SMALL]
    assert "--on-bad-lines skip" in fails(capsys, *argv)
    assert run(*argv, "--on-bad-lines", "skip") == 0
    captured = capsys.readouterr()
    assert "Read 900 ratings" in captured.out
    assert captured.err.startswith("funksvd: warning: ")


# Ctrl-C


def interrupt_after(n_epochs):
    """Return a hook that raises KeyboardInterrupt at the beginning of an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch + 1 == n_epochs:
            raise KeyboardInterrupt

    return on_epoch_begin


def test_interrupted_between_epochs(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt_after(3))
    path = tmp_path / "m.npz"
    assert run("train", folder / "ratings.csv", "-o", path, *SMALL) == 130
    assert "Stopped by Ctrl-C after 2 epochs" in capsys.readouterr().out
    assert funksvd.load(path).n_epochs_ == 2


def test_interrupted_before_the_first_epoch(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(funksvd.EarlyStopping, "on_epoch_begin", interrupt_after(1))
    path = tmp_path / "m.npz"
    assert run("train", folder / "ratings.csv", "-o", path, *SMALL) == 130
    assert "nothing was saved" in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a single process on Windows")
def test_ctrl_c_in_a_process(folder, tmp_path):
    path = tmp_path / "m.npz"
    options = ["--n-epochs", "1000000", "--patience", "1000000", "--n-jobs", "1"]
    command = [sys.executable, "-m", "funksvd", "train", folder / "ratings.csv", "-o", path]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Stopped by Ctrl-C" in out
    assert "Traceback" not in err
    assert len(funksvd.load(path).user_ids_) == 60
