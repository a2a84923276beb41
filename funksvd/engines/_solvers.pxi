# The solvers, for every kernel of a CPU: one row after a step, by its gradient and the state it keeps.
#
# A solver is a struct of constants and the functions below that ask for its type. It is a fused type, so that a loop is
# compiled for each and no branch on the solver is left inside it. Names and defaults are Keras'.

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


cdef real TINY = 1e-30  # 1 - TINY = 1: a clock need not run into subnormal numbers, which are slow

cdef struct Rule:  # hyper-parameters of one side, as Python gives them: an array of float64 in this order
    double rate, bias_rate, l2, l1, l2_bias, l1_bias, low, momentum, beta_1, beta_2, epsilon, n_factors

RULE = ("rate", "bias_rate", "l2", "l1", "l2_bias", "l1_bias", "low", "momentum", "beta_1", "beta_2", "epsilon", "n_factors")

cdef struct Hyper:
    real rate
    real bias_rate       # the same, or 0: the biases stay as they are
    real shrink[9]       # [m]: what `step` multiplies x by when m ratings ask for the penalty of L2; of biases
    real bias_shrink[9]
    real l1, l1_bias
    real low             # factors stay above: 0 or -infinity
    int proximal         # whether anything follows a step: L1's threshold, the lower bound
    real momentum, beta_1, beta_2, fresh_1, fresh_2  # fresh = 1 - beta
    real epsilon
    real share           # of one value in the mean over a row: of its factors, and of its bias where that is learnt

cdef struct Sgd:  # x - rate g
    Hyper h

cdef struct Momentum:  # v = momentum v - rate g;  x + v
    Hyper h

cdef struct AdagradRow:  # x - rate g / sqrt(a + epsilon);  then a += mean over a row and its bias of the loss' part of g^2
    Hyper h

cdef struct Adagrad:  # a += g^2;  x - rate g / sqrt(a + epsilon)           (Duchi, Hazan, Singer 2011)
    Hyper h

cdef struct Adam:  # m, v: running means of g, g^2;  x - rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
    Hyper h

cdef struct Adamax:  # m, u = max(beta_2 u, |g|);  x - rate / (1 - beta_1^t) m / (u + epsilon)      (Kingma, Ba 2015)
    Hyper h

cdef struct Frozen:  # moves nothing: the same loop then only measures
    Hyper h

ctypedef fused Solver:
    Sgd
    Momentum
    AdagradRow
    Adagrad
    Adam
    Adamax
    Frozen


cdef inline int states(const Solver* s) noexcept nogil:
    """Numbers of state that a solver keeps for each factor."""
    if Solver is Adam or Solver is Adamax:
        return 2
    elif Solver is Momentum or Solver is Adagrad:
        return 1
    else:
        return 0


cdef inline bint uses(const Solver* s, int i) noexcept nogil:
    """Which of a row's own numbers a solver keeps: clock or accumulator, second clock, two states of the bias."""
    if Solver is Adam:
        return True
    elif Solver is Adamax:
        return i != 1
    elif Solver is AdagradRow:
        return i == 0
    elif Solver is Momentum or Solver is Adagrad:
        return i == 2
    else:
        return False


cdef inline void constants(Solver* s, const Rule* rule) noexcept nogil:
    cdef Hyper* h = &s.h
    cdef int m
    h.rate, h.bias_rate = rule.rate, rule.bias_rate
    for m in range(9):
        if Solver is Sgd:  # its step wants the rate in both
            h.shrink[m] = 1 - m * rule.rate * rule.l2
            h.bias_shrink[m] = 1 - m * h.bias_rate * rule.l2_bias
        else:
            h.shrink[m], h.bias_shrink[m] = m * rule.l2, m * rule.l2_bias
    h.l1, h.l1_bias, h.low, h.share = rule.l1, rule.l1_bias, rule.low, 1 / (rule.n_factors + (rule.bias_rate > 0))
    h.proximal = rule.l1 > 0 or rule.l1_bias > 0 or rule.low >= 0
    h.momentum, h.beta_1, h.beta_2, h.epsilon = rule.momentum, rule.beta_1, rule.beta_2, rule.epsilon
    h.fresh_1, h.fresh_2 = 1 - rule.beta_1, 1 - rule.beta_2


cdef inline real gain(const Solver* s, real rate) noexcept nogil:
    """What a step wants its push multiplied by beforehand."""
    if Solver is Sgd or Solver is AdagradRow:
        return rate
    else:
        return 1


cdef inline vec shrinkage(const Solver* s, real shrink, vec rate) noexcept nogil:
    """What a step wants to know of L2: `shrink` is of `Hyper`."""
    if Solver is AdagradRow:
        return vec_splat(1) - rate * shrink
    else:
        return vec_splat(shrink)


cdef inline void tick(const Solver* s, vec* clock_1, vec* clock_2) noexcept nogil:
    """One more step of the rows in the lanes: their clocks hold beta_1^t and beta_2^t."""
    if Solver is Adam or Solver is Adamax:
        clock_1[0] = vec_max(clock_1[0] * s.h.beta_1, vec_splat(TINY))
    if Solver is Adam:
        clock_2[0] = vec_max(clock_2[0] * s.h.beta_2, vec_splat(TINY))


cdef inline vec scaled_rate(const Solver* s, vec clock_1, vec clock_2) noexcept nogil:
    """The rate of the rows in the lanes, by their clocks or AdagradRow's accumulator."""
    cdef vec rate = vec_splat(s.h.rate)
    if Solver is AdagradRow:
        rate = rate / vec_sqrt(clock_1 + vec_splat(s.h.epsilon))
    elif Solver is Adam:
        rate = rate * vec_sqrt(vec_splat(1) - clock_2) / (vec_splat(1) - clock_1)
    elif Solver is Adamax:
        rate = rate / (vec_splat(1) - clock_1)
    return rate


cdef inline vec step(const Solver* s, vec shrink, vec rate, vec x, vec push, vec* state, Py_ssize_t n) noexcept nogil:
    """x after one step: `push` is minus the gradient of the loss times `gain`, `shrink` of `shrinkage`.

    The states lie at state[0] and state[n].
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
            state[0], state[n] = g, v
            return x - rate * g / (vec_sqrt(v) + vec_splat(s.h.epsilon))
        else:
            v = vec_max(s.h.beta_2 * state[n], vec_abs(g))
            g = state[0] + (g - state[0]) * s.h.fresh_1
            state[0], state[n] = g, v
            return x - rate * g / (v + vec_splat(s.h.epsilon))


cdef inline vec reach(const Solver* s, vec rate, vec* state, Py_ssize_t n) noexcept nogil:
    """How far the last step went for a gradient of 1: L1's threshold is that times l1."""
    if Solver is Adagrad:
        rate = rate / vec_sqrt(state[0] + vec_splat(s.h.epsilon))
    elif Solver is Adam:
        rate = rate / (vec_sqrt(state[n]) + vec_splat(s.h.epsilon))
    elif Solver is Adamax:
        rate = rate / (state[n] + vec_splat(s.h.epsilon))
    return rate


cdef inline vec proximal(vec x, vec threshold, real low) noexcept nogil:
    """The soft threshold of L1, then the lower bound."""
    cdef vec zero = vec_splat(0)
    return vec_max(vec_max(x - threshold, zero) + vec_min(x + threshold, zero), vec_splat(low))
