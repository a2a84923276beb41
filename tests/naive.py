"""The slow, obvious twins of the kernels: the micro-batch rule of `_sgd.pyx`, and the answers of `_serve.pyx`."""

import itertools

import numpy as np


def step(solver, rule, bias, x, push, m, rate, states):
    """Factors or a bias after a step of m ratings; `push` is minus the loss' gradient. Changes `states` in place."""
    l2, l1 = (rule["l2_bias"], rule["l1_bias"]) if bias else (rule["l2"], rule["l1"])
    move = gradient = m * l2 * x - push
    reach = rate
    if solver == "momentum":
        states[0][...] = rule["momentum"] * states[0] - rate * gradient
        move = -states[0] / rate
    elif solver == "adagrad":
        states[0][...] += gradient**2
        reach = rate / np.sqrt(states[0] + rule["epsilon"])
    elif solver in ("adam", "adamax"):
        move = states[0]
        move[...] = rule["beta_1"] * move + (1 - rule["beta_1"]) * gradient
        if solver == "adam":
            states[1][...] = rule["beta_2"] * states[1] + (1 - rule["beta_2"]) * gradient**2
            reach = rate / (np.sqrt(states[1]) + rule["epsilon"])
        else:
            states[1][...] = np.maximum(rule["beta_2"] * states[1], abs(gradient))
            reach = rate / (states[1] + rule["epsilon"])
    x = x - reach * move
    x = np.sign(x) * np.maximum(abs(x) - m * l1 * reach, 0)
    return x if bias else np.maximum(x, rule["low"])


def row_step(solver, rule, side, row, push, bias_push, m, seen):
    """Row `row` of (factors, biases, state, extra) after a step; `seen`: mean of the loss' squared gradient in the row."""
    factors, biases, state, extra = side
    rate, bias_rate = rule["rate"], rule["bias_rate"]
    scale = 1
    if solver == "adagrad_row":
        scale = 1 / np.sqrt(extra[row, 0] + rule["epsilon"])
        extra[row, 0] += seen
    elif solver in ("adam", "adamax"):
        extra[row, 0] *= rule["beta_1"]
        scale = 1 / (1 - extra[row, 0])
    if solver == "adam":
        extra[row, 1] *= rule["beta_2"]
        scale *= np.sqrt(1 - extra[row, 1])
    states = state[row].reshape(-1, factors.shape[1])
    factors[row] = step(solver, rule, False, factors[row], push, m, rate * scale, states)
    if bias_rate:
        bias_states = [extra[row, 2:3], extra[row, 3:4]]
        biases[row] = step(
            solver, rule, True, biases[row : row + 1], bias_push, m, bias_rate * scale, bias_states
        )[0]


def block(run_side, side, run_row, run_end, index, rating, weight, mean, solver, run_rule, rule):
    """One pass over one block, in place, of sides (factors, biases, state, extra); returns the sum of squared errors."""
    squares, start = 0.0, 0
    values = rule["n_factors"] + (rule["bias_rate"] > 0)
    for u, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, 8):
            j = index[t : min(t + 8, end)]
            p, q = run_side[0][u].copy(), side[0][j].copy()
            e = rating[t : t + len(j)] - (mean + (run_side[1][u] + side[1][j]) + q @ p)
            w = weight[t : t + len(j)] if len(weight) else np.ones_like(e)
            squares += float(w @ e**2)
            e = w * e
            biased = rule["bias_rate"] > 0
            for i, one in zip(j, e, strict=True):
                row_step(solver, rule, side, i, one * p, one, 1, one**2 * (p @ p + biased) / values)
            push, total = e @ q, e.sum()
            row_step(
                solver,
                run_rule,
                run_side,
                u,
                push,
                total,
                len(j),
                (push @ push + biased * total**2) / values,
            )
        start = end
    return squares


