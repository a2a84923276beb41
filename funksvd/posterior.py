"""How sure a sampled model is: the layout of its posterior, and what is computed from it.

The sampler (`engines/samples.py`) fills three arrays of `Weights` to which this module alone gives
meaning.

`noise` (3,) float64, by index:

    NOISE_VARIANCE      variance of a rating of a user and an item whose noise weights are 1
    SCALE               factor on the rows' variances, see `engines.samples.posterior_of`
    KURTOSIS            of the residuals in units of their noise

`user_posterior` and `item_posterior` (rows + 1, 4) float32, one row for each id and then that of an
id without ratings, in the units of the ratings, by column:

    INVERSE_WEIGHT      mean of 1 / a, a being the noise weight
    BIAS_VARIANCE       B
    FACTOR_VARIANCE     V, mean over the factors
    SQUARED_NORM        |E p|^2 + n_factors V / 2
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from funksvd.features import RowMeans
from funksvd.hyper import Hyper
from funksvd.moods import mood_at, prior_variance
from funksvd.weights import Weights

NOISE_VARIANCE, SCALE, KURTOSIS = range(3)
INVERSE_WEIGHT, BIAS_VARIANCE, FACTOR_VARIANCE, SQUARED_NORM = range(4)

# Degrees of freedom of the noise weights: a ~ Gamma(NU / 2, rate NU / 2).
NU = 20.0

# The rank of a sampled model in units of n_factors, at most, see `engines.low_rank.terms_of`.
MOST_TERMS = 12

# Turns of the fit of a new row and its noise weight.
FIT_TURNS = 3
# Least divisor, so that rows of zeros divide by something.
TINY = 1e-30


class Posterior(NamedTuple):
    """The posterior of a model: its three arrays of `Weights`, see the module."""

    noise: np.ndarray
    users: np.ndarray
    items: np.ndarray


def model_variance(
    users: np.ndarray,
    items: np.ndarray,
    noise: float | np.ndarray = 0.0,
) -> np.ndarray:
    """Return (n,) variances of predictions, given posterior rows (n, 4), plus those of `noise`.

    The variance of p.q, for independent p and q with means P and Q, is V_p |Q|^2 + V_q |P|^2 +
    n_factors V_p V_q; the third term is halved between the squared norms of the rows.
    """
    # In the order of the columns.
    _, user_bias, user_factor, user_norm = users.T
    _, item_bias, item_factor, item_norm = items.T
    total: np.ndarray = noise + user_bias
    total = total + item_bias
    total = total + user_factor * item_norm
    total = total + user_norm * item_factor
    return total


def posterior_in(weights: Weights) -> Posterior:
    """Return the posterior of weights; ValueError if they have none."""
    noise = weights.noise
    users = weights.user_posterior
    items = weights.item_posterior
    if noise is None or users is None or items is None:
        raise ValueError(
            "standard deviations need a model of solver='gibbs' that has left its burn-in"
        )
    return Posterior(noise, users, items)


def check_sampled(weights: Weights) -> None:
    """Raise ValueError if the weights have no posterior."""
    posterior_in(weights)


def variance(
    weights: Weights,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Return (n,) float64: the variances of the ratings of pairs of codes; -1 is an unknown id.

    `times`, (n,) int64 seconds, say more about the users' moods, if the model has any.
    """
    posterior = posterior_in(weights)
    user_rows = posterior.users[users]
    item_rows = posterior.items[items]
    user_inverse = user_rows[:, INVERSE_WEIGHT]
    item_inverse = item_rows[:, INVERSE_WEIGHT]
    noise = posterior.noise[NOISE_VARIANCE] * user_inverse * item_inverse
    mood = mood_at(weights, users, times)
    if mood is not None:
        noise = noise + mood.variance
    return model_variance(user_rows, item_rows, noise)


