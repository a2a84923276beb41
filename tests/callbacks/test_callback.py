"""The list of callbacks: the order of the hooks, what an entry needs, and how training ends."""

import pytest
from replays import FakeModel

from funksvd.callbacks import Callback, CallbackList, LambdaCallback


def recorder(name, events):
    """Return a callback that adds its name and the hook to `events`."""
    return LambdaCallback(
        on_train_begin=lambda logs: events.append((name, "begin")),
        on_epoch_begin=lambda epoch, logs: events.append((name, "epoch", epoch)),
        on_epoch_end=lambda epoch, logs: events.append((name, "end of epoch", epoch)),
        on_train_end=lambda logs: events.append((name, "end")),
    )


def test_hooks_are_called_in_the_order_of_the_list():
    events = []
    callbacks = (recorder("a", events), recorder("b", events))
    model = FakeModel([{}, {}])
    model.fit(callbacks)
    stages = [
        ("begin",),
        ("epoch", 0),
        ("end of epoch", 0),
        ("epoch", 1),
        ("end of epoch", 1),
        ("end",),
    ]
    assert events == [(name, *stage) for stage in stages for name in "ab"]
    assert all(callback.model is model for callback in callbacks)


def test_callbacks_that_have_begun_end_when_another_cannot_begin():
    events = []
    bad = LambdaCallback(
        on_train_begin=lambda logs: 1 / 0, on_train_end=lambda logs: events.append("never")
    )
    with pytest.raises(ZeroDivisionError):
        FakeModel([{}]).fit([recorder("a", events), bad, recorder("b", events)])
    assert events == [("a", "begin"), ("a", "end")]


def test_all_end_once_even_if_one_raises():
    events = []
    hooks = CallbackList(
        [LambdaCallback(on_train_end=lambda logs: 1 / 0), recorder("b", events)], None
    )
    hooks.on_train_begin({})
    with pytest.raises(ZeroDivisionError):
        hooks.on_train_end({})
    hooks.on_train_end({})
    assert events == [("b", "begin"), ("b", "end")]


@pytest.mark.parametrize(
    ("given", "count"),
    [(None, 0), ([], 0), (Callback(), 1), ([Callback()], 1), ((Callback(), Callback()), 2)],
)
def test_list_accepts_none_one_or_many(given, count):
    assert len(CallbackList(given, None).callbacks) == count
    assert FakeModel([{}]).fit(given) == 1


def test_list_accepts_any_object_with_the_hooks():
    class Own:
        set_model = on_train_begin = on_epoch_begin = on_epoch_end = on_train_end = (
            lambda *arguments: None
        )

    assert FakeModel([{}]).fit(Own()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "loss",
            r"callbacks\[0\] is 'loss', which has no method set_model; derive it from Callback",
        ),
        ([Callback(), abs], r"callbacks\[1\] is .*abs.*LambdaCallback\(on_epoch_end=function\)"),
        ([Callback], r"callbacks\[0\] is the class Callback; pass an instance, Callback\(\.\.\.\)"),
        (LambdaCallback(on_epoch_end=3), "has no method on_epoch_end"),
    ],
)
def test_list_names_the_entry_that_lacks_a_hook(given, message):
    with pytest.raises(TypeError, match=message):
        CallbackList(given, None)


def test_lambda_callback_knows_its_hooks():
    with pytest.raises(TypeError):
        LambdaCallback(on_batch_end=print)
