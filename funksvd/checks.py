"""Checks of arguments: each names the argument, its value and the values that are allowed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    try:
        return math.isfinite(value)
    except (OverflowError, TypeError):  # an int that no float is near to; a complex number
        return False


def is_pair(value: Any) -> bool:
    """Return whether a value is a tuple or list of two finite numbers."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(is_number, value))


def checked_n(value: Any, name: str = "n", least: int = 1) -> int:
    """Return a count as an int; ValueError if it is no whole number or below `least`."""
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} must be an int >= {least}, got {value!r}")
    return int(value)


def check_count(name: str, value: Any, least: int = 0) -> Any:
    """Return a callback's count; TypeError if it is no int, ValueError if it is below `least`."""
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}; it must be an int")
    if value < least:
        raise ValueError(f"{name}={value!r}; it must be {least} or more")
    return value


def checked_rate(rate: Any, call: str) -> float:
    """Return the learning rate that a user's function returned, as a float.

    Raises
    ------
    TypeError, ValueError
        If it is no finite number above 0; `call` says in the message which call returned it.
    """
    message = f"{call} returned {rate!r}; it must return a finite number above 0"
    if not isinstance(rate, Real):
        raise TypeError(message)
    if not 0 < float(rate) < math.inf:
        raise ValueError(message)
    return float(rate)


def check_choice(value: Any, name: str, allowed: Sequence[str]) -> None:
    """Raise ValueError if a value is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def refuse_old_names(call: str, given: Iterable[str], new_names: Mapping[str, str]) -> None:
    """Raise TypeError if a call was given arguments that it does not know.

    `new_names` says what arguments of an earlier version are called now.
    """
    for name in given:
        if name in new_names:
            raise TypeError(f"{call} calls its argument {name!r} now {new_names[name]!r}")
        raise TypeError(f"{call} has no argument {name!r}")
