# cython: language_level=3, freethreading_compatible=True
"""Kernels of the exposure model: they solve the rows of one side given the other side.

The model says which pairs (user, item) there are, not how they are rated (Hu, Koren and Volinsky
2008, in the form of Rendle, Krichene, Zhang and Koren 2021). With s_ui >= 0 the weight of a pair
that is given, a the weight of every pair of a user and an item, and l the penalty of a row, it
minimises::

    sum over given pairs of s_ui (1 - p_u.q_i)^2  +  a sum over all pairs of (p_u.q_i)^2
        + sum over rows of l_u |p_u|^2, and the same of the items

Given the q, every row has normal equations of its own, whose matrix is one matrix that all rows
share and a sum over the row's pairs alone::

    A = a Q'Q + l_u + sum s_i q_i q_i'      c = sum s_i q_i      p_u = A^-1 c

At the solution the row's part of the first two sums is sum s_i - c.p_u - l_u |p_u|^2, so that the
loss of a sweep costs nothing.

Every kernel works on rows [first, last), writes nothing that another call reads or writes, takes no
lock and no GIL, draws no random number and checks nothing.
"""

from libc.math cimport sqrtf
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memset

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, float*) nogil
    float lane_sum(loose_vec) nogil
    void PREFETCH(const void*) nogil

include "_linear.pxi"


cdef enum:
    AHEAD = 12          # pairs between the one that is gathered and the one that is prefetched
    BATCH = GRAM_ROWS   # pairs that are gathered at a time: their factors stay in the cache


# The pairs of one row, and the rows of the other side.
cdef struct Pairs:
    Py_ssize_t n
    const int32_t* index        # (n,)
    const float* root_weight    # (n,) square root of s
    const float* factors        # (others, width)


# Scratch of one call, in which one row after the other is solved.
cdef struct Work:
    float* g                # (BATCH, width) gathered pairs: root_weight_j q_j
    float* root             # (BATCH,) root_weight_j
    Equations equations
    float* least            # (width,) the row's penalty
    float* c                # (width,) right side, which the equations' own does not outlive
    float* x                # (width,) solution
    float* unused           # (width,) solution of the equations' second right side, zeros


def scratch_size(Py_ssize_t width):
    """Return how many floats of scratch a call of `solve` or `add_products` needs."""
    return BATCH * (width + 1) + width * width + 9 * (width + 16)


cdef inline float* taken(float** free, Py_ssize_t count) noexcept nogil:
    """Return the next `count` floats of the scratch, and move `free` past them."""
    cdef float* start = free[0]
    free[0] += count
    return start


cdef Work laid_out(float* scratch, Py_ssize_t width) noexcept nogil:
    """Return the scratch of a call, cut into its arrays, each at a multiple of 64 bytes."""
    cdef Work work
    cdef Py_ssize_t w = (width + 15) / 16 * 16
    work.g = taken(&scratch, BATCH * width)
    work.root = taken(&scratch, BATCH)
    work.equations.gram = taken(&scratch, width * width)
    work.equations.c = taken(&scratch, w)
    work.equations.s = taken(&scratch, w)
    work.equations.solved_c = taken(&scratch, w)
    work.equations.solved_s = taken(&scratch, w)
    work.equations.inverse = taken(&scratch, w)
    work.least = taken(&scratch, w)
    work.c = taken(&scratch, w)
    work.x = taken(&scratch, w)
    work.unused = taken(&scratch, w)
    return work


cdef inline void gather(
    Py_ssize_t width, const Pairs* pairs, Py_ssize_t first, Py_ssize_t m, Work* w
) noexcept nogil:
    """Write m pairs from `first` on to g and root, and pairs of weight 0 up to a multiple of 4."""
    cdef Py_ssize_t j, f, ahead, vectors = width / LANES
    cdef const vec* q
    cdef float root
    for j in range(m):
        ahead = pairs.index[min(first + j + AHEAD, pairs.n - 1)]
        for f in range(0, width, 16):  # a cache line holds 16 factors
            PREFETCH(pairs.factors + ahead * width + f)
        q = <const vec*>(pairs.factors + pairs.index[first + j] * width)
        root = pairs.root_weight[first + j]
        w.root[j] = root
        for f in range(vectors):
            (<vec*>w.g)[j * vectors + f] = root * q[f]
    for j in range(m, (m + 3) / 4 * 4):
        w.root[j] = 0
        memset(w.g + j * width, 0, width * sizeof(float))


