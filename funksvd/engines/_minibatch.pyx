# cython: language_level=3, freethreading_compatible=True
"""CPU kernels of mini-batches, exactly as Keras trains two embeddings: the gradient of one batch, then a step of every row.

A row holds its factors, its bias and a 1; on the other side the last two change places, so that one inner product is
the prediction less the mean, and one sum of rows is the gradient of factors and bias::

    r_hat - mean = [p, b_u, 1] . [q, 1, b_i]

A batch takes three passes, each over parts of the rows that may run at once: `count`, `forward` over the rows of one
side (ratings come grouped by them), `backward` over those of the other. A row's gradient is summed by one thread in the
order of the ratings, and new rows are written beside the old ones, so that neither the parts nor their order change a
bit.
"""

from libc.stdint cimport int32_t, int64_t

include "_solvers.pxi"

cdef extern from "../machine/_vec.h":
    void lane_sums4(vec, vec, vec, vec, real*) nogil
    void PREFETCH(const void*) nogil
    void PREFETCH_WRITE(const void*) nogil

cdef enum:
    AHEAD = 24  # ratings between asking for a row and reading it

cdef struct Entry:  # what a rating leaves for the other side
    int32_t row
    real push  # 2 w e / size of the batch: minus the gradient by the prediction

cdef struct Rows:  # one side
    Py_ssize_t n  # vec in a row
    vec* old
    vec* new
    vec* state
    const vec* l2     # of each value of a row, as Keras' gradient has it: 2 l2 x + l1 sign(x)
    const vec* l1
    const vec* low
    const vec* learnt  # 1 or 0
    Rule rule
    double clock_1, clock_2  # beta_1^t, beta_2^t
    real share  # of the penalty for each rating in the batch; 0: the whole of it with every batch
    bint plain  # neither L1 nor a lower bound

ctypedef void (*Step)(void*, const Rows*, Py_ssize_t, Py_ssize_t) noexcept nogil


cdef void begin(Solver* s, const Rows* rows) noexcept nogil:
    """The solver's constants, its rate among them, which is the same for all rows: all share the clock."""
    constants(s, &rows.rule)
    s.h.rate = vec_first(scaled_rate(s, vec_splat(<real>rows.clock_1), vec_splat(<real>rows.clock_2)))


cdef void step_row(Solver* s, const Rows* rows, Py_ssize_t row, Py_ssize_t m) noexcept nogil:
    """The new row, which holds the summed pushes of m ratings before."""
    cdef Py_ssize_t n = rows.n, f
    cdef vec* old = rows.old + row * n
    cdef vec* new = rows.new + row * n
    cdef vec* state = rows.state + row * n * states(s)
    cdef vec rate = vec_splat(s.h.rate), shrink, push
    cdef real penalty = rows.share * m if rows.share > 0 else 1
    for f in range(n):
        push = new[f] * rows.learnt[f]
        if not rows.plain:
            push -= penalty * rows.l1[f] * vec_sign(old[f])
        shrink = penalty * rows.l2[f]
        if Solver is Sgd:  # its step wants the rate in both
            push, shrink = rate * push, vec_splat(1) - rate * shrink
        new[f] = step(s, shrink, rate, old[f], push, state + f, n)
        if not rows.plain:
            new[f] = vec_max(new[f], rows.low[f])


cdef union AnySolver:
    Sgd sgd
    Momentum momentum
    Adagrad adagrad
    Adam adam
    Adamax adamax

ctypedef void (*Begin)(void*, const Rows*) noexcept nogil

cdef Begin[16] BEGIN  # by code
cdef Step[16] STEP
SOLVERS = ()  # names by code


cdef int enter(Solver* s) except -1:
    """Enter a solver into the lists: its code is its place. Two exist for the block grid alone."""
    global SOLVERS
    if Solver is not Frozen and Solver is not AdagradRow:
        BEGIN[len(SOLVERS)] = <Begin>begin[Solver]
        STEP[len(SOLVERS)] = <Step>step_row[Solver]
        SOLVERS = (*SOLVERS, facts(s).name.decode())
    return 0


enter_solvers()


cdef struct Part:  # of a batch: the ratings of some rows, which they are grouped by
    Rows rows
    const vec* others
    Py_ssize_t first, last  # rows
    const int32_t* row
    const int32_t* other
    const real* rating
    const real* weight      # NULL: all 1
    Py_ssize_t count
    real mean, scale        # scale: 2 / size of the batch
    int32_t* cursor         # for each row of the other side, where its next entry goes
    Entry* entries
    double* squares         # of each row, grow by its weighted squared errors


