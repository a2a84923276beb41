"""Kills at random moments of trainings with checkpoints: each resume ends with the same bytes.

A case starts a training in a process of its own, kills it with SIGKILL at a random moment, once to
three times, and resumes it from its checkpoint. The last file must be that of a training that
nobody disturbed, and no temporary file may stay.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from funksvd import FunkSVD, ModelCheckpoint, load

from .harness import Case, WrongAnswerError, main
from .trainings import WAYS, hash_of, new_model, some_ratings

N_RATINGS = 20_000
N_EPOCHS = 12
MOST_KILLS = 3


def train(way: str, path: Path) -> FunkSVD:
    """Train with a checkpoint after each epoch, from the checkpoint that is there."""
    model = new_model(way, N_EPOCHS, 1)
    resume = path if path.exists() else None
    callbacks = ModelCheckpoint(path)
    return model.fit(
        some_ratings(N_RATINGS), validation_split=0.2, callbacks=callbacks, resume=resume
    )


def started(way: str, path: Path) -> subprocess.Popen[str]:
    """Start a process that trains, and return it once it has begun."""
    command = [sys.executable, "-m", __spec__.name, "--train", way, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@contextlib.contextmanager
def prepared() -> Iterator[Case]:
    """Give the case."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="funksvd-kills-") as name:
        folder = Path(name)
        expected = {}
        seconds = {}
        for way in WAYS:
            begun = time.monotonic()
            expected[way] = hash_of(train(way, folder / "whole.npz").get_weights())
            seconds[way] = time.monotonic() - begun
            (folder / "whole.npz").unlink()

        def run_case(rng: np.random.Generator) -> str:
            way = list(WAYS)[int(rng.integers(len(WAYS)))]
            path = folder / "killed.npz"
            path.unlink(missing_ok=True)
            killed = 0
            for _ in range(int(rng.integers(1, MOST_KILLS + 1))):
                process = started(way, path)
                time.sleep(seconds[way] * rng.uniform(0, 1.2))
                process.kill()
                killed += process.wait() < 0
                if path.exists():
                    load(path)
            if hash_of(train(way, path).get_weights()) != expected[way]:
                raise WrongAnswerError(f"{way}: a resumed training ends with other weights")
            left = sorted(other.name for other in folder.iterdir() if other != path)
            if left:
                raise WrongAnswerError(f"temporary files stayed: {left}")
            return f"{killed} kills, resumed"

        yield run_case


if __name__ == "__main__":
    if sys.argv[1] == "--train":
        warnings.simplefilter("ignore")
        print("begun", flush=True)
        train(sys.argv[2], Path(sys.argv[3]))
    else:
        raise SystemExit(main(__spec__.name, prepared))
