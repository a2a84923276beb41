"""New rows and new ratings for a trained model: ridge solutions given the other side, and rows in and out of a model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel
from funksvd.parameters import of_side, sizes
from funksvd.posterior import row_posteriors
from funksvd.ratings.ids import IdTable, table_and_keys
from funksvd.schedules import planned_rate

ROWS = 256  # of one call of the kernel
SIDES = ("user", "item")
LEAST = 1e-6  # of a penalty: with fewer ratings than factors there would be many solutions


def rows_of(params, side):
    """(biases, factors) of side 0 (users) or 1 (items)."""
    return getattr(params, f"{SIDES[side]}_biases"), getattr(params, f"{SIDES[side]}_factors")


def with_rows(params, tables, side, table, biases, factors, posterior=None):
    """(params, tables) with another side; what stays is shared."""
    changed = replace(
        params,
        **{
            f"{SIDES[side]}_biases": biases,
            f"{SIDES[side]}_factors": factors,
            f"{SIDES[side]}_posterior": posterior,
        },
    )
    return changed, tuple(table if s == side else tables[s] for s in (0, 1))


def penalties(hyper, counts, side=0):
    """(rows, 2): what the model's l2_bias and l2 weigh in the ridge solution of a side's row with so many ratings.

    A penalty that comes with every rating (reg_scale="rating") counts once a rating; one of rows once, and beside the
    mean over a mini-batch as often as there are ratings. An unbiased model's bias weighs infinitely. SGD from zero by
    steps of length T in all stops short of the minimum, about as far as a ridge of 1 / T would (Ali, Kolter, Tibshirani
    2019): the rows that the model learned are shrunk by that much, and so are new ones.
    The adaptive solvers have no such length: their steps do not shrink with the gradient.
    """
    scale = times(hyper, counts)
    l2_bias, l2 = (of_side(penalty, f"{SIDES[side]}s") for penalty in (hyper.l2_bias, hyper.l2))
    out = np.empty((len(counts), 2))
    out[:, 0] = np.maximum(l2_bias * scale, LEAST) if hyper.biased else np.inf
    out[:, 1] = np.maximum(l2 * scale, LEAST)
    return out + 1 / step_length(hyper)


def thresholds(hyper, counts, side=0):
    """(rows, 2): the same of l1_bias and l1, as what |x| weighs beside half the squared errors.

    In mini-batches l1 weighs beside the whole of them, as in Keras: see `minibatch.py`.
    """
    scale = times(hyper, counts) / (2 if hyper.batch_size > 1 else 1)
    return np.outer(
        scale, [of_side(penalty, f"{SIDES[side]}s") for penalty in (hyper.l1_bias, hyper.l1)]
    )


def times(hyper, counts):
    """How often a penalty counts in rows of so many ratings."""
    scale = np.maximum(counts, 1).astype(np.float64)
    if hyper.reg_scale == "row":
        scale[:] = hyper.n_ratings_ if hyper.batch_size > 1 else 1
    return scale


def step_length(hyper):
    """How far SGD's steps went in all, for a rating's gradient; infinite where that says nothing."""
    rates = hyper.history_.get("learning_rate", ())
    if hyper.solver != "sgd" or not rates:
        return np.inf
    if hyper.training == "featurewise":  # a rate a feature: the schedule is for its passes
        _, passes = sizes(
            {name: getattr(hyper, name) for name in ("n_factors", "n_epochs", "solver")}
        )
        named = {
            name: getattr(hyper, name) for name in ("learning_rate_schedule", "learning_rate_decay")
        }
        plan = SimpleNamespace(**named, n_epochs=passes, learning_rate=rates[0])
        rates = [planned_rate(plan, e) for e in range(passes)]
    # A batch of B takes a step of 2 / B for each of its ratings.
    return sum(rates) / (1 - hyper.momentum) * (2 / hyper.batch_size if hyper.batch_size > 1 else 1)


def solve(params, tables, ratings, side, hyper, n_jobs):
    """Biases and factors of one side's rows from their ratings, the other side given.

    Parameters
    ----------
    params, tables : Weights, (IdTable, IdTable)
        The model.
    ratings : Ratings
        Those of ids that the other side does not know are left out.
    side : 0 (users) or 1 (items)
    hyper : model, or namespace with its parameters and `history_`
    n_jobs : int

    Returns
    -------
    codes : (rows,) codes of `ratings` that have ratings
    biases, factors : (rows,), (rows, n_factors); zeros for a row all of whose ratings are left out
    posterior : (rows, 4) of a sampled model, whose rows are posterior means (`row_posteriors`); else None
    left_out : number of ratings left out
    """
    other = 1 - side
    own = (ratings.users, ratings.items)[side]
    tables[side].encode(
        ratings.tables[side].ids, SIDES[side]
    )  # TypeError where they are of another kind
    others = tables[other].encode(ratings.tables[other].ids, SIDES[other])[
        (ratings.users, ratings.items)[other]
    ]
    codes = np.unique(own)
    known = others >= 0
    # In an order that the order of the ratings does not change, so that sums have the same bits.
    order = np.lexsort((ratings.values, others, own))
    order = order[known[order]]
    rows = np.searchsorted(codes, own[order])
    start = np.searchsorted(rows, np.arange(len(codes) + 1))
    others = others[order]
    biases, factors = rows_of(params, other)
    values = ratings.values[order].astype(np.float64) - params.global_mean - biases[others]
    weights = (
        np.ones(len(order))
        if ratings.weights is None
        else ratings.weights[order].astype(np.float64)
    )
    left_out = int(len(known) - known.sum())
    if params.noise is not None:
        return codes, *row_posteriors(params, side, start, others, values, weights, hyper), left_out
    weigh = penalties(hyper, np.diff(start), side)
    k = factors.shape[1]
    out = np.zeros((len(codes), k + 1), factors.dtype)
    ridge = kernels("training._ridge", factors.dtype).ridge

    def one(first):
        part = slice(first, first + ROWS)
        places = start[first : first + ROWS + 1]
        here = slice(places[0], places[-1])
        ridge(
            places - places[0],
            others[here],
            values[here],
            weights[here],
            factors,
            weigh[part],
            np.empty((k + 3, k + 1)),
            out[part],
        )

    parallel(one, range(0, len(codes), ROWS), n_jobs)
    least = thresholds(hyper, np.diff(start), side)
    again = least.any(axis=1) & (np.diff(start) > 0)
    if hyper.non_negative:
        again |= (out[:, 1:] < 0).any(axis=1)
    for row in np.flatnonzero(again):
        here = slice(start[row], start[row + 1])
        out[row] = bounded(
            factors[others[here]],
            values[here],
            weights[here],
            weigh[row],
            least[row],
            hyper.non_negative,
        )
    return codes, out[:, 0].copy(), np.ascontiguousarray(out[:, 1:]), None, left_out


def bounded(others, values, weights, penalties, thresholds, non_negative):
    """(1 + k,): what the kernel `ridge` finds for one row, with L1 beside L2, or with no factor below 0."""
    from scipy.optimize import nnls  # not before: it takes longer than the rest of `import funksvd`

    columns = np.column_stack([np.ones(len(values)), others.astype(np.float64)])
    free = np.isfinite(penalties).repeat(
        [1, others.shape[1]]
    )  # the bias of a biased model, the factors
    # x is up - down, neither below 0, so that |x| = up + down; what may not be negative has no `down`.
    down = free & (~np.arange(len(free)).astype(bool) | (not non_negative))
    l2, l1 = (
        np.r_[both[free], both[down]]
        for both in (p.repeat([1, others.shape[1]]) for p in (penalties, thresholds))
    )
    equations = np.hstack([columns[:, free], -columns[:, down]]) * np.sqrt(weights)[:, None]
    # (sqrt(l2) x + l1 / sqrt(l2))^2 is l2 x^2 + 2 l1 x, and a constant
    x = nnls(
        np.vstack([equations, np.diag(np.sqrt(l2))]),
        np.r_[values * np.sqrt(weights), -l1 / np.sqrt(l2)],
    )[0]
    out = np.zeros(len(free))
    out[free] = x[: free.sum()]
    out[down] -= x[free.sum() :]
    return out


def extended(params, tables, side, ids, biases, factors, posterior=None):
    """(params, tables) with the rows of one side's ids put in, or put in the place of those it has. A copy."""
    table, (old_biases, old_factors) = tables[side], rows_of(params, side)
    merged = merge(table, ids)
    at = slice(None) if merged is table else merged.encode(table.ids, SIDES[side])
    new_biases = np.zeros(len(merged), old_biases.dtype)
    new_factors = aligned(len(merged), old_factors.shape[1], old_factors.dtype)
    new_biases[at], new_factors[at] = old_biases, old_factors
    at = merged.encode(ids, SIDES[side])
    new_biases[at], new_factors[at] = biases, factors
    if posterior is not None:
        old_posterior, fresh = getattr(params, f"{SIDES[side]}_posterior"), posterior
        posterior = np.repeat(old_posterior[-1:], len(merged) + 1, axis=0)
        posterior[merged.encode(table.ids, SIDES[side])] = old_posterior[:-1]
        posterior[at] = fresh
    return with_rows(params, tables, side, merged, new_biases, new_factors, posterior)


def merge(table, ids):
    """The id table of a table's ids and more of the same kind."""
    if (table.encode(ids, "new") >= 0).all():
        return table
    if table.kind == "int":
        return IdTable(np.union1d(table.ids, ids))
    return table_and_keys([*table.ids.tolist(), *np.asarray(ids).tolist()], "new")[0]


def only(params, tables, side, ids, biases, factors, posterior=None):
    """(params, tables) of one side's new rows alone; the other side's arrays are shared, not copied."""
    if posterior is not None:
        posterior = np.vstack([posterior, getattr(params, f"{SIDES[side]}_posterior")[-1:]])
    return with_rows(params, tables, side, IdTable(ids), biases, factors, posterior)
