"""Stable sorts of ratings by their codes."""

from __future__ import annotations

import numpy as np

from funksvd.machine.threads import CHUNK, parallel
from funksvd.ratings import _keys


def count_keys(keys, base, span, n_jobs):
    """How often each of `span` keys from `base` on occurs."""

    def one(part):
        out = np.zeros(span, np.int64)
        _keys.count(keys[part], base, out)
        return out

    share = max(CHUNK, -(-len(keys) // n_jobs))
    return sum(parallel(one, [slice(s, s + share) for s in range(0, len(keys), share)], n_jobs))


def sorted_by(keys, first, second, n, n_jobs, out=None):
    """(start, first, second): two int32 arrays stably sorted by `keys` < n, and where each key's begin.

    A counting sort; each thread has its part of the ratings, which changes no bit. `second` may be None. `out`: arrays for
    the two.
    """
    if out is None:
        out = [
            None if column is None else np.empty(len(keys), np.int32) for column in (first, second)
        ]
    parts = [slice(len(keys) * p // n_jobs, len(keys) * (p + 1) // n_jobs) for p in range(n_jobs)]
    cursors = np.zeros((n_jobs, n), np.int64)
    parallel(lambda p: _keys.count(keys[parts[p]], 0, cursors[p]), range(n_jobs), n_jobs)
    start = np.concatenate([[0], np.cumsum(cursors.sum(0))])
    cursors[:] = np.cumsum(cursors, axis=0) - cursors + start[:-1]

    def deal_out(p):
        own = (None if column is None else column[parts[p]] for column in (first, second))
        _keys.deal_out(keys[parts[p]], *own, cursors[p], *out)

    parallel(deal_out, range(n_jobs), n_jobs)
    return start, *out


def by_user(users, items, carried, n_users, n_items, n_jobs):
    """(start, items, carried, lent): ratings sorted by user, then item, stable; start[u]:start[u + 1] are user u's places.

    carried : int32 of each rating that moves with it, or None. lent : two arrays of the ratings' number, free to use.
    """
    start, *lent = sorted_by(items, users, carried, n_items, n_jobs)
    items = np.repeat(np.arange(n_items, dtype=np.int32), np.diff(start))
    return *sorted_by(lent[0], items, lent[1], n_users, n_jobs), lent
