# cython: language_level=3, freethreading_compatible=True
"""CPU kernel of fold-in: ridge solutions for new rows given the other side.

It takes no GIL and checks nothing; setup.py builds it for each dtype (REAL) and each level of the instruction set.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t

cdef extern from "../machine/_vec.h":
    ctypedef float real "REAL"


cdef void solve(double* a, double* x, Py_ssize_t n) noexcept nogil:
    """a x = b for the lower half of a positive definite (n, n) matrix, which is destroyed; b comes in x (Cholesky)."""
    cdef Py_ssize_t i, j, f
    cdef double s
    for j in range(n):
        for f in range(j):
            s = a[j * n + f]
            a[j * n + j] -= s * s
        a[j * n + j] = sqrt(a[j * n + j])
        for i in range(j + 1, n):
            s = a[i * n + j]
            for f in range(j):
                s -= a[i * n + f] * a[j * n + f]
            a[i * n + j] = s / a[j * n + j]
    for i in range(n):
        for f in range(i):
            x[i] -= a[i * n + f] * x[f]
        x[i] /= a[i * n + i]
    for i in range(n - 1, -1, -1):
        for f in range(i + 1, n):
            x[i] -= a[f * n + i] * x[f]
        x[i] /= a[i * n + i]


def ridge(
    const int64_t[::1] start, const int32_t[::1] codes, const double[::1] values, const double[::1] weights,
    const real[:, ::1] others, const double[:, ::1] penalties, double[:, ::1] work, real[:, ::1] out,
):
    """Bias and factors of each row that minimise its squared error plus penalties, the other side given.

    Row r of `out` is x = (bias, factors), the minimum of
    sum_t weights[t] (values[t] - x . (1, others[codes[t]]))^2 + p0 bias^2 + p1 |factors|^2.

    Parameters
    ----------
    start, codes, values, weights : (rows + 1,), (n,), (n,), (n,)
        Ratings, row after row, less the mean and the other side's bias.
    others : (n_others, k)
    penalties : (rows, 2)
        p0 (infinite: the bias stays 0), p1.
    work : (k + 3, k + 1)
    out : (rows, 1 + k)
    """
    cdef Py_ssize_t r, t, i, f, n = others.shape[1] + 1
    cdef double* a = &work[0, 0]
    cdef double* b = a + n * n
    cdef double* z = b + n
    cdef const real* q
    cdef double s, w
    with nogil:
        z[0] = 1
        for r in range(start.shape[0] - 1):
            for i in range(n * n + n):
                a[i] = 0
            for t in range(start[r], start[r + 1]):
                q = &others[codes[t], 0]
                for f in range(1, n):
                    z[f] = q[f - 1]
                w = weights[t]
                for i in range(n):
                    s = w * z[i]
                    b[i] += s * values[t]
                    for f in range(i + 1):
                        a[i * n + f] += s * z[f]
            for i in range(1, n):
                a[i * n + i] += penalties[r, 1]
            if penalties[r, 0] == INFINITY:  # an equation that says bias = 0
                for i in range(n):
                    a[i * n] = 0
                a[0], b[0] = 1, 0
            else:
                a[0] += penalties[r, 0]
            solve(a, b, n)
            for i in range(n):
                out[r, i] = <real>b[i]
