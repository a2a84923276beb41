"""CudaEngine: the methods of `CpuEngine` over CuPy. The kernels stand in _sgd.cu and are compiled at run time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from funksvd.engine import CpuEngine, kernels, of_side, strata

_, *SOLVERS = kernels(np.float32).SOLVERS
RULE = kernels(np.float32).RULE
HYPER = ("rate", "l2", "l1", "l2_bias", "l1_bias", "low", "momentum", "beta_1", "beta_2", "fresh_1", "fresh_2", "epsilon")
TASK = np.dtype([("rating", "i8"), ("run", "i8"), ("runs", "i4"), ("gathered", "i4"), ("block", "i4"), ("unused", "i4")])
SPARE = 8  # entries past a block's ratings that a kernel may read
HELD = 0.9  # share of the card's free memory to use at most
COLLISIONS = 0.2  # Hogwild: warps at one row at a time, on the average; 0.4 cost 1 % of RMSE on ml-100k in emulation
BLOCK = 128  # threads, where a kernel goes over rows
GIB = 2**30


class DeviceError(RuntimeError):
    """No GPU to train on, or not enough of it. Raised before any work; nothing falls back to the CPU in silence."""


def open_device(device):
    """(cupy, its Device) for "cuda" or "cuda:1".

    Raises
    ------
    DeviceError
        Without CuPy, a driver, NVRTC, such a device, or where its compute capability is below 5.0; names the cure.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f'device={device!r} needs CuPy: pip install "funksvd[cuda12]", or [cuda13] for a driver of CUDA 13'
        ) from error
    if not cupy.cuda.is_available():
        try:
            said = f"it counts {cupy.cuda.runtime.getDeviceCount()} devices"
        except Exception as error:  # CuPy's own types, which a machine without a driver may not have
            said = str(error)
        raise DeviceError(
            f"device={device!r}: CuPy {cupy.__version__} finds no GPU that it can use ({said}); install NVIDIA's driver, "
            "and the extra of its version, cuda12 or cuda13, or use device='cpu'"
        )
    number, count = int(device.partition(":")[2] or 0), cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise DeviceError(f"device={device!r}: this machine has {count} GPUs, counted from 0")
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        raise DeviceError(
            f"CuPy finds no NVRTC, the compiler of CUDA kernels ({error}); it comes with CuPy's [ctk] extra: "
            'pip install "funksvd[cuda12]", or [cuda13]'
        ) from error
    card = cupy.cuda.Device(number)
    if int(card.compute_capability) < 50:
        raise DeviceError(f"device={device!r} has compute capability {card.compute_capability}; 50 (Maxwell) is the least")
    return cupy, card


