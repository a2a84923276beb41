# The step of one micro-batch. The stages have the order and the names of the reference at the head
# of `_sgd.pyx`, which includes this file.
#
# `size` is the number of gathered rows and `n` the number of vec in a row. The compiler knows both
# wherever speed counts, so that it unrolls the loops over them. `hp` and `hq` are the solver with
# the constants of the run side and of the gathered side.

from libc.stdint cimport uint16_t

include "../_formula.pxi"

cdef extern from "../machine/_bounds.h":
    void CHECK_INSIDE(Py_ssize_t at, Py_ssize_t n) nogil

cdef extern from "../machine/_vec.h":
    enum: BATCH_VECS             # vec that hold 8 numbers
    void lane_sums(const vec*, int, real*) nogil
    real lane_sum(loose_vec) nogil
    bint KNOWN(Py_ssize_t) nogil
    void gather(const real*, const uint16_t*, int, vec*) nogil


cdef real[9][8] KEEP  # [m]: m times 1, then 0
for _m in range(9):
    for _j in range(8):
        KEEP[_m][_j] = _j < _m

cdef enum:
    OWN = 4  # numbers of `Own`

cdef struct Own:            # a row's own numbers, apart from factors, bias and their states
    real clock              # or AdagradRow's accumulator
    real second_clock
    real bias_state[2]

cdef struct Rows:           # the rows of one side
    Py_ssize_t count        # rows, which a debug build checks
    vec* factors
    real* biases
    vec* state              # a row's states of all factors, one state after the other
    real* own               # of each row `own_width` numbers of `Own`

cdef struct Batch:          # the ratings of a micro-batch and their rows
    # The row that all ratings of the run share.
    vec* p
    real* p_bias
    vec* p_state
    Own* p_own
    # The ratings.
    Rows rows               # the gathered side
    const uint16_t* index   # row on the gathered side of each rating
    const real* rating
    const real* weight      # NULL: all ratings weigh 1
    int count               # ratings that count, the first ones; the others' errors are set to 0
    real mean

cdef struct Lanes:          # numbers of the gathered rows, a row a lane
    vec product[BATCH_VECS]         # p . q
    vec error[BATCH_VECS]
    vec push[BATCH_VECS]            # AdagradRow: errors times rates
    vec bias[BATCH_VECS]
    vec bias_state[2 * BATCH_VECS]  # the first states, then the second ones
    vec clock[BATCH_VECS]
    vec second_clock[BATCH_VECS]
    vec rate[BATCH_VECS]
    vec shrink[BATCH_VECS]

cdef struct Work:           # the intermediate results of a micro-batch
    vec* q[8]
    vec* q_state[8]
    Lanes lanes
    real error              # sum of the errors
    vec p_rate
    vec p_shrink
    vec p_square            # AdagradRow: p * p, summed over the row's vec
    vec push_square         # AdagradRow: the same of the push of p


cdef inline int own_width(const Solver* s) noexcept nogil:
    """Return how many numbers of `Own` a row has in memory.

    AdagradRow's accumulator lies alone: an epoch takes 0.96 of the time so.
    """
    return OWN if states(s) else clocks(s)


cdef inline int vecs(int size) noexcept nogil:
    """Return how many vec hold `size` numbers."""
    return (size + LANES - 1) // LANES


cdef inline void find_rows(
    int size, Py_ssize_t n, const Batch* batch, Work* work, const Solver* hq
) noexcept nogil:
    """Set the addresses of the gathered rows."""
    cdef int j
    for j in range(size):
        CHECK_INSIDE(batch.index[j], batch.rows.count)
        work.q[j] = batch.rows.factors + batch.index[j] * n
        work.q_state[j] = batch.rows.state + batch.index[j] * n * states(hq)


cdef inline Own* own_of(const Batch* batch, int j, const Solver* hq) noexcept nogil:
    """Return the address of the own numbers of gathered row j."""
    return <Own*>(batch.rows.own + batch.index[j] * own_width(hq))


cdef inline void read_own_numbers(
    int size, const Batch* batch, Lanes* lanes, const Solver* hq
) noexcept nogil:
    """Set the lanes to the own numbers of the gathered rows."""
    cdef int j
    cdef Own* own
    for j in range(size):
        own = own_of(batch, j, hq)
        if clocks(hq) > 0:
            (<real*>lanes.clock)[j] = own.clock
        if clocks(hq) > 1:
            (<real*>lanes.second_clock)[j] = own.second_clock
        if states(hq) > 0:
            (<real*>lanes.bias_state)[j] = own.bias_state[0]
        if states(hq) > 1:
            (<real*>lanes.bias_state)[8 + j] = own.bias_state[1]


