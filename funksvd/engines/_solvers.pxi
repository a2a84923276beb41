# The solvers of the CPU kernels: how one row moves, given its gradient and the state that it keeps.
#
# A solver is a struct of constants, and the functions below ask for its type. The types form one
# fused type, so Cython writes a loop for each solver and no branch on the solver is left inside it.
# Names and defaults are Keras'.
#
# To add a solver: a struct, its row in the table (`Solver`, `facts`, `enter_solvers`), its step.

from libc.math cimport INFINITY

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float real "REAL"      # float or double: its size is the C compiler's to know
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    vec vec_splat(real) nogil       # every lane the same
    real vec_first(vec) nogil
    vec vec_sqrt(vec) nogil
    vec vec_max(vec, vec) nogil
    vec vec_min(vec, vec) nogil
    vec vec_sign(vec) nogil
    vec vec_abs(vec) nogil


cdef struct Rule:
    # Hyper-parameters of one side, as Python passes them: an array of float64 in this order.
    double rate, bias_rate
    double l2, l1, l2_bias, l1_bias, low
    double momentum, beta_1, beta_2, epsilon
    double n_factors

RULE = (
    "rate", "bias_rate",
    "l2", "l1", "l2_bias", "l1_bias", "low",
    "momentum", "beta_1", "beta_2", "epsilon",
    "n_factors",
)  # the fields of `Rule`

cdef struct Hyper:
    # Hyper-parameters of one side, as the steps want them.
    real rate
    real bias_rate       # the rate, or 0 if biases are not learned
    real shrink[9]       # [m]: the L2 penalty of m ratings, as `step` takes it
    real bias_shrink[9]
    real l1, l1_bias
    real low             # lower bound of the factors: 0 or -infinity
    int proximal         # whether L1 or the lower bound follows a step
    real momentum, beta_1, beta_2
    real fresh_1, fresh_2  # 1 - beta_1, 1 - beta_2
    real epsilon         # small constant in the denominators, against division by zero
    real share           # 1 / values of a row: its factors, and its bias if biases are learned

cdef struct Frozen:
    # Moves nothing, so that the same loop only measures.
    Hyper h

cdef struct Sgd:
    # x - rate g
    Hyper h

cdef struct Momentum:
    # v = momentum v - rate g;  x + v
    Hyper h

cdef struct AdagradRow:
    # x - rate g / sqrt(a + epsilon);  then a += mean of g^2 over the row and its bias, without L2
    Hyper h

cdef struct Adagrad:
    # a += g^2;  x - rate g / sqrt(a + epsilon)                       (Duchi, Hazan, Singer 2011)
    Hyper h

cdef struct Adam:
    # m, v: running means of g and g^2;                                          (Kingma, Ba 2015)
    # x - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
    Hyper h

cdef struct Adamax:
    # m as Adam's, u = max(beta_2 u, |g|);  x - rate / (1 - beta_1^t) m / (u + epsilon)
    Hyper h


# The table of solvers: types, facts, and the order of their codes.

ctypedef fused Solver:
    Frozen
    Sgd
    Momentum
    AdagradRow
    Adagrad
    Adam
    Adamax

cdef struct Facts:
    const char* name  # the public name, empty for Frozen
    int states        # numbers kept for each factor, and as many for the bias
    int clocks        # numbers kept for the row: beta_1^t and beta_2^t, or an accumulator


cdef inline Facts facts(const Solver* s) noexcept nogil:
    """Return the solver's row of the table."""
    if Solver is Frozen:
        return Facts("", states=0, clocks=0)
    elif Solver is Sgd:
        return Facts("sgd", states=0, clocks=0)
    elif Solver is Momentum:
        return Facts("momentum", states=1, clocks=0)
    elif Solver is AdagradRow:
        return Facts("adagrad_row", states=0, clocks=1)
    elif Solver is Adagrad:
        return Facts("adagrad", states=1, clocks=0)
    elif Solver is Adam:
        return Facts("adam", states=2, clocks=2)
    else:
        return Facts("adamax", states=2, clocks=1)


cdef int enter_solvers() except -1:
    """Hand every solver to `enter`, a function of the kernel that includes this file."""
    enter(<Frozen*>NULL)
    enter(<Sgd*>NULL)
    enter(<Momentum*>NULL)
    enter(<AdagradRow*>NULL)
    enter(<Adagrad*>NULL)
    enter(<Adam*>NULL)
    enter(<Adamax*>NULL)
    return 0


cdef inline int states(const Solver* s) noexcept nogil:
    """Return the numbers of state that a solver keeps for each factor."""
    return facts(s).states


cdef inline int clocks(const Solver* s) noexcept nogil:
    """Return the numbers that a solver keeps for a whole row."""
    return facts(s).clocks


# The steps.

cdef real TINY = 1e-30  # 1 - TINY = 1: keeps a clock from subnormal numbers, which are slow


