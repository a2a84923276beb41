"""The base class of callbacks, and the list of them that `FunkSVD.fit` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

NEEDED_HOOKS = ("set_model", "on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")

Logs = dict[str, float]
State = dict[str, Any]


class Callback:
    """Base class of all callbacks; its hooks do nothing.

    Attributes
    ----------
    model : FunkSVD or None
        The model in training. During `fit` a callback may use its `stop_training`, `n_epochs`,
        `current_learning_rate`, `get_weights()`, `set_weights(weights)`, `predict(X)` and
        `save(path)`.
    params : dict
        `epochs`, the number of planned epochs, and `initial_epoch`, the first epoch of this run,
        which is above 0 if training is resumed.
    """

    model: Any = None
    # `set_params` replaces this dict; nothing writes to it.
    params: dict[str, int] = {"epochs": 0, "initial_epoch": 0}  # noqa: RUF012

    def set_model(self, model: Any) -> None:
        """Remember the model; called before all other hooks."""
        self.model = model

    def set_params(self, params: dict[str, int]) -> None:
        """Remember `params`; called after `set_model`."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Prepare for training; called once, before the first epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Prepare for an epoch; called before each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """React to an epoch, whose losses are in `logs`; called after each epoch."""

    def after_epoch(self, epoch: int, logs: Logs | None = None) -> None:
        """Save an epoch; called once `on_epoch_end` of all callbacks has returned.

        A file that is written here therefore holds the decisions of all callbacks.
        """

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Clean up; called once, however training ended."""

    def get_state(self) -> State | None:
        """Return the state that a checkpoint keeps of this callback, or None if it has no state.

        The dict may hold values that JSON can hold, arrays, and the result of `get_weights()`.
        """
        return None

    def set_state(self, state: State) -> None:
        """Take over the result of `get_state`; called after `on_train_begin` if a fit resumes."""


class CallbackList:
    """Calls the hooks of several callbacks in turn.

    Parameters
    ----------
    callbacks : None, Callback, or list or tuple of Callback
        Any object that has the hooks of `Callback` will do; it need not be derived from it.
    model : FunkSVD
        Passed to the `set_model` of each callback.
    n_epochs, initial_epoch : int
        Passed to the `set_params` of each callback.

    Raises
    ------
    TypeError
        If an entry lacks a hook.
    """

    def __init__(
        self,
        callbacks: Callback | Sequence[Any] | None,
        model: Any,
        n_epochs: int = 0,
        initial_epoch: int = 0,
    ) -> None:
        listed: list[Any] = []
        if isinstance(callbacks, list | tuple):
            listed = list(callbacks)
        elif callbacks is not None:
            listed = [callbacks]
        for position, callback in enumerate(listed):
            check_hooks(position, callback)
        self.callbacks = listed
        self._begun: list[Any] = []
        params = {"epochs": n_epochs, "initial_epoch": initial_epoch}
        for callback in listed:
            callback.set_model(model)
            if hasattr(callback, "set_params"):
                callback.set_params(params)

    def on_train_begin(self, logs: Logs) -> None:
        """Begin each callback; if one raises, end those that have begun."""
        try:
            for callback in self.callbacks:
                callback.on_train_begin(logs)
                self._begun.append(callback)
        except BaseException:
            self.on_train_end(logs)
            raise

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Call `on_epoch_begin` of each callback."""
        for callback in self.callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Call `on_epoch_end` of each callback, and then `after_epoch` of each."""
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)
        for callback in self.callbacks:
            if hasattr(callback, "after_epoch"):
                callback.after_epoch(epoch, logs)

    def on_train_end(self, logs: Logs) -> None:
        """End, once, each callback that has begun, even if an earlier one raises."""
        begun = self._begun
        self._begun = []
        with ExitStack() as stack:
            for callback in reversed(begun):  # an ExitStack first calls the function pushed last
                stack.callback(callback.on_train_end, logs)

    def states(self) -> list[tuple[str, State]]:
        """Return (name of the class, state) of each callback that has a state."""
        return [(type(callback).__name__, state) for callback, state in self._with_state()]

    def matched(self, states: Sequence[tuple[str, State]]) -> list[tuple[Any, State]]:
        """Return (callback, its saved state) for the result of an earlier `states`.

        Raises
        ------
        ValueError
            If the callbacks that have a state are of other classes than they were then.
        """
        own = [callback for callback, _ in self._with_state()]
        names_now = [type(callback).__name__ for callback in own]
        names_then = [name for name, _ in states]
        if names_now != names_then:
            raise ValueError(
                "the checkpoint cannot be resumed: callbacks that have a state are "
                f"{', '.join(names_then) or 'none'} there, {', '.join(names_now) or 'none'} here"
            )
        return [(callback, state) for callback, (_, state) in zip(own, states, strict=True)]

    def _with_state(self) -> list[tuple[Any, State]]:
        """Return (callback, its state now) of each callback that has a state."""
        found = []
        for callback in self.callbacks:
            state = callback.get_state() if hasattr(callback, "get_state") else None
            if state is not None:
                found.append((callback, state))
        return found


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
        self,
        on_epoch_begin: Callable[[int, Logs], Any] | None = None,
        on_epoch_end: Callable[[int, Logs], Any] | None = None,
        on_train_begin: Callable[[Logs], Any] | None = None,
        on_train_end: Callable[[Logs], Any] | None = None,
    ) -> None:
        functions = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
        }
        for hook, function in functions.items():
            if function is not None:
                setattr(self, hook, function)


def check_hooks(position: int, callback: Any) -> None:
    """Raise TypeError if the entry of `callbacks` at a position lacks a hook or is a class."""
    if isinstance(callback, type):
        name = callback.__name__
        raise TypeError(f"callbacks[{position}] is the class {name}; pass an instance, {name}(...)")
    for hook in NEEDED_HOOKS:
        if not callable(getattr(callback, hook, None)):
            raise TypeError(
                f"callbacks[{position}] is {callback!r}, which has no method {hook}; derive it"
                " from Callback or wrap functions, as in LambdaCallback(on_epoch_end=function)"
            )
