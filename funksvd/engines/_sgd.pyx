# cython: language_level=3, freethreading_compatible=True
"""CPU kernel of stochastic gradient descent: one pass over one block of the grid, in place.

The model predicts ``mean + b_u + b_i + p_u . q_i`` (Koren, Bell, Volinsky 2009, equation 4) and
minimises the squared error with L2 penalties. With one rating at a time (equation 5) the chain
dot product -> error -> step -> next dot product bounds the speed. The unit of work is therefore
the micro-batch: up to 8 ratings of one run, all of one row p and of distinct gathered rows q.
Every step uses the old values of the other side, and p takes one step with the sum of its
gradients. For m ratings r with weights w, plain SGD does this::

    product = q @ p                                     # dot products
    e = r - (mean + (b_p + b_q)) - product              # errors
    squares += sum(w * e**2)
    e = w * e
    b_q = b_q * (1 - lr * l2_bias) + lr * e             # biases
    b_p = b_p * (1 - m * lr * l2_bias) + lr * sum(e)
    push = e @ q                                        # factors
    q = q * (1 - lr * l2) + lr * outer(e, p)
    p = p * (1 - m * lr * l2) + lr * push
    p, q, b_p, b_q = map(proximal, (p, q, b_p, b_q))    # penalties: L1, lower bound

The other solvers take the same gradients and keep state for each row (`_solvers.pxi`). Their
rates come before the biases, and their clocks go back after the penalties. A row that no rating
touches does not move and its clock stands still ("lazy", as torch.optim.SparseAdam).

`_micro_batch.pxi` has these stages, under these names; `_walk.pxi` has the walk over a block.
`tests/naive.py` states the rule in NumPy, and the kernel is held to it. Micro-batches of four
took half the time of one rating at a time (Zen 4, AVX2, k = 32: 154 against 76 million ratings a
second) at an RMSE per epoch equal to 0.0003.

The kernel sees plain arrays, takes no lock and no GIL, and checks nothing: `Ratings` and the engine
have checked everything before.
"""

from libc.stdint cimport int64_t

include "_solvers.pxi"
include "_walk.pxi"


cdef extern from "../machine/_vec.h":
    int FUNKSVD_COPIES      # for speed: 2 for all solvers, 1 for plain SGD, 0 none (setup.py)


# Every solver has two passes, called by address: compiled into one function, the rare ones cost
# plain SGD a tenth of its speed.

cdef double usual(const Block* block, Solver* unused) noexcept nogil:
    """Pass over a block without weights, L1 and lower bound.

    The compiler gets the usual row lengths as constants, so that it unrolls loops over factors.
    """
    cdef Solver hp, hq
    constants(&hp, &block.run_rule)
    constants(&hq, &block.rule)
    if block.n == 32 / LANES:
        return walk(False, <Py_ssize_t>(32 / LANES), block, &hp, &hq)
    if FUNKSVD_COPIES == 2 and (Solver is Sgd or Solver is Frozen):
        if block.n == 16 / LANES:
            return walk(False, <Py_ssize_t>(16 / LANES), block, &hp, &hq)
        if block.n == 24 / LANES:
            return walk(False, <Py_ssize_t>(24 / LANES), block, &hp, &hq)
        if block.n == 64 / LANES:
            return walk(False, <Py_ssize_t>(64 / LANES), block, &hp, &hq)
    return walk(False, block.n, block, &hp, &hq)


cdef double rich(const Block* block, Solver* unused) noexcept nogil:
    """Pass over any block."""
    cdef Solver hp, hq
    constants(&hp, &block.run_rule)
    constants(&hq, &block.rule)
    return walk(True, block.n, block, &hp, &hq)


ctypedef double (*Pass)(const Block*, void*) noexcept nogil

cdef Pass[16][2] PASSES  # of each solver by its code: usual, rich
cdef dict N_STATES = {}
SOLVERS = ()  # names by code; None only measures


cdef int enter(Solver* s) except -1:
    """Enter a solver into the lists: its code is its place."""
    global SOLVERS
    cdef Facts of = facts(s)
    name = of.name.decode() or None
    PASSES[len(SOLVERS)][1] = <Pass>rich[Solver]
    PASSES[len(SOLVERS)][0] = <Pass>rich[Solver]
    if Solver is Sgd or Solver is Frozen:
        if FUNKSVD_COPIES > 0:
            PASSES[len(SOLVERS)][0] = <Pass>usual[Solver]
    elif FUNKSVD_COPIES > 1:
        PASSES[len(SOLVERS)][0] = <Pass>usual[Solver]
    SOLVERS = (*SOLVERS, name)
    if of.states or of.clocks:
        N_STATES[name] = of.states
    return 0


enter_solvers()


def n_states(str solver):
    """Return how many numbers a solver keeps for each factor; None for "sgd", which keeps none."""
    return N_STATES.get(solver)


