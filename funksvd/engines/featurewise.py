"""Funk's own order (`training="featurewise"`): one feature after the other, on what those before it leave unexplained.

Simon Funk, "Netflix Update: Try This at Home" (2006-12-11, sifter.org/~simon/journal/20061211.html): a feature, one
number for each user and each item, is trained by SGD until it no longer improves the training RMSE; then what is
predicted so far is kept for each rating, and the next feature is trained. Predictions are clipped to the rating scale
after each feature. Here the biases come first, as he has his averages; features start at random, not all at 0.1, so
there is no trailing sum of features to come; and a pass takes micro-batches over the block grid, on threads.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from funksvd.engines import _featurewise
from funksvd.engines.sgd import SgdEngine
from funksvd.engines.strata import run_blocks, strata
from funksvd.parameters import Hyper, of_side
from funksvd.schedules import planned_rate


class FeatureEngine(SgdEngine):
    """`SgdEngine` whose epoch is one feature: passes over the ratings, at most `n_epochs`, with a pass' step by the
    learning-rate schedule, until one that improves the training RMSE by less than `min_improvement` follows one that
    did by more. Before the first feature it trains the biases in the same way.
    """

    epoch_has_rate = False

    @classmethod
    def planned_epochs(cls, hyper: Hyper) -> int:
        """Return the number of features: each is an epoch."""
        return hyper.n_factors

    @classmethod
    def plan(cls, hyper: Hyper) -> Hashable:
        """Return the number of passes for each feature."""
        return hyper.n_epochs

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        super().__init__(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        self.cache = (
            None  # what the features before the next one predict, for each rating of the grid
        )
        self.limits = (
            (-np.inf, np.inf)
            if hyper.rating_scale is None
            else tuple(map(float, hyper.rating_scale))
        )

    def _start(self, side, factors, rows, codes, counts, n_jobs):
        """Features that are not trained yet are zero."""
        self.places[side][codes] = rows

    def epoch(self, epoch, learning_rate):
        """Feature number `epoch`; returns the mean squared error seen in its last pass."""
        if self.cache is None:
            self._refill(epoch)
        if epoch == 0 and self.hyper.biased:
            self._feature(True, -1, self.run_biases, self.biases, learning_rate)
        run, other = self._first(epoch)
        loss = self._feature(False, epoch, run, other, learning_rate)
        self.run_factors[:, epoch], self.factors[:, epoch] = run, other
        return loss

    def _first(self, feature):
        """Random values of a feature by code; rows without ratings stay at 0."""
        values = (
            np.zeros(len(self.run_factors), self.dtype),
            np.zeros(len(self.factors), self.dtype),
        )
        for side, (x, counts) in enumerate(
            zip(values, (self.grid.run_counts, self.grid.counts), strict=True)
        ):
            rng = np.random.default_rng([self.seed, 1, side, feature])
            start = rng.standard_normal(len(counts), dtype=self.dtype) * self.dtype.type(
                self.hyper.init_std
            )
            x[self.places[side]] = np.where(
                counts > 0, np.abs(start) if self.hyper.non_negative else start, 0
            )
        return values

    def _feature(self, biases, number, run, other, learning_rate):
        """Train the values of one feature, or the biases, and add them to the cache."""
        hyper, improved, before, loss = self.hyper, False, None, np.nan
        for done in range(hyper.n_epochs):
            rate = learning_rate * planned_rate(hyper, done) / planned_rate(hyper, 0)
            loss = self._train(biases, (number + 1) * hyper.n_epochs + done, run, other, rate)
            if not np.isfinite(loss):
                return loss
            if before is not None:
                gains = before - loss**0.5 >= hyper.min_improvement
                if improved and not gains:
                    break
                improved |= gains
            before = loss**0.5
        self._advance(biases, run, other)
        return loss

    def _train(self, biases, number, run, other, rate):
        """One pass; returns the mean squared error seen on the way."""
        grid, hyper, suffix = self.grid, self.hyper, "_bias" if biases else ""
        sides = ("users", "items") if grid.users_run else ("items", "users")
        penalties = [
            [of_side(getattr(hyper, name + suffix), side) for name in ("l2", "l1")]
            for side in sides
        ]
        per_row = hyper.reg_scale == "row"
        low = 0.0 if hyper.non_negative and not biases else -np.inf
        rule = np.array(
            [
                (rate, *self.limits),
                *((*((0.0, 0.0) if per_row else pair), low) for pair in penalties),
            ]
        )
        squares = np.zeros(grid.n_bands**2)
        weight = np.empty(0, self.dtype) if grid.weight is None else grid.weight

        def work(x, y):
            runs, part, rows = self._block(x, y)
            squares[x * grid.n_bands + y] = _featurewise.train(
                run,
                other[rows],
                grid.run_row[runs],
                grid.run_end[runs],
                grid.index[part],
                grid.rating[part],
                weight[part],
                self.cache[part],
                biases,
                rule,
            )

        self._walk(number, work)
        if per_row:
            for x, (l2, l1) in zip((run, other), penalties, strict=True):
                np.copysign(np.maximum(np.abs(x) - rate * l1, 0), x, out=x)
                x /= 1 + rate * l2
        return float(squares.sum()) / grid.total_weight

    def _advance(self, biases, run, other):
        grid = self.grid

        def work(x, y):
            runs, part, rows = self._block(x, y)
            _featurewise.advance(
                run,
                other[rows],
                grid.run_row[runs],
                grid.run_end[runs],
                grid.index[part],
                self.cache[part],
                biases,
                *self.limits,
            )

        self._walk(0, work)

    def _block(self, x, y):
        """(runs, ratings, gathered rows) of a block, as slices."""
        grid, b = self.grid, x * self.grid.n_bands + y
        return (
            slice(grid.block_runs[b], grid.block_runs[b + 1]),
            slice(grid.block_start[b], grid.block_start[b + 1] + 8),
            slice(grid.bands[y] + y, grid.bands[y + 1] + y + 1),
        )

    def _walk(self, number, work):
        n = self.grid.n_bands
        order = [
            (d, x, y)
            for d, ys in enumerate(strata(self.seed, number, n).tolist())
            for x, y in enumerate(ys)
        ]
        run_blocks(order, n, work, min(self.n_jobs, n), self.pool)

    def _refill(self, n_features):
        """The cache after so many features: a function of their values, so that it need not be kept."""
        self.cache = np.full(len(self.grid.rating), np.clip(self.mean, *self.limits), self.dtype)
        if n_features and self.hyper.biased:
            self._advance(True, self.run_biases, self.biases)
        for f in range(n_features):
            self._advance(False, self.run_factors[:, f].copy(), self.factors[:, f].copy())

    def restore(self, state):
        super().restore(state)
        self.cache = None

    def load(self, params):
        super().load(params)
        self.cache = None
