# cython: language_level=3, freethreading_compatible=True
"""CPU kernels of a served model: shortlists of the best items of many users, and their ranking.

`serving/top.py` calls `pack`, `select` and `rank` in this order, and computes the exact scores of
the shortlists between the last two. Every kernel sees plain arrays, takes no GIL and checks
nothing. setup.py builds this file for each dtype (REAL) and each level of the instruction set.

What `select` computes, without the tricks::

    for user:
        scores = item_biases + item_factors @ user_factors[user]
        scores[unwanted items] = -infinity
        limit = n-th largest score - slack[user]
        shortlist = items whose score is at least the limit

The tricks, by which one thread needs a sixth of the time of NumPy's product and `argpartition`, and
0.9 of that of the product alone (6,144 users, 26,744 items, 64 factors, n = 10, seen items left
out, float32, AMD EPYC):

* Tiles. Six users (QUERIES) and a panel of 2 * LANES items have 12 vectors of sums, which stay in
  registers over all factors: each of the 12 updates of a factor reads no memory but the panel's two
  vectors and one number of the user. A sum is never written unless it is wanted.
* Blocks. `top` calls `select` for 384 users, whose packed factors stay in the L2 cache while the
  panels pass by, and each panel is read from memory once a block. Blocks of 48 users take 1.27
  times as long.
* Limits. A running limit, the n-th best score so far less the slack, stands for the final one,
  which is never lower. Past the first items nearly every tile (all but one in hundreds) has no
  score above a limit, so that its 12 comparisons end it.
* Short lists. A list has room for 2 n + 32 items. When it is full, quickselect finds its n-th best
  score, which raises the limit, and the items below go. That is half of the list at least, so that
  a kept item costs a constant time, where a heap takes log n steps. A row with more items that are
  as good as its n-th is given up, and `top` ranks it by all scores.
* Two pointers. Items pass by in the order of their codes, and so do the items that a user must not
  get: one pointer per user moves along, and nothing is looked up.
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
    /* Whether a lane of a comparison is true. */
    #if VECTOR_BYTES
    typedef __typeof__((vec){0} > (vec){0}) over;
    static inline int any(over lanes) {
        long long bits[VECTOR_BYTES / 8];
        long long all = 0;
        __builtin_memcpy(bits, &lanes, VECTOR_BYTES);
        for (int i = 0; i < VECTOR_BYTES / 8; i++) {
            all |= bits[i];
        }
        return all != 0;
    }
    #else
    typedef int over;
    #define any(lanes) (lanes)
    #endif

    /* The lanes in which either value is above the limit. */
    static over above(vec left, vec right, REAL limit) {
        vec limits = left * 0 + limit;
        return (left > limits) | (right > limits);
    }
    """
    ctypedef int over
    over above(vec, vec, real) nogil
    bint any(over) nogil

cdef enum:
    # Six users times two vectors of sums, two vectors of items and a user's factor: with one more
    # they would not fit the 16 registers of x86-64.
    QUERIES = 6


# ---- records ------------------------------------------------------------------------------------

cdef struct Seen:
    # The items that row t must not get are codes[next[t]:end[t]], ascending.
    int64_t* next
    const int64_t* end
    const int32_t* codes


cdef struct Lists:
    # The shortlists of all rows; that of row t starts at scores[t * capacity].
    int n               # best items that a list must hold
    int capacity
    real* limits        # scores that are not above a row's limit are dropped
    const real* slack   # how far rounding can set back one of the n best
    real* scores
    int32_t* codes
    int32_t* counts     # lengths; -1 where more than half of the capacity lies above the limit


cdef struct Scored:
    real score
    int32_t code


# ---- packing ------------------------------------------------------------------------------------

def panel():
    """Return (users, items) of a tile: the last dimensions of the arrays that `pack` fills."""
    return QUERIES, 2 * LANES


def pack(
    const real[:, ::1] factors, const int32_t[::1] codes, Py_ssize_t first, real[:, :, ::1] out
):
    """Copy rows of factors into panels, factor by factor; return the largest squared norm.

    It sets out[p, first + f, place] = factors[codes[p * width + place], f], and zeros where there
    is no code or the code is -1.

    Parameters
    ----------
    factors : (rows, k)
    codes : (m,)
    first : row of a panel that gets factor 0
    out : (panels, first + k, width)
    """
    cdef Py_ssize_t k = factors.shape[1]
    cdef Py_ssize_t width = out.shape[2]
    cdef Py_ssize_t p, place, f, t
    cdef const real* row
    cdef real squares
    cdef real largest = 0
    with nogil:
        for p in range(out.shape[0]):
            for place in range(width):
                t = p * width + place
                if t >= codes.shape[0] or codes[t] < 0:
                    for f in range(k):
                        out[p, first + f, place] = 0
                    continue
                row = &factors[codes[t], 0]
                squares = 0
                for f in range(k):
                    squares += row[f] * row[f]
                largest = max(largest, squares)
                for f in range(k):
                    out[p, first + f, place] = row[f]
    return largest


