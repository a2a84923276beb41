"""The engine of mini-batches: exactly what Keras does with two embeddings, over the kernels of `_minibatch.pyx`.

Each step is that of Keras for the loss of one batch of B ratings: the mean of w e^2 (w: `sample_weight`), and with
reg_scale="row" the sum of l2 x^2 + l1 |x| over **all** rows (its `embeddings_regularizer`), with "rating" the mean over
the batch of the same for the rows of each of its ratings. Its gradient has a factor 2, -2 e q + 2 l2 p + l1 sign(p), that
the per-rating engine leaves out: for equal steps a learning rate is half of that engine's, l1 is twice its l1, l2 is the
same. Every row takes a step with every batch, rated in it or not: its moments go on.
"""

from __future__ import annotations

import numpy as np

from funksvd.engines.contract import Engine
from funksvd.engines.start import first_state, rule, start_factors
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import team
from funksvd.parameters import of_side, solver_of
from funksvd.ratings import _keys
from funksvd.ratings.bands import users_have_more
from funksvd.weights import PAIRS_OF_A_CALL, Weights, predict

DEAL = 1 << 16  # ratings that are dealt to the batches at a time: their shuffle stays in the cache
MOST = 10**9  # of NumPy's hypergeometric distribution
BUSY = 50_000  # ratings and rows of a step below which threads cost more than they bring


def ordered(rows, others, n_rows, n_others):
    """The places of ratings by (row, other), ties in the order they come; where the ratings of each row start."""
    by_other, out, start = (
        np.empty(len(rows), np.int32),
        np.empty(len(rows), np.int32),
        np.zeros(n_rows + 1, np.int64),
    )
    _keys.group(
        others, np.arange(len(rows), dtype=np.int32), np.zeros(n_others + 1, np.int64), by_other
    )
    _keys.group(rows[by_other], by_other, start, out)
    return out, start


def canonical(rows, others, values, weights, n_rows, n_others):
    """`ordered`, and repeated pairs by value and weight: the same for any order of the ratings."""
    order, start = ordered(rows, others, n_rows, n_others)
    same = (np.diff(rows[order]) == 0) & (np.diff(others[order]) == 0)
    if same.any():
        tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
        some = order[tied]
        keys = (values[some], others[some], rows[some])
        order[tied] = some[np.lexsort(keys if weights is None else (weights[some], *keys))]
    return order, start


