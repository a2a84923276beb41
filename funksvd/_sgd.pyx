# cython: language_level=3, freethreading_compatible=True
"""CPU kernels on encoded ratings: one pass over a block of the grid, and predictions for pairs.

Every kernel sees plain arrays, takes no lock and no GIL, and checks nothing: `Ratings` and `engine` have.

The unit of work is the micro-batch (`MICRO_BATCH` ratings of one run, the last of a run may be smaller): their dot
products share the loads of the run's row p, the row takes the sum of their steps and each gathered row q_j its own
step with the old p::

    p' = p (1 - m lr l2) + sum_j lr e_j q_j        q_j' = q_j (1 - lr l2) + lr e_j p        (m ratings)

A rating's weight multiplies its e in the step and its e^2 in the loss.
It breaks the chain dot -> error -> update -> next dot that bounds one rating at a time. Within a micro-batch all
q_j are distinct (`Ratings.grid` sees to that), so the order of the steps does not matter.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t

cdef extern from "_vec.h":
    enum: LANES
    ctypedef float real "REAL"      # float or double: its size is the C compiler's to know
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums4(vec, vec, vec, vec, real*) nogil
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, real*) nogil
    real lane_sum(loose_vec) nogil

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define PREFETCH(address) __builtin_prefetch(address)
    #else
    #define PREFETCH(address) ((void)0)
    #endif

    static int cpu_level(void) {
    #if defined(__x86_64__) && defined(__GNUC__)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512cd")) return 4;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) return 3;
    #endif
        return 0;
    }
    """
    void PREFETCH(const void*) nogil
    int cpu_level() nogil


# ------------------------------------------------------------------------------------------------ solvers
# A solver is a struct of constants and one function `step`. It is a fused type, so that the one loop below is compiled
# for each and no branch on the solver is left inside it.

cdef struct Sgd:
    real rate, bias_rate  # learning rate of the factors, of the biases (0 keeps them at 0)
    real keep[9]          # keep[m] = 1 - m rate l2
    real bias_keep[9]     # bias_keep[m] = 1 - m bias_rate l2_bias

cdef struct Frozen:  # moves nothing: the same loop then only measures
    int unused

ctypedef fused Solver:
    Sgd
    Frozen


cdef Sgd sgd(double rate, double l2, double bias_rate, double l2_bias) noexcept nogil:
    cdef Sgd h
    cdef int m
    h.rate = rate
    h.bias_rate = bias_rate
    for m in range(9):
        h.keep[m] = 1 - m * rate * l2
        h.bias_keep[m] = 1 - m * bias_rate * l2_bias
    return h


# ------------------------------------------------------------------------------------------------ formulas

cdef inline real predicted(real mean, real bias, real other_bias, real dot) noexcept nogil:
    """The prediction. The biases are added first, so that users and items can be swapped without changing a bit."""
    return mean + (bias + other_bias) + dot


cdef inline vec step(const Sgd* h, int m, vec x, vec gradient) noexcept nogil:
    """One row after the summed, rate-scaled gradient of m ratings."""
    return x * h.keep[m] + gradient


cdef inline real bias_step(const Sgd* h, int m, real b, real error) noexcept nogil:
    return b * h.bias_keep[m] + h.bias_rate * error


# ------------------------------------------------------------------------------------------------ training

cdef struct Block:
    Py_ssize_t n            # vec in a row
    vec* run_rows           # the side whose ratings are stored as runs, all its rows
    real* run_biases
    vec* rows               # the gathered side, the band's rows
    real* biases
    uint16_t spare          # the band's row of zeros
    const int32_t* run_row  # row of each run
    const uint32_t* run_end  # where each run's ratings end
    Py_ssize_t count        # runs
    const uint16_t* index   # row on the gathered side of each rating
    const real* rating
    const real* weight      # NULL: all ratings weigh 1
    real mean