# ---- the tile -----------------------------------------------------------------------------------

cdef inline bint tile(
    Py_ssize_t k, const real* query, const vec* items, const real* limits, vec* sums
) noexcept nogil:
    """Compute the scores of six users and a panel; write them and return True if one is wanted.

    query : (k, QUERIES) factors of the users; items : (1 + k, 2) vectors, biases and then factors.
    The scores of user r go to sums[2 * r] and sums[2 * r + 1].
    """
    cdef vec left0, left1, left2, left3, left4, left5
    cdef vec right0, right1, right2, right3, right4, right5
    cdef vec left = items[0]
    cdef vec right = items[1]
    cdef Py_ssize_t _f
    left0 = left1 = left2 = left3 = left4 = left5 = left
    right0 = right1 = right2 = right3 = right4 = right5 = right
    for _f in range(k):
        items += 2
        left = items[0]
        right = items[1]
        left0 += left * query[0]
        right0 += right * query[0]
        left1 += left * query[1]
        right1 += right * query[1]
        left2 += left * query[2]
        right2 += right * query[2]
        left3 += left * query[3]
        right3 += right * query[3]
        left4 += left * query[4]
        right4 += right * query[4]
        left5 += left * query[5]
        right5 += right * query[5]
        query += QUERIES
    if not any(
        above(left0, right0, limits[0])
        | above(left1, right1, limits[1])
        | above(left2, right2, limits[2])
        | above(left3, right3, limits[3])
        | above(left4, right4, limits[4])
        | above(left5, right5, limits[5])
    ):
        return False
    sums[0] = left0
    sums[1] = right0
    sums[2] = left1
    sums[3] = right1
    sums[4] = left2
    sums[5] = right2
    sums[6] = left3
    sums[7] = right3
    sums[8] = left4
    sums[9] = right4
    sums[10] = left5
    sums[11] = right5
    return True


# ---- the lists ----------------------------------------------------------------------------------

cdef inline void swap(real* scores, int32_t* codes, int i, int j) noexcept nogil:
    cdef real score = scores[i]
    cdef int32_t code = codes[i]
    scores[i] = scores[j]
    codes[i] = codes[j]
    scores[j] = score
    codes[j] = code


cdef real nth_best(real* scores, int32_t* codes, int count, int n) noexcept nogil:
    """Return the n-th largest score and move the n largest to the front (Hoare's quickselect)."""
    cdef int low = 0
    cdef int high = count - 1
    cdef int i, j
    cdef real pivot
    while low < high:
        pivot = scores[(low + high) / 2]
        i = low
        j = high
        while i <= j:
            while scores[i] > pivot:
                i += 1
            while scores[j] < pivot:
                j -= 1
            if i <= j:
                swap(scores, codes, i, j)
                i += 1
                j -= 1
        if n - 1 <= j:
            high = j
        elif n - 1 >= i:
            low = i
        else:
            break
    return scores[n - 1]


cdef void tighten(Lists* lists, Py_ssize_t t) noexcept nogil:
    """Raise the limit of row t to its n-th best score less the slack, and drop the items below."""
    cdef real* scores = lists.scores + t * lists.capacity
    cdef int32_t* codes = lists.codes + t * lists.capacity
    cdef int count = lists.counts[t]
    cdef int left = 0
    cdef int i
    cdef real limit
    if count < lists.n:
        return
    limit = nth_best(scores, codes, count, lists.n) - lists.slack[t]
    for i in range(count):
        if scores[i] >= limit:
            scores[left] = scores[i]
            codes[left] = codes[i]
            left += 1
    lists.limits[t] = limit
    lists.counts[t] = left


cdef void add(Lists* lists, Py_ssize_t t, int32_t code, real score) noexcept nogil:
    """Append an item to the list of row t; give the row up where too many items are as good."""
    cdef Py_ssize_t place = t * lists.capacity + lists.counts[t]
    lists.scores[place] = score
    lists.codes[place] = code
    lists.counts[t] += 1
    if lists.counts[t] == lists.capacity:
        tighten(lists, t)
        if lists.counts[t] > lists.capacity / 2:
            lists.counts[t] = -1
            lists.limits[t] = INFINITY


cdef inline bint is_unwanted(Seen* seen, Py_ssize_t t, int32_t code) noexcept nogil:
    """Return whether row t must not get an item; asked for rising codes."""
    while seen.next[t] < seen.end[t] and seen.codes[seen.next[t]] < code:
        seen.next[t] += 1
    return seen.next[t] < seen.end[t] and seen.codes[seen.next[t]] == code