cdef class Side:
    """The rows of one side, for `block`, which changes them in place.

    Parameters
    ----------
    factors : (rows, width) array, width a multiple of 8
    biases : (rows,) array
    state : (rows, n_states * width) array
    extra : (rows, 4) array
        A row's own numbers: its two clocks (beta_1^t, beta_2^t) and the two states of its bias. For
        "adagrad_row" it has one column, the accumulator. For "sgd", `state` and `extra` have no
        columns.
    """
    cdef Rows rows
    cdef Py_ssize_t width, state_width, own_width
    cdef object arrays  # kept alive

    def __init__(
        self, real[:, ::1] factors, real[::1] biases, real[:, ::1] state, real[:, ::1] extra
    ):
        self.arrays = (factors, biases, state, extra)
        self.width = factors.shape[1]
        self.state_width = state.shape[1]
        self.own_width = extra.shape[1]
        self.rows.count = factors.shape[0]
        self.rows.factors = <vec*>&factors[0, 0]
        self.rows.biases = &biases[0]
        self.rows.state = <vec*>&state[0, 0] if self.state_width else NULL
        self.rows.own = &extra[0, 0] if self.own_width else NULL

    cdef Rows after(self, Py_ssize_t first):
        """Return the rows from `first` on."""
        cdef Rows rows = self.rows
        rows.factors += first * self.width // LANES
        rows.biases += first
        rows.state += first * self.state_width // LANES
        rows.own += first * self.own_width
        return rows


cdef class Blocks:
    """The ratings of a grid, for `block`.

    Parameters
    ----------
    block_runs, block_start : (blocks + 1,) int64 arrays
        Where each block's runs and ratings start.
    band_start : (bands + 1,) int64 array
        Where each band of the gathered side starts. Its last row is spare: zeros, and left so.
    run_row : (runs,) int32 array
        Row of each run.
    run_end : (runs,) uint32 array
        Where in the block each run's ratings end.
    index : (ratings + 8,) uint16 array
        Row of each rating in the gathered band.
    rating, weight : (ratings + 8,) arrays
        Ratings and their weights; an empty `weight` means that all are 1. The last 8 entries of
        these and of `index` are read but count for nothing.
    """
    cdef const int64_t[::1] block_runs, block_start, band_start
    cdef const int32_t[::1] run_row
    cdef const uint32_t[::1] run_end
    cdef const uint16_t[::1] index
    cdef const real[::1] rating, weight

    def __init__(
        self, block_runs, block_start, band_start, run_row, run_end, index, rating, weight
    ):
        self.block_runs = block_runs
        self.block_start = block_start
        self.band_start = band_start
        self.run_row = run_row
        self.run_end = run_end
        self.index = index
        self.rating = rating
        self.weight = weight


def block(
    Side run_side, Side side, Blocks blocks, Py_ssize_t x, Py_ssize_t y, double mean,
    str solver=None, const double[:, ::1] rules=None,
):
    """Take one pass over block (x, y) of the grid, in place; without a solver, only measure.

    Parameters
    ----------
    run_side, side : Side
        The side whose ratings are stored as runs; the gathered side.
    blocks : Blocks
    x, y : int
        Band of the run side, band of the gathered side.
    mean : float
        The global mean.
    solver : str
        One of `SOLVERS`.
    rules : (2, len(RULE)) float64 array
        Hyper-parameters of the run side and of the gathered side, in the order of `RULE`.

    Returns
    -------
    float
        Weighted sum of squared errors, each taken before its own micro-batch's step.
    """
    cdef int code = SOLVERS.index(solver)
    cdef Py_ssize_t number = x * (blocks.band_start.shape[0] - 1) + y
    cdef Py_ssize_t run = blocks.block_runs[number]
    cdef Py_ssize_t start = blocks.block_start[number]
    cdef Py_ssize_t first = blocks.band_start[y]
    cdef Block b
    cdef bint rich
    cdef double squares
    b.count = blocks.block_runs[number + 1] - run
    if b.count == 0:
        return 0.0
    b.n = side.width // LANES
    b.mean = <real>mean
    b.runs = run_side.rows
    b.rows = side.after(first)
    b.rows.count = blocks.band_start[y + 1] - first
    b.spare = <uint16_t>(blocks.band_start[y + 1] - first - 1)
    b.run_row = &blocks.run_row[run]
    b.run_end = &blocks.run_end[run]
    b.index = &blocks.index[start]
    b.rating = &blocks.rating[start]
    b.weight = &blocks.weight[start] if blocks.weight.shape[0] else NULL
    rich = b.weight != NULL
    if solver is not None:
        b.run_rule = (<const Rule*>&rules[0, 0])[0]
        b.rule = (<const Rule*>&rules[1, 0])[0]
        rich |= max(b.rule.l1, b.rule.l1_bias, b.run_rule.l1, b.run_rule.l1_bias) > 0
        rich |= max(b.rule.low, b.run_rule.low) > -INFINITY
    with nogil:
        squares = PASSES[code][rich](&b, NULL)
    return squares