class MiniBatchEngine(Engine):
    """Keras' algorithm; the methods and the arguments are those of `SgdEngine`.

    The side with more ids is the one that a batch's ratings are grouped by, so that users and items can be swapped
    without changing a bit. With shuffle=True a batch is a random part of the ratings, drawn by the seed and the epoch,
    whatever their order; with shuffle=False the batches are the ratings as they were given, B at a time.
    """

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        n = len(ratings)
        if n >= MOST:
            raise ValueError(
                f"batch_size must be 1 for {MOST:,} ratings or more, got {hyper.batch_size} for {n:,}"
            )
        self.hyper, self.k, self.dtype, self.seed = (
            hyper,
            hyper.n_factors,
            np.dtype(hyper.dtype),
            seed,
        )
        self.kernel, self.solver = kernels("engines._minibatch", self.dtype), solver_of(hyper)
        codes, sizes = (ratings.users, ratings.items), (ratings.n_users, ratings.n_items)
        counts = [np.bincount(c, minlength=size) for c, size in zip(codes, sizes, strict=True)]
        self.users_first = users_have_more(*counts)
        a, b = (0, 1) if self.users_first else (1, 0)
        self.sizes, self.batch_size = (sizes[a], sizes[b]), min(hyper.batch_size, n)
        self.n_batches = -(-n // self.batch_size)
        self.n_jobs = n_jobs if min(n, self.batch_size + sum(sizes)) >= BUSY else 1

        order, self.start = canonical(
            codes[a], codes[b], ratings.values, ratings.weights, *self.sizes
        )
        weight = np.ones(0) if ratings.weights is None else ratings.weights[order]
        self.total_weight = float(weight.sum()) if len(weight) else float(n)
        values = ratings.values[order]
        total = np.sum(values * weight if len(weight) else values, dtype=np.float64)
        self.mean = float(total) / self.total_weight if hyper.center else 0.0
        kept = codes[b][order], values.astype(self.dtype), weight.astype(self.dtype)
        # The batches of an epoch: row, other, rating, weight, one batch after the other.
        if hyper.shuffle:
            self.kept, self.batches = (
                kept,
                (np.empty(n, np.int32), *(np.empty_like(x) for x in kept)),
            )
        else:
            ordered_batches = np.empty(n, np.int32)
            _keys.group(
                order // np.int32(self.batch_size),
                np.arange(n, dtype=np.int32),
                np.zeros(self.n_batches + 1, np.int64),
                ordered_batches,
            )
            self.batches = tuple(
                x[ordered_batches] if len(x) else x for x in (codes[a][order], *kept)
            )

        self.check = None
        if held_out is not None:
            known = held_out.codes_in(ratings.tables)
            shifted = [c + np.int32(1) for c in known]  # unknown ids are -1
            order, _ = canonical(
                *shifted, held_out.values, held_out.weights, *(size + 1 for size in sizes)
            )
            weights = np.ones(len(order)) if held_out.weights is None else held_out.weights[order]
            self.check = known[0][order], known[1][order], held_out.values[order], weights
        self._rows(hyper, (counts[a], counts[b]), n_jobs)
        self.n_parts = min(4 * self.n_jobs, 32) if self.n_jobs > 1 else 1
        self.counts = np.empty((self.n_parts, self.sizes[1]), np.int32)
        self.entry_start = np.empty(self.sizes[1] + 1, np.int32)
        self.entries = np.empty(self.batch_size * self.kernel.entry_bytes(), np.uint8)

    def _rows(self, hyper, counts, n_jobs):
        """Tables, states, and what a step has to know of each column: see `_minibatch.pyx`."""
        width = -(-(self.k + 2 * hyper.biased) // 8) * 8
        self.tables = [aligned(size, width, self.dtype) for size in self.sizes]
        self.spare = [aligned(size, width, self.dtype) for size in self.sizes]
        self.states = [
            first_state(self.solver, size, width, self.dtype, hyper)[0] for size in self.sizes
        ]
        self.steps = np.zeros(1, np.int64)
        self.sides = ("users", "items") if self.users_first else ("items", "users")
        self.columns = []
        for side, (name, table) in enumerate(zip(self.sides, self.tables, strict=True)):
            start_factors(
                table, np.arange(len(table)), counts[side], side, hyper, self.seed, n_jobs
            )
            columns = aligned(4, width, self.dtype)
            l2, l1, low, learnt = columns
            factors, bias = slice(self.k), self.k + side
            l2[factors], l1[factors] = 2 * of_side(hyper.l2, name), of_side(hyper.l1, name)
            learnt[factors], low[:] = 1, -np.inf
            if hyper.non_negative:
                low[factors] = 0
            if hyper.biased:
                l2[bias], l1[bias] = 2 * of_side(hyper.l2_bias, name), of_side(hyper.l1_bias, name)
                learnt[bias] = 1
                table[:, self.k + 1 - side] = 1
            self.columns.append(columns)

    def epoch(self, epoch, learning_rate):
        """A step for each batch; returns the mean squared error seen on the way."""
        rules = [
            np.array(rule(self.hyper, name, learning_rate, penalties=False)) for name in self.sides
        ]
        squares = np.zeros(self.sizes[0])
        with team(self.n_jobs) as run:
            if self.hyper.shuffle:
                self._deal(epoch, run)
            for first in range(0, len(self.batches[0]), self.batch_size):
                self._step(
                    [x[first : first + self.batch_size] for x in self.batches], rules, squares, run
                )
        return float(squares.sum()) / self.total_weight

    def _deal(self, epoch, run):
        """Every rating to a random batch: how many of each stretch go to which, then a shuffle of the stretch."""
        n, size = len(self.batches[0]), max(DEAL, 4 * self.n_batches)
        rng = np.random.default_rng([self.seed, 2, epoch])
        starts = np.arange(self.n_batches) * self.batch_size
        left = np.diff(starts, append=n)
        firsts, hands = range(0, n, size), []
        for first in firsts:
            hands.append(
                rng.multivariate_hypergeometric(left, min(size, n - first), method="marginals")
            )
            left -= hands[-1]
        cursors = starts + np.cumsum(hands, axis=0) - hands
        seeds = rng.integers(0, 2**64, len(hands), np.uint64)

        def one(c):
            hand = np.repeat(np.arange(self.n_batches, dtype=np.int32), hands[c])
            _keys.deal(self.start, *self.kept, firsts[c], hand, seeds[c], cursors[c], *self.batches)

        run(one, range(len(hands)))

    def _step(self, batch, rules, squares, run):
        """One batch: its gradient and the step of every row."""
        hyper, kernel, solver = self.hyper, self.kernel, self.solver
        row, other, rating, weight = batch
        size, n_parts = len(row), self.n_parts
        self.steps += 1
        clocks = [float(beta) ** int(self.steps[0]) for beta in (hyper.beta_1, hyper.beta_2)]
        share = 1 / size if hyper.reg_scale == "rating" else 0.0
        side, other_side = (
            kernel.Side(*arrays, *clocks, share)
            for arrays in zip(
                self.tables, self.spare, self.states, self.columns, rules, strict=True
            )
        )
        rows = kernel.cut(row, self.sizes[0], n_parts)
        places = np.searchsorted(row, rows)
        parts = [slice(*places[i : i + 2]) for i in range(n_parts)]

        def count(i):
            kernel.count(other[parts[i]], self.counts[i])

        def forward(i):
            part = parts[i]
            kernel.forward(
                side,
                other_side,
                solver,
                rows[i],
                rows[i + 1],
                row[part],
                other[part],
                rating[part],
                weight[part],
                self.mean,
                2 / size,
                self.counts[i],
                self.entries,
                squares,
            )

        def backward(i):
            kernel.backward(
                other_side, side, solver, others[i], others[i + 1], self.entry_start, self.entries
            )

        run(count, range(n_parts))
        kernel.starts(self.counts, self.entry_start)
        run(forward, range(n_parts))
        others = kernel.cut_others(self.entry_start, n_parts)
        run(backward, range(n_parts))
        self.tables, self.spare = self.spare, self.tables

    def validate(self):
        """Mean squared error on the held-out ratings; those with unknown ids are predicted as `predict` does."""
        users, items, values, weights = self.check
        squares, n, params = 0.0, PAIRS_OF_A_CALL * 16, self.weights()
        for part in (slice(first, first + n) for first in range(0, len(users), n)):
            predicted = predict(params, users[part], items[part], self.n_jobs)
            squares += float(
                np.sum(weights[part] * (values[part] - predicted.astype(np.float64)) ** 2)
            )
        return squares / float(weights.sum())

    def snapshot(self):
        """A copy of all that an epoch changes, by name."""
        arrays = zip(
            ("run_rows", "rows", "run_state", "state"), (*self.tables, *self.states), strict=True
        )
        return {name: array.copy() for name, array in arrays} | {"steps": self.steps.copy()}

    def restore(self, state):
        for name, array in zip(
            ("run_rows", "rows", "run_state", "state"), (*self.tables, *self.states), strict=True
        ):
            array[:] = state[name]
        self.steps[:] = state["steps"]

    def weights(self):
        """The model as it is now, a copy."""
        sides = []
        for side, table in enumerate(self.tables):
            factors = aligned(len(table), self.k, self.dtype)
            factors[:] = table[:, : self.k]
            biases = (
                table[:, self.k + side].copy()
                if self.hyper.biased
                else np.zeros(len(table), self.dtype)
            )
            sides.append((biases, factors))
        (user_biases, user_factors), (item_biases, item_factors) = (
            sides if self.users_first else sides[::-1]
        )
        return Weights(self.mean, user_biases, item_biases, user_factors, item_factors)

    def load(self, params):
        """Take over a model."""
        sides = [
            (params.user_biases, params.user_factors),
            (params.item_biases, params.item_factors),
        ]
        self.mean = params.global_mean
        for side, (biases, factors) in enumerate(sides if self.users_first else sides[::-1]):
            self.tables[side][:, : self.k] = factors
            if self.hyper.biased:
                self.tables[side][:, self.k + side] = biases
