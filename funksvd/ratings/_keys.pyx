# cython: language_level=3, freethreading_compatible=True
"""Kernels on the keys and codes of ratings: counting, looking up, stable grouping, hashing and dealing.

None of them takes the GIL, and none of the results depends on how many threads run them.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

include "../machine/_hash.pxi"

ctypedef fused key_t:
    int32_t
    int64_t

ctypedef fused value_t:
    float
    double

ctypedef fused real:
    float
    double


def count(const key_t[:] keys, int64_t base, int64_t[::1] counts):
    """counts[key - base] += 1 for every key."""
    cdef Py_ssize_t t
    with nogil:
        for t in range(keys.shape[0]):
            counts[keys[t] - base] += 1


def group(const int32_t[::1] keys, const int32_t[::1] values, int64_t[::1] start, int32_t[::1] out):
    """out = values, stably sorted by keys; start : (n_keys + 1,) zeros -> where each key's values begin."""
    cdef Py_ssize_t t
    with nogil:
        for t in range(keys.shape[0]):
            start[keys[t] + 1] += 1
        for t in range(1, start.shape[0]):
            start[t] += start[t - 1]
        for t in range(keys.shape[0]):
            out[start[keys[t]]] = values[t]
            start[keys[t]] += 1
        for t in range(start.shape[0] - 1, 0, -1):
            start[t] = start[t - 1]
        start[0] = 0


def deal_out(const int32_t[::1] keys, const int32_t[::1] a, const int32_t[::1] b, int64_t[::1] cursor,
             int32_t[::1] out_a, int32_t[::1] out_b):
    """out_a and out_b = a and b by keys, stable; cursor[key] is where the key's next one goes. b and out_b may be None."""
    cdef Py_ssize_t t
    cdef int64_t at
    cdef bint both = b is not None
    with nogil:
        for t in range(keys.shape[0]):
            at = cursor[keys[t]]
            cursor[keys[t]] = at + 1
            out_a[at] = a[t]
            if both:
                out_b[at] = b[t]


def look_up(const key_t[:] keys, int64_t base, const int32_t[::1] table, int32_t[::1] out):
    """out = table[keys - base], or -1 where that is outside the table."""
    cdef Py_ssize_t t
    cdef int64_t k
    with nogil:
        for t in range(keys.shape[0]):
            k = keys[t] - base
            out[t] = table[k] if 0 <= k < table.shape[0] else -1


def hash_ratings(const int32_t[::1] users, const int32_t[::1] items, const value_t[:] values, uint64_t seed,
                 uint64_t[::1] out):
    """A hash of each rating and the seed, the same when users and items change places."""
    cdef Py_ssize_t t
    cdef uint64_t bits
    cdef double v
    seed = mix(seed + 1)  # far apart for neighbouring seeds
    with nogil:
        for t in range(users.shape[0]):
            v = values[t]
            memcpy(&bits, &v, 8)
            out[t] = mix(mix(seed + <uint64_t>users[t]) + mix(seed + <uint64_t>items[t]) + mix(bits))


def deal(const int64_t[::1] start, const int32_t[::1] other, const real[::1] rating, const real[::1] weight,
         int64_t first, int32_t[::1] hand, uint64_t seed, int64_t[::1] cursor, int32_t[::1] out_row,
         int32_t[::1] out_other, real[::1] out_rating, real[::1] out_weight):
    """Ratings `first`, `first` + 1, ... to the batches that `hand` lists, once it is shuffled; into each in their order.

    start : where the ratings of each row start, cursor[batch] : where its next rating goes. An empty `weight`: all 1.
    """
    cdef Py_ssize_t t, n = hand.shape[0], row = 0, high = start.shape[0] - 1
    cdef int64_t at
    cdef int32_t moved
    with nogil:
        for t in range(n - 1, 0, -1):  # Fisher and Yates, with a multiplication for the draw
            seed += <uint64_t>0x9E3779B97F4A7C15
            at = <int64_t>(((mix(seed) >> 32) * <uint64_t>(t + 1)) >> 32)
            moved = hand[t]
            hand[t] = hand[at]
            hand[at] = moved
        while high - row > 1:  # the row of the first: start[row] <= first < start[row + 1]
            t = (row + high) // 2
            if start[t] <= first:
                row = t
            else:
                high = t
        for t in range(n):
            while start[row + 1] <= first + t:
                row += 1
            at = cursor[hand[t]]
            cursor[hand[t]] = at + 1
            out_row[at], out_other[at], out_rating[at] = <int32_t>row, other[first + t], rating[first + t]
            if weight.shape[0]:
                out_weight[at] = weight[first + t]
