"""The builds of the kernels: the CPU level that each needs, and the import of one."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

# Build of the kernels -> the x86-64 level that it needs.
LEVELS = {"baseline": 0, "v3": 3, "v4": 4}


def levels() -> list[str]:
    """Return the builds that are installed and that this CPU runs, the lowest first."""
    cpu = importlib.import_module("funksvd.machine._cpu_float32")
    runs = cpu.level()
    return [name for name, needed in LEVELS.items() if needed <= runs and is_built(name)]


def is_built(level: str) -> bool:
    """Return whether the kernels of a level are installed; a compiler may not know the level."""
    if level == "baseline":
        return True
    return importlib.util.find_spec(f"funksvd.engines._sgd_float32_{level}") is not None


def chosen_level() -> str:
    """Return the build to use: FUNKSVD_ISA forces one, else it is the highest that the CPU runs.

    v4 has vectors of 256 bits too, but twice the registers: measured on Zen 4, an epoch takes 0.95
    of v3's time.
    """
    available = levels()
    forced = os.environ.get("FUNKSVD_ISA")
    if not forced:
        return available[-1]
    if forced not in available:
        raise ImportError(
            f"FUNKSVD_ISA must be one of {available} on this CPU, got {forced!r}; or unset it"
        )
    return forced


LEVEL = chosen_level()


def kernels(
    source: str,
    dtype: DTypeLike,
    level: str = LEVEL,
) -> Any:
    """Return the module of a kernel, "engines._sgd" for example, for a dtype and a level.

    float64 has no builds of its own for v4: it takes those of v3, which are as fast (SGD, k = 32
    and 100, Zen 4).
    """
    if np.dtype(dtype) == np.float64 and level == "v4":
        level = "v3"
    name = f"funksvd.{source}_{np.dtype(dtype).name}"
    if level != "baseline":
        name += f"_{level}"
    return importlib.import_module(name)


def show_config() -> str:
    """Return a line on the build of the kernels that runs."""
    lanes = kernels("machine._cpu", np.float32).lanes()
    return f"kernels: {LEVEL}, {lanes} float32 a vector (FUNKSVD_ISA=baseline|v3|v4 forces one)"