cdef inline void dot_products(
    int size, Py_ssize_t n, const Batch* batch, Work* work, const Solver* hp
) noexcept nogil:
    """Set `product` to p . q of every gathered row: they share the loads of p."""
    cdef vec sums[8]  # not yet summed over the lanes
    cdef vec x = batch.p[0]
    cdef Py_ssize_t f
    cdef int j
    work.p_square = x * x
    for j in range(size):
        sums[j] = x * work.q[j][0]
    for f in range(1, n):
        x = batch.p[f]
        if Solver is AdagradRow:
            work.p_square += x * x
        for j in range(size):
            sums[j] += x * work.q[j][f]
    lane_sums(sums, size, <real*>work.lanes.product)


cdef inline vec errors(
    int size, bint rich, const Batch* batch, Work* work, const Solver* hq
) noexcept nogil:
    """Set the errors, times their weights, and their sum; return the weighted squares in lanes."""
    cdef Lanes* lanes = &work.lanes
    cdef vec error, weighted
    cdef vec squared = vec_splat(0)
    cdef vec summed = vec_splat(0)
    cdef int i, j
    if Solver is Sgd or Solver is Frozen:
        gather(batch.rows.biases, batch.index, size, lanes.bias)
    else:  # the other way here takes up to 1.1 of the time of an epoch: measured with adamax
        for i in range(vecs(size)):  # the stack may hold NaN, which no mask takes away
            lanes.bias[i] = vec_splat(0)
        for j in range(size):
            (<real*>lanes.bias)[j] = batch.rows.biases[batch.index[j]]
    for i in range(vecs(size)):
        # All that does not need the dot products is subtracted before them, and is done meanwhile.
        error = (
            (<const loose_vec*>(batch.rating + i * LANES))[0]
            - biases_alone(batch.mean, batch.p_bias[0], lanes.bias[i])
            - lanes.product[i]
        )
        if batch.count < size or size % LANES:
            error *= (<const loose_vec*>(KEEP[batch.count] + i * LANES))[0]
        weighted = error
        if rich and batch.weight != NULL:
            weighted = error * (<const loose_vec*>(batch.weight + i * LANES))[0]
        squared += weighted * error
        summed += weighted
        lanes.error[i] = weighted
    if Solver is not Frozen:
        work.error = lane_sum(summed)
    return squared


