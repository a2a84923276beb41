"""Checks of arguments: each names the argument, its value and the values that are allowed."""

from __future__ import annotations

import math
from numbers import Integral, Real

import numpy as np


def check_count(name, value, least=0):
    if not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}; it must be an int")
    if value < least:
        raise ValueError(f"{name}={value!r}; it must be {least} or more")
    return value


def checked_rate(rate, call):
    """What a user's function returned, as a float; TypeError or ValueError where it is no learning rate."""
    message = f"{call} returned {rate!r}; it must return a finite number above 0"
    if not isinstance(rate, Real):
        raise TypeError(message)
    if not 0 < float(rate) < math.inf:
        raise ValueError(message)
    return float(rate)


def whole(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def number(value):
    try:
        return (
            isinstance(value, (int, float, np.number))
            and not isinstance(value, bool)
            and math.isfinite(value)
        )
    except (OverflowError, TypeError):  # an int that no float is near to; a complex number
        return False


def pair(value):
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(map(number, value))


def text(*allowed):
    return lambda x: isinstance(x, str) and x in allowed, " or ".join(map(repr, allowed))


def checked_n(n, name="n", least=1):
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least:
        raise ValueError(f"{name} must be an int >= {least}, got {n!r}")
    return int(n)


def chosen(value, name, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")
