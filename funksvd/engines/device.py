"""The GPU: opening it, its memory and its errors."""

from __future__ import annotations

import contextlib

import numpy as np

HELD = 0.9  # share of the card's free memory to use at most
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
        except (
            Exception
        ) as error:  # CuPy's own types, which a machine without a driver may not have
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
        raise DeviceError(
            f"device={device!r} has compute capability {card.compute_capability}; 50 (Maxwell) is the least"
        )
    return cupy, card


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
        raise DeviceError(
            f"the GPU ran out of memory: {error}; lower max_device_bytes, or close other programs"
        ) from error
