"""CudaEngine: the methods of `SgdEngine` over CuPy. The kernels stand in _sgd.cu and are compiled at run time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from funksvd.engines.cuda_grid import Resident, Streamed
from funksvd.engines.cuda_source import BLOCK, constants_of, options, source
from funksvd.engines.device import GIB, DeviceError, memory_limit, on_card, open_device, too_large
from funksvd.engines.sgd import SgdEngine
from funksvd.engines.strata import strata
from funksvd.parameters import of_side

COLLISIONS = 0.2  # Hogwild: warps at one row at a time, on the average; 0.4 cost 1 % of RMSE on ml-100k in emulation


def hogwild_warps(grid):
    """Warps that may train at once without strata, so that two of them seldom meet at one popular row."""
    meetings = max(
        float(np.sum((counts / counts.sum()) ** 2)) for counts in (grid.run_counts, grid.counts)
    )
    return max(1, min(int(COLLISIONS / meetings), grid.n_bands**2))


class CudaEngine(SgdEngine):
    """SGD over the block grid on a GPU.

    `SgdEngine` cuts the grid and makes the arrays, on the host, where they keep their names and the order of their rows;
    here is what keeps them on the card and walks the grid there. An epoch is one launch a stratum, whose blocks share no
    row: the same bits come out each time. With ``schedule="hogwild"`` it is one launch of all blocks in random order, and
    rows collide (Niu et al. 2011; in batches as Xie et al. 2017, cuMF_SGD).

    Raises
    ------
    DeviceError
        Before any work: see `open_device`; or where the model does not fit the card.
    """

    WARPS = PADDED = True

    def __init__(self, ratings, held_out, hyper, *, seed=0, n_jobs=1):
        self.cupy, card = open_device(hyper.device)
        card.use()
        self.half = np.dtype(hyper.dtype) == np.float16
        if self.half:
            hyper = replace(hyper, dtype="float32")
        super().__init__(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        grids = [grid for grid in (self.grid, self.check) if grid is not None]
        streamed = self._plan_memory(grids, memory_limit(self.cupy, hyper, card))
        penalties = [] if hyper.reg_scale == "row" else [hyper.l1, hyper.l1_bias]
        proximal = hyper.non_negative or any(
            of_side(p, side) for p in penalties for side in ("users", "items")
        )
        self.arrays = {}
        with on_card(self.cupy):
            self.kernels = {
                weighted: self.cupy.RawModule(
                    code=source(),
                    options=options(
                        self.k, self.half, self.solver, hyper.biased, weighted, proximal
                    ),
                )
                for weighted in {grid.weight is not None for grid in grids}
            }
            self._upload()
            self.walks = {
                id(grid): (Streamed if streamed else Resident)(self.cupy, grid) for grid in grids
            }

    def _plan_memory(self, grids, limit):
        """Whether the ratings must be streamed; DeviceError where even that is too much."""
        model = sum(self.state_arrays[name].nbytes for name in self.STATE)
        if self.half:
            model -= sum(side.factors.nbytes for side in self.sides) // 2
        if model + sum(map(Resident.bytes_of, grids)) <= limit:
            return False
        least = model + sum(map(Streamed.bytes_of, grids))
        if least > limit:
            raise too_large(
                least, limit, self.hyper, f"dtype={'float16' if self.half else 'float32'!r}"
            )
        if self.hyper.schedule == "hogwild":
            raise DeviceError(
                f"the ratings do not fit the {limit / GIB:.3f} GiB of the GPU beside the model, and schedule='hogwild' "
                "needs all of them there; use schedule='strata'"
            )
        return True

    # ------------------------------------------------------------------------------------------ host and card

    def _upload(self):
        for name in self.STATE:
            host = self.state_arrays[name]
            if self.half and name in ("run_factors", "factors"):
                host = host.astype(np.float16)
            self.arrays.pop(name, None)  # its memory is there for the new one
            self.arrays[name] = self.cupy.asarray(host)

    def _download(self, names):
        for name in names:
            self.state_arrays[name][...] = self.arrays[name].get()

    def snapshot(self):
        arrays = {name: self.arrays[name].get() for name in self.STATE}
        return {
            name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()
        }

    def restore(self, state):
        super().restore(state)
        self._upload()

    def weights(self):
        self._download(("run_factors", "run_biases", "factors", "biases"))
        return super().weights()

    def load(self, params):
        self._download(self.STATE)
        super().load(params)
        self._upload()

    # ------------------------------------------------------------------------------------------ passes

    def validate(self):
        if self.unknown is not None:
            self._download(("run_biases", "biases"))
        return super().validate()

    def _pass(self, grid, epoch, solver=None, rules=None):
        kernel = self.kernels[grid.weight is not None].get_function(
            "measure" if solver is None else "train"
        )
        n, walk = grid.n_bands, self.walks[id(grid)]
        constants = self.cupy.asarray(constants_of(self.mean, rules))
        out = self.cupy.empty(n * n, np.float64)
        after = (*(self.arrays[name] for name in self.STATE), constants, self._random(epoch), out)
        blocks = np.arange(n) * n + strata(self.seed, epoch, n)
        if solver is not None and self.hyper.schedule == "hogwild":
            order = np.random.default_rng([self.seed, 4, epoch]).permutation(n * n)
            walk.launch_all(kernel, order, hogwild_warps(grid), after)
        elif solver is None:
            walk.launch_all(kernel, blocks.ravel(), n * n, after)
        else:
            walk.launch_strata(kernel, blocks, after)
        return float(out.get().sum())

    def _random(self, *what):
        """Seed of the stochastic rounding of one launch."""
        return np.random.default_rng([self.seed, 3, *what]).integers(1 << 32, dtype=np.uint32)

    def _shrink_rows(self, sides, rate):
        kernel = next(iter(self.kernels.values())).get_function("shrink")
        for side, factors, biases in zip(
            sides, ("run_factors", "factors"), ("run_biases", "biases"), strict=True
        ):
            penalties = []
            for l1, l2 in (("l1", "l2"), ("l1_bias", "l2_bias")):
                l1, l2 = (of_side(getattr(self.hyper, name), side) for name in (l1, l2))
                penalties += np.float32(rate * l1), np.float32(1 / (1 + rate * l2))
            rows = len(self.state_arrays[biases])
            arguments = self.arrays[factors], self.arrays[biases], np.int64(rows), *penalties
            kernel(
                (min(-(-rows // 8), 4096),),
                (BLOCK,),
                (*arguments, self._random(*np.float64([rate]).view(np.uint32))),
            )
