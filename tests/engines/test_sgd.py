"""The kernel of the CPU engine of SGD, beside its slow twin."""

from unittest import mock

import numpy as np
import pytest
from conftest import random_ratings
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import block

from funksvd import FunkSVD, Ratings
from funksvd.engines.sgd import SgdEngine
from funksvd.engines.start import rule
from funksvd.hyper import resolve
from funksvd.machine.kernels import LEVEL, kernels, levels
from funksvd.ratings import grid as grid_module


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [1, 3, 8, 20, 32, 100, 257])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_kernel_equals_naive(k, dtype, tolerance, level):
    engine = engine_of(Ratings.from_arrays(*random_ratings(20_000)), k, dtype)
    assert engine.grid.n_bands > 1
    compare_with_naive(engine, k, dtype, tolerance, level)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
def test_weighted_kernel_equals_naive(dtype, tolerance, level):
    """Zeros among the weights, runs of every length."""
    users, items, values = random_ratings(5000, 200, 50)
    weights = np.random.default_rng(1).integers(0, 5, len(values)) / 2
    engine = engine_of(Ratings.from_arrays(users, items, values, weights), 20, dtype)
    compare_with_naive(engine, 20, dtype, tolerance, level)


def engine_of(ratings, k, dtype="float64", **params):
    hyper = resolve(FunkSVD(k, dtype=dtype, **params).get_params())
    return SgdEngine(ratings, None, hyper)


def compare_with_naive(engine, k, dtype, tolerance, level=LEVEL):
    """Train every block of one epoch with the kernel and with its twin, and compare the rows."""
    grid = engine.grid
    kernel = kernels("engines._sgd", dtype, level)
    sides = [(side.factors, side.biases, side.state, side.extra) for side in engine.sides]
    gathered = engine.sides[1]
    rules = [rule(engine.hyper, side, 0.02) for side in ("users", "items")]
    weight = np.empty(0, dtype) if grid.weight is None else grid.weight
    starts = grid.bands + np.arange(grid.n_bands + 1)
    blocks = kernel.Blocks(
        grid.block_runs,
        grid.block_start,
        starts,
        grid.run_row,
        grid.run_end,
        grid.index,
        grid.rating,
        weight,
    )
    fast = [kernel.Side(*arrays) for arrays in sides]
    for b in range(grid.n_bands**2):
        x, y = divmod(b, grid.n_bands)
        rows = slice(starts[y], starts[y + 1])
        runs = slice(grid.block_runs[b], grid.block_runs[b + 1])
        part = slice(grid.block_start[b], grid.block_start[b + 1] + 8)
        run_side = [array.copy() for array in sides[0]]
        side = [array[rows].copy() for array in sides[1]]
        want = block(
            run_side,
            side,
            grid.run_row[runs],
            grid.run_end[runs],
            grid.index[part],
            grid.rating[part],
            weight[part] if len(weight) else weight,
            engine.mean,
            engine.solver,
            *(dict(zip(kernel.RULE, rule, strict=True)) for rule in rules),
        )
        got = kernel.block(*fast, blocks, x, y, engine.mean, engine.solver, np.array(rules))
        assert got == pytest.approx(want, rel=tolerance)
        spare = starts[y + 1] - 1
        assert (gathered.factors[spare] == 0).all()
        gathered.state[spare] = side[2][-1]  # the clocks of the spare row may tick
        gathered.extra[spare] = side[3][-1]
        ours = [*sides[0], *(array[rows] for array in sides[1])]
        for array, expected in zip(ours, [*run_side, *side], strict=True):
            np.testing.assert_allclose(array, expected, rtol=tolerance, atol=tolerance)
        assert (engine.sides[0].factors[:, k:] == 0).all()


SOLVERS = [
    {"solver": "sgd", "momentum": 0.9},
    *({"solver": name} for name in ("adagrad_row", "adagrad", "adam", "adamax")),
]


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("k", [3, 20, 32, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-4)])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: s["solver"])
def test_every_solver_equals_naive(solver, k, dtype, tolerance, level):
    engine = engine_of(
        Ratings.from_arrays(*random_ratings(1500)),
        k,
        dtype,
        l2=(0.05, 0.02),
        l2_bias=(0.01, 0.03),
        **solver,
    )
    engine.epoch(0, 0.01)
    compare_with_naive(engine, k, dtype, tolerance, level)


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize(
    "extra",
    [
        {"l1": (0.12, 0.1)},
        {"l1_bias": 0.5},
        {"non_negative": True},
        {"biased": False},
    ],
)
@pytest.mark.parametrize(
    "solver",
    [{"solver": "sgd"}, *SOLVERS],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_every_penalty_equals_naive(solver, extra, level):
    """Ratings have weights here; L1 gives exact zeros, and the bound no factor below 0."""
    users, items, values = random_ratings(1500, 60, 30)
    weights = np.random.default_rng(1).integers(0, 5, len(values)) / 2
    engine = engine_of(
        Ratings.from_arrays(users, items, values, weights),
        11,
        "float64",
        init_std=0.3,
        **solver,
        **extra,
    )
    engine.epoch(0, 0.01)
    compare_with_naive(engine, 11, "float64", 1e-6, level)
    gathered = engine.sides[1]
    factors = gathered.factors[gathered.places, :11]
    biases = gathered.biases[gathered.places]
    assert (factors == 0).any() == ("l1" in extra or "non_negative" in extra)
    assert (biases == 0).any() == ("l1_bias" in extra or "biased" in extra)
    assert (factors < 0).any() != ("non_negative" in extra)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 400),
    n_users=st.integers(1, 40),
    n_items=st.integers(1, 40),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
    bands=st.integers(1, 5),
)
def test_any_shape_equals_naive(n, n_users, n_items, k, seed, bands):
    """Shapes have repeated pairs, single rows and empty blocks; the grid has each rating once."""
    users, items, values = random_ratings(n, n_users, n_items, seed)
    with mock.patch.object(grid_module, "choose_bands", return_value=bands):
        engine = engine_of(Ratings.from_arrays(users, items, values), k)
    grid = engine.grid
    compare_with_naive(engine, k, "float64", 1e-6)
    found = []
    for b in range(grid.n_bands**2):
        x, y = divmod(b, grid.n_bands)
        start = 0
        for r in range(grid.block_runs[b], grid.block_runs[b + 1]):
            assert grid.run_bands[x] <= grid.run_row[r] < grid.run_bands[x + 1]
            part = slice(
                grid.block_start[b] + start,
                grid.block_start[b] + grid.run_end[r],
            )
            start = grid.run_end[r]
            index = grid.index[part].astype(int)
            assert (np.diff(index) > 0).all()  # no item twice in a run
            run_code, codes = (
                grid.run_codes[grid.run_row[r]],
                grid.codes[grid.bands[y] + index],
            )
            for code, value in zip(codes, grid.rating[part], strict=True):
                found.append((run_code, code, value) if grid.users_run else (code, run_code, value))
    user_codes = np.unique(users, return_inverse=True)[1]
    item_codes = np.unique(items, return_inverse=True)[1]
    assert sorted(found) == sorted(zip(user_codes, item_codes, values, strict=True))