cdef inline void forward_rows(Py_ssize_t n, const Part* part, Step move, void* solver) noexcept nogil:
    """Entries and new rows of a part."""
    cdef Part of = part[0]  # a copy: a write through a pointer may change the original for all the compiler knows
    cdef Py_ssize_t row, f, j, size, t = 0, m
    cdef const vec* p
    cdef const vec* q[4]
    cdef vec* sum
    cdef vec s0, s1, s2, s3
    cdef real d[8]
    cdef real e
    cdef double squares
    cdef Entry* entry
    for row in range(of.first, of.last):
        p, sum = of.rows.old + row * n, of.rows.new + row * n
        for f in range(n):
            sum[f] = vec_splat(0)
        m, squares = 0, 0
        while t < of.count and of.row[t] == row:
            size = 1
            while size < 4 and t + size < of.count and of.row[t + size] == row:
                size += 1
            for j in range(4):
                q[j] = of.others + of.other[t + min(j, size - 1)] * n
                if t + j + AHEAD < of.count:
                    PREFETCH(of.others + of.other[t + j + AHEAD] * n)
                    PREFETCH(of.others + of.other[t + j + AHEAD] * n + n - 1)
                    PREFETCH_WRITE(of.entries + of.cursor[of.other[t + j + AHEAD]])
            s0 = p[0] * q[0][0]; s1 = p[0] * q[1][0]; s2 = p[0] * q[2][0]; s3 = p[0] * q[3][0]
            for f in range(1, n):
                s0 += p[f] * q[0][f]; s1 += p[f] * q[1][f]; s2 += p[f] * q[2][f]; s3 += p[f] * q[3][f]
            lane_sums4(s0, s1, s2, s3, d)
            for j in range(4):
                if j < size:
                    e = of.rating[t + j] - (of.mean + d[j])
                    d[j] = of.scale * e
                    if of.weight == NULL:
                        squares += <double>e * e
                    else:
                        squares += of.weight[t + j] * <double>e * e
                        d[j] *= of.weight[t + j]
                    entry = of.entries + of.cursor[of.other[t + j]]
                    of.cursor[of.other[t + j]] += 1
                    entry.row, entry.push = <int32_t>row, d[j]
                else:
                    d[j] = 0
            for f in range(n):
                sum[f] += (d[0] * q[0][f] + d[1] * q[1][f]) + (d[2] * q[2][f] + d[3] * q[3][f])
            t += size
            m += size
        of.squares[row] += squares
        move(solver, &part.rows, row, m)


cdef inline void backward_rows(
    Py_ssize_t n, const Rows* rows, const vec* others, Py_ssize_t first, Py_ssize_t last, const int32_t* start,
    const Entry* entries, Step move, void* solver,
) noexcept nogil:
    """New rows of a part of the other side, from the entries."""
    cdef Py_ssize_t row, f, j, size, t, stop = start[last]
    cdef const vec* p[4]
    cdef vec* sum
    cdef real d[4]
    for row in range(first, last):
        sum = rows.new + row * n
        for f in range(n):
            sum[f] = vec_splat(0)
        for t in range(start[row], start[row + 1], 4):
            size = min(start[row + 1] - t, 4)
            for j in range(4):
                p[j] = others + entries[t + min(j, size - 1)].row * n
                d[j] = entries[t + j].push if j < size else 0
                if t + j + AHEAD < stop:
                    PREFETCH(others + entries[t + j + AHEAD].row * n)
                    PREFETCH(others + entries[t + j + AHEAD].row * n + n - 1)
            for f in range(n):
                sum[f] += (d[0] * p[0][f] + d[1] * p[1][f]) + (d[2] * p[2][f] + d[3] * p[3][f])
        move(solver, rows, row, start[row + 1] - start[row])


cdef class Side:
    """The rows of one side.

    Parameters
    ----------
    old, new, state : (rows, width), (rows, width), (rows, n_states * width)
        `new` is written, `state` changed in place; sgd's has no columns.
    columns : (4, width)
        L2 times 2, L1, lower bound, and whether it is learnt (1, 0), of each value of a row.
    rule : (len(RULE),) float64
        Hyper-parameters in the order of `RULE`; its penalties are not used.
    clock_1, clock_2 : float
        beta_1^t and beta_2^t of the step to come, the t-th.
    share : float
        How much of the penalties a row gets for each of its ratings in the batch; 0: every row gets the whole of them.
    """
    cdef Rows rows
    cdef object arrays  # kept alive

    def __init__(self, const real[:, ::1] old, real[:, ::1] new, real[:, ::1] state, const real[:, ::1] columns,
                 const double[::1] rule, double clock_1, double clock_2, double share):
        cdef Rows* rows = &self.rows
        cdef Py_ssize_t j
        self.arrays = old, new, state, columns
        rows.n, rows.old, rows.new = old.shape[1] // LANES, <vec*>&old[0, 0], <vec*>&new[0, 0]
        rows.state = <vec*>&state[0, 0] if state.shape[1] else NULL
        rows.l2, rows.l1 = <vec*>&columns[0, 0], <vec*>&columns[1, 0]
        rows.low, rows.learnt = <vec*>&columns[2, 0], <vec*>&columns[3, 0]
        rows.rule = (<const Rule*>&rule[0])[0]
        rows.clock_1, rows.clock_2, rows.share = clock_1, clock_2, <real>share
        rows.plain = True
        for j in range(columns.shape[1]):
            rows.plain = rows.plain and columns[1, j] == 0 and columns[2, j] == -INFINITY


