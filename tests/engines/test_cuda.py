"""The CUDA engine: the CPU's numbers, the same bits each time, and errors that name the cure.

It runs on a CPU through tests/cuda_host, and on a GPU with `pytest -m gpu` where there is one.
"""

from dataclasses import replace
from typing import Any

import naive
import numpy as np
import pytest
from cuda_host import compiler

from funksvd import FunkSVD, ModelCheckpoint, Ratings, load
from funksvd.engines.cuda import CudaEngine, hogwild_warps
from funksvd.engines.cuda_grid import Resident, Streamed
from funksvd.engines.cuda_source import RULE, options
from funksvd.engines.device import DeviceError
from funksvd.engines.sgd import SgdEngine, SideRows
from funksvd.engines.strata import strata
from funksvd.hyper import Hyper, resolve

SOLVERS = ("sgd", "momentum", "adagrad_row", "adagrad", "adam", "adamax")


def as_float64(side: SideRows) -> SideRows:
    """Return the rows of a side with arrays of float64."""
    arrays = {name: getattr(side, name).astype(np.float64) for name in SideRows.ARRAYS}
    return replace(side, **arrays)


class Twin(SgdEngine):
    """The CPU's kernels on the grid of the GPU."""

    WARPS = True


class Naive(Twin):
    """tests/naive.py on the grid of the GPU, in float64."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sides = tuple(map(as_float64, self.sides))

    def _pass(self, grid: Any, epoch: int, solver: Any = None, rules: Any = None) -> float:
        named_rules = [dict(zip(RULE, rule, strict=True)) for rule in rules]
        n = grid.n_bands
        squares = 0.0
        for stratum in strata(self.seed, epoch, n).tolist():
            for x, y in enumerate(stratum):
                squares += self._block(grid, x, y, solver, named_rules)
        return squares

    def _block(self, grid: Any, x: int, y: int, solver: str, rules: list[dict]) -> float:
        arrays = list(self.state_arrays.values())
        block = x * grid.n_bands + y
        runs = slice(*grid.block_runs[block : block + 2])
        ratings = slice(*grid.block_start[block : block + 2])
        # Every band of the gathered side ends with a spare row.
        rows = slice(grid.bands[y] + y, grid.bands[y + 1] + y + 1)
        weight = np.ones(len(grid.rating)) if grid.weight is None else grid.weight
        return naive.block(
            arrays[:4],
            [array[rows] for array in arrays[4:]],
            grid.run_row[runs],
            grid.run_end[runs],
            grid.index[ratings],
            grid.rating[ratings],
            weight[ratings],
            self.mean,
            solver,
            *rules,
        )


def popular_ratings(
    n: int = 3000,
    n_users: int = 80,
    n_items: int = 50,
    seed: int = 0,
    weighted: bool = False,
) -> Ratings:
    """Return ratings with popular items and with repeated pairs."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n)
    items = (rng.random(n) ** 2 * n_items).astype(int)
    values = np.rint(np.clip(rng.normal(3.5, 1, n), 1, 5))
    weights = rng.integers(0, 4, n) / 2 if weighted else None
    return Ratings.from_arrays(users, items, values, weights)


def hyper_of(k: int = 20, solver: str = "sgd", **params: Any) -> Hyper:
    """Return hyper-parameters with which float32 can be compared with float64.

    With Adam's defaults 1 - beta_2 has five digits in float32, and a step for a gradient near 0
    depends on how the gradient is rounded.
    """
    options = {"l2": 0.05, "epsilon": 1e-3, "beta_2": 0.99, "device": "cuda", **params}
    if solver == "momentum":
        solver = "sgd"
        options = {"momentum": 0.8, **options}
    return resolve(FunkSVD(k, solver=solver, **options).get_params())


def train(engine: Any, epochs: int = 2, rate: float = 0.01) -> list[float]:
    """Return the losses of some epochs."""
    return [engine.epoch(epoch, rate) for epoch in range(epochs)]


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """Compare the weights of two engines."""
    for name in ("user_biases", "item_biases", "user_factors", "item_factors"):
        x = getattr(a.weights(), name)
        y = getattr(b.weights(), name)
        assert x.dtype == y.dtype
        atol = tolerance * max(np.abs(y).max(), 1e-3)
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


def assert_same_bytes(a: Any, b: Any) -> None:
    """Compare the snapshots of two engines."""
    left = a.snapshot()
    for name, array in b.snapshot().items():
        np.testing.assert_array_equal(left[name].view(np.uint8), array.view(np.uint8))


def compare(hyper: Hyper, tolerance: float = 1e-5, weighted: bool = False) -> CudaEngine:
    """Compare with the twins on a grid of 16 blocks, with runs of 1 to 40 ratings."""
    ratings = popular_ratings(1200, weighted=weighted)
    held_out = popular_ratings(600, 90, 55, seed=1, weighted=weighted)
    engines = (CudaEngine, Twin, Naive)
    ours, *others = (engine(ratings, held_out, hyper, seed=1) for engine in engines)
    assert ours.grid.n_bands == 4
    assert ours.unknown is not None
    losses = train(ours)
    for theirs in others:
        assert losses == pytest.approx(train(theirs), rel=tolerance)
        assert_close(ours, theirs, tolerance)
    assert ours.validate() == pytest.approx(others[0].validate(), rel=tolerance)
    return ours