cdef inline void constants(Solver* s, const Rule* rule) noexcept nogil:
    """Set a solver's constants from the hyper-parameters of one side."""
    cdef Hyper* h = &s.h
    cdef int m
    h.rate = rule.rate
    h.bias_rate = rule.bias_rate
    for m in range(9):
        if Solver is Sgd:  # its step takes the rate in the penalty and in the push
            h.shrink[m] = 1 - m * rule.rate * rule.l2
            h.bias_shrink[m] = 1 - m * h.bias_rate * rule.l2_bias
        else:
            h.shrink[m] = m * rule.l2
            h.bias_shrink[m] = m * rule.l2_bias
    h.l1 = rule.l1
    h.l1_bias = rule.l1_bias
    h.low = rule.low
    h.proximal = rule.l1 > 0 or rule.l1_bias > 0 or rule.low >= 0
    h.momentum = rule.momentum
    h.beta_1 = rule.beta_1
    h.beta_2 = rule.beta_2
    h.fresh_1 = 1 - rule.beta_1
    h.fresh_2 = 1 - rule.beta_2
    h.epsilon = rule.epsilon
    h.share = 1 / (rule.n_factors + (rule.bias_rate > 0))


cdef inline vec shrinkage(const Solver* s, real shrink, vec rate) noexcept nogil:
    """Return the L2 penalty as `step` takes it; `shrink` is an entry of `Hyper.shrink`."""
    if Solver is AdagradRow:
        return vec_splat(1) - rate * shrink
    else:
        return vec_splat(shrink)


cdef inline void tick(const Solver* s, vec* clock, vec* second_clock) noexcept nogil:
    """Count one more step of the rows in the lanes: clocks hold beta_1^t and beta_2^t."""
    if Solver is Adam or Solver is Adamax:
        clock[0] = vec_max(clock[0] * s.h.beta_1, vec_splat(TINY))
    if Solver is Adam:
        second_clock[0] = vec_max(second_clock[0] * s.h.beta_2, vec_splat(TINY))


cdef inline vec scaled_rate(const Solver* s, vec clock, vec second_clock) noexcept nogil:
    """Return the rate of the rows in the lanes, by their clocks or AdagradRow's accumulator."""
    cdef vec rate = vec_splat(s.h.rate)
    if Solver is AdagradRow:
        rate = rate / vec_sqrt(clock + vec_splat(s.h.epsilon))
    elif Solver is Adam:
        rate = rate * vec_sqrt(vec_splat(1) - second_clock) / (vec_splat(1) - clock)
    elif Solver is Adamax:
        rate = rate / (vec_splat(1) - clock)
    return rate


cdef inline vec step(
    const Solver* s, vec shrink, vec rate, vec x, vec push, vec* state, Py_ssize_t n
) noexcept nogil:
    """Return x after one step, and change its states, which lie at state[0] and state[n].

    `shrink` comes from `shrinkage`. `push` is minus the gradient of the loss; Sgd and AdagradRow
    take it multiplied by the rate.
    """
    cdef vec g, v
    if Solver is Sgd or Solver is AdagradRow:
        return x * shrink + push
    elif Solver is Frozen:
        return x
    else:
        g = x * shrink - push
        if Solver is Momentum:
            v = s.h.momentum * state[0] - rate * g
            state[0] = v
            return x + v
        elif Solver is Adagrad:
            v = state[0] + g * g
            state[0] = v
            return x - rate * g / vec_sqrt(v + vec_splat(s.h.epsilon))
        elif Solver is Adam:
            v = state[n] + (g * g - state[n]) * s.h.fresh_2
            g = state[0] + (g - state[0]) * s.h.fresh_1
            state[0] = g
            state[n] = v
            return x - rate * g / (vec_sqrt(v) + vec_splat(s.h.epsilon))
        else:
            v = vec_max(s.h.beta_2 * state[n], vec_abs(g))
            g = state[0] + (g - state[0]) * s.h.fresh_1
            state[0] = g
            state[n] = v
            return x - rate * g / (v + vec_splat(s.h.epsilon))


cdef inline vec reach(const Solver* s, vec rate, vec* state, Py_ssize_t n) noexcept nogil:
    """Return the effective rate of the last step; the threshold of L1 is `l1` times this."""
    if Solver is Adagrad:
        rate = rate / vec_sqrt(state[0] + vec_splat(s.h.epsilon))
    elif Solver is Adam:
        rate = rate / (vec_sqrt(state[n]) + vec_splat(s.h.epsilon))
    elif Solver is Adamax:
        rate = rate / (state[n] + vec_splat(s.h.epsilon))
    return rate


cdef inline vec proximal(vec x, vec threshold, real low) noexcept nogil:
    """Return x after the soft threshold of L1 and then the lower bound."""
    cdef vec zero = vec_splat(0)
    cdef vec soft = vec_max(x - threshold, zero) + vec_min(x + threshold, zero)
    return vec_max(soft, vec_splat(low))
