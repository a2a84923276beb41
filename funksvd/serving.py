"""Answers of a trained model: the best items of many users, similar rows, dense predictions, reasons, vectors for an index.

Functions of `Params` and codes; `FunkSVD` turns ids into codes and back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from funksvd import sampled
from funksvd.engine import Params, aligned, kernels, predict
from funksvd.ratings import by_user
from funksvd.threads import parallel

BLOCK = 384  # users of one call of the kernel: their factors stay in L2 while the items pass by
FEW = 16  # users for whom the items are not packed


class Seen:
    """Items that users must not get, by user: `rows(users)` gives a block's, in the codes of the model."""

    def __init__(self, start, items, user_codes=None, item_codes=None):
        self.start, self.items = start, items  # by user, ascending within each
        self.user_codes, self.item_codes = user_codes, item_codes  # from the model's users, to the model's items

    @classmethod
    def of_ratings(cls, ratings, tables):
        """Of `Ratings`, whose tables may be others than the model's."""
        start, items = ratings.by_user()
        (users, theirs), (items_table, their_items) = zip(tables, ratings._tables, strict=True)
        user_codes = None if users is theirs else lambda codes: theirs.encode(users.ids[codes], "user")
        item_codes = None if items_table is their_items else items_table.encode(their_items.ids, "item")
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
    params : Params
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
    codes, scores = np.full((len(users), width), -1, np.int32), np.full((len(users), width), np.nan, dtype)
    if not codes.size:
        return codes, scores
    kernel = kernels(dtype, source="_serve")
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
    factors = params.item_factors if len(items) == len(params.item_factors) else params.item_factors[items]
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
        return kernel.pack(factors, items[first * width : (first + step) * width], 1, panels[first : first + step])

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
    slack[:m] = rounding(params, users, np.sqrt(np.einsum("gfj,gfj->gj", queries, queries)).ravel()[:m], largest)
    limits[m:] = np.inf
    cursor, end = np.zeros(padded, np.int64), np.zeros(padded, np.int64)
    cursor[:m], end[:m] = start[:-1], start[1:]
    counts, kept = np.zeros(padded, np.int32), np.empty((padded, capacity), np.int32)
    scores = np.empty((padded, capacity), factors.dtype)
    kernel.select(queries, panels, items, slack, cursor, end, unwanted, n, limits, scores, kept, counts)
    chosen = [kept[row, :count] for row, count in enumerate(counts[:m])]
    for row in np.flatnonzero(counts < 0):  # too many items are as good as the n-th
        own = slice(row, row + 1)
        counts[own], chosen[row] = densely(params, users[own], n, items, start[own.start : row + 2] - start[row],
                                           unwanted[start[row] : start[row + 1]])  # fmt: skip
    return counts[:m], np.concatenate(chosen)


def asked(users, table, name):
    """(raw ids, whether one id alone was given): None is all ids of the table; a tuple is one id where ids are tuples."""
    if users is None:
        return table.ids, False
    if type(users).__name__ != table.kind and not isinstance(users, (str, bytes, dict, set)):
        if isinstance(users, tuple) and table.kind == "mixed":
            return [users], True
        if isinstance(users, (list, tuple)) or (hasattr(users, "__array__") and np.ndim(users)):
            return users, False
        if np.ndim(users):
            raise TypeError(f"{name} must be an id, or a list or array of ids, got {type(users).__name__}")
    return [users], True


def known_codes(raw, table, name, unknown="raise"):
    """int32 codes of raw ids; ValueError where ids are unknown and `unknown` is "raise"."""
    codes = table.encode(raw, name)
    missing = np.flatnonzero(codes < 0)
    if len(missing) and unknown == "raise":
        first = next(iter(raw[missing[0] : missing[0] + 1]))
        if len(codes) == 1:
            raise ValueError(f"{name} {first!r} is unknown to the model")
        raise ValueError(f"{len(missing)} of {len(codes)} {name}s are unknown to the model, the first is {first!r}")
    return codes


def checked_n(n, name="n", least=1):
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < least:
        raise ValueError(f"{name} must be an int >= {least}, got {n!r}")
    return int(n)


def chosen(value, name, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}")


def recommend(params, tables, users, n, exclude, candidates, unknown, n_jobs, risk=0.0):
    """(item codes, scores) of `top` for raw user ids; see `FunkSVD.recommend`."""
    chosen(unknown, "unknown", ("raise", "mean", "nan"))
    n = checked_n(n)
    codes = known_codes(users, tables[0], "user", unknown)
    items = None
    if candidates is not None:
        items = np.unique(tables[1].encode(candidates, "item"))
        items = items[items >= 0]
    seen = None
    if exclude is not None:
        if hasattr(exclude, "by_user"):
            seen = Seen.of_ratings(exclude, tables)
        else:
            pairs = (table.encode(raw, name) for table, raw, name in zip(tables, exclude, ("user", "item"), strict=True))
            seen = Seen.of_codes(*pairs, *map(len, tables))
    if risk:
        best, scores = sampled.risky_top(params, codes, n, seen, items, risk)
    else:
        best, scores = top(params, codes, n, seen, items, n_jobs)
    if unknown == "nan":
        best[codes < 0], scores[codes < 0] = -1, np.nan
    return best, scores


