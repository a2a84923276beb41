"""Weights, the prediction for pairs, and the CPU engine: epochs over the block grid on Python threads."""

from __future__ import annotations

import numpy as np

from funksvd.engines.contract import Engine
from funksvd.engines.start import START_CHUNK, first_state, rule, start_factors
from funksvd.engines.strata import run_blocks, strata
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import parallel, pool_of
from funksvd.parameters import of_side, solver_of
from funksvd.weights import Weights


class SgdEngine(Engine):
    """SGD over the block grid.

    Parameters
    ----------
    ratings, held_out : Ratings, Ratings or None
        To train on; to validate on, whose ids may be unknown to the first.
    hyper : namespace
        The parameters of FunkSVD.
    seed, n_jobs : int

    Rows are kept in the grid's order; `params` and `load` speak the order of the codes.
    """

    WARPS = False  # whether the grid's blocks are for the warps of a GPU
    PADDED = False  # whether rows have four extra numbers with every solver

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        self.hyper, self.k, self.dtype = hyper, hyper.n_factors, np.dtype(hyper.dtype)
        width = -(-self.k // 8) * 8
        self.solver = solver_of(hyper)
        self.grid = grid = ratings.grid(
            width * self.dtype.itemsize, self.dtype, seed, n_jobs, warps=self.WARPS
        )
        self.check = self.strange = None
        if held_out is not None:
            known, self.strange = held_out.like(ratings)
            self.check = known.grid(0, self.dtype, seed, n_jobs, like=grid)
        self.seed, self.n_jobs = seed, n_jobs if len(grid) > 200_000 else 1
        self.pool = pool_of(self.n_jobs)  # its threads end with the engine
        self.mean = grid.mean if hyper.center else 0.0
        self.run_factors = aligned(len(grid.run_codes), width, self.dtype)
        self.run_biases = np.zeros(len(grid.run_codes), self.dtype)
        self.factors = aligned(len(grid.codes) + grid.n_bands, width, self.dtype)
        self.biases = np.zeros(len(self.factors), self.dtype)
        of_rows = width, self.dtype, hyper, self.PADDED
        self.run_state, self.run_extra = first_state(self.solver, len(self.run_factors), *of_rows)
        self.state, self.extra = first_state(self.solver, len(self.factors), *of_rows)
        # Row of each position on the gathered side: every band ends with a spare row of zeros.
        self.rows = np.arange(len(grid.codes)) + np.repeat(
            np.arange(grid.n_bands), np.diff(grid.bands)
        )
        self.places = [
            np.empty(len(c), np.int64) for c in (grid.run_codes, grid.codes)
        ]  # row of each code
        for side, (factors, rows, codes, counts) in enumerate(
            (
                (self.run_factors, np.arange(len(grid.run_codes)), grid.run_codes, grid.run_counts),
                (self.factors, self.rows, grid.codes, grid.counts),
            )
        ):
            self._start(side, factors, rows, codes, counts, n_jobs)

    def _start(self, side, factors, rows, codes, counts, n_jobs):
        self.places[side][codes] = rows
        start_factors(factors, self.places[side], counts, side, self.hyper, self.seed, n_jobs)

    def epoch(self, epoch, learning_rate):
        """One pass over all ratings; returns the mean squared error seen on the way."""
        sides = ("users", "items") if self.grid.users_run else ("items", "users")
        per_row = self.hyper.reg_scale == "row"
        rules = np.array(
            [rule(self.hyper, side, learning_rate, penalties=not per_row) for side in sides]
        )
        squares = self._pass(self.grid, epoch, self.solver, rules)
        if per_row:
            self._shrink_rows(sides, learning_rate)
        return squares / self.grid.total_weight

    def _shrink_rows(self, sides, rate):
        """The penalties of reg_scale="row": one proximal step an epoch, of L1 and then of L2, for every row."""
        arrays = (self.run_factors, self.run_biases), (self.factors, self.biases)
        for side, (factors, biases) in zip(sides, arrays, strict=True):
            for x, l1, l2 in ((factors, "l1", "l2"), (biases, "l1_bias", "l2_bias")):
                l1, l2 = (
                    of_side(getattr(self.hyper, l1), side),
                    of_side(getattr(self.hyper, l2), side),
                )

                def one(first, x=x, l1=l1, l2=l2):
                    part = x[first : first + START_CHUNK]
                    if l1:
                        np.copysign(np.maximum(np.abs(part) - rate * l1, 0), part, out=part)
                    part *= self.dtype.type(1 / (1 + rate * l2))

                if l1 or l2:
                    parallel(one, range(0, len(x), START_CHUNK), self.n_jobs)

    def validate(self):
        """Mean squared error on the held-out ratings; those with unknown ids are predicted as `predict` does."""
        squares, n = self._pass(self.check, 0), self.check.total_weight
        if self.strange is not None:
            users, items, values, weights = self.strange
            run, gathered = (users, items) if self.grid.users_run else (items, users)
            sides = zip(self.places, (self.run_biases, self.biases), (run, gathered), strict=True)
            b, c = (np.where(codes >= 0, biases[place[codes]], 0) for place, biases, codes in sides)
            squares += float(np.sum(weights * (values - (self.mean + (b + c))) ** 2))
            n += float(weights.sum())
        return squares / n

    def _pass(self, grid, epoch, solver=None, rules=None):
        kernel = kernels("engines._sgd", self.dtype)
        n = grid.n_bands
        squares = np.zeros(n * n)
        run_side = kernel.Side(self.run_factors, self.run_biases, self.run_state, self.run_extra)
        side = kernel.Side(self.factors, self.biases, self.state, self.extra)
        weight = np.empty(0, self.dtype) if grid.weight is None else grid.weight
        blocks = kernel.Blocks(
            grid.block_runs,
            grid.block_start,
            self.grid.bands + np.arange(n + 1),
            grid.run_row,
            grid.run_end,
            grid.index,
            grid.rating,
            weight,
        )

        def work(x, y):
            squares[x * n + y] = kernel.block(
                run_side, side, blocks, x, y, self.mean, solver, rules
            )

        order = [
            (d, x, y)
            for d, ys in enumerate(strata(self.seed, epoch, n).tolist())
            for x, y in enumerate(ys)
        ]
        run_blocks(order, n, work, min(self.n_jobs, n), self.pool)
        return float(squares.sum())

    STATE = (
        "run_factors",
        "run_biases",
        "run_state",
        "run_extra",
        "factors",
        "biases",
        "state",
        "extra",
    )

    def snapshot(self):
        """A copy of all that an epoch changes, by name."""
        return {name: getattr(self, name).copy() for name in self.STATE}

    def restore(self, state):
        for name in self.STATE:
            getattr(self, name)[:] = state[name]

    def weights(self):
        """The model as it is now, a copy."""
        grid = self.grid
        sides = []
        for factors, biases, codes in (
            (self.run_factors, self.run_biases, grid.run_codes),
            (self.factors[self.rows], self.biases[self.rows], grid.codes),
        ):
            p, b = aligned(len(codes), self.k, self.dtype), np.empty(len(codes), self.dtype)
            p[codes], b[codes] = factors[:, : self.k], biases
            sides.append((b, p))
        (ub, up), (ib, ip) = sides if grid.users_run else sides[::-1]
        return Weights(self.mean, ub, ib, up, ip)

    def load(self, params):
        """Take over a model."""
        sides = [
            (params.user_biases, params.user_factors),
            (params.item_biases, params.item_factors),
        ]
        (rb, rp), (gb, gp) = sides if self.grid.users_run else sides[::-1]
        self.mean = params.global_mean
        self.run_factors[:, : self.k], self.run_biases[:] = (
            rp[self.grid.run_codes],
            rb[self.grid.run_codes],
        )
        self.factors[self.rows, : self.k], self.biases[self.rows] = (
            gp[self.grid.codes],
            gb[self.grid.codes],
        )
