"""Answers of a trained model: the best items of many users, similar rows, dense predictions, reasons, vectors for an index.

Functions of `Weights` and codes; `FunkSVD` turns ids into codes and back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from funksvd.checks import check_choice, checked_n
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel
from funksvd.posterior import check_sampled, variance
from funksvd.ratings.ids import IdTable
from funksvd.ratings.sorting import by_user
from funksvd.ratings.tables import as_ids
from funksvd.serving.asked import known_codes
from funksvd.weights import Fitted, Weights, predict


def risky_top(params, users, n, seen, items, risk):
    """As `serving.top`, ranked by the prediction + risk x its standard deviation."""
    check_sampled(params)
    if items is None:
        items = np.arange(len(params.item_factors), dtype=np.int32)
    width = min(n, len(items))
    codes, scores = (
        np.full((len(users), width), -1, np.int32),
        np.full((len(users), width), np.nan, np.float32),
    )
    start, unwanted = (
        (np.zeros(len(users) + 1, np.int64), items[:0]) if seen is None else seen.rows(users)
    )
    for row, user in enumerate(users):
        left = np.setdiff1d(items, unwanted[start[row] : start[row + 1]])
        pairs = np.full(len(left), user, np.int32), left
        score = (predict(params, *pairs) + risk * np.sqrt(variance(params, *pairs))).astype(
            np.float32
        )
        best = np.lexsort((left, -score))[:width]
        codes[row, : len(best)], scores[row, : len(best)] = left[best], score[best]
    return codes, scores


BLOCK = 384  # users of one call of the kernel: their factors stay in L2 while the items pass by
FEW = 16  # users for whom the items are not packed


class Seen:
    """Items that users must not get, by user: `rows(users)` gives a block's, in the codes of the model."""

    def __init__(self, start, items, user_codes=None, item_codes=None):
        self.start, self.items = start, items  # by user, ascending within each
        self.user_codes, self.item_codes = (
            user_codes,
            item_codes,
        )  # from the model's users, to the model's items

    @classmethod
    def of_ratings(cls, ratings, tables):
        """Of `Ratings`, whose tables may be others than the model's."""
        start, items = ratings.by_user()
        (users, theirs), (items_table, their_items) = zip(tables, ratings.tables, strict=True)
        user_codes = (
            None if users is theirs else lambda codes: theirs.encode(users.ids[codes], "user")
        )
        item_codes = (
            None if items_table is their_items else items_table.encode(their_items.ids, "item")
        )
        return cls(start, items, user_codes, item_codes)

    @classmethod
    def of_codes(cls, users, items, n_users, n_items):
        """Of pairs of the model's codes; those with -1 are left out."""
        known = (users >= 0) & (items >= 0)
        return cls(*by_user(users[known], items[known], None, n_users, n_items, 1)[:2])

    def rows(self, users):
        """(start, items) of these users, a code of -1 has none."""
        if self.user_codes is not None:
            known = users >= 0
            codes = np.full(len(users), -1, np.int32)
            codes[known] = self.user_codes(users[known])
            users = codes
        counts = np.where(users >= 0, self.start[users + 1] - self.start[users], 0)
        start = np.concatenate([[0], np.cumsum(counts)])
        items = self.items[np.arange(start[-1]) + np.repeat(self.start[users] - start[:-1], counts)]
        if self.item_codes is not None:  # both tables are sorted, so the items stay so
            items = self.item_codes[items]
            known = items >= 0
            start = np.concatenate([[0], np.cumsum(known)])[start]
            items = items[known]
        return start, items


