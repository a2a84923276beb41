"""CudaMiniBatchEngine: the methods of `MiniBatchEngine` over CuPy, with `_minibatch.cu`.

The records are the arguments of the kernels, whose fields the kernels take one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np

from funksvd.engines.batches import Batches, HeldOut, Run, group_pairs
from funksvd.engines.cuda_source import THREADS, constants_of, options, source
from funksvd.engines.device import memory_limit, on_card, open_device, too_large
from funksvd.engines.minibatch import ROW_NAMES, STATE_NAMES, MiniBatchEngine, SideRows
from funksvd.hyper import Hyper
from funksvd.ratings import _keys
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights

WARP = 32  # threads
MOST_BLOCKS = 1 << 16  # of threads in a launch
# Bytes on the card of each row beside its values, of a rating in a batch, of one held out.
BYTES_OF_A_ROW = 16
BYTES_OF_A_RATING = 24
BYTES_OF_A_CHECK = 12
PASSES = ("forward", "backward")


class Batch(NamedTuple):
    """The ratings that one launch works on, on the card; `Batch` of `_minibatch.cu`."""

    start: Any
    order: Any
    other: Any
    rating: Any
    weight: Any
    push: Any
    weighted: np.int32
    scale: np.float32


class Rows(NamedTuple):
    """The rows that one launch steps, on the card; `Rows` of `_minibatch.cu`."""

    old: Any
    others: Any
    fresh: Any
    state: Any
    columns: Any
    squares: Any
    n: np.int64


class Clocks(NamedTuple):
    """The clocks of a step and the share of the penalties; `Clocks` of `_minibatch.cu`."""

    beta_1: np.float32
    beta_2: np.float32
    share: np.float32


class Room(NamedTuple):
    """Room on the card for the ratings of a batch, in the order of `Batches`, and for `order`."""

    row: Any
    other: Any
    rating: Any
    weight: Any
    order: Any


class HeldOutOnCard(NamedTuple):
    """The held-out ratings on the card, by the rows of the first side."""

    start: Any
    other: Any
    rating: Any
    weight: Any


@dataclass
class CardSide:
    """The arrays of `SideRows` on the card; `start` is where each row's ratings of a batch begin.

    `rows` and `spare` end with the row of an unknown id, which holds a 1 where the others do.
    """

    rows: Any
    spare: Any
    state: Any
    columns: Any
    start: Any


class CudaMiniBatchEngine(MiniBatchEngine):
    """Keras' algorithm on a GPU: the batches, the formulas and the numbers of `MiniBatchEngine`.

    The host deals the ratings to the batches and sorts each batch by both sides. A batch goes to
    the card when its turn comes; rows and states stay there. Sums are made in a fixed order: the
    same bits come out each time.

    Raises
    ------
    DeviceError
        Before any work: see `open_device`; or if the rows and a batch do not fit the card.
    """

    any_thread = False  # each thread has a current device of its own

    def __init__(
        self,
        ratings: Ratings,
        held_out: Ratings | None,
        hyper: Hyper,
        *,
        seed: int = 0,
        n_jobs: int = 1,
    ) -> None:
        self.cupy, card = open_device(hyper.device)
        card.use()
        super().__init__(
            ratings,
            held_out,
            hyper,
            seed=seed,
            n_jobs=n_jobs,
        )
        needed = self._bytes_needed()
        limit = memory_limit(self.cupy, hyper, card)
        if needed > limit:
            raise too_large(needed, limit, hyper, f"batch_size={hyper.batch_size}")
        with on_card(self.cupy):
            self._compile()
            self.card_sides = [self._card_side(of) for of in self.sides]
            self._make_room_on_card()
            self._upload()
            self.checked = None if self.check is None else self._upload_check()

    def _bytes_needed(self) -> int:
        """Return how many bytes of the card the rows, a batch and the held-out ratings take."""
        arrays = [array for of in self.sides for array in (of.rows, of.spare, of.state)]
        rows = sum(array.nbytes for array in arrays)
        n_check = 0 if self.check is None else len(self.check.users)
        squares = self.sizes[0] * np.dtype(np.float64).itemsize
        return int(
            rows
            + BYTES_OF_A_ROW * sum(self.sizes)
            + BYTES_OF_A_RATING * self.batch_size
            + BYTES_OF_A_CHECK * n_check
            + squares
        )

    def _compile(self) -> None:
        module = self.cupy.RawModule(
            code=source("_minibatch.cu"),
            options=options(self.k + 2 * self.hyper.biased, False, self.solver),
        )
        self.passes = {name: module.get_function(name) for name in (*PASSES, "measure")}

    def _card_side(self, of: SideRows) -> CardSide:
        """Return room on the card for one side, with its columns."""
        cupy = self.cupy
        n, width = of.rows.shape
        return CardSide(
            cupy.empty((n + 1, width), np.float32),
            cupy.empty((n + 1, width), np.float32),
            cupy.empty(of.state.shape, np.float32),
            cupy.asarray(of.columns),
            cupy.empty(n + 1, np.int64),
        )

    def _make_room_on_card(self) -> None:
        dtypes = (np.int32, np.int32, np.float32, np.float32, np.int32)
        self.room = Room(*(self.cupy.empty(self.batch_size, dtype) for dtype in dtypes))
        self.push = self.cupy.empty(self.batch_size, np.float32)

    # ------------------------------------------------------------------------- host and card

    def _upload(self) -> None:
        for side, (card, host) in enumerate(zip(self.card_sides, self.sides, strict=True)):
            unknown = np.zeros((1, host.rows.shape[1]), np.float32)
            if self.hyper.biased:
                unknown[0, self._one(side)] = 1
            for device in (card.rows, card.spare):
                device.set(np.concatenate([host.rows, unknown]))
            if host.state.size:
                card.state.set(host.state)

    def _download_rows(self) -> None:
        for card, host in zip(self.card_sides, self.sides, strict=True):
            host.rows[...] = card.rows.get()[:-1]

    def _upload_check(self) -> HeldOutOnCard:
        """Bring the held-out ratings to the card, with unknown ids as the last row of a side."""
        check = cast(HeldOut, self.check)
        known = self._by_side(check.users, check.items)
        n_rows, n_others = self.sizes
        rows = np.where(known[0] < 0, np.int32(n_rows), known[0])
        others = np.where(known[1] < 0, np.int32(n_others), known[1])
        order, start = group_pairs(rows, others, n_rows + 1, n_others + 1)
        ratings = check.values[order].astype(np.float32)
        sample_weights = check.weights[order].astype(np.float32)
        parts = (start, others[order], ratings, sample_weights)
        return HeldOutOnCard(*(self.cupy.asarray(part) for part in parts))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that an epoch changes, by name."""
        arrays = {}
        for name, card in zip(ROW_NAMES, self.card_sides, strict=True):
            arrays[name] = card.rows.get()[:-1]
        for name, card in zip(STATE_NAMES, self.card_sides, strict=True):
            arrays[name] = card.state.get()
        return arrays | {"steps": self.steps.copy()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        super().restore(state)
        self._upload()

    def weights(self) -> Weights:
        """Return the weights as they are now, in the order of the codes; a copy."""
        self._download_rows()
        return super().weights()

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        self._download_rows()
        for card, host in zip(self.card_sides, self.sides, strict=True):
            host.state[...] = card.state.get()
        super().load(weights)
        self._upload()

    # ------------------------------------------------------------------------------- passes

    def epoch(
        self,
        epoch: int,
        learning_rate: float,
    ) -> float:
        """Make a step for each batch; return the mean squared error seen on the way."""
        self.squares = self.cupy.asarray(np.zeros(self.sizes[0]))
        super().epoch(epoch, learning_rate)
        return float(self.squares.get().sum()) / self.total_weight

    def _step(
        self,
        batch: Batches,
        rules: Sequence[np.ndarray],
        squares: np.ndarray,
        run: Run,
    ) -> None:
        """Step every row by the gradient of one batch."""
        size = len(batch.row)
        clocks = Clocks(*map(np.float32, (*self._clocks(), self._share(size))))
        constants = self.cupy.asarray(constants_of(self.mean, rules))
        here = self._upload_batch(batch)
        indices = (here.other, here.row)  # of the rows on the other side
        for side, (name, index) in enumerate(zip(PASSES, indices, strict=True)):
            ratings = Batch(
                self.card_sides[side].start,
                here.order,
                index,
                here.rating,
                here.weight,
                self.push,
                np.int32(len(batch.weight) > 0),
                np.float32(2 / size),
            )
            rows = self._rows(side, self.squares, self.sizes[side])
            self._launch(
                name,
                ratings,
                rows,
                constants,
                clocks,
            )
        for card in self.card_sides:
            card.rows, card.spare = card.spare, card.rows

    def _upload_batch(self, batch: Batches) -> Room:
        """Bring a batch to the card, sorted by both sides; return the filled part of `room`."""
        size = len(batch.row)
        n_rows, n_others = self.sizes
        order = np.empty(size, np.int32)
        row_start = np.zeros(n_rows + 1, np.int64)
        other_start = np.zeros(n_others + 1, np.int64)
        np.cumsum(np.bincount(batch.row, minlength=n_rows), out=row_start[1:])
        _keys.group(batch.other, np.arange(size, dtype=np.int32), other_start, order)
        here = Room(*(device[:size] for device in self.room))
        for device, host in zip(here, (*batch, order), strict=True):
            if len(host):
                device.set(host)
        for card, start in zip(self.card_sides, (row_start, other_start), strict=True):
            card.start.set(start)
        return here

    def _rows(
        self,
        side: int,
        squares: Any,
        n_rows: int,
    ) -> Rows:
        card = self.card_sides[side]
        others = self.card_sides[1 - side].rows
        n = np.int64(n_rows)
        return Rows(
            card.rows,
            others,
            card.spare,
            card.state,
            card.columns,
            squares,
            n,
        )

    def _launch(
        self,
        name: str,
        ratings: Batch,
        rows: Rows,
        constants: Any,
        clocks: Clocks,
    ) -> None:
        """Launch a kernel with a warp for each row, as far as the most blocks allow."""
        n_blocks = min(-(-int(rows.n) * WARP // THREADS), MOST_BLOCKS)
        arguments = (*ratings, *rows, constants, *clocks)
        self.passes[name]((n_blocks,), (THREADS,), arguments)

    def validate(self) -> float:
        """Return the mean squared error on the held-out ratings."""
        held = cast(HeldOutOnCard, self.checked)
        total_weight = float(cast(HeldOut, self.check).weights.sum())
        n_rows = len(held.start) - 1
        squares = self.cupy.asarray(np.zeros(n_rows))
        ratings = Batch(
            held.start,
            held.other,  # in the place of an order, which `measure` does not read
            held.other,
            held.rating,
            held.weight,
            self.push,
            np.int32(1),
            np.float32(0),
        )
        rows = self._rows(0, squares, n_rows)
        constants = self.cupy.asarray(constants_of(self.mean))
        clocks = Clocks(*map(np.float32, (0, 0, 0)))
        self._launch(
            "measure",
            ratings,
            rows,
            constants,
            clocks,
        )
        return float(squares.get().sum()) / total_weight
