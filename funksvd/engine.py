"""Params, the prediction for pairs, and the CPU engine: epochs over the block grid on Python threads."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import mmap
import os
import threading
from dataclasses import dataclass

import numpy as np

from funksvd.threads import parallel, pool_of

PAIR_CHUNK = 1 << 18
START_CHUNK = 1 << 14
HUGE_PAGE = 2 << 20

LEVELS = {"baseline": 0, "v3": 3, "v4": 4}  # builds of the kernels, and the x86-64 level that each needs


def levels():
    """The builds that are there and that this CPU runs."""
    runs = importlib.import_module("funksvd._sgd_float32").level()
    return [
        name
        for name, needed in LEVELS.items()
        if needed <= runs and (not needed or importlib.util.find_spec(f"funksvd._sgd_float32_{name}"))
    ]


def _level():
    """The build to use: FUNKSVD_ISA forces one; else the highest that the CPU runs.

    v4 has vectors of 256 bits too, but twice the registers: measured on Zen 4 an epoch takes 0.95 of v3's time.
    """
    forced = os.environ.get("FUNKSVD_ISA")
    if forced and forced not in levels():
        raise ImportError(f"FUNKSVD_ISA must be one of {levels()} on this CPU, got {forced!r}; or unset it")
    return forced or levels()[-1]


LEVEL = _level()


def kernels(dtype, level=LEVEL, source="_sgd"):
    """The kernel module for a dtype."""
    suffix = "" if level == "baseline" else f"_{level}"
    return importlib.import_module(f"funksvd.{source}_{np.dtype(dtype).name}{suffix}")


def show_config():
    """The build of the kernels that runs, as text."""
    return f"kernels: {LEVEL}, {kernels(np.float32).lanes()} float32 a vector (FUNKSVD_ISA=baseline|v3|v4 forces one)"


@dataclass
class Params:
    """A model: mean, biases (n,), factors (n, n_factors), in the order of the codes."""

    global_mean: float
    user_biases: np.ndarray
    item_biases: np.ndarray
    user_factors: np.ndarray
    item_factors: np.ndarray
    # How sure a sampled model is, see `sampled`: noise variance, scale and kurtosis, (3,); rows of both sides, (n + 1, 4).
    noise: np.ndarray | None = None
    user_posterior: np.ndarray | None = None
    item_posterior: np.ndarray | None = None


def predict(params, users, items, n_jobs=1):
    """mean + (b_u + b_i) + p_u . q_i for int32 codes; -1 is an unknown id: bias 0, no factors."""
    out = np.empty(len(users), params.user_factors.dtype)
    kernel = kernels(out.dtype).predict

    def one(part):
        kernel(params.user_factors, params.user_biases, params.item_factors, params.item_biases, params.global_mean,
               users[part], items[part], out[part])  # fmt: skip

    parts = [slice(s, s + PAIR_CHUNK) for s in range(0, len(users), PAIR_CHUNK)]
    parallel(one, parts, n_jobs)
    return out


def aligned(rows, columns, dtype):
    """Zeros (rows, columns) that start at a multiple of 64 bytes; a large array on huge pages where Linux has them.

    Factors are read at random, and with pages of 4 KiB most reads miss the TLB: predictions take twice the time.
    """
    size = rows * columns * np.dtype(dtype).itemsize
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
        flat, boundary = np.frombuffer(memory, np.uint8), HUGE_PAGE
    else:
        flat, boundary = np.zeros(size + 64, np.uint8), 64
    start = -flat.ctypes.data % boundary
    return flat[start : start + size].view(dtype).reshape(rows, columns)


def of_side(value, side):
    """A penalty of one side: a number for both sides, or a pair (users, items)."""
    return float(value if np.ndim(value) == 0 else value[("users", "items").index(side)])


def solver_of(hyper):
    """The kernels' name of the solver: "sgd" with momentum keeps state, without it keeps none."""
    return "momentum" if hyper.solver == "sgd" and hyper.momentum else hyper.solver


