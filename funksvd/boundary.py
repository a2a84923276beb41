"""The trust boundary: the checks that everything from outside passes on its way to a kernel.

A kernel indexes by the numbers that it is given and checks none of them. So each way into the
package is a door, and each door calls this module:

- `Ratings` takes arrays, tables and files: `own_keys`, `own_values`, `refuse_code`, `check_arrow`.
- `weights.check_fit` takes weights from a caller, `files.model_file` those of a file:
  `check_array`.
- `training.about` takes the record of a checkpoint, `training.checkpoints` the state of an engine:
  `check_whole`, `check_state`, `check_counts`.

`docs/guides/trust.md` lists the doors with all that is checked, and the promises made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from funksvd.checks import is_whole
from funksvd.machine.threads import CHUNK, cpu_count, parallel

# No count in a file may be larger: a double holds all whole numbers up to it.
MOST = 2**53


# ------------------------------------------------------------------------------- arrays of ratings


def own_keys(ids: np.ndarray, low: int, high: int) -> np.ndarray:
    """Return a read-only copy of integer ids from low to high, in 32 bits if these hold them.

    Nobody else can change the copy. It has half the bytes of int64, so that all that follows reads
    it faster.
    """
    bounds = np.iinfo(np.int32)
    is_narrow = bounds.min <= low and high <= bounds.max
    return copy_of(ids, np.dtype(np.int32 if is_narrow else np.int64))


def own_values(values: np.ndarray) -> np.ndarray:
    """Return a read-only copy of numbers, as float32 if they are that, and else as float64.

    Raises
    ------
    TypeError, ValueError
        If they are no numbers.
    """
    if values.dtype == np.float32:
        return copy_of(values, np.dtype(np.float32))
    return copy_of(values, np.dtype(np.float64))


def copy_of(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a contiguous, read-only copy of an array, made by all threads."""
    copy = np.empty(array.shape, dtype)

    def copy_part(start: int) -> None:
        part = slice(start, start + CHUNK)
        copy[part] = array[part]

    parallel(copy_part, range(0, len(array), CHUNK), cpu_count())
    copy.flags.writeable = False
    return copy


def refuse_code(code: int, base: int, span: int) -> None:
    """Raise the error of a code that is not from `base` to `base` + `span` - 1."""
    raise ValueError(
        f"the code {code} of a rating is not from {base} to {base + span - 1}: the ids are damaged,"
        " or were changed while they were read"
    )


def check_arrow(column: Any, name: str, full: bool) -> None:
    """Raise ValueError if an Arrow column is damaged; Arrow itself reads files without a check.

    Parameters
    ----------
    column : Array or ChunkedArray of pyarrow
    name : str
        It stands for the column in the message.
    full : bool
        Whether to look at every value, too, and not at the sizes of the buffers alone.
    """
    try:
        column.validate(full=full)
    except ValueError as error:  # the base class of Arrow's own
        raise ValueError(f"{name}: this Arrow column is damaged ({error})") from error


# -------------------------------------------------------------------------------- weights and state


def check_array(
    array: Any,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | None = None,
) -> None:
    """Raise ValueError if an object is no array of a shape and a dtype (None: of any numbers).

    `name` begins the message, such as "its user biases".
    """
    expected = f"{shape}" if dtype is None else f"{shape} and {dtype}"
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} are {type(array).__name__}, expected an array of {expected}")
    right_dtype = array.dtype.kind in "fiu" if dtype is None else array.dtype == dtype
    if array.shape != shape or not right_dtype:
        raise ValueError(
            f"{name} have shape {array.shape} and dtype {array.dtype}, expected {expected}"
        )


def check_state(state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError if a state has other arrays than a snapshot, or numbers that are not finite.

    Parameters
    ----------
    state : {name: array}, from outside
    like : {name: array}, the snapshot of the engine that the state is for
    """
    if state.keys() != like.keys():
        strange = sorted(state.keys() ^ like.keys())
        raise ValueError(f"its state and this training differ in the arrays {', '.join(strange)}")
    for name, expected in like.items():
        array = state[name]
        check_array(array, f"its state's {name}", expected.shape, expected.dtype)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"its state's {name} hold NaN or infinity")


def check_counts(state: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    """Raise ValueError if arrays of whole numbers in a state are not the expected ones."""
    for name, count in expected.items():
        found = state.get(name)
        if not np.array_equal(np.asarray(found), count):
            raise ValueError(f"its state's {name} are {found}, expected {count}")


# ------------------------------------------------------------------------------ numbers of a file


def check_whole(value: Any, name: str, low: int = 0, high: int = MOST) -> None:
    """Raise ValueError if a value is no whole number from low to high."""
    if not is_whole(value) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
