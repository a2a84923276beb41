# The walk over one block: its runs in order, cut into micro-batches, and the rows to come fetched
# ahead. `_sgd.pyx` includes this file.

from libc.stdint cimport int32_t, uint32_t

include "_micro_batch.pxi"

cdef extern from "../machine/_vec.h":
    void PREFETCH(const void*) nogil


cdef uint16_t[9][8] SPARE  # [m]: m times 0, then all bits
for _m in range(9):
    for _j in range(8):
        SPARE[_m][_j] = 0 if _j < _m else 0xffff

cdef enum:
    LINE = 64           # bytes of a cache line
    LONG_ROW = 256      # bytes of a row without state: of longer ones too many lines would travel
    NEAR_BAND = 131072  # bytes of a band whose cache is so close that fetching ahead costs more

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
    Rule run_rule           # hyper-parameters of the run side
    Rule rule               # of the gathered side


cdef inline void fetch(
    const Solver* s, const Rows* rows, Py_ssize_t row, Py_ssize_t n
) noexcept nogil:
    """Have a row travel to the caches, ahead of its step."""
    cdef Py_ssize_t f, gap = LINE
    # The second of two lines comes by itself, but adagrad_row was slower without asking for it.
    if (Solver is Sgd or Solver is Frozen) and n * LANES * sizeof(real) <= 2 * LINE:
        gap = 2 * LINE
    for f in range(n):
        if f * LANES * sizeof(real) % gap == 0:
            PREFETCH(rows.factors + row * n + f)
    for f in range(n * states(s)):
        if f * LANES * sizeof(real) % LINE == 0:
            PREFETCH(rows.state + row * n * states(s) + f)


cdef inline bint fetches(const Solver* s, Py_ssize_t n, const Block* block) noexcept nogil:
    """Return whether the gathered rows are worth fetching ahead."""
    cdef Py_ssize_t row_bytes = n * (1 + states(s)) * LANES * <Py_ssize_t>sizeof(real)
    if not states(s) and row_bytes > LONG_ROW:
        return False
    return (block.spare + 1) * row_bytes > NEAR_BAND


cdef inline void fetch_ahead(
    int m, Py_ssize_t t, Py_ssize_t last, Py_ssize_t n, const Block* block, const Solver* s
) noexcept nogil:
    """Have the gathered rows of a later micro-batch travel, before the m ratings from t on step.

    Plain SGD asks for the rows of the micro-batch after the next: 0.97 of the time at ML-20M's
    shape. Rows with state are more bytes, so the others ask for the next.
    """
    cdef Py_ssize_t ahead
    cdef int j
    if states(s):
        # So many rows on their way hold up even the arrays that are read in order.
        PREFETCH(block.rating + t + 32)
        PREFETCH(block.index + t + 32)
        ahead = t + m
    else:
        ahead = min(t + m + 8, last)
    for j in range(8):
        fetch(s, &block.rows, block.index[ahead + j], n)


cdef inline void fetch_run(
    Py_ssize_t row, Py_ssize_t n, const Block* block, const Solver* s
) noexcept nogil:
    """Have the row of a later run travel, with its bias, state and clocks."""
    PREFETCH(block.runs.biases + row)
    PREFETCH(block.runs.own + row * own_width(s))
    fetch(s, &block.runs, row, n)


cdef inline vec padded_batch(
    Py_ssize_t n, uint16_t spare, Batch* batch, const Solver* hp, const Solver* hq
) noexcept nogil:
    """A rich `micro_batch` for less than 8 ratings, padded to 4 or 8 with the band's spare row.

    It reads past the run but never past the arrays, which have 8 more entries.
    """
    cdef uint16_t padded[8]
    cdef uint16_t hidden
    cdef int j
    for j in range(8):
        hidden = SPARE[batch.count][j]
        padded[j] = (batch.index[j] & ~hidden) | (spare & hidden)
    batch.index = padded
    if batch.count > 4:
        return micro_batch(8, True, n, batch, hp, hq)
    else:
        return micro_batch(4, True, n, batch, hp, hq)


cdef inline vec short_batch(
    int m, Py_ssize_t n, Batch* batch, const Solver* hp, const Solver* hq
) noexcept nogil:
    """A plain `micro_batch` for m < 8 ratings: every length is compiled, so no row is idle."""
    if m == 1:
        batch.count = 1
        return micro_batch(1, False, n, batch, hp, hq)
    elif m == 2:
        batch.count = 2
        return micro_batch(2, False, n, batch, hp, hq)
    elif m == 3:
        batch.count = 3
        return micro_batch(3, False, n, batch, hp, hq)
    elif m == 4:
        batch.count = 4
        return micro_batch(4, False, n, batch, hp, hq)
    elif m == 5:
        batch.count = 5
        return micro_batch(5, False, n, batch, hp, hq)
    elif m == 6:
        batch.count = 6
        return micro_batch(6, False, n, batch, hp, hq)
    else:
        batch.count = 7
        return micro_batch(7, False, n, batch, hp, hq)


cdef inline double walk(
    bint rich, Py_ssize_t n, const Block* of, const Solver* hp, const Solver* hq
) noexcept nogil:
    """Let every run of one block take its steps, in order.

    Returns the sum of squared errors, each taken before its own step.
    """
    # A copy, because a step may write anywhere as far as the compiler knows: it would read the
    # block's fields again after each step.
    cdef Block block = of[0]
    cdef Batch batch
    cdef const real* weight = block.weight
    cdef double squares = 0
    cdef vec squared = vec_splat(0)
    cdef bint far = fetches(hq, n, of)
    cdef Py_ssize_t r, row, end, t = 0, last = block.run_end[block.count - 1]
    cdef int m
    batch.rows = block.rows
    batch.mean = block.mean
    for r in range(block.count):
        row = block.run_row[r]
        end = block.run_end[r]
        CHECK_INSIDE(row, block.runs.count)
        batch.p = block.runs.factors + row * n
        batch.p_bias = block.runs.biases + row
        batch.p_state = block.runs.state + row * n * states(hp)
        batch.p_own = <Own*>(block.runs.own + row * own_width(hp))
        if states(hp):
            fetch_run(block.run_row[min(r + 2, block.count - 1)], n, &block, hp)
        while t < end:
            m = <int>min(end - t, 8)
            if far:
                fetch_ahead(m, t, last, n, &block, hq)
            batch.index = block.index + t
            batch.rating = block.rating + t
            batch.weight = weight
            # A whole micro-batch is compiled apart: its length is a constant and nothing is masked.
            if m == 8:
                batch.count = 8
                squared += micro_batch(8, rich, n, &batch, hp, hq)
            elif rich:
                batch.count = m
                squared += padded_batch(n, block.spare, &batch, hp, hq)
            else:
                squared += short_batch(m, n, &batch, hp, hq)
            t += m
            if rich and weight != NULL:
                weight += m
        if r % 32 == 31:  # up to 32 runs in single precision, the rest in double
            squares += lane_sum(squared)
            squared = vec_splat(0)
    return squares + lane_sum(squared)
