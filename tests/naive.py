"""The slow, obvious twins of the kernels, in NumPy and float64.

Each fast function is held against its twin here: the micro-batches of `_sgd.pyx` and `_sgd.cu`, the
passes of `_featurewise.pyx`, the mini-batches of `_minibatch.pyx` and `_minibatch.cu`, a sweep of
the sampler, and the answers of a model. A solver is a row of the table `SOLVERS` and its step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import naive_features
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rule = Mapping[str, float]  # the hyper-parameters of one side by name, as `RULE` of the kernels
Side = tuple[Array, Array, Array, Array]  # factors, biases, state, extra of one side
MICRO_BATCH = 8  # ratings of a run that take one step together

# ---------------------------------------------------------------------------------------- solvers


class Solver(NamedTuple):
    """One way to take a step."""

    # (rule, gradient, rate, states) -> direction and length of the step; changes `states` in place.
    step: Callable[[Rule, Array, float, Sequence[Array]], tuple[Array, Any]]
    # (rule, extra numbers of the row) -> factor of the row's rate; moves the row's clocks.
    scale: Callable[[Rule, Array], float]


def sgd_step(rule: Rule, gradient: Array, rate: float, states: Sequence[Array]) -> Any:
    """x - rate g."""
    return gradient, rate


def momentum_step(rule: Rule, gradient: Array, rate: float, states: Sequence[Array]) -> Any:
    """v = momentum v - rate g; x + v."""
    velocity = states[0]
    velocity[...] = rule["momentum"] * velocity - rate * gradient
    return -velocity / rate, rate


def adagrad_step(rule: Rule, gradient: Array, rate: float, states: Sequence[Array]) -> Any:
    """a += g^2; x - rate g / sqrt(a + epsilon)."""
    squares = states[0]
    squares[...] += gradient**2
    return gradient, rate / np.sqrt(squares + rule["epsilon"])


def adam_step(rule: Rule, gradient: Array, rate: float, states: Sequence[Array]) -> Any:
    """m, v are running means of g, g^2; x - rate m / (sqrt(v) + epsilon)."""
    mean, squares = states
    mean[...] = rule["beta_1"] * mean + (1 - rule["beta_1"]) * gradient
    squares[...] = rule["beta_2"] * squares + (1 - rule["beta_2"]) * gradient**2
    return mean, rate / (np.sqrt(squares) + rule["epsilon"])


def adamax_step(rule: Rule, gradient: Array, rate: float, states: Sequence[Array]) -> Any:
    """m is the running mean of g, u = max(beta_2 u, |g|); x - rate m / (u + epsilon)."""
    mean, largest = states
    mean[...] = rule["beta_1"] * mean + (1 - rule["beta_1"]) * gradient
    largest[...] = np.maximum(rule["beta_2"] * largest, abs(gradient))
    return mean, rate / (largest + rule["epsilon"])


def no_scale(rule: Rule, extra: Array) -> float:
    """Return 1: all rows have the same rate."""
    return 1.0


def accumulator_scale(rule: Rule, extra: Array) -> float:
    """Return the factor of a row with one accumulator, the first of its numbers."""
    return float(1 / np.sqrt(extra[0] + rule["epsilon"]))


def first_clock_scale(rule: Rule, extra: Array) -> float:
    """Return the correction of a running mean that started at 0; the clock is beta_1^t."""
    extra[0] *= rule["beta_1"]
    return float(1 / (1 - extra[0]))


def both_clocks_scale(rule: Rule, extra: Array) -> float:
    """Return the correction of both running means; the second clock is beta_2^t."""
    first = first_clock_scale(rule, extra)
    extra[1] *= rule["beta_2"]
    return float(first * np.sqrt(1 - extra[1]))


SOLVERS = {
    "sgd": Solver(sgd_step, no_scale),
    "momentum": Solver(momentum_step, no_scale),
    "adagrad_row": Solver(sgd_step, accumulator_scale),  # `row_step` adds to the accumulator
    "adagrad": Solver(adagrad_step, no_scale),
    "adam": Solver(adam_step, both_clocks_scale),
    "adamax": Solver(adamax_step, first_clock_scale),
}


def soft_threshold(x: Array, threshold: Any) -> Array:
    """Return x moved towards 0 by `threshold`, and 0 where it is smaller than that."""
    return np.asarray(np.sign(x) * np.maximum(abs(x) - threshold, 0))


# ---------------------------------------------------------------------------------- micro-batches


def step(
    solver: str,
    rule: Rule,
    bias: bool,
    x: Array,
    push: Any,
    m: int,
    rate: float,
    states: Sequence[Array],
) -> Array:
    """Return factors or a bias after a step of `m` ratings; change `states` in place.

    `push` is minus the gradient of the loss. The penalty of L2 belongs to the gradient; L1 and the
    lower bound of the factors follow the step.
    """
    kind = "_bias" if bias else ""
    gradient = m * rule["l2" + kind] * x - push
    direction, length = SOLVERS[solver].step(rule, gradient, rate, states)
    x = soft_threshold(x - length * direction, m * rule["l1" + kind] * length)
    return x if bias else np.maximum(x, rule["low"])


def row_step(
    solver: str,
    rule: Rule,
    side: Side,
    row: int,
    push: Array,
    bias_push: float,
    m: int,
    seen: float,
) -> None:
    """Give row `row` of a side its step.

    `seen` is the mean, over the values of the row, of the squared gradient of the loss.
    """
    factors, biases, state, extra = side
    scale = SOLVERS[solver].scale(rule, extra[row])
    if solver == "adagrad_row":
        extra[row, 0] += seen  # after its use, so that this step does not see it
    states = state[row].reshape(-1, factors.shape[1])
    rate = rule["rate"] * scale
    factors[row] = step(solver, rule, False, factors[row], push, m, rate, states)
    if rule["bias_rate"]:
        bias_states = [extra[row, 2:3], extra[row, 3:4]]
        bias_rate = rule["bias_rate"] * scale
        bias = biases[row : row + 1]
        biases[row] = step(solver, rule, True, bias, bias_push, m, bias_rate, bias_states)[0]


def block(
    run_side: Side,
    side: Side,
    run_row: Array,
    run_end: Array,
    index: Array,
    rating: Array,
    weight: Array,
    mean: float,
    solver: str,
    run_rule: Rule,
    rule: Rule,
) -> float:
    """Make one pass over one block, in place; return the weighted sum of squared errors."""
    squares = 0.0
    start = 0
    biased = rule["bias_rate"] > 0
    values = rule["n_factors"] + biased  # learned values of a row
    for run, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, MICRO_BATCH):
            rows = index[t : min(t + MICRO_BATCH, end)]
            part = slice(t, t + len(rows))
            p = run_side[0][run].copy()  # both sides step from what the other was before
            q = side[0][rows].copy()
            error = rating[part] - (mean + (run_side[1][run] + side[1][rows]) + q @ p)
            w = weight[part] if len(weight) else np.ones_like(error)
            squares += float(w @ error**2)
            error = w * error
            for row, e in zip(rows, error, strict=True):
                seen = e**2 * (p @ p + biased) / values
                row_step(solver, rule, side, row, e * p, e, 1, seen)
            push = error @ q
            bias_push = error.sum()
            seen = (push @ push + biased * bias_push**2) / values
            row_step(solver, run_rule, run_side, run, push, bias_push, len(rows), seen)
        start = end
    return squares


# --------------------------------------------------------------------- one feature after the other


def feature_pass(
    p: Array,
    q: Array,
    run_row: Array,
    run_end: Array,
    index: Array,
    rating: Array,
    weight: Array,
    cache: Array,
    biases: bool,
    rate: float,
    limits: tuple[float, float],
    run_rule: Sequence[float],
    rule: Sequence[float],
) -> float:
    """Make one pass over one block with one feature, or with the biases, in place.

    `p` and `q` hold one value for each row of the two sides, `cache` what is predicted so far, and
    the rules are (l2, l1, lower bound). Returns the weighted sum of squared errors.
    """
    squares = 0.0
    start = 0
    for run, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, MICRO_BATCH):
            part = slice(t, min(t + MICRO_BATCH, end))
            rows = index[part]
            x = p[run]
            y = q[rows]
            own = x + y if biases else x * y
            error = rating[part] - np.clip(cache[part] + own, *limits)
            w = weight[part] if len(weight) else np.ones_like(error)
            squares += float(w @ error**2)
            error = w * error
            m = len(error)
            push = error.sum() if biases else error @ y
            pushes = error if biases else error * x
            p[run] = bounded(x * (1 - m * rate * run_rule[0]) + rate * push, m * rate, run_rule)
            q[rows] = bounded(y * (1 - rate * rule[0]) + rate * pushes, rate, rule)
        start = end
    return squares


def bounded(x: Any, rate: float, rule: Sequence[float]) -> Any:
    """Return x after the soft threshold of L1 and the lower bound of a rule (l2, l1, bound)."""
    return np.maximum(soft_threshold(x, rate * rule[1]), rule[2])


def passes(
    make_pass: Callable[[int], float], n_epochs: int, min_improvement: float
) -> tuple[int, float]:
    """Return how many passes a feature gets, and the loss of the last.

    `make_pass(number)` makes a pass and returns its loss. After a pass that improves the RMSE by at
    least `min_improvement`, the first that does not is the last.
    """
    losses: list[float] = []
    for number in range(n_epochs):
        losses.append(make_pass(number))
        gains = [a**0.5 - b**0.5 >= min_improvement for a, b in itertools.pairwise(losses)]
        if any(gains) and not gains[-1]:
            break
    return len(losses), losses[-1]


# ------------------------------------------------------------------------------------ mini-batches


def keras_step(
    solver: str,
    hyper: Mapping[str, Any],
    rate: float,
    steps: int,
    x: Array,
    gradient: Array,
    states: Sequence[Array],
) -> Array:
    """Return x after step number `steps` of Keras; change `states` in place.

    Keras has one clock for all rows, and its "sgd" has the momentum as a parameter.
    """
    if solver == "sgd" and hyper["momentum"]:
        solver = "momentum"
    clocks = np.array([hyper["beta_1"], hyper["beta_2"]]) ** (steps - 1)
    scale = SOLVERS[solver].scale(hyper, clocks)
    direction, length = SOLVERS[solver].step(hyper, gradient, rate * scale, states)
    return np.asarray(x - length * direction)


def mini_batch(
    tables: Mapping[str, Array],
    states: Mapping[str, Sequence[Array]],
    batch: Sequence[Array],
    mean: float,
    solver: str,
    hyper: Mapping[str, Any],
    rate: float,
    steps: int,
) -> float:
    """Take one step of Keras for two embeddings; return the weighted sum of squared errors.

    Parameters
    ----------
    tables, states : dict
        An array, and a list of arrays, for each of user_factors, item_factors, user_biases and
        item_biases; changed in place.
    batch : (users, items, ratings, weights)
    """
    users, items, ratings, weights = batch
    p = tables["user_factors"][users]
    q = tables["item_factors"][items]
    biases = tables["user_biases"][users] + tables["item_biases"][items]
    error = ratings - mean - biases - (p * q).sum(1)
    push = -2 * weights * error / len(error)
    of_prediction = {
        "user_factors": push[:, None] * q,
        "item_factors": push[:, None] * p,
        "user_biases": push,
        "item_biases": push,
    }
    for name, table in tables.items():
        is_bias = name.endswith("biases")
        if is_bias and not hyper["biased"]:
            continue
        rows = items if name.startswith("item") else users
        gradient = np.zeros_like(table)
        np.add.at(gradient, rows, of_prediction[name])
        gradient += penalty_gradient(name, table, rows, hyper)
        table[...] = keras_step(solver, hyper, rate, steps, table, gradient, states[name])
        if hyper["non_negative"] and not is_bias:
            np.maximum(table, 0, out=table)
    return float(weights @ error**2)


def penalty_gradient(name: str, table: Array, rows: Array, hyper: Mapping[str, Any]) -> Array:
    """Return the gradient of the penalties: of every row, or of a row's share in the batch."""
    side = int(name.startswith("item"))
    kind = "_bias" if name.endswith("biases") else ""
    l2 = np.broadcast_to(hyper["l2" + kind], 2)[side]
    l1 = np.broadcast_to(hyper["l1" + kind], 2)[side]
    share = np.ones(len(table))
    if hyper["reg_scale"] == "rating":
        share = np.bincount(rows, minlength=len(table)) / len(rows)
    if table.ndim == 2:
        share = share[:, None]
    return np.asarray(share * (2 * l2 * table + l1 * np.sign(table)))


