# cython: language_level=3, freethreading_compatible=True
"""CPU kernels of mini-batches: the gradient of one batch, then a step of every row, as in Keras.

A row x of one side holds its factors, its bias and a 1. In a row y of the other side the last two
change places, so that one inner product is the prediction less the mean, and one sum of rows is the
gradient of factors and bias::

    x = [p, b_u, 1],    y = [q, 1, b_i],    prediction = mean + x . y

One batch of ratings r with weights w is, in NumPy::

    e = r - (mean + (x[row] * y[other]).sum(1))         # errors
    push = 2 / len(r) * w * e                           # minus the gradient by the prediction
    sum_x, sum_y = zeros_like(x), zeros_like(y)
    add.at(sum_x, row, push[:, None] * y[other])        # minus the gradients by the rows
    add.at(sum_y, other, push[:, None] * x[row])
    x, y = step(x, sum_x), step(y, sum_y)               # of all rows; penalties join in here

A batch takes four stages, each over parts of the rows that may run at once:

count     how many ratings of each part belong to each row of the other side
forward   errors and steps of the rows that the batch is grouped by; the pushes go to `Entry`s,
          which are sorted by the rows of the other side
backward  steps of the rows of the other side, by their entries

`starts` stands between the first two and turns counts into places. One thread sums the gradient of
a row, in the order of the ratings, and new rows are written beside the old ones. So neither the
number of parts nor their order changes a bit.
"""

from libc.stdint cimport int32_t

include "_solvers.pxi"
include "_parts.pxi"

cdef extern from "../machine/_vec.h":
    void lane_sums4(vec, vec, vec, vec, real*) nogil
    void PREFETCH(const void*) nogil
    void PREFETCH_WRITE(const void*) nogil

cdef enum:
    # A row is asked for this many ratings before it is read. With 12 instead of 24 an epoch of
    # ML-20M's shape takes a tenth longer.
    AHEAD = 24
    AT_ONCE = 4  # ratings whose dot products and sums are computed together

MOST_PARTS = MOST

cdef struct Entry:  # what a rating leaves for the other side
    int32_t row
    real push

cdef struct Rows:  # one side
    Py_ssize_t n  # vectors in a row
    vec* old
    vec* new
    vec* state
    const vec* l2  # of each value of a row: 2 l2
    const vec* l1
    const vec* low
    const vec* learned  # 1 or 0
    Rule rule
    double clock_1, clock_2  # beta_1^t, beta_2^t
    real share  # of the penalty for each rating in the batch; 0: the whole of it with every batch
    bint plain  # there is neither L1 nor a lower bound
    bint clears  # whether this step clears the rows of tiny numbers


# ---------------------------------------------------------------------------------- step of a row

include "_row_steps.pxi"

cdef struct Moving:  # the rows that step, by one solver
    Rows rows
    Kind kind
    Hyper solver  # a solver's struct holds its constants and nothing else


# ---------------------------------------------------------------------------------------- forward

cdef struct Forward:  # everything that one part of `forward` reads and writes
    Part part
    const vec* others
    const int32_t* row
    const int32_t* other
    const real* rating
    const real* weight  # NULL: all are 1
    real mean
    real scale  # 2 / size of the batch
    int32_t* cursor  # of each row of the other side: where its next entry goes
    Entry* entries
    double* squares  # of each row, grow by its weighted squared errors


