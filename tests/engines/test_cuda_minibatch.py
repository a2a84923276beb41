"""Mini-batches on a GPU give the CPU's numbers.

They run on a CPU through tests/cuda_host, or on a GPU with `pytest -m gpu`.
"""

from typing import Any

import numpy as np
import pytest
from cuda_host import compiler
from test_cuda import assert_close, assert_same_bytes
from test_minibatch import SOLVERS, compare_with_naive, engine_of, full_ratings, options_of

from funksvd import FunkSVD, Ratings
from funksvd.engines.cuda_minibatch import CudaMiniBatchEngine
from funksvd.engines.cuda_source import options
from funksvd.engines.device import DeviceError
from funksvd.engines.minibatch import MiniBatchEngine


def pair_of(data: Any, held_out: Ratings, **params: Any) -> tuple[MiniBatchEngine, MiniBatchEngine]:
    """Return the engine of the GPU and that of the CPU."""
    ours = engine_of(data, held_out, engine=CudaMiniBatchEngine, **params)
    return ours, engine_of(data, held_out, **params)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("k", [8, 20, 32, 64, 100, 128, 512])
def test_equals_the_cpu_engine_and_naive(
    cupy,
    solver,
    k,
) -> None:
    data = full_ratings()
    held_out = Ratings.from_arrays(*full_ratings(300, 45, 35, seed=1))
    params = {"solver": solver, "n_factors": k, "init_std": k**-0.5, "l2": 0.02, "shuffle": False}
    if solver not in ("sgd", "momentum"):
        # A step for a gradient near 0 then does not depend on how the gradient is rounded.
        params["epsilon"] = 1e-3
    compare_with_naive(engine_of(data, engine=CudaMiniBatchEngine, **params), data, "float32")
    ours, theirs = pair_of(data, held_out, **{**params, "shuffle": True})
    for epoch in range(2):
        assert ours.epoch(epoch, 0.05) == pytest.approx(theirs.epoch(epoch, 0.05), rel=1e-5)
        assert ours.validate() == pytest.approx(theirs.validate(), rel=1e-5)
    assert_close(ours, theirs)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("penalty", ["l2", "both"])
def test_every_option_equals_naive(
    cupy,
    solver,
    penalty,
) -> None:
    ways = ((True, "row", True), (False, "rating", False), (True, "rating", True))
    for number, (biased, scale, above) in enumerate(ways):
        data = full_ratings(weighted=number != 1, seed=number)
        params = options_of(penalty, biased, scale, above)
        engine = engine_of(data, engine=CudaMiniBatchEngine, solver=solver, shuffle=False, **params)
        compare_with_naive(engine, data, "float32")


def test_same_bits_for_every_order_of_the_lanes(shim) -> None:
    engines = []
    for order, resident in ((0, 1), (1, 99), (2, 99)):
        shim.schedule(order, resident)
        engines.append(
            engine_of(full_ratings(weighted=True), engine=CudaMiniBatchEngine, solver="adam")
        )
        for epoch in range(2):
            engines[-1].epoch(epoch, 0.02)
    for engine in engines[1:]:
        assert_same_bytes(engine, engines[0])
    assert shim.overruns() == 0


@pytest.mark.parametrize("solver", ["momentum", "adam"])
def test_a_snapshot_goes_on_exactly(cupy, solver) -> None:
    whole = engine_of(full_ratings(), engine=CudaMiniBatchEngine, solver=solver)
    half = engine_of(full_ratings(), engine=CudaMiniBatchEngine, solver=solver)
    for epoch in range(3):
        whole.epoch(epoch, 0.05)
    half.epoch(0, 0.05)
    state = half.snapshot()
    half.epoch(1, 0.05)
    half.restore(state)
    half.load(half.weights())
    for epoch in (1, 2):
        half.epoch(epoch, 0.05)
    assert_same_bytes(whole, half)


def test_a_fit_is_that_of_the_cpu(cupy) -> None:
    users, items, values, _ = full_ratings(3000)
    params = {"solver": "adamax", "batch_size": 400, "learning_rate": 0.02, "epsilon": 1e-3}
    models = []
    for device in ("cpu", "cuda"):
        model = FunkSVD(5, 4, device=device, random_state=0, **params)
        models.append(model.fit((users, items), values, validation_split=0.1))
    for name in ("loss", "val_loss"):
        assert models[1].history_[name] == pytest.approx(models[0].history_[name], rel=1e-5)
    for name in ("user_factors_", "item_biases_"):
        a, b = (getattr(model, name) for model in models)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_the_error_of_too_little_memory_says_both_numbers(shim) -> None:
    with pytest.raises(
        DeviceError, match=r"batch_size=200 need \d.\d+ GiB on the GPU, and there are 0.000 GiB"
    ):
        engine_of(full_ratings(), engine=CudaMiniBatchEngine, device="cuda", max_device_bytes=1000)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("dtype", "float16", "'float32' for mini-batches on a GPU"),
        ("schedule", "hogwild", "'strata' unless batch_size is 1"),
    ],
)
def test_parameters_that_mini_batches_do_not_know_are_refused(
    name,
    value,
    said,
) -> None:
    users, items, values, _ = full_ratings()
    with pytest.raises(ValueError, match=rf"^{name} must be {said}, got"):
        FunkSVD(batch_size=9, device="cuda", **{name: value}).fit((users, items), values)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_no_spills_and_16_byte_loads(architecture) -> None:
    if not compiler.available():
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    for k, solver in ((20, "adagrad"), (512, "adam")):
        compiler.check(architecture, options(k + 2, False, solver), "_minibatch.cu")
