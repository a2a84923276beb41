"""Funk's own order (`training="featurewise"`): one feature after the other.

Simon Funk, "Netflix Update: Try This at Home" (2006-12-11,
sifter.org/~simon/journal/20061211.html): a feature is one number for each user and each item. SGD
trains it, on the errors that the features before it leave, until it no longer improves the training
RMSE. Then each rating's prediction so far is kept, and the next feature is trained. Predictions
are clipped to the rating scale after each feature.

Three things differ here. The biases come first, as he has his averages. Features start at random,
not all at 0.1, so that there is no trailing sum of features to come. And a pass takes micro-batches
over the block grid, on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

import numpy as np

from funksvd.engines import _featurewise  # type: ignore[attr-defined]  # compiled
from funksvd.engines.clearing import LEAST, clear
from funksvd.engines.sgd import (
    GATHERED,
    RUN,
    SgdEngine,
    SideRows,
    soft_threshold,
)
from funksvd.engines.strata import run_blocks, strata
from funksvd.hyper import Hyper, of_side
from funksvd.ratings.grid import SPARE_RATINGS
from funksvd.ratings.triples import Ratings
from funksvd.schedules import planned_rate
from funksvd.weights import Weights

BIASES = -1  # the feature number of the biases


class Penalty(NamedTuple):
    """The penalties of one side's values and the least value that they may have."""

    l2: float
    l1: float
    low: float


class BlockSlices(NamedTuple):
    """Where the runs, the ratings and the gathered rows of one block stand."""

    runs: slice
    ratings: slice
    rows: slice


