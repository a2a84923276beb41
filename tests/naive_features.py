"""The slow, obvious twin of the sampler's features of rows (`engines/_features.pxi`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass
class Group:
    """A group of features of one side's rows.

    V : (rows, features) their values
    B, beta : (features, k), (features,) what they say of a row's factors and of its bias
    L, Lb : (k,) precisions of B, and that of beta
    """

    V: Array
    B: Array
    beta: Array
    L: Array
    Lb: float


def offsets(s: Any, side: int) -> tuple[Array, Array]:
    """Return (n, k) and (n,): what all features say of the factors and biases of a side's rows."""
    n, k = s.x[side].shape
    factors = np.zeros((n, k))
    biases = np.zeros(n)
    for group in s.groups[side]:
        factors = factors + group.V @ group.B
        biases = biases + group.V @ group.beta
    return factors, biases


def draw(s: Any, draws: Any, prior: tuple[float, float]) -> None:
    """Draw the features of both sides, one after the other, and then their precisions.

    `gibbs_checks` plants bugs in the text of this function.

    Parameters
    ----------
    s : namespace
        The state, as `naive.gibbs_sweep` has it.
    draws : object
        `features(side, group, count, k)` gives (count, k + 1) standard normals, `gamma(shape)`
        gamma draws of rate 1.
    prior : (shape, rate)
        Of the precisions' gamma priors.
    """
    for side in (0, 1):
        k = s.x[side].shape[1]
        for number, g in enumerate(s.groups[side]):
            z = draws.features(side, number, len(g.B), k)
            for j in range(len(g.B)):
                v = g.V[:, j]
                q = v @ v
                d, db = offsets(s, side)
                rest = s.x[side] - s.m[side] - d
                bias_rest = s.b[side] - s.mb[side] - db
                t = g.L + s.l[side] * q
                tb = g.Lb + s.lb[side] * q
                mean = s.l[side] * (v @ rest + q * g.B[j]) / t
                bias_mean = s.lb[side] * (v @ bias_rest + q * g.beta[j]) / tb
                g.B[j] = mean + z[j, :k] / np.sqrt(t)
                g.beta[j] = bias_mean + z[j, k] / np.sqrt(tb)
        for g in s.groups[side]:
            squares = np.append((g.B**2).sum(0), (g.beta**2).sum())
            shape = np.full(k + 1, prior[0] + len(g.B) / 2)
            lam = draws.gamma(shape) / (prior[1] + squares / 2)
            g.L = lam[:k]
            g.Lb = float(lam[k])
