# cython: language_level=3, freethreading_compatible=True
"""Kernels on the keys and codes of ratings: count, look up, group, hash, and deal into batches.

None of them holds the GIL. No result depends on the number of threads.
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
    """Add to counts[key - base] how often each key occurs.

    Return the position of the first key for which `counts` has no place, where the counting ends,
    and -1 if there is none. Keys come from outside: this is the check that all later kernels trust.
    """
    cdef Py_ssize_t t
    cdef Py_ssize_t outside = -1
    cdef uint64_t place
    cdef uint64_t span = counts.shape[0]
    with nogil:
        for t in range(keys.shape[0]):
            place = <uint64_t>keys[t] - <uint64_t>base  # a key below the base gives a large number
            if place >= span:
                outside = t
                break
            counts[place] += 1
    return outside


def group(
    const int32_t[::1] keys, const int32_t[::1] values, int64_t[::1] start, int32_t[::1] out
):
    """Sort values by their keys; the sort is stable.

    Parameters
    ----------
    keys, values : (n,)
    start : (n_keys + 1,)
        Zeros on entry. On return, values of key k stand at start[k]:start[k + 1] of `out`.
    out : (n,)
        The sorted values are written here.
    """
    cdef Py_ssize_t t
    with nogil:
        for t in range(keys.shape[0]):
            start[keys[t] + 1] += 1
        for t in range(1, start.shape[0]):
            start[t] += start[t - 1]
        for t in range(keys.shape[0]):
            out[start[keys[t]]] = values[t]
            start[keys[t]] += 1
        # By now start[k] is where key k ends, that is, where key k + 1 starts.
        for t in range(start.shape[0] - 1, 0, -1):
            start[t] = start[t - 1]
        start[0] = 0


def deal_out(
    const int32_t[::1] keys, const int32_t[::1] first, const int32_t[::1] second,
    int64_t[::1] cursor, int32_t[::1] out_first, int32_t[::1] out_second,
):
    """Write the entries of two columns to places that their keys decide, in the order they come.

    Parameters
    ----------
    keys, first, second : (n,)
        `second` may be None, and so may `out_second` then.
    cursor : (n_keys,)
        Where the next entry of each key goes; it moves on.
    out_first, out_second
        The columns are written here.
    """
    cdef Py_ssize_t t
    cdef int64_t at
    cdef bint both = second is not None
    with nogil:
        for t in range(keys.shape[0]):
            at = cursor[keys[t]]
            cursor[keys[t]] = at + 1
            out_first[at] = first[t]
            if both:
                out_second[at] = second[t]


def look_up(const key_t[:] keys, int64_t base, const int32_t[::1] table, int32_t[::1] out):
    """Write table[key - base] of each key to `out`, or -1 if that is outside the table.

    Return whether none is outside.
    """
    cdef Py_ssize_t t
    cdef uint64_t place
    cdef uint64_t span = table.shape[0]
    cdef bint inside = True
    with nogil:
        for t in range(keys.shape[0]):
            place = <uint64_t>keys[t] - <uint64_t>base  # a key below the base gives a large number
            if place < span:
                out[t] = table[place]
            else:
                out[t] = -1
                inside = False
    return inside


def hash_ratings(
    const int32_t[::1] users, const int32_t[::1] items, const value_t[:] values, uint64_t seed,
    uint64_t[::1] out,
):
    """Write a hash of each rating and the seed to `out`.

    It stays the same when users and items change places.
    """
    cdef Py_ssize_t t
    cdef uint64_t bits
    cdef uint64_t of_pair
    cdef double value
    seed = mix(seed + 1)  # so that neighbouring seeds are far apart
    with nogil:
        for t in range(users.shape[0]):
            value = values[t]
            memcpy(&bits, &value, 8)
            of_pair = mix(seed + <uint64_t>users[t]) + mix(seed + <uint64_t>items[t])
            out[t] = mix(of_pair + mix(bits))


cdef inline void shuffle(int32_t[::1] hand, uint64_t seed) noexcept nogil:
    """Shuffle an array in place (Fisher and Yates); each draw is a hash, and no division."""
    cdef Py_ssize_t t
    cdef int64_t other
    cdef int32_t moved
    for t in range(hand.shape[0] - 1, 0, -1):
        seed += <uint64_t>0x9E3779B97F4A7C15
        other = <int64_t>(((mix(seed) >> 32) * <uint64_t>(t + 1)) >> 32)
        moved = hand[t]
        hand[t] = hand[other]
        hand[other] = moved


cdef inline Py_ssize_t row_of(const int64_t[::1] start, int64_t rating) noexcept nogil:
    """Return the row with start[row] <= rating < start[row + 1], by bisection."""
    cdef Py_ssize_t row = 0
    cdef Py_ssize_t high = start.shape[0] - 1
    cdef Py_ssize_t middle
    while high - row > 1:
        middle = (row + high) // 2
        if start[middle] <= rating:
            row = middle
        else:
            high = middle
    return row


def deal(
    const int64_t[::1] start, const int32_t[::1] other, const real[::1] rating,
    const real[::1] weight, int64_t first, int32_t[::1] hand, uint64_t seed, int64_t[::1] cursor,
    int32_t[::1] out_row, int32_t[::1] out_other, real[::1] out_rating, real[::1] out_weight,
):
    """Deal consecutive ratings to the batches of a shuffled hand.

    Each batch receives its ratings in the order in which they stand.

    Parameters
    ----------
    start : (rows + 1,)
        Where the ratings of each row start.
    other, rating, weight : (n_ratings,)
        Row on the other side, rating and weight. An empty `weight` means that all are 1.
    first : int
        The first rating that is dealt; as many as `hand` has follow.
    hand : (n,)
        A batch for each rating; it is shuffled in place first.
    seed : int
        Of the shuffling.
    cursor : (batches,)
        Where the next rating of each batch goes; it moves on.
    out_row, out_other, out_rating, out_weight
        The dealt ratings are written here.
    """
    cdef Py_ssize_t t
    cdef Py_ssize_t row
    cdef int64_t at
    with nogil:
        shuffle(hand, seed)
        row = row_of(start, first)
        for t in range(hand.shape[0]):
            while start[row + 1] <= first + t:
                row += 1
            at = cursor[hand[t]]
            cursor[hand[t]] = at + 1
            out_row[at] = <int32_t>row
            out_other[at] = other[first + t]
            out_rating[at] = rating[first + t]
            if weight.shape[0]:
                out_weight[at] = weight[first + t]