cdef inline void rates(
    int size, const Batch* batch, Work* work, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Move the clocks on; set the rates and the L2 penalties of all rows."""
    cdef Lanes* lanes = &work.lanes
    cdef vec clock, second_clock
    cdef int i
    if Solver is Sgd:
        work.p_rate = vec_splat(hp.h.rate)
    else:
        for i in range(vecs(size)):
            tick(hq, &lanes.clock[i], &lanes.second_clock[i])
            lanes.rate[i] = scaled_rate(hq, lanes.clock[i], lanes.second_clock[i])
            lanes.shrink[i] = shrinkage(hq, hq.h.shrink[1], lanes.rate[i])
        clock = vec_splat(batch.p_own.clock if clocks(hp) > 0 else 0)
        second_clock = vec_splat(batch.p_own.second_clock if clocks(hp) > 1 else 0)
        tick(hp, &clock, &second_clock)
        work.p_rate = scaled_rate(hp, clock, second_clock)
        if clocks(hp) > 0:
            batch.p_own.clock = vec_first(clock)
        if clocks(hp) > 1:
            batch.p_own.second_clock = vec_first(second_clock)
    work.p_shrink = shrinkage(hp, hp.h.shrink[batch.count], work.p_rate)


cdef inline vec bias_step(
    const Solver* s, real shrink, vec rate, int m, vec x, vec push, vec* state, Py_ssize_t n
) noexcept nogil:
    """Return biases, one a lane, after the step of m ratings each; `push` sums their errors."""
    if Solver is AdagradRow:
        push *= rate
    x = step(s, shrinkage(s, shrink, rate), rate, x, push, state, n)
    if s.h.proximal:
        x = proximal(x, m * s.h.l1_bias * reach(s, rate, state, n), -INFINITY)
    return x


cdef inline void biases(
    int size, bint rich, const Batch* batch, Work* work, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Let the biases of all rows take their steps."""
    cdef Lanes* lanes = &work.lanes
    cdef real* bias = <real*>lanes.bias
    cdef vec p_state[2]
    cdef vec p_bias = vec_splat(batch.p_bias[0])
    cdef int i, j, m = batch.count
    if Solver is Sgd:
        for i in range(vecs(size)):
            lanes.bias[i] = lanes.bias[i] * hq.h.bias_shrink[1] + hq.h.bias_rate * lanes.error[i]
        p_bias = vec_splat(
            batch.p_bias[0] * hp.h.bias_shrink[m] + hp.h.bias_rate * work.error
        )
        if rich and hq.h.proximal:
            for i in range(vecs(size)):
                lanes.bias[i] = proximal(
                    lanes.bias[i], vec_splat(hq.h.bias_rate * hq.h.l1_bias), -INFINITY
                )
        if rich and hp.h.proximal:
            p_bias = proximal(p_bias, vec_splat(m * hp.h.bias_rate * hp.h.l1_bias), -INFINITY)
    else:
        if hq.h.bias_rate != 0:
            for i in range(vecs(size)):
                lanes.bias[i] = bias_step(
                    hq, hq.h.bias_shrink[1], lanes.rate[i], 1, lanes.bias[i], lanes.error[i],
                    &lanes.bias_state[i], BATCH_VECS,
                )
            if states(hp):
                p_state[0] = vec_splat(batch.p_own.bias_state[0])
                p_state[1] = vec_splat(batch.p_own.bias_state[1])
            p_bias = bias_step(
                hp, hp.h.bias_shrink[m], work.p_rate, m, p_bias, vec_splat(work.error), p_state, 1
            )
            if states(hp):
                batch.p_own.bias_state[0] = vec_first(p_state[0])
                batch.p_own.bias_state[1] = vec_first(p_state[1])
    for j in range(size):
        batch.rows.biases[batch.index[j]] = bias[j]
    batch.p_bias[0] = vec_first(p_bias)


cdef inline real* pushes(Lanes* lanes, const Solver* s) noexcept nogil:
    """Return the numbers that p is multiplied by in the pushes of the gathered rows."""
    if Solver is AdagradRow:
        return <real*>lanes.push
    else:
        return <real*>lanes.error


cdef inline vec q_step(
    int j, Work* work, vec x, vec push, vec* state, Py_ssize_t n, const Solver* s
) noexcept nogil:
    """Return a vec of gathered row j after its step; to plain SGD all rows are the same."""
    cdef Lanes* lanes = &work.lanes
    if Solver is Sgd:
        return step(s, vec_splat(s.h.shrink[1]), vec_splat(s.h.rate), x, push, state, n)
    else:
        return step(
            s, vec_splat((<real*>lanes.shrink)[j]), vec_splat((<real*>lanes.rate)[j]),
            x, push, state, n,
        )


cdef inline vec first_push(const Work* work, vec x, const Solver* s) noexcept nogil:
    """Return the vec that the pushes of p add to.

    For plain SGD it is the part of p that L2 leaves, and the sum then is the step: the next
    micro-batch, which waits for p, waits for one operation less.
    """
    return x * work.p_shrink if Solver is Sgd else vec_splat(0)


cdef inline vec p_step(
    Work* work, vec x, vec push, vec* state, Py_ssize_t n, const Solver* s
) noexcept nogil:
    """Return a vec of p after its step; `push` began as `first_push`."""
    if Solver is Sgd:
        return push
    else:
        if Solver is AdagradRow:
            work.push_square += push * push
            push *= vec_first(work.p_rate)
        return step(s, work.p_shrink, work.p_rate, x, push, state, n)


cdef inline void factor_steps(
    int count, Py_ssize_t first, int size, Py_ssize_t n, const Batch* batch, Work* work,
    const Solver* hp, const Solver* hq,
) noexcept nogil:
    """Let `count` (1 to 4) vec of all rows take their steps, from `first` on.

    Both old values are read before one is written. The four vec are written out: as a loop over
    arrays of `count` vec an epoch takes up to 1.11 of the time (adamax, k = 100).
    """
    cdef real* error = <real*>work.lanes.error
    cdef real* q_push = pushes(&work.lanes, hq)
    cdef vec* p = batch.p + first
    cdef vec* p_state = batch.p_state + first
    cdef vec* q
    cdef vec* q_state
    cdef vec old0, old1, old2, old3, push0, push1, push2, push3, x
    cdef int j
    old0 = p[0]
    push0 = first_push(work, old0, hp)
    if count > 1:
        old1 = p[1]
        push1 = first_push(work, old1, hp)
    if count > 2:
        old2 = p[2]
        push2 = first_push(work, old2, hp)
    if count > 3:
        old3 = p[3]
        push3 = first_push(work, old3, hp)
    for j in range(size):
        q = work.q[j] + first
        q_state = work.q_state[j] + first
        x = q[0]
        push0 += error[j] * x
        q[0] = q_step(j, work, x, q_push[j] * old0, q_state, n, hq)
        if count > 1:
            x = q[1]
            push1 += error[j] * x
            q[1] = q_step(j, work, x, q_push[j] * old1, q_state + 1, n, hq)
        if count > 2:
            x = q[2]
            push2 += error[j] * x
            q[2] = q_step(j, work, x, q_push[j] * old2, q_state + 2, n, hq)
        if count > 3:
            x = q[3]
            push3 += error[j] * x
            q[3] = q_step(j, work, x, q_push[j] * old3, q_state + 3, n, hq)
    p[0] = p_step(work, old0, push0, p_state, n, hp)
    if count > 1:
        p[1] = p_step(work, old1, push1, p_state + 1, n, hp)
    if count > 2:
        p[2] = p_step(work, old2, push2, p_state + 2, n, hp)
    if count > 3:
        p[3] = p_step(work, old3, push3, p_state + 3, n, hp)


cdef inline void factors(
    int size, Py_ssize_t n, const Batch* batch, Work* work, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Let the factors of all rows take their steps.

    Four vec at a time keep four pushes of p in registers. The rest of a row whose length the
    compiler knows goes side by side as well: 0.91 of the time for k = 20.
    """
    cdef Lanes* lanes = &work.lanes
    cdef Py_ssize_t f = 0
    cdef int i
    work.push_square = vec_splat(0)
    for i in range(vecs(size)):
        if Solver is AdagradRow:
            lanes.push[i] = lanes.error[i] * lanes.rate[i]
        elif Solver is Sgd:
            lanes.error[i] = lanes.error[i] * hq.h.rate
    while f + 4 <= n:
        factor_steps(4, f, size, n, batch, work, hp, hq)
        f += 4
    if KNOWN(n) and n - f == 3:
        factor_steps(3, f, size, n, batch, work, hp, hq)
        f += 3
    if KNOWN(n) and n - f == 2:
        factor_steps(2, f, size, n, batch, work, hp, hq)
        f += 2
    while f < n:
        factor_steps(1, f, size, n, batch, work, hp, hq)
        f += 1


cdef inline void penalties(
    int size, Py_ssize_t n, const Batch* batch, Work* work, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Apply L1 and the lower bound to the factors of all rows."""
    cdef vec threshold
    cdef real rate
    cdef vec* q
    cdef Py_ssize_t f
    cdef int j
    if hq.h.proximal:
        for f in range(n):
            for j in range(size):
                rate = hq.h.rate if Solver is Sgd else (<real*>work.lanes.rate)[j]
                threshold = hq.h.l1 * reach(hq, vec_splat(rate), work.q_state[j] + f, n)
                q = work.q[j] + f
                q[0] = proximal(q[0], threshold, hq.h.low)
    if hp.h.proximal:
        for f in range(n):
            threshold = batch.count * hp.h.l1 * reach(hp, work.p_rate, batch.p_state + f, n)
            batch.p[f] = proximal(batch.p[f], threshold, hp.h.low)


cdef inline void write_own_numbers(
    int size, const Batch* batch, Work* work, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Let AdagradRow's accumulators grow, and put the gathered rows' own numbers back."""
    cdef Lanes* lanes = &work.lanes
    cdef Own* own
    cdef real seen
    cdef int i, j
    if Solver is AdagradRow:
        seen = (lane_sum(work.p_square) + (hq.h.bias_rate != 0)) * hq.h.share
        for i in range(vecs(size)):
            lanes.clock[i] += lanes.error[i] * lanes.error[i] * seen
        seen = lane_sum(work.push_square) + work.error * work.error * (hp.h.bias_rate != 0)
        batch.p_own.clock += seen * hp.h.share
    for j in range(size):
        own = own_of(batch, j, hq)
        if clocks(hq) > 0:
            own.clock = (<real*>lanes.clock)[j]
        if clocks(hq) > 1:
            own.second_clock = (<real*>lanes.second_clock)[j]
        if states(hq) > 0:
            own.bias_state[0] = (<real*>lanes.bias_state)[j]
        if states(hq) > 1:
            own.bias_state[1] = (<real*>lanes.bias_state)[8 + j]


cdef inline vec micro_batch(
    int size, bint rich, Py_ssize_t n, const Batch* batch, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Let one micro-batch take its step; return its weighted squared errors in lanes.

    `size` (at most 8) rows are gathered for batch.count <= size ratings; index[count:size] names
    the band's spare row. `rich`: there may be weights, L1 or a lower bound.
    """
    cdef Work work
    cdef vec squared
    find_rows(size, n, batch, &work, hq)
    read_own_numbers(size, batch, &work.lanes, hq)
    dot_products(size, n, batch, &work, hp)
    squared = errors(size, rich, batch, &work, hq)
    if Solver is not Frozen:
        rates(size, batch, &work, hp, hq)
        biases(size, rich, batch, &work, hp, hq)
        factors(size, n, batch, &work, hp, hq)
        if rich:
            penalties(size, n, batch, &work, hp, hq)
        write_own_numbers(size, batch, &work, hp, hq)
    return squared
