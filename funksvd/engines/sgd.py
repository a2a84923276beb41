"""The CPU engine of SGD, one rating at a time: epochs over the block grid, on Python threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from funksvd.engines.clearing import clear_rows, epochs_to_clear
from funksvd.engines.contract import Engine
from funksvd.engines.start import (
    START_CHUNK,
    first_state,
    rule,
    start_factors,
)
from funksvd.engines.strata import run_blocks, strata
from funksvd.hyper import Hyper, of_side, solver_of
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import Pool, parallel
from funksvd.ratings.grid import Grid, build, build_like
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights

RUN, GATHERED = 0, 1  # the sides of a grid, as positions in pairs
VECTOR = 8  # rows of factors are padded to a multiple of this
# With fewer ratings the threads cost more than they gain.
FEWEST_FOR_THREADS = 200_000


@dataclass(frozen=True, eq=False)
class SideRows:
    """The rows of one side of the model, in the order of the grid.

    Attributes
    ----------
    name : "users" or "items"
    counts : (n_ids,)
        Number of ratings of each code.
    places : (n_ids,)
        Row of each code.
    factors : (rows, width)
        Its last columns are padding, zeros.
    biases : (rows,)
    state, extra : (rows, ...)
        What the solver keeps of each row; see `first_state`.
    """

    ARRAYS: ClassVar = ("factors", "biases", "state", "extra")

    name: str
    counts: np.ndarray
    places: np.ndarray
    factors: np.ndarray
    biases: np.ndarray
    state: np.ndarray
    extra: np.ndarray

    def by_code(
        self,
        n_factors: int,
        dtype: np.dtype[Any],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the biases and the factors in the order of the codes."""
        factors = aligned(len(self.places), n_factors, dtype)
        factors[:] = self.factors[self.places, :n_factors]
        return self.biases[self.places].astype(dtype), factors

    def load(self, biases: np.ndarray, factors: np.ndarray) -> None:
        """Take over biases and factors that are in the order of the codes."""
        self.factors[self.places, : factors.shape[1]] = factors
        self.biases[self.places] = biases

    def biases_of(self, codes: np.ndarray) -> np.ndarray:
        """Return the biases of codes; that of an unknown id, -1, is 0."""
        return np.where(codes >= 0, self.biases[self.places[codes]], 0)


