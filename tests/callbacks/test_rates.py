"""LearningRateScheduler sets the rate of each epoch and checks it."""

import math

import numpy as np
import pytest
from replays import NAN, FakeModel, keras_callbacks

from funksvd.callbacks import LambdaCallback, LearningRateScheduler


def test_learning_rates_are_those_of_keras():
    keras = keras_callbacks()
    rates = []
    for kind in (LearningRateScheduler, keras.LearningRateScheduler):
        model = FakeModel([{}] * 4)
        model.optimizer = type("Optimizer", (), {"learning_rate": 0.1})()
        model.fit(kind(lambda epoch, rate: rate * 0.5 if epoch else rate))
        rates.append((model.optimizer.learning_rate, model.current_learning_rate))
    (_, ours), (theirs, _) = rates
    assert ours == pytest.approx(0.01 / 8)
    assert theirs == pytest.approx(0.1 / 8)


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
