"""Checkpoints: model files that also hold the state of a training, for `fit(resume=...)`.

A checkpoint adds to a model file the state of the engine, as arrays, and a JSON record of the
training, `about.About`: the seed, fingerprints of the ratings, and the states of the callbacks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.boundary import check_state
from funksvd.files import model_file
from funksvd.hyper import Hyper, sizes
from funksvd.machine.kernels import LEVEL
from funksvd.machine.replacing import FilePath
from funksvd.training.about import About, about_of, check_history
from funksvd.version import __version__
from funksvd.weights import Weights, check_fit

# The names of arrays that a model file does not have begin with these.
STATE = "state."
CALLBACK = "callback."


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    path : name of the file
    params : the model's parameters that a file keeps
    history, n_epochs : the model's `history_`, without the seconds, and `n_epochs_`
    weights : the model's weights
    about : the record of the training
    arrays : state of the engine and arrays of the callbacks, by name
    """

    path: str
    params: dict[str, Any]
    history: dict[str, list[float]]
    n_epochs: int
    weights: Weights
    about: About
    arrays: dict[str, np.ndarray]

    @property
    def seed(self) -> int:
        """The seed of the training."""
        return self.about.seed

    def check(self, training: Any) -> None:
        """Check that a `Training` is the one of this file, before its engine is made.

        Raises
        ------
        ValueError
            If it is another one; the message says what differs.
        """
        for difference in differences(self, training):
            raise ValueError(f"{self.path} cannot be resumed: {difference}")
        with self._whole():
            check_history(
                self.history | {"seconds": self.about.seconds},
                names_of_history(training),
                self.n_epochs,
            )
            for callback, state in self._states(training):
                if hasattr(callback, "check_state"):
                    callback.check_state(state)
        if self.about.kernels != LEVEL:
            warnings.warn(
                f"{self.path} was written by the kernels {self.about.kernels!r}, these are"
                f" {LEVEL!r}: the last bits may differ",
                stacklevel=4,
            )
        if self.about.numpy != np.__version__:
            warnings.warn(
                f"{self.path} was written with NumPy {self.about.numpy}, this is"
                f" {np.__version__}: if it draws other random numbers, the model will differ",
                stacklevel=4,
            )

    def check_engine(self, engine: Any) -> None:
        """Check that the engine of a checked `Training` can go on from this state.

        Raises
        ------
        ValueError
            If names, shapes, dtypes or numbers are not those of such an engine. Nothing of the
            state is set before this.
        """
        state = self._engine_state()
        with self._whole():
            engine.check_state(state, self.n_epochs)
            engine.make_room(state)
            check_state(state, engine.snapshot())

    def restore(self, training: Any) -> list[tuple[Any, dict[str, Any]]]:
        """Bring the engine and the model of a checked `Training` to where they were.

        Returns
        -------
        list of (callback, its state)
        """
        training.engine.restore(self._engine_state())
        model = training.model
        model.history_ = self.history | {"seconds": self.about.seconds}
        model.n_epochs_ = self.n_epochs
        model.current_learning_rate = self.about.learning_rate
        model.stop_training = bool(self.about.stopped)
        return self._states(training)

    def _engine_state(self) -> dict[str, np.ndarray]:
        """Return the arrays of the engine's state by the names of its snapshot."""
        state = {}
        for name, array in self.arrays.items():
            if name.startswith(STATE):
                state[name.removeprefix(STATE)] = array
        return state

    def _states(self, training: Any) -> list[tuple[Any, dict[str, Any]]]:
        """Return (callback, its state) for the callbacks of a `Training`."""
        states = []
        for callback, packed in training.hooks.matched(self.about.callbacks):
            state = {name: unpack(value, self) for name, value in packed.items()}
            states.append((callback, state))
        return states

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Name the file in the ValueError of a check."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path} is not a whole checkpoint: {error}") from error


def save(
    path: FilePath,
    model: Any,
    training: Any,
) -> None:
    """Write the checkpoint of a model that a `Training` trains."""
    arrays = {}
    for name, array in training.engine.snapshot().items():
        arrays[f"{STATE}{name}"] = array
    callbacks = []
    for number, (name, state) in enumerate(training.hooks.states()):
        packed = {}
        for key, value in state.items():
            packed[key] = pack(value, f"{CALLBACK}{number}.{key}", arrays)
        callbacks.append([name, packed])
    about = About(
        version=__version__,
        kernels=LEVEL,
        numpy=np.__version__,
        seed=training.seed,
        callbacks=callbacks,
        learning_rate=model.current_learning_rate,
        stopped=model.stop_training,
        schedule=callable(model.learning_rate_schedule),
        seconds=model.history_["seconds"],
        trained=device_and_dtype(training.hyper),
        ratings=training.fingerprints,
    )
    model_file.save(model, path, vars(about), arrays)


def read(path: FilePath, make: Callable[..., Any]) -> Checkpoint:
    """Read the checkpoint in a file; `make` is the class of the model.

    Raises
    ------
    ValueError
        If it is no whole model file, or one without the state of a training.
    """
    model, training, arrays = model_file.opened(path, make)
    if training is None:
        raise ValueError(
            f"{path} is a model without the state of its training; ModelCheckpoint writes files to"
            " resume from"
        )
    try:
        about = about_of(training)
    except ValueError as error:
        raise ValueError(f"{path} is not a whole checkpoint: {error}") from error
    return Checkpoint(
        path=os.fsdecode(path),
        params=model_file.kept_params(model),
        history=model.history_,
        n_epochs=model.n_epochs_,
        weights=model._fitted_now().weights,
        about=about,
        arrays=arrays,
    )


