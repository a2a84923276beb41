"""CudaMiniBatchEngine: the methods of `MiniBatchEngine` over CuPy. Its kernels stand in _minibatch.cu."""

from __future__ import annotations

import numpy as np

from funksvd.engines.cuda_source import BLOCK, constants_of, options, source
from funksvd.engines.device import memory_limit, on_card, open_device, too_large
from funksvd.engines.minibatch import MiniBatchEngine, ordered
from funksvd.ratings import _keys

NAMES = ("run_rows", "rows", "run_state", "state")


class CudaMiniBatchEngine(MiniBatchEngine):
    """Keras' algorithm on a GPU: the batches, the formulas and the numbers of `MiniBatchEngine`.

    The host deals the ratings to the batches and sorts each by both sides; a batch goes to the card when its turn comes,
    the tables and states stay there. Sums are made in a fixed order: the same bits come out each time.

    Raises
    ------
    DeviceError
        Before any work: see `open_device`; or where the tables and a batch do not fit the card.
    """

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        self.cupy, card = open_device(hyper.device)
        card.use()
        super().__init__(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        cupy, size = self.cupy, self.batch_size
        n_check = 0 if self.check is None else len(self.check[0])
        host = (*self.tables, *self.tables, *self.states)
        needed = (
            sum(a.nbytes for a in host)
            + 16 * sum(self.sizes)
            + 24 * size
            + 12 * n_check
            + 8 * self.sizes[0]
        )
        limit = memory_limit(cupy, hyper, card)
        if needed > limit:
            raise too_large(needed, limit, hyper, f"batch_size={hyper.batch_size}")
        with on_card(cupy):
            module = cupy.RawModule(
                code=source("_minibatch.cu"),
                options=options(self.k + 2 * hyper.biased, False, self.solver),
            )
            self.passes = {
                name: module.get_function(name) for name in ("forward", "backward", "measure")
            }
            # Each table ends with the row of an unknown id: a 1 where the others have theirs.
            shapes = [(len(table) + 1, table.shape[1]) for table in self.tables]
            self.cards, self.fresh = (
                [cupy.empty(shape, np.float32) for shape in shapes] for _ in range(2)
            )
            self.card_states = [cupy.empty(a.shape, np.float32) for a in self.states]
            self.card_columns = [cupy.asarray(columns) for columns in self.columns]
            self.starts = [cupy.empty(n + 1, np.int64) for n in self.sizes]
            self.row, self.other, self.order = (cupy.empty(size, np.int32) for _ in range(3))
            self.rating, self.weight, self.push = (cupy.empty(size, np.float32) for _ in range(3))
            self._upload()
            self.checked = None if self.check is None else self._upload_check()

    def _upload(self):
        for side, (table, fresh) in enumerate(zip(self.cards, self.fresh, strict=True)):
            unknown = np.zeros((1, table.shape[1]), np.float32)
            if self.hyper.biased:
                unknown[0, self.k + 1 - side] = 1
            for device in (table, fresh):
                device.set(np.concatenate([self.tables[side], unknown]))
        for device, state in zip(self.card_states, self.states, strict=True):
            if state.size:
                device.set(state)

    def _download(self):
        for table, card in zip(self.tables, self.cards, strict=True):
            table[...] = card.get()[:-1]

    def _upload_check(self):
        """The held-out ratings by the rows of the first side, unknown ids as its last."""
        users, items, values, weights = self.check
        rows, others = (
            np.where(codes < 0, np.int32(n), codes)
            for codes, n in zip(
                (users, items) if self.users_first else (items, users), self.sizes, strict=True
            )
        )
        n_rows, n_others = (n + 1 for n in self.sizes)
        order, start = ordered(rows, others, n_rows, n_others)
        parts = (
            start,
            others[order],
            values[order].astype(np.float32),
            weights[order].astype(np.float32),
        )
        return [self.cupy.asarray(part) for part in parts]

    # ------------------------------------------------------------------------------------------ passes

    def epoch(self, epoch, learning_rate):
        self.squares = self.cupy.asarray(np.zeros(self.sizes[0]))
        super().epoch(epoch, learning_rate)
        return float(self.squares.get().sum()) / self.total_weight

    def _step(self, batch, rules, squares, run):
        row, other, rating, weight = batch
        size, share = len(row), 1 / len(row) if self.hyper.reg_scale == "rating" else 0.0
        self.steps += 1
        order, starts = np.empty(size, np.int32), [np.zeros(n + 1, np.int64) for n in self.sizes]
        np.cumsum(np.bincount(row, minlength=self.sizes[0]), out=starts[0][1:])
        _keys.group(other, np.arange(size, dtype=np.int32), starts[1], order)
        here = [
            device[:size] for device in (self.row, self.other, self.order, self.rating, self.weight)
        ]
        for device, host in zip(here, (row, other, order, rating, weight), strict=True):
            if len(host):
                device.set(host)
        for device, host in zip(self.starts, starts, strict=True):
            device.set(host)
        scalars = [
            float(beta) ** int(self.steps[0]) for beta in (self.hyper.beta_1, self.hyper.beta_2)
        ]
        after = (
            self.cupy.asarray(constants_of(self.mean, rules)),
            *map(np.float32, (*scalars, share)),
        )
        rows, others, order, rating, weight = here
        of_batch = rating, weight, self.push, np.int32(self.weight_given), np.float32(2 / size)
        for side, (name, index) in enumerate((("forward", others), ("backward", rows))):
            self._launch(
                name,
                self.starts[side],
                order,
                index,
                *of_batch,
                self.cards[side],
                self.cards[1 - side],
                self.fresh[side],
                self.card_states[side],
                self.card_columns[side],
                self.squares,
                np.int64(self.sizes[side]),
                *after,
            )
        self.cards, self.fresh = self.fresh, self.cards

    weight_given = property(lambda self: len(self.batches[3]) > 0)

    def _launch(self, name, *arguments):
        n_rows = int(arguments[14])
        self.passes[name]((min(-(-n_rows * 32 // BLOCK), 1 << 16),), (BLOCK,), arguments)

    def validate(self):
        start, other, rating, weight = self.checked
        squares = self.cupy.asarray(np.zeros(len(start) - 1))
        self._launch(
            "measure",
            start,
            other,
            other,
            rating,
            weight,
            self.push,
            np.int32(1),
            np.float32(0),
            self.cards[0],
            self.cards[1],
            self.fresh[0],
            self.card_states[0],
            self.card_columns[0],
            squares,
            np.int64(len(start) - 1),
            self.cupy.asarray(constants_of(self.mean, None)),
            *map(np.float32, (0, 0, 0)),
        )
        return float(squares.get().sum()) / float(self.check[3].sum())

    # ------------------------------------------------------------------------------------------ host and card

    def snapshot(self):
        arrays = (
            *(card.get()[:-1] for card in self.cards),
            *(card.get() for card in self.card_states),
        )
        return dict(zip(NAMES, arrays, strict=True)) | {"steps": self.steps.copy()}

    def restore(self, state):
        super().restore(state)
        self._upload()

    def weights(self):
        self._download()
        return super().weights()

    def load(self, params):
        self._download()
        for state, card in zip(self.states, self.card_states, strict=True):
            state[...] = card.get()
        super().load(params)
        self._upload()