cdef inline double micro_batch(
    int size, bint weighted, Py_ssize_t n, vec* p, real* p_bias, vec* rows, real* biases, const uint16_t* index,
    const real* rating, const real* weight, int m, real mean, const Solver* h,
) noexcept nogil:
    """The first m <= size of `size` (4 or 8) ratings of one run; returns the weighted sum of their squared errors.

    `n` counts the vec in a row. index[m:size] names the band's spare row, whose error is set to zero.
    """
    cdef vec* q0 = rows + index[0] * n
    cdef vec* q1 = rows + index[1] * n
    cdef vec* q2 = rows + index[2] * n
    cdef vec* q3 = rows + index[3] * n
    cdef vec* q4
    cdef vec* q5
    cdef vec* q6
    cdef vec* q7
    cdef vec s0, s1, s2, s3, s4, s5, s6, s7  # dot products, not yet summed over the lanes
    cdef vec x0, x1, x2, x3, x4, x5, x6, x7, old, gradient
    cdef real e[8]
    cdef real b[8]
    cdef real bias = p_bias[0], total = 0, squares = 0
    cdef Py_ssize_t f
    cdef int j
    if size == 8:
        q4 = rows + index[4] * n
        q5 = rows + index[5] * n
        q6 = rows + index[6] * n
        q7 = rows + index[7] * n

    # Dot products.
    old = p[0]
    s0 = old * q0[0]; s1 = old * q1[0]; s2 = old * q2[0]; s3 = old * q3[0]
    if size == 8:
        s4 = old * q4[0]; s5 = old * q5[0]; s6 = old * q6[0]; s7 = old * q7[0]
    for f in range(1, n):
        old = p[f]
        s0 += old * q0[f]; s1 += old * q1[f]; s2 += old * q2[f]; s3 += old * q3[f]
        if size == 8:
            s4 += old * q4[f]; s5 += old * q5[f]; s6 += old * q6[f]; s7 += old * q7[f]
    if size == 8:
        lane_sums8(s0, s1, s2, s3, s4, s5, s6, s7, e)
    else:
        lane_sums4(s0, s1, s2, s3, e)

    # Errors.
    for j in range(size):
        b[j] = biases[index[j]]
        e[j] = rating[j] - predicted(mean, bias, b[j], e[j])
    for j in range(size):
        e[j] = e[j] if j < m else 0
    if weighted:
        for j in range(size):
            squares += weight[j] * e[j] * e[j]
            e[j] *= weight[j]
            total += e[j]
    else:
        for j in range(size):
            squares += e[j] * e[j]
            total += e[j]
    if Solver is not Frozen:
        # Biases.
        for j in range(size):
            biases[index[j]] = bias_step(h, 1, b[j], e[j])
        p_bias[0] = bias_step(h, m, bias, total)

        # Factors: both old values are read before either is written.
        for j in range(size):
            e[j] *= h.rate
        for f in range(n):
            old = p[f]
            x0 = q0[f]; x1 = q1[f]; x2 = q2[f]; x3 = q3[f]
            gradient = (e[0] * x0 + e[1] * x1) + (e[2] * x2 + e[3] * x3)
            q0[f] = step(h, 1, x0, e[0] * old)
            q1[f] = step(h, 1, x1, e[1] * old)
            q2[f] = step(h, 1, x2, e[2] * old)
            q3[f] = step(h, 1, x3, e[3] * old)
            if size == 8:
                x4 = q4[f]; x5 = q5[f]; x6 = q6[f]; x7 = q7[f]
                gradient += (e[4] * x4 + e[5] * x5) + (e[6] * x6 + e[7] * x7)
                q4[f] = step(h, 1, x4, e[4] * old)
                q5[f] = step(h, 1, x5, e[5] * old)
                q6[f] = step(h, 1, x6, e[6] * old)
                q7[f] = step(h, 1, x7, e[7] * old)
            p[f] = step(h, m, old, gradient)
    return squares


cdef inline double walk(bint weighted, Py_ssize_t n, const Block* b, const Solver* h) noexcept nogil:
    """Every run of one block in its order; returns the sum of squared errors, each seen before its own step."""
    # Copies: a step may write anywhere for all the compiler knows, so that what the block says would be read again.
    cdef Block of = b[0]
    cdef double squares = 0
    cdef Py_ssize_t r, t = 0, end
    cdef uint16_t batch[8]
    cdef int m, j
    cdef vec* p
    cdef real* p_bias
    cdef const real* weight = of.weight
    for r in range(of.count):
        p = of.run_rows + of.run_row[r] * n
        p_bias = of.run_biases + of.run_row[r]
        end = of.run_end[r]
        while t < end:
            m = <int>min(end - t, 8)
            # Reads past the run but never past the array, which has 8 more entries.
            for j in range(8):
                batch[j] = of.index[t + j] if j < m else of.spare
            if m > 4:
                squares += micro_batch(8, weighted, n, p, p_bias, of.rows, of.biases, batch, of.rating + t, weight, m,
                                       of.mean, h)
            else:
                squares += micro_batch(4, weighted, n, p, p_bias, of.rows, of.biases, batch, of.rating + t, weight, m,
                                       of.mean, h)
            t += m
            if weighted:
                weight += m
    return squares


cdef inline double walk_sized(const Block* b, const Solver* h) noexcept nogil:
    """`walk` with the usual row lengths as constants of the compiler, so that loops over factors are unrolled."""
    if b.n == 16 / LANES:
        return walk(False, <Py_ssize_t>(16 / LANES), b, h)
    if b.n == 24 / LANES:
        return walk(False, <Py_ssize_t>(24 / LANES), b, h)
    if b.n == 32 / LANES:
        return walk(False, <Py_ssize_t>(32 / LANES), b, h)
    if b.n == 64 / LANES:
        return walk(False, <Py_ssize_t>(64 / LANES), b, h)
    return walk(False, b.n, b, h)


# Functions of their own, called by address: compiled into one, the rare ones cost the first a twentieth of its speed.

cdef double train_plain(const Block* b, const Sgd* h) noexcept nogil:
    cdef Sgd own = h[0]
    return walk_sized(b, &own)

