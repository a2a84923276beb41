"""Joint-distribution test of the sampler's moods, and their naive twin.

    python tests/mood_checks.py [BUG ...]      prints the smallest p-value of each planted bug

The test is that of `gibbs_checks`, for ratings with times. Here a sweep draws the rest of the model
given the ratings less the moods, then every process of the moods.
"""

import inspect
from dataclasses import dataclass
from functools import lru_cache

import gibbs_checks
import naive
import numpy as np
from gibbs_checks import FEW_HERE, KNOWN, NU, PRIOR, SHAPE, WEIGHTS, Draws, columns_of
from scipy import stats

TIME_CONSTANTS = (5.0, 100.0)
# Shape and rate of the inverse-gamma prior of a process' variance.
VARIANCE_PRIOR = (4.0, 1.5)
# Of user 0 two ratings are close in time, and the order of time is not that of the items.
TIMES = np.array([[9, 2, 10, 0], [50, 0, 0, 0], [7, 0, 4, 0], [0, 3, 0, 0], [0, 0, 0, 0]])


@dataclass
class MoodState:
    """State of a chain of ratings with times.

    rest : State of `gibbs_checks`
    moods : (processes, users, items); 0 where there is no rating
    variances : (processes,)
    """

    rest: gibbs_checks.State
    moods: np.ndarray
    variances: np.ndarray


def correlations_of(times, time_constant):
    """Return (n,) r_t of ratings in the order of time: exp(-gap / T), and 0 for the first."""
    gaps = np.maximum(np.diff(times) / time_constant, 1e-3)
    return np.append(0.0, np.exp(-gaps))


def draw_process(e, w, r, s, z):
    """Return (draw, mean) of x, a Markov chain with e_t ~ N(x_t, 1 / w_t), by the recursions.

    Parameters
    ----------
    e, w : (n,) ratings less all other terms, and their precisions
    r, s : (n,) correlation with the step before, and the variance
    z : (n,) standard normals
    """
    n = len(e)
    m = np.zeros(n)
    v = np.zeros(n)
    for t in range(n):
        before = r[t] * m[t - 1] if t else 0.0
        variance = r[t] ** 2 * (v[t - 1] if t else 0.0) + s * (1 - r[t] ** 2)
        v[t] = variance / (1 + w[t] * variance)
        m[t] = before + v[t] * w[t] * (e[t] - before)
    x = m + np.sqrt(v) * z
    mean = m.copy()
    for t in range(n - 2, -1, -1):
        later = r[t + 1]
        p = later**2 * v[t] + s * (1 - later**2)
        gain = v[t] * later / p
        mean[t] = m[t] + gain * (mean[t + 1] - later * m[t])
        x[t] = m[t] + gain * (x[t + 1] - later * m[t])
        x[t] += np.sqrt(v[t] * s * (1 - later**2) / p) * z[t]
    return x, mean


def mood_sweep(state, y, rng, prior=VARIANCE_PRIOR):
    """Draw every process and its variance, in place; `y` are ratings, NaN where there is none."""
    s = state.rest
    precision = s.alpha * np.outer(*s.a) * WEIGHTS
    fixed = gibbs_checks.predictions(s)
    for process, time_constant in enumerate(TIME_CONSTANTS):
        own = state.moods[process]
        squares = 0.0
        n = 0
        for user, known in enumerate(KNOWN):
            j = np.flatnonzero(known)
            j = j[np.argsort(TIMES[user, j])]
            if not len(j):
                continue
            rest = y[user, j] - fixed[user, j] - state.moods[:, user, j].sum(0)
            e = rest + own[user, j]
            r = correlations_of(TIMES[user, j], time_constant)
            z = rng.normal(size=len(j))
            x, _ = draw_process(e, precision[user, j], r, state.variances[process], z)
            own[user, j] = x
            steps = x - r * np.append(0.0, x[:-1])
            squares += np.sum(steps**2 / (1 - r**2))
            n += len(j)
        variance = (prior[1] + squares / 2) / rng.gamma(prior[0] + n / 2)
        rest = y - fixed - state.moods.sum(0)
        force = np.nansum(precision * own * rest)
        square = np.sum(precision * own**2)
        factor = stretching_factor(force, square, variance, rng, prior)
        own *= factor
        state.variances[process] = variance * factor**2


def stretching_factor(force, square, variance, rng, prior):
    """Return a factor on a process, by a step of Metropolis and Hastings."""
    proposed = 1 + force / square + rng.standard_normal() / np.sqrt(square)
    chance = np.log(rng.random())

    def log_prior(factor):
        # Density of s f^2, times the derivative of s f^2 by f.
        new = variance * factor**2
        return -(prior[0] + 1) * np.log(new) - prior[1] / new + np.log(factor)

    if proposed <= 0 or chance >= log_prior(proposed) - log_prior(1.0):
        return 1.0
    return proposed


