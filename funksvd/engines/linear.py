"""Linear algebra of the sampler that is done once a sweep, in double precision."""

from __future__ import annotations

import numpy as np


def cholesky_of(a: np.ndarray) -> np.ndarray:
    """Return the Cholesky factor of a matrix of sums of squares plus a positive diagonal.

    The squares are summed in single precision; their rounding may outweigh the diagonal. Then a
    thousandth of the diagonal is added, at most: a shift of less variance, which costs mixing.

    Raises
    ------
    FloatingPointError
        If that is not enough.
    """
    for share in (0.0, 1e-6, 1e-5, 1e-4, 1e-3):
        try:
            lower: np.ndarray = np.linalg.cholesky(a + np.diag(share * np.diag(a)))
        except np.linalg.LinAlgError:
            continue
        return lower
    raise FloatingPointError(
        "the sampler's factors have left the range of single precision; lower n_factors"
    )
