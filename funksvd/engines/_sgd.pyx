# cython: language_level=3, freethreading_compatible=True
"""CPU kernels on encoded ratings: one pass over a block of the grid, and predictions for pairs.

Every kernel sees plain arrays, takes no lock and no GIL, and checks nothing: `Ratings` and `engine` have.

The unit of work is the micro-batch (8 ratings of one run, the last of a run may be smaller): their dot
products share the loads of the run's row p, the row takes one step with the sum of their gradients, and each gathered
row q_j its own step with the old p. With plain SGD::

    p' = p (1 - m lr l2) + sum_j lr e_j q_j        q_j' = q_j (1 - lr l2) + lr e_j p        (m ratings)

A rating's weight multiplies its e in the step and its e^2 in the loss.
It breaks the chain dot -> error -> update -> next dot that bounds one rating at a time. Within a micro-batch all
q_j are distinct (`Ratings.grid` sees to that), so the order of the steps does not matter.

The other solvers take the same gradients, g = m l2 x - sum_j e_j y_j, and keep state for each row; a row that no rating
touches does not move and its clock stands still ("lazy", as torch.optim.SparseAdam).
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t

include "_solvers.pxi"
include "../_formula.pxi"

cdef extern from "../machine/_vec.h":
    void lane_sums(const vec*, int, real*) nogil
    real lane_sum(loose_vec) nogil
    bint KNOWN(Py_ssize_t) nogil
    void gather(const real*, const uint16_t*, int, vec*) nogil
    void PREFETCH(const void*) nogil


cdef real[9][8] KEEP  # [m]: m times 1, then 0
cdef uint16_t[9][8] SPARE  # [m]: m times 0, then all bits
for _m in range(9):
    for _j in range(8):
        KEEP[_m][_j], SPARE[_m][_j] = _j < _m, 0 if _j < _m else 0xffff


cdef enum:
    EXTRA = 4
    LONG = 256     # bytes of a row without state: of longer ones too many lines would be on their way at once
    NEAR = 131072  # bytes of a band's rows: in a cache so close that prefetching them costs more than it gains

cdef struct Rows:           # of one side
    vec* factors
    real* biases
    vec* state              # a row's states of all factors, one state after the other
    real* extra             # a row's clocks, then the states of its bias; or AdagradRow's accumulator alone: see `extras`

cdef struct Block:
    Py_ssize_t n            # vec in a row
    Rows runs               # the side whose ratings are stored as runs, all its rows
    Rows rows               # the gathered side, the band's rows
    uint16_t spare          # the band's row of zeros
    const int32_t* run_row  # row of each run
    const uint32_t* run_end  # where each run's ratings end
    Py_ssize_t count        # runs
    const uint16_t* index   # row on the gathered side of each rating
    const real* rating
    const real* weight      # NULL: all ratings weigh 1
    real mean
    Rule run_rule, rule     # hyper-parameters of the two sides

cdef inline int extras(const Solver* s) noexcept nogil:
    """Numbers of a row's own in memory. AdagradRow's alone lie dense: an epoch takes 0.96 of the time so."""
    return 1 if Solver is AdagradRow else EXTRA


cdef inline vec bias_step(const Solver* s, real shrink, vec rate, int m, vec x, vec push, vec* state,
                          Py_ssize_t n) noexcept nogil:
    """Biases, one a lane, after the summed gradient of m ratings each."""
    if Solver is AdagradRow:
        push *= rate
    x = step(s, shrinkage(s, shrink, rate), rate, x, push, state, n)
    if s.h.proximal:
        x = proximal(x, m * s.h.l1_bias * reach(s, rate, state, n), -INFINITY)
    return x


cdef inline vec lane_step(const Solver* s, const real* rate, const real* shrink, int j, vec x, vec push, vec* state,
                          Py_ssize_t n) noexcept nogil:
    """`step` of row j of a micro-batch, which has a rate of its own; to plain SGD all rows are the same."""
    if Solver is Sgd:
        return step(s, vec_splat(s.h.shrink[1]), vec_splat(s.h.rate), x, push, state, n)
    else:
        return step(s, vec_splat(shrink[j]), vec_splat(rate[j]), x, push, state, n)


cdef inline vec first_push(const Solver* s, vec shrink, vec x) noexcept nogil:
    """What the pushes of p add to. For plain SGD it is what L2 leaves of p, and their sum then is the step (`pushed`): the
    next micro-batch, which waits for p, waits for one operation less."""
    return x * shrink if Solver is Sgd else vec_splat(0)


cdef inline vec pushed(const Solver* s, vec shrink, vec rate, vec x, vec push, vec* state, Py_ssize_t n) noexcept nogil:
    return push if Solver is Sgd else step(s, shrink, rate, x, push, state, n)


cdef inline void factor_steps(
    int count, int size, Py_ssize_t n, Py_ssize_t first, vec* p, vec* p_state, vec** rows, vec** row_states,
    const real* e, const real* push_q, const real* rate, const real* shrink, real p_gain, vec p_shrink, vec p_rate,
    vec* push_square, const Solver* hp, const Solver* hq,
) noexcept nogil:
    """`count` (1 to 4) vec of all rows of a micro-batch from `first` on. Both old values are read before one is written."""
    cdef vec old0, old1, old2, old3, push0, push1, push2, push3, x
    cdef vec* q
    cdef vec* z
    cdef int j
    old0 = p[first]
    push0 = first_push(hp, p_shrink, old0)
    if count > 1:
        old1 = p[first + 1]
        push1 = first_push(hp, p_shrink, old1)
    if count > 2:
        old2 = p[first + 2]
        push2 = first_push(hp, p_shrink, old2)
    if count > 3:
        old3 = p[first + 3]
        push3 = first_push(hp, p_shrink, old3)
    for j in range(size):
        q = rows[j] + first
        z = row_states[j] + first
        x = q[0]
        push0 += e[j] * x
        q[0] = lane_step(hq, rate, shrink, j, x, push_q[j] * old0, z, n)
        if count > 1:
            x = q[1]
            push1 += e[j] * x
            q[1] = lane_step(hq, rate, shrink, j, x, push_q[j] * old1, z + 1, n)
        if count > 2:
            x = q[2]
            push2 += e[j] * x
            q[2] = lane_step(hq, rate, shrink, j, x, push_q[j] * old2, z + 2, n)
        if count > 3:
            x = q[3]
            push3 += e[j] * x
            q[3] = lane_step(hq, rate, shrink, j, x, push_q[j] * old3, z + 3, n)
    if Solver is AdagradRow:
        push_square[0] += push0 * push0
        push0 *= p_gain
        if count > 1:
            push_square[0] += push1 * push1
            push1 *= p_gain
        if count > 2:
            push_square[0] += push2 * push2
            push2 *= p_gain
        if count > 3:
            push_square[0] += push3 * push3
            push3 *= p_gain
    p[first] = pushed(hp, p_shrink, p_rate, old0, push0, p_state + first, n)
    if count > 1:
        p[first + 1] = pushed(hp, p_shrink, p_rate, old1, push1, p_state + first + 1, n)
    if count > 2:
        p[first + 2] = pushed(hp, p_shrink, p_rate, old2, push2, p_state + first + 2, n)
    if count > 3:
        p[first + 3] = pushed(hp, p_shrink, p_rate, old3, push3, p_state + first + 3, n)


cdef inline vec micro_batch(
    int size, bint rich, Py_ssize_t n, vec* p, real* p_bias, vec* p_state, real* p_extra, const Rows* rows,
    const uint16_t* index, const real* rating, const real* weight, int m, real mean, const Solver* hp, const Solver* hq,
) noexcept nogil:
    """The first m <= size of `size` <= 8 ratings of one run; returns their weighted squared errors in lanes.

    `n` counts the vec in a row. index[m:size] names the band's spare row, whose error is set to zero. `rich`: there may
    be weights, an L1 penalty or a lower bound.
    """
    cdef vec* q[8]
    cdef vec s[8]  # dot products, not yet summed over the lanes
    cdef vec x0, x1, old, p_rate, p_shrink, p_square, push_square, threshold
    cdef vec eq[8]
    cdef vec bq[8]
    cdef vec error, squared, summed
    cdef real* e = <real*>eq
    cdef real* b = <real*>bq
    cdef real bias = p_bias[0], total = 0, p_gain = 1
    cdef vec* z[8]  # states of the rows
    # For solvers with state: one number a row, a row a lane.
    cdef vec lanes[48]  # row i from i * 8 / LANES on: two clocks, two states of the biases, rates, shrinkages
    cdef vec bias_state[2]
    cdef real* lane = <real*>lanes
    cdef real* rate = lane + 32
    cdef real* shrink = lane + 40
    cdef vec pushes[8]
    cdef real* push_q = e   # what p is multiplied by in the push of q_j
    cdef real* extra
    cdef Py_ssize_t f
    cdef int i, j, width = 8 // LANES
    for j in range(size):
        q[j] = rows.factors + index[j] * n
        z[j] = rows.state + index[j] * n * states(hq)
    if Solver is not Sgd and Solver is not Frozen:
        for j in range(size):
            extra = rows.extra + index[j] * extras(hq)
            for i in range(EXTRA):
                if uses(hq, i):
                    lane[8 * i + j] = extra[i]

    # Dot products.
    old = p[0]
    p_square = old * old
    for j in range(size):
        s[j] = old * q[j][0]
    for f in range(1, n):
        old = p[f]
        if Solver is AdagradRow:
            p_square += old * old
        for j in range(size):
            s[j] += old * q[j][f]
    lane_sums(s, size, e)

    # Errors, side by side in the lanes.
    if Solver is Sgd or Solver is Frozen:
        gather(rows.biases, index, size, bq)
    else:  # slower so, by up to a tenth of an epoch: measured with adamax
        for i in range((size + LANES - 1) // LANES):  # what is left of the stack might be NaN, which no mask takes away
            bq[i] = vec_splat(0)
        for j in range(size):
            b[j] = rows.biases[index[j]]
    for i in range((size + LANES - 1) // LANES):
        # What is known before the dot products is done before them.
        error = (<const loose_vec*>(rating + i * LANES))[0] - biases_alone(mean, bias, bq[i]) - eq[i]
        if m < size or size % LANES:
            error *= (<const loose_vec*>(KEEP[m] + i * LANES))[0]
        if rich and weight != NULL:
            x0 = error * (<const loose_vec*>(weight + i * LANES))[0]
            squared = squared + x0 * error if i else x0 * error
            error = x0
        else:
            squared = squared + error * error if i else error * error
        summed = summed + error if i else error
        eq[i] = error
    if Solver is Frozen:
        return squared
    total = lane_sum(summed)

    # Rates and biases.
    if Solver is Sgd:
        p_rate = vec_splat(hp.h.rate)
        for i in range((size + LANES - 1) // LANES):
            bq[i] = bq[i] * hq.h.bias_shrink[1] + hq.h.bias_rate * eq[i]
        bias = bias * hp.h.bias_shrink[m] + hp.h.bias_rate * total
        if rich and hq.h.proximal:
            for j in range(size):
                b[j] = vec_first(proximal(vec_splat(b[j]), vec_splat(hq.h.bias_rate * hq.h.l1_bias), -INFINITY))
        if rich and hp.h.proximal:
            bias = vec_first(proximal(vec_splat(bias), vec_splat(m * hp.h.bias_rate * hp.h.l1_bias), -INFINITY))
    else:
        for i in range((size + LANES - 1) // LANES):
            tick(hq, &lanes[i], &lanes[width + i])
            lanes[4 * width + i] = scaled_rate(hq, lanes[i], lanes[width + i])
            lanes[5 * width + i] = shrinkage(hq, hq.h.shrink[1], lanes[4 * width + i])
        x0 = vec_splat(p_extra[0])
        x1 = vec_splat(p_extra[1]) if uses(hp, 1) else x0
        tick(hp, &x0, &x1)
        p_rate = scaled_rate(hp, x0, x1)
        p_extra[0] = vec_first(x0)
        if uses(hp, 1):
            p_extra[1] = vec_first(x1)
        if hq.h.bias_rate != 0:
            for i in range((size + LANES - 1) // LANES):
                bq[i] = bias_step(hq, hq.h.bias_shrink[1], lanes[4 * width + i], 1, bq[i], eq[i], &lanes[2 * width + i],
                                  width)
            if uses(hp, 2):
                bias_state[0], bias_state[1] = vec_splat(p_extra[2]), vec_splat(p_extra[3])
            bias = vec_first(bias_step(hp, hp.h.bias_shrink[m], p_rate, m, vec_splat(bias), vec_splat(total), bias_state, 1))
            if uses(hp, 2):
                p_extra[2], p_extra[3] = vec_first(bias_state[0]), vec_first(bias_state[1])
    for j in range(size):
        rows.biases[index[j]] = b[j]
    p_bias[0] = bias

    # Factors: both old values are read before either is written.
    p_shrink = shrinkage(hp, hp.h.shrink[m], p_rate)
    if Solver is AdagradRow:
        push_q, p_gain, push_square = <real*>pushes, vec_first(p_rate), vec_splat(0)
        for i in range((size + LANES - 1) // LANES):
            pushes[i] = eq[i] * lanes[4 * width + i]
    elif Solver is Sgd:
        for i in range((size + LANES - 1) // LANES):
            eq[i] = eq[i] * hq.h.rate
    f = 0
    while f + 4 <= n:
        factor_steps(4, size, n, f, p, p_state, q, z, e, push_q, rate, shrink, p_gain, p_shrink, p_rate, &push_square,
                     hp, hq)
        f += 4
    if KNOWN(n) and n - f == 3:
        factor_steps(3, size, n, f, p, p_state, q, z, e, push_q, rate, shrink, p_gain, p_shrink, p_rate, &push_square,
                     hp, hq)
        f += 3
    if KNOWN(n) and n - f == 2:
        factor_steps(2, size, n, f, p, p_state, q, z, e, push_q, rate, shrink, p_gain, p_shrink, p_rate, &push_square,
                     hp, hq)
        f += 2
    while f < n:
        factor_steps(1, size, n, f, p, p_state, q, z, e, push_q, rate, shrink, p_gain, p_shrink, p_rate, &push_square,
                     hp, hq)
        f += 1

    if rich and hq.h.proximal:
        for f in range(n):
            for j in range(size):
                threshold = hq.h.l1 * reach(hq, vec_splat(hq.h.rate if Solver is Sgd else rate[j]), z[j] + f, n)
                rows.factors[index[j] * n + f] = proximal(rows.factors[index[j] * n + f], threshold, hq.h.low)
    if rich and hp.h.proximal:
        for f in range(n):
            p[f] = proximal(p[f], m * hp.h.l1 * reach(hp, p_rate, p_state + f, n), hp.h.low)

    # Clocks and the states of the biases go back.
    if Solver is not Sgd:
        if Solver is AdagradRow:
            p_gain = (lane_sum(p_square) + (hq.h.bias_rate != 0)) * hq.h.share
            for i in range((size + LANES - 1) // LANES):
                lanes[i] = lanes[i] + eq[i] * eq[i] * p_gain
            p_extra[0] += (lane_sum(push_square) + total * total * (hp.h.bias_rate != 0)) * hp.h.share
        for j in range(size):
            extra = rows.extra + index[j] * extras(hq)
            for i in range(EXTRA):
                if uses(hq, i):
                    extra[i] = lane[8 * i + j]
    return squared


cdef inline void fetch(const Solver* s, const Rows* rows, Py_ssize_t row, Py_ssize_t n) noexcept nogil:
    """Have a row travel to the caches, ahead of its step."""
    cdef Py_ssize_t f, line = 64
    if (Solver is Sgd or Solver is Frozen) and n * LANES * sizeof(real) <= 128:
        line = 128  # the second line of two comes by itself; adagrad_row was slower so
    for f in range(n):
        if f * LANES * sizeof(real) % line == 0:
            PREFETCH(rows.factors + row * n + f)
    for f in range(n * states(s)):
        if f * LANES * sizeof(real) % 64 == 0:
            PREFETCH(rows.state + row * n * states(s) + f)


cdef inline vec short_batch(
    int m, Py_ssize_t n, vec* p, real* p_bias, vec* p_state, real* p_extra, const Rows* rows, const uint16_t* index,
    const real* rating, real mean, const Solver* hp, const Solver* hq,
) noexcept nogil:
    """`micro_batch` for less than 8 ratings: every length is compiled, so that no row is for nothing."""
    if m == 1:
        return micro_batch(1, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 1, mean, hp, hq)
    elif m == 2:
        return micro_batch(2, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 2, mean, hp, hq)
    elif m == 3:
        return micro_batch(3, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 3, mean, hp, hq)
    elif m == 4:
        return micro_batch(4, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 4, mean, hp, hq)
    elif m == 5:
        return micro_batch(5, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 5, mean, hp, hq)
    elif m == 6:
        return micro_batch(6, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 6, mean, hp, hq)
    else:
        return micro_batch(7, False, n, p, p_bias, p_state, p_extra, rows, index, rating, NULL, 7, mean, hp, hq)


cdef inline double walk(bint rich, Py_ssize_t n, const Block* b, const Solver* hp, const Solver* hq) noexcept nogil:
    """Every run of one block in its order; returns the sum of squared errors, each seen before its own step."""
    # Copies: a step may write anywhere for all the compiler knows, so that what the block says would be read again.
    cdef Block of = b[0]
    cdef double squares = 0
    cdef vec squared  # of up to 32 runs
    cdef Py_ssize_t r, t = 0, end, ahead, last = of.run_end[of.count - 1]
    cdef uint16_t batch[8]
    cdef int m, j
    cdef vec* p
    cdef vec* p_state
    cdef real* p_bias
    cdef real* p_extra
    cdef const real* weight = of.weight
    cdef bint far = (of.spare + 1) * n * (1 + states(hq)) * LANES * <Py_ssize_t>sizeof(real) > NEAR
    if not states(hq) and n * LANES * sizeof(real) > LONG:
        far = False
    squared = vec_splat(0)
    for r in range(of.count):
        p = of.runs.factors + of.run_row[r] * n
        p_bias = of.runs.biases + of.run_row[r]
        p_state = of.runs.state + of.run_row[r] * n * states(hp)
        p_extra = of.runs.extra + of.run_row[r] * extras(hp)
        end = of.run_end[r]
        if states(hp):
            ahead = of.run_row[min(r + 2, of.count - 1)]
            PREFETCH(of.runs.biases + ahead)
            PREFETCH(of.runs.extra + ahead * extras(hp))
            fetch(hp, &of.runs, ahead, n)
        while t < end:
            m = <int>min(end - t, 8)
            if far:
                if states(hq):
                    # So many rows on their way hold up even what is read in order.
                    PREFETCH(of.rating + t + 32)
                    PREFETCH(of.index + t + 32)
                ahead = t + m if states(hq) else min(t + m + 8, last)
                for j in range(8):
                    fetch(hq, &of.rows, of.index[ahead + j], n)
            # A whole one is compiled apart: its length is a constant and nothing is masked.
            if m == 8:
                squared += micro_batch(8, rich, n, p, p_bias, p_state, p_extra, &of.rows, of.index + t, of.rating + t,
                                       weight, 8, of.mean, hp, hq)
            elif not rich:
                squared += short_batch(m, n, p, p_bias, p_state, p_extra, &of.rows, of.index + t, of.rating + t, of.mean,
                                       hp, hq)
            else:
                # Reads past the run but never past the array, which has 8 more entries.
                for j in range(8):
                    batch[j] = (of.index[t + j] & ~SPARE[m][j]) | (of.spare & SPARE[m][j])
                if m > 4:
                    squared += micro_batch(8, rich, n, p, p_bias, p_state, p_extra, &of.rows, batch, of.rating + t,
                                           weight, m, of.mean, hp, hq)
                else:
                    squared += micro_batch(4, rich, n, p, p_bias, p_state, p_extra, &of.rows, batch, of.rating + t,
                                           weight, m, of.mean, hp, hq)
            t += m
            if rich and weight != NULL:
                weight += m
        if r % 32 == 31:  # so few in single precision, the rest in double
            squares += lane_sum(squared)
            squared = vec_splat(0)
    return squares + lane_sum(squared)


# A pass of each solver, twice: for the usual case, with the usual row lengths as constants of the compiler so that loops
# over factors are unrolled; and for everything. They are functions of their own, called by address: compiled into one,
# the rare ones cost the first a tenth of its speed.

cdef double usual(const Block* b, Solver* unused) noexcept nogil:
    cdef Solver hp, hq
    constants(&hp, &b.run_rule)
    constants(&hq, &b.rule)
    if b.n == 32 / LANES:
        return walk(False, <Py_ssize_t>(32 / LANES), b, &hp, &hq)
    if Solver is Sgd or Solver is Frozen:
        if b.n == 16 / LANES:
            return walk(False, <Py_ssize_t>(16 / LANES), b, &hp, &hq)
        if b.n == 24 / LANES:
            return walk(False, <Py_ssize_t>(24 / LANES), b, &hp, &hq)
        if b.n == 64 / LANES:
            return walk(False, <Py_ssize_t>(64 / LANES), b, &hp, &hq)
    return walk(False, b.n, b, &hp, &hq)


cdef double rich(const Block* b, Solver* unused) noexcept nogil:
    cdef Solver hp, hq
    constants(&hp, &b.run_rule)
    constants(&hq, &b.rule)
    return walk(True, b.n, b, &hp, &hq)


ctypedef double (*Pass)(const Block*, void*) noexcept nogil

SOLVERS = (None, "sgd", "momentum", "adagrad_row", "adagrad", "adam", "adamax")

cdef Pass[7][2] PASSES
PASSES[0][0], PASSES[0][1] = <Pass>usual[Frozen], <Pass>rich[Frozen]
PASSES[1][0], PASSES[1][1] = <Pass>usual[Sgd], <Pass>rich[Sgd]
PASSES[2][0], PASSES[2][1] = <Pass>usual[Momentum], <Pass>rich[Momentum]
PASSES[3][0], PASSES[3][1] = <Pass>usual[AdagradRow], <Pass>rich[AdagradRow]
PASSES[4][0], PASSES[4][1] = <Pass>usual[Adagrad], <Pass>rich[Adagrad]
PASSES[5][0], PASSES[5][1] = <Pass>usual[Adam], <Pass>rich[Adam]
PASSES[6][0], PASSES[6][1] = <Pass>usual[Adamax], <Pass>rich[Adamax]


def n_states(str solver):
    """Numbers of state that a solver keeps for each factor; None for "sgd", which keeps nothing at all."""
    return {"momentum": 1, "adagrad_row": 0, "adagrad": 1, "adam": 2, "adamax": 2}.get(solver)


cdef class Side:
    """The rows of one side, for `block`, which changes them in place.

    Parameters
    ----------
    factors, biases, state, extra : (rows, multiple of 8), (rows,), (rows, n_states * width), (rows, 4)
        `extra` holds a row's two clocks (beta^t) and the states of its bias. For "adagrad_row" it has one column, the
        accumulator; for "sgd" state and extra have none.
    """
    cdef Rows rows
    cdef Py_ssize_t width, state_width, extra_width
    cdef object arrays  # kept alive

    def __init__(self, real[:, ::1] factors, real[::1] biases, real[:, ::1] state, real[:, ::1] extra):
        self.arrays, self.width, self.state_width = (factors, biases, state, extra), factors.shape[1], state.shape[1]
        self.rows.factors, self.rows.biases = <vec*>&factors[0, 0], &biases[0]
        self.rows.state = <vec*>&state[0, 0] if state.shape[1] else NULL
        self.rows.extra = &extra[0, 0] if extra.shape[1] else NULL
        self.extra_width = extra.shape[1]


cdef class Blocks:
    """The ratings of a grid, for `block`.

    Parameters
    ----------
    block_runs, block_start : (blocks + 1,)
        Where each block's runs and ratings start.
    band_start : (bands + 1,)
        Where each band of the gathered side starts; its last row is spare: zeros, and left so.
    run_row, run_end : (runs,)
        Row of each run, and where in the block its ratings end.
    index, rating, weight : (ratings + 8,)
        Row in the gathered band, rating and its weight; an empty `weight` means that all are 1. The last 8 are read but
        count for nothing.
    """
    cdef const int64_t[::1] block_runs, block_start, band_start
    cdef const int32_t[::1] run_row
    cdef const uint32_t[::1] run_end
    cdef const uint16_t[::1] index
    cdef const real[::1] rating, weight

    def __init__(self, block_runs, block_start, band_start, run_row, run_end, index, rating, weight):
        self.block_runs, self.block_start, self.band_start = block_runs, block_start, band_start
        self.run_row, self.run_end, self.index = run_row, run_end, index
        self.rating, self.weight = rating, weight


def block(
    Side run_side, Side side, Blocks blocks, Py_ssize_t x, Py_ssize_t y, double mean, str solver=None,
    const double[:, ::1] rules=None,
):
    """One pass over block (x, y) of the grid, in place; without a `solver` the same pass without a step.

    Parameters
    ----------
    run_side, side : Side
        The side whose ratings are stored as runs; the gathered side.
    solver : {"sgd", "momentum", "adagrad_row", "adagrad", "adam", "adamax"}
    rules : (2, len(RULE)) float64
        Hyper-parameters of the run side and of the gathered side, in the order of `RULE`.

    Returns
    -------
    float
        Weighted sum of squared errors, each taken before its own micro-batch's step.
    """
    cdef double squares
    cdef Block b
    cdef bint rich
    cdef int code = SOLVERS.index(solver)
    cdef Py_ssize_t number = x * (blocks.band_start.shape[0] - 1) + y, first = blocks.band_start[y], n = side.width // LANES
    cdef Py_ssize_t run = blocks.block_runs[number], start = blocks.block_start[number]
    b.count = blocks.block_runs[number + 1] - run
    if b.count == 0:
        return 0.0
    b.n, b.mean, b.spare = n, <real>mean, <uint16_t>(blocks.band_start[y + 1] - first - 1)
    b.runs, b.rows = run_side.rows, side.rows
    b.rows.factors += first * n
    b.rows.biases += first
    b.rows.state += first * side.state_width // LANES
    b.rows.extra += first * side.extra_width
    b.run_row, b.run_end = &blocks.run_row[run], &blocks.run_end[run]
    b.index, b.rating = &blocks.index[start], &blocks.rating[start]
    b.weight = &blocks.weight[start] if blocks.weight.shape[0] else NULL
    rich = b.weight != NULL
    if code:
        b.run_rule, b.rule = (<const Rule*>&rules[0, 0])[0], (<const Rule*>&rules[1, 0])[0]
        rich |= max(b.rule.l1, b.rule.l1_bias, b.run_rule.l1, b.run_rule.l1_bias) > 0
        rich |= max(b.rule.low, b.run_rule.low) > -INFINITY
    with nogil:
        squares = PASSES[code][rich](&b, NULL)
    return squares