cdef inline Py_ssize_t neighbours(const Forward* at, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """Return how many ratings from place t on belong to a row; at most AT_ONCE."""
    cdef Py_ssize_t size = 1
    while size < AT_ONCE and t + size < at.part.stop and at.row[t + size] == row:
        size += 1
    return size


cdef inline void ask_ahead(const Forward* at, Py_ssize_t n, Py_ssize_t t) noexcept nogil:
    """Ask for the first and last line of the other row of rating t, and for its entry."""
    cdef const vec* other
    if t < at.part.stop:
        other = at.others + at.other[t] * n
        PREFETCH(other)
        PREFETCH(other + n - 1)
        PREFETCH_WRITE(at.entries + at.cursor[at.other[t]])


cdef inline void dot_products(Py_ssize_t n, const vec* p, const vec** q, real* dots) noexcept nogil:
    """Compute dots[j] = p . q[j] of four rows."""
    cdef Py_ssize_t f
    cdef vec s0 = p[0] * q[0][0]
    cdef vec s1 = p[0] * q[1][0]
    cdef vec s2 = p[0] * q[2][0]
    cdef vec s3 = p[0] * q[3][0]
    for f in range(1, n):
        s0 += p[f] * q[0][f]
        s1 += p[f] * q[1][f]
        s2 += p[f] * q[2][f]
        s3 += p[f] * q[3][f]
    lane_sums4(s0, s1, s2, s3, dots)


cdef inline void add_rows(Py_ssize_t n, const vec** q, const real* push, vec* sum) noexcept nogil:
    """Add to `sum` four rows times their pushes."""
    cdef Py_ssize_t f
    for f in range(n):
        sum[f] += (push[0] * q[0][f] + push[1] * q[1][f]) + (push[2] * q[2][f] + push[3] * q[3][f])


cdef inline void judge(
    const Forward* at, Py_ssize_t t, real dot, real* push, double* squares,
) noexcept nogil:
    """Set the push of rating t; add its weighted squared error to `squares`."""
    cdef real e = at.rating[t] - (at.mean + dot)
    push[0] = at.scale * e
    if at.weight == NULL:
        squares[0] += <double>e * e
    else:
        squares[0] += at.weight[t] * <double>e * e
        push[0] *= at.weight[t]


cdef inline void leave(const Forward* at, Py_ssize_t t, Py_ssize_t row, real push) noexcept nogil:
    """Leave the entry of rating t for the other side."""
    cdef int32_t other = at.other[t]
    cdef Entry* entry = at.entries + at.cursor[other]
    at.cursor[other] += 1
    entry.row = <int32_t>row
    entry.push = push


cdef inline void forward_rows(Py_ssize_t n, const Forward* work, Moving* moving) noexcept nogil:
    """Write the entries and the new rows of a part."""
    # A copy, because a write through a pointer could change the original, for all that the
    # compiler knows.
    cdef Forward at = work[0]
    cdef Py_ssize_t row, f, j, size, m
    cdef Py_ssize_t t = at.part.start
    cdef const vec* p
    cdef const vec* q[AT_ONCE]
    cdef vec* sum
    cdef real dots[8]  # lane_sums4 may write a whole vector
    cdef real push[AT_ONCE]
    cdef double squares
    for row in range(at.part.first, at.part.last):
        p = moving.rows.old + row * n
        sum = moving.rows.new + row * n
        for f in range(n):
            sum[f] = vec_splat(0)
        m = 0
        squares = 0
        while t < at.part.stop and at.row[t] == row:
            size = neighbours(&at, t, row)
            for j in range(AT_ONCE):
                q[j] = at.others + at.other[t + min(j, size - 1)] * n
                ask_ahead(&at, n, t + j + AHEAD)
            dot_products(n, p, q, dots)
            for j in range(AT_ONCE):
                push[j] = 0
                if j < size:
                    judge(&at, t + j, dots[j], &push[j], &squares)
                    leave(&at, t + j, row, push[j])
            add_rows(n, q, push, sum)
            t += size
            m += size
        at.squares[row] += squares
        moving.kind.step(&moving.solver, &moving.rows, row, m)


# --------------------------------------------------------------------------------------- backward

cdef struct Backward:  # everything that one part of `backward` reads
    Part part
    const vec* others
    const int32_t* start  # of each row and one more: where its entries begin
    const Entry* entries


cdef inline void backward_rows(Py_ssize_t n, const Backward* at, Moving* moving) noexcept nogil:
    """Write the new rows of a part of the other side, by their entries."""
    cdef Py_ssize_t row, f, j, size, t, m, stop
    cdef const vec* p[AT_ONCE]
    cdef const vec* ahead
    cdef vec* sum
    cdef real push[AT_ONCE]
    for row in range(at.part.first, at.part.last):
        sum = moving.rows.new + row * n
        for f in range(n):
            sum[f] = vec_splat(0)
        t = at.start[row]
        stop = at.start[row + 1]
        m = stop - t
        while t < stop:
            size = min(stop - t, <Py_ssize_t>AT_ONCE)
            for j in range(AT_ONCE):
                p[j] = at.others + at.entries[t + min(j, size - 1)].row * n
                push[j] = at.entries[t + j].push if j < size else 0
                if t + j + AHEAD < at.part.stop:
                    ahead = at.others + at.entries[t + j + AHEAD].row * n
                    PREFETCH(ahead)
                    PREFETCH(ahead + n - 1)
            add_rows(n, p, push, sum)
            t += size
        moving.kind.step(&moving.solver, &moving.rows, row, m)


# ------------------------------------------------------------------------------ Python's interface

cdef class Side:
    """The rows of one side, for one step.

    Parameters
    ----------
    old, new, state : (rows, width), (rows, width), (rows, n_states * width)
        `new` is written, `state` changed in place; that of sgd has no columns.
    columns : (4, width)
        Of each value of a row: 2 l2, l1, lower bound, and whether it is learned (1, 0).
    rule : (len(RULE),) float64
        Hyper-parameters in the order of `RULE` of `_solvers.pxi`; its penalties are not used.
    clock_1, clock_2 : float
        beta_1^t and beta_2^t of the step to come, the t-th.
    share : float
        The share of the penalties that a row gets for each of its ratings in the batch; 0: every
        row gets the whole of them.
    clears : bool
        Whether tiny factors and states become 0 in this step.
    """

    cdef Rows rows
    cdef Py_ssize_t n_rows
    cdef object arrays  # kept alive

    def __init__(
        self, const real[:, ::1] old, real[:, ::1] new, real[:, ::1] state,
        const real[:, ::1] columns, const double[::1] rule, double clock_1, double clock_2,
        double share, bint clears=False,
    ):
        cdef Rows* rows = &self.rows
        cdef Py_ssize_t j
        self.arrays = (old, new, state, columns)
        self.n_rows = old.shape[0]
        rows.n = old.shape[1] // LANES
        rows.old = <vec*>&old[0, 0]
        rows.new = <vec*>&new[0, 0]
        rows.state = <vec*>&state[0, 0] if state.shape[1] else NULL
        rows.l2 = <vec*>&columns[0, 0]
        rows.l1 = <vec*>&columns[1, 0]
        rows.low = <vec*>&columns[2, 0]
        rows.learned = <vec*>&columns[3, 0]
        rows.rule = (<const Rule*>&rule[0])[0]
        rows.clock_1 = clock_1
        rows.clock_2 = clock_2
        rows.share = <real>share
        rows.clears = clears
        rows.plain = True
        for j in range(columns.shape[1]):
            rows.plain = rows.plain and columns[1, j] == 0 and columns[2, j] == -INFINITY


cdef class Batch:
    """The ratings of one batch, cut into parts.

    Parameters
    ----------
    row, other, rating, weight : (ratings,)
        Grouped by ascending row. An empty `weight` means that all are 1.
    mean : float
    n_rows, n_parts : int
        The number of rows of the side that they are grouped by; at most MOST_PARTS.
    """

    cdef Part parts[MOST]
    cdef Forward work  # all but its part, rows and entries
    cdef object arrays

    def __init__(
        self, const int32_t[::1] row, const int32_t[::1] other, const real[::1] rating,
        const real[::1] weight, double mean, Py_ssize_t n_rows, Py_ssize_t n_parts,
    ):
        cdef Py_ssize_t count = row.shape[0]
        self.arrays = (row, other, rating, weight)
        self.work.row = &row[0]
        self.work.other = &other[0]
        self.work.rating = &rating[0]
        self.work.weight = &weight[0] if weight.shape[0] else NULL
        self.work.mean = <real>mean
        self.work.scale = <real>(2 / <double>count)
        cut_ratings(self.parts, n_parts, &row[0], count, n_rows)


cdef class Entries:
    """Room for what the ratings of one batch leave for the other side.

    Parameters
    ----------
    counts : (n_parts, rows of the other side) int32
    start : (rows of the other side + 1,) int32
    entries : (ratings * entry_bytes(),) uint8
        All are written before they are read.
    """

    cdef int32_t[:, ::1] counts
    cdef int32_t[::1] start
    cdef Entry* entries
    cdef Part parts[MOST]
    cdef object arrays

    def __init__(self, int32_t[:, ::1] counts, int32_t[::1] start, unsigned char[::1] entries):
        self.counts = counts
        self.start = start
        self.entries = <Entry*>&entries[0]
        self.arrays = entries


def entry_bytes():
    """Return the size of what a rating leaves for the other side."""
    return sizeof(Entry)


def count(Batch batch, Entries entries, Py_ssize_t part):
    """Count the ratings of a part by their rows of the other side, in entries.counts[part]."""
    cdef int32_t* counts = &entries.counts[part, 0]
    cdef Py_ssize_t n = entries.counts.shape[1]
    cdef Py_ssize_t t
    with nogil:
        for t in range(n):
            counts[t] = 0
        for t in range(batch.parts[part].start, batch.parts[part].stop):
            counts[batch.work.other[t]] += 1


def starts(Entries entries):
    """Turn the counts of all parts into places, and cut the other side into parts.

    start[row] is then where a row's entries begin, and counts[part, row] where those of the part's
    ratings do.
    """
    cdef int32_t[:, ::1] counts = entries.counts
    cdef int32_t[::1] start = entries.start
    cdef Py_ssize_t n_parts = counts.shape[0]
    cdef Py_ssize_t n_rows = counts.shape[1]
    cdef Py_ssize_t part, row
    cdef int32_t total = 0
    cdef int32_t size
    with nogil:
        for row in range(n_rows):
            start[row] = total
            for part in range(n_parts):
                size = counts[part, row]
                counts[part, row] = total
                total += size
        start[n_rows] = total
    cut_entries(entries.parts, n_parts, &start[0], n_rows)


def forward(
    Side side, Side other_side, str solver, Batch batch, Entries entries, Py_ssize_t part,
    double[::1] squares,
):
    """Compute the errors of a part of the batch, leave its entries and step its rows.

    Parameters
    ----------
    side, other_side : Side
        That which the batch is grouped by, and the other one.
    solver : str
        A name that `kind_of` knows.
    squares : (rows,)
        Grows by the weighted squared errors of each row.
    """
    cdef Forward work = batch.work
    cdef Moving moving
    cdef Py_ssize_t n = side.rows.n
    moving.rows = side.rows
    moving.kind = kind_of(solver)
    work.part = batch.parts[part]
    work.others = other_side.rows.old
    work.cursor = &entries.counts[part, 0]
    work.entries = entries.entries
    work.squares = &squares[0]
    with nogil:
        moving.kind.begin(&moving.solver, &moving.rows)
        # Rows of these widths have loops of their own, of a length that the compiler knows.
        if n == 16 / LANES:
            forward_rows(<Py_ssize_t>(16 / LANES), &work, &moving)
        elif n == 24 / LANES:
            forward_rows(<Py_ssize_t>(24 / LANES), &work, &moving)
        elif n == 40 / LANES:
            forward_rows(<Py_ssize_t>(40 / LANES), &work, &moving)
        else:
            forward_rows(n, &work, &moving)


def backward(Side side, Side other_side, str solver, Entries entries, Py_ssize_t part):
    """Step a part of the rows of `side` by their entries.

    `other_side` is that which the batch is grouped by.
    """
    cdef Backward work
    cdef Moving moving
    cdef Py_ssize_t n = side.rows.n
    moving.rows = side.rows
    moving.kind = kind_of(solver)
    work.part = entries.parts[part]
    work.others = other_side.rows.old
    work.start = &entries.start[0]
    work.entries = entries.entries
    with nogil:
        moving.kind.begin(&moving.solver, &moving.rows)
        if n == 16 / LANES:
            backward_rows(<Py_ssize_t>(16 / LANES), &work, &moving)
        elif n == 24 / LANES:
            backward_rows(<Py_ssize_t>(24 / LANES), &work, &moving)
        elif n == 40 / LANES:
            backward_rows(<Py_ssize_t>(40 / LANES), &work, &moving)
        else:
            backward_rows(n, &work, &moving)