@pytest.mark.parametrize("k", [8, 20, 32, 64, 100, 128, 512])
@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_the_cpu_engine_and_naive(cupy, solver, k) -> None:
    engine = compare(hyper_of(k, solver))
    assert not engine.sides[0].factors[:, k:].any()
    assert not engine.sides[1].factors[:, k:].any()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "params",
    [
        {"l1": 0.02, "l1_bias": 0.01},
        {"non_negative": True, "l2": (0.02, 0.09), "biased": False},
        {"reg_scale": "row", "l1": 0.1},
    ],
    ids=["l1", "sides", "row"],
)
def test_every_option_equals_the_cpu_engine_and_naive(cupy, solver, params) -> None:
    compare(replace(hyper_of(20, solver), **params), weighted="l1" in params)


def moves_of(engine: CudaEngine, start: Any) -> np.ndarray:
    """Return how far the factors have moved from those of `start`, all in one array."""
    weights = engine.weights()
    users = weights.user_factors - start.user_factors
    items = weights.item_factors - start.item_factors
    return np.concatenate([users, items]).ravel()


def test_float16_storage_stays_near_float32(cupy) -> None:
    """Stochastic rounding keeps small steps, which rounding to the nearest half would lose."""
    ratings = popular_ratings()
    for k in (8, 100):
        half = CudaEngine(ratings, None, hyper_of(k, dtype="float16"), seed=1)
        full = CudaEngine(ratings, None, hyper_of(k, dtype="float32"), seed=1)
        start = half.weights()
        full.load(start)
        assert start.user_factors.dtype == np.float32
        moves = []
        for engine in (half, full):
            train(engine, 6, 2e-5)
            moves.append(moves_of(engine, start))
        share = moves[0] @ moves[1] / (moves[1] @ moves[1])
        assert 0.8 < share < 1.2
        losses = [train(engine, 3, 0.02)[-1] for engine in (half, full)]
        assert losses[0] == pytest.approx(losses[1], rel=3e-3)


@pytest.mark.parametrize(
    "params",
    [{"k": 1}, {"dtype": "float16"}, {"solver": "adam"}, {"k": 100, "solver": "adagrad_row"}],
)
def test_same_bits_for_every_order_of_the_lanes(shim, params) -> None:
    ratings = popular_ratings()
    engines = []
    for order, resident in ((0, 1), (1, 1), (2, 1), (0, 99), (2, 99), (2, 3)):
        engine = CudaEngine(ratings, None, hyper_of(**params), seed=1)
        shim.schedule(order, resident)
        train(engine)
        engines.append(engine)
    for engine in engines[1:]:
        assert_same_bytes(engine, engines[0])


