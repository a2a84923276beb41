# cython: language_level=3, freethreading_compatible=True
"""CPU kernel of fold-in: ridge solutions for new rows, given the other side.

The ratings of a row say values = z x, with x = (bias, factors) of the row and z = (1, factors) of
each rating's other side. The row that minimises the weighted squared error plus penalties solves
the normal equations

    A x = b,   A = sum_t w_t z_t z_t' + diag(penalties),   b = sum_t w_t values_t z_t,

whose symmetric positive definite matrix is factored as L L' (Cholesky). In NumPy, for one row::

    z = np.column_stack([np.ones(n), others[codes]])
    a = z.T @ (weights[:, None] * z) + np.diag([bias_penalty, *k * [factor_penalty]])
    x = np.linalg.solve(a, z.T @ (weights * values))

The matrix and the sums are float64 whatever the dtype of the factors, and only the lower half of
the matrix is made. The kernel takes no GIL and checks nothing; setup.py builds it for each dtype
(REAL) and each level of the instruction set.
"""

from libc.math cimport INFINITY, sqrt
from libc.stdint cimport int32_t, int64_t

cdef extern from "../machine/_vec.h":
    ctypedef float real "REAL"


cdef void add_rating(
    double* a, double* b, const double* z, double value, double weight, Py_ssize_t n
) noexcept nogil:
    """Add a rating to the normal equations: w z z' to the lower half of a, w value z to b."""
    cdef Py_ssize_t i, j
    cdef double weighted
    for i in range(n):
        weighted = weight * z[i]
        b[i] += weighted * value
        for j in range(i + 1):
            a[i * n + j] += weighted * z[j]


cdef void add_penalties(
    double* a, double* b, double bias_penalty, double factor_penalty, Py_ssize_t n
) noexcept nogil:
    """Add the penalties to the diagonal; an infinite one of the bias keeps the bias at 0."""
    cdef Py_ssize_t i
    for i in range(1, n):
        a[i * n + i] += factor_penalty
    if bias_penalty == INFINITY:
        # The first equation becomes bias = 0, and no other one has a bias.
        for i in range(n):
            a[i * n] = 0
        a[0] = 1
        b[0] = 0
    else:
        a[0] += bias_penalty


cdef void solve(double* a, double* x, Py_ssize_t n) noexcept nogil:
    """Solve a x = b for a symmetric positive definite (n, n) matrix.

    It reads the lower half of a, and overwrites it by the factor L. x holds b before, and the
    solution afterwards.
    """
    cdef Py_ssize_t i, j, f
    cdef double s
    # a = L L'
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
    # L y = b
    for i in range(n):
        for f in range(i):
            x[i] -= a[i * n + f] * x[f]
        x[i] /= a[i * n + i]
    # L' x = y
    for i in range(n - 1, -1, -1):
        for f in range(i + 1, n):
            x[i] -= a[f * n + i] * x[f]
        x[i] /= a[i * n + i]


def ridge(
    const int64_t[::1] start,
    const int32_t[::1] codes,
    const double[::1] values,
    const double[::1] weights,
    const real[:, ::1] others,
    const double[:, ::1] penalties,
    double[:, ::1] work,
    real[:, ::1] out,
):
    """Write the bias and factors of each row that minimise its squared error plus penalties.

    Row r of `out` is x = (bias, factors), the minimum of
    sum_t weights[t] (values[t] - x . (1, others[codes[t]]))^2 + p0 bias^2 + p1 |factors|^2.

    Parameters
    ----------
    start, codes, values, weights : (rows + 1,), (n,), (n,), (n,)
        Ratings, row after row, less the mean and the other side's bias; `weights` are those of the
        ratings.
    others : (n_others, k) factors of the other side
    penalties : (rows, 2)
        p0, infinite where the bias must stay 0, and p1.
    work : (k + 3, k + 1) memory for the equations
    out : (rows, 1 + k)
    """
    cdef Py_ssize_t n = others.shape[1] + 1
    cdef Py_ssize_t r, t, i
    cdef double* a = &work[0, 0]
    cdef double* b = a + n * n
    cdef double* z = b + n
    cdef const real* factors
    with nogil:
        z[0] = 1
        for r in range(start.shape[0] - 1):
            for i in range(n * n + n):
                a[i] = 0
            for t in range(start[r], start[r + 1]):
                factors = &others[codes[t], 0]
                for i in range(1, n):
                    z[i] = factors[i - 1]
                add_rating(a, b, z, values[t], weights[t], n)
            add_penalties(a, b, penalties[r, 0], penalties[r, 1], n)
            solve(a, b, n)
            for i in range(n):
                out[r, i] = <real>b[i]
