"""The slow, obvious twins of the kernels: the micro-batch rule of `_sgd.pyx`, and the answers of `_serve.pyx`."""

import numpy as np


def block(run_factors, run_biases, factors, biases, run_row, run_end, index, rating, weight, mean, rate, l2, bias_rate,
          l2_bias):  # fmt: skip
    """One SGD pass over one block, in place; returns the weighted sum of squared errors."""
    squares, start = 0.0, 0
    for u, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, 8):
            j = index[t : min(t + 8, end)]
            p, q = run_factors[u].copy(), factors[j].copy()
            e = rating[t : t + len(j)] - (mean + (run_biases[u] + biases[j]) + q @ p)
            w = weight[t : t + len(j)] if len(weight) else np.ones_like(e)
            squares += float(w @ e**2)
            e = w * e
            run_factors[u] = p * (1 - len(j) * rate * l2) + rate * e @ q
            factors[j] = q * (1 - rate * l2) + rate * np.outer(e, p)
            run_biases[u] = run_biases[u] * (1 - len(j) * bias_rate * l2_bias) + bias_rate * e.sum()
            biases[j] = biases[j] * (1 - bias_rate * l2_bias) + bias_rate * e
        start = end
    return squares


def predict(params, u, i):
    """The prediction for one pair of codes; -1 is an unknown id."""
    bias = (params.user_biases[u] if u >= 0 else 0) + (params.item_biases[i] if i >= 0 else 0)
    return params.global_mean + bias + (params.user_factors[u] @ params.item_factors[i] if u >= 0 and i >= 0 else 0)


def recommend(rows, items, n, seen):
    """For each row of predictions of all `items` the n best that are not in its `seen`, ties by the item."""
    best = []
    for row, unwanted in zip(rows, seen, strict=True):
        left = [(-score, item) for item, score in zip(items, row.tolist(), strict=True) if item not in unwanted]
        best.append([item for _, item in sorted(left)[:n]])
    return best


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
