# cython: language_level=3, freethreading_compatible=True
"""Kernels of the low-rank mean: tables of the samples' factors, and their best approximation of a lower rank."""

from libc.math cimport sqrt, sqrtf
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    float lane_sum(loose_vec) nogil

include "_linear.pxi"


cdef inline float row_scale(const int64_t[::1] start, Py_ssize_t row) noexcept nogil:
    return sqrtf(<float>(start[row + 1] - start[row] + 3))


def append(const float[:, ::1] means, const int64_t[::1] start, Py_ssize_t column, Py_ssize_t first, Py_ssize_t last,
           float[:, ::1] table):
    """table[row, column + f] = sqrt(ratings of the row + 3) means[row, f]: rows with more ratings matter more."""
    cdef Py_ssize_t row, f
    cdef float scale
    with nogil:
        for row in range(first, last):
            scale = row_scale(start, row)
            for f in range(means.shape[1]):
                table[row, column + f] = scale * means[row, f]


def gram(float[:, ::1] table, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[:, ::1] out):
    """out += sum over rows of t t', its tiles from the diagonal on; batches of 256 rows are summed in float32."""
    cdef Py_ssize_t begin, j, f, width = table.shape[1]
    cdef float* sums = &scratch[0]
    with nogil:
        for begin in range(first, last, 256):
            memset(sums, 0, width * width * 4)
            add_gram(width, min(last - begin, <Py_ssize_t>256), &table[begin, 0], sums)
            for j in range(width):
                for f in range(width):
                    out[j, f] += sums[j * width + f]


def transform(float[:, ::1] table, const float[:, ::1] by, Py_ssize_t first, Py_ssize_t last, float[::1] scratch,
              float[:, ::1] out):
    """The first columns of out's rows = rows @ by; four rows at a time, eight registers of sums.

    by.shape[1] is a multiple of 16.
    """
    cdef Py_ssize_t row, f, c, j, width = by.shape[0], columns = by.shape[1]
    cdef const float* x[4]
    cdef vec* y[4]
    cdef const vec* source
    cdef vec a0, a1, b0, b1, c0, c1, d0, d1, s, t
    with nogil:
        for row in range(first, last, 4):
            for j in range(4):  # past the end the last row again
                x[j] = &table[min(row + j, last - 1), 0]
                y[j] = <vec*>(&scratch[0] + j * columns)
            for c in range(0, columns / LANES, 2):
                s = (<const vec*>&by[0, 0])[0] * 0
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = s
                for f in range(width):
                    source = <const vec*>(&by[f, 0]) + c
                    s = source[0]
                    t = source[1]
                    a0 += x[0][f] * s; a1 += x[0][f] * t
                    b0 += x[1][f] * s; b1 += x[1][f] * t
                    c0 += x[2][f] * s; c1 += x[2][f] * t
                    d0 += x[3][f] * s; d1 += x[3][f] * t
                y[0][c] = a0; y[0][c + 1] = a1
                y[1][c] = b0; y[1][c + 1] = b1
                y[2][c] = c0; y[2][c + 1] = c1
                y[3][c] = d0; y[3][c + 1] = d1
            for j in range(min(last - row, <Py_ssize_t>4)):
                memcpy(&out[row + j, 0], y[j], columns * 4)


cdef void cholesky(Py_ssize_t n, double[:, ::1] a) noexcept nogil:
    """The lower factor in place of a's upper triangle, read as a symmetric matrix; zeros above it."""
    cdef Py_ssize_t i, j, t
    cdef double ridge = 1e-30, sum_
    for i in range(n):
        ridge += 1e-7 * a[i, i]
    for i in range(n):
        a[i, i] += ridge
        for j in range(i):
            a[i, j] = a[j, i]
    for i in range(n):
        for j in range(i + 1):
            sum_ = a[i, j]
            for t in range(j):
                sum_ -= a[i, t] * a[j, t]
            a[i, j] = sqrt(max(sum_, 1e-3 * ridge)) if i == j else sum_ / a[j, j]
        for j in range(i + 1, n):
            a[i, j] = 0