cdef double train_weighted(const Block* b, const Sgd* h) noexcept nogil:
    cdef Sgd own = h[0]
    return walk(True, b.n, b, &own)

cdef double measure_plain(const Block* b, const Sgd* h) noexcept nogil:
    cdef Frozen own
    return walk_sized(b, &own)

cdef double measure_weighted(const Block* b, const Sgd* h) noexcept nogil:
    cdef Frozen own
    return walk(True, b.n, b, &own)


ctypedef double (*Pass)(const Block*, const Sgd*) noexcept nogil

cdef Pass[4] PASSES
PASSES[0], PASSES[1], PASSES[2], PASSES[3] = measure_plain, measure_weighted, train_plain, train_weighted


def block(
    real[:, ::1] run_factors, real[::1] run_biases, real[:, ::1] factors, real[::1] biases,
    const int32_t[::1] run_row, const uint32_t[::1] run_end, const uint16_t[::1] index, const real[::1] rating,
    const real[::1] weight, double mean, bint train, double rate=0, double l2=0, double bias_rate=0, double l2_bias=0,
):
    """One SGD pass over one block of the grid, in place; with ``train=False`` the same pass without a step.

    Parameters
    ----------
    run_factors, run_biases : (rows, multiple of 8), (rows,)
        The side whose ratings are stored as runs, every band of it.
    factors, biases : (band + 1, multiple of 8), (band + 1,)
        The gathered side, the block's band only. The last row is spare: zeros, and left so.
    run_row, run_end : (runs,)
        Row of each run, and where in the block its ratings end.
    index, rating, weight : (ratings + 8,)
        Row in `factors`, rating and its weight; an empty `weight` means that all are 1. The last 8 are read but count
        for nothing.
    rate, bias_rate, l2, l2_bias : float
        Learning rates and L2 penalties of factors and biases.

    Returns
    -------
    float
        Weighted sum of squared errors, each taken before its own micro-batch's step.
    """
    cdef double squares
    cdef Block b
    cdef Sgd h
    cdef bint weighted = weight.shape[0] > 0
    if run_row.shape[0] == 0:
        return 0.0
    b.n, b.spare, b.mean = run_factors.shape[1] / LANES, <uint16_t>(factors.shape[0] - 1), <real>mean
    b.run_rows, b.run_biases = <vec*>&run_factors[0, 0], &run_biases[0]
    b.rows, b.biases = <vec*>&factors[0, 0], &biases[0]
    b.run_row, b.run_end, b.count = &run_row[0], &run_end[0], run_row.shape[0]
    b.index, b.rating, b.weight = &index[0], &rating[0], &weight[0] if weighted else NULL
    with nogil:
        h = sgd(rate, l2, bias_rate, l2_bias)
        squares = PASSES[2 * train + weighted](&b, &h)
    return squares


# ------------------------------------------------------------------------------------------------ prediction

cdef inline real dot(Py_ssize_t k, const real* p, const real* q) noexcept nogil:
    """p . q of two rows at any address and of any length."""
    cdef Py_ssize_t f, whole = k - k % LANES
    cdef loose_vec s
    cdef real total = 0
    if whole:
        s = (<const loose_vec*>p)[0] * (<const loose_vec*>q)[0]
        for f in range(1, whole / LANES):
            s += (<const loose_vec*>p)[f] * (<const loose_vec*>q)[f]
        total = lane_sum(s)
    for f in range(whole, k):
        total += p[f] * q[f]
    return total


def predict(
    const real[:, ::1] user_factors, const real[::1] user_biases, const real[:, ::1] item_factors,
    const real[::1] item_biases, double mean, const int32_t[::1] users, const int32_t[::1] items, real[::1] out,
):
    """out[t] = the prediction for codes (users[t], items[t]); a code of -1 is an unknown id: bias 0 and no factors."""
    cdef Py_ssize_t t, ahead, k = user_factors.shape[1], count = users.shape[0]
    cdef int32_t u, i
    cdef real bu, bi, s
    cdef const real* P = &user_factors[0, 0]
    cdef const real* Q = &item_factors[0, 0]
    with nogil:
        for t in range(count):
            # The rows of pairs to come travel from memory meanwhile; a wrong address (code -1) is harmless.
            ahead = min(t + 8, count - 1)
            PREFETCH(P + users[ahead] * k)
            PREFETCH(P + users[ahead] * k + k - 1)
            PREFETCH(Q + items[ahead] * k)
            PREFETCH(Q + items[ahead] * k + k - 1)
            u, i = users[t], items[t]
            bu = user_biases[u] if u >= 0 else 0
            bi = item_biases[i] if i >= 0 else 0
            s = dot(k, P + u * k, Q + i * k) if u >= 0 and i >= 0 else 0
            out[t] = predicted(<real>mean, bu, bi, s)


def lanes():
    """Factors that one vector of this build holds: 8, or 1 where the compiler has no vector types."""
    return LANES


def level():
    """The x86-64 micro-architecture level that this CPU runs: 3, 4, or 0 for less or another architecture."""
    return cpu_level()
