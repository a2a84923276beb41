"""Interrupts leave the model of a whole epoch, or none, however often and whenever they come."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import interrupted_fits
import numpy as np
import pytest
from conftest import planted_ratings, random_ratings

from funksvd import Callback, EarlyStopping, FunkSVD, LambdaCallback, ModelCheckpoint, load
from funksvd.engines.sgd import SgdEngine

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="alarms of POSIX interrupt the fits"
)
# So many ratings that an engine uses threads.
MANY = (220_000, 3000, 900)


def test_interrupts_at_random_moments():
    """`python tests/training/interrupted_fits.py` makes a thousand of them."""
    before = signal.getsignal(signal.SIGALRM)
    try:
        ended = interrupted_fits.run(12, seed=3)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sum(ended.values()) == 12
    assert not [how for how in ended if "TORN" in how or "BROKEN" in how]


def test_a_second_interrupt_cannot_part_the_return_to_the_last_epoch(monkeypatch):
    """It comes between the arrays of the two sides."""
    users, items, values = random_ratings()
    whole = FunkSVD(4, 3, random_state=0).fit((users, items), values)
    restore = SgdEngine.restore

    def interrupted_restore(self, state):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        restore(self, state)

    def interrupt(epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(SgdEngine, "restore", interrupted_restore)
    model = FunkSVD(4, 9, random_state=0)
    callback = LambdaCallback(on_epoch_begin=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit((users, items), values, callbacks=callback)
    assert model.n_epochs_ == 3
    np.testing.assert_array_equal(model.user_factors_, whole.user_factors_)
    np.testing.assert_array_equal(model.item_factors_, whole.item_factors_)


@pytest.mark.parametrize("function", ["weights", "restore"])
def test_an_error_while_the_model_is_adopted_leaves_none(monkeypatch, function):
    users, items, values = random_ratings()

    def fail(self, *arguments):
        raise KeyboardInterrupt

    class Late(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                monkeypatch.setattr(SgdEngine, function, fail)
                raise KeyboardInterrupt

    model = FunkSVD(4, 5, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit((users, items), values, callbacks=Late())
    monkeypatch.undo()
    with pytest.raises(ValueError, match="not fitted yet"):
        model.predict(([0], [0]))
    model.fit((users, items), values)
    assert model.n_epochs_ == 5


def test_an_interrupt_cannot_part_the_weights_that_a_callback_sets(monkeypatch):
    users, items, values = random_ratings()
    load_weights = SgdEngine.load

    def interrupted_load(self, weights):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        load_weights(self, weights)

    best = FunkSVD(4, 1, random_state=0).fit((users, items), values)
    model = FunkSVD(4, 3, random_state=0)
    stopping = EarlyStopping("loss", patience=9)
    stopping_best = LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(stopping, "best_weights", best.get_weights())
    )
    monkeypatch.setattr(SgdEngine, "load", interrupted_load)
    with pytest.raises(KeyboardInterrupt):
        model.fit((users, items), values, callbacks=[stopping, stopping_best])
    np.testing.assert_array_equal(model.user_factors_, best.user_factors_)
    np.testing.assert_array_equal(model.item_factors_, best.item_factors_)


def test_a_refused_thread_leaves_no_worker_behind(monkeypatch):
    """The threads that have begun are waited for, before the epoch is undone."""
    users, items, values = random_ratings(*MANY)
    whole = FunkSVD(16, 2, random_state=0, n_jobs=2).fit((users, items), values)
    model = FunkSVD(16, 5, random_state=0, n_jobs=2)

    def break_pool(epoch, logs):
        if epoch == 2:
            pool = model._training.engine.pool
            submit = pool.submit
            jobs = []

            def second_fails(*arguments):
                if jobs:
                    raise KeyboardInterrupt
                jobs.append(submit(*arguments))
                return jobs[0]

            monkeypatch.setattr(pool, "submit", second_fails)

    with pytest.warns(UserWarning, match="interrupted in epoch 3"):
        model.fit((users, items), values, callbacks=LambdaCallback(on_epoch_begin=break_pool))
    assert model.interrupted_
    assert model.n_epochs_ == 2
    np.testing.assert_array_equal(model.user_factors_, whole.user_factors_)
    np.testing.assert_array_equal(model.item_factors_, whole.item_factors_)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_saves_what_was_learned(tmp_path, number):
    users, items, values = planted_ratings()
    rows = [f"{u},{i},{v:.3f}" for u, i, v in zip(users, items, values, strict=True)]
    (tmp_path / "ratings.csv").write_text("\n".join(["user,item,rating", *rows]))
    command = [sys.executable, "-m", "funksvd", "train", "ratings.csv", "-o", "m.npz"]
    options = ["--n-factors", "4", "--epochs", "100000", "--patience", "100000"]
    process = subprocess.Popen(
        [*command, *options, "--checkpoint", "c.npz"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    begun = Path(tmp_path / "c.npz")
    while not begun.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert load(tmp_path / "m.npz").n_epochs_ >= 1


def test_a_fit_in_a_thread_that_outlives_the_main_thread():
    code = (
        "import threading, numpy as np\n"
        "from funksvd import FunkSVD\n"
        "rng = np.random.default_rng(0)\n"
        "n = 220_000\n"
        "X = (rng.integers(0, 3000, n), rng.integers(0, 900, n))\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print(FunkSVD(4, 2, n_jobs=2).fit(X, rng.normal(3, 1, n)).n_epochs_)\n"
        "threading.Thread(target=work).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("2\n", "")


FORK_IN_A_CALLBACK = """
import os, signal
import numpy as np
from funksvd import FunkSVD, LambdaCallback