def feature_pass(
    p, q, run_row, run_end, index, rating, weight, cache, biases, rate, limits, run_rule, rule
):
    """One pass over one block with one feature (or the biases), in place; rules are (l2, l1, lower bound)."""
    squares, start = 0.0, 0
    for u, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, 8):
            part = slice(t, min(t + 8, end))
            i, x, y = index[part], p[u], q[index[part]]
            e = rating[part] - np.clip(cache[part] + (x + y if biases else x * y), *limits)
            w = weight[part] if len(weight) else np.ones_like(e)
            squares += float(w @ e**2)
            e, m = w * e, len(e)
            p[u] = shrunk(
                x * (1 - m * rate * run_rule[0]) + rate * (e.sum() if biases else e @ y),
                m * rate,
                run_rule,
            )
            q[i] = shrunk(y * (1 - rate * rule[0]) + rate * (e if biases else e * x), rate, rule)
        start = end
    return squares


def shrunk(x, rate, rule):
    return np.maximum(np.sign(x) * np.maximum(abs(x) - rate * rule[1], 0), rule[2])


def passes(one, n_epochs, min_improvement):
    """How many passes a feature gets, and the last loss; `one(number)` makes a pass and returns its loss."""
    losses = []
    for number in range(n_epochs):
        losses.append(one(number))
        gains = [a**0.5 - b**0.5 >= min_improvement for a, b in itertools.pairwise(losses)]
        if any(gains) and not gains[-1]:
            break
    return len(losses), losses[-1]


def predict(params, u, i):
    """The prediction for one pair of codes; -1 is an unknown id."""
    bias = (params.user_biases[u] if u >= 0 else 0) + (params.item_biases[i] if i >= 0 else 0)
    return (
        params.global_mean
        + bias
        + (params.user_factors[u] @ params.item_factors[i] if u >= 0 and i >= 0 else 0)
    )


def recommend(rows, items, n, seen):
    """For each row of predictions of all `items` the n best that are not in its `seen`, ties by the item."""
    best = []
    for row, unwanted in zip(rows, seen, strict=True):
        left = [
            (-score, item)
            for item, score in zip(items, row.tolist(), strict=True)
            if item not in unwanted
        ]
        best.append([item for _, item in sorted(left)[:n]])
    return best


def text_codes(texts):
    """The code of each text, numbered in order of appearance, and the distinct texts."""
    codes = {}
    return [codes.setdefault(text, len(codes)) for text in texts], list(codes)


def ridge(z, values, weights, bias_penalty, penalty):
    """(bias, factors) that minimise sum w (value - bias - p . z)^2 + bias_penalty bias^2 + penalty |p|^2."""
    z = np.column_stack([np.ones(len(z)), z])
    weigh = np.diag([bias_penalty] + [penalty] * (z.shape[1] - 1))
    return np.linalg.solve(z.T @ (weights[:, None] * z) + weigh, z.T @ (weights * values))


def netflix_prize(text):
    """(users, movies, ratings, days) of files of the Netflix Prize, line by line."""
    rows, movie = [], None
    for line in text.split():
        if line.endswith(":"):
            movie = int(line[:-1])
        else:
            user, rating, day = line.split(",")
            rows.append((int(user), movie, float(rating), day))
    return [list(column) for column in zip(*rows, strict=True)]


