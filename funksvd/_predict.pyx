# cython: language_level=3, freethreading_compatible=True
"""CPU kernel of the prediction for pairs of codes.

It takes no GIL and checks nothing. setup.py builds it for each dtype (REAL) and each level of the
instruction set.
"""

from libc.stdint cimport int32_t

cdef extern from "machine/_vec.h":
    enum: LANES
    ctypedef float real "REAL"      # float or double: its size is the C compiler's to know
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    vec vec_splat(real) nogil       # every lane the same
    real vec_first(vec) nogil
    real lane_sum(loose_vec) nogil
    void PREFETCH(const void*) nogil

cdef extern from "machine/_bounds.h":
    void CHECK_INSIDE(Py_ssize_t at, Py_ssize_t n) nogil

include "_formula.pxi"


cdef inline real dot(Py_ssize_t k, const real* p, const real* q) noexcept nogil:
    """Return p . q of two rows at any address and of any length k."""
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
    const real[:, ::1] user_factors, const real[::1] user_biases,
    const real[:, ::1] item_factors, const real[::1] item_biases, double mean,
    const int32_t[::1] users, const int32_t[::1] items, real[::1] out,
):
    """Set out[t] to the prediction for the codes users[t] and items[t].

    A code of -1 is an unknown id: its bias is 0 and it has no factors.
    """
    cdef Py_ssize_t t, ahead, k = user_factors.shape[1], count = users.shape[0]
    cdef int32_t u, i
    cdef real bu, bi, product
    cdef real nothing = 0  # a model of biases alone has no factors
    cdef const real* P = &user_factors[0, 0] if k else &nothing
    cdef const real* Q = &item_factors[0, 0] if k else &nothing
    with nogil:
        for t in range(count):
            # Rows of later pairs travel from memory meanwhile; the address of code -1 is harmless.
            ahead = min(t + 8, count - 1)
            PREFETCH(P + users[ahead] * k)
            PREFETCH(P + users[ahead] * k + k - 1)
            PREFETCH(Q + items[ahead] * k)
            PREFETCH(Q + items[ahead] * k + k - 1)
            u = users[t]
            i = items[t]
            CHECK_INSIDE(u + 1, user_factors.shape[0] + 1)
            CHECK_INSIDE(i + 1, item_factors.shape[0] + 1)
            bu = user_biases[u] if u >= 0 else 0
            bi = item_biases[i] if i >= 0 else 0
            product = dot(k, P + u * k, Q + i * k) if u >= 0 and i >= 0 else 0
            out[t] = vec_first(biases_alone(<real>mean, bu, vec_splat(bi)) + vec_splat(product))