def cut(const int32_t[::1] row, int64_t n_rows, int64_t n_parts):
    """(n_parts + 1,) where the rows are cut into parts of about equal work: a rating costs three times what a row costs."""
    cdef int64_t part, low, high, t, target
    cdef list rows = [0]
    for part in range(1, n_parts):
        target = (3 * row.shape[0] + n_rows) * part // n_parts
        low, high = 0, row.shape[0]
        while low < high:
            t = (low + high) // 2
            if 3 * t + row[t] < target:
                low = t + 1
            else:
                high = t
        rows.append(min(max(target - 3 * low, <int64_t>row[low - 1] if low else 0),
                        <int64_t>row[low] if low < row.shape[0] else n_rows))
    return [*rows, n_rows]


def cut_others(const int32_t[::1] start, int64_t n_parts):
    """The same for the other side: start[row] is where a row's entries begin."""
    cdef int64_t part, low, high, row, n_rows = start.shape[0] - 1
    cdef list rows = [0]
    for part in range(1, n_parts):
        low, high = 0, n_rows
        while low < high:
            row = (low + high) // 2
            if 3 * <int64_t>start[row] + row < (3 * <int64_t>start[n_rows] + n_rows) * part // n_parts:
                low = row + 1
            else:
                high = row
        rows.append(low)
    return [*rows, n_rows]


def count(const int32_t[::1] keys, int32_t[::1] counts):
    """counts = how often each key occurs."""
    cdef Py_ssize_t t
    with nogil:
        for t in range(counts.shape[0]):
            counts[t] = 0
        for t in range(keys.shape[0]):
            counts[keys[t]] += 1


def starts(int32_t[:, ::1] counts, int32_t[::1] start):
    """From the counts of each part: start[key] where a key's entries begin, counts[part, key] where that part's do."""
    cdef Py_ssize_t part, key
    cdef int32_t total = 0, size
    with nogil:
        for key in range(counts.shape[1]):
            start[key] = total
            for part in range(counts.shape[0]):
                size = counts[part, key]
                counts[part, key] = total
                total += size
        start[counts.shape[1]] = total


def entry_bytes():
    """Size of what `forward` leaves of a rating."""
    return sizeof(Entry)


def forward(Side side, Side other_side, str solver, Py_ssize_t first, Py_ssize_t last, const int32_t[::1] row,
            const int32_t[::1] other, const real[::1] rating, const real[::1] weight, double mean, double scale,
            int32_t[::1] cursor, unsigned char[::1] entries, double[::1] squares):
    """Errors of the ratings of rows first to last, their entries for the other side, and these rows after the step.

    Parameters
    ----------
    row, other, rating, weight : (ratings,)
        Grouped by ascending row, which are all in first to last. An empty `weight` means that all are 1.
    scale : float
        2 / size of the batch.
    cursor : (rows of the other side,)
        Where each one's next entry goes; moves on.
    squares : (rows,)
        Weighted squared errors are added to it.
    """
    cdef Part part
    cdef AnySolver s
    cdef int code = SOLVERS.index(solver)
    cdef Py_ssize_t n = side.rows.n
    part.rows, part.others, part.first, part.last = side.rows, other_side.rows.old, first, last
    part.count = row.shape[0]
    part.weight = NULL
    if part.count:
        part.row, part.other, part.rating = &row[0], &other[0], &rating[0]
        part.weight = &weight[0] if weight.shape[0] else NULL
    part.mean, part.scale, part.cursor = <real>mean, <real>scale, &cursor[0]
    part.entries, part.squares = <Entry*>&entries[0], &squares[0]
    with nogil:
        BEGIN[code](&s, &side.rows)
        if n == 16 / LANES:
            forward_rows(<Py_ssize_t>(16 / LANES), &part, STEP[code], &s)
        elif n == 24 / LANES:
            forward_rows(<Py_ssize_t>(24 / LANES), &part, STEP[code], &s)
        elif n == 40 / LANES:
            forward_rows(<Py_ssize_t>(40 / LANES), &part, STEP[code], &s)
        else:
            forward_rows(n, &part, STEP[code], &s)


def backward(Side side, Side other_side, str solver, Py_ssize_t first, Py_ssize_t last, const int32_t[::1] start,
             const unsigned char[::1] entries):
    """Rows first to last of the other side after the step, by their entries."""
    cdef AnySolver s
    cdef int code = SOLVERS.index(solver)
    cdef Py_ssize_t n = side.rows.n
    cdef const Entry* entry = <const Entry*>&entries[0]
    with nogil:
        BEGIN[code](&s, &side.rows)
        if n == 16 / LANES:
            backward_rows(<Py_ssize_t>(16 / LANES), &side.rows, other_side.rows.old, first, last, &start[0], entry,
                          STEP[code], &s)
        elif n == 24 / LANES:
            backward_rows(<Py_ssize_t>(24 / LANES), &side.rows, other_side.rows.old, first, last, &start[0], entry,
                          STEP[code], &s)
        elif n == 40 / LANES:
            backward_rows(<Py_ssize_t>(40 / LANES), &side.rows, other_side.rows.old, first, last, &start[0], entry,
                          STEP[code], &s)
        else:
            backward_rows(n, &side.rows, other_side.rows.old, first, last, &start[0], entry, STEP[code], &s)