def gibbs_sweep(s, y, weights, draws, nu=20.0, prior=(0.5, 0.5), few=8, relax=-0.9):
    """One sweep of `gibbs.py`'s sampler on a (users, items) matrix y, NaN where there is no rating.

    Returns the kurtosis of the residuals in units of their noise.

    s : namespace of alpha and of the lists over sides (users, items) x, b, a, m, l, mb, lb; changed in place
    draws : hyper(count) and normals(side, row, count) give standard normals, gamma(shape) and
        row_gamma(side, row, shape) draws with rate 1
    """
    k, known = s.x[0].shape[1], ~np.isnan(y)
    for x, o in (
        (0, 1),
        (1, 0),
    ):  # shift: x's factors and their mean by -delta, the other side's biases by +q.delta
        q = s.x[o]
        A = np.diag(s.l[x]) + s.lb[o] * q.T @ q
        c = s.l[x] * s.m[x] - s.lb[o] * (s.b[o] - s.mb[o]) @ q
        delta = np.linalg.solve(A, c) + np.linalg.solve(np.linalg.cholesky(A).T, draws.hyper(k))
        s.x[x] = s.x[x] - delta
        s.m[x] = s.m[x] - delta
        s.b[o] = s.b[o] + q @ delta
    for side in (1, 0):
        o, n = 1 - side, len(s.x[side])
        z = draws.hyper(k + 1)
        s.m[side] = s.x[side].sum(0) / (n + 1) + z[:k] / np.sqrt(s.l[side] * (n + 1))
        s.mb[side] = s.b[side].sum() / (n + 1) + z[k] / np.sqrt(s.lb[side] * (n + 1))
        squares = np.append(
            ((s.x[side] - s.m[side]) ** 2).sum(0) + s.m[side] ** 2,
            ((s.b[side] - s.mb[side]) ** 2).sum() + s.mb[side] ** 2,
        )
        lam = draws.gamma(np.full(k + 1, prior[0] + (n + 1) / 2)) / (prior[1] + squares / 2)
        s.l[side], s.lb[side] = lam[:k], lam[k]
        rest, scaled = 0.0, np.empty(0)
        for row in range(n):
            j = np.flatnonzero(known[row] if side == 0 else known[:, row])
            r, own_weight = (
                (y[row, j], weights[row, j]) if side == 0 else (y[j, row], weights[j, row])
            )
            G, w, e = s.x[o][j], s.alpha * s.a[side][row] * s.a[o][j] * own_weight, r - s.b[o][j]
            z = draws.normals(side, row, k + 1 + few)
            if len(j) <= few:  # Matheron: a draw of the prior, then conditioned
                x, b = (
                    s.m[side] + z[:k] / np.sqrt(s.l[side]),
                    s.mb[side] + z[k] / np.sqrt(s.lb[side]),
                )
                t = e - G @ x - b - z[k + 1 : k + 1 + len(j)] / np.sqrt(w)
                S = G / s.l[side] @ G.T + 1 / s.lb[side] + np.diag(1 / w)
                t = np.linalg.solve(S, t)
                x, b = x + G.T @ t / s.l[side], b + t.sum() / s.lb[side]
            else:  # normal equations, the bias first with the factors integrated out
                U = np.linalg.cholesky(G.T * w @ G + np.diag(s.l[side])).T
                v, c = (
                    np.linalg.solve(U.T, G.T @ w),
                    np.linalg.solve(U.T, G.T @ (w * e) + s.l[side] * s.m[side]),
                )
                precision = w.sum() + s.lb[side] - v @ v
                b = ((w * e).sum() + s.lb[side] * s.mb[side] - v @ c) / precision + z[k] / np.sqrt(
                    precision
                )
                x = np.linalg.solve(U, c - v * b + z[:k])
            G1, lam = np.column_stack([G, np.ones(len(j))]), np.append(s.l[side], s.lb[side])
            mean = np.linalg.solve(
                G1.T * w @ G1 + np.diag(lam),
                G1.T @ (w * e) + lam * np.append(s.m[side], s.mb[side]),
            )
            old, drawn = np.append(s.x[side][row], s.b[side][row]), np.append(x, b)
            new = mean + relax * (old - mean) + np.sqrt(1 - relax**2) * (drawn - mean)
            s.x[side][row], s.b[side][row] = x, b = new[:k], new[k]
            squares = (w / s.a[side][row] * (e - b - G @ x) ** 2).sum()
            s.a[side][row] = draws.row_gamma(side, row, (nu + len(j)) / 2) * 2 / (nu + squares)
            rest += squares * s.a[side][row] / s.alpha
            scaled = np.append(
                scaled, np.sqrt(s.a[side][row] * s.a[o][j] * own_weight) * (e - b - G @ x)
            )
    s.alpha = draws.gamma(prior[0] + known.sum() / 2) / (prior[1] + rest / 2)
    return (scaled**4).mean() / (scaled**2).mean() ** 2


