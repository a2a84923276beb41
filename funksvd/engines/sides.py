"""Ratings as the sampler needs them: standardised, and sorted by user as well as by item."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from funksvd.engines.crew import threads_for
from funksvd.machine.threads import CHUNK, parallel
from funksvd.ratings.parts import rows_of
from funksvd.ratings.sorting import by_user, sorted_by
from funksvd.ratings.triples import Ratings


class SideRatings(NamedTuple):
    """The ratings of one side, row after row; row r has start[r]:start[r + 1].

    start : (rows + 1,) int64
    others : (n,) int32 codes on the other side
    values : (n,) float32 standardised ratings
    root_weights : (n,) float32 square roots of the sample weights, or (0,) where there are none
    """

    start: np.ndarray
    others: np.ndarray
    values: np.ndarray
    root_weights: np.ndarray


class Standardised(NamedTuple):
    """Ratings of both sides, and the numbers that restore them: rating = mean + std * value.

    times : (n,) int64 times of the users' ratings, in seconds; None if they are unknown or unused
    """

    users: SideRatings
    items: SideRatings
    n_ratings: int
    total_weight: float
    mean: float
    std: float
    times: np.ndarray | None


def longest_row(given: Standardised) -> int:
    """Return how many ratings the longest row of either side has, but at least 8."""
    longest = 8
    for ratings in (given.users, given.items):
        counts = np.diff(ratings.start)
        longest = max(longest, int(counts.max()))
    return longest


class Columns(NamedTuple):
    """Codes, values, sample weights (or None) and times (or None) of ratings."""

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    sample_weights: np.ndarray | None
    times: np.ndarray | None


def columns_of(ratings: Ratings, timed: bool) -> Columns:
    """Return the ratings whose weight is above 0; the others say nothing.

    They have times only if they are `timed`.
    """
    users = ratings.users
    items = ratings.items
    values = np.asarray(ratings.values)
    sample_weights = ratings.weights
    times = ratings.times if timed else None
    if sample_weights is not None:
        counts = sample_weights > 0
        users = users[counts]
        items = items[counts]
        values = values[counts]
        sample_weights = sample_weights[counts]
        times = rows_of(times, counts)
    n = len(users)
    if n > np.iinfo(np.int32).max:
        raise ValueError(f"solver='gibbs' takes fewer than 2**31 ratings, got {n}")
    return Columns(users, items, values, sample_weights, times)


def standardised(ratings: Ratings, n_jobs: int, timed: bool = False) -> Standardised:
    """Return the ratings sorted both ways, in an order that is a function of their set alone.

    Sorting carries the ratings themselves where they are float32 and have neither sample weights
    nor times, so nothing has to be gathered after it: the set-up of 20 M ratings takes half the
    time.

    Parameters
    ----------
    ratings : Ratings
    n_jobs : int
    timed : bool
        Whether to return the times of the ratings, if they have any.
    """
    columns = columns_of(ratings, timed)
    n = len(columns.users)
    n_jobs = threads_for(n, n_jobs)
    shape = (ratings.n_users, ratings.n_items)
    rows = sorted_columns(columns, shape, n_jobs)
    sort_ties(rows)
    raw = rows.values
    sample_weights = rows.sample_weights
    total_weight = float(n)
    root_weights = np.empty(0, np.float32)
    if sample_weights is not None:
        total_weight = float(sample_weights.sum())
        root_weights = np.sqrt(sample_weights).astype(np.float32)
    parts = [slice(first, first + CHUNK) for first in range(0, n, CHUNK)]

    def weighted_sum(y: np.ndarray, part: slice) -> float:
        if sample_weights is not None:
            y = sample_weights[part] * y
        return float(np.sum(y))

    def sum_of_part(part: slice) -> float:
        return weighted_sum(raw[part].astype(np.float64), part)

    mean = sum(parallel(sum_of_part, parts, n_jobs)) / total_weight

    def squares_of_part(part: slice) -> float:
        centred = raw[part].astype(np.float64) - mean
        return weighted_sum(centred**2, part)

    variance = sum(parallel(squares_of_part, parts, n_jobs)) / total_weight
    std = variance**0.5 or 1.0
    values = raw
    if raw.dtype != np.float32:
        values = np.empty(n, np.float32)

    def standardise_part(part: slice) -> None:
        centred = raw[part].astype(np.float64) - mean
        values[part] = centred / std

    parallel(standardise_part, parts, n_jobs)
    users = SideRatings(rows.start, rows.others, values, root_weights)
    items = sorted_by_item(users, ratings.n_items, n_jobs, rows.lent)
    return Standardised(users, items, n, total_weight, mean, std, rows.times)


class SortedColumns(NamedTuple):
    """Ratings sorted by user, then by item; user u has start[u]:start[u + 1].

    `lent` are two int32 arrays of the ratings' number that are free to use.
    """

    start: np.ndarray
    others: np.ndarray
    values: np.ndarray
    sample_weights: np.ndarray | None
    times: np.ndarray | None
    lent: list[np.ndarray | None]


def sorted_columns(columns: Columns, shape: tuple[int, int], n_jobs: int) -> SortedColumns:
    """Return the ratings sorted by user, then by item; `shape` is (n_users, n_items)."""
    users, items, values, sample_weights, times = columns
    alone = sample_weights is None and times is None and values.dtype == np.float32
    if alone:
        carried = np.ascontiguousarray(values).view(np.int32)
    else:  # their places are sorted, and the rest is gathered
        carried = np.arange(len(users), dtype=np.int32)
    start, others, moved, lent = by_user(users, items, carried, *shape, n_jobs)
    assert moved is not None  # as `carried` is not
    if alone:
        values = moved.view(np.float32)
    else:
        values = gathered(values, moved, n_jobs)
    if sample_weights is not None:
        sample_weights = gathered(sample_weights, moved, n_jobs)
    if times is not None:
        times = gathered(times, moved, n_jobs)
    return SortedColumns(start, others, values, sample_weights, times, lent)


def gathered(
    array: np.ndarray,
    places: np.ndarray,
    n_jobs: int,
) -> np.ndarray:
    """Return array[places]."""
    out = np.empty(len(places), array.dtype)

    def gather_part(first: int) -> None:
        part = slice(first, first + CHUNK)
        np.take(array, places[part], out=out[part], mode="clip")

    parallel(gather_part, range(0, len(places), CHUNK), n_jobs)
    return out


def sort_ties(ratings: SortedColumns) -> None:
    """Sort the sample weights, times and values of repeated pairs among themselves, in place.

    So nothing depends on the place that a rating had in the input.
    """
    start = ratings.start
    others = ratings.others
    same = others[1:] == others[:-1]
    ends = start[1:-1]
    inner = ends[(ends > 0) & (ends < len(others))]
    same[inner - 1] = False
    if not same.any():
        return
    as_last = np.concatenate([[False], same])
    as_first = np.concatenate([same, [False]])
    tied = np.flatnonzero(as_last | as_first)
    rows = np.searchsorted(start, tied, side="right")
    columns = [ratings.values]
    for column in (ratings.sample_weights, ratings.times):
        if column is not None:
            columns.insert(0, column)
    keys = [column[tied] for column in columns]
    ranks = np.lexsort((*keys, others[tied], rows))
    order = tied[ranks]
    for column in columns:
        column[tied] = column[order]


def sorted_by_item(
    users: SideRatings,
    n_items: int,
    n_jobs: int,
    lent: list[np.ndarray | None],
) -> SideRatings:
    """Return the ratings of the items, given those of the users; `lent` arrays are written to."""
    counts = np.diff(users.start)
    codes = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    start, others, values = sorted_by(
        users.others, codes, users.values.view(np.int32), n_items, n_jobs, lent
    )
    root_weights = users.root_weights
    if len(root_weights):
        *_, bits = sorted_by(
            users.others,
            codes,
            root_weights.view(np.int32),
            n_items,
            n_jobs,
        )
        root_weights = bits.view(np.float32)
    return SideRatings(start, others, values.view(np.float32), root_weights)
