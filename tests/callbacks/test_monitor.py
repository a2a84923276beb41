"""Callbacks that watch a key of the logs: the key must be there, and its better side known."""

import pytest
from replays import FakeModel

from funksvd.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint


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
def test_missing_monitor_is_named_with_the_keys_of_the_logs(make, monitor, logs, message):
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