def gibbs_row(g, y, prior, noise, more, nu=20.0):
    """`sampled.row_posterior` by the normal equations."""
    inverse = 1.0
    for _ in range(3):
        w = np.diag(1 / (noise * inverse + more))
        cov = np.linalg.inv(np.linalg.inv(prior) + g.T @ w @ g)
        x = cov @ g.T @ w @ y
        inverse = (nu + inverse * np.diag(w) @ ((y - g @ x) ** 2 + np.diag(g @ cov @ g.T))) / (
            nu + len(y) - 2
        )
    return x, cov, inverse


def keras_step(solver, hyper, rate, steps, x, gradient, states):
    """Keras' formulas (keras.optimizers): x after step number `steps`. Changes `states` in place."""
    m, v = states if len(states) == 2 else (*states, None) if states else (None, None)
    if solver == "sgd" and not hyper["momentum"]:
        return x - rate * gradient
    if solver == "sgd":
        m[...] = hyper["momentum"] * m - rate * gradient
        return x + m
    if solver == "adagrad":
        m[...] += gradient**2
        return x - rate * gradient / np.sqrt(m + hyper["epsilon"])
    m[...] += (gradient - m) * (1 - hyper["beta_1"])
    if solver == "adam":
        v[...] += (gradient**2 - v) * (1 - hyper["beta_2"])
        rate = rate * np.sqrt(1 - hyper["beta_2"] ** steps) / (1 - hyper["beta_1"] ** steps)
        return x - rate * m / (np.sqrt(v) + hyper["epsilon"])
    v[...] = np.maximum(hyper["beta_2"] * v, abs(gradient))
    return x - rate / (1 - hyper["beta_1"] ** steps) * m / (v + hyper["epsilon"])


def mini_batch(tables, states, batch, mean, solver, hyper, rate, steps):
    """One step of Keras for two embeddings. Changes tables and states in place; returns the sum of w e^2.

    tables, states : {name: array}, {name: list of arrays} for user_factors, item_factors, user_biases, item_biases
    batch : users, items, ratings, weights
    """
    users, items, ratings, weights = batch
    p, q = tables["user_factors"][users], tables["item_factors"][items]
    e = (
        ratings
        - mean
        - tables["user_biases"][users]
        - tables["item_biases"][items]
        - (p * q).sum(1)
    )
    push = -2 * weights * e / len(e)
    of_prediction = {
        "user_factors": push[:, None] * q,
        "item_factors": push[:, None] * p,
        "user_biases": push,
        "item_biases": push,
    }
    for name, table in tables.items():
        side, bias = int(name.startswith("item")), "_bias" * name.endswith("biases")
        if bias and not hyper["biased"]:
            continue
        rows = (users, items)[side]
        gradient = np.zeros_like(table)
        np.add.at(gradient, rows, of_prediction[name])
        l2, l1 = (np.broadcast_to(hyper[penalty + bias], 2)[side] for penalty in ("l2", "l1"))
        share = (
            np.bincount(rows, minlength=len(table)) / len(e)
            if hyper["reg_scale"] == "rating"
            else np.ones(len(table))
        )
        gradient += share.reshape(-1, *[1] * (table.ndim - 1)) * (
            2 * l2 * table + l1 * np.sign(table)
        )
        table[...] = keras_step(solver, hyper, rate, steps, table, gradient, states[name])
        if hyper["non_negative"] and not bias:
            np.maximum(table, 0, out=table)
    return float(weights @ e**2)