@pytest.mark.parametrize("params", [{}, {"dtype": "float16", "solver": "adamax"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_streaming_gives_the_bytes_of_a_resident_run(cupy, params, weighted) -> None:
    ratings = popular_ratings(weighted=weighted)
    held_out = popular_ratings(600, 90, 55, seed=1)
    resident = CudaEngine(ratings, held_out, hyper_of(**params), seed=1)
    model = sum(array.nbytes for array in resident.arrays.values())
    grids = (resident.grid, resident.check)
    least = model + sum(Streamed.bytes_of(grid) for grid in grids)
    streamed = CudaEngine(ratings, held_out, hyper_of(**params, max_device_bytes=least), seed=1)
    assert {type(walk) for walk in resident.walks.values()} == {Resident}
    assert {type(walk) for walk in streamed.walks.values()} == {Streamed}
    assert train(resident) == train(streamed)
    assert resident.validate() == streamed.validate()
    assert_same_bytes(resident, streamed)
    too_little = hyper_of(**params, max_device_bytes=least - 1)
    message = r"need \d.\d+ GiB on the GPU, and there are \d.\d+ GiB; lower"
    with pytest.raises(DeviceError, match=message):
        CudaEngine(ratings, held_out, too_little, seed=1)
    hogwild = hyper_of(**params, max_device_bytes=least, schedule="hogwild")
    with pytest.raises(DeviceError, match="schedule='strata'"):
        CudaEngine(ratings, held_out, hogwild, seed=1)


def test_snapshot_and_restore_go_on_exactly(cupy) -> None:
    whole = CudaEngine(popular_ratings(), None, hyper_of(solver="adam"), seed=1)
    half = CudaEngine(popular_ratings(), None, hyper_of(solver="adam"), seed=1)
    train(whole, 3)
    half.epoch(0, 0.01)
    state = half.snapshot()
    train(half, 2)
    half.restore(state)
    for epoch in (1, 2):
        half.epoch(epoch, 0.01)
    assert_same_bytes(whole, half)


def test_no_write_outside_the_arrays(shim) -> None:
    for k in (1, 100):
        for dtype in ("float32", "float16"):
            train(
                CudaEngine(popular_ratings(), None, hyper_of(k, "adamax", dtype=dtype), seed=1), 1
            )
    assert shim.overruns() == 0


def test_hogwild_converges_like_strata_although_rows_collide(shim) -> None:
    """`python -m tests.cuda_host.hogwild` shows it on MovieLens 100k, to 1 %."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, 300, 9000)
    items = (rng.random(9000) ** 2 * 200).astype(int)
    p = rng.normal(0, 1, (300, 4))
    q = rng.normal(0, 1, (200, 4))
    values = (p[users] * q[items]).sum(1) / 2 + rng.normal(0, 0.3, 9000)
    ratings = Ratings.from_arrays(users, items, values)
    shim.schedule(2, 999, seed=1)
    losses = []
    for schedule, epochs in (("strata", 8), ("hogwild", 8), ("hogwild", 1)):
        shim.RawModule.seed += 1
        engine = CudaEngine(ratings, None, hyper_of(8, schedule=schedule, init_std=0.1), seed=1)
        losses.append(train(engine, epochs, 0.05))
    assert hogwild_warps(engine.grid) > 8
    assert losses[0][-1] < 0.6 * losses[0][0]
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.1)
    assert len({first for first, *_ in losses}) == 3  # another order, and races did happen


def test_a_fit_on_the_gpu_cannot_be_told_from_one_on_the_cpu(cupy, tmp_path) -> None:
    rng = np.random.default_rng(0)
    X = (rng.integers(0, 60, 2000), rng.integers(0, 40, 2000))
    y = rng.normal(3, 1, 2000)
    params = {"learning_rate": 0.02, "random_state": 0}
    model = FunkSVD(8, 3, device="cuda", **params).fit(X, y, validation_split=0.1)
    other = FunkSVD(8, 3, **params).fit(X, y, validation_split=0.1)
    learned = ("user_biases_", "item_biases_", "user_factors_", "item_factors_")
    for name in (*learned, "user_ids_", "item_ids_"):
        a = getattr(model, name)
        b = getattr(other, name)
        assert type(a) is type(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert model.history_.keys() == other.history_.keys()
    assert model.history_["val_rmse"][-1] == pytest.approx(other.history_["val_rmse"][-1], rel=0.02)
    half = FunkSVD(8, 3, device="cuda", dtype="float16", schedule="hogwild", **params).fit(X, y)
    for fitted in (model, half):
        fitted.save(tmp_path / "m.npz")
        np.testing.assert_array_equal(load(tmp_path / "m.npz").predict(X), fitted.predict(X))


def test_training_resumes_on_the_gpu_alone(cupy, tmp_path) -> None:
    users, items = np.random.default_rng(0).integers(0, 40, (2, 900))
    data = ((users, items), (users % 5).astype(float))
    path = tmp_path / "m.npz"

    def model(n_epochs: int, **params: Any) -> FunkSVD:
        options = {"device": "cuda", "dtype": "float16", "random_state": 0, **params}
        return FunkSVD(5, n_epochs, solver="adagrad", **options)

    whole = model(4).fit(*data)
    model(2).fit(*data, callbacks=ModelCheckpoint(path))
    resumed = model(4).fit(*data, callbacks=ModelCheckpoint(path), resume=path)
    for name in ("user_factors_", "item_biases_"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    for other in ({"device": "cpu", "dtype": "float32"}, {"dtype": "float32"}):
        with pytest.raises(
            ValueError, match="trained with device='cuda' and dtype='float16', not with"
        ):
            model(5, **other).fit(*data, callbacks=ModelCheckpoint(path), resume=path)


# ------------------------------------------------------------ the shim, the compiler

# Message -> the body of a kernel that it is for.
BAD = {
    "a lane named in the mask has exited": (
        "if (threadIdx.x == 3) return; o[threadIdx.x] = __shfl_xor_sync(ALL, 1.f, 1);"
    ),
    "lane is not in its own mask": "o[0] = __shfl_xor_sync(1u, 1.f, 0);",
    "shuffle reads a lane outside the mask": (
        "if (threadIdx.x < 8) o[threadIdx.x] = __shfl_xor_sync(0xffu, 1.f, 8);"
    ),
    "deadlock": "if (threadIdx.x < 16) __syncwarp(ALL); else __shfl_xor_sync(ALL, 1.f, 1);",
}


@pytest.mark.parametrize("message", BAD)
def test_shim_reports_undefined_behaviour(shim, message) -> None:
    code = (
        '#define ALL 0xffffffffu\nextern "C" __global__ void bad(float* o) {' + BAD[message] + "}"
    )
    out = shim.zeros(32, np.float32)
    shim.RawModule(code=code).get_function("bad")((1,), (32,), (out,))
    with pytest.raises(RuntimeError, match=message):
        out.get()


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("half", [False, True])
def test_no_spills_and_16_byte_loads(architecture, half) -> None:
    """A part of what `python -m tests.cuda_host.compiler` compiles, which is everything."""
    if not compiler.available():
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    for k, solver in ((20, "sgd"), (64, "adagrad"), (128, "adamax"), (512, "adagrad_row")):
        compiler.check(architecture, options(k, half, solver))
