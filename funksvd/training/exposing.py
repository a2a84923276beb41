"""The exposure beside the ratings: which items users take, and rows of new users and items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from funksvd.engines.choose import engine_for
from funksvd.engines.exposure import Settings, SidePairs, new_rows
from funksvd.hyper import SIZES_OF, Hyper
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights, exposure_of, rows_of


def exposure_beside(ratings: Ratings, hyper: Hyper, seed: int, n_jobs: int) -> dict[str, Any]:
    """Return the exposure of the pairs of ratings, as the fields of `Weights` that hold it.

    It is that of solver="ials" with its default sizes.
    """
    n_factors, n_epochs = SIZES_OF["ials"]
    own = replace(hyper, solver="ials", n_factors=n_factors, n_epochs=n_epochs)
    engine = engine_for(own)(ratings, None, own, seed=seed, n_jobs=n_jobs)
    for epoch in range(n_epochs):
        engine.epoch(epoch, 1.0)
    weights = engine.weights()
    assert weights.exposure is not None  # as this engine's always
    # Sorted, so that the order of the rows changes no bit of the deviation.
    values = np.sort(ratings.values).astype(np.float64)
    spread = float(values.std()) or 1.0
    return {
        "exposure": np.append(weights.exposure, [spread, values[0], values[-1]]),
        "user_exposure": weights.user_factors,
        "item_exposure": weights.item_factors,
    }


def exposure_rows(
    weights: Weights,
    side: int,
    start: np.ndarray,
    others: np.ndarray,
    sample_weights: np.ndarray,
    n_jobs: int,
) -> np.ndarray:
    """Return (rows, k): the solution of each new row of side 0 (users) or 1 (items).

    Parameters
    ----------
    weights : Weights of a model that knows the exposure
    side : int
    start : (rows + 1,); row r has the pairs start[r]:start[r + 1]
    others, sample_weights : (n,) codes on the other side, and weights of the pairs
    n_jobs : int
    """
    assert weights.exposure is not None  # as the caller asks
    factors = exposure_of(weights, 1 - side)
    if factors is None:  # solver="ials" alone
        _, factors = rows_of(weights, 1 - side)
    pairs = SidePairs(start, others, np.sqrt(sample_weights).astype(np.float32))
    settings = Settings(*weights.exposure[:2].tolist())
    return new_rows(factors, pairs, settings, n_jobs)


def with_new_rows(
    old: np.ndarray | None,
    new: np.ndarray | None,
    n_rows: int,
    at: np.ndarray | slice,
    new_at: np.ndarray,
) -> np.ndarray | None:
    """Return (n_rows, k): the old rows at `at` and the new ones, if there are any, at `new_at`."""
    if old is None:
        return None
    factors = np.zeros((n_rows, old.shape[1]), np.float32)
    factors[at] = old
    if new is not None:
        factors[new_at] = new
    return factors