cdef double rotated(Py_ssize_t n, float* x, float* y, double* xx, double* yy, double floor) noexcept nogil:
    """Turn rows x and y of n vectors until their dot product is 0; returns how far it was (cosine squared).

    xx and yy are their squared norms, and are kept up to date.
    """
    cdef vec* p = <vec*>x
    cdef vec* q = <vec*>y
    cdef vec sums, old
    cdef double xy, tangent, zeta, far
    cdef float c, s
    cdef Py_ssize_t t
    if xx[0] < floor or yy[0] < floor:
        return 0
    sums = p[0] * q[0]
    for t in range(1, n):
        sums += p[t] * q[t]
    xy = lane_sum(sums)
    far = xy * xy / (xx[0] * yy[0])
    if far < 1e-10:
        return 0
    zeta = (yy[0] - xx[0]) / (2 * xy)
    tangent = (1 if zeta >= 0 else -1) / ((zeta if zeta >= 0 else -zeta) + sqrt(1 + zeta * zeta))
    c = <float>(1 / sqrt(1 + tangent * tangent))
    s = <float>(c * tangent)
    for t in range(n):
        old = p[t]
        p[t] = c * old - s * q[t]
        q[t] = s * old + c * q[t]
    xx[0] -= tangent * xy
    yy[0] += tangent * xy
    return far


def best_rank(double[:, ::1] a, double[:, ::1] b, float[:, ::1] x, double[:, ::1] sums, Py_ssize_t rank,
              float[:, ::1] by_a, float[:, ::1] by_b):
    """From the Gram matrices a of A and b of B (overwritten): A by_a (B by_b)' is the best rank-`rank` A B'.

    With a = L L', b = M M' the singular values of A B' are those of L'M = U S V'; B by_b = B L U / sqrt(S) has its
    right singular vectors times sqrt(S), A by_a = A M V / sqrt(S) the left ones. V = M'L U / S, less what earlier columns
    have of it: errors in U count (S_1 / S)^2 times there, and singular values below 1e-4 of the largest are dropped.
    The ridge on the diagonals keeps A B' where nothing is cut. One-sided Jacobi rotations (Hestenes 1958) on the rows of
    (L'M)'; no BLAS, whose own threads would stay awake beside ours. Scratch: x (n, n or more) of zeros, 64-byte aligned
    rows, which holds them and then V, and sums (4, n).
    """
    cdef Py_ssize_t n = a.shape[0], i, j, t, _turn, best, vectors = x.shape[1] / LANES
    cdef double off = 1, total = 0, floor = 0, most, root, sum_
    cdef double* norm = &sums[0, 0]
    cdef double* y = &sums[1, 0]
    cdef double* z = &sums[2, 0]
    cdef double* order = &sums[3, 0]  # rows of x that hold columns of V
    cdef float* v
    with nogil:
        cholesky(n, a)
        cholesky(n, b)
        for t in range(n):
            for i in range(t + 1):
                for j in range(t + 1):
                    x[i, j] += <float>(b[t, i] * a[t, j])
        for _turn in range(30):
            total = 0
            for i in range(n):
                norm[i] = 0
                for j in range(n):
                    norm[i] += x[i, j] * x[i, j]
                total += norm[i]
            if off < 1e-5:  # convergence is quadratic: by now the cosines are at 1e-5
                break
            off = 0
            for i in range(n):
                for j in range(i + 1, n):
                    off = max(off, rotated(vectors, &x[i, 0], &x[j, 0], &norm[i], &norm[j], 1e-11 * total))
        for i in range(n):
            floor = max(floor, 1e-8 * norm[i])
        for t in range(rank):
            best, most = -1, floor
            for i in range(n):
                if norm[i] > most:
                    best, most = i, norm[i]
            if best < 0:
                for i in range(n):
                    for j in range(t, rank):
                        by_a[i, j] = by_b[i, j] = 0
                break
            norm[best] = 0
            root = most ** -0.75  # of the singular value, to the power of 3 / 2
            for j in range(n):
                z[j] = 0
            for i in range(n):
                sum_ = 0
                for j in range(i + 1):
                    sum_ += a[i, j] * x[best, j]
                y[i] = sum_ * root
                by_b[i, t] = <float>y[i]
                for j in range(i + 1):
                    z[j] += b[i, j] * y[i]
            for i in range(t):
                v, sum_ = &x[<Py_ssize_t>order[i], 0], 0
                for j in range(n):
                    sum_ += v[j] * z[j]
                for j in range(n):
                    z[j] -= sum_ * v[j]
            order[t], v, root = best, &x[best, 0], most ** -0.25
            for j in range(n):
                v[j] = <float>(z[j] * root)
            root = 1 / sqrt(most)
            for i in range(n):
                sum_ = 0
                for j in range(i + 1):
                    sum_ += b[i, j] * z[j]
                by_a[i, t] = <float>(sum_ * root)
