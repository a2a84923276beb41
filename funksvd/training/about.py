"""The record of a training in a checkpoint, and its schema.

Only what the schema allows is taken over from a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from funksvd.boundary import MOST
from funksvd.checks import is_number, is_whole


@dataclass(frozen=True)
class About:
    """The record of a training in a checkpoint; the fields are the names in the file.

    version, kernels, numpy : the funksvd, the build of its kernels and the NumPy that wrote it
    seed : seed of the training
    callbacks : [name of the class, packed state] of each callback that has a state
    learning_rate, stopped : the model's `current_learning_rate` and `stop_training`
    schedule : whether the learning-rate schedule is a function, which a file does not keep
    seconds : the history of that name, which a model file leaves out
    trained : `device_and_dtype` of the training
    ratings : fingerprints of the training and of the validation ratings, the latter or None
    """

    version: str
    kernels: str
    numpy: str
    seed: int
    callbacks: list[Any]
    learning_rate: float
    stopped: bool
    schedule: bool
    seconds: list[float]
    trained: str
    ratings: list[dict[str, Any] | None]


class Rule(NamedTuple):
    """A test of a field's value, and what it allows in words."""

    test: Callable[[Any], bool]
    words: str


def is_text(value: Any) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 0 on that a double can hold."""
    return is_whole(value) and 0 <= value <= MOST


def are_states(value: Any) -> bool:
    """Return whether a value is a list of [name, {name: value}]."""
    return isinstance(value, list) and all(is_named_state(entry) for entry in value)


def is_named_state(entry: Any) -> bool:
    """Return whether an entry is [name of a class, {name: value}]."""
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    name, state = entry
    return isinstance(name, str) and isinstance(state, dict)


def are_fingerprints(value: Any) -> bool:
    """Return whether a value is [fingerprint of training, that of validation or None]."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    train, held_out = value
    return is_fingerprint(train) and (held_out is None or is_fingerprint(held_out))


def is_fingerprint(value: Any) -> bool:
    """Return whether a value has the parts that `Ratings.fingerprint` returns."""
    if not isinstance(value, dict) or value.keys() != {*FINGERPRINT_PARTS}:
        return False
    return all(isinstance(value[name], kinds) for name, kinds in FINGERPRINT_PARTS.items())


# The parts of a fingerprint and their types.
FINGERPRINT_PARTS: dict[str, type | tuple[type, ...]] = {
    "number": int,
    "users' ids": str,
    "items' ids": str,
    "content": (int, str),
}
TEXT = Rule(is_text, "text")
FLAG = Rule(lambda value: isinstance(value, int), "true or false")
RULES = {
    "version": TEXT,
    "kernels": TEXT,
    "numpy": TEXT,
    "seed": Rule(lambda value: is_whole(value) and value >= 0, "a whole number of at least 0"),
    "callbacks": Rule(are_states, "a list of names and states"),
    "learning_rate": Rule(
        lambda value: is_number(value) and value >= 0, "a finite number of at least 0"
    ),
    "stopped": FLAG,
    "schedule": FLAG,
    "seconds": Rule(
        lambda value: isinstance(value, list) and all(map(is_number, value)), "a list of numbers"
    ),
    "trained": TEXT,
    "ratings": Rule(are_fingerprints, "the fingerprints of the ratings"),
}


def about_of(record: Any) -> About:
    """Return the record of a training as it stands in a file.

    Raises
    ------
    ValueError
        If it is no record, lacks a field, or holds one that no training writes.
    """
    if not isinstance(record, dict):
        raise ValueError("its record of the training is no record")
    names = [field.name for field in dataclasses.fields(About)]
    missing = [name for name in names if name not in record]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, rule in RULES.items():
        if not rule.test(record[name]):
            raise ValueError(f"its field {name!r} is not {rule.words}")
    return About(**{name: record[name] for name in names})


def check_history(history: dict[str, list[float]], names: set[str], n_epochs: int) -> None:
    """Raise ValueError unless a history has these names and an entry for each epoch."""
    if history.keys() != names:
        strange = sorted(history.keys() ^ names)
        raise ValueError(f"its history and this training differ in {', '.join(strange)}")
    for name, values in history.items():
        if len(values) != n_epochs:
            raise ValueError(
                f"its history has {len(values)} entries of {name} for {n_epochs} epochs"
            )