cdef inline void set_up_equations(
    Py_ssize_t width, const Pairs* pairs, const float* common, float penalty, Work* w
) noexcept nogil:
    """Write A and c of the row to the equations; the second right side is zero."""
    cdef Py_ssize_t f, m, first = 0, vectors = width / LANES
    cdef float* gram = w.equations.gram
    cdef vec* c = <vec*>w.c
    memcpy(gram, common, width * width * sizeof(float))
    memset(w.c, 0, width * sizeof(float))
    while first < pairs.n:
        m = min(pairs.n - first, <Py_ssize_t>BATCH)
        gather(width, pairs, first, m, w)
        add_gram(width, m, w.g, gram)
        sum_sides(width, (m + 3) / 4 * 4, w.g, w.root, w.root, &w.equations)
        for f in range(vectors):
            c[f] += (<vec*>w.equations.c)[f]
        first += m
    for f in range(width):
        gram[f * width + f] += penalty
        w.least[f] = penalty
    memcpy(w.equations.c, w.c, width * sizeof(float))
    memset(w.equations.s, 0, width * sizeof(float))


cdef inline double solve_row(
    Py_ssize_t width, const Pairs* pairs, const float* common, float penalty, Work* w
) noexcept nogil:
    """Write the row's solution to x; return its squared error, without the penalty."""
    cdef Py_ssize_t j
    cdef double error = 0
    set_up_equations(width, pairs, common, penalty, w)
    factorise(width, &w.equations, w.least)
    memcpy(w.x, w.equations.solved_c, width * sizeof(float))
    memset(w.unused, 0, width * sizeof(float))
    solve_back(width, &w.equations, w.x, w.unused)
    for j in range(pairs.n):
        error += <double>pairs.root_weight[j] * pairs.root_weight[j]
    return error - dot(width, w.c, w.x) - <double>penalty * dot(width, w.x, w.x)


cdef inline double solve_rows(
    Py_ssize_t width, float* own, const float* other, const int64_t* start, const int32_t* index,
    const float* root_weight, const float* common, const float* penalty, Py_ssize_t first,
    Py_ssize_t last, float* scratch,
) noexcept nogil:
    """Solve rows [first, last) one after the other; return the sum of their squared errors."""
    cdef Work work = laid_out(scratch, width)
    cdef Pairs pairs
    cdef Py_ssize_t row
    cdef double error = 0
    pairs.factors = other
    for row in range(first, last):
        pairs.n = start[row + 1] - start[row]
        if pairs.n == 0:  # the solution is zero
            memset(own + row * width, 0, width * sizeof(float))
            continue
        pairs.index = index + start[row]
        pairs.root_weight = root_weight + start[row]
        error += solve_row(width, &pairs, common, penalty[row], &work)
        memcpy(own + row * width, work.x, width * sizeof(float))
    return error


def solve(
    float[:, ::1] own, const float[:, ::1] other, pairs, const float[:, ::1] common,
    const float[::1] penalty, Py_ssize_t first, Py_ssize_t last, float[::1] scratch,
):
    """Solve rows [first, last) of `own` given `other`; return the sum of their squared errors.

    Parameters
    ----------
    own, other : (rows, width), (others, width) from a multiple of 64 bytes
        The width is a multiple of 8.
    pairs : `engines.exposure.SidePairs`
        Row r has the pairs start[r]:start[r + 1].
    common : (width, width)
        a Q'Q; only the tiles from the diagonal's on are read.
    penalty : (rows,) l of each row, above 0
    first, last : int
    scratch : (scratch_size(width),) at a multiple of 64 bytes
    """
    cdef const int64_t[::1] start = pairs.start
    cdef const int32_t[::1] index = pairs.others
    cdef const float[::1] root_weight = pairs.root_weights
    cdef Py_ssize_t width = own.shape[1]
    cdef const int32_t* codes = &index[0] if index.shape[0] else NULL
    cdef const float* roots = &root_weight[0] if root_weight.shape[0] else NULL
    cdef double error
    with nogil:
        # The useful numbers of factors get loops of their own, with constant bounds.
        if width == 32:
            error = solve_rows(
                32, &own[0, 0], &other[0, 0], &start[0], codes, roots, &common[0, 0],
                &penalty[0], first, last, &scratch[0]
            )
        elif width == 64:
            error = solve_rows(
                64, &own[0, 0], &other[0, 0], &start[0], codes, roots, &common[0, 0],
                &penalty[0], first, last, &scratch[0]
            )
        else:
            error = solve_rows(
                width, &own[0, 0], &other[0, 0], &start[0], codes, roots, &common[0, 0],
                &penalty[0], first, last, &scratch[0]
            )
    return error


def add_products(
    const float[:, ::1] factors, Py_ssize_t first, Py_ssize_t last, float[::1] scratch,
    double[:, ::1] out,
):
    """Add to out (width, width) the sum of q q' over rows [first, last).

    Only the tiles from the diagonal's on are summed, in batches in float32.
    """
    cdef Py_ssize_t begin = first, m, j, f, width = factors.shape[1]
    cdef float* gram = &scratch[0]
    with nogil:
        while begin < last:
            m = min(last - begin, <Py_ssize_t>BATCH)
            memset(gram, 0, width * width * sizeof(float))
            add_gram(width, m, &factors[begin, 0], gram)
            for j in range(width):
                for f in range(width):
                    out[j, f] += gram[j * width + f]
            begin += m
