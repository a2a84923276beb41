"""A kill at any moment leaves a whole checkpoint, from which training ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_fits
import numpy as np
import pytest
from conftest import planted_ratings

from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint, load
from funksvd.files import model_file

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX's")

# A program that trains and writes a checkpoint after each epoch.
TRAIN = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from conftest import planted_ratings
from funksvd import EarlyStopping, FunkSVD, ModelCheckpoint
from funksvd.files import model_file
users, items, values = planted_ratings()
{more}
model = FunkSVD(5, {n_epochs}, random_state=0, learning_rate_decay=0.001)
callbacks = [ModelCheckpoint({path!r}), EarlyStopping(patience=9999)]
model.fit((users, items), values, validation_split=0.2, callbacks=callbacks, resume={resume!r})
"""
# Kills the program when it has written half of the fourth checkpoint.
KILL_IN_A_WRITE = """
write_whole = model_file.write_npz

def write_half(file, text, arrays):
    if '"n_epochs": 4,' in text and '"training"' in text:
        file.write(b"PK and half of a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write_whole(file, text, arrays)

model_file.write_npz = write_half
"""


def train(path, n_epochs, resume=None, more=""):
    """Start the program and return its process."""
    code = TRAIN.format(
        tests=str(Path(__file__).parents[1]),
        path=str(path),
        resume=None if resume is None else str(resume),
        n_epochs=n_epochs,
        more=more,
    )
    return subprocess.Popen([sys.executable, "-c", code])


def saved_bytes(model, folder):
    """Return the bytes of a model's file."""
    model.save(folder / "model.npz")
    return (folder / "model.npz").read_bytes()


def test_killed_in_the_middle_of_a_checkpoint_the_one_before_is_whole(tmp_path):
    path = tmp_path / "m.npz"
    assert train(path, 6, more=KILL_IN_A_WRITE).wait(60) == -signal.SIGKILL
    assert load(path).n_epochs_ == 3
    assert any(name.endswith(".tmp") for name in os.listdir(tmp_path))  # the half
    assert train(path, 6, resume=path).wait(60) == 0
    whole = tmp_path / "whole.npz"
    assert train(whole, 6).wait(60) == 0
    training = model_file.opened(path, FunkSVD).training
    expected = model_file.opened(whole, FunkSVD).training
    assert training["callbacks"] == expected["callbacks"]
    assert saved_bytes(load(path), tmp_path) == saved_bytes(load(whole), tmp_path)


def test_killed_at_any_moment_training_goes_on_to_the_same_bytes(tmp_path):
    path = tmp_path / "m.npz"
    n_epochs = 1000
    rng = np.random.default_rng(0)
    killed = 0
    for _ in range(4):
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = train(path, n_epochs, resume=path if before else None)
        while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        killed += process.wait(60) == -signal.SIGKILL
        assert 0 < load(path).n_epochs_ <= n_epochs
    assert killed
    users, items, values = planted_ratings()

    def fit(callbacks, resume=None):
        model = FunkSVD(5, n_epochs, random_state=0, learning_rate_decay=0.001)
        X = (users, items)
        return model.fit(X, values, validation_split=0.2, callbacks=callbacks, resume=resume)

    resumed = fit([ModelCheckpoint(path), EarlyStopping(patience=9999)], resume=path)
    whole = fit(EarlyStopping(patience=9999))
    assert saved_bytes(resumed, tmp_path) == saved_bytes(whole, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fits are forked processes of POSIX")
def test_killed_at_random_moments_every_way_of_training_is_resumed_exactly():
    """`python tests/training/killed_fits.py` kills 300 times, all solvers and ways.

    It forks, which threads of other libraries in this process may forbid.
    """
    command = [sys.executable, "-W", "ignore", killed_fits.__file__, "15", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