# ----------------------------------------------------------------------------------------- answers


def predict(weights: Any, user: int, item: int) -> Any:
    """Return the prediction for one pair of codes; -1 is an unknown id."""
    user_bias = weights.user_biases[user] if user >= 0 else 0
    item_bias = weights.item_biases[item] if item >= 0 else 0
    product = 0
    if user >= 0 and item >= 0:
        product = weights.user_factors[user] @ weights.item_factors[item]
    return weights.global_mean + (user_bias + item_bias) + product


def recommend(
    rows: Iterable[Array], items: Sequence[Any], n: int, seen: Iterable[set[Any]]
) -> list[list[Any]]:
    """Return, for each row of predictions of all `items`, the n best that are not in its `seen`.

    Of equal predictions the smaller item comes first.
    """
    best = []
    for row, unwanted in zip(rows, seen, strict=True):
        left = []
        for item, score in zip(items, row.tolist(), strict=True):
            if item not in unwanted:
                left.append((-score, item))
        best.append([item for _, item in sorted(left)[:n]])
    return best


def ridge(z: Array, values: Array, weights: Array, bias_penalty: float, penalty: float) -> Array:
    """Return (bias, factors) that minimise the penalised error of one row.

    The error is sum w (value - bias - p . z)^2 + bias_penalty bias^2 + penalty |p|^2.
    """
    z = np.column_stack([np.ones(len(z)), z])
    penalties = np.diag([bias_penalty] + [penalty] * (z.shape[1] - 1))
    return np.linalg.solve(z.T @ (weights[:, None] * z) + penalties, z.T @ (weights * values))