cdef void add_wanted(
    Lists* lists, Seen* seen, Py_ssize_t t, const real* scores, const int32_t* codes, int width
) noexcept nogil:
    """Append to the list of row t those items of a panel that are above its limit and not unwanted.

    A panel's places beyond the last item have a score of minus infinity, and so no code is read.
    """
    cdef int place
    for place in range(width):
        if not scores[place] > lists.limits[t]:
            continue
        if is_unwanted(seen, t, codes[place]):
            continue
        add(lists, t, codes[place], scores[place])


def select(
    const real[:, :, ::1] queries,
    const real[:, :, ::1] panels,
    const int32_t[::1] codes,
    int n,
    seen,
    lists,
):
    """Fill the shortlist of each row, which then holds the row's n best items.

    Parameters
    ----------
    queries : (groups, k, QUERIES)
        Users' factors from `pack`; row t is place t % QUERIES of group t // QUERIES.
    panels : (panels, 1 + k, 2 * LANES), from a multiple of 64 bytes
        Items' biases, minus infinity where a panel has no item, then their factors from `pack`.
    codes : (n_items,) ascending
        Code of each item.
    n : int
    seen : `serving.top.KernelSeen`
        The items that a row must not get; its `next` is changed.
    lists : `serving.top.KernelLists`
        The lists to fill. The scores are approximate, and lack the terms that are equal for all
        items of a row: the mean and the user's bias.
    """
    cdef int64_t[::1] seen_next = seen.next
    cdef const int64_t[::1] seen_end = seen.end
    cdef const int32_t[::1] seen_codes = seen.codes
    cdef real[::1] limits = lists.limits
    cdef const real[::1] slack = lists.slack
    cdef real[:, ::1] scores = lists.scores
    cdef int32_t[:, ::1] kept = lists.codes
    cdef int32_t[::1] counts = lists.counts
    cdef Seen unwanted
    cdef Lists found
    cdef Py_ssize_t k = queries.shape[1]
    cdef int width = <int>panels.shape[2]
    cdef Py_ssize_t p, g, r, t
    cdef vec sums[2 * QUERIES]
    unwanted.next = &seen_next[0]
    unwanted.end = &seen_end[0]
    unwanted.codes = &seen_codes[0] if seen_codes.shape[0] else NULL
    found.n = n
    found.capacity = <int>scores.shape[1]
    found.limits = &limits[0]
    found.slack = &slack[0]
    found.scores = &scores[0, 0]
    found.codes = &kept[0, 0]
    found.counts = &counts[0]
    with nogil:
        for p in range(panels.shape[0]):
            for g in range(queries.shape[0]):
                t = g * QUERIES
                if not tile(
                    k, &queries[g, 0, 0], <const vec*>&panels[p, 0, 0], &limits[t], sums
                ):
                    continue
                for r in range(QUERIES):
                    if not any(above(sums[2 * r], sums[2 * r + 1], limits[t + r])):
                        continue
                    add_wanted(
                        &found,
                        &unwanted,
                        t + r,
                        <const real*>sums + r * width,
                        &codes[p * width],
                        width,
                    )
        for t in range(counts.shape[0]):
            if counts[t] > 0:
                tighten(&found, t)


# ---- the ranking --------------------------------------------------------------------------------

cdef int better(const void* a, const void* b) noexcept nogil:
    """Compare two items for qsort: the larger score first, then the smaller code."""
    cdef const Scored* x = <const Scored*>a
    cdef const Scored* y = <const Scored*>b
    if x.score != y.score:
        return -1 if x.score > y.score else 1
    return (x.code > y.code) - (x.code < y.code)


def rank(
    const int32_t[::1] counts,
    const real[::1] scores,
    const int32_t[::1] codes,
    int32_t[:, ::1] best,
    real[:, ::1] best_scores,
):
    """Write the first items of each shortlist, by falling score and then by code.

    Parameters
    ----------
    counts : (rows,) lengths of the shortlists
    scores, codes : (counts.sum(),) exact scores and item codes, list after list
    best, best_scores : (rows, width)
        The answer; where a list is shorter than a row, the row keeps its last places as they are.
    """
    cdef Py_ssize_t r, t
    cdef Py_ssize_t start = 0
    cdef Scored* items = <Scored*>malloc((scores.shape[0] + 1) * sizeof(Scored))
    if items == NULL:
        raise MemoryError
    with nogil:
        for t in range(scores.shape[0]):
            items[t].score = scores[t]
            items[t].code = codes[t]
        for r in range(counts.shape[0]):
            qsort(items + start, counts[r], sizeof(Scored), better)
            for t in range(min(counts[r], <int32_t>best.shape[1])):
                best[r, t] = items[start + t].code
                best_scores[r, t] = items[start + t].score
            start += counts[r]
        free(items)
