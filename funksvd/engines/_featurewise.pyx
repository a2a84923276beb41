# cython: language_level=3, freethreading_compatible=True
"""The kernels of training one feature after the other, over the blocks of the grid.

A feature is one number for each user and each item. The prediction of the features before it
stands in `cache`, one number a rating. With the value p of a run's row and q of a gathered row the
prediction is clip(cache + p q); for biases it is clip(cache + p + q).

As in `_sgd.pyx`, up to eight ratings of a run are one micro-batch of distinct gathered rows. With
m of them, errors e_j, weights w_j, learning rate lr and penalty l2 of each side, one step is::

    p' = p (1 - m lr l2) + lr sum_j w_j e_j q_j
    q_j' = q_j (1 - lr l2) + lr w_j e_j p

For biases the factors q_j and p at the end are left out. L1 is a soft threshold after the step.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t

ctypedef fused real:
    float
    double

cdef enum:
    MICRO = 8  # ratings of a micro-batch

cdef struct Penalty:  # of one side
    double l2
    double l1
    double low  # the least value that a number may have

cdef struct Rule:
    double rate
    double lowest   # predictions are clipped to lowest and highest
    double highest
    Penalty run
    Penalty gathered

cdef struct Block:  # the runs of a block, as `train` describes them
    const int32_t* run_row
    const uint32_t* run_end
    const uint16_t* index
    Py_ssize_t n_runs
    uint16_t spare  # the last gathered row, which stays 0


cdef inline real clipped(real x, real lowest, real highest) noexcept nogil:
    return lowest if x < lowest else highest if x > highest else x


cdef inline real shrunk(real x, real threshold, real low) noexcept nogil:
    """Return x after the soft threshold of L1, and then the lower bound.

    `_solvers.pxi` has the same for vectors, as `proximal`.
    """
    x = x - threshold if x > threshold else x + threshold if x < -threshold else 0
    return low if x < low else x


cdef inline double walk(
    bint biases, const Block* block, real* p, real* q, const real* rating, const real* weight,
    const real* cache, const Rule* rule,
) noexcept nogil:
    """Make one pass over a block; return the sum of its weighted squared errors.

    `biases` is a constant to the compiler. `weight` is NULL if all weights are 1.
    """
    cdef double squares = 0
    cdef Py_ssize_t run, end, j, m
    cdef Py_ssize_t t = 0
    cdef real rate = <real>rule.rate
    cdef real lowest = <real>rule.lowest
    cdef real highest = <real>rule.highest
    cdef real keep = <real>(1 - rule.rate * rule.gathered.l2)
    cdef real threshold = <real>(rule.rate * rule.gathered.l1)
    cdef real low = <real>rule.gathered.low
    cdef bint thresholds = rule.run.l1 > 0 or rule.gathered.l1 > 0
    cdef bint proximal = thresholds or rule.run.low == 0 or rule.gathered.low == 0
    cdef real e[MICRO]
    cdef real y[MICRO]
    cdef uint16_t at[MICRO]
    cdef real x, push, square
    for run in range(block.n_runs):
        x = p[block.run_row[run]]
        end = block.run_end[run]
        while t < end:
            m = min(end - t, MICRO)
            # The gathered values. This reads past the run, but never past the arrays, which have
            # eight more entries.
            for j in range(MICRO):
                at[j] = block.index[t + j] if j < m else block.spare
                y[j] = q[at[j]]
            # The errors.
            for j in range(MICRO):
                e[j] = rating[t + j] - clipped(
                    cache[t + j] + (x + y[j] if biases else x * y[j]), lowest, highest
                )
            for j in range(m, MICRO):
                e[j] = 0
            square = 0
            if weight != NULL:
                for j in range(MICRO):
                    square += weight[t + j] * e[j] * e[j]
                    e[j] *= weight[t + j]
            else:
                for j in range(MICRO):
                    square += e[j] * e[j]
            # The step.
            push = 0
            for j in range(MICRO):
                push += e[j] if biases else e[j] * y[j]
                y[j] = y[j] * keep + rate * (e[j] if biases else e[j] * x)
            x = x * <real>(1 - m * rule.rate * rule.run.l2) + rate * push
            if proximal:
                x = shrunk(x, <real>(m * rule.rate * rule.run.l1), <real>rule.run.low)
                for j in range(MICRO):
                    y[j] = shrunk(y[j], threshold, low)
            for j in range(m):
                q[at[j]] = y[j]
            squares += square
            t += m
        p[block.run_row[run]] = x
    return squares


cdef Penalty penalty_of(const double[:, ::1] rule, Py_ssize_t row) noexcept:
    cdef Penalty penalty
    penalty.l2 = rule[row, 0]
    penalty.l1 = rule[row, 1]
    penalty.low = rule[row, 2]
    return penalty


def train(
    real[::1] run, real[::1] gathered, const int32_t[::1] run_row, const uint32_t[::1] run_end,
    const uint16_t[::1] index, const real[::1] rating, const real[::1] weight,
    const real[::1] cache, bint biases, const double[:, ::1] rule,
):
    """Make one pass over one block, in place.

    Parameters
    ----------
    run : (rows,)
        Values of the side whose ratings are stored as runs, of all its bands.
    gathered : (band + 1,)
        Values of the gathered side, of the block's band alone. The last one is spare: it is 0 and
        stays so.
    run_row, run_end : (runs,)
        Row of each run, and where in the block its ratings end.
    index, rating, weight, cache : (ratings + 8,)
        Row in `gathered`, rating, weight and prediction so far of each rating. An empty `weight`
        means that all weights are 1. The last 8 are read but count for nothing.
    biases : bool
        Whether the values are biases, not factors.
    rule : (3, 3)
        Learning rate, lowest and highest prediction; L2, L1 and lower bound of the run side; the
        same of the gathered side.

    Returns
    -------
    float
        Weighted sum of the squared errors, each taken before the step of its own micro-batch.
    """
    cdef Rule checked
    cdef Block block
    cdef double squares = 0
    cdef const real* weights = NULL
    if not run_row.shape[0]:
        return 0.0
    checked.rate = rule[0, 0]
    checked.lowest = rule[0, 1]
    checked.highest = rule[0, 2]
    checked.run = penalty_of(rule, 1)
    checked.gathered = penalty_of(rule, 2)
    block.run_row = &run_row[0]
    block.run_end = &run_end[0]
    block.index = &index[0]
    block.n_runs = run_row.shape[0]
    block.spare = <uint16_t>(gathered.shape[0] - 1)
    if weight.shape[0]:
        weights = &weight[0]
    with nogil:
        if biases:
            squares = walk(
                True, &block, &run[0], &gathered[0], &rating[0], weights, &cache[0], &checked
            )
        else:
            squares = walk(
                False, &block, &run[0], &gathered[0], &rating[0], weights, &cache[0], &checked
            )
    return squares


def advance(
    const real[::1] run, const real[::1] gathered, const int32_t[::1] run_row,
    const uint32_t[::1] run_end, const uint16_t[::1] index, real[::1] cache, bint biases,
    double lowest, double highest,
):
    """Add trained values to the cache of one block: clip(cache + p q), or clip(cache + p + q).

    The arrays are those of `train`; predictions are clipped to `lowest` and `highest`.
    """
    cdef Py_ssize_t r
    cdef Py_ssize_t t = 0
    cdef real x, y
    with nogil:
        for r in range(run_row.shape[0]):
            x = run[run_row[r]]
            for t in range(t, run_end[r]):
                y = gathered[index[t]]
                cache[t] = clipped(
                    cache[t] + (x + y if biases else x * y), <real>lowest, <real>highest
                )
            t = run_end[r]
