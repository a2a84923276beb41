"""Joint-distribution test of the Gibbs sampler, and helpers of all its tests.

    python tests/gibbs_checks.py [BUG ...]      prints the smallest p-value of each planted bug

The test is that of Geweke (2004). A chain that alternates a sweep (parameters given data) with new
data (given parameters), and starts from a draw of the prior, stays at the prior, whatever quantity
is looked at. Many short chains from independent starts are compared with independent draws of the
prior. Bugs planted in the sampler's naive twin must be caught.
"""

import inspect
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace

import naive
import naive_features
import numpy as np
from naive_features import Group
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
    groups : groups of features of the rows, see `naive_features`
    """

    x: list
    b: list
    a: list
    m: list
    l: list  # noqa: E741  # the model's name
    mb: list
    lb: list
    alpha: float
    groups: list = field(default_factory=lambda: [[], []])


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


def engine_of(users, items, values, weights=None, n_factors=3, n_epochs=40, **parameters):
    """Return an engine of ratings given as arrays."""
    ratings = Ratings.from_arrays(users, items, values, weights)
    return GibbsEngine(ratings, None, hyper_of(n_factors, n_epochs, **parameters))


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
        groups=groups_of(chain),
    )


def groups_of(chain):
    """Return copies of the features of both sides of a `Chain`."""
    out = [[], []]
    k = chain.n_factors
    for number, features in enumerate(chain.features.rows):
        for own in features.groups:
            n_features = len(own.biases)
            V = np.zeros((chain.n_rows[number], n_features))
            for j in range(n_features):
                entries = slice(own.start[j], own.start[j + 1])
                rows = np.asarray(own.index)[entries]
                values = np.asarray(own.value)[entries] if len(own.value) else 1
                V[rows, j] = np.asarray(own.scale)[rows] * values
            B = np.concatenate(list(np.array(own.factors, float)), axis=1)[:, :k]
            L = np.array(own.precision, float)[:k]
            group = Group(V, B, np.array(own.biases, float), L, own.bias_precision)
            out[number].append(group)
    return out


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
    for number, features in enumerate(chain.features.rows):
        for own, group in zip(features.groups, state.groups[number], strict=True):
            for f in range(k):
                np.asarray(own.factors)[f // 16, :, f % 16] = group.B[:, f]
            np.asarray(own.biases)[:] = group.beta
            np.asarray(own.precision)[:k] = group.L
            own.bias_precision = float(group.Lb)
        factors, biases = naive_features.offsets(state, number)
        np.asarray(chain.sides[number].offsets)[:, :k] = factors
        np.asarray(chain.sides[number].bias_offsets)[:] = biases


def sets_of(known=KNOWN):
    """Return [values of the users' sets, values of the items' sets]."""
    sets = []
    for rated in (known, known.T):
        counts = np.maximum(rated.sum(1, keepdims=True), 1)
        sets.append(rated / np.sqrt(counts))
    return sets


def prior_draw(rng, prior=PRIOR, nu=NU, shape=SHAPE, k=N_FACTORS, sets=()):
    """Return a `State` drawn from the prior; `sets` are those of `sets_of`, or none."""
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
    for number, V in enumerate(sets):
        L = rng.gamma(prior[0], size=k) / prior[1]
        Lb = rng.gamma(prior[0]) / prior[1]
        B = rng.normal(size=(V.shape[1], k)) / np.sqrt(L)
        beta = rng.normal(size=V.shape[1]) / np.sqrt(Lb)
        state.groups[number].append(Group(V, B, beta, L, Lb))
        factors, biases = naive_features.offsets(state, number)
        state.x[number] = state.x[number] + factors
        state.b[number] = state.b[number] + biases
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
    factors, biases = naive_features.offsets(state, number)
    x = state.x[number]
    b = state.b[number]
    m = state.m[number]
    precision = state.l[number]
    rest = x - m - factors
    bias_rest = b - state.mb[number] - biases
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
        "spread": precision[0] * np.sum(rest[:, 0] ** 2),
        "centred": rest[0] @ np.sqrt(precision),
        "bias spread": state.lb[number] * np.sum(bias_rest**2),
        **feature_quantities(state.groups[number], rest, bias_rest),
    }


def feature_quantities(groups, rest, bias_rest):
    """Return {name: number} of one side's features; the last one is in no row with ratings."""
    out = {}
    for g in groups:
        out |= {
            "B": g.B[0, 0],
            "cold B": g.B[-1, 0],
            "beta": g.beta[0],
            "L": g.L[0],
            "Lb": g.Lb,
            "spread of B": g.L[0] * np.sum(g.B[:, 0] ** 2),
            "spread of beta": g.Lb * np.sum(g.beta**2),
            "B and the rows": g.B[0, 0] * (g.V[:, 0] @ rest[:, 0]),
            "beta and the rows": g.beta[0] * (g.V[:, 0] @ bias_rest),
        }
    return out


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

    def features(self, side, group, count, k):
        return self.rng.standard_normal((count, k + 1))


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

    def features(self, side, group, count, k):
        n_slices = -(-self.width // 16)
        slices = [self.feature_normals(side, group, n, count, 16) for n in range(n_slices)]
        bias = self.feature_normals(side, group, n_slices, count, 1)
        return np.column_stack([np.hstack(slices)[:, :k], bias])

    def feature_normals(self, side, group, number, count, width):
        """Return (count, width) normals of a slice of the features, which come in blocks of 32."""
        key = self.chain.key(2, self.sweep, side, group, number)
        out = np.zeros((-(-count * width // 32), 32), np.float32)
        self.chain.kernel.normal_rows(key, 0, np.zeros(64, np.float32), out)
        return out.reshape(-1, width)[:count].astype(np.float64)


def naive_step(sweep=naive.gibbs_sweep, relax=-0.9):
    """Return a function that makes a naive sweep: step(state, y, rng) changes the state."""

    def step(state, y, rng):
        sweep(state, y, WEIGHTS, Draws(rng), nu=NU, prior=PRIOR, few=FEW_HERE, relax=relax)

    return step


@lru_cache
def quantities_of_the_prior(with_sets, n_draws=4000):
    """Return {name: (n_draws,)} of independent draws of the prior."""
    rng = np.random.default_rng(99)
    sets = sets_of() if with_sets else ()
    rows = []
    for _ in range(n_draws):
        state = prior_draw(rng, sets=sets)
        rows.append(quantities(state, data(state, rng)))
    return columns_of(rows)


def smallest_p(step, n_chains, n_sweeps=3, seed=0, stop=0.0, with_sets=False):
    """Return (p, name) of the least likely quantity; end early once p is below `stop`."""
    rng = np.random.default_rng(seed)
    prior = quantities_of_the_prior(with_sets)
    sets = sets_of() if with_sets else ()
    seen = []
    worst = (1.0, "")
    for chain in range(1, n_chains + 1):
        state = prior_draw(rng, sets=sets)
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
    "dropped prior mean": ("+ s.l[side] * m)", ")"),
    "dropped mean of the bias": (
        "(w * e).sum() + s.lb[side] * mb - v @ c",
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
    "set left out of the rows' prior mean": ("m = s.m[side] + d[row]", "m = s.m[side]"),
    "set left out of the prior mean of the bias": ("mb = s.mb[side] + db[row]", "mb = s.mb[side]"),
    "set left out of the shift": ("s.b[o] - s.mb[o] - ob", "s.b[o] - s.mb[o]"),
    "set left out of the mean": ("x0 = s.x[side] - d\n", "x0 = s.x[side]\n"),
    "set left out of the mean of the biases": ("b0 = s.b[side] - db\n", "b0 = s.b[side]\n"),
}

# The same in the source of naive_features.draw.
FEATURE_BUGS = {
    "the feature's own share left out": ("v @ rest + q * g.B[j]", "v @ rest"),
    "the own share of its bias left out": ("v @ bias_rest + q * g.beta[j]", "v @ bias_rest"),
    "precision of the rows left out": ("g.L + s.l[side] * q", "g.L + q"),
    "prior of the features left out": ("tb = g.Lb + s.lb", "tb = 1e-3 + s.lb"),
    "values not squared": ("q = v @ v", "q = v.sum()"),
    "features drawn from rows that are not centred": (
        "rest = s.x[side] - s.m[side] - d\n",
        "rest = s.x[side] - d\n",
    ),
    "one feature does not see another": (
        "d, db = offsets(s, side)",
        "d, db = v[:, None] * g.B[j], v * g.beta[j]",
    ),
    "variance in place of the standard deviation": ("z[j, :k] / np.sqrt(t)", "z[j, :k] / t"),
    "the noise of a bias has another's spread": (
        "z[j, k] / np.sqrt(tb)",
        "z[j, k] / np.sqrt(t[0])",
    ),
    "degrees of freedom of L": ("prior[0] + len(g.B) / 2", "prior[0] + len(g.B)"),
    "squares left out of L": ("squares = np.append((g.B**2)", "squares = np.append(0 * (g.B**2)"),
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
    "set left out of the rows' prior mean",
    "the feature's own share left out",
    "one feature does not see another",
    "features drawn from rows that are not centred",
)


def step_with_bug(name):
    """Return `naive_step` with one bug.

    The draws are plain unless the bug is in their over-relaxation: it would hide a part of others.
    """
    found = dict(vars(naive))
    features = dict(vars(naive_features))
    if name in BUGS:
        exec(source_with(naive.gibbs_sweep, *BUGS[name]), found)
    else:
        exec(source_with(naive_features.draw, *FEATURE_BUGS[name]), features)
        exec(inspect.getsource(naive.gibbs_sweep), found)
    found["naive_features"] = SimpleNamespace(**features)
    return naive_step(found["gibbs_sweep"], -0.9 if name.startswith("relaxed") else 0.0)


def source_with(function, right, wrong):
    """Return the source of a function with `wrong` in place of `right`."""
    source = inspect.getsource(function)
    assert source.count(right) == 1, f"{right!r} is not once in the source"
    return source.replace(right, wrong)


def needs_sets(bug):
    """Return whether a bug shows with sets alone."""
    return bug in FEATURE_BUGS or bug.startswith("set ")


if __name__ == "__main__":
    import sys

    for sets in (False, True):
        found = smallest_p(naive_step(), 1500, with_sets=sets)
        plain = smallest_p(naive_step(relax=0.0), 1500, with_sets=sets)
        print(f"no bug, sets={sets}:", found, "with plain draws:", plain)  # noqa: T201
    for bug in sys.argv[1:] or [*BUGS, *FEATURE_BUGS]:
        step = step_with_bug(bug)
        found = smallest_p(step, 1500, stop=1e-6, with_sets=needs_sets(bug))
        print(f"{bug}:", found)  # noqa: T201
