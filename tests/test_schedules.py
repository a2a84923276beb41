"""Learning-rate schedules, alone and with callbacks that change the rate."""

import numpy as np
import pytest

from funksvd import FunkSVD, LambdaCallback, LearningRateScheduler, load

RATINGS = ([1, 2, 3, 1, 2, 3], [1, 1, 1, 2, 2, 3]), [4.0, 3, 2, 5, 1, 3]

# The rates of keras.optimizers.schedules (Keras 3.15) for a first rate of 0.1:
# ExponentialDecay(0.1, 1, 0.8), InverseTimeDecay(0.1, 1, 0.2), CosineDecay(0.1, 6).
KERAS = {
    "constant": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
    "exponential": [0.1, 0.08, 0.064, 0.0512, 0.04096, 0.032768],
    "inverse_time": [0.1, 0.0833333, 0.0714286, 0.0625, 0.0555556, 0.05],
    "cosine": [0.1, 0.0933013, 0.075, 0.05, 0.025, 0.0066987],
}


def rates(callbacks=None, **params):
    """Return the learning rates of a fit of six epochs."""
    model = FunkSVD(2, 6, random_state=0, **params).fit(*RATINGS, callbacks=callbacks)
    return model.history_["learning_rate"]


def decays(schedule):
    """Return the decay for the schedules that have one."""
    return {"learning_rate_decay": 0.2} if schedule in ("exponential", "inverse_time") else {}


@pytest.mark.parametrize("schedule", KERAS)
def test_schedules_are_those_of_keras(schedule):
    got = rates(learning_rate=0.1, learning_rate_schedule=schedule, **decays(schedule))
    np.testing.assert_allclose(got, KERAS[schedule], atol=6e-8)


def test_a_function_gives_the_rate_itself():
    assert rates(learning_rate_schedule=lambda epoch: 0.01 / (epoch + 1)) == [
        0.01 / e for e in range(1, 7)
    ]


@pytest.mark.parametrize(
    ("rate", "error"),
    [(0, ValueError), (np.nan, ValueError), ("fast", TypeError), (None, TypeError)],
)
def test_a_function_must_give_a_rate(rate, error):
    with pytest.raises(
        error, match=r"learning_rate_schedule\(2\) returned .* a finite number above 0"
    ):
        rates(learning_rate_schedule=lambda epoch: 0.01 if epoch < 2 else rate)


@pytest.mark.parametrize("schedule", [*KERAS, lambda epoch: 0.1 / (epoch + 1)])
def test_a_rate_that_a_callback_lowers_stays_lower(schedule):
    """After halving the rate in epoch 2 every rate is half of the planned one."""

    def halve(epoch, logs):
        if epoch == 2:
            model.current_learning_rate /= 2

    params = {"learning_rate_schedule": schedule, **decays(schedule)}
    planned = rates(**params)
    model = FunkSVD(2, 6, random_state=0, **params)
    model.fit(*RATINGS, callbacks=LambdaCallback(on_epoch_end=halve))
    got = model.history_["learning_rate"]
    assert got[:3] == planned[:3]
    np.testing.assert_allclose(got[3:], np.array(planned[3:]) / 2, rtol=1e-14)


def test_a_scheduler_gets_the_rate_of_the_epoch_before():
    """As in Keras with a constant rate: lr * 0.5 an epoch compounds."""
    got = rates(
        LearningRateScheduler(lambda epoch, rate: rate * 0.5),
        learning_rate=0.1,
        learning_rate_schedule="constant",
    )
    np.testing.assert_allclose(got, 0.1 * 0.5 ** np.arange(1, 7), rtol=1e-14)


def test_each_solver_has_a_rate_of_its_own():
    assert rates()[0] == 0.02
    assert rates(learning_rate=None) == rates(learning_rate=0.02)


def test_a_file_leaves_a_function_out(tmp_path):
    model = FunkSVD(2, 3, learning_rate_schedule=lambda epoch: 0.01, l1=(0, 0.0), n_jobs=1).fit(
        *RATINGS
    )
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.learning_rate_schedule == "exponential"
    assert tuple(again.l1) == (0, 0)
    assert again.partial_fit(*RATINGS).n_epochs_ == 3
