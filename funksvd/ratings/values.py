"""Checks of rating values and of their weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from funksvd.boundary import own_values
from funksvd.ratings.ids import refuse_mask


def checked_values(ratings: npt.ArrayLike) -> np.ndarray:
    """Return a copy of ratings as a one-dimensional float32 or float64 array.

    An array that its owner fills again does not change it.

    Raises
    ------
    TypeError
        If they are not numbers.
    ValueError
        If some are masked, or if the array has more than one dimension.
    """
    refuse_mask(ratings, "ratings")
    values = np.asarray(ratings)
    if values.ndim != 1:
        raise ValueError(f"ratings must be one-dimensional, got shape {values.shape}")
    message = f"ratings must be numbers, got dtype {values.dtype}"
    if values.dtype.kind in "cmM":  # complex numbers and times, which NumPy would convert
        raise TypeError(message)
    try:
        return own_values(values)
    except (TypeError, ValueError) as error:
        raise TypeError(message) from error


def check_finite(values: np.ndarray) -> None:
    """Raise ValueError if there are no ratings, or if one is NaN or infinite."""
    if not len(values):
        raise ValueError("at least 1 rating is needed, got none")
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        bad = np.flatnonzero(~np.isfinite(values))
        raise ValueError(
            f"{len(bad)} of {len(values)} ratings are NaN or infinite, the first at index {bad[0]}"
        )


def checked_weights(weights: npt.ArrayLike, n: int) -> np.ndarray:
    """Return the weights of n ratings as float64.

    Raises
    ------
    TypeError
        If they are not numbers.
    ValueError
        If their number is not n, if one is negative, NaN or infinite, or if all are 0.
    """
    try:
        checked = np.asarray(weights).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError("weights must be numbers") from error
    if checked.shape != (n,):
        raise ValueError(f"weights must be one number a rating, ({n},), got shape {checked.shape}")
    bad = np.flatnonzero(~((checked >= 0) & np.isfinite(checked)))
    if len(bad):
        raise ValueError(
            f"weights must be finite and at least 0, got {checked[bad[0]]} at index {bad[0]}"
            f" ({len(bad)} of {n} are not)"
        )
    if not checked.any():
        raise ValueError("weights must not all be 0")
    return checked