def prior_draw(rng):
    """Return a `MoodState` drawn from the prior."""
    n_processes = len(TIME_CONSTANTS)
    variances = VARIANCE_PRIOR[1] / rng.gamma(VARIANCE_PRIOR[0], size=n_processes)
    moods = np.zeros((n_processes, *SHAPE))
    for process, time_constant in enumerate(TIME_CONSTANTS):
        for user, known in enumerate(KNOWN):
            j = np.flatnonzero(known)
            j = j[np.argsort(TIMES[user, j])]
            if len(j):
                r = correlations_of(TIMES[user, j], time_constant)
                x = covariance_root(r) @ rng.normal(size=len(j))
                moods[process, user, j] = np.sqrt(variances[process]) * x
    return MoodState(gibbs_checks.prior_draw(rng), moods, variances)


def covariance(r):
    """Return (n, n) correlations of a chain with these correlations of neighbours."""
    n = len(r)
    out = np.eye(n)
    for t in range(n):
        for earlier in range(t):
            out[t, earlier] = out[earlier, t] = np.prod(r[earlier + 1 : t + 1])
    return out


def covariance_root(r):
    """Return a matrix L with L L' = covariance(r)."""
    return np.linalg.cholesky(covariance(r))


def data(state, rng):
    """Return a matrix of ratings drawn given a state; NaN where there is none."""
    return gibbs_checks.data(state.rest, rng) + state.moods.sum(0)


def quantities(state, y):
    """Return {name: number}, the quantities that the test looks at."""
    x = state.moods
    out = gibbs_checks.quantities(state.rest, y - x.sum(0))
    precision = state.rest.alpha * np.outer(*state.rest.a) * WEIGHTS
    for process, variance in enumerate(state.variances):
        first, second, third = x[process, 0, [1, 0, 2]]  # in the order of time
        out |= {
            f"variance {process}": variance,
            f"mood {process}": first,
            f"square {process}": first**2 / variance,
            f"neighbours {process}": second * third / variance,
            f"fit {process}": np.nansum(precision * x[process] * y),
            f"lone mood {process}": x[process, 3, 1],
        }
    return out


def naive_step(sweep=mood_sweep):
    """Return a function that makes a naive sweep: step(state, y, rng) changes the state."""

    def step(state, y, rng):
        rest = y - state.moods.sum(0)
        naive.gibbs_sweep(
            state.rest, rest, WEIGHTS, Draws(rng), nu=NU, prior=PRIOR, few=FEW_HERE, relax=0.0
        )
        sweep(state, y, rng)

    return step


@lru_cache
def quantities_of_the_prior(n_draws=4000):
    """Return {name: (n_draws,)} of independent draws of the prior."""
    rng = np.random.default_rng(98)
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


# Bug -> (right text, wrong text) in the sources of the functions of a naive sweep.
BUGS = {
    "smoothing left out": ("x[t] = m[t] + gain * (x[t + 1] - later * m[t])", "x[t] = m[t]"),
    "variance of the filter instead of the smoother": (
        "np.sqrt(v[t] * s * (1 - later**2) / p)",
        "np.sqrt(v[t])",
    ),
    "rating counted twice": ("1 + w[t] * variance", "1 + 2 * w[t] * variance"),
    "the process itself left out of its residual": ("e = rest + own[user, j]", "e = rest"),
    "no new variance between ratings": ("+ s * (1 - r[t] ** 2)", "+ s * (t == 0)"),
    "degrees of freedom of the variance": ("prior[0] + n / 2", "prior[0] + n"),
    "steps not in units of their variance": ("steps**2 / (1 - r**2)", "steps**2"),
    "order of the items for that of time": ("j[np.argsort(TIMES[user, j])]", "j[::1]"),
    "stretched without the derivative": (" + np.log(factor)", " - 4 * np.log(factor)"),
    "stretched variance forgotten": ("variance * factor**2\n", "variance\n"),
}


def step_with_bug(name):
    """Return `naive_step` with one bug."""
    right, wrong = BUGS[name]
    functions = (correlations_of, draw_process, mood_sweep, stretching_factor)
    source = "\n\n".join(inspect.getsource(function) for function in functions)
    assert source.count(right) == 1, f"{right!r} is not once in the source"
    found = dict(globals())
    exec(source.replace(right, wrong), found)
    return naive_step(found["mood_sweep"])


if __name__ == "__main__":
    import sys

    print("no bug:", smallest_p(naive_step(), 1500))  # noqa: T201
    for bug in sys.argv[1:] or BUGS:
        print(f"{bug}:", smallest_p(step_with_bug(bug), 1500, stop=1e-6))  # noqa: T201