class FeatureEngine(SgdEngine):
    """The engine whose epoch is one feature.

    An epoch makes passes over the ratings, at most `n_epochs`, with the learning-rate schedule's
    rate for each. It ends after a pass that improves the training RMSE by less than
    `min_improvement`, if one before improved it by more. The biases are trained in the same way
    before the first feature.
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

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        super().__init__(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        # Prediction of the features trained so far, for each rating of the grid; None if it has to
        # be computed from the features.
        self.cache: np.ndarray | None = None
        self.limits = (-np.inf, np.inf)
        if hyper.rating_scale is not None:
            low, high = hyper.rating_scale
            self.limits = (float(low), float(high))

    def _start_factors(self, n_jobs: int) -> None:
        """Leave the features at zero until they are trained."""

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Train feature number `epoch`; return the mean squared error seen in its last pass."""
        self._filled_cache(epoch)
        run_side, side = self.sides
        if epoch == 0 and self.hyper.biased:
            self._feature(BIASES, run_side.biases, side.biases, learning_rate)
        run, other = self._first(epoch)
        loss = self._feature(epoch, run, other, learning_rate)
        run_side.factors[:, epoch] = run
        side.factors[:, epoch] = other
        return loss

    def _first(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the random values that a feature starts from, of the run side and the other.

        The values depend on the code, not on the row; rows without ratings have 0.
        """
        run_side, side = self.sides
        return self._first_of(run_side, RUN, feature), self._first_of(side, GATHERED, feature)

    def _first_of(self, side: SideRows, number: int, feature: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 1, number, feature])
        start = rng.standard_normal(len(side.counts), dtype=self.dtype)
        start = start * self.dtype.type(self.hyper.init_std)
        if self.hyper.non_negative:
            start = np.abs(start)
        values = np.zeros(len(side.factors), self.dtype)
        values[side.places] = np.where(side.counts > 0, start, 0)
        return values

    def _feature(
        self,
        number: int,
        run: np.ndarray,
        other: np.ndarray,
        learning_rate: float,
    ) -> float:
        """Train one feature, or the biases, in place and add them to the cache.

        Parameters
        ----------
        number : int
            Of the feature, from 0 on; BIASES for the biases.
        run, other : (rows,)
            Values of the run side and of the gathered side.
        learning_rate : float
            Of the first pass.

        Returns
        -------
        float
            Mean squared error of the last pass.
        """
        hyper = self.hyper
        biases = number == BIASES
        improved = False  # by at least min_improvement, in some pass
        rmse = np.inf
        loss = np.nan
        for done in range(hyper.n_epochs):
            rate = learning_rate * planned_rate(hyper, done) / planned_rate(hyper, 0)
            pass_number = (number + 1) * hyper.n_epochs + done
            loss = self._train(biases, pass_number, run, other, rate)
            if not np.isfinite(loss):
                return loss
            if done > 0:
                gains = rmse - loss**0.5 >= hyper.min_improvement
                if improved and not gains:
                    break
                improved |= gains
            rmse = loss**0.5
        self._advance(biases, run, other)
        return loss

    def _train(
        self,
        biases: bool,
        number: int,
        run: np.ndarray,
        other: np.ndarray,
        rate: float,
    ) -> float:
        """Make one pass over all ratings; return the mean squared error seen on the way.

        `number` is that of the pass, from which the order of the blocks is drawn.
        """
        grid = self.grid
        cache = self._filled_cache()
        run_penalty, penalty = (self._penalty(biases, side.name) for side in self.sides)
        per_row = self.hyper.reg_scale == "row"
        rule = np.array([(rate, *self.limits), run_penalty, penalty])
        if per_row:
            rule[1:, :2] = 0  # they are applied after the pass
        squares = np.zeros(grid.n_bands**2)
        weight = np.empty(0, self.dtype) if grid.weight is None else grid.weight

        def train_block(x: int, y: int) -> None:
            runs, part, rows = self._block(x, y)
            squares[x * grid.n_bands + y] = _featurewise.train(
                run,
                other[rows],
                grid.run_row[runs],
                grid.run_end[runs],
                grid.index[part],
                grid.rating[part],
                weight[part],
                cache[part],
                biases,
                rule,
            )

        self._walk(number, train_block)
        if per_row:
            shrink_rows(run, run_penalty, rate)
            shrink_rows(other, penalty, rate)
        if not biases:
            least, _ = LEAST[self.dtype.name]
            clear(run, least, self.n_jobs)
            clear(other, least, self.n_jobs)
        return float(squares.sum()) / grid.total_weight

    def _penalty(self, biases: bool, side: str) -> Penalty:
        """Return the penalty of the biases or the factors of "users" or "items"."""
        hyper = self.hyper
        if biases:
            return Penalty(
                of_side(hyper.l2_bias, side),
                of_side(hyper.l1_bias, side),
                -np.inf,
            )
        low = 0.0 if hyper.non_negative else -np.inf
        return Penalty(of_side(hyper.l2, side), of_side(hyper.l1, side), low)

    def _advance(self, biases: bool, run: np.ndarray, other: np.ndarray) -> None:
        """Add trained values to the cache, and clip it."""
        grid = self.grid
        cache = self._filled_cache()

        def advance_block(x: int, y: int) -> None:
            runs, part, rows = self._block(x, y)
            _featurewise.advance(
                run,
                other[rows],
                grid.run_row[runs],
                grid.run_end[runs],
                grid.index[part],
                cache[part],
                biases,
                *self.limits,
            )

        self._walk(0, advance_block)

    def _block(self, x: int, y: int) -> BlockSlices:
        """Return where block (x, y) stands in the grid and in the gathered side's rows."""
        grid = self.grid
        block = x * grid.n_bands + y
        # Every band ends with a spare row.
        first_row = grid.bands[y] + y
        end_row = grid.bands[y + 1] + y + 1
        return BlockSlices(
            slice(grid.block_runs[block], grid.block_runs[block + 1]),
            slice(
                grid.block_start[block],
                grid.block_start[block + 1] + SPARE_RATINGS,
            ),
            slice(first_row, end_row),
        )

    def _walk(self, number: int, work: Callable[[int, int], None]) -> None:
        """Call work(x, y) for every block, on threads, in the order of pass `number`."""
        meetings = strata(self.seed, number, self.grid.n_bands)
        run_blocks(meetings, work, self.n_jobs, self.pool)

    def _filled_cache(self, n_features: int = 0) -> np.ndarray:
        """Return the cache; if it is None, compute it from the biases and the first features.

        It is a function of their values, and so it need not be kept in a checkpoint.
        """
        if self.cache is not None:
            return self.cache
        first = np.clip(self.mean, *self.limits)
        self.cache = np.full(len(self.grid.rating), first, self.dtype)
        run_side, side = self.sides
        if n_features and self.hyper.biased:
            self._advance(True, run_side.biases, side.biases)
        for feature in range(n_features):
            run = run_side.factors[:, feature].copy()
            self._advance(False, run, side.factors[:, feature].copy())
        return self.cache

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        super().restore(state)
        self.cache = None

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        super().load(weights)
        self.cache = None


def shrink_rows(values: np.ndarray, penalty: Penalty, rate: float) -> None:
    """Apply the penalties of reg_scale="row": one proximal step of L1, then of L2, in place."""
    soft_threshold(values, rate * penalty.l1)
    values /= 1 + rate * penalty.l2
