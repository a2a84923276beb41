"""The Bayesian engine: biased matrix factorisation by block Gibbs sampling, kept as one ordinary model.

On y = (r - mean) / sd of the training ratings (Salakhutdinov and Mnih 2008 with diagonal precisions, and a noise weight
for every user and item, a scale mixture as in robust regression)::

    y_ui ~ N(b_u + b_i + p_u.q_i, 1 / (alpha a_u a_i s_ui))       a ~ Gamma(nu/2, nu/2), s the sample weight
    p_u ~ N(m, diag(1/l))      b_u ~ N(m_b, 1/l_b)                m_f ~ N(0, 1/l_f), m_b ~ N(0, 1/l_b)
    l_f, l_b, alpha ~ Gamma(1/2, 1/2)                             and the same for items

One epoch is one sweep: a shift move between factor means and biases (no prediction changes, the chain mixes better),
then for items and for users their hyper-parameters and every row (`_gibbs.pyx`), then alpha. A row is drawn
overrelaxed (Adler 1981; Barone and Frigessi 1990), on the far side of its conditional mean: draws that follow one
another err to opposite sides, and the mean of a third to a half of the sweeps is as good. After the burn-in every sweep
adds one sample to the mean prediction: the users' conditional means with the drawn items (Rao-Blackwell).
The mean of all the samples' prediction matrices is kept as one of low rank, see `terms_of`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np

from funksvd.engines.contract import Engine
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import HUGE_PAGE, aligned
from funksvd.machine.threads import CHUNK, parallel, pool_of
from funksvd.parameters import Hyper
from funksvd.posterior import MOST_TERMS, NU, terms_of
from funksvd.ratings.sorting import by_user, sorted_by
from funksvd.weights import Weights, predict

PRIOR = (0.5, 0.5)  # shape and rate of the precisions' gamma priors
START_STD = (
    0.1  # of the factors; a start at fitted factors has too high precisions, which mix slowly
)
START_PRECISION, START_BIAS_PRECISION = 10.0, 2.0
NOISE_SWEEPS = 4  # the noise weights stay at 1 for so many, and rows are drawn plainly
RELAX = -0.9  # of the rows' draws, see `_gibbs.rows`
PAIRS = 4096  # on which the spread of predictions is measured
WAITING = 4  # samples that are added to the mean together
LOAD = 1 << 14  # ratings of a chunk of rows, at least; a row costs as much as ROW_COST ratings
ROW_COST, MOST_CHUNKS = 20, 48
ROWS, DENSE_ROWS = (
    1 << 14,
    1 << 10,
)  # rows of a chunk where all rows cost the same, and of matrix products, at least
FEW = 50_000  # ratings that one thread works on


def sort_ties(start, index, columns):
    """Sort the columns of repeated pairs among themselves, in place, so that a rating's place in the input is forgotten."""
    same = index[1:] == index[:-1]
    ends = start[1:-1]
    same[ends[(ends > 0) & (ends < len(index))] - 1] = False
    if same.any():
        tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        rows = np.searchsorted(start, tied, side="right")
        order = tied[np.lexsort((*(column[tied] for column in columns), index[tied], rows))]
        for column in columns:
            column[tied] = column[order]