def rule(hyper, side, learning_rate, penalties=True):
    """The kernels' `Rule` of one side; without `penalties` they are left to the caller."""
    out = {name: of_side(getattr(hyper, name), side) if penalties else 0.0 for name in ("l2", "l1", "l2_bias", "l1_bias")}
    out |= {name: getattr(hyper, name) for name in ("momentum", "beta_1", "beta_2", "epsilon", "n_factors")}
    out |= {"rate": learning_rate, "bias_rate": learning_rate * hyper.biased, "low": 0.0 if hyper.non_negative else -np.inf}
    return [out[name] for name in kernels(hyper.dtype).RULE]


def first_state(solver, rows, width, dtype, hyper, padded=False):
    """(state, extra) of a solver before the first step, as the kernels' `block` takes them; `padded`: 4 extra for all."""
    n = kernels(dtype).n_states(solver)
    if n is None:
        return np.empty((rows, 0), dtype), np.empty((rows, 0), dtype)
    own = 1 if solver == "adagrad_row" and not padded else 4
    state, extra = aligned(rows, n * width, dtype), np.zeros((rows, own), dtype)
    if solver.startswith("adagrad"):
        state[:] = extra[:] = hyper.initial_accumulator_value
    elif solver != "momentum":
        extra[:, :2] = 1  # the clocks, beta^0
    return state, extra


def start_factors(factors, place, counts, side, hyper, seed, n_jobs):
    """Random factors by code, in chunks with a generator of their own; rows without ratings stay at the mean.

    place[code] is the row of a code, counts[code] are its ratings; `side` 0 is the one with runs.
    """

    def one(first):
        part = slice(first, first + START_CHUNK)
        rng = np.random.default_rng([seed, 1, side, first])
        start = rng.standard_normal((len(place[part]), hyper.n_factors), dtype=factors.dtype)
        start *= factors.dtype.type(hyper.init_std)
        start[counts[part] == 0] = 0
        if hyper.non_negative:
            np.abs(start, out=start)
        factors[place[part], : hyper.n_factors] = start

    parallel(one, range(0, len(place), START_CHUNK), n_jobs)


def engine_for(hyper):
    """The engine class that these parameters of FunkSVD ask for. All have the methods of `CpuEngine`."""
    if hyper.solver == "gibbs":
        from funksvd.gibbs import GibbsEngine

        return GibbsEngine
    if hyper.training == "featurewise":
        from funksvd.featurewise import FeatureEngine

        return FeatureEngine
    if hyper.batch_size > 1 and hyper.device != "cpu":
        from funksvd.gpu_minibatch import CudaMiniBatchEngine

        return CudaMiniBatchEngine
    if hyper.batch_size > 1:
        from funksvd.minibatch import MiniBatchEngine

        return MiniBatchEngine
    if hyper.device != "cpu":
        from funksvd.gpu import CudaEngine

        return CudaEngine
    return CpuEngine


