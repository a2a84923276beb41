# cython: language_level=3, freethreading_compatible=True
"""CPU kernels of a served model: the best items of many users.

As in `_sgd.pyx` every kernel sees plain arrays, takes no GIL and checks nothing, and setup.py builds this file for each
dtype (REAL) and each level of the instruction set.

The best items: a matrix product that keeps nothing but the scores above each user's limit. `QUERIES` users and a panel
of 2 * LANES items are one tile, whose 12 sums stay in registers over all factors, so that only a tile with a score above
a limit (one in hundreds) is written at all. A limit is the n-th best score so far less the `slack` for rounding: these
sums run in another order than `engine.predict`, which gives the exact order of the few that are left.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc, qsort

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float real "REAL"
    ctypedef float vec

cdef extern from *:
    """
    #if VECTOR_BYTES
    typedef __typeof__((vec){0} > (vec){0}) over;
    static inline int any(over lanes) {
        long long bits[VECTOR_BYTES / 8], all = 0;
        __builtin_memcpy(bits, &lanes, VECTOR_BYTES);
        for (int i = 0; i < VECTOR_BYTES / 8; i++) all |= bits[i];
        return all != 0;
    }
    #else
    typedef int over;
    #define any(lanes) (lanes)
    #endif

    /* Whether a lane of either value is above the limit. */
    static over above(vec a, vec b, REAL limit) {
        vec all = a * 0 + limit;
        return (a > all) | (b > all);
    }
    """
    ctypedef int over
    over above(vec, vec, real) nogil
    bint any(over) nogil

cdef enum:
    QUERIES = 6  # 6 x 2 sums, 2 values of items and a query's factor: the 16 registers of x86-64


# ------------------------------------------------------------------------------------------------ the best items

def panel():
    """(queries, items) of a tile: the last dimension of what `pack` makes for `select`."""
    return QUERIES, 2 * LANES


def pack(const real[:, ::1] factors, const int32_t[::1] codes, Py_ssize_t first, real[:, :, ::1] out):
    """out[panel, first + f, place] = factors[codes[panel, place], f]; zeros where there is no code or it is -1.

    Returns the largest sum of squares of a row.
    """
    cdef Py_ssize_t p, j, f, t, k = factors.shape[1], width = out.shape[2]
    cdef const real* row
    cdef real squares, largest = 0
    with nogil:
        for p in range(out.shape[0]):
            for j in range(width):
                t = p * width + j
                if t < codes.shape[0] and codes[t] >= 0:
                    row = &factors[codes[t], 0]
                    squares = 0
                    for f in range(k):
                        squares += row[f] * row[f]
                    largest = max(largest, squares)
                    for f in range(k):
                        out[p, first + f, j] = row[f]
                else:
                    for f in range(k):
                        out[p, first + f, j] = 0
    return largest


cdef inline bint tile(Py_ssize_t k, const real* p, const vec* q, const real* limit, vec* out) noexcept nogil:
    """The scores of six queries and one panel of items, into `out` where one of them is above its query's limit."""
    cdef vec a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5, x, y
    cdef Py_ssize_t _f
    x, y = q[0], q[1]  # the items' biases
    a0 = a1 = a2 = a3 = a4 = a5 = x
    b0 = b1 = b2 = b3 = b4 = b5 = y
    for _f in range(k):
        q += 2
        x, y = q[0], q[1]
        a0 += x * p[0]; b0 += y * p[0]
        a1 += x * p[1]; b1 += y * p[1]
        a2 += x * p[2]; b2 += y * p[2]
        a3 += x * p[3]; b3 += y * p[3]
        a4 += x * p[4]; b4 += y * p[4]
        a5 += x * p[5]; b5 += y * p[5]
        p += QUERIES
    if not any(above(a0, b0, limit[0]) | above(a1, b1, limit[1]) | above(a2, b2, limit[2])
               | above(a3, b3, limit[3]) | above(a4, b4, limit[4]) | above(a5, b5, limit[5])):
        return False
    out[0], out[1], out[2], out[3], out[4], out[5] = a0, b0, a1, b1, a2, b2
    out[6], out[7], out[8], out[9], out[10], out[11] = a3, b3, a4, b4, a5, b5
    return True


cdef real nth_best(real* scores, int32_t* codes, int count, int n) noexcept nogil:
    """The n-th largest score, after which the n largest come first (Hoare's quickselect)."""
    cdef int low = 0, high = count - 1, i, j
    cdef real pivot, score
    cdef int32_t code
    while low < high:
        pivot = scores[(low + high) / 2]
        i, j = low, high
        while i <= j:
            while scores[i] > pivot:
                i += 1
            while scores[j] < pivot:
                j -= 1
            if i <= j:
                score = scores[i]; scores[i] = scores[j]; scores[j] = score
                code = codes[i]; codes[i] = codes[j]; codes[j] = code
                i += 1
                j -= 1
        if n - 1 <= j:
            high = j
        elif n - 1 >= i:
            low = i
        else:
            break
    return scores[n - 1]


