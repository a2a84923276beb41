"""The rows of new users and items, solved from their ratings with the other side given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from funksvd.engines.choose import engine_for
from funksvd.features import RowMeans, members_of, set_means
from funksvd.hyper import Hyper, of_side
from funksvd.machine.kernels import kernels
from funksvd.machine.threads import parallel
from funksvd.posterior import row_posteriors
from funksvd.ratings.triples import Ratings
from funksvd.schedules import planned_rate
from funksvd.training.exposing import exposure_rows
from funksvd.training.joining import SIDES, NewRows, posterior_of
from funksvd.weights import Fitted, Weights, rows_of

ROWS_OF_A_CALL = 256
# Least weight of a penalty: without one, fewer ratings than factors have many solutions.
LEAST_PENALTY = 1e-6


class Past(NamedTuple):
    """How a model was trained: the learning rate of each epoch, and the number of its ratings."""

    learning_rates: Sequence[float]
    n_ratings: int


def past_of(fitted: Fitted) -> Past:
    """Return how a model was trained, as far as new rows depend on it."""
    return Past(fitted.trained.history.get("learning_rate", []), fitted.trained.n_ratings)


class RowRatings(NamedTuple):
    """The ratings of the rows to solve, row after row; row r has start[r]:start[r + 1].

    others : codes on the other side
    values : ratings less the global mean and the other side's bias
    sample_weights : weight of each rating
    """

    start: np.ndarray
    others: np.ndarray
    values: np.ndarray
    sample_weights: np.ndarray


def penalties(hyper: Hyper, past: Past, counts: np.ndarray, side: int = 0) -> np.ndarray:
    """Return the weights of l2_bias and l2 in the ridge solution of rows with `counts` ratings.

    A penalty that comes with every rating (reg_scale="rating") counts once a rating; one of rows
    counts once, and beside the mean over a mini-batch as often as there are ratings. The bias of
    an unbiased model weighs infinitely.

    SGD from zero by steps of length T in all stops short of the minimum, about as far as a ridge
    of 1 / T would (Ali, Kolter and Tibshirani 2019). The rows that the model learned are shrunk by
    that much, and so are new ones. The adaptive solvers have no such length: their steps do not
    shrink with the gradient.

    Returns
    -------
    (rows, 2) float64
    """
    scale = times_counted(hyper, past, counts)
    name = f"{SIDES[side]}s"
    out = np.empty((len(counts), 2))
    out[:, 0] = np.inf
    if hyper.biased:
        out[:, 0] = np.maximum(of_side(hyper.l2_bias, name) * scale, LEAST_PENALTY)
    out[:, 1] = np.maximum(of_side(hyper.l2, name) * scale, LEAST_PENALTY)
    weighed: np.ndarray = out + 1 / step_length(hyper, past)
    return weighed


def thresholds(hyper: Hyper, past: Past, counts: np.ndarray, side: int = 0) -> np.ndarray:
    """Return (rows, 2): the weights of |bias| and |factor| beside half the squared errors.

    In mini-batches l1 weighs beside the whole of the squared errors, as in Keras.
    """
    scale = times_counted(hyper, past, counts)
    if hyper.batch_size > 1:
        scale = scale / 2
    name = f"{SIDES[side]}s"
    weighed: np.ndarray = np.outer(scale, [of_side(hyper.l1_bias, name), of_side(hyper.l1, name)])
    return weighed


def times_counted(hyper: Hyper, past: Past, counts: np.ndarray) -> np.ndarray:
    """Return how often a penalty counts in rows with `counts` ratings."""
    scale: np.ndarray = np.maximum(counts, 1).astype(np.float64)
    if hyper.reg_scale == "row":
        scale[:] = past.n_ratings if hyper.batch_size > 1 else 1
    return scale


def step_length(hyper: Hyper, past: Past) -> float:
    """Return how far SGD's steps went in all for a rating's gradient; infinite for others."""
    rates = past.learning_rates
    if hyper.solver != "sgd" or not rates:
        return np.inf
    if not engine_for(hyper).epoch_has_rate:  # the schedule is for the passes of an epoch
        plan = replace(hyper, learning_rate=rates[0])
        rates = [planned_rate(plan, done) for done in range(hyper.n_epochs)]
    length = sum(rates) / (1 - hyper.momentum)
    if hyper.batch_size > 1:  # a batch of B takes a step of 2 / B for each of its ratings
        length *= 2 / hyper.batch_size
    return length


def solve(
    fitted: Fitted,
    ratings: Ratings,
    side: int,
    hyper: Hyper,
    past: Past,
    n_jobs: int,
    rated: bool = True,
) -> NewRows:
    """Solve the rows of one side from their ratings, the other side given.

    Parameters
    ----------
    fitted : Fitted
    ratings : Ratings
        Those of ids that the other side does not know are left out.
    side : 0 (users) or 1 (items)
    hyper : Hyper
    past : Past
    n_jobs : int
    rated : bool
        Whether the ratings count, and not their pairs alone.

    Raises
    ------
    TypeError
        If the ids are of another type than the model's.
    """
    codes, known, given = ratings_by_row(fitted, ratings, side)
    left_out = int(len(known) - known.sum())
    exposure = None
    if fitted.weights.exposure is not None:
        pairs = (given.start, given.others, given.sample_weights)
        exposure = exposure_rows(fitted.weights, side, *pairs, n_jobs)
    if exposure is not None and fitted.weights.user_exposure is None:
        biases = np.zeros(len(codes), np.float32)
        return NewRows(codes, biases, exposure, None, left_out)
    means = set_means(fitted.weights, side, members_of(given.start, given.others))
    if not rated:
        return unrated_rows(fitted.weights, side, codes, means, left_out, exposure)
    if fitted.weights.noise is not None:
        biases, factors, posterior = row_posteriors(fitted.weights, side, given, hyper, means)
        return NewRows(codes, biases, factors, posterior, left_out, exposure)
    rows = penalised_rows(fitted, given, side, hyper, past, n_jobs)
    factors = np.ascontiguousarray(rows[:, 1:])
    return NewRows(codes, rows[:, 0].copy(), factors, None, left_out, exposure)


def penalised_rows(
    fitted: Fitted, given: RowRatings, side: int, hyper: Hyper, past: Past, n_jobs: int
) -> np.ndarray:
    """Return (rows, 1 + k) biases and factors under the penalties and bounds of the model."""
    _, others = rows_of(fitted.weights, 1 - side)
    counts = np.diff(given.start)
    l2 = penalties(hyper, past, counts, side)
    l1 = thresholds(hyper, past, counts, side)
    rows = ridge_rows(others, given, l2, n_jobs)
    again = l1.any(axis=1) & (counts > 0)
    if hyper.non_negative:
        again |= (rows[:, 1:] < 0).any(axis=1)
    for row in np.flatnonzero(again):
        own = slice(given.start[row], given.start[row + 1])
        rows[row] = bounded_row(
            others[given.others[own]],
            given.values[own],
            given.sample_weights[own],
            l2[row],
            l1[row],
            hyper.non_negative,
        )
    return rows


def unrated_rows(
    weights: Weights,
    side: int,
    codes: np.ndarray,
    means: RowMeans,
    left_out: int,
    exposure: np.ndarray | None,
) -> NewRows:
    """Return rows that are predicted by their prior means, with an exposure of their own.

    The prior means of a model without sets are 0, as those of an unknown id.
    """
    biases, factors = rows_of(weights, side)
    posterior = posterior_of(weights, side)
    return NewRows(
        codes,
        means.biases.astype(biases.dtype),
        means.factors.astype(factors.dtype),
        None if posterior is None else np.repeat(posterior[-1:], len(codes), axis=0),
        left_out,
        exposure,
    )


def ratings_by_row(
    fitted: Fitted, ratings: Ratings, side: int
) -> tuple[np.ndarray, np.ndarray, RowRatings]:
    """Return (codes of the rows, whether each rating's other id is known, the known ratings)."""
    other = 1 - side
    own_codes = (ratings.users, ratings.items)[side]
    other_codes = (ratings.users, ratings.items)[other]
    # Raises TypeError where the ids are of another type.
    fitted.tables[side].encode(ratings.tables[side].ids, SIDES[side])
    encoded = fitted.tables[other].encode(ratings.tables[other].ids, SIDES[other])
    others = encoded[other_codes]
    codes = np.unique(own_codes)
    known = others >= 0
    # An order that the order of the ratings does not change, so that sums have the same bits.
    columns = [ratings.values, others, own_codes]
    if ratings.weights is not None:
        columns.insert(0, ratings.weights)
    order = np.lexsort(columns)
    order = order[known[order]]
    rows = np.searchsorted(codes, own_codes[order])
    start = np.searchsorted(rows, np.arange(len(codes) + 1))
    others = others[order]
    biases, _ = rows_of(fitted.weights, other)
    values = ratings.values[order].astype(np.float64)
    values = values - fitted.weights.global_mean - biases[others]
    sample_weights = np.ones(len(order))
    if ratings.weights is not None:
        sample_weights = ratings.weights[order].astype(np.float64)
    return codes, known, RowRatings(start, others, values, sample_weights)


def ridge_rows(others: np.ndarray, given: RowRatings, l2: np.ndarray, n_jobs: int) -> np.ndarray:
    """Return (rows, 1 + n_factors): bias and factors of each row's ridge solution."""
    n_rows = len(given.start) - 1
    k = others.shape[1]
    out = np.zeros((n_rows, k + 1), others.dtype)
    ridge = kernels("training._ridge", others.dtype).ridge

    def solve_part(first: int) -> None:
        part = slice(first, first + ROWS_OF_A_CALL)
        start = given.start[first : first + ROWS_OF_A_CALL + 1]
        here = slice(start[0], start[-1])
        ridge(
            start - start[0],
            given.others[here],
            given.values[here],
            given.sample_weights[here],
            others,
            l2[part],
            np.empty((k + 3, k + 1)),
            out[part],
        )

    parallel(solve_part, range(0, n_rows, ROWS_OF_A_CALL), n_jobs)
    return out


def bounded_row(
    others: np.ndarray,
    values: np.ndarray,
    sample_weights: np.ndarray,
    l2: np.ndarray,
    l1: np.ndarray,
    non_negative: bool,
) -> np.ndarray:
    """Return (1 + k,) bias and factors of one row with L1 beside L2, or with no factor below 0.

    Parameters
    ----------
    others : (n, k) factors of the other side's rows
    values, sample_weights : (n,)
    l2, l1 : (2,) weights of the penalties of the bias and of a factor
    non_negative : bool
    """
    from scipy.optimize import nnls  # takes longer to import than the rest of funksvd

    k = others.shape[1]
    columns = np.column_stack([np.ones(len(values)), others.astype(np.float64)])
    l2 = l2.repeat([1, k])
    l1 = l1.repeat([1, k])
    free = np.isfinite(l2)  # the bias of a biased model, and the factors
    # x is up - down, neither below 0, so that |x| = up + down; a value that may not be negative
    # has no `down`.
    down = free.copy()
    if non_negative:
        down[1:] = False
    l2 = np.concatenate([l2[free], l2[down]])
    l1 = np.concatenate([l1[free], l1[down]])
    root = np.sqrt(sample_weights)
    equations = np.hstack([columns[:, free], -columns[:, down]]) * root[:, None]
    # (sqrt(l2) x + l1 / sqrt(l2))^2 is l2 x^2 + 2 l1 x, and a constant.
    x, _ = nnls(
        np.vstack([equations, np.diag(np.sqrt(l2))]),
        np.concatenate([values * root, -l1 / np.sqrt(l2)]),
    )
    out = np.zeros(k + 1)
    out[free] = x[: free.sum()]
    out[down] -= x[free.sum() :]
    return out
