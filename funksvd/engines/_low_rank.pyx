# cython: language_level=3, freethreading_compatible=True
"""Kernels of the low-rank mean (`low_rank.py`): tables of factors, and the cut to a lower rank.

The tables A (users, n) and B (items, n) hold the factors of several samples side by side, so that
A B' is the sum of the samples' matrices of predictions. `append` adds a sample; `gram`,
`best_rank` and `transform` replace the tables by the best ones with fewer columns.
"""

from libc.math cimport fabs, sqrt, sqrtf
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, float*) nogil
    float lane_sum(loose_vec) nogil

include "_linear.pxi"

cdef enum:
    SUMMED_ROWS = 256       # rows that `gram` sums in float32
    MOST_TURNS = 30         # passes over all pairs of rows, if they do not converge before


cdef inline float row_scale(const int64_t[::1] start, Py_ssize_t row) noexcept nogil:
    """Return the weight of a row in the norm of the cut: the root of its number of ratings + 3."""
    return sqrtf(<float>(start[row + 1] - start[row] + 3))


def append(
    const float[:, ::1] means, const int64_t[::1] start, Py_ssize_t column,
    Py_ssize_t first, Py_ssize_t last, float[:, ::1] table,
):
    """Write rows [first, last) of a sample's factors to the table's columns from `column` on.

    Each row is multiplied by its weight, so that a cut is most exact where most ratings are.

    Parameters
    ----------
    means : (rows, width) factors of the sample
    start : (rows + 1,) where each row's ratings begin
    column : int
    first, last : int
    table : (rows, columns)
    """
    cdef Py_ssize_t row, f
    cdef float scale
    with nogil:
        for row in range(first, last):
            scale = row_scale(start, row)
            for f in range(means.shape[1]):
                table[row, column + f] = scale * means[row, f]


def gram(
    float[:, ::1] table, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[:, ::1] out
):
    """Add to out (n, n) the sum of t t' over rows t of a table, the tiles from the diagonal's on.

    Batches of rows are summed in float32, in scratch (n * n,).
    """
    cdef Py_ssize_t begin = first, m, j, f, width = table.shape[1]
    cdef float* sums = &scratch[0]
    with nogil:
        while begin < last:
            m = min(last - begin, <Py_ssize_t>SUMMED_ROWS)
            memset(sums, 0, width * width * sizeof(float))
            add_gram(width, m, &table[begin, 0], sums)
            for j in range(width):
                for f in range(width):
                    out[j, f] += sums[j * width + f]
            begin += m


def transform(
    float[:, ::1] table, const float[:, ::1] by, Py_ssize_t first, Py_ssize_t last,
    float[::1] scratch, float[:, ::1] out,
):
    """Write rows [first, last) of table @ by to the first columns of out.

    Four rows times two vectors of columns are summed in eight registers, so that each load of `by`
    serves four rows.

    Parameters
    ----------
    table : (rows, n)
    by : (n, columns), columns a multiple of 16
    first, last : int
    scratch : (4 * columns,)
    out : (rows, columns or more)
    """
    cdef Py_ssize_t row, f, c, j, width = by.shape[0], columns = by.shape[1]
    cdef const float* x[4]
    cdef vec* y[4]
    cdef const vec* source
    cdef vec a0, a1, b0, b1, c0, c1, d0, d1, s, t
    with nogil:
        for row in range(first, last, 4):
            for j in range(4):  # past the end, the last row again
                x[j] = &table[min(row + j, last - 1), 0]
                y[j] = <vec*>(&scratch[0] + j * columns)
            for c in range(0, columns / LANES, 2):
                s = (<const vec*>&by[0, 0])[0] * 0
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = s
                for f in range(width):
                    source = <const vec*>(&by[f, 0]) + c
                    s = source[0]
                    t = source[1]
                    a0 += x[0][f] * s
                    a1 += x[0][f] * t
                    b0 += x[1][f] * s
                    b1 += x[1][f] * t
                    c0 += x[2][f] * s
                    c1 += x[2][f] * t
                    d0 += x[3][f] * s
                    d1 += x[3][f] * t
                y[0][c] = a0
                y[0][c + 1] = a1
                y[1][c] = b0
                y[1][c + 1] = b1
                y[2][c] = c0
                y[2][c + 1] = c1
                y[3][c] = d0
                y[3][c + 1] = d1
            for j in range(min(last - row, <Py_ssize_t>4)):
                memcpy(&out[row + j, 0], y[j], columns * sizeof(float))


