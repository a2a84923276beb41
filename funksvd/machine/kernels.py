"""The builds of the kernels: which CPU level each needs, and how one is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import os

import numpy as np

LEVELS = {
    "baseline": 0,
    "v3": 3,
    "v4": 4,
}  # builds of the kernels, and the x86-64 level that each needs


def levels():
    """The builds that are there and that this CPU runs."""
    runs = importlib.import_module("funksvd.machine._cpu_float32").level()
    return [
        name
        for name, needed in LEVELS.items()
        if needed <= runs
        and (not needed or importlib.util.find_spec(f"funksvd.engines._sgd_float32_{name}"))
    ]


def _level():
    """The build to use: FUNKSVD_ISA forces one; else the highest that the CPU runs.

    v4 has vectors of 256 bits too, but twice the registers: measured on Zen 4 an epoch takes 0.95 of v3's time.
    """
    forced = os.environ.get("FUNKSVD_ISA")
    if forced and forced not in levels():
        raise ImportError(
            f"FUNKSVD_ISA must be one of {levels()} on this CPU, got {forced!r}; or unset it"
        )
    return forced or levels()[-1]


LEVEL = _level()


def kernels(source, dtype, level=LEVEL):
    """The build of a kernel module, "engines._sgd" for example, for a dtype and a level."""
    suffix = "" if level == "baseline" else f"_{level}"
    return importlib.import_module(f"funksvd.{source}_{np.dtype(dtype).name}{suffix}")


def show_config():
    """The build of the kernels that runs, as text."""
    return f"kernels: {LEVEL}, {kernels('machine._cpu', np.float32).lanes()} float32 a vector (FUNKSVD_ISA=baseline|v3|v4 forces one)"
