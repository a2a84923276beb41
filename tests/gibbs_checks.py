"""Joint-distribution test of the Gibbs sampler (Geweke 2004), and bugs planted in its naive twin that it must catch.

    python tests/gibbs_checks.py        prints the smallest p-value of each

A chain that alternates a sweep (parameters given data) with new data (given parameters) and starts at a draw of the
prior stays at the prior, whatever is looked at. Many short chains from independent starts are compared with
independent draws of the prior.
"""

import inspect
from functools import lru_cache
from types import SimpleNamespace

import naive
import numpy as np
from scipy import stats

NU, PRIOR, K, SHAPE = 4.0, (4.0, 3.0), 2, (5, 4)
# Ratings there are: user 4 and item 3 have none, so cold rows are tested; the others have one to three.
KNOWN = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
WEIGHTS = np.where(np.arange(20).reshape(5, 4) % 3 == 0, 2.0, 0.5)


def prior_draw(rng, prior=PRIOR, nu=NU, shape=SHAPE, k=K):
    s = SimpleNamespace(
        x=[], b=[], a=[], m=[], l=[], mb=[], lb=[], alpha=rng.gamma(prior[0]) / prior[1]
    )
    for n in shape:
        s.l.append(rng.gamma(prior[0], size=k) / prior[1])
        s.lb.append(rng.gamma(prior[0]) / prior[1])
        s.m.append(rng.normal(size=k) / np.sqrt(s.l[-1]))
        s.mb.append(rng.normal() / np.sqrt(s.lb[-1]))
        s.x.append(s.m[-1] + rng.normal(size=(n, k)) / np.sqrt(s.l[-1]))
        s.b.append(s.mb[-1] + rng.normal(size=n) / np.sqrt(s.lb[-1]))
        s.a.append(rng.gamma(nu / 2, size=n) * 2 / nu)
    return s


def predictions(s):
    return s.b[0][:, None] + s.b[1] + s.x[0] @ s.x[1].T


def data(s, rng, known=KNOWN, weights=WEIGHTS):
    scale = np.sqrt(s.alpha * np.outer(*s.a) * weights)
    return np.where(known, predictions(s) + rng.normal(size=known.shape) / scale, np.nan)


def looked_at(s, y):
    """Every group of parameters of both sides, a row with ratings and a cold one, and products that tie them."""
    rest = np.nansum(np.outer(*s.a) * WEIGHTS * (y - predictions(s)) ** 2)
    f, n = predictions(s), KNOWN.sum()
    pivot = s.alpha * (PRIOR[1] + rest / 2)  # which is independent of all but alpha
    out = {
        "alpha": s.alpha,
        "prediction": f[0, 0],
        "unseen": f[3, 0],
        "cold": f[4, 3],
        "precision": s.alpha * s.a[0][0] * s.a[1][0],
        "pivot of alpha": pivot,
        "pivot and weights": (pivot - PRIOR[0] - n / 2) * np.log((KNOWN.sum(1) * s.a[0]).sum() / n),
    }
    for side, name in enumerate(("user", "item")):
        x, m, cold = s.x[side], s.m[side], len(s.x[side]) - 1
        own = {
            "m": m[0],
            "l": s.l[side][0],
            "mb": s.mb[side],
            "lb": s.lb[side],
            "x": x[0, 0],
            "cold x": x[cold, 0],
            "b": s.b[side][0],
            "cold b": s.b[side][cold],
            "a": s.a[side][0],
            "cold a": s.a[side][cold],
            "spread": s.l[side][0] * np.sum((x[:, 0] - m[0]) ** 2),
            "centred": (x[0] - m) @ np.sqrt(s.l[side]),
            "bias spread": s.lb[side] * np.sum((s.b[side] - s.mb[side]) ** 2),
        }
        out |= {f"{name} {what}": value for what, value in own.items()}
    return out


class Draws:
    """What `naive.gibbs_sweep` draws, from NumPy."""

    def __init__(self, rng):
        self.hyper, self.gamma = rng.standard_normal, rng.standard_gamma
        self.normals = lambda side, row, count: rng.standard_normal(count)
        self.row_gamma = lambda side, row, shape: rng.standard_gamma(shape)


def naive_step(sweep=naive.gibbs_sweep, relax=-0.9):
    def step(s, y, rng):
        sweep(
            s, y, WEIGHTS, Draws(rng), nu=NU, prior=PRIOR, few=2, relax=relax
        )  # both ways to draw a row

    return step