def noise_weights(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise weights (n_users,), (n_items,): a, as the inverse of the mean of 1 / a.

    1 is usual; ratings of a row below it scatter more.
    """
    _, users, items = posterior_in(weights)
    user_inverse = users[:-1, INVERSE_WEIGHT]
    item_inverse = items[:-1, INVERSE_WEIGHT]
    return 1 / user_inverse, 1 / item_inverse


def interval(
    weights: Weights,
    predicted: tuple[np.ndarray, np.ndarray],
    coverage: float,
    scale: tuple[float, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (low, high) between which a share `coverage` of the ratings lies.

    They are those of Student's t distribution with the kurtosis of the residuals, which is fuller
    in the middle than a normal one of the same spread.

    Parameters
    ----------
    weights : Weights
    predicted : means, standard deviations : (n,) each
    coverage : float in (0, 1)
    scale : (lowest, highest) rating, to which the ends are clipped, or None
    """
    from scipy.special import stdtrit

    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be in (0, 1), got {coverage!r}")
    mean, std = predicted
    kurtosis = posterior_in(weights).noise[KURTOSIS]
    degrees = 4 + 6 / max(kurtosis - 3, 1e-3)
    quantile = stdtrit(degrees, (1 + coverage) / 2)
    scale_of_unit_variance = np.sqrt((degrees - 2) / degrees)
    width = quantile * scale_of_unit_variance * std
    low = mean - width
    high = mean + width
    if scale is not None:
        low = np.clip(low, *scale)
        high = np.clip(high, *scale)
    return low, high


def row_posterior(
    g: np.ndarray,
    y: np.ndarray,
    prior: np.ndarray,
    precision: np.ndarray,
    noise: np.ndarray,
    more: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (mean of x, its covariance, mean of 1 / a) of a row's posterior.

    y_j ~ N(g_j.x, noise_j / a + more_j), x ~ N(0, prior) and a ~ Gamma(NU / 2, rate NU / 2); the
    two are fitted in turns, each given the other.

    Parameters
    ----------
    g, y : (n, k), (n,)
    prior, precision : (k, k) covariance of x, and its inverse
    noise, more : (n,)
    """
    h = g @ prior
    n = len(y)
    inverse = 1.0
    for _ in range(FIT_TURNS):
        spread = noise * inverse + more
        if n < len(prior):  # the matrix inversion lemma: equations of the ratings instead
            among_ratings = h @ g.T + np.diag(spread)
            covariance = prior - h.T @ np.linalg.solve(among_ratings, h)
        else:
            weighted = g.T / spread
            covariance = np.linalg.inv(precision + weighted @ g)
        x = covariance @ (g.T @ (y / spread))
        squares = (y - g @ x) ** 2
        squares += np.sum(g @ covariance * g, axis=1)
        # a ~ Gamma((NU + n) / 2, rate (NU + sum of squares in units of the noise) / 2)
        in_units = np.sum(squares * inverse / spread)
        inverse = (NU + in_units) / (NU + n - 2)
    return x, covariance, inverse


class SideRows(NamedTuple):
    """Factors (rows, k) and posterior (rows + 1, 4) of one side of a model, as float64."""

    factors: np.ndarray
    posterior: np.ndarray


def side_rows(weights: Weights) -> tuple[SideRows, SideRows]:
    """Return the rows of users and those of items."""
    _, users, items = posterior_in(weights)
    return (
        SideRows(weights.user_factors.astype(np.float64), users.astype(np.float64)),
        SideRows(weights.item_factors.astype(np.float64), items.astype(np.float64)),
    )


class RowPrior(NamedTuple):
    """The prior of new rows of one side, and the moments of the other side that it is fitted to.

    covariance, precision : (k + 1, k + 1) of factors and bias; one is the other's inverse
    outer : (k, k) mean of q q' over the other side's rows
    mean_norm : mean of |E q|^2
    """

    covariance: np.ndarray
    precision: np.ndarray
    outer: np.ndarray
    mean_norm: float


def row_prior(
    own: SideRows,
    other: SideRows,
    scale: float,
    hyper: Hyper,
) -> RowPrior:
    """Return the prior of new rows of a side; `scale` is the noise's SCALE.

    The factors have the covariance of the model's own rows, scaled until predictions have the
    variance that those of an id without ratings have. In a model without sets it is not less than
    that of the rows; with sets it is that of the rows' deviations from their prior means.
    """
    k = own.factors.shape[1]
    unknown = own.posterior[-1]
    own_outer = own.factors.T @ own.factors / len(own.factors)
    outer = other.factors.T @ other.factors / len(other.factors)
    known = other.posterior[:-1]
    # SQUARED_NORM less the share of the variance in it, which SCALE has not touched.
    shares = hyper.n_factors * known[:, FACTOR_VARIANCE]
    shares = shares / (2 * max(scale, 1e-6))
    mean_norm = np.mean(known[:, SQUARED_NORM] - shares)
    wanted = unknown[FACTOR_VARIANCE] * mean_norm
    present = np.sum(own_outer * outer)
    stretch = wanted / max(present, TINY)
    if not hyper.sets:
        stretch = max(1.0, stretch)
    trace = max(np.trace(own_outer), TINY)
    ridge = np.eye(k) * 1e-6 * trace
    covariance = np.zeros((k + 1, k + 1))
    covariance[:k, :k] = own_outer * stretch + ridge
    covariance[k, k] = 1e-12
    if hyper.biased and unknown[BIAS_VARIANCE] > 0:
        covariance[k, k] = unknown[BIAS_VARIANCE]
    precision = np.linalg.inv(covariance)
    return RowPrior(covariance, precision, outer, float(mean_norm))


def variance_beside(others: np.ndarray, own: np.ndarray, weights: Weights) -> np.ndarray:
    """Return (n,) the variance that ratings have beside their noise, given the row of one side.

    It is that of the other side's rows, and of moods at times that are unknown.

    Parameters
    ----------
    others, own : (n, 4), (4,) posterior rows
    weights : Weights
    """
    total: np.ndarray = prior_variance(weights) + others[:, BIAS_VARIANCE]
    total = total + own[SQUARED_NORM] * others[:, FACTOR_VARIANCE]
    return total


def row_posteriors(
    weights: Weights,
    side: int,
    given: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    hyper: Hyper,
    means: RowMeans,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (biases, factors, posterior rows) of new rows of one side, given the other side.

    The other side's uncertainty counts as noise, and the row's noise weight is fitted with it. A
    row without ratings gets its prior means and an unknown id's row.

    Parameters
    ----------
    weights : Weights of a sampled model
    side : 0 (users) or 1 (items)
    given : start, others, values, sample_weights : (rows + 1,), (n,), (n,), (n,)
        Row r has the ratings start[r]:start[r + 1]: codes, ratings less mean and the other's bias,
        weights.
    hyper : Hyper
    means : RowMeans
        The prior means of the rows.

    Returns
    -------
    (rows,), (rows, k), (rows, 4) float32
    """
    start, others, values, sample_weights = given
    noise = posterior_in(weights).noise
    sides = side_rows(weights)
    own = sides[side]
    other = sides[1 - side]
    unknown = own.posterior[-1]
    prior = row_prior(own, other, noise[SCALE], hyper)
    n_rows = len(start) - 1
    k = other.factors.shape[1]
    biases = means.biases.astype(np.float32)
    factors = means.factors.astype(np.float32)
    rows = np.tile(unknown, (n_rows, 1))
    for row, (first, last) in enumerate(pairwise(start.tolist())):
        if first == last:
            continue
        part = slice(first, last)
        codes = others[part]
        beside = other.posterior[codes]
        g = np.column_stack([other.factors[codes], np.ones(last - first)])
        own_noise = noise[NOISE_VARIANCE] * beside[:, INVERSE_WEIGHT]
        own_noise = own_noise / np.maximum(sample_weights[part], 1e-12)
        more = variance_beside(beside, unknown, weights)
        y = values[part] - g[:, :k] @ means.factors[row] - means.biases[row]
        x, covariance, inverse = row_posterior(
            g, y, prior.covariance, prior.precision, own_noise, more
        )
        biases[row] += x[k]
        factors[row] += x[:k]
        spread = np.sum(covariance[:k, :k] * prior.outer)
        rows[row, INVERSE_WEIGHT] = inverse
        rows[row, BIAS_VARIANCE] = covariance[k, k] if hyper.biased else 0.0
        rows[row, FACTOR_VARIANCE] = spread / max(prior.mean_norm, TINY)
    return biases, factors, rows.astype(np.float32)
