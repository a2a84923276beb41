"""Checkpoints: model files that also hold what `fit(resume=...)` needs to end with the same bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from funksvd.files import model_file as files
from funksvd.machine.kernels import LEVEL
from funksvd.parameters import sizes
from funksvd.version import __version__
from funksvd.weights import Weights

STATE, CALLBACK = "state.", "callback."  # how the names of arrays begin that a model file has not


def save(path, model, training):
    """A model file with the engine's state, the seed, the ratings' fingerprints and the callbacks' states."""
    arrays = {f"{STATE}{name}": array for name, array in training.engine.snapshot().items()}
    callbacks = []
    for i, (name, state) in enumerate(training.hooks.states()):
        packed = {key: pack(value, f"{CALLBACK}{i}.{key}", arrays) for key, value in state.items()}
        callbacks.append([name, packed])
    about = {
        "version": __version__,
        "kernels": LEVEL,
        "seed": training.seed,
        "callbacks": callbacks,
        "learning_rate": model.current_learning_rate,
        "stopped": model.stop_training,
        "schedule": callable(model.learning_rate_schedule),
        "seconds": model.history_["seconds"],
        "trained": trained(training.hyper),
        "ratings": training.fingerprints,
    }
    files.save(model, path, about, arrays)


def pack(value, name, arrays):
    """The value for JSON; arrays, and those of the model's parameters, go into `arrays`."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Weights):
        return {
            "params": {
                field.name: pack(getattr(value, field.name), f"{name}.{field.name}", arrays)
                for field in dataclasses.fields(value)
            }
        }
    return value


def unpack(value, arrays):
    """What `pack` packed."""
    if isinstance(value, dict) and value.keys() == {"array"}:
        return arrays[value["array"]]
    if isinstance(value, dict) and value.keys() == {"params"}:
        return Weights(**{name: unpack(part, arrays) for name, part in value["params"].items()})
    return value


@dataclass
class Checkpoint:
    """What a file holds; see `save`."""

    path: str
    params: dict[str, Any]
    history: dict[str, list[float]]
    n_epochs: int
    about: dict[str, Any]
    arrays: dict[str, np.ndarray]

    seed = property(lambda self: self.about["seed"])

    def check(self, training):
        """ValueError if the file is of another training; it says what differs."""
        for differs in differences(self, training):
            raise ValueError(f"{self.path} cannot be resumed: {differs}")
        training.hooks.matched(self.about["callbacks"])
        if self.about["kernels"] != LEVEL:
            warnings.warn(
                f"{self.path} was written by the kernels {self.about['kernels']!r}, these are {LEVEL!r}: "
                "the last bits may differ",
                stacklevel=4,
            )

    def restore(self, training):
        """Bring engine and model to where they were; returns [(callback, its state)]."""
        model, engine = training.model, training.engine
        state = {
            name.removeprefix(STATE): array
            for name, array in self.arrays.items()
            if name.startswith(STATE)
        }
        engine.make_room(state)
        wanted = {name: (array.shape, array.dtype) for name, array in engine.snapshot().items()}
        if wanted != {name: (array.shape, array.dtype) for name, array in state.items()}:
            raise ValueError(
                f"{self.path} is not a whole checkpoint: the arrays of its state have other names or shapes"
            )
        engine.restore(state)
        model.history_, model.n_epochs_ = (
            self.history | {"seconds": self.about["seconds"]},
            self.n_epochs,
        )
        model.current_learning_rate, model.stop_training = (
            self.about["learning_rate"],
            self.about["stopped"],
        )
        return [
            (callback, {key: unpack(value, self.arrays) for key, value in state.items()})
            for callback, state in training.hooks.matched(self.about["callbacks"])
        ]


def comparable(params, function):
    """{name: the value as text}; `function` says that the schedule, which a file does not keep, is one."""
    params = params | dict(zip(("n_factors", "n_epochs"), sizes(params), strict=True))
    text = {name: json.dumps(value, default=files.plain) for name, value in params.items()}
    return text | ({"learning_rate_schedule": "a function"} if function else {})


def trained(hyper):
    """What the arrays of a state depend on beside the parameters that a file keeps, in words."""
    return f"device={hyper.device.partition(':')[0]!r} and dtype={np.dtype(hyper.dtype).name!r}"


def differences(checkpoint, training):
    """What stands in the way of going on, in words, the first thing first."""
    about, params = checkpoint.about, checkpoint.params
    if about["version"] != __version__:
        yield f"it was written by funksvd {about['version']}, this is {__version__}"
    plan = training.engine_class.plan
    then_hyper = dataclasses.replace(training.hyper, n_epochs=sizes(params)[1])
    free = {"n_epochs"} if plan(then_hyper) == plan(training.hyper) else set()
    then = comparable(params, about["schedule"])
    now = comparable(
        files.kept_params(training.model), callable(training.hyper.learning_rate_schedule)
    )
    for name in now:
        if name not in free and then[name] != now[name]:
            yield f"{name} is {then[name]} there, {now[name]} here"
    if about["trained"] != trained(training.hyper):
        yield f"it was trained with {about['trained']}, not with {trained(training.hyper)}"
    if training.n_epochs < checkpoint.n_epochs:
        yield f"it has {checkpoint.n_epochs} epochs behind it, more than n_epochs={training.n_epochs}"
    theirs, ours = about["ratings"], training.fingerprints
    if (theirs[1] is None) != (ours[1] is None):
        yield f"it was trained {'with' if theirs[1] else 'without'} validation ratings"
    for kind, then, now in zip(("training", "validation"), theirs, ours, strict=True):
        for part, value in (now or {}).items():
            if then[part] != value:
                counted = f" ({then[part]} there, {value} here)" if part == "number" else ""
                yield f"the {kind} ratings are others: their {part} differs{counted}"


def read(path, make):
    """The `Checkpoint` in a file.

    Raises
    ------
    ValueError
        If it is no whole model file, or one without the state of a training.
    """
    model, about, arrays = files.opened(path, make)
    if about is None:
        raise ValueError(
            f"{path} is a model without the state of its training; ModelCheckpoint writes files to resume from"
        )
    return Checkpoint(
        os.fsdecode(path), files.kept_params(model), model.history_, model.n_epochs_, about, arrays
    )
