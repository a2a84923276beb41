"""The slow, obvious twin of the kernel: the micro-batch rule of `_sgd.pyx` in NumPy."""

import numpy as np


def block(run_factors, run_biases, factors, biases, run_row, run_end, index, rating, mean, rate, l2, bias_rate, l2_bias):
    """One SGD pass over one block, in place; returns the sum of squared errors."""
    squares, start = 0.0, 0
    for u, end in zip(run_row, run_end, strict=True):
        for t in range(start, end, 8):
            j = index[t : min(t + 8, end)]
            p, q = run_factors[u].copy(), factors[j].copy()
            e = rating[t : t + len(j)] - (mean + (run_biases[u] + biases[j]) + q @ p)
            squares += float(e @ e)
            run_factors[u] = p * (1 - len(j) * rate * l2) + rate * e @ q
            factors[j] = q * (1 - rate * l2) + rate * np.outer(e, p)
            run_biases[u] = run_biases[u] * (1 - len(j) * bias_rate * l2_bias) + bias_rate * e.sum()
            biases[j] = biases[j] * (1 - bias_rate * l2_bias) + bias_rate * e
        start = end
    return squares