def names_of_history(training: Any) -> set[str]:
    """Return the names in the history of a `Training`."""
    names = {"loss", "rmse", "seconds"}
    if training.engine_class.makes_steps:
        names.add("learning_rate")
    if training.held_out is not None:
        names |= {"val_loss", "val_rmse"}
    return names


def pack(
    value: Any,
    name: str,
    arrays: dict[str, np.ndarray],
) -> Any:
    """Return a callback's value for JSON; its arrays go into `arrays`, under names from `name`.

    In the file, {"array": name} stands for an array, and {"params": fields} for `Weights`.
    """
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Weights):
        fields = {}
        for field in dataclasses.fields(value):
            part = getattr(value, field.name)
            fields[field.name] = pack(part, f"{name}.{field.name}", arrays)
        return {"params": fields}
    return value


def unpack(value: Any, checkpoint: Checkpoint) -> Any:
    """Return the value that `pack` has packed.

    Raises
    ------
    ValueError
        If it names an array that is not there, or weights that do not fit the model of the file.
    """
    arrays = checkpoint.arrays
    if isinstance(value, dict) and value.keys() == {"array"}:
        name = value["array"]
        if not isinstance(name, str) or name not in arrays:
            raise ValueError(f"it lacks the array {name!r} of a callback")
        return arrays[name]
    if isinstance(value, dict) and value.keys() == {"params"}:
        return unpack_weights(value["params"], checkpoint)
    return value


def unpack_weights(packed: Any, checkpoint: Checkpoint) -> Weights:
    """Return the weights that `pack` has packed; otherwise like `unpack`."""
    names = {field.name for field in dataclasses.fields(Weights)}
    if not isinstance(packed, dict) or packed.keys() != names:
        raise ValueError("the weights of a callback have other fields than weights have")
    weights = Weights(**{name: unpack(part, checkpoint) for name, part in packed.items()})
    check_fit(weights, checkpoint.weights)
    return weights


def device_and_dtype(hyper: Hyper) -> str:
    """Return in words what a state depends on beside the parameters that a file keeps."""
    device = hyper.device.partition(":")[0]
    return f"device={device!r} and dtype={np.dtype(hyper.dtype).name!r}"


def differences(checkpoint: Checkpoint, training: Any) -> Iterator[str]:
    """Yield in words each difference that keeps a `Training` from going on from a checkpoint."""
    yield from other_version(checkpoint)
    yield from other_parameters(checkpoint, training)
    yield from other_device(checkpoint, training)
    yield from too_few_epochs(checkpoint, training)
    yield from other_ratings(checkpoint, training)


def other_version(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield whether another version of funksvd wrote the file."""
    if checkpoint.about.version != __version__:
        yield f"it was written by funksvd {checkpoint.about.version}, this is {__version__}"


def other_parameters(checkpoint: Checkpoint, training: Any) -> Iterator[str]:
    """Yield the parameters that differ; the number of epochs may, where no rate depends on it."""
    hyper = training.hyper
    then = as_text(checkpoint.params, checkpoint.about.schedule)
    now = as_text(
        model_file.kept_params(training.model),
        callable(hyper.learning_rate_schedule),
    )
    _, n_epochs = sizes(checkpoint.params)
    plan = training.engine_class.plan
    if plan(dataclasses.replace(hyper, n_epochs=n_epochs)) == plan(hyper):
        del now["n_epochs"]
    for name, value in now.items():
        if then[name] != value:
            yield f"{name} is {then[name]} there, {value} here"


def as_text(params: dict[str, Any], has_function: bool) -> dict[str, str]:
    """Return parameters as texts to compare, with the sizes that None stands for.

    `has_function` says that the learning-rate schedule is a function.
    """
    n_factors, n_epochs = sizes(params)
    params = params | {"n_factors": n_factors, "n_epochs": n_epochs}
    texts = {}
    for name, value in params.items():
        texts[name] = json.dumps(value, default=model_file.plain)
    if has_function:
        texts["learning_rate_schedule"] = "a function"
    return texts


def other_device(checkpoint: Checkpoint, training: Any) -> Iterator[str]:
    """Yield whether the device or the precision of the training differs."""
    then = checkpoint.about.trained
    now = device_and_dtype(training.hyper)
    if then != now:
        yield f"it was trained with {then}, not with {now}"


def too_few_epochs(checkpoint: Checkpoint, training: Any) -> Iterator[str]:
    """Yield whether the checkpoint is past the end of the training."""
    if training.n_epochs < checkpoint.n_epochs:
        yield (
            f"it has {checkpoint.n_epochs} epochs behind it, more than n_epochs={training.n_epochs}"
        )


def other_ratings(checkpoint: Checkpoint, training: Any) -> Iterator[str]:
    """Yield the parts of the ratings' fingerprints that differ."""
    train_then, held_out_then = checkpoint.about.ratings
    train_now, held_out_now = training.fingerprints
    if (held_out_then is None) != (held_out_now is None):
        yield f"it was trained {'with' if held_out_then else 'without'} validation ratings"
        return
    yield from other_fingerprint("training", train_then, train_now)
    yield from other_fingerprint("validation", held_out_then, held_out_now)


def other_fingerprint(
    kind: str,
    then: dict[str, Any] | None,
    now: dict[str, Any] | None,
) -> Iterator[str]:
    """Yield the parts of two fingerprints that differ; `kind` is "training" or "validation"."""
    if then is None or now is None:
        return
    for part, value in now.items():
        if then[part] == value:
            continue
        counted = ""
        if part == "number":
            counted = f" ({then[part]} there, {value} here)"
        yield f"the {kind} ratings are others: their {part} differs{counted}"