# ------------------------------------------------------------------------------- the best rank

cdef void cholesky(Py_ssize_t n, double[:, ::1] a) noexcept nogil:
    """Replace a matrix by its lower Cholesky factor; above the diagonal it gets zeros.

    Only the upper triangle is read. A small ridge on the diagonal keeps the factor finite where
    columns of a table depend on one another.
    """
    cdef Py_ssize_t i, j, t
    cdef double ridge = 1e-30, left
    for i in range(n):
        ridge += 1e-7 * a[i, i]
    for i in range(n):
        a[i, i] += ridge
        for j in range(i):
            a[i, j] = a[j, i]
    for i in range(n):
        for j in range(i + 1):
            left = a[i, j]
            for t in range(j):
                left -= a[i, t] * a[j, t]
            a[i, j] = sqrt(max(left, 1e-3 * ridge)) if i == j else left / a[j, j]
        for j in range(i + 1, n):
            a[i, j] = 0


cdef double rotate(
    Py_ssize_t vectors, float* x, float* y, double* xx, double* yy, double floor
) noexcept nogil:
    """Turn two rows until their dot product is 0; return how far it was, as a cosine squared.

    xx and yy are the rows' squared norms, and are kept up to date; rows with one below `floor` are
    left alone.
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
    for t in range(1, vectors):
        sums += p[t] * q[t]
    xy = lane_sum(sums)
    far = xy * xy / (xx[0] * yy[0])
    if far < 1e-10:
        return 0
    zeta = (yy[0] - xx[0]) / (2 * xy)
    tangent = (1 if zeta >= 0 else -1) / (fabs(zeta) + sqrt(1 + zeta * zeta))
    c = <float>(1 / sqrt(1 + tangent * tangent))
    s = <float>(c * tangent)
    for t in range(vectors):
        old = p[t]
        p[t] = c * old - s * q[t]
        q[t] = s * old + c * q[t]
    xx[0] -= tangent * xy
    yy[0] += tangent * xy
    return far


cdef double square_norms(Py_ssize_t n, float[:, ::1] x, double* norm) noexcept nogil:
    """Write each row's squared norm to norm (n,), and return their sum."""
    cdef Py_ssize_t i, j
    cdef double total = 0
    for i in range(n):
        norm[i] = 0
        for j in range(n):
            norm[i] += x[i, j] * x[i, j]
        total += norm[i]
    return total


cdef void make_orthogonal(Py_ssize_t n, float[:, ::1] x, double* norm) noexcept nogil:
    """Rotate the rows of x until all pairs are orthogonal, and write their squared norms to norm.

    These are one-sided Jacobi rotations (Hestenes 1958): x = V S U' becomes S U'.
    """
    cdef Py_ssize_t i, j, _turn, vectors = x.shape[1] / LANES
    cdef double total, floor, far = 1
    for _turn in range(MOST_TURNS):
        total = square_norms(n, x, norm)
        if far < 1e-5:  # convergence is quadratic: by now the cosines are at 1e-5
            break
        far = 0
        floor = 1e-11 * total
        for i in range(n):
            for j in range(i + 1, n):
                far = max(far, rotate(vectors, &x[i, 0], &x[j, 0], &norm[i], &norm[j], floor))


cdef Py_ssize_t largest(Py_ssize_t n, const double* norm, double floor) noexcept nogil:
    """Return the index of the largest norm above `floor`, or -1."""
    cdef Py_ssize_t i, best = -1
    for i in range(n):
        if norm[i] > floor:
            best = i
            floor = norm[i]
    return best