def top(params, users, n, seen=None, items=None, n_jobs=1):
    """The n best items of each user: by falling prediction, then by code.

    Parameters
    ----------
    params : Weights
    users : (m,) int32 codes, -1 for a user with neither bias nor factors
    n : int
    seen : Seen or None
    items : (c,) int32 codes, ascending, or None for all
    n_jobs : int

    Returns
    -------
    (m, min(n, c)) int32 codes, -1 at the end of a row with fewer items left
    (m, min(n, c)) scores, NaN there. They are those of `engine.predict` to the last bit, whatever the block or n_jobs.
    """
    dtype = params.user_factors.dtype
    if items is None:
        items = np.arange(len(params.item_factors), dtype=np.int32)
    width = min(n, len(items))
    codes, scores = (
        np.full((len(users), width), -1, np.int32),
        np.full((len(users), width), np.nan, dtype),
    )
    if not codes.size:
        return codes, scores
    kernel = kernels("serving._top", dtype)
    packed, size = None, FEW
    if len(users) > FEW and 4 * n < len(items):
        packed = packed_items(params, items, kernel, n_jobs)
        size = min(BLOCK, max(kernel.panel()[0], -(-len(users) // n_jobs)))

    def one(part):
        nothing = np.zeros(len(users[part]) + 1, np.int64), np.empty(0, np.int32)
        start, unwanted = nothing if seen is None else seen.rows(users[part])
        if packed is None:
            counts, chosen = densely(params, users[part], n, items, start, unwanted)
        else:
            counts, chosen = select(params, users[part], n, packed, items, start, unwanted, kernel)
        exact = predict(params, np.repeat(users[part], counts), chosen)
        kernel.rank(counts, exact, chosen, codes[part], scores[part])

    parallel(one, [slice(s, s + size) for s in range(0, len(users), size)], n_jobs)
    return codes, scores


def densely(params, users, n, items, start, unwanted):
    """(counts, chosen): for each user counts[t] items, one user's after another's, among which are the n best.

    All scores at once: for few users that takes less time than to pack the items.
    """
    factors = (
        params.item_factors
        if len(items) == len(params.item_factors)
        else params.item_factors[items]
    )
    queries = np.where(users[:, None] >= 0, params.user_factors[users], 0)
    scores = queries @ factors.T
    scores += params.item_biases[items]
    rows = np.repeat(np.arange(len(users)), np.diff(start))
    places = np.minimum(np.searchsorted(items, unwanted), len(items) - 1)
    there = items[places] == unwanted
    scores[rows[there], places[there]] = -np.inf
    n = min(n, len(items))
    limits = np.partition(scores, -n, axis=1)[:, -n]
    norm = factors.shape[1] ** 0.5 * max(factors.max(initial=0), -factors.min(initial=0))
    slack = rounding(params, users, np.sqrt(np.einsum("uf,uf->u", queries, queries)), norm)
    kept = np.flatnonzero((scores >= (limits - slack)[:, None]) & (scores > -np.inf))
    rows, places = np.divmod(kept, len(items))
    return np.bincount(rows, minlength=len(users)).astype(np.int32), items[places]


def rounding(params, users, norms, largest):
    """How far two sums of the same pair can lie apart, for users and items of these norms.

    Each errs by less than (k + 3) eps / 2 of the sum of all magnitudes.
    """
    dtype = params.user_factors.dtype
    own = np.where(users >= 0, np.abs(params.user_biases[users]), 0)
    magnitudes = norms * largest + np.abs(params.item_biases).max() + own + abs(params.global_mean)
    return ((2 * params.user_factors.shape[1] + 8) * np.finfo(dtype).eps * magnitudes).astype(dtype)


def packed_items(params, items, kernel, n_jobs):
    """(panels of biases and factors for the kernel, largest norm of an item)."""
    factors, width = params.item_factors, kernel.panel()[1]
    count, k = -(-len(items) // width), factors.shape[1]
    panels = aligned(count, (k + 1) * width, factors.dtype).reshape(count, k + 1, width)
    biases = np.full(count * width, -np.inf, factors.dtype)
    biases[: len(items)] = params.item_biases[items]
    panels[:, 0] = biases.reshape(count, width)
    step = 256

    def one(first):
        return kernel.pack(
            factors, items[first * width : (first + step) * width], 1, panels[first : first + step]
        )

    return panels, max(parallel(one, range(0, count, step), n_jobs)) ** 0.5


def select(params, users, n, packed, items, start, unwanted, kernel):
    """(counts, chosen) as of `densely`."""
    panels, largest = packed
    factors, rows, m = params.user_factors, kernel.panel()[0], len(users)
    groups, k = -(-m // rows), factors.shape[1]
    padded, capacity = groups * rows, 2 * n + 32
    queries = np.empty((groups, k, rows), factors.dtype)
    kernel.pack(factors, users, 0, queries)
    slack, limits = np.zeros(padded, factors.dtype), np.full(padded, -np.inf, factors.dtype)
    slack[:m] = rounding(
        params, users, np.sqrt(np.einsum("gfj,gfj->gj", queries, queries)).ravel()[:m], largest
    )
    limits[m:] = np.inf
    cursor, end = np.zeros(padded, np.int64), np.zeros(padded, np.int64)
    cursor[:m], end[:m] = start[:-1], start[1:]
    counts, kept = np.zeros(padded, np.int32), np.empty((padded, capacity), np.int32)
    scores = np.empty((padded, capacity), factors.dtype)
    kernel.select(
        queries, panels, items, slack, cursor, end, unwanted, n, limits, scores, kept, counts
    )
    chosen = [kept[row, :count] for row, count in enumerate(counts[:m])]
    for row in np.flatnonzero(counts < 0):  # too many items are as good as the n-th
        own = slice(row, row + 1)
        counts[own], chosen[row] = densely(
            params,
            users[own],
            n,
            items,
            start[own.start : row + 2] - start[row],
            unwanted[start[row] : start[row + 1]],
        )
    return counts[:m], np.concatenate(chosen)


class Request(NamedTuple):
    """What `FunkSVD.recommend` was asked for beside the users."""

    n: int
    exclude: Any
    candidates: Any
    unknown: str
    risk: float


def recommend(
    fitted: Fitted, users: Any, request: Request, n_jobs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (item codes, scores) of `top` for raw user ids; see `FunkSVD.recommend`."""
    check_choice(request.unknown, "unknown", ("raise", "mean", "nan"))
    n = checked_n(request.n)
    tables = fitted.tables
    codes = known_codes(users, tables[0], "user", request.unknown)
    items = None
    if request.candidates is not None:
        items = np.unique(tables[1].encode(as_ids(request.candidates, "item"), "item"))
        items = items[items >= 0]
    seen = seen_of(request.exclude, tables)
    if request.risk:
        best, scores = risky_top(fitted.weights, codes, n, seen, items, request.risk)
    else:
        best, scores = top(fitted.weights, codes, n, seen, items, n_jobs)
    if request.unknown == "nan":
        best[codes < 0] = -1
        scores[codes < 0] = np.nan
    return best, scores


def seen_of(exclude: Any, tables: tuple[IdTable, IdTable]) -> Seen | None:
    """Return the pairs of `exclude`, which is a `Ratings`, a pair of id arrays, or None."""
    if exclude is None:
        return None
    if hasattr(exclude, "by_user"):
        return Seen.of_ratings(exclude, tables)
    users, items = (
        table.encode(as_ids(raw, name), name)
        for table, raw, name in zip(tables, exclude, ("user", "item"), strict=True)
    )
    return Seen.of_codes(users, items, *map(len, tables))


def similar(biases, factors, codes, n, measure, n_jobs):
    """(codes, scores) of the n rows with the largest cosine or inner product with each of these, themselves left out."""
    check_choice(measure, "measure", ("cosine", "dot"))
    if measure == "cosine":
        norms = np.sqrt(np.einsum("nk,nk->n", factors, factors))[:, None]
        factors = factors / np.where(norms > 0, norms, 1)
    zeros = np.zeros_like(biases)
    itself = Seen(np.arange(len(codes) + 1), codes)
    queries = np.arange(len(codes), dtype=np.int32)
    model = Weights(0.0, zeros[codes], zeros, np.ascontiguousarray(factors[codes]), factors)
    return top(model, queries, n, itself, None, n_jobs)
