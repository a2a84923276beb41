"""What a callback is, and the list of them that `FunkSVD.fit` calls."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

_HOOKS = ("set_model", "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")


class Callback:
    """Base of all callbacks: every hook does nothing.

    Attributes
    ----------
    model : FunkSVD or None
        The model in training. During ``fit`` a callback may use its ``stop_training``, ``n_epochs``,
        ``current_learning_rate``, ``get_weights()``, ``set_weights(weights)``, ``predict(X)`` and ``save(path)``.
    params : dict
        ``epochs``, how many are planned, and ``initial_epoch``, from which training goes on (`resume`).
    """

    model: Any = None
    params: dict[str, int] = {"epochs": 0, "initial_epoch": 0}  # noqa: RUF012 - replaced, never written to

    def set_model(self, model):
        """Remember the model; called before all other hooks."""
        self.model = model

    def set_params(self, params):
        """Remember `params`; called after `set_model`."""
        self.params = params

    def on_train_begin(self, logs=None):
        """Called once, before the first epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        """Called before each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        """Called after each epoch, with its losses in `logs`."""

    def after_epoch(self, epoch, logs=None):
        """Called when all callbacks have had their `on_epoch_end`: what is saved here knows what they decided."""

    def on_train_end(self, logs=None):
        """Called once at the end, however training ended."""

    def get_state(self):
        """What a checkpoint keeps of this callback: a dict of what JSON knows, arrays and `get_weights()`; None: nothing."""
        return None

    def set_state(self, state):
        """Take over what `get_state` returned; called by ``fit(resume=...)`` after `on_train_begin`."""


class CallbackList:
    """Calls each callback in turn.

    Parameters
    ----------
    callbacks : None, Callback, or list or tuple of Callback
        Objects with the hooks of `Callback`; deriving from it is not required.
    model : FunkSVD
        Handed to each callback's ``set_model``.
    n_epochs, initial_epoch : int
        For the callbacks' `params`.

    Raises
    ------
    TypeError
        If an entry lacks a hook.
    """

    def __init__(self, callbacks, model, n_epochs=0, initial_epoch=0):
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, list | tuple):
            callbacks = [callbacks]
        for position, callback in enumerate(callbacks):
            _check_hooks(position, callback)
        self.callbacks = list(callbacks)
        self._begun = []
        params = {"epochs": n_epochs, "initial_epoch": initial_epoch}
        for callback in self.callbacks:
            callback.set_model(model)
            if hasattr(callback, "set_params"):
                callback.set_params(params)

    def on_train_begin(self, logs):
        """Begin each callback; if one refuses, end those that have begun."""
        try:
            for callback in self.callbacks:
                callback.on_train_begin(logs)
                self._begun.append(callback)
        except BaseException:
            self.on_train_end(logs)
            raise

    def on_epoch_begin(self, epoch, logs):
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs):
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)
        for callback in self.callbacks:
            if hasattr(callback, "after_epoch"):
                callback.after_epoch(epoch, logs)

    def states(self):
        """[(name of the class, state)] of the callbacks that have one."""
        found = [
            (type(c).__name__, c.get_state()) for c in self.callbacks if hasattr(c, "get_state")
        ]
        return [(name, state) for name, state in found if state is not None]

    def matched(self, states):
        """[(callback, its state)] for what `states` returned; ValueError where these are other callbacks."""
        own = [c for c in self.callbacks if hasattr(c, "get_state") and c.get_state() is not None]
        now, then = [type(c).__name__ for c in own], [name for name, _ in states]
        if now != then:
            raise ValueError(
                "the checkpoint cannot be resumed: callbacks that have a state are "
                f"{', '.join(then) or 'none'} there, {', '.join(now) or 'none'} here"
            )
        return [(callback, state) for callback, (_, state) in zip(own, states, strict=True)]

    def on_train_end(self, logs):
        """End, once, each callback that has begun, even if one before it raises."""
        begun, self._begun = self._begun, []
        with ExitStack() as stack:
            for callback in reversed(begun):  # an ExitStack runs the last one pushed first
                stack.callback(callback.on_train_end, logs)


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        Called as ``function(epoch, logs)``.
    on_train_begin, on_train_end : callable, optional
        Called as ``function(logs)``.
    """

    def __init__(
        self, on_epoch_begin=None, on_epoch_end=None, on_train_begin=None, on_train_end=None
    ):
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
        }
        self.__dict__.update({name: hook for name, hook in hooks.items() if hook is not None})


def _check_hooks(position, callback):
    if isinstance(callback, type):
        name = callback.__name__
        raise TypeError(f"callbacks[{position}] is the class {name}; pass an instance, {name}(...)")
    for hook in _HOOKS:
        if not callable(getattr(callback, hook, None)):
            raise TypeError(
                f"callbacks[{position}] is {callback!r}, which has no method {hook}; derive it from Callback "
                "or wrap functions, as in LambdaCallback(on_epoch_end=function)"
            )
