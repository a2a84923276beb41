# The step of a row by its summed pushes, and the functions of each solver by its name.


cdef extern from "../machine/_vec.h":
    vec vec_without_tiny(vec, real) nogil   # 0 for numbers below a size
    real LEAST_FACTOR
    real LEAST_STATE


cdef void clear_tiny(Py_ssize_t n, vec* x, int n_states, vec* state) noexcept nogil:
    """Set to 0 those of a row's factors and states that are on their way to subnormal numbers."""
    cdef Py_ssize_t f
    for f in range(n):
        x[f] = vec_without_tiny(x[f], LEAST_FACTOR)
    for f in range(n * n_states):
        state[f] = vec_without_tiny(state[f], LEAST_STATE)


cdef void begin(Solver* s, const Rows* rows) noexcept nogil:
    """Set the solver's constants. All rows share the clock, and so the rate."""
    cdef vec clock_1 = vec_splat(<real>rows.clock_1)
    cdef vec clock_2 = vec_splat(<real>rows.clock_2)
    constants(s, &rows.rule)
    s.h.rate = vec_first(scaled_rate(s, clock_1, clock_2))


cdef void step_row(Solver* s, const Rows* rows, Py_ssize_t row, Py_ssize_t m) noexcept nogil:
    """Write the new row, which holds the summed pushes of its m ratings before."""
    cdef Py_ssize_t n = rows.n
    cdef Py_ssize_t f
    cdef vec* old = rows.old + row * n
    cdef vec* new = rows.new + row * n
    cdef vec* state = rows.state + row * n * states(s)
    cdef vec rate = vec_splat(s.h.rate)
    cdef vec shrink, push
    cdef real penalty = rows.share * m if rows.share > 0 else 1
    for f in range(n):
        push = new[f] * rows.learned[f]
        if not rows.plain:
            push -= penalty * rows.l1[f] * vec_sign(old[f])
        shrink = penalty * rows.l2[f]
        if Solver is Sgd:  # its step takes the rate in both
            push = rate * push
            shrink = vec_splat(1) - rate * shrink
        new[f] = step(s, shrink, rate, old[f], push, state + f, n)
        if not rows.plain:
            new[f] = vec_max(new[f], rows.low[f])
    if rows.clears:
        clear_tiny(n, new, states(s), state)


# The loops over ratings call `step_row` by its address: a copy of them for each solver would be
# five times the code.
ctypedef void (*Begin)(void*, const Rows*) noexcept nogil
ctypedef void (*Step)(void*, const Rows*, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef struct Kind:
    Begin begin
    Step step


# The solvers of the table that have mini-batches; a solver's code is its place in both.
cdef Kind[16] KINDS
SOLVERS = ()


cdef int enter(Solver* s) except -1:
    """Enter a solver of the table; two of them exist for the block grid alone."""
    global SOLVERS
    if Solver is not Frozen and Solver is not AdagradRow:
        KINDS[len(SOLVERS)] = Kind(<Begin>begin[Solver], <Step>step_row[Solver])
        SOLVERS = (*SOLVERS, facts(s).name.decode())
    return 0


enter_solvers()


cdef Kind kind_of(str solver) except *:
    """Return the functions of a solver by its name."""
    if solver not in SOLVERS:
        raise ValueError(f"solver={solver!r} has no mini-batches")
    return KINDS[SOLVERS.index(solver)]