cdef void lower_times(
    Py_ssize_t n, double[:, ::1] lower, const double* x, double scale, double* out
) noexcept nogil:
    """Write scale * (lower @ x) to out (n,)."""
    cdef Py_ssize_t i, j
    cdef double total
    for i in range(n):
        total = 0
        for j in range(i + 1):
            total += lower[i, j] * x[j]
        out[i] = total * scale


cdef void transposed_times(
    Py_ssize_t n, double[:, ::1] lower, const double* y, double* out
) noexcept nogil:
    """Write lower' @ y to out (n,)."""
    cdef Py_ssize_t i, j
    for j in range(n):
        out[j] = 0
    for i in range(n):
        for j in range(i + 1):
            out[j] += lower[i, j] * y[i]


cdef void subtract_part(Py_ssize_t n, const float* v, double* z) noexcept nogil:
    """Subtract from z its part in the direction of the unit vector v."""
    cdef Py_ssize_t j
    cdef double part = 0
    for j in range(n):
        part += v[j] * z[j]
    for j in range(n):
        z[j] -= part * v[j]


def best_rank(
    double[:, ::1] a, double[:, ::1] b, float[:, ::1] x, double[:, ::1] columns,
    int64_t[::1] order, Py_ssize_t rank, float[:, ::1] by_a, float[:, ::1] by_b,
):
    """Find by_a and by_b such that A by_a (B by_b)' is the best approximation of A B' of a rank.

    With A'A = L L' and B'B = M M', the singular values of A B' are those of L'M = U S V'. B by_b =
    B L U / sqrt(S) has the right singular vectors of A B' times sqrt(S), and A by_a =
    A M V / sqrt(S) the left ones. V = M'L U / S, less the parts of earlier columns: errors in U
    count (S_1 / S)^2 times there, so singular values below 1e-4 of the largest are dropped. The
    ridge of the Cholesky factors keeps A B' where nothing is cut. There is no BLAS here, whose own
    threads would stay awake beside ours.

    Parameters
    ----------
    a, b : (n, n) A'A and B'B, which are overwritten
    x : (n, n or more) zeros, rows at multiples of 64 bytes; scratch
    columns, order : (4, n), (n,) scratch
    rank : int
    by_a, by_b : (n, rank or more), to the first `rank` columns of which the result is written
    """
    cdef Py_ssize_t n = a.shape[0], i, j, t, best
    cdef double floor = 0, square, scale
    cdef double* norm = &columns[0, 0]      # squares of the singular values
    cdef double* row = &columns[1, 0]       # S U' of one singular value
    cdef double* y = &columns[2, 0]         # column of by_b: L U / sqrt(S)
    cdef double* z = &columns[3, 0]         # V sqrt(S)
    with nogil:
        cholesky(n, a)
        cholesky(n, b)
        for t in range(n):  # x = M'L
            for i in range(t + 1):
                for j in range(t + 1):
                    x[i, j] += <float>(b[t, i] * a[t, j])
        make_orthogonal(n, x, norm)
        for i in range(n):
            floor = max(floor, 1e-8 * norm[i])
        for t in range(rank):
            best = largest(n, norm, floor)
            if best < 0:  # A B' has no such rank
                for i in range(n):
                    for j in range(t, rank):
                        by_a[i, j] = 0
                        by_b[i, j] = 0
                break
            square = norm[best]
            norm[best] = 0
            for j in range(n):
                row[j] = x[best, j]
            lower_times(n, a, row, square ** -0.75, y)
            transposed_times(n, b, y, z)
            for i in range(t):
                subtract_part(n, &x[order[i], 0], z)
            order[t] = best
            scale = square ** -0.25
            for j in range(n):  # V takes the place of the row that is no longer needed
                x[best, j] = <float>(z[j] * scale)
            for i in range(n):
                by_b[i, t] = <float>y[i]
            lower_times(n, b, z, 1 / sqrt(square), y)
            for i in range(n):
                by_a[i, t] = <float>y[i]