@lru_cache
def of_the_prior(draws=4000):
    rng = np.random.default_rng(99)
    return table([looked_at(s, data(s, rng)) for s in (prior_draw(rng) for _ in range(draws))])


def smallest_p(step, chains, sweeps=3, seed=0, stop=0.0):
    """(p, what) of the least likely of all looked at; ends early once it is below `stop`."""
    rng, prior = np.random.default_rng(seed), of_the_prior()
    seen, worst = [], (1.0, "")
    for chain in range(1, chains + 1):
        s = prior_draw(rng)
        for _ in range(sweeps):
            y = data(s, rng)
            step(s, y, rng)
        seen.append(looked_at(s, y))
        if chain == chains or (stop and chain % 50 == 0):
            worst = min(
                (stats.ks_2samp(values, prior[name]).pvalue, name)
                for name, values in table(seen).items()
            )
            if worst[0] < stop:
                break
    return worst


def table(rows):
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# What is replaced in the source of naive.gibbs_sweep.
BUGS = {
    "degrees of freedom of l": ("prior[0] + (n + 1) / 2", "prior[0] + n / 2 - 0.5"),
    "m's own square left out of l": ("+ s.m[side] ** 2,", ","),
    "degrees of freedom of a": ("(nu + len(j)) / 2", "(nu + len(j) + 1) / 2"),
    "degrees of freedom of alpha": ("known.sum() / 2", "known.sum()"),
    "stale weights in alpha": (
        "rest += squares * s.a[side][row] / s.alpha",
        "rest += (w * (e - b - G @ x) ** 2).sum() / s.alpha",
    ),
    "dropped prior mean": ("+ s.l[side] * s.m[side])", ")"),
    "dropped mean of the bias": (
        "(w * e).sum() + s.lb[side] * s.mb[side] - v @ c",
        "(w * e).sum() - v @ c",
    ),
    "bias without the factors integrated out": (
        "w.sum() + s.lb[side] - v @ v",
        "w.sum() + s.lb[side]",
    ),
    "transposed Cholesky factor": (
        "np.linalg.solve(U, c - v * b + z[:k])",
        "np.linalg.solve(U, c - v * b) + U @ z[:k] * 0.3",
    ),
    "noise of the ratings left out (Matheron)": (" - z[k + 1 : k + 1 + len(j)] / np.sqrt(w)", ""),
    "shift has the wrong sign": ("s.b[o] = s.b[o] + q @ delta", "s.b[o] = s.b[o] - q @ delta"),
    "own noise weight left out": ("s.alpha * s.a[side][row] * s.a[o][j]", "s.alpha * s.a[o][j]"),
    "the other side's bias left out": ("r - s.b[o][j]", "r"),
    "relaxed with too little of the draw": ("np.sqrt(1 - relax**2)", "(1 + relax)"),
    "relaxed about the prior's mean": (
        "relax * (old - mean)",
        "relax * (old - np.append(s.m[side], s.mb[side]))",
    ),
}


# Those that the test suite tries; `python tests/gibbs_checks.py` tries all.
QUICK = (
    "degrees of freedom of a",
    "degrees of freedom of alpha",
    "stale weights in alpha",
    "dropped prior mean",
    "transposed Cholesky factor",
    "noise of the ratings left out (Matheron)",
    "shift has the wrong sign",
    "the other side's bias left out",
    "relaxed with too little of the draw",
)


def step_with_bug(name):
    """`naive_step` with one bug, of plain draws unless the bug is in their relaxation: a part of a draw shows less."""
    right, wrong = BUGS[name]
    source = inspect.getsource(naive.gibbs_sweep)
    assert source.count(right) == 1, f"{right!r} is not once in the source"
    found = {"np": np}
    exec(source.replace(right, wrong), found)
    return naive_step(found["gibbs_sweep"], -0.9 if name.startswith("relaxed") else 0.0)


if __name__ == "__main__":
    import sys

    print("no bug:", smallest_p(naive_step(), 1500))  # noqa: T201
    print("no bug, plain draws:", smallest_p(naive_step(relax=0.0), 1500))  # noqa: T201
    for bug in sys.argv[1:] or BUGS:
        print(f"{bug}:", smallest_p(step_with_bug(bug), 1500, stop=1e-6))  # noqa: T201
