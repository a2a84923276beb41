"""The source of the CUDA kernels and the constants that they are compiled with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from funksvd.machine.kernels import kernels

_, *SOLVERS = kernels("engines._sgd", np.float32).SOLVERS
RULE = kernels("engines._sgd", np.float32).RULE
HYPER = (
    "rate",
    "l2",
    "l1",
    "l2_bias",
    "l1_bias",
    "low",
    "momentum",
    "beta_1",
    "beta_2",
    "fresh_1",
    "fresh_2",
    "epsilon",
)
BLOCK = 128  # threads, where a kernel goes over rows


def lanes_of(n_factors, half):
    """Lanes that share a rating: a power of two, at most one 16-byte slot of a row each; at least 4, so that 8 ratings
    fill a warp."""
    slots = -(-n_factors // (8 if half else 4))
    return min(32, max(4, 1 << (slots - 1).bit_length()))


def options(n_factors, half, solver, biased=True, weighted=False, proximal=False):
    """The compiler's options for one model."""
    macros = {
        "N_FACTORS": n_factors,
        "LANES": lanes_of(n_factors, half),
        "HALF": half,
        "SOLVER": SOLVERS.index(solver),
        "BIASED": biased,
        "WEIGHTED": weighted,
        "PROXIMAL": proximal,
    }
    return (
        *(f"-D{name}={int(value)}" for name, value in macros.items()),
        "--std=c++17",
        "--fmad=false",
    )


def source(name="_sgd.cu"):
    """The text of kernels behind that of what they share."""
    return "".join(
        Path(__file__).with_name(part).read_text(encoding="utf-8") for part in ("_solvers.cu", name)
    )


def constants_of(mean, rules):
    """`Constants` of _sgd.cu; without rules, to measure, only the mean counts."""
    values = [mean]
    for r in np.zeros((2, len(RULE))) if rules is None else rules:
        r = dict(zip(RULE, r, strict=True))
        r |= {"fresh_1": 1 - r["beta_1"], "fresh_2": 1 - r["beta_2"]}
        values += [r[name] for name in HYPER]
    return np.array(values, np.float32)
