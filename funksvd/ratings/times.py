"""Times of ratings in every form that callers have them, as whole seconds since 1970 (UTC).

Numbers are seconds. If all of them are as large as milliseconds, microseconds or nanoseconds since
1970 are today, they are read as these; numbers in two units are refused. Dates without a time zone
count as UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from funksvd.ratings.ids import refuse_mask

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Unit -> how many of it a second has, and the numbers from which on it is meant: today there are
# 1.8e9 seconds since 1970, 1.8e12 milliseconds, and so on.
UNITS = {
    "seconds": (1, 0.0),
    "milliseconds": (10**3, 1e11),
    "microseconds": (10**6, 1e14),
    "nanoseconds": (10**9, 1e17),
}
LEAST_OF_UNITS = np.array([least for _, least in UNITS.values()])


def checked_times(times: Any, n: int, name: str = "times") -> np.ndarray:
    """Return the times of n ratings as (n,) int64, in seconds since 1970 (UTC).

    Parameters
    ----------
    times : sequence of numbers, dates, datetimes or ISO 8601 texts
    n : number of ratings
    name : how messages call the times

    Raises
    ------
    TypeError
        If they are neither numbers nor dates, or some are in one form and some in another:
        numbers beside dates, or dates with a time zone beside others without one.
    ValueError
        If their number is not n, if one is missing or before 1970, or if some numbers are in one
        unit and some in another.
    """
    refuse_mask(times, name)
    values = np.asarray(times)
    if values.dtype.kind in "US":
        values = values.astype(str).astype(object)
    if values.shape != (n,):
        raise ValueError(f"{name} must be one time a rating, ({n},), got shape {values.shape}")
    if values.dtype.kind == "M":
        _refuse(np.isnat(values), values, f"{name} must not be missing", "drop these ratings")
        return _from_1970_on(values.astype("datetime64[s]").astype(np.int64), values, name)
    if values.dtype.kind == "O":
        reader = TimeReader(name)
        read = np.array(reader.seconds(values.tolist()), np.float64)
        _refuse(np.isnan(read), values, f"{name} must not be missing", "drop these ratings")
        values = read
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numbers of seconds or dates, got dtype {values.dtype}")
    if values.dtype.kind == "f":
        _refuse(~np.isfinite(values), values, f"{name} must be finite", "drop these ratings")
    return _seconds_of_numbers(_from_1970_on(values, values, name), name)


class TimeReader:
    """Turns texts and dates into seconds, and refuses two forms of them in one column.

    Parameters
    ----------
    name : str
        How messages call the times.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.example_of: dict[str, Any] = {}  # the first time in each form

    def seconds(self, times: Iterable[Any]) -> list[float]:
        """Return each time as a number, NaN where there is none.

        Raises
        ------
        TypeError
            If times are in two forms, now or since earlier calls.
        """
        numbers = [self._number(time) for time in times]
        self._check_forms()
        return numbers

    def note_numbers(self, numbers: np.ndarray) -> None:
        """Note that times came as these numbers; TypeError if others came in another form."""
        if len(numbers):
            self.example_of.setdefault("numbers", numbers[0])
        self._check_forms()

    def _check_forms(self) -> None:
        """Raise TypeError if times have come in more than one form."""
        if len(self.example_of) > 1:
            seen = " and ".join(f"{form} ({time})" for form, time in self.example_of.items())
            raise TypeError(f"{self.name} mix {seen}; write all of them in one form")

    def _number(self, time: Any) -> float:
        """Return one time as a number, NaN if it is missing or no time."""
        if isinstance(time, str):
            time = _parsed(time)
        if isinstance(time, np.datetime64):
            time = time.astype("datetime64[us]").item()
        if time is None or time != time:  # NaN and NaT
            return np.nan
        if isinstance(time, date) and not isinstance(time, datetime):
            time = datetime(time.year, time.month, time.day)
        if isinstance(time, datetime):
            return self._of_datetime(time)
        if isinstance(time, int | float | np.number) and not isinstance(time, bool):
            self.example_of.setdefault("numbers", time)
            return float(time)
        raise TypeError(f"{self.name} must be numbers of seconds or dates, got {time!r}")

    def _of_datetime(self, time: datetime) -> float:
        """Return the seconds of a datetime; without a time zone it counts as UTC."""
        form = "dates with a time zone"
        if time.tzinfo is None:
            form = "dates without one"
            self.example_of.setdefault(form, time)
            time = time.replace(tzinfo=UTC)
        self.example_of.setdefault(form, time)
        return (time - EPOCH).total_seconds()


def _parsed(text: str) -> float | datetime | None:
    """Return the number or the ISO 8601 date that a text spells, None if it spells neither."""
    text = text.strip()
    from funksvd.ratings.records import number_in  # its imports would slow down `import funksvd`

    number = number_in(text)
    if number is not None:
        return number
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _from_1970_on(seconds: np.ndarray, values: np.ndarray, name: str) -> np.ndarray:
    """Return `seconds`; ValueError if one is negative. `values` are the times as given."""
    problem = f"{name} must not be negative, that is, before 1970"
    _refuse(seconds < 0, values, problem, "drop these ratings, or count from another moment")
    return seconds


def _refuse(bad: np.ndarray, values: np.ndarray, problem: str, cure: str) -> None:
    """Raise ValueError if some times are bad."""
    if bad.any():
        places = np.flatnonzero(bad)
        raise ValueError(
            f"{problem}, got {values[places[0]]} at index {places[0]}"
            f" ({len(places)} of {len(bad)} are); {cure}"
        )


def _seconds_of_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """Return numbers of one unit, (n,), as int64 seconds; ValueError if two units are mixed."""
    if not len(values):
        return values.astype(np.int64)
    unit_of_least, unit_of_most = (
        int(np.searchsorted(LEAST_OF_UNITS, bound, side="right")) - 1
        for bound in (values.min(), values.max())
    )
    units = list(UNITS)
    if unit_of_least != unit_of_most:
        least, most = values.min(), values.max()
        raise ValueError(
            f"{name} are in mixed units: {least} reads as {units[unit_of_least]} since 1970"
            f" ({_date_of(least, units[unit_of_least])}) and {most} as {units[unit_of_most]}"
            f" ({_date_of(most, units[unit_of_most])}); convert all of them to seconds"
        )
    per_second, _ = UNITS[units[unit_of_least]]
    if per_second > 1:
        values = values // per_second
    if values.dtype.kind == "f":
        values = np.floor(values)
    seconds: np.ndarray = values.astype(np.int64)
    return seconds


def _date_of(number: float, unit: str) -> str:
    """Return the date that a number of a unit stands for."""
    per_second, _ = UNITS[unit]
    return str(np.datetime64(int(number // per_second), "s"))
