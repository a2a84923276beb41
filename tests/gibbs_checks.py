"""Joint-distribution test of the Gibbs sampler, and helpers of all its tests.

    python tests/gibbs_checks.py [BUG ...]      prints the smallest p-value of each planted bug

The test is that of Geweke (2004). A chain that alternates a sweep (parameters given data) with new
data (given parameters), and starts from a draw of the prior, stays at the prior, whatever quantity
is looked at. Many short chains from independent starts are compared with independent draws of the
prior. Bugs planted in the sampler's naive twin must be caught.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache

import naive
import numpy as np
from scipy import stats

from funksvd import FunkSVD, Ratings
from funksvd.engines.gibbs import GibbsEngine
from funksvd.hyper import resolve

NU = 4.0
PRIOR = (4.0, 3.0)
N_FACTORS = 2
SHAPE = (5, 4)
# User 4 and item 3 have no ratings, so that such rows are tested; the others have one to three.
KNOWN = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
WEIGHTS = np.where(np.arange(20).reshape(5, 4) % 3 == 0, 2.0, 0.5)
# Ratings of a row up to which a draw of the prior is conditioned: by the kernels, and by the naive
# twin on the small matrices here, so that both ways to draw a row are used.
FEW = 8
FEW_HERE = 2


@dataclass
class State:
    """State of a chain; lists have an entry for users and one for items.

    x, b, a : factors (n, k), biases (n,), noise weights (n,)
    m, l : mean and precision of the factors (k,)
    mb, lb : mean and precision of the biases
    alpha : global noise precision
    """

    x: list
    b: list
    a: list
    m: list
    l: list  # noqa: E741  # the model's name
    mb: list
    lb: list
    alpha: float


def distinct_ratings(n=3000, n_users=80, n_items=50, seed=0):
    """Return (users, items, values): ratings of a planted model plus noise, each pair once."""
    rng = np.random.default_rng(seed)
    users, items = np.divmod(rng.choice(n_users * n_items, n, replace=False), n_items)
    p = rng.normal(0, 0.6, (n_users, 3))
    q = rng.normal(0, 0.6, (n_items, 3))
    noise = rng.normal(0, 0.5, n)
    return users, items, 3.5 + np.einsum("nk,nk->n", p[users], q[items]) + noise


def hyper_of(n_factors, n_epochs=40, **parameters):
    """Return the `Hyper` of a sampled model."""
    model = FunkSVD(n_factors, n_epochs, solver="gibbs", **parameters)
    return resolve(model.get_params())


def engine_of(users, items, values, weights=None, n_factors=3, n_epochs=40):
    """Return an engine of ratings given as arrays."""
    ratings = Ratings.from_arrays(users, items, values, weights)
    return GibbsEngine(ratings, None, hyper_of(n_factors, n_epochs))


def state_of(chain):
    """Return a copy of the state of a `Chain`, without the padding."""
    sides = chain.sides
    k = chain.n_factors
    return State(
        alpha=chain.alpha,
        x=[np.array(side.factors, float)[:, :k] for side in sides],
        b=[np.array(side.scalars, float)[:, 0] for side in sides],
        a=[np.array(side.scalars, float)[:, 1] ** 2 for side in sides],
        m=[np.array(side.mean, float)[:k] for side in sides],
        l=[np.array(side.precision, float)[:k] for side in sides],
        mb=[side.bias_mean for side in sides],
        lb=[side.bias_precision for side in sides],
    )


def take_over(chain, state):
    """Give a `Chain` another state."""
    chain.alpha = state.alpha
    k = chain.n_factors
    for number, side in enumerate(chain.sides):
        np.asarray(side.factors)[:, :k] = state.x[number]
        np.asarray(side.scalars)[:, 0] = state.b[number]
        np.asarray(side.scalars)[:, 1] = np.sqrt(state.a[number])
        np.asarray(side.mean)[:k] = state.m[number]
        np.asarray(side.precision)[:k] = state.l[number]
        side.bias_mean = float(state.mb[number])
        side.bias_precision = float(state.lb[number])


def prior_draw(rng, prior=PRIOR, nu=NU, shape=SHAPE, k=N_FACTORS):
    """Return a `State` drawn from the prior."""
    state = State([], [], [], [], [], [], [], alpha=rng.gamma(prior[0]) / prior[1])
    for n in shape:
        precision = rng.gamma(prior[0], size=k) / prior[1]
        bias_precision = rng.gamma(prior[0]) / prior[1]
        mean = rng.normal(size=k) / np.sqrt(precision)
        bias_mean = rng.normal() / np.sqrt(bias_precision)
        state.l.append(precision)
        state.lb.append(bias_precision)
        state.m.append(mean)
        state.mb.append(bias_mean)
        state.x.append(mean + rng.normal(size=(n, k)) / np.sqrt(precision))
        state.b.append(bias_mean + rng.normal(size=n) / np.sqrt(bias_precision))
        state.a.append(rng.gamma(nu / 2, size=n) * 2 / nu)
    return state


def predictions(state):
    """Return the matrix b_u + b_i + p_u.q_i."""
    return state.b[0][:, None] + state.b[1] + state.x[0] @ state.x[1].T


def data(state, rng, known=KNOWN, weights=WEIGHTS):
    """Return a matrix of ratings drawn given a state; NaN where there is none."""
    scale = np.sqrt(state.alpha * np.outer(*state.a) * weights)
    noise = rng.normal(size=known.shape) / scale
    return np.where(known, predictions(state) + noise, np.nan)


def quantities(state, y):
    """Return {name: number}, the quantities that the test looks at.

    They are of every group of parameters of both sides, of a row with ratings and of one without,
    and products that tie groups together.
    """
    f = predictions(state)
    n = KNOWN.sum()
    squares = np.nansum(np.outer(*state.a) * WEIGHTS * (y - f) ** 2)
    pivot = state.alpha * (PRIOR[1] + squares / 2)  # independent of all but alpha
    weighted_users = (KNOWN.sum(1) * state.a[0]).sum() / n
    out = {
        "alpha": state.alpha,
        "prediction": f[0, 0],
        "unseen": f[3, 0],
        "cold": f[4, 3],
        "precision": state.alpha * state.a[0][0] * state.a[1][0],
        "pivot of alpha": pivot,
        "pivot and weights": (pivot - PRIOR[0] - n / 2) * np.log(weighted_users),
    }
    for number, name in enumerate(("user", "item")):
        for quantity, value in side_quantities(state, number).items():
            out[f"{name} {quantity}"] = value
    return out


def side_quantities(state, number):
    """Return {name: number} of one side; the last row has no ratings."""
    x = state.x[number]
    b = state.b[number]
    m = state.m[number]
    precision = state.l[number]
    return {
        "m": m[0],
        "l": precision[0],
        "mb": state.mb[number],
        "lb": state.lb[number],
        "x": x[0, 0],
        "cold x": x[-1, 0],
        "b": b[0],
        "cold b": b[-1],
        "a": state.a[number][0],
        "cold a": state.a[number][-1],
        "spread": precision[0] * np.sum((x[:, 0] - m[0]) ** 2),
        "centred": (x[0] - m) @ np.sqrt(precision),
        "bias spread": state.lb[number] * np.sum((b - state.mb[number]) ** 2),
    }


class Draws:
    """The random numbers that `naive.gibbs_sweep` asks for, from NumPy."""

    def __init__(self, rng):
        self.rng = rng
        self.hyper = rng.standard_normal
        self.gamma = rng.standard_gamma

    def normals(self, side, row, count):
        return self.rng.standard_normal(count)

    def row_gamma(self, side, row, shape):
        return self.rng.standard_gamma(shape)


class SameDraws:
    """The random numbers that `naive.gibbs_sweep` asks for, from the chain's own generators.

    So the chain and its naive twin make the same sweep.
    """

    def __init__(self, chain):
        self.chain = chain
        self.sweep = chain.sweep
        self.width = chain.width
        self.rng = np.random.default_rng([chain.seed, 2, chain.sweep])

    def hyper(self, count):
        return self.rng.standard_normal(count)

    def gamma(self, shape):
        return self.rng.gamma(shape)

    def row_normals(self, side, row):
        """Return (key of the side's rows, all normals of a row)."""
        out = np.zeros((1, self.width + 16), np.float32)
        key = self.chain.key(1, self.sweep, side)
        scratch = np.zeros(self.width + 64, np.float32)
        self.chain.kernel.normal_rows(key, row, scratch, out)
        return key, out[0].astype(np.float64)

    def normals(self, side, row, count):
        _, z = self.row_normals(side, row)
        others = z[self.width : self.width + 1 + FEW]  # of the bias and of the ratings
        return np.concatenate([z[: self.chain.n_factors], others])

    def row_gamma(self, side, row, shape):
        key, z = self.row_normals(side, row)
        first_normal = z[self.width + FEW + 1 : self.width + FEW + 2]
        out = np.empty(1)
        self.chain.kernel.gammas(key, row, np.array([shape]), first_normal, out)
        return out[0]


def naive_step(sweep=naive.gibbs_sweep, relax=-0.9):
    """Return a function that makes a naive sweep: step(state, y, rng) changes the state."""

    def step(state, y, rng):
        sweep(state, y, WEIGHTS, Draws(rng), nu=NU, prior=PRIOR, few=FEW_HERE, relax=relax)

    return step


@lru_cache
def quantities_of_the_prior(n_draws=4000):
    """Return {name: (n_draws,)} of independent draws of the prior."""
    rng = np.random.default_rng(99)
    rows = []
    for _ in range(n_draws):
        state = prior_draw(rng)
        rows.append(quantities(state, data(state, rng)))
    return columns_of(rows)


def smallest_p(step, n_chains, n_sweeps=3, seed=0, stop=0.0):
    """Return (p, name) of the least likely quantity; end early once p is below `stop`."""
    rng = np.random.default_rng(seed)
    prior = quantities_of_the_prior()
    seen = []
    worst = (1.0, "")
    for chain in range(1, n_chains + 1):
        state = prior_draw(rng)
        for _ in range(n_sweeps):
            y = data(state, rng)
            step(state, y, rng)
        seen.append(quantities(state, y))
        if chain == n_chains or (stop and chain % 50 == 0):
            worst = min(
                (stats.ks_2samp(values, prior[name]).pvalue, name)
                for name, values in columns_of(seen).items()
            )
            if worst[0] < stop:
                break
    return worst


def columns_of(rows):
    """Return {name: array} of dicts {name: number}."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# Bug -> (right text, wrong text) in the source of naive.gibbs_sweep.
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

# Bugs that the test suite tries; `python tests/gibbs_checks.py` tries all.
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
    """Return `naive_step` with one bug.

    The draws are plain unless the bug is in their over-relaxation: it would hide a part of others.
    """
    right, wrong = BUGS[name]
    source = inspect.getsource(naive.gibbs_sweep)
    assert source.count(right) == 1, f"{right!r} is not once in the source"
    found = dict(vars(naive))
    exec(source.replace(right, wrong), found)
    return naive_step(found["gibbs_sweep"], -0.9 if name.startswith("relaxed") else 0.0)


if __name__ == "__main__":
    import sys

    print("no bug:", smallest_p(naive_step(), 1500))  # noqa: T201
    print("no bug, plain draws:", smallest_p(naive_step(relax=0.0), 1500))  # noqa: T201
    for bug in sys.argv[1:] or BUGS:
        print(f"{bug}:", smallest_p(step_with_bug(bug), 1500, stop=1e-6))  # noqa: T201
