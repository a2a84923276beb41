"""The engine of mini-batches: the steps of Keras with two embeddings, by `_minibatch.pyx`.

Each step is that of Keras for the loss of one batch of B ratings. The loss is the mean of w e^2,
where w are sample weights, plus penalties. With reg_scale="row" they are the sum of l2 x^2 + l1 |x|
over **all** rows (Keras' `embeddings_regularizer`); with "rating" they are the mean over the batch
of the same sum over the rows of each of its ratings.

The gradient of this loss, -2 e q + 2 l2 p + l1 sign(p), has a factor 2 that the engine of single
ratings leaves out. For equal steps a learning rate is half of that engine's, l1 is twice its l1,
and l2 is the same. Every row takes a step with every batch, rated in it or not, because its moments
go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from funksvd.boundary import check_counts
from funksvd.engines import batches
from funksvd.engines.batches import Batches, HeldOut, Run, Sorted, canonical
from funksvd.engines.contract import Engine
from funksvd.engines.start import first_state, rule, start_factors
from funksvd.hyper import Hyper, of_side, solver_of
from funksvd.machine.kernels import kernels
from funksvd.machine.memory import aligned
from funksvd.machine.threads import team
from funksvd.ratings.bands import users_have_more
from funksvd.ratings.triples import Ratings
from funksvd.weights import PAIRS_OF_A_CALL, Weights, predict

MOST = 10**9  # ratings that NumPy's hypergeometric distribution can deal
# Ratings and rows of a step below which threads cost more than they bring.
BUSY = 50_000
PAIRS_OF_A_CHECK = 16 * PAIRS_OF_A_CALL
PARTS_A_THREAD = 4
# Steps from one that clears the rows of tiny numbers to the next (see `_vec.h`).
CLEAR_EVERY = 8

# The names in a snapshot of the rows and of the state of either side.
ROW_NAMES = ("run_rows", "rows")
STATE_NAMES = ("run_state", "state")


@dataclass
class SideRows:
    """The rows of one side.

    Attributes
    ----------
    name : "users" or "items"
    rows, spare : (n, width)
        Factors, bias and 1, or factors, 1 and bias. A step writes `spare`; the two then change
        places.
    state : (n, n_states * width)
    columns : (4, width)
        Of each value of a row: 2 l2, l1, lower bound, and whether it is learned (1, 0).
    """

    name: str
    rows: np.ndarray
    spare: np.ndarray
    state: np.ndarray
    columns: np.ndarray


class MiniBatchEngine(Engine):
    """Keras' algorithm; the methods and their arguments are those of `SgdEngine`.

    The side with more ids is the first one: a batch's ratings are grouped by it. So users and items
    can be swapped without changing a bit. With shuffle=True a batch is a random part of the
    ratings, drawn by the seed and the epoch, whatever their order. With shuffle=False the batches
    are the ratings as they were given, B at a time.
    """

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        n = len(ratings)
        if n >= MOST:
            raise ValueError(
                f"batch_size must be 1 for {MOST:,} ratings or more, "
                f"got {hyper.batch_size} for {n:,}"
            )
        self.hyper = hyper
        self.k = hyper.n_factors
        self.dtype = np.dtype(hyper.dtype)
        self.seed = seed
        self.kernel = kernels("engines._minibatch", self.dtype)
        self.solver = solver_of(hyper)
        self.steps = np.zeros(1, np.int64)
        counts = [
            np.bincount(ratings.users, minlength=ratings.n_users),
            np.bincount(ratings.items, minlength=ratings.n_items),
        ]
        self.users_first = users_have_more(ratings, *counts)
        self.sizes = self._by_side(ratings.n_users, ratings.n_items)
        self.batch_size = min(hyper.batch_size, n)
        self.n_jobs = n_jobs if min(n, self.batch_size + sum(self.sizes)) >= BUSY else 1
        self._group(ratings)
        self.check = None if held_out is None else self._held_out(ratings, held_out)
        self._make_rows(self._by_side(*counts), n_jobs)
        self._make_room()

    def _by_side(
        self,
        of_users: Any,
        of_items: Any,
    ) -> tuple[Any, Any]:
        """Return two things in the order of the sides."""
        return (of_users, of_items) if self.users_first else (of_items, of_users)

    def _group(self, ratings: Ratings) -> None:
        """Sort the ratings by their rows; with shuffle=False make the batches of all epochs."""
        n = len(ratings)
        codes = self._by_side(ratings.users, ratings.items)
        order, start = canonical(codes, ratings.values, ratings.weights, self.sizes)
        values = ratings.values[order]
        sample_weights = np.ones(0)
        weighted_values = values
        self.total_weight = float(n)
        if ratings.weights is not None:
            sample_weights = ratings.weights[order]
            weighted_values = values * sample_weights
            self.total_weight = float(sample_weights.sum())
        total = np.sum(weighted_values, dtype=np.float64)
        self.mean = float(total) / self.total_weight if self.hyper.center else 0.0
        rows, others = codes
        columns = (
            others[order],
            values.astype(self.dtype),
            sample_weights.astype(self.dtype),
        )
        if self.hyper.shuffle:
            self.sorted_ratings = Sorted(start, columns)
            room = [np.empty_like(column) for column in columns]
            self.batches = Batches(np.empty(n, np.int32), *room)
        else:
            sorted_batches = Batches(rows[order], *columns)
            self.batches = batches.in_file_order(sorted_batches, order, self.batch_size)

    def _held_out(
        self,
        ratings: Ratings,
        held_out: Ratings,
    ) -> HeldOut:
        """Return the ratings to validate on, in an order that does not depend on theirs."""
        users, items = held_out.codes_in(ratings.tables)
        shifted = (users + np.int32(1), items + np.int32(1))  # unknown ids are -1
        n_codes = (ratings.n_users + 1, ratings.n_items + 1)
        order, _ = canonical(shifted, held_out.values, held_out.weights, n_codes)
        sample_weights = np.ones(len(order))
        if held_out.weights is not None:
            sample_weights = held_out.weights[order]
        return HeldOut(users[order], items[order], held_out.values[order], sample_weights)

    def _make_rows(
        self,
        counts: tuple[np.ndarray, np.ndarray],
        n_jobs: int,
    ) -> None:
        """Make the rows of both sides, with random factors, and their states."""
        hyper = self.hyper
        width = -(-(self.k + 2 * hyper.biased) // 8) * 8
        self.sides = []
        for side, name in enumerate(self._by_side("users", "items")):
            size = self.sizes[side]
            rows = aligned(size, width, self.dtype)
            start_factors(
                rows,
                np.arange(size),
                counts[side],
                side,
                hyper,
                self.seed,
                n_jobs,
            )
            if hyper.biased:
                rows[:, self._one(side)] = 1
            spare = aligned(size, width, self.dtype)
            state, _ = first_state(
                self.solver,
                size,
                width,
                self.dtype,
                hyper,
            )
            columns = self._columns(side, name, width)
            self.sides.append(SideRows(name, rows, spare, state, columns))

    def _bias(self, side: int) -> int:
        """Return the column of the biases of a side, which is that of the ones of the other."""
        return self.k + side

    def _one(self, side: int) -> int:
        """Return the column of the ones of a side."""
        return self.k + 1 - side

    def _columns(
        self,
        side: int,
        name: str,
        width: int,
    ) -> np.ndarray:
        """Return `SideRows.columns` of a side, as Keras' gradient has the penalties."""
        hyper = self.hyper
        columns = aligned(4, width, self.dtype)
        l2, l1, low, learned = columns
        low[:] = -np.inf
        l2[: self.k] = 2 * of_side(hyper.l2, name)
        l1[: self.k] = of_side(hyper.l1, name)
        learned[: self.k] = 1
        if hyper.non_negative:
            low[: self.k] = 0
        if hyper.biased:
            bias = self._bias(side)
            l2[bias] = 2 * of_side(hyper.l2_bias, name)
            l1[bias] = of_side(hyper.l1_bias, name)
            learned[bias] = 1
        return columns

    def _make_room(self) -> None:
        """Make the arrays that the ratings of a batch leave for the second side."""
        n_others = self.sizes[1]
        self.n_parts = 1
        if self.n_jobs > 1:
            self.n_parts = min(PARTS_A_THREAD * self.n_jobs, self.kernel.MOST_PARTS)
        self.counts = np.empty((self.n_parts, n_others), np.int32)
        self.entry_start = np.empty(n_others + 1, np.int32)
        self.entries = np.empty(self.batch_size * self.kernel.entry_bytes(), np.uint8)

    def epoch(
        self,
        epoch: int,
        learning_rate: float,
    ) -> float:
        """Make a step for each batch; return the mean squared error seen on the way."""
        rules = []
        for side in self.sides:
            values = rule(self.hyper, side.name, learning_rate, penalties=False)
            rules.append(np.array(values))
        squares = np.zeros(self.sizes[0])
        with team(self.n_jobs) as run:
            if self.hyper.shuffle:
                seeds = (self.seed, epoch)
                batches.deal(
                    self.sorted_ratings,
                    self.batch_size,
                    seeds,
                    run,
                    self.batches,
                )
            for first in range(0, len(self.batches.row), self.batch_size):
                self._step(self.batches.part(first, self.batch_size), rules, squares, run)
        return float(squares.sum()) / self.total_weight

    def _clocks(self) -> list[float]:
        """Return beta_1^t and beta_2^t of the step to come, and count it."""
        self.steps += 1
        t = int(self.steps[0])
        return [float(beta) ** t for beta in (self.hyper.beta_1, self.hyper.beta_2)]

    def _share(self, size: int) -> float:
        """Return a row's share of the penalties for each rating of a batch; 0 is the whole."""
        return 1 / size if self.hyper.reg_scale == "rating" else 0.0

    def _step(
        self,
        batch: Batches,
        rules: Sequence[np.ndarray],
        squares: np.ndarray,
        run: Run,
    ) -> None:
        """Step every row by the gradient of one batch."""
        kernel = self.kernel
        clocks = self._clocks()
        share = self._share(len(batch.row))
        clears = bool(self.steps[0] % CLEAR_EVERY == 0)
        side, other_side = (
            kernel.Side(
                of.rows,
                of.spare,
                of.state,
                of.columns,
                values,
                *clocks,
                share,
                clears,
            )
            for of, values in zip(self.sides, rules, strict=True)
        )
        ratings = kernel.Batch(*batch, self.mean, self.sizes[0], self.n_parts)
        entries = kernel.Entries(self.counts, self.entry_start, self.entries)

        def count(part: int) -> None:
            kernel.count(ratings, entries, part)

        def forward(part: int) -> None:
            kernel.forward(
                side,
                other_side,
                self.solver,
                ratings,
                entries,
                part,
                squares,
            )

        def backward(part: int) -> None:
            kernel.backward(
                other_side,
                side,
                self.solver,
                entries,
                part,
            )

        parts = range(self.n_parts)
        run(count, parts)
        kernel.starts(entries)
        run(forward, parts)
        run(backward, parts)
        for of in self.sides:
            of.rows, of.spare = of.spare, of.rows

    def validate(self) -> float:
        """Return the mean squared error on the held-out ratings, predicted as `predict` does."""
        users, items, values, sample_weights = cast(HeldOut, self.check)
        weights = self.weights()
        squares = 0.0
        for first in range(0, len(users), PAIRS_OF_A_CHECK):
            part = slice(first, first + PAIRS_OF_A_CHECK)
            predicted = predict(weights, users[part], items[part], self.n_jobs)
            errors = values[part] - predicted.astype(np.float64)
            squares += float(np.sum(sample_weights[part] * errors**2))
        return squares / float(sample_weights.sum())

    def _arrays(self) -> dict[str, np.ndarray]:
        """Return all that an epoch changes, by its name in a snapshot."""
        arrays = {name: of.rows for name, of in zip(ROW_NAMES, self.sides, strict=True)}
        for name, of in zip(STATE_NAMES, self.sides, strict=True):
            arrays[name] = of.state
        return arrays | {"steps": self.steps}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that an epoch changes, by name."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def check_state(self, state: Mapping[str, np.ndarray], n_epochs: int) -> None:
        """Raise ValueError if the number of steps is not that after `n_epochs`."""
        steps_of_an_epoch = -(-len(self.batches.row) // self.batch_size)
        check_counts(state, {"steps": [n_epochs * steps_of_an_epoch]})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        for name, array in self._arrays().items():
            array[:] = state[name]

    def weights(self) -> Weights:
        """Return the weights as they are now, in the order of the codes; a copy."""
        learned = []
        for side, of in enumerate(self.sides):
            size = len(of.rows)
            factors = aligned(size, self.k, self.dtype)
            factors[:] = of.rows[:, : self.k]
            biases = np.zeros(size, self.dtype)
            if self.hyper.biased:
                biases[:] = of.rows[:, self._bias(side)]
            learned.append((biases, factors))
        # The order of the sides is its own inverse.
        users, items = self._by_side(*learned)
        user_biases, user_factors = users
        item_biases, item_factors = items
        return Weights(
            self.mean,
            user_biases,
            item_biases,
            user_factors,
            item_factors,
        )

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        users = (weights.user_biases, weights.user_factors)
        items = (weights.item_biases, weights.item_factors)
        self.mean = weights.global_mean
        for side, (biases, factors) in enumerate(self._by_side(users, items)):
            rows = self.sides[side].rows
            rows[:, : self.k] = factors
            if self.hyper.biased:
                rows[:, self._bias(side)] = biases
