"""Stable sorts of ratings by their codes, by counting, on several threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from funksvd.boundary import refuse_code
from funksvd.machine.threads import CHUNK, parallel
from funksvd.ratings import _keys  # type: ignore[attr-defined]  # compiled


def threads_for_counts(n_keys: int, span: int, n_jobs: int) -> int:
    """Return how many threads may count keys, each with `span` counts of its own.

    Together these are at most as many as the keys, so that memory does not grow with the cores.
    """
    return max(1, min(n_jobs, n_keys // max(1, span)))


def count_keys(
    keys: np.ndarray,
    base: int,
    span: int,
    n_jobs: int,
) -> np.ndarray:
    """Return (span,) int64: how often each of the keys base, base + 1, ... occurs.

    Raises
    ------
    ValueError
        If a key is below `base`, or `base` + `span` or more.
    """

    def count_part(part: slice) -> np.ndarray:
        counts = np.zeros(span, np.int64)
        own = keys[part]
        outside = _keys.count(own, base, counts)
        if outside >= 0:
            refuse_code(int(own[outside]), base, span)
        return counts

    n_jobs = threads_for_counts(len(keys), span, n_jobs)
    length = max(CHUNK, -(-len(keys) // n_jobs))
    parts = [slice(start, start + length) for start in range(0, len(keys), length)]
    total = np.zeros(span, np.int64)
    for counts in parallel(count_part, parts, n_jobs):
        total += counts
    return total


def sorted_by(
    keys: np.ndarray,
    first: np.ndarray,
    second: np.ndarray | None,
    n: int,
    n_jobs: int,
    out: Sequence[np.ndarray | None] | None = None,
) -> tuple[Any, ...]:
    """Return one or two arrays sorted by keys; the sort is stable.

    It is a counting sort in which each thread has its part of the ratings; the number of threads
    changes no bit.

    Parameters
    ----------
    keys : (n_ratings,) int32
        At least 0 and below `n`.
    first, second : (n_ratings,) int32
        The arrays to sort; `second` may be None.
    n, n_jobs : int
    out : two arrays of the same length, or None
        Memory for the sorted arrays; None allocates it.

    Returns
    -------
    start, first, second
        start[key] is where the entries of a key start, and start[n] is the number of ratings.
    """
    n_ratings = len(keys)
    n_jobs = threads_for_counts(n_ratings, n, n_jobs)
    if out is None:
        out = [np.empty(n_ratings, np.int32), None]
        if second is not None:
            out[1] = np.empty(n_ratings, np.int32)
    bounds = [n_ratings * part // n_jobs for part in range(n_jobs + 1)]
    cursors = np.zeros((n_jobs, n), np.int64)

    def count_part(part: int) -> None:
        rows = slice(bounds[part], bounds[part + 1])
        _keys.count(keys[rows], 0, cursors[part])

    def deal_out_part(part: int) -> None:
        rows = slice(bounds[part], bounds[part + 1])
        own = None if second is None else second[rows]
        _keys.deal_out(
            keys[rows],
            first[rows],
            own,
            cursors[part],
            *out,
        )

    parallel(count_part, range(n_jobs), n_jobs)
    start = np.concatenate([[0], np.cumsum(cursors.sum(axis=0))])
    # Of one key's entries those of the first part come first, then those of the second, ...
    cursors[:] = np.cumsum(cursors, axis=0) - cursors + start[:-1]
    parallel(deal_out_part, range(n_jobs), n_jobs)
    return start, *out


def by_user(
    users: np.ndarray,
    items: np.ndarray,
    carried: np.ndarray | None,
    n_users: int,
    n_items: int,
    n_jobs: int,
) -> tuple[
    np.ndarray,
    np.ndarray,
    np.ndarray | None,
    list[np.ndarray | None],
]:
    """Return ratings sorted by user, then by item; the sort is stable.

    Parameters
    ----------
    users, items : (n,) int32
        Codes.
    carried : (n,) int32 or None
        A number of each rating that moves with it.
    n_users, n_items, n_jobs : int

    Returns
    -------
    start, items, carried
        User u has start[u]:start[u + 1] of the other two.
    lent : two arrays of n int32
        Memory that the sort needed and the caller may use.
    """
    start, *lent = sorted_by(items, users, carried, n_items, n_jobs)
    items = np.repeat(
        np.arange(n_items, dtype=np.int32),
        np.diff(start),
    )
    start, items, carried = sorted_by(lent[0], items, lent[1], n_users, n_jobs)
    return start, items, carried, [*lent]
