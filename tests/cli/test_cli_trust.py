"""Commands whose reader leaves, whose disk is full, and whose files hold control characters."""

import os
import subprocess
import sys

import pytest
from command_checks import SMALL, fails, made_rows, run, shown, write_table

from funksvd import FunkSVD, load

pytest_plugins = ["command_files"]

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes and devices")


def command(*argv):
    """Return the arguments of a process that runs a command."""
    return [sys.executable, "-m", "funksvd", *map(str, argv)]


@posix_only
def test_a_reader_that_leaves_does_not_end_training(folder, tmp_path):
    argv = command("train", folder / "ratings.csv", "-o", tmp_path / "m.npz", *SMALL)
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=60)
    assert err == ""
    assert process.returncode == 1
    assert load(tmp_path / "m.npz").n_epochs_ >= 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device of a full disk")
def test_a_full_disk_is_an_error_in_one_line(folder, tmp_path):
    for argv in (
        ["info"],
        ["info", folder / "model.npz"],
        ["train", folder / "ratings.csv", "-o", tmp_path / "m.npz", *SMALL],
    ):
        with open("/dev/full", "w") as full:
            found = subprocess.run(command(*argv), stdout=full, stderr=subprocess.PIPE, text=True)
        assert found.returncode == 2
        assert found.stderr == "funksvd: error: No space left on device\n" or (
            found.stderr.startswith("funksvd: error: ") and found.stderr.count("\n") == 1
        )
    load(tmp_path / "m.npz")


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path, capsys, monkeypatch):
    users = ["\x1b[2J\x1b]0;owned\x07", "\u202ereversed", "z\nz"]
    model = FunkSVD(2, 1, random_state=0)
    model.fit((users * 3, ["\x1b[31m", "b", "c"] * 3), [1.0, 2.0, 3.0] * 3)
    path = tmp_path / "m.npz"
    model.history_["\x1b[1m"] = [1.0]
    model.save(path)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out = shown(capsys, "info", path)
    out += shown(capsys, "recommend", path, "--user", users[0])
    out += shown(capsys, "similar", path, "--item", "b")
    assert all(char.isprintable() or char == "\n" for char in out)
    assert r"\x1b[2J" in out
    assert r"\x1b[31m" in out
    error = fails(capsys, "recommend", path, "--user", "\x1b[2Jnobody")
    assert error.removesuffix("\n").isprintable()


def test_a_long_id_is_shown_in_part(tmp_path, capsys):
    model = FunkSVD(2, 1, random_state=0)
    model.fit((["x" * 5000, "y", "z"] * 3, [1, 2, 3] * 3), [1.0, 2.0, 3.0] * 3)
    model.save(tmp_path / "m.npz")
    assert max(map(len, shown(capsys, "info", tmp_path / "m.npz").splitlines())) < 300


def test_the_model_does_not_replace_the_checkpoint(tmp_path, capsys):
    ratings = write_table(tmp_path / "ratings.csv", made_rows())
    path = tmp_path / "m.npz"
    message = "is the file of the model and that of the checkpoint, too"
    assert message in fails(capsys, "train", ratings, "-o", path, "--checkpoint", path, *SMALL)
    assert not path.exists()
    saved = tmp_path / "saved.npz"
    assert run("train", ratings, "-o", path, "--checkpoint", saved, *SMALL) == 0
    before = saved.read_bytes()
    assert message in fails(capsys, "train", ratings, "-o", saved, "--resume", saved, *SMALL)
    assert saved.read_bytes() == before