# ------------------------------------------------------------------------------------------- texts


def text_codes(texts: Iterable[Hashable]) -> tuple[list[int], list[Hashable]]:
    """Return the code of each text, numbered in order of appearance, and the distinct texts."""
    codes: dict[Hashable, int] = {}
    return [codes.setdefault(text, len(codes)) for text in texts], list(codes)


def netflix_prize(text: str) -> list[list[Any]]:
    """Return users, movies, ratings and days of files of the Netflix Prize, line by line."""
    rows = []
    movie = None
    for line in text.split():
        if line.endswith(":"):
            movie = int(line[:-1])
        else:
            user, rating, day = line.split(",")
            rows.append((int(user), movie, float(rating), day))
    return [list(column) for column in zip(*rows, strict=True)]


# ----------------------------------------------------------------------------------------- sampler


def gibbs_sweep(
    s: Any,
    y: Array,
    weights: Array,
    draws: Any,
    nu: float = 20.0,
    prior: tuple[float, float] = (0.5, 0.5),
    few: int = 8,
    relax: float = -0.9,
) -> float:
    """Make one sweep of the sampler on a (users, items) matrix y, NaN where there is no rating.

    `gibbs_checks` plants bugs in the text of this function, so it is one piece.

    Parameters
    ----------
    s : namespace
        The state: alpha and lists over the sides (users, items): factors x, biases b, noise weights
        a, means m and mb, precisions l and lb, and `groups`, the features of the rows (a list of
        `naive_features.Group` each). It is changed in place.
    draws : object
        `hyper(count)` and `normals(side, row, count)` give standard normals; `gamma(shape)` and
        `row_gamma(side, row, shape)` give gamma draws of rate 1.

    Returns
    -------
    float
        The kurtosis of the residuals in units of their noise.
    """
    k = s.x[0].shape[1]
    known = ~np.isnan(y)

    # The shift: one side's factors and their mean move by -delta, the other's biases by q . delta.
    for own, o in ((0, 1), (1, 0)):
        q = s.x[o]
        A = np.diag(s.l[own]) + s.lb[o] * q.T @ q
        _, ob = naive_features.offsets(s, o)
        c = s.l[own] * s.m[own] - s.lb[o] * (s.b[o] - s.mb[o] - ob) @ q
        delta = np.linalg.solve(A, c) + np.linalg.solve(np.linalg.cholesky(A).T, draws.hyper(k))
        s.x[own] = s.x[own] - delta
        s.m[own] = s.m[own] - delta
        s.b[o] = s.b[o] + q @ delta

    naive_features.draw(s, draws, prior)

    for side in (1, 0):
        o = 1 - side
        n = len(s.x[side])

        # The rows less the sums of their features.
        d, db = naive_features.offsets(s, side)
        x0 = s.x[side] - d
        b0 = s.b[side] - db

        # Means and precisions of the side.
        z = draws.hyper(k + 1)
        s.m[side] = x0.sum(0) / (n + 1) + z[:k] / np.sqrt(s.l[side] * (n + 1))
        s.mb[side] = b0.sum() / (n + 1) + z[k] / np.sqrt(s.lb[side] * (n + 1))
        squares = np.append(
            ((x0 - s.m[side]) ** 2).sum(0) + s.m[side] ** 2,
            ((b0 - s.mb[side]) ** 2).sum() + s.mb[side] ** 2,
        )
        lam = draws.gamma(np.full(k + 1, prior[0] + (n + 1) / 2)) / (prior[1] + squares / 2)
        s.l[side] = lam[:k]
        s.lb[side] = lam[k]

        rest = 0.0
        scaled = np.empty(0)
        for row in range(n):
            j = np.flatnonzero(known[row] if side == 0 else known[:, row])
            r = y[row, j] if side == 0 else y[j, row]
            own_weight = weights[row, j] if side == 0 else weights[j, row]
            G = s.x[o][j]
            w = s.alpha * s.a[side][row] * s.a[o][j] * own_weight
            e = r - s.b[o][j]
            z = draws.normals(side, row, k + 1 + few)
            m = s.m[side] + d[row]
            mb = s.mb[side] + db[row]
            if len(j) <= few:
                # Matheron's rule: a draw of the prior, conditioned on the ratings.
                x = m + z[:k] / np.sqrt(s.l[side])
                b = mb + z[k] / np.sqrt(s.lb[side])
                t = e - G @ x - b - z[k + 1 : k + 1 + len(j)] / np.sqrt(w)
                S = G / s.l[side] @ G.T + 1 / s.lb[side] + np.diag(1 / w)
                t = np.linalg.solve(S, t)
                x = x + G.T @ t / s.l[side]
                b = b + t.sum() / s.lb[side]
            else:
                # The normal equations, the bias first with the factors integrated out.
                U = np.linalg.cholesky(G.T * w @ G + np.diag(s.l[side])).T
                v = np.linalg.solve(U.T, G.T @ w)
                c = np.linalg.solve(U.T, G.T @ (w * e) + s.l[side] * m)
                precision = w.sum() + s.lb[side] - v @ v
                center = ((w * e).sum() + s.lb[side] * mb - v @ c) / precision
                b = center + z[k] / np.sqrt(precision)
                x = np.linalg.solve(U, c - v * b + z[:k])

            # Overrelaxation: the old row, mirrored at the conditional mean, and some of the draw.
            G1 = np.column_stack([G, np.ones(len(j))])
            lam = np.append(s.l[side], s.lb[side])
            right = G1.T @ (w * e) + lam * np.append(m, mb)
            mean = np.linalg.solve(G1.T * w @ G1 + np.diag(lam), right)
            old = np.append(s.x[side][row], s.b[side][row])
            drawn = np.append(x, b)
            new = mean + relax * (old - mean) + np.sqrt(1 - relax**2) * (drawn - mean)
            x = new[:k]
            b = new[k]
            s.x[side][row] = x
            s.b[side][row] = b

            # The noise weight of the row, by what is left of its ratings.
            left = e - b - G @ x
            squares = (w / s.a[side][row] * left**2).sum()
            s.a[side][row] = draws.row_gamma(side, row, (nu + len(j)) / 2) * 2 / (nu + squares)
            rest += squares * s.a[side][row] / s.alpha
            noise = np.sqrt(s.a[side][row] * s.a[o][j] * own_weight)
            scaled = np.append(scaled, noise * left)
    s.alpha = draws.gamma(prior[0] + known.sum() / 2) / (prior[1] + rest / 2)
    return float((scaled**4).mean() / (scaled**2).mean() ** 2)


def gibbs_row(
    g: Array, y: Array, prior: Array, noise: float, more: Array, nu: float = 20.0
) -> tuple[Array, Array, float]:
    """Return mean, covariance and inverse noise weight of a new row, by the normal equations.

    It is the twin of `posterior.row_posterior`.
    """
    inverse: Any = 1.0
    for _ in range(3):
        w = np.diag(1 / (noise * inverse + more))
        cov = np.linalg.inv(np.linalg.inv(prior) + g.T @ w @ g)
        x = cov @ g.T @ w @ y
        squares = (y - g @ x) ** 2 + np.diag(g @ cov @ g.T)
        inverse = (nu + inverse * np.diag(w) @ squares) / (nu + len(y) - 2)
    return x, cov, inverse
