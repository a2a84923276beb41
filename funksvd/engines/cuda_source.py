"""The text of the CUDA kernels, and the constants that it is compiled with or reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from funksvd.machine.kernels import kernels

__all__ = ["RULE", "SOLVERS", "THREADS", "constants_of", "lanes_of", "options", "source"]

_TABLE = kernels("engines._sgd", np.float32)
# The solvers' names, and the names of the hyper-parameters of one side in the order of `rule`.
SOLVERS: tuple[str, ...] = tuple(name for name in _TABLE.SOLVERS if name is not None)
RULE: tuple[str, ...] = tuple(_TABLE.RULE)
BETAS = [RULE.index("beta_1"), RULE.index("beta_2")]

SHARED = "_solvers.cu"
THREADS = 128  # in a block of threads, where a kernel goes over rows


def lanes_of(
    n_factors: int,
    half: bool,
) -> int:
    """Return how many lanes share a rating.

    It is a power of two, at most one lane for each 16-byte slot of a row, and at least 4, so that
    no more than 8 ratings fill a warp.
    """
    slots = -(-n_factors // (8 if half else 4))
    return min(32, max(4, 1 << (slots - 1).bit_length()))


def options(
    n_factors: int,
    half: bool,
    solver: str,
    biased: bool = True,
    weighted: bool = False,
    proximal: bool = False,
) -> tuple[str, ...]:
    """Return the compiler's options for one model; `_solvers.cu` and `_sgd.cu` say what each is."""
    macros = {
        "N_FACTORS": n_factors,
        "LANES": lanes_of(n_factors, half),
        "HALF": int(half),
        "SOLVER": solver.upper(),
        "BIASED": int(biased),
        "WEIGHTED": int(weighted),
        "PROXIMAL": int(proximal),
    }
    defined = [f"-D{name}={value}" for name, value in macros.items()]
    # Without fused multiply-adds the bits are those of the kernels on the host shim.
    return (*defined, "--std=c++17", "--fmad=false")


def source(name: str = "_sgd.cu") -> str:
    """Return the text of a file of kernels, behind the text that all kernels share."""
    folder = Path(__file__).parent
    parts = [(folder / part).read_text(encoding="utf-8") for part in (SHARED, name)]
    return "".join([f"#define RULE {', '.join(RULE)}\n", *parts])


def constants_of(
    mean: float,
    rules: Any = None,
) -> np.ndarray:
    """Return the struct `Constants` of `_solvers.cu` as an array.

    Parameters
    ----------
    mean : float
    rules : (2, len(RULE)) float64, or None
        The hyper-parameters of the run side and of the gathered side. A kernel that only measures
        needs none.
    """
    sides = np.zeros((2, len(RULE))) if rules is None else np.asarray(rules)
    fresh = 1 - sides[:, BETAS]
    return np.append(mean, np.hstack([sides, fresh])).astype(np.float32)