cdef real tighten(real* scores, int32_t* codes, int32_t* count, int n, real slack) noexcept nogil:
    """Drop what cannot be among the n best; returns the limit for what comes."""
    cdef int t, left = 0
    cdef real limit
    if count[0] < n:
        return -INFINITY
    limit = nth_best(scores, codes, count[0], n) - slack
    for t in range(count[0]):
        if scores[t] >= limit:
            scores[left], codes[left] = scores[t], codes[t]
            left += 1
    count[0] = left
    return limit


def select(
    const real[:, :, ::1] queries, const real[:, :, ::1] items, const int32_t[::1] codes, const real[::1] slack,
    int64_t[::1] cursor, const int64_t[::1] seen_end, const int32_t[::1] seen, int n, real[::1] limits,
    real[:, ::1] scores, int32_t[:, ::1] kept, int32_t[::1] counts,
):
    """A few items for each query, among them its n best.

    Parameters
    ----------
    queries : (groups, k, QUERIES)
        Users' factors as `pack` lays them; `rows` = groups * QUERIES below.
    items : (panels, 1 + k, 2 * LANES), from a multiple of 64 bytes
        Biases (minus infinity where a panel has no item), then factors.
    codes : (n_items,) ascending
        Code of each item.
    slack : (rows,)
        How far two sums of the same pair can lie apart.
    cursor, seen_end, seen : (rows,), (rows,), (...)
        seen[cursor[t]:seen_end[t]] are the codes, ascending, that row t must not get; the cursor is moved.
    limits : (rows,)
        Minus infinity, or infinity for a row that is to get nothing; changed.
    scores, kept, counts : (rows, capacity), same, (rows,) zeros
        The answer: approximate scores, without what all items of a row share; codes; how many there are, or -1 where
        more than half of `capacity` are too close to tell apart.
    """
    cdef Py_ssize_t g, p, j, r, t, k = queries.shape[1], width = items.shape[2]
    cdef int capacity = <int>scores.shape[1]
    cdef int32_t code
    cdef vec sums[12]
    cdef const real* found
    with nogil:
        for p in range(items.shape[0]):
            for g in range(queries.shape[0]):
                if not tile(k, &queries[g, 0, 0], <const vec*>&items[p, 0, 0], &limits[g * QUERIES], sums):
                    continue
                for r in range(QUERIES):
                    t = g * QUERIES + r
                    if not any(above(sums[2 * r], sums[2 * r + 1], limits[t])):
                        continue
                    found = <const real*>sums + r * width
                    for j in range(width):
                        if not found[j] > limits[t]:
                            continue
                        code = codes[p * width + j]
                        while cursor[t] < seen_end[t] and seen[cursor[t]] < code:
                            cursor[t] += 1
                        if cursor[t] < seen_end[t] and seen[cursor[t]] == code:
                            continue
                        scores[t, counts[t]], kept[t, counts[t]] = found[j], code
                        counts[t] += 1
                        if counts[t] == capacity:
                            limits[t] = tighten(&scores[t, 0], &kept[t, 0], &counts[t], n, slack[t])
                            if counts[t] > capacity / 2:
                                counts[t], limits[t] = -1, INFINITY
        for t in range(counts.shape[0]):
            if counts[t] > 0:
                tighten(&scores[t, 0], &kept[t, 0], &counts[t], n, slack[t])


cdef struct Scored:
    real score
    int32_t code


cdef int better(const void* a, const void* b) noexcept nogil:
    cdef const Scored* x = <const Scored*>a
    cdef const Scored* y = <const Scored*>b
    if x.score != y.score:
        return -1 if x.score > y.score else 1
    return (x.code > y.code) - (x.code < y.code)


def rank(
    const int32_t[::1] counts, const real[::1] scores, const int32_t[::1] codes, int32_t[:, ::1] best,
    real[:, ::1] best_scores,
):
    """The first columns of `best` and `best_scores`: each row's codes by falling score, then by code.

    scores, codes : (sum of counts,), row after row. What a row does not fill stays as it is.
    """
    cdef Py_ssize_t r, t, start = 0
    cdef Scored* row = <Scored*>malloc((scores.shape[0] + 1) * sizeof(Scored))
    if row == NULL:
        raise MemoryError
    with nogil:
        for t in range(scores.shape[0]):
            row[t].score, row[t].code = scores[t], codes[t]
        for r in range(counts.shape[0]):
            qsort(row + start, counts[r], sizeof(Scored), better)
            for t in range(min(counts[r], <int32_t>best.shape[1])):
                best[r, t], best_scores[r, t] = row[start + t].code, row[start + t].score
            start += counts[r]
        free(row)
