"""CudaEngine: the methods of `SgdEngine` over CuPy, with the kernels of `_sgd.cu`.

The kernels are compiled when an engine is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from funksvd.engines.cuda_grid import Pass, Resident, SideArrays, Streamed
from funksvd.engines.cuda_source import THREADS, constants_of, options, source
from funksvd.engines.device import GIB, DeviceError, memory_limit, on_card, open_device, too_large
from funksvd.engines.sgd import SgdEngine
from funksvd.engines.strata import strata
from funksvd.hyper import Hyper, of_side
from funksvd.ratings.grid import Grid
from funksvd.ratings.triples import Ratings
from funksvd.weights import Weights

# Hogwild: how many warps may work on one row at a time, on the average. 0.4 cost 1 % of the RMSE
# on ml-100k in emulation.
COLLISIONS = 0.2
SHRINK_BLOCKS = 4096  # of threads at most, for the penalties of rows
ROWS_A_BLOCK = 8  # rows of such a block of threads

# The purposes that random numbers of an engine serve; each has a stream of its own.
ROUNDING = 3
HOGWILD_ORDER = 4

# The arrays of each side on the card, in the order of `SideArrays`.
RUN_SIDE = ("run_factors", "run_biases", "run_state", "run_extra")
SIDE = ("factors", "biases", "state", "extra")
FACTORS = ("run_factors", "factors")


def hogwild_warps(grid: Grid) -> int:
    """Return how many warps may train at once without strata.

    Two of them then seldom meet at one popular row.
    """
    meetings = [
        float(np.sum((counts / counts.sum()) ** 2)) for counts in (grid.run_counts, grid.counts)
    ]
    return max(1, min(int(COLLISIONS / max(meetings)), grid.n_bands**2))


class CudaEngine(SgdEngine):
    """SGD over the block grid on a GPU.

    `SgdEngine` cuts the grid and makes the arrays on the host, where they keep their names and the
    order of their rows. This class keeps copies of them on the card and walks the grid there. An
    epoch is one launch a stratum, whose blocks share no row: the same bits come out each time. With
    ``schedule="hogwild"`` it is one launch of all blocks in random order, and rows collide (Niu et
    al. 2011; in batches as Xie et al. 2017, cuMF_SGD).

    Raises
    ------
    DeviceError
        Before any work: see `open_device`; or if the model does not fit the card.
    """

    WARPS = PADDED = True
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
        self.half = hyper.dtype == "float16"
        if self.half:
            hyper = replace(hyper, dtype="float32")
        super().__init__(
            ratings,
            held_out,
            hyper,
            seed=seed,
            n_jobs=n_jobs,
        )
        grids = [grid for grid in (self.grid, self.check) if grid is not None]
        streamed = self._must_stream(grids, memory_limit(self.cupy, hyper, card))
        walk = Streamed if streamed else Resident
        self.arrays: dict[str, Any] = {}
        with on_card(self.cupy):
            weighted = {grid.weight is not None for grid in grids}
            self.kernels = {given: self._compiled(given) for given in weighted}
            self._upload()
            self.walks = {id(grid): walk(self.cupy, grid) for grid in grids}

    def _must_stream(
        self,
        grids: Sequence[Grid],
        limit: float,
    ) -> bool:
        """Return whether the ratings must be streamed; DeviceError if even that takes too much."""
        model = sum(self._on_host(name).nbytes for name in self.STATE)
        if self.half:
            model -= sum(self._on_host(name).nbytes for name in FACTORS) // 2
        if model + sum(map(Resident.bytes_of, grids)) <= limit:
            return False
        least = model + sum(map(Streamed.bytes_of, grids))
        if least > limit:
            dtype = "float16" if self.half else "float32"
            raise too_large(least, limit, self.hyper, f"dtype={dtype!r}")
        if self.hyper.schedule == "hogwild":
            raise DeviceError(
                f"the ratings do not fit the {limit / GIB:.3f} GiB of the GPU beside the model, "
                "and schedule='hogwild' needs all of them there; use schedule='strata'"
            )
        return True

    def _compiled(self, weighted: bool) -> Any:
        """Return the module of the kernels for ratings with or without weights."""
        hyper = self.hyper
        penalties = [] if hyper.reg_scale == "row" else [hyper.l1, hyper.l1_bias]
        sides = ("users", "items")
        l1 = any(of_side(penalty, side) for penalty in penalties for side in sides)
        proximal = l1 or hyper.non_negative
        arguments = options(
            self.k,
            self.half,
            self.solver,
            hyper.biased,
            weighted,
            proximal,
        )
        return self.cupy.RawModule(code=source(), options=arguments)

    # ------------------------------------------------------------------------- host and card

    def _on_host(self, name: str) -> np.ndarray:
        """Return one of the arrays of `STATE` by its name."""
        return self.state_arrays[name]

    def _upload(self) -> None:
        for name in self.STATE:
            host = self._on_host(name)
            if self.half and name in FACTORS:
                host = host.astype(np.float16)
            self.arrays.pop(name, None)  # its memory is there for the new one
            self.arrays[name] = self.cupy.asarray(host)

    def _download(self, names: Iterable[str]) -> None:
        for name in names:
            self._on_host(name)[...] = self.arrays[name].get()

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return a copy of all that an epoch changes, by name; halves as float32."""
        arrays = {}
        for name in self.STATE:
            array = self.arrays[name].get()
            arrays[name] = array.astype(np.float32) if array.dtype == np.float16 else array
        return arrays

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Return to the state of a snapshot."""
        super().restore(state)
        self._upload()

    def weights(self) -> Weights:
        """Return the weights as they are now, in the order of the codes; a copy."""
        self._download((*FACTORS, "run_biases", "biases"))
        return super().weights()

    def load(self, weights: Weights) -> None:
        """Take over weights in the order of the codes."""
        self._download(self.STATE)
        super().load(weights)
        self._upload()

    # ------------------------------------------------------------------------------- passes

    def validate(self) -> float:
        """Return the mean squared error on the held-out ratings."""
        if self.unknown is not None:
            self._download(("run_biases", "biases"))
        return super().validate()

    def _pass(
        self,
        grid: Grid,
        epoch: int,
        solver: str | None = None,
        rules: np.ndarray | None = None,
    ) -> float:
        """Train on a grid, or only measure without a solver; return the sum of squared errors."""
        n = grid.n_bands
        walk = self.walks[id(grid)]
        kernel = self._kernel(grid, "measure" if solver is None else "train")
        squares = self.cupy.empty(n * n, np.float64)
        shared = Pass(
            SideArrays(*(self.arrays[name] for name in RUN_SIDE)),
            SideArrays(*(self.arrays[name] for name in SIDE)),
            self.cupy.asarray(constants_of(self.mean, rules)),
            self._rounding_seed(epoch),
            squares,
        )
        blocks = np.arange(n) * n + strata(self.seed, epoch, n)
        if solver is None:
            walk.launch_all(kernel, blocks.ravel(), n * n, shared)
        elif self.hyper.schedule == "hogwild":
            rng = np.random.default_rng([self.seed, HOGWILD_ORDER, epoch])
            walk.launch_all(kernel, rng.permutation(n * n), hogwild_warps(grid), shared)
        else:
            walk.launch_strata(kernel, blocks, shared)
        return float(squares.get().sum())

    def _kernel(
        self,
        grid: Grid,
        name: str,
    ) -> Any:
        return self.kernels[grid.weight is not None].get_function(name)

    def _rounding_seed(self, *launch: int) -> np.uint32:
        """Return the seed of the stochastic rounding of one launch."""
        rng = np.random.default_rng([self.seed, ROUNDING, *launch])
        return rng.integers(1 << 32, dtype=np.uint32)

    def _clear_tiny(self) -> None:
        """Do nothing: a GPU computes with subnormal numbers as fast as with others."""

    def _shrink_rows(
        self,
        sides: Sequence[str],
        rate: float,
    ) -> None:
        """Make the proximal step of reg_scale="row" for every row on the card."""
        kernel = self._kernel(self.grid, "shrink")
        seed = self._rounding_seed(*np.array([rate], np.float64).view(np.uint32))
        names = (("run_factors", "run_biases"), ("factors", "biases"))
        for side, (factors, biases) in zip(sides, names, strict=True):
            rows = len(self._on_host(biases))
            penalties = []
            for l1, l2 in (("l1", "l2"), ("l1_bias", "l2_bias")):
                threshold = rate * of_side(getattr(self.hyper, l1), side)
                shrink = 1 / (1 + rate * of_side(getattr(self.hyper, l2), side))
                penalties += [np.float32(threshold), np.float32(shrink)]
            n_blocks = min(-(-rows // ROWS_A_BLOCK), SHRINK_BLOCKS)
            arrays = (self.arrays[factors], self.arrays[biases])
            kernel((n_blocks,), (THREADS,), (*arrays, np.int64(rows), *penalties, seed))