def lanes_of(n_factors, half):
    """Lanes that share a rating: a power of two, at most one 16-byte slot of a row each; at least 4, so that 8 ratings
    fill a warp."""
    slots = -(-n_factors // (8 if half else 4))
    return min(32, max(4, 1 << (slots - 1).bit_length()))


def options(n_factors, half, solver, biased=True, weighted=False, proximal=False):
    """The compiler's options for one model."""
    macros = {"N_FACTORS": n_factors, "LANES": lanes_of(n_factors, half), "HALF": half, "SOLVER": SOLVERS.index(solver),
              "BIASED": biased, "WEIGHTED": weighted, "PROXIMAL": proximal}  # fmt: skip
    return (*(f"-D{name}={int(value)}" for name, value in macros.items()), "--std=c++17", "--fmad=false")


def source(name="_sgd.cu"):
    """The text of kernels behind that of what they share."""
    return "".join(Path(__file__).with_name(part).read_text(encoding="utf-8") for part in ("_solvers.cu", name))


def memory_limit(cupy, hyper, card):
    """Bytes of the card that may be used."""
    cupy.get_default_memory_pool().free_all_blocks()  # what an earlier fit held stays in CuPy's pool, and looks taken
    return min(HELD * card.mem_info[0], hyper.max_device_bytes or np.inf)


def too_large(needed, limit, hyper, cause):
    return DeviceError(
        f"n_factors={hyper.n_factors}, solver={hyper.solver!r} and {cause} need {needed / GIB:.3f} GiB on the GPU, and "
        f"there are {limit / GIB:.3f} GiB; lower n_factors, or use another solver or device='cpu'"
    )


@contextlib.contextmanager
def on_card(cupy):
    """DeviceError where the card's memory ends: other programs may use it, too."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceError(f"the GPU ran out of memory: {error}; lower max_device_bytes, or close other programs") from error


def hogwild_warps(grid):
    """Warps that may train at once without strata, so that two of them seldom meet at one popular row."""
    meetings = max(float(np.sum((counts / counts.sum()) ** 2)) for counts in (grid.run_counts, grid.counts))
    return max(1, min(int(COLLISIONS / meetings), grid.n_bands**2))


class CudaEngine(CpuEngine):
    """SGD over the block grid on a GPU.

    `CpuEngine` cuts the grid and makes the arrays, on the host, where they keep their names and the order of their rows;
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
            hyper = SimpleNamespace(**{**vars(hyper), "dtype": "float32"})
        super().__init__(ratings, held_out, hyper, seed=seed, n_jobs=n_jobs)
        grids = [grid for grid in (self.grid, self.check) if grid is not None]
        streamed = self._plan_memory(grids, memory_limit(self.cupy, hyper, card))
        penalties = [] if hyper.reg_scale == "row" else [hyper.l1, hyper.l1_bias]
        proximal = hyper.non_negative or any(of_side(p, side) for p in penalties for side in ("users", "items"))
        self.arrays = {}
        with on_card(self.cupy):
            self.kernels = {
                weighted: self.cupy.RawModule(
                    code=source(), options=options(self.k, self.half, self.solver, hyper.biased, weighted, proximal)
                )
                for weighted in {grid.weight is not None for grid in grids}
            }
            self._upload()
            self.walks = {id(grid): (Streamed if streamed else Resident)(self.cupy, grid) for grid in grids}

    def _plan_memory(self, grids, limit):
        """Whether the ratings must be streamed; DeviceError where even that is too much."""
        model = sum(getattr(self, name).nbytes for name in self.STATE)
        if self.half:
            model -= (self.run_factors.nbytes + self.factors.nbytes) // 2
        if model + sum(map(Resident.bytes_of, grids)) <= limit:
            return False
        least = model + sum(map(Streamed.bytes_of, grids))
        if least > limit:
            raise too_large(least, limit, self.hyper, f"dtype={'float16' if self.half else 'float32'!r}")
        if self.hyper.schedule == "hogwild":
            raise DeviceError(
                f"the ratings do not fit the {limit / GIB:.3f} GiB of the GPU beside the model, and schedule='hogwild' "
                "needs all of them there; use schedule='strata'"
            )
        return True

    # ------------------------------------------------------------------------------------------ host and card

    def _upload(self):
        for name in self.STATE:
            host = getattr(self, name)
            if self.half and name in ("run_factors", "factors"):
                host = host.astype(np.float16)
            self.arrays.pop(name, None)  # its memory is there for the new one
            self.arrays[name] = self.cupy.asarray(host)

    def _download(self, names):
        for name in names:
            getattr(self, name)[...] = self.arrays[name].get()

    def snapshot(self):
        arrays = {name: self.arrays[name].get() for name in self.STATE}
        return {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in arrays.items()}

    def restore(self, state):
        super().restore(state)
        self._upload()

    def params(self):
        self._download(("run_factors", "run_biases", "factors", "biases"))
        return super().params()

    def load(self, params):
        self._download(self.STATE)
        super().load(params)
        self._upload()

    # ------------------------------------------------------------------------------------------ passes

    def validate(self):
        if self.strange is not None:
            self._download(("run_biases", "biases"))
        return super().validate()

    def _pass(self, grid, epoch, solver=None, rules=None):
        kernel = self.kernels[grid.weight is not None].get_function("measure" if solver is None else "train")
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
        for side, factors, biases in zip(sides, ("run_factors", "factors"), ("run_biases", "biases"), strict=True):
            penalties = []
            for l1, l2 in (("l1", "l2"), ("l1_bias", "l2_bias")):
                l1, l2 = (of_side(getattr(self.hyper, name), side) for name in (l1, l2))
                penalties += np.float32(rate * l1), np.float32(1 / (1 + rate * l2))
            rows = len(getattr(self, biases))
            arguments = self.arrays[factors], self.arrays[biases], np.int64(rows), *penalties
            kernel((min(-(-rows // 8), 4096),), (BLOCK,), (*arguments, self._random(*np.float64([rate]).view(np.uint32))))


def constants_of(mean, rules):
    """`Constants` of _sgd.cu; without rules, to measure, only the mean counts."""
    values = [mean]
    for r in np.zeros((2, len(RULE))) if rules is None else rules:
        r = dict(zip(RULE, r, strict=True))
        r |= {"fresh_1": 1 - r["beta_1"], "fresh_2": 1 - r["beta_2"]}
        values += [r[name] for name in HYPER]
    return np.array(values, np.float32)


def tasks_of(grid):
    """`Task` of every block."""
    n = grid.n_bands
    tasks = np.zeros(n * n, TASK)
    tasks["rating"], tasks["run"], tasks["runs"] = grid.block_start[:-1], grid.block_runs[:-1], np.diff(grid.block_runs)
    tasks["gathered"] = np.tile(grid.bands[:-1] + np.arange(n), n)  # every band before ends with a spare row
    tasks["block"] = np.arange(n * n)
    return tasks


def columns_of(grid):
    """(a grid's arrays by run, by rating)."""
    return [grid.run_row, grid.run_end], [grid.index, grid.rating, *([] if grid.weight is None else [grid.weight])]


def as_arguments(columns):
    """The kernels' array arguments; where there are no weights nothing reads them."""
    return columns if len(columns) == 5 else [*columns, columns[-1]]


class Resident:
    """A grid on the card."""

    def __init__(self, cupy, grid):
        self.cupy, (by_run, by_rating) = cupy, columns_of(grid)
        self.tasks = cupy.asarray(tasks_of(grid).view(np.uint8))
        self.columns = [cupy.asarray(column) for column in (*by_run, *by_rating)]

    @staticmethod
    def bytes_of(grid):
        columns = sum(sum(column.nbytes for column in part) for part in columns_of(grid))
        return columns + grid.n_bands**2 * (TASK.itemsize + 12)

    def launch_all(self, kernel, blocks, n_warps, after):
        order = self.cupy.asarray(blocks.astype(np.int32))
        kernel((n_warps,), (32,), (self.tasks, order, np.int32(len(blocks)), *as_arguments(self.columns), *after))

    def launch_strata(self, kernel, blocks, after):
        order, n = self.cupy.asarray(blocks.astype(np.int32)), np.int32(len(blocks))
        for d in range(len(blocks)):
            kernel((len(blocks),), (32,), (self.tasks, order[d], n, *as_arguments(self.columns), *after))


class Streamed:
    """A grid on the host. The blocks of a stratum go to the card while those of the stratum before are worked on."""

    def __init__(self, cupy, grid):
        self.cupy, self.grid, self.tasks = cupy, grid, tasks_of(grid)
        self.columns = columns_of(grid)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.order = cupy.asarray(np.arange(grid.n_bands, dtype=np.int32))
        n_runs, n_ratings = self.most(grid)
        shapes = [(grid.n_bands * TASK.itemsize, np.uint8)]
        shapes += [(n_runs, column.dtype) for column in self.columns[0]]
        shapes += [(n_ratings, column.dtype) for column in self.columns[1]]
        self.buffers = []
        for _ in range(2):
            device = [cupy.empty(size, dtype) for size, dtype in shapes]
            memory = [cupy.cuda.alloc_pinned_memory(a.nbytes) for a in device]
            pinned = [np.frombuffer(m, a.dtype, len(a)) for m, a in zip(memory, device, strict=True)]
            self.buffers.append((device, pinned, cupy.cuda.Event(), cupy.cuda.Event()))

    @staticmethod
    def most(grid):
        """(runs, ratings) that a stratum can have."""
        n = grid.n_bands
        sizes = (np.diff(a).reshape(n, n).max(axis=1).sum() for a in (grid.block_runs, grid.block_start))
        n_runs, n_ratings = map(int, sizes)
        return n_runs, n_ratings + SPARE

    @classmethod
    def bytes_of(cls, grid):
        n_runs, n_ratings = cls.most(grid)
        by_run, by_rating = (sum(column.itemsize for column in part) for part in columns_of(grid))
        return 2 * (n_runs * by_run + n_ratings * by_rating + grid.n_bands * TASK.itemsize) + grid.n_bands**2 * 8

    def launch_all(self, kernel, blocks, _, after):
        self.launch_strata(kernel, blocks.reshape(self.grid.n_bands, -1), after)

    def launch_strata(self, kernel, blocks, after):
        current = self.cupy.cuda.get_current_stream()
        for d, stratum in enumerate(blocks):
            device, pinned, copied, done = self.buffers[d % 2]
            if d >= 2:
                copied.synchronize()  # the copy before has left the pinned memory
                self.stream.wait_event(done)  # and the kernel before has read the card's
            sizes = self._fill(pinned, stratum)
            for a, host, size in zip(device, pinned, sizes, strict=True):
                a[:size].set(host[:size], stream=self.stream)
            copied.record(self.stream)
            current.wait_event(copied)
            arguments = device[0], self.order, np.int32(len(stratum)), *as_arguments(device[1:]), *after
            kernel((len(stratum),), (32,), arguments)
            done.record(current)
        current.synchronize()  # an interrupted pass leaves no copy behind

    def _fill(self, pinned, stratum):
        """Bring a stratum's blocks together in the pinned memory; returns the length of each array."""
        tasks, start = self.tasks[stratum], (self.grid.block_runs, self.grid.block_start)
        sizes = [pinned[0].size]
        at = 1
        for columns, begin, name in zip(self.columns, start, ("run", "rating"), strict=True):
            first, last = begin[stratum], begin[stratum + 1]
            ends = np.cumsum(last - first)
            tasks[name] = ends - (last - first)
            for column in columns:
                parts = [column[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True)]
                np.concatenate(parts, out=pinned[at][: ends[-1]])
                sizes.append(int(ends[-1]))
                at += 1
        pinned[0][:] = tasks.view(np.uint8)
        return sizes