class CpuEngine:
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
        self.grid = grid = ratings.grid(width * self.dtype.itemsize, self.dtype, seed, n_jobs, warps=self.WARPS)
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
        self.rows = np.arange(len(grid.codes)) + np.repeat(np.arange(grid.n_bands), np.diff(grid.bands))
        self.places = [np.empty(len(c), np.int64) for c in (grid.run_codes, grid.codes)]  # row of each code
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
        rules = np.array([rule(self.hyper, side, learning_rate, penalties=not per_row) for side in sides])
        squares = self._pass(self.grid, epoch, self.solver, rules)
        if per_row:
            self._shrink_rows(sides, learning_rate)
        return squares / self.grid.total_weight

    def _shrink_rows(self, sides, rate):
        """The penalties of reg_scale="row": one proximal step an epoch, of L1 and then of L2, for every row."""
        arrays = (self.run_factors, self.run_biases), (self.factors, self.biases)
        for side, (factors, biases) in zip(sides, arrays, strict=True):
            for x, l1, l2 in ((factors, "l1", "l2"), (biases, "l1_bias", "l2_bias")):
                l1, l2 = of_side(getattr(self.hyper, l1), side), of_side(getattr(self.hyper, l2), side)

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
        kernel = kernels(self.dtype)
        n = grid.n_bands
        squares = np.zeros(n * n)
        run_side = kernel.Side(self.run_factors, self.run_biases, self.run_state, self.run_extra)
        side = kernel.Side(self.factors, self.biases, self.state, self.extra)
        weight = np.empty(0, self.dtype) if grid.weight is None else grid.weight
        blocks = kernel.Blocks(grid.block_runs, grid.block_start, self.grid.bands + np.arange(n + 1), grid.run_row,
                               grid.run_end, grid.index, grid.rating, weight)  # fmt: skip

        def work(x, y):
            squares[x * n + y] = kernel.block(run_side, side, blocks, x, y, self.mean, solver, rules)

        order = [(d, x, y) for d, ys in enumerate(strata(self.seed, epoch, n).tolist()) for x, y in enumerate(ys)]
        run_blocks(order, n, work, min(self.n_jobs, n), self.pool)
        return float(squares.sum())

    STATE = ("run_factors", "run_biases", "run_state", "run_extra", "factors", "biases", "state", "extra")

    def snapshot(self):
        """A copy of all that an epoch changes, by name."""
        return {name: getattr(self, name).copy() for name in self.STATE}

    def restore(self, state):
        for name in self.STATE:
            getattr(self, name)[:] = state[name]

    def params(self):
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
        return Params(self.mean, ub, ib, up, ip)

    def load(self, params):
        """Take over a model."""
        sides = [(params.user_biases, params.user_factors), (params.item_biases, params.item_factors)]
        (rb, rp), (gb, gp) = sides if self.grid.users_run else sides[::-1]
        self.mean = params.global_mean
        self.run_factors[:, : self.k], self.run_biases[:] = rp[self.grid.run_codes], rb[self.grid.run_codes]
        self.factors[self.rows, : self.k], self.biases[self.rows] = gp[self.grid.codes], gb[self.grid.codes]


def strata(seed, epoch, n_bands):
    """(B, B): the gathered band that run band x meets in stratum d of an epoch, at [d, x]; all of a stratum differ."""
    x = np.arange(n_bands)
    return np.random.default_rng([seed, 2, epoch]).permutation(n_bands)[(x + x[:, None]) % n_bands]


def run_blocks(order, n_bands, work, n_jobs, pool):
    """work(x, y) for every (stratum, x, y) of `order`: a block starts when both its bands have left the stratum before.

    Dataflow instead of a barrier: a thread takes the first block that may start, and which thread runs a block changes
    nothing. On an exception (Ctrl-C too) the blocks begun are finished, no other starts.
    """
    if n_jobs == 1:
        for _, x, y in order:
            work(x, y)
        return
    ready, left = threading.Condition(), list(order)
    rows, columns, stopped = [0] * n_bands, [0] * n_bands, []

    def next_block():
        """Waits for a block that may start; None: nothing is left to do."""
        with ready:
            while left and not stopped:
                for number, (d, x, y) in enumerate(left):
                    if rows[x] == d == columns[y]:
                        del left[number]
                        return x, y
                ready.wait()
        return None

    def stop():
        with ready:
            stopped.append(True)
            ready.notify_all()

    def worker():
        try:
            while (block := next_block()) is not None:
                x, y = block
                work(x, y)
                with ready:
                    rows[x] += 1
                    columns[y] += 1
                    ready.notify_all()
        except BaseException:
            stop()
            raise

    futures = [pool.submit(worker) for _ in range(n_jobs)]
    try:
        for future in futures:
            future.result()
    except BaseException:
        stop()
        for future in futures:
            future.exception()  # waits for it
        raise