n, n_users, n_items = {shape}
rng = np.random.default_rng(0)
users, items = rng.integers(0, n_users, n), rng.integers(0, n_items, n)
model = FunkSVD(4, {n_epochs}, solver={solver!r}, random_state=0, n_jobs=2)
statuses = []

def fork(epoch, logs):
    if epoch != {n_epochs} - 2:
        return
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        model._training.engine.epoch(epoch + 1, 0.01)
        model.get_weights()
        os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])

model.fit((users, items), rng.normal(3, 1, n), callbacks=LambdaCallback(on_epoch_end=fork))
print(statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
@pytest.mark.parametrize(("solver", "n_epochs"), [("sgd", 3), ("gibbs", 12)])
def test_training_goes_on_in_a_process_forked_by_a_callback(solver, n_epochs):
    """It runs in a process of its own: other libraries here may have threads that forbid a fork."""
    code = FORK_IN_A_CALLBACK.format(shape=MANY, solver=solver, n_epochs=n_epochs)
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[0]\n", "")


def test_a_checkpoint_in_another_thread_is_no_part_of_training(tmp_path):
    """A thread that saves while another fits writes the model of before, with its history."""
    users, items, values = random_ratings()
    model = FunkSVD(4, 2, random_state=0).fit((users, items), values)
    model.save(tmp_path / "before.npz")

    def save_elsewhere(epoch, logs):
        thread = threading.Thread(target=model.save, args=(tmp_path / f"{epoch}.npz",))
        thread.start()
        thread.join()

    model.set_params(n_epochs=3)
    callbacks = [LambdaCallback(on_epoch_end=save_elsewhere), ModelCheckpoint(tmp_path / "c.npz")]
    model.fit((users, items), values + 1, callbacks=callbacks)
    before = load(tmp_path / "before.npz")
    for epoch in range(3):
        saved = load(tmp_path / f"{epoch}.npz")
        assert saved.history_ == before.history_
        assert saved.n_epochs_ == 2
        np.testing.assert_array_equal(saved.item_factors_, before.item_factors_)
    assert load(tmp_path / "c.npz").n_epochs_ == 3