def chunks_of(start):
    """Slices of rows of about equal load, a function of the counts."""
    load = start[1:] + ROW_COST * np.arange(1, len(start))
    n = int(min(MOST_CHUNKS, max(1, load[-1] // LOAD)))
    ends = np.searchsorted(load, load[-1] * np.arange(1, n) / n) + 1
    bounds = [0, *np.minimum(ends, len(load)).tolist(), len(load)]
    return [(a, b) for a, b in pairwise(bounds) if a < b]


BURN_IN = 10


def burn_in(n_epochs: int) -> int:
    """Return how many sweeps are not kept: 10, and a quarter of a short run."""
    return min(BURN_IN, n_epochs // 4)


class GibbsEngine(Engine):
    """Block Gibbs sampling; the engine contract of `engine.SgdEngine`.

    `load` sets what `params` answers until the next sweep; the chain goes on from its own state.
    """

    makes_steps = False

    @classmethod
    def plan(cls, hyper: Hyper) -> Hashable:
        """Return the length of the burn-in: the sweeps that are kept depend on it."""
        return burn_in(hyper.n_epochs)

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        self.kernel = kernels("engines._gibbs", np.float32)
        self.low_rank_kernel = kernels("engines._low_rank", np.float32)
        self.hyper, self.k, self.seed = hyper, hyper.n_factors, seed % 2**64
        width = -(-self.k // 8) * 8
        users, items, values, weights = (
            ratings.users,
            ratings.items,
            np.asarray(ratings.values),
            ratings.weights,
        )
        if weights is not None:  # a rating that counts for nothing says nothing
            counts = weights > 0
            users, items, values, weights = (
                users[counts],
                items[counts],
                values[counts],
                weights[counts],
            )
        if len(users) > np.iinfo(np.int32).max:
            raise ValueError(f"solver='gibbs' takes fewer than 2**31 ratings, got {len(users)}")
        self.n, self.n_jobs = len(users), n_jobs if len(users) > FEW else 1
        self.sides = self._sorted(
            users, items, values, weights, ratings.n_users, ratings.n_items, width
        )
        del users, items, values, weights
        self.chunks = [chunks_of(np.asarray(side.start)) for side in self.sides]
        self.most = max(8, *(int(np.diff(side.start).max()) for side in self.sides))
        self.scratch = []
        self.pool = pool_of(self.n_jobs)  # its threads end with the engine
        self.alpha, self.sweep, self.kept = 1.0, 0, 0
        self.burn_in = burn_in(hyper.n_epochs)
        self.constant = self.now = 0.0  # of the kept samples, summed; of this sweep
        self.inverse_alpha, self.prior = (
            0.0,
            np.zeros((2, 2)),
        )  # of a row without ratings: see `_posterior`
        self.kurtosis = self.kurtosis_now = (
            0.0  # of the residuals over their noise; summed, of this sweep
        )
        self.given = None
        n_users, n_items = ratings.n_users, ratings.n_items
        self.totals = [aligned(n, width, np.float32) for n in (n_users, n_items)]
        self.sums = [np.zeros((n, 4)) for n in (n_users, n_items)]
        self.terms = self.waiting = (
            0  # of the tables' columns: the rank in units of n_factors, samples after these
        )
        self.turning = None  # of tables that are full
        self.low_rank = self._tables(0)
        rng = np.random.default_rng([self.seed, 1])
        t = rng.integers(0, self.n, (2, PAIRS))
        row = np.searchsorted(self.sides[0].start, t[0], side="right") - 1
        self.pairs = row.astype(np.int32), np.asarray(self.sides[0].index)[t[1]]
        self.pair_sums = np.zeros((PAIRS, 2))
        self._hold_out(ratings, held_out)

    def _is_low_rank(self):
        return self.hyper.average == "low_rank"

    def _tables(self, terms):
        """A and B of zeros, with columns for so many terms and for the samples that wait."""
        columns = (terms + WAITING) * self.totals[0].shape[1] if self._is_low_rank() else 0
        return [aligned(len(total), columns, np.float32) for total in self.totals]

    def _sorted(self, users, items, values, weights, n_users, n_items, width):
        """Both sides with their ratings, standardised, in an order that is a function of their set."""
        parts = [slice(a, min(a + CHUNK, self.n)) for a in range(0, self.n, CHUNK)]

        def over(function):
            return parallel(function, parts, self.n_jobs)

        def gathered(array):
            out = np.empty(self.n, array.dtype)
            over(lambda part: np.take(array, carried[part], out=out[part], mode="clip"))
            return out

        alone = (
            weights is None and values.dtype == np.float32
        )  # else the ratings' places are sorted, and these gathered
        carried = (
            np.ascontiguousarray(values).view(np.int32)
            if alone
            else np.arange(self.n, dtype=np.int32)
        )
        start, index, carried, lent = by_user(users, items, carried, n_users, n_items, self.n_jobs)
        raw = carried.view(np.float32) if alone else gathered(values)
        weight = None if weights is None else gathered(weights)
        sort_ties(start, index, [raw] if weight is None else [weight, raw])
        self.total_weight = float(self.n) if weight is None else float(weight.sum())

        def mean(function):
            """The weighted mean of function(rating), summed in the order that was made."""

            def sum_of(part):
                y = function(raw[part].astype(np.float64))
                return np.sum(y if weight is None else weight[part] * y)

            return float(sum(over(sum_of))) / self.total_weight

        self.mean = mean(lambda y: y)
        self.sd = mean(lambda y: (y - self.mean) ** 2) ** 0.5 or 1.0
        value = raw if raw.dtype == np.float32 else np.empty(self.n, np.float32)

        def standardise(part):
            value[part] = (raw[part].astype(np.float64) - self.mean) / self.sd

        over(standardise)
        scale = np.empty(0, np.float32) if weight is None else np.sqrt(weight).astype(np.float32)
        codes = np.repeat(np.arange(n_users, dtype=np.int32), np.diff(start))
        other = sorted_by(index, codes, value.view(np.int32), n_items, self.n_jobs, lent)
        other_scale = scale
        if weights is not None:
            other_scale = sorted_by(index, codes, scale.view(np.int32), n_items, self.n_jobs)[
                2
            ].view(np.float32)
        both = (start, index, value, scale), (*other[:2], other[2].view(np.float32), other_scale)
        return [self._side(*side, width, number) for number, side in enumerate(both)]

    def _side(self, start, index, value, weight, width, number):
        side, n = self.kernel.Side(), len(start) - 1
        side.factors, side.means = aligned(n, width, np.float32), aligned(n, width, np.float32)
        scratch = aligned(1, width + 64, np.float32)[0]
        self.kernel.normal_rows(self._key(0, number), 0, scratch, side.factors)
        factors = np.asarray(side.factors)
        factors *= np.float32(START_STD)
        factors[:, self.k :] = 0
        side.scalars, side.mean_biases = np.zeros((n, 2), np.float32), np.zeros(n, np.float32)
        np.asarray(side.scalars)[:, 1] = 1
        side.start, side.index = start, index
        side.value, side.root_weight = value, weight
        side.mean, side.precision = np.zeros(width, np.float32), np.ones(width, np.float32)
        np.asarray(side.precision)[: self.k] = START_PRECISION
        side.bias_mean, side.bias_precision = 0.0, START_BIAS_PRECISION
        side.used, side.biased = self.k, bool(self.hyper.biased)
        return side

    def _hold_out(self, ratings, held_out):
        self.held_out = None
        if held_out is None:
            return
        users, items = held_out.codes_in(ratings.tables)
        values = np.asarray(held_out.values, np.float64)
        weights = (
            np.ones(len(values))
            if held_out.weights is None
            else np.asarray(held_out.weights, np.float64)
        )
        order = np.lexsort((weights, values, items, users))
        self.held_out = users[order], items[order], values[order], weights[order]
        self.held_sum, self.held_now = np.zeros(len(values)), np.zeros(len(values))

    def _key(self, *numbers):
        return self.kernel.stream(self.seed, numbers)

    def _parts(self, least, *numbers):
        """(number of a side, first, last row) of chunks of these sides' rows, at least `least` of them in a chunk."""
        parts = []
        for number in numbers:
            n = len(self.sides[number].scalars)
            size = max(least, -(-n // MOST_CHUNKS))
            parts += [(number, a, min(a + size, n)) for a in range(0, n, size)]
        return parts

    def _over(self, function, parts):
        """[function(scratch, *part) of each part]; each thread takes the next part and has its own scratch.

        After an exception (Ctrl-C too) the parts begun are finished, no other starts.
        """
        out, waiting = [None] * len(parts), deque(enumerate(parts))

        def work():
            try:
                scratch = self.scratch.pop()
            except IndexError:
                width = self.sides[0].factors.shape[1]
                columns = (terms_of(10**9, self.k, 10**9) + WAITING) * width
                size = max(self.kernel.scratch_size(self.most, width), columns**2)
                scratch = aligned(1, size, np.float32)[0]
            try:
                while waiting:
                    number, part = waiting.popleft()
                    out[number] = function(scratch, *part)
            except IndexError:  # another thread took the last
                pass
            finally:
                self.scratch.append(scratch)

        n_threads = (
            min(self.n_jobs, len(parts)) if len(parts) > 2 else 1
        )  # a part of each side is not worth waking one
        others = [self.pool.submit(work) for _ in range(n_threads - 1)]
        try:
            work()
        finally:
            waiting.clear()
            for other in others:
                other.exception()  # waits for it
        for other in others:
            other.result()
        return out

    # -------------------------------------------------------------------------------------------- one sweep

    def epoch(self, epoch, learning_rate):
        """One sweep; returns the mean squared error of its draw on the training ratings."""
        self.given = None
        rng = np.random.default_rng([self.seed, 2, self.sweep])
        if self.sweep and self.hyper.biased:
            for x in (0, 1):
                self._shift(x, 1 - x, rng)
        for number in (1, 0):
            self._draw_hyper(number, rng)
            weighted, squares, fourth = self._draw_rows(number)
        shape, rate = PRIOR
        self.alpha = rng.gamma(shape + self.n / 2) / (rate + weighted / 2)
        self.sweep += 1
        self.kurtosis_now = self.n * fourth / weighted**2 if weighted else 3.0
        self._keep()
        return float(squares) / self.total_weight * self.sd**2

    def _shift(self, number, other, rng):
        """Move a part of a side's factor means into the other's biases: delta ~ its conditional; predictions stay."""
        x, y = self.sides[number], self.sides[other]
        width = x.factors.shape[1]

        def part_sums(scratch, _, *rows):
            out = np.zeros((width + 1, width))
            self.kernel.shift_sums(y, *rows, scratch, out)
            return out

        sums = sum(self._over(part_sums, self._parts(ROWS, other)))
        upper = np.triu(sums[:width])
        precision = np.asarray(x.precision, np.float64)
        a = y.bias_precision * (upper + np.triu(upper, 1).T) + np.diag(precision)
        c = precision * x.mean - y.bias_precision * sums[width]
        z = np.append(rng.standard_normal(self.k), np.zeros(width - self.k))
        lower = np.linalg.cholesky(a)
        delta = np.linalg.solve(lower.T, np.linalg.solve(lower, c) + z).astype(np.float32)
        np.asarray(x.mean)[:] -= delta

        def moved(_, side, *rows):
            (self.kernel.move if side == number else self.kernel.tilt)(
                self.sides[side], delta, *rows
            )

        self._over(moved, self._parts(ROWS, number, other))

    def _draw_hyper(self, number, rng):
        """m and l of the factors, m_b and l_b of the bias, given the rows."""
        side = self.sides[number]
        width, k, n = side.factors.shape[1], self.k, len(side.scalars)

        def part_sums(_, __, *rows):
            out = np.zeros((2, width + 1))
            self.kernel.moments(side, *rows, out)
            return out

        sums, squares = sum(self._over(part_sums, self._parts(ROWS, number)))[:, [*range(k), width]]
        mean, precision = np.asarray(side.mean), np.asarray(side.precision)
        old = np.append(mean[:k], side.bias_mean)
        lam = np.append(precision[:k], side.bias_precision)
        new = (sums + n * old) / (n + 1) + rng.standard_normal(k + 1) / np.sqrt(lam * (n + 1))
        step = new - old
        squares = squares - 2 * step * sums + n * step**2
        shape, rate = PRIOR
        drawn = rng.gamma(shape + (n + 1) / 2, size=k + 1) / (rate + (squares + new**2) / 2)
        mean[:k] = new[:k]
        if self.sweep:
            precision[:k] = drawn[:k]
        if self.hyper.biased:
            side.bias_mean = float(new[k])
            if self.sweep:
                side.bias_precision = float(drawn[k])

    def _draw_rows(self, number):
        own, other, noise = self.sides[number], self.sides[1 - number], self.sweep >= NOISE_SWEEPS
        relax = RELAX if noise else 0.0
        key = self._key(1, self.sweep, number)

        sweep = self.kernel.Sweep(key=key, alpha=self.alpha, nu=NU, draw_noise=noise, relax=relax, longest=self.most)

        def draw(scratch, *rows):
            return self.kernel.rows(own, other, sweep, *rows, scratch)

        return np.sum(self._over(draw, self.chunks[number]), axis=0)

    # -------------------------------------------------------------------------------------------- what is kept

    def _keep(self):
        """Centre the rows of this sweep; after the burn-in add them to what is kept."""
        kernel, kept, (users, items) = self.kernel, self.sweep > self.burn_in, self.sides
        if kept and self.waiting == WAITING:
            self.terms, self.low_rank = self._cut()
            self.waiting, self.turning = 0, None
        column = (self.terms + self.waiting) * users.factors.shape[1]

        def rows_kept(_, number, *rows):
            total, sums = self.totals[number], self.sums[number] if kept else np.zeros((0, 4))
            kernel.keep(
                self.sides[number], self.sides[1 - number].mean, number == 0, *rows, total, sums
            )
            if kept and self._is_low_rank():
                side = self.sides[number]
                self.low_rank_kernel.append(
                    side.means, side.start, column, *rows, self.low_rank[number]
                )

        self._over(rows_kept, self._parts(ROWS, 0, 1))
        self.now = users.bias_mean + items.bias_mean + float(np.dot(users.mean, items.mean))
        if self.held_out is not None:
            self.held_now = predict(self._centred(), *self.held_out[:2], self.n_jobs).astype(
                np.float64
            )
        if not kept:
            return
        self.kept += 1
        self.constant += self.now
        self.inverse_alpha += 1 / self.alpha
        self.kurtosis += self.kurtosis_now
        if self.held_out is not None:
            self.held_sum += self.held_now
        kernel.pair_draws(users, items, *self.pairs, self.pair_sums)
        for number, (side, other) in enumerate(((users, items), (items, users))):
            inverse = 1 / np.asarray(side.precision, np.float64)[: self.k]
            bias = 1 / side.bias_precision if self.hyper.biased else 0.0
            self.prior[number] += bias + inverse @ np.square(other.mean[: self.k]), inverse.mean()
        if self._is_low_rank():
            self.waiting += 1
        if self.waiting == WAITING:
            self.turning = self._turning()

    def _terms(self):
        return terms_of(self.kept, self.k, min(map(len, self.totals)))

    def _turning(self):
        """() -> what turns the tables, with the samples that wait, into those of `_cut`; found while rows are drawn."""
        size, terms = self.low_rank[0].shape[1], self._terms()
        columns = -(-terms * self.totals[0].shape[1] // 16) * 16

        def sums_of(scratch, number, *rows):
            out = np.zeros((size, size))
            self.low_rank_kernel.gram(self.low_rank[number], *rows, scratch, out)
            return out

        parts, grams = self._parts(DENSE_ROWS, 0, 1), [0.0, 0.0]
        for (number, *_), out in zip(parts, self._over(sums_of, parts), strict=True):
            grams[number] += out

        def best_rank():
            by, rows = (
                [aligned(size, columns, np.float32) for _ in range(2)],
                aligned(size, -(-size // 16) * 16, np.float32),
            )
            self.low_rank_kernel.best_rank(*grams, rows, np.empty((4, size)), np.empty(size, np.int64), terms * self.k, *by)
            return by

        return self.pool.submit(best_rank).result if self.n_jobs > 1 else cache(best_rank)

    def _cut(self):
        """New tables with A B' as its best approximation of the rank for so many samples.

        Best in the norm that weights rows by their ratings; an incremental singular value decomposition (Brand 2006).
        """
        by, terms = (self.turning or self._turning())(), self._terms()
        tables = self._tables(terms)

        def turned(scratch, number, *rows):
            self.low_rank_kernel.transform(
                self.low_rank[number], by[number], *rows, scratch, tables[number]
            )

        self._over(turned, self._parts(DENSE_ROWS, 0, 1))
        return terms, tables

    def _centred(self):
        """The model of this sweep in standardised units, factors with the padding."""
        users, items = self.sides
        return Weights(
            self.now,
            *(
                np.asarray(a)
                for a in (users.mean_biases, items.mean_biases, users.means, items.means)
            ),
        )

    def validate(self):
        """Mean squared error on the held-out ratings of the samples' mean prediction; in the burn-in of this sweep's."""
        *_, values, weights = self.held_out
        predicted = self.held_sum / self.kept if self.kept else self.held_now
        return float(np.average((values - (self.mean + self.sd * predicted)) ** 2, weights=weights))

    # -------------------------------------------------------------------------------------------- the model

    def weights(self):
        """The mean of the kept samples as one model, with its posterior; in the burn-in the sweep of the moment."""
        if self.given is not None:
            return self.given
        n = max(1, self.kept)
        if not self.kept:
            biases = [np.asarray(side.mean_biases) for side in self.sides]
            factors = [np.asarray(side.means)[:, : self.k] for side in self.sides]
        else:
            biases = [sums[:, 0] / n for sums in self.sums]
            factors = (
                self._mean_factors()
                if self._is_low_rank()
                else [total[:, : self.k] / n for total in self.totals]
            )
        constant = self.constant / n if self.kept else self.now
        out = Weights(
            self.mean + self.sd * constant,
            *((self.sd * b).astype(np.float32) for b in biases),
            *(aligned(*f.shape, np.float32) for f in factors),
        )
        out.user_factors[:], out.item_factors[:] = (np.sqrt(self.sd) * f for f in factors)
        if self.kept:
            noise, users, items = self._posterior()
            out = replace(out, noise=noise, user_posterior=users, item_posterior=items)
        return out

    def _mean_factors(self):
        tables = self._cut()[1]
        scales = [np.sqrt(self.kept * (np.diff(side.start) + 3.0)) for side in self.sides]
        rank = self._terms() * self.k
        return [
            table[:, :rank] / scale[:, None] for table, scale in zip(tables, scales, strict=True)
        ]

    def _posterior(self):
        """Arrays from which `sampled.variance` knows how sure a prediction is, in the units of the ratings.

        Row by row: E 1/a; variance of the bias B; of a factor V; |E p|^2 + n_factors V / 2. The last row is that of an
        id without ratings. Factors that drift through a symmetry of the model seem less sure than what they predict
        is, so B and V are scaled by the ratio, over some pairs, of the predictions' spread to that of the formula.
        """
        n, rows = self.kept, []
        for sums, total, side, prior in zip(
            self.sums, self.totals, self.sides, self.prior, strict=True
        ):
            mean = total / n
            norm = np.einsum("nk,nk->n", mean, mean, dtype=np.float64)
            spread = np.maximum(sums[:, 2] / n - norm, 0) / self.k
            bias = np.maximum(sums[:, 1] / n - (sums[:, 0] / n) ** 2, 0)
            row = np.column_stack([sums[:, 3] / n, bias, spread, norm + self.k * spread / 2])
            unknown = NU / (NU - 2), prior[0] / n, prior[1] / n, self.k * prior[1] / n / 2
            row[np.diff(side.start) == 0] = unknown
            rows.append(np.vstack([row, unknown]))
        users, items = rows[0][self.pairs[0]], rows[1][self.pairs[1]]
        first, second = self.pair_sums.T / n
        formula = np.sum(
            users[:, 1] + items[:, 1] + users[:, 2] * items[:, 3] + users[:, 3] * items[:, 2]
        )
        ratio = np.sum(np.maximum(second - first**2, 0)) / formula if formula else 1.0
        for row, side in zip(rows, self.sides, strict=True):
            known = np.append(np.diff(side.start) > 0, False)
            row[known, 1:3] *= ratio
            row[:, 1] *= self.sd**2
            row[:, 2:] *= self.sd
        noise = np.array([self.sd**2 * self.inverse_alpha / n, ratio, self.kurtosis / n])
        return noise, *(row.astype(np.float32) for row in rows)

    def load(self, params):
        self.given = params

    # -------------------------------------------------------------------------------------------- its state

    ARRAYS = ("factors", "scalars", "means", "mean_biases", "mean", "precision")
    NUMBERS = (
        "alpha",
        "sweep",
        "kept",
        "constant",
        "now",
        "inverse_alpha",
        "kurtosis",
        "terms",
        "waiting",
    )

    def _arrays(self):
        out = {
            f"{name}_{number}": np.asarray(getattr(side, name))
            for number, side in enumerate(self.sides)
            for name in self.ARRAYS
        }
        kept = {"totals": self.totals, "sums": self.sums}
        kept["low_rank"] = [
            table[:, : (self.terms + self.waiting) * total.shape[1]]
            for table, total in zip(self.low_rank, self.totals, strict=True)
        ]
        for name, arrays in kept.items():
            out |= {f"{name}_{number}": array for number, array in enumerate(arrays)}
        if self.held_out is not None:
            out |= {"held_sum": self.held_sum, "held_now": self.held_now}
        return out | {"pair_sums": self.pair_sums, "prior": self.prior}

    def snapshot(self):
        """A copy of all that a sweep changes, by name.

        The columns of the mean's tables are no copy: sweeps write beside them, and a cut makes new tables.
        """
        out = self._arrays()

        def copy(_, name):
            old = out[name]
            out[name] = aligned(old.size, 1, old.dtype).reshape(old.shape)
            out[name][:] = old

        copied = [name for name in out if not name.startswith("low_rank")]
        large = [
            name for name in copied if out[name].nbytes >= HUGE_PAGE
        ]  # these are worth a thread
        out |= {name: out[name].copy() for name in copied if name not in large}
        self._over(copy, [(name,) for name in large])
        out |= {name: np.array(getattr(self, name)) for name in self.NUMBERS}
        out["biases"] = np.array([[side.bias_mean, side.bias_precision] for side in self.sides])
        return out

    def make_room(self, state):
        """Arrays as large as those of a snapshot with these numbers; those of earlier snapshots are not written to."""
        self.terms, self.waiting = (
            int(np.clip(state.get(name, 0), 0, most))
            for name, most in (("terms", MOST_TERMS), ("waiting", WAITING))
        )
        self.low_rank, self.turning = self._tables(self.terms), None

    def restore(self, state):
        self.given = None
        self.make_room(state)
        for name, array in self._arrays().items():
            array[:] = state[name]
        for name in self.NUMBERS:
            setattr(self, name, state[name].item())
        for side, pair in zip(self.sides, state["biases"].tolist(), strict=True):
            side.bias_mean, side.bias_precision = pair