def ids_of(table, codes):
    """Ids of codes; with a code of -1 among them an object array, None there."""
    missing = codes < 0
    if not missing.any():
        return table.ids[codes]
    out = np.empty(codes.shape, object)
    out[~missing] = table.ids[codes[~missing]].tolist()
    return out


def similar(biases, factors, codes, n, measure, n_jobs):
    """(codes, scores) of the n rows with the largest cosine or inner product with each of these, themselves left out."""
    chosen(measure, "measure", ("cosine", "dot"))
    if measure == "cosine":
        norms = np.sqrt(np.einsum("nk,nk->n", factors, factors))[:, None]
        factors = factors / np.where(norms > 0, norms, 1)
    zeros = np.zeros_like(biases)
    itself = Seen(np.arange(len(codes) + 1), codes)
    queries = np.arange(len(codes), dtype=np.int32)
    model = Params(0.0, zeros[codes], zeros, np.ascontiguousarray(factors[codes]), factors)
    return top(model, queries, n, itself, None, n_jobs)


def predict_all(params, users, n_jobs):
    """(m, n_items) predictions for user codes, those of `engine.predict` to the last bit."""
    items = np.arange(len(params.item_factors), dtype=np.int32)
    out = np.empty((len(users), len(items)), params.user_factors.dtype)
    rows = max(1, (1 << 20) // max(1, len(items)))

    def one(first):
        part = users[first : first + rows]
        pairs = np.repeat(part, len(items)), np.tile(items, len(part))
        out[first : first + rows] = predict(params, *pairs).reshape(len(part), len(items))

    parallel(one, range(0, len(users), rows), n_jobs)
    return out


def long_table(users, items, scores, backend):
    """A table of the library `backend`: one row for each recommendation, with its rank from 1 on."""
    from funksvd.frames import narwhals

    there = ~np.isnan(scores)
    rank = np.broadcast_to(np.arange(1, scores.shape[1] + 1), scores.shape)
    kept = items[there]
    columns = {
        "user": np.repeat(users, there.sum(1)),
        "item": np.array(kept.tolist()) if kept.dtype == object and len(kept) and isinstance(kept[0], (int, str)) else kept,
        "rank": rank[there],
        "score": scores[there],
    }
    return narwhals().from_dict(columns, backend=backend).to_native()


class Explanation(NamedTuple):
    """Why a user gets this prediction for an item: prediction = baseline + contributions.sum() + rest.

    baseline : global mean + the item's bias
    items, ratings : the user's own ratings, the strongest pull first
    contributions : how far each of them pulls the prediction up or down
    rest : what the ratings given do not explain: training that has not settled, or ratings that were not given
    """

    prediction: float
    baseline: float
    items: npt.NDArray[Any]
    ratings: npt.NDArray[Any]
    contributions: npt.NDArray[Any]
    rest: float


def explain(params, tables, user, item, ratings, penalties):
    """`FunkSVD.explain` for raw ids; `penalties(counts)` are those of `fold_in.penalties`."""
    u, i = (known_codes([raw], table, name) for raw, table, name in zip((user, item), tables, ("user", "item"), strict=True))
    own = ratings.users == ratings._tables[0].encode([user], "user")[0]
    items = tables[1].encode(ratings.item_ids[ratings.items[own]], "item")
    values, items = ratings.values[own][items >= 0].astype(np.float64), items[items >= 0]
    pulls = contributions(params, i[0], items, values, penalties(np.array([len(items)]))[0])
    order = np.argsort(-np.abs(pulls), kind="stable")
    baseline = params.global_mean + float(params.item_biases[i[0]])
    prediction = float(predict(params, u, i)[0])
    return Explanation(prediction, baseline, tables[1].ids[items[order]], values[order], pulls[order],
                       prediction - baseline - float(pulls.sum()))  # fmt: skip


def contributions(params, item, items, values, penalty):
    """How far each rating of one user pulls the prediction for an item (Hu, Koren, Volinsky 2008, section 5).

    With the items given, a user's bias and factors are linear in the user's ratings: x = A^-1 sum_t z_t (r_t - mean - b_t),
    z = (1, q), A = sum_t z_t z_t' + penalty. So the prediction is a sum over them, of
    z_i' A^-1 z_t (r_t - mean - b_t).
    """
    z = params.item_factors[[item, *items]].astype(np.float64)
    weigh = np.full(z.shape[1], penalty[1])
    if np.isfinite(penalty[0]):  # else the model has no biases
        z, weigh = np.column_stack([np.ones(len(z)), z]), np.concatenate([penalty[:1], weigh])
    target, z = z[0], z[1:]
    inverse = np.linalg.solve(z.T @ z + np.diag(weigh), target)
    return (z @ inverse) * (values - params.global_mean - params.item_biases[items])


def item_vectors(params):
    """(n_items, k + 2) vectors whose inner product with `query_vectors` is the prediction: q, b_i, 1."""
    ones = np.ones(len(params.item_factors), params.item_factors.dtype)
    return np.column_stack([params.item_factors, params.item_biases, ones])


def query_vectors(params, users):
    """(m, k + 2) vectors p, 1, mean + b_u of user codes."""
    ones = np.ones(len(users), params.user_factors.dtype)
    rest = params.global_mean + params.user_biases[users]
    return np.column_stack([params.user_factors[users], ones, rest]).astype(params.user_factors.dtype)
