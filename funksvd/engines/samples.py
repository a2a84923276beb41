"""Sums over the samples that a sampler keeps, and the posterior that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from funksvd.posterior import (
    BIAS_VARIANCE,
    FACTOR_VARIANCE,
    INVERSE_WEIGHT,
    KURTOSIS,
    NOISE_VARIANCE,
    NU,
    SCALE,
    SQUARED_NORM,
    Posterior,
    model_variance,
)


@dataclass
class SampleSums:
    """Sums over the kept samples of a sampler, in standardised units; changed in place.

    Attributes
    ----------
    n_samples : int
    constant : float
        Sum of the predictions' constant terms.
    inverse_alpha : float
        Sum of 1 / alpha, the global noise variance.
    kurtosis : float
        Sum of the kurtoses of the residuals.
    prior : (2, 2)
        Of each side, sums of the prior variances of a bias and of a factor: those of a row without
        ratings.
    factors : (n_users, width), (n_items, width) float32
        Sums of the centred factors, padded with zeros.
    moments : (n_users, 4), (n_items, 4)
        Sums of the centred bias, its square, the drawn factors' squared norm, and 1 / a.
    pairs : users, items : (n_pairs,) int32 codes
        Pairs on which the spread of the predictions is measured.
    pair_sums : (n_pairs, 2)
        Sums of the predictions of the pairs and of their squares.
    """

    n_samples: int
    constant: float
    inverse_alpha: float
    kurtosis: float
    prior: np.ndarray
    factors: list[np.ndarray]
    moments: list[np.ndarray]
    pairs: tuple[np.ndarray, np.ndarray]
    pair_sums: np.ndarray


def posterior_of(
    sums: SampleSums,
    have_ratings: Sequence[np.ndarray],
    n_factors: int,
    std: float,
) -> Posterior:
    """Return the posterior of the samples.

    Factors that drift through a symmetry of the model seem less sure than the predictions that they
    make, so the rows' variances are scaled by a ratio: the predictions' spread over some pairs
    beside that of the formula.

    Parameters
    ----------
    sums : SampleSums
        Of at least one sample.
    have_ratings : (n_users,), (n_items,) bool
        Whether each row has ratings.
    n_factors : int
    std : float
        Standard deviation of the ratings, one standardised unit.
    """
    n = sums.n_samples
    user_rows, item_rows = (
        rows_of_moments(sums, side, rated, n_factors) for side, rated in enumerate(have_ratings)
    )
    means, squares = sums.pair_sums.T / n
    spread = np.maximum(squares - means**2, 0)
    users, items = sums.pairs
    variances = model_variance(user_rows[users], item_rows[items])
    formula = np.sum(variances)
    ratio = np.sum(spread) / formula if formula else 1.0
    for own, rated in zip((user_rows, item_rows), have_ratings, strict=True):
        scaled = np.append(rated, False)
        for column in (BIAS_VARIANCE, FACTOR_VARIANCE):
            own[scaled, column] *= ratio
        own[:, BIAS_VARIANCE] *= std**2
        own[:, FACTOR_VARIANCE] *= std
        own[:, SQUARED_NORM] *= std
    noise = np.empty(3)
    noise[NOISE_VARIANCE] = std**2 * sums.inverse_alpha / n
    noise[SCALE] = ratio
    noise[KURTOSIS] = sums.kurtosis / n
    return Posterior(noise, user_rows.astype(np.float32), item_rows.astype(np.float32))


def rows_of_moments(
    sums: SampleSums,
    side: int,
    rated: np.ndarray,
    n_factors: int,
) -> np.ndarray:
    """Return (rows + 1, 4): a side's posterior rows in standardised units, not yet scaled."""
    n = sums.n_samples
    bias, squared_bias, squared_norm, inverse_weight = sums.moments[side].T / n
    mean = sums.factors[side] / n
    norm = np.einsum("nk,nk->n", mean, mean, dtype=np.float64)
    bias_variance = np.maximum(squared_bias - bias**2, 0)
    factor_variance = np.maximum(squared_norm - norm, 0) / n_factors
    out = np.empty((len(norm) + 1, 4))
    out[:-1, INVERSE_WEIGHT] = inverse_weight
    out[:-1, BIAS_VARIANCE] = bias_variance
    out[:-1, FACTOR_VARIANCE] = factor_variance
    out[:-1, SQUARED_NORM] = norm + n_factors * factor_variance / 2
    prior_bias, prior_factor = sums.prior[side] / n
    unrated = np.append(~rated, True)
    out[unrated, INVERSE_WEIGHT] = NU / (NU - 2)
    out[unrated, BIAS_VARIANCE] = prior_bias
    out[unrated, FACTOR_VARIANCE] = prior_factor
    out[unrated, SQUARED_NORM] = n_factors * prior_factor / 2
    return out
