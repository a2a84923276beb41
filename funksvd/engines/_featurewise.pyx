# cython: language_level=3, freethreading_compatible=True
"""One feature after the other, on blocks of the grid: a pass over the ratings with one number for each user and item.

What the features before predict stands in `cache`, one number a rating. With the value p of a run's row and q of a
gathered row the prediction is clip(cache + p q), for biases clip(cache + p + q). As in `_sgd.pyx` up to eight ratings of
a run are one micro-batch of distinct gathered rows: with m of them ::

    p' = p (1 - m lr l2) + lr sum_j e_j q_j        q_j' = q_j (1 - lr l2) + lr e_j p

and for biases without the factors q_j and p. A rating's weight multiplies its e. L1 is a soft threshold after the step.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t

ctypedef fused real:
    float
    double

cdef struct Side:
    double l2, l1, low  # penalties, and the least value that it may have

cdef struct Rule:
    double rate, lowest, highest  # step; what predictions are clipped to
    Side run, other


cdef inline real clipped(real x, real lowest, real highest) noexcept nogil:
    return lowest if x < lowest else highest if x > highest else x


cdef inline real shrunk(real x, real threshold, real low) noexcept nogil:
    """Soft threshold, then the lower bound."""
    x = x - threshold if x > threshold else x + threshold if x < -threshold else 0
    return low if x < low else x


cdef inline double walk(
    bint biases, real* p, real* q, uint16_t spare, const int32_t* run_row, const uint32_t* run_end, Py_ssize_t count,
    const uint16_t* index, const real* rating, const real* weight, const real* cache, const Rule* rule,
) noexcept nogil:
    cdef double squares = 0
    cdef Py_ssize_t r, t = 0, end, j, m
    cdef real rate = <real>rule.rate, lowest = <real>rule.lowest, highest = <real>rule.highest
    cdef real keep = <real>(1 - rule.rate * rule.other.l2), threshold = <real>(rule.rate * rule.other.l1)
    cdef real low = <real>rule.other.low
    cdef bint bounded = rule.run.l1 > 0 or rule.other.l1 > 0 or rule.run.low == 0 or rule.other.low == 0
    cdef real e[8]
    cdef real y[8]
    cdef uint16_t at[8]
    cdef real x, push, square
    for r in range(count):
        x = p[run_row[r]]
        end = run_end[r]
        while t < end:
            m = min(end - t, 8)
            for j in range(8):  # reads past the run but never past the array, which has 8 more entries
                at[j] = index[t + j] if j < m else spare
                y[j] = q[at[j]]
            for j in range(8):
                e[j] = rating[t + j] - clipped(cache[t + j] + (x + y[j] if biases else x * y[j]), lowest, highest)
            for j in range(m, 8):
                e[j] = 0
            square = push = 0
            if weight != NULL:
                for j in range(8):
                    square += weight[t + j] * e[j] * e[j]
                    e[j] *= weight[t + j]
            else:
                for j in range(8):
                    square += e[j] * e[j]
            for j in range(8):
                push += e[j] if biases else e[j] * y[j]
                y[j] = y[j] * keep + rate * (e[j] if biases else e[j] * x)
            x = x * <real>(1 - m * rule.rate * rule.run.l2) + rate * push
            if bounded:
                x = shrunk(x, <real>(m * rule.rate * rule.run.l1), <real>rule.run.low)
                for j in range(8):
                    y[j] = shrunk(y[j], threshold, low)
            for j in range(m):
                q[at[j]] = y[j]
            squares += square
            t += m
        p[run_row[r]] = x
    return squares


def train(
    real[::1] run, real[::1] other, const int32_t[::1] run_row, const uint32_t[::1] run_end, const uint16_t[::1] index,
    const real[::1] rating, const real[::1] weight, const real[::1] cache, bint biases, const double[:, ::1] rule,
):
    """One pass over one block, in place; returns the weighted sum of squared errors, each seen before its own step.

    Parameters
    ----------
    run : (rows,)
        Values of the side whose ratings are stored as runs, every band of it.
    other : (band + 1,)
        Those of the gathered side, the block's band only. The last one is spare: 0, and left so.
    run_row, run_end : (runs,)
        Row of each run, and where in the block its ratings end.
    index, rating, weight, cache : (ratings + 8,)
        Row in `other`, rating, its weight and what is predicted so far; an empty `weight` means that all are 1. The
        last 8 are read but count for nothing.
    biases : bool
        The values are biases, not factors.
    rule : (3, 3)
        Step, lowest and highest prediction; L2, L1 and lower bound of the run side; of the gathered side.
    """
    cdef Rule to
    cdef double squares = 0
    if not run_row.shape[0]:
        return 0.0
    to.rate, to.lowest, to.highest = rule[0, 0], rule[0, 1], rule[0, 2]
    to.run.l2, to.run.l1, to.run.low = rule[1, 0], rule[1, 1], rule[1, 2]
    to.other.l2, to.other.l1, to.other.low = rule[2, 0], rule[2, 1], rule[2, 2]
    with nogil:
        if biases:
            squares = walk(True, &run[0], &other[0], <uint16_t>(other.shape[0] - 1), &run_row[0], &run_end[0],
                           run_row.shape[0], &index[0], &rating[0], &weight[0] if weight.shape[0] else NULL, &cache[0], &to)
        else:
            squares = walk(False, &run[0], &other[0], <uint16_t>(other.shape[0] - 1), &run_row[0], &run_end[0],
                           run_row.shape[0], &index[0], &rating[0], &weight[0] if weight.shape[0] else NULL, &cache[0], &to)
    return squares


def advance(
    const real[::1] run, const real[::1] other, const int32_t[::1] run_row, const uint32_t[::1] run_end,
    const uint16_t[::1] index, real[::1] cache, bint biases, double lowest, double highest,
):
    """cache = clip(cache + p q), or of biases clip(cache + p + q), for the ratings of one block; arrays as in `train`."""
    cdef Py_ssize_t r, t = 0
    cdef real x, y
    with nogil:
        for r in range(run_row.shape[0]):
            x = run[run_row[r]]
            for t in range(t, run_end[r]):
                y = other[index[t]]
                cache[t] = clipped(cache[t] + (x + y if biases else x * y), <real>lowest, <real>highest)
            t = run_end[r]
