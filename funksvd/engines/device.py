"""The GPU: how it is opened, how much of its memory may be used, and the error where it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from funksvd.hyper import Hyper

USABLE_SHARE = 0.9  # of the card's free memory
LEAST_CAPABILITY = 50  # Maxwell
GIB = 2**30


class DeviceError(RuntimeError):
    """There is no GPU to train on, or it has not enough memory.

    It is raised before any work: training on a GPU never falls back to the CPU in silence.
    """


def open_device(device: str) -> tuple[Any, Any]:
    """Return the module cupy and its `Device` for "cuda" or "cuda:1".

    Raises
    ------
    DeviceError
        If CuPy, a driver, NVRTC or the device is missing, or if its compute capability is below
        5.0; the message names the cure.
    """
    cupy = import_cupy(device)
    check_driver(cupy, device)
    number = int(device.partition(":")[2] or 0)
    count = cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise DeviceError(f"device={device!r}: this machine has {count} GPUs, counted from 0")
    check_compiler(cupy)
    card = cupy.cuda.Device(number)
    if int(card.compute_capability) < LEAST_CAPABILITY:
        raise DeviceError(
            f"device={device!r} has compute capability {card.compute_capability}; "
            f"{LEAST_CAPABILITY} (Maxwell) is the least"
        )
    return cupy, card


def import_cupy(device: str) -> Any:
    """Return the module cupy; DeviceError names the extra that brings it."""
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f'device={device!r} needs CuPy: pip install "funksvd[cuda12]", '
            "or [cuda13] for a driver of CUDA 13"
        ) from error
    return cupy


def check_driver(
    cupy: Any,
    device: str,
) -> None:
    """Raise DeviceError, which quotes the driver, if CuPy finds no GPU."""
    if cupy.cuda.is_available():
        return
    try:
        said = f"it counts {cupy.cuda.runtime.getDeviceCount()} devices"
    except Exception as error:  # CuPy's own types may be missing where there is no driver
        said = str(error)
    raise DeviceError(
        f"device={device!r}: CuPy {cupy.__version__} finds no GPU that it can use ({said}); "
        "install NVIDIA's driver, and the extra of its version, cuda12 or cuda13, "
        "or use device='cpu'"
    )


def check_compiler(cupy: Any) -> None:
    """Raise DeviceError if CuPy finds no compiler of CUDA kernels."""
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        raise DeviceError(
            f"CuPy finds no NVRTC, the compiler of CUDA kernels ({error}); it comes with CuPy's "
            '[ctk] extra: pip install "funksvd[cuda12]", or [cuda13]'
        ) from error


def memory_limit(
    cupy: Any,
    hyper: Hyper,
    card: Any,
) -> float:
    """Return how many bytes of the card a fit may use."""
    # The memory of an earlier fit stays in CuPy's pool, and the driver counts it as taken.
    cupy.get_default_memory_pool().free_all_blocks()
    free = float(USABLE_SHARE * card.mem_info[0])
    return free if hyper.max_device_bytes is None else min(free, hyper.max_device_bytes)


def too_large(
    needed: float,
    limit: float,
    hyper: Hyper,
    cause: str,
) -> DeviceError:
    """Return the error of a fit that needs more bytes than there are; `cause` is one parameter."""
    return DeviceError(
        f"n_factors={hyper.n_factors}, solver={hyper.solver!r} and {cause} need "
        f"{needed / GIB:.3f} GiB on the GPU, and there are {limit / GIB:.3f} GiB; "
        "lower n_factors, or use another solver or device='cpu'"
    )


@contextlib.contextmanager
def on_card(cupy: Any) -> Iterator[None]:
    """Turn CuPy's error at the end of the card's memory, which others use too, into DeviceError."""
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceError(
            f"the GPU ran out of memory: {error}; lower max_device_bytes, or close other programs"
        ) from error