class SgdEngine(Engine):
    """SGD over the block grid; rows stand in the grid's order, which `SideRows` knows.

    Parameters
    ----------
    ratings : Ratings
        To train on.
    held_out : Ratings or None
        To validate on; their ids may be unknown to `ratings`.
    hyper : Hyper
    seed, n_jobs : int
    """

    # Whether the blocks of the grid are made for the warps of a GPU.
    WARPS: ClassVar = False
    # Whether rows have four extra numbers with every solver.
    PADDED: ClassVar = False
    # Names of the sides' arrays in a snapshot, which is also what checkpoints hold.
    STATE: ClassVar = (
        "run_factors",
        "run_biases",
        "run_state",
        "run_extra",
        "factors",
        "biases",
        "state",
        "extra",
    )

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        self.hyper = hyper
        self.seed = seed
        self.k = hyper.n_factors
        self.dtype: np.dtype[Any] = np.dtype(hyper.dtype)
        self.width = -(-max(self.k, 1) // VECTOR) * VECTOR  # without factors zeros stay zeros
        self.solver = solver_of(hyper)
        self.grid = build(
            ratings,
            self.width * self.dtype.itemsize,
            self.dtype,
            seed=seed,
            n_jobs=n_jobs,
            warps=self.WARPS,
        )
        self.check: Grid | None = None
        self.unknown = None
        if held_out is not None:
            known, self.unknown = held_out.like(ratings)
            self.check = build_like(known, self.grid, n_jobs)
        self.n_jobs = n_jobs if len(self.grid) > FEWEST_FOR_THREADS else 1
        self.pool = Pool(self.n_jobs)  # its threads end with the engine
        self.mean = self.grid.mean if hyper.center else 0.0
        self.sides = (self._run_side(), self._gathered_side())
        self._start_factors(n_jobs)

    @property
    def state_arrays(self) -> dict[str, np.ndarray]:
        """The arrays that an epoch changes in place, by their names in a snapshot."""
        arrays = [getattr(side, name) for side in self.sides for name in SideRows.ARRAYS]
        return dict(zip(self.STATE, arrays, strict=True))

    def _run_side(self) -> SideRows:
        """Return the rows of the run side before training, but for the random factors."""
        grid = self.grid
        name = "users" if grid.users_run else "items"
        places = np.empty(len(grid.run_codes), np.int64)
        places[grid.run_codes] = np.arange(len(places))
        return self._side(name, grid.run_counts, places, len(places))

    def _gathered_side(self) -> SideRows:
        """Return the same for the gathered side, whose bands end with a spare row of zeros."""
        grid = self.grid
        name = "items" if grid.users_run else "users"
        spares_before = np.repeat(np.arange(grid.n_bands), np.diff(grid.bands))
        places = np.empty(len(grid.codes), np.int64)
        places[grid.codes] = np.arange(len(places)) + spares_before
        return self._side(name, grid.counts, places, len(places) + grid.n_bands)

    def _side(
        self,
        name: str,
        counts: np.ndarray,
        places: np.ndarray,
        n_rows: int,
    ) -> SideRows:
        factors = aligned(n_rows, self.width, self.dtype)
        biases = np.zeros(n_rows, self.dtype)
        state, extra = first_state(
            self.solver,
            n_rows,
            self.width,
            self.dtype,
            self.hyper,
            self.PADDED,
        )
        return SideRows(name, counts, places, factors, biases, state, extra)

    def _start_factors(self, n_jobs: int) -> None:
        for number, side in enumerate(self.sides):
            start_factors(
                side.factors,
                side.places,
                side.counts,
                number,
                self.hyper,
                self.seed,
                n_jobs,
            )

    def epoch(self, epoch: int, learning_rate: float) -> float:
        """Make one pass over all ratings; return the mean squared error seen on the way."""
        per_row = self.hyper.reg_scale == "row"
        rules = np.array(
            [
                rule(
                    self.hyper,
                    side.name,
                    learning_rate,
                    penalties=not per_row,
                )
                for side in self.sides
            ]
        )
        squares = self._pass(self.grid, epoch, self.solver, rules)
        if per_row:
            self._shrink_rows([side.name for side in self.sides], learning_rate)
        if epoch % max(1, int(self._epochs_to_clear(learning_rate))) == 0:
            self._clear_tiny()
        return squares / self.grid.total_weight

    def _epochs_to_clear(self, learning_rate: float) -> float:
        """Return after how many epochs all rows are to be cleared of tiny numbers."""
        grid = self.grid
        visits = len(grid) / min(len(grid.counts), len(grid.run_counts))
        return epochs_to_clear(self.hyper, learning_rate, visits)

    def _clear_tiny(self) -> None:
        """Set tiny factors and states to 0."""
        for side in self.sides:
            clear_rows(side.factors, side.state, self.n_jobs)

    def _clear_block(self, x: int, y: int) -> None:
        """Set those of the rows of block (x, y) to 0."""
        grid = self.grid
        run_side, side = self.sides
        # Every band of the gathered side ends with a spare row.
        runs = slice(grid.run_bands[x], grid.run_bands[x + 1])
        rows = slice(grid.bands[y] + y, grid.bands[y + 1] + y)
        clear_rows(run_side.factors[runs], run_side.state[runs])
        clear_rows(side.factors[rows], side.state[rows])

    def _shrink_rows(self, sides: Sequence[str], rate: float) -> None:
        """Apply the penalties of reg_scale="row": one proximal step an epoch for every row.

        `sides` are the names of the sides.
        """
        for side, name in zip(self.sides, sides, strict=True):
            l1 = of_side(self.hyper.l1, name)
            l2 = of_side(self.hyper.l2, name)
            l1_bias = of_side(self.hyper.l1_bias, name)
            l2_bias = of_side(self.hyper.l2_bias, name)
            shrink(side.factors, rate * l1, rate * l2, self.n_jobs)
            shrink(
                side.biases,
                rate * l1_bias,
                rate * l2_bias,
                self.n_jobs,
            )

    def validate(self) -> float:
        """Return the mean squared error on the held-out ratings.

        Those with unknown ids are predicted as `predict` does.
        """
        if self.check is None:
            raise ValueError("there are no ratings to validate on")
        squares = self._pass(self.check, 0)
        total_weight = self.check.total_weight
        if self.unknown is not None:
            codes = self._as_sides(self.unknown.users, self.unknown.items)
            run_biases = self.sides[RUN].biases_of(codes[RUN])
            biases = self.sides[GATHERED].biases_of(codes[GATHERED])
            errors = self.unknown.values - (self.mean + (run_biases + biases))
            squares += float(np.sum(self.unknown.weights * errors**2))
            total_weight += float(self.unknown.weights.sum())
        return squares / total_weight

    def _as_sides(self, users: Any, items: Any) -> tuple[Any, Any]:
        """Return (run side's, gathered side's) of users' and items'; and the other way round."""
        return (users, items) if self.grid.users_run else (items, users)

    def _pass(
        self,
        grid: Grid,
        epoch: int,
        solver: str | None = None,
        rules: np.ndarray | None = None,
    ) -> float:
        """Walk over a grid; return the sum of the weighted squared errors.

        Without a solver and its rules nothing is trained.
        """
        kernel = kernels("engines._sgd", self.dtype)
        clears = rules is not None and self._epochs_to_clear(rules[0, 0]) < 1
        n_bands = grid.n_bands
        squares = np.zeros(n_bands**2)
        run_rows, rows = (
            kernel.Side(side.factors, side.biases, side.state, side.extra) for side in self.sides
        )
        blocks = kernel.Blocks(
            grid.block_runs,
            grid.block_start,
            self.grid.bands + np.arange(n_bands + 1),
            grid.run_row,
            grid.run_end,
            grid.index,
            grid.rating,
            np.empty(0, self.dtype) if grid.weight is None else grid.weight,
        )

        def train_block(x: int, y: int) -> None:
            squares[x * n_bands + y] = kernel.block(
                run_rows, rows, blocks, x, y, self.mean, solver, rules
            )
            if clears:
                self._clear_block(x, y)

        run_blocks(
            strata(self.seed, epoch, n_bands),
            train_block,
            self.n_jobs,
            self.pool,
        )
        return float(squares.sum())

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that an epoch changes, by name."""
        return {name: array.copy() for name, array in self.state_arrays.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        for name, array in self.state_arrays.items():
            array[:] = state[name]

    def weights(self) -> Weights:
        """Return the weights as they are now, in the order of the codes; a copy."""
        users, items = self._as_sides(*self.sides)
        user_biases, user_factors = users.by_code(self.k, self.dtype)
        item_biases, item_factors = items.by_code(self.k, self.dtype)
        return Weights(
            self.mean,
            user_biases,
            item_biases,
            user_factors,
            item_factors,
        )

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        self.mean = weights.global_mean
        users, items = self._as_sides(*self.sides)
        users.load(weights.user_biases, weights.user_factors)
        items.load(weights.item_biases, weights.item_factors)


def soft_threshold(values: np.ndarray, threshold: float) -> None:
    """Move values towards 0 by a threshold, in place; those nearer to 0 become 0."""
    np.copysign(np.maximum(np.abs(values) - threshold, 0), values, out=values)


def shrink(values: np.ndarray, l1: float, l2: float, n_jobs: int) -> None:
    """Apply one proximal step of L1, then of L2, to each value, in place.

    `l1` and `l2` are the penalties times the learning rate.
    """
    if not (l1 or l2):
        return
    factor = values.dtype.type(1 / (1 + l2))

    def shrink_chunk(first: int) -> None:
        part = values[first : first + START_CHUNK]
        if l1:
            soft_threshold(part, l1)
        part *= factor

    parallel(shrink_chunk, range(0, len(values), START_CHUNK), n_jobs)
