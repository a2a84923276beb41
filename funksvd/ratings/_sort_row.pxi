# Sorting one row of a block of the grid, for `_grid.pyx`: by index, then rating, then weight.
#
# `sort_row` chooses among three sorts by the length of the row. `spread_repeats` moves ratings with
# one index apart.

from libc.stdint cimport int16_t, uint16_t, uint32_t
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

# A rating on its way through the sort. With the index beside it, it moves in one write, not two.
cdef struct Entry32:
    float rating
    uint16_t index

cdef struct Entry64:
    double rating
    uint16_t index

cdef struct PairEntry:
    double rating
    double weight
    uint16_t index

ctypedef fused Entry:
    Entry32
    Entry64
    PairEntry

ctypedef int (*Comparison)(const void*, const void*) noexcept nogil

cdef enum:
    RANKED_ROW = 64   # up to about here comparisons beat counting
    INSERTED_ROW = 6  # up to about here insertions beat ranks


cdef inline bint follows(const Entry* a, const Entry* b) noexcept nogil:
    """Return whether a comes after b by index, then rating, then weight."""
    if a.index != b.index:
        return a.index > b.index
    if Entry is PairEntry:
        return a.rating > b.rating or (a.rating == b.rating and a.weight > b.weight)
    else:
        return a.rating > b.rating


cdef int compare_32(const void* a, const void* b) noexcept nogil:
    cdef const Entry32* first = <const Entry32*>a
    cdef const Entry32* second = <const Entry32*>b
    return follows(first, second) - follows(second, first)


cdef int compare_64(const void* a, const void* b) noexcept nogil:
    cdef const Entry64* first = <const Entry64*>a
    cdef const Entry64* second = <const Entry64*>b
    return follows(first, second) - follows(second, first)


cdef int compare_pairs(const void* a, const void* b) noexcept nogil:
    cdef const PairEntry* first = <const PairEntry*>a
    cdef const PairEntry* second = <const PairEntry*>b
    return follows(first, second) - follows(second, first)


cdef inline void starts_of(uint32_t* counts, Py_ssize_t n) noexcept nogil:
    """Replace counts by the sum of those before each: where each count's entries start."""
    cdef uint32_t total = 0
    cdef uint32_t count
    cdef Py_ssize_t t
    for t in range(n):
        count = counts[t]
        counts[t] = total
        total += count


cdef bint sort_by_ranks(Entry* row, Py_ssize_t n, Entry* scratch) noexcept nogil:
    """Sort a row of at most RANKED_ROW entries by index; each goes where its rank says.

    The rank of an entry is the number of lower indices. Comparing all with all makes vector
    instructions and no branch that could be mispredicted.

    Returns
    -------
    bint
        False, with nothing done, where an index repeats.
    """
    cdef int16_t index[RANKED_ROW]
    cdef int16_t rank[RANKED_ROW]
    cdef int16_t other
    cdef Py_ssize_t t, s
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t padded = (n + 7) & ~7
    for t in range(n):
        # Signed, since every instruction set has this comparison.
        index[t] = <int16_t>(row[t].index - 32768)
    for t in range(n, padded):
        index[t] = 0
    for t in range(padded):
        rank[t] = 0
    for s in range(n):
        other = index[s]
        for t in range(padded):
            rank[t] += index[t] > other
    for t in range(n):
        total += rank[t]
    if total != n * (n - 1) // 2:  # the sum of distinct ranks
        return False
    for t in range(n):
        scratch[rank[t]] = row[t]
    memcpy(row, scratch, n * sizeof(row[0]))
    return True


cdef void sort_by_insertion(Entry* row, Py_ssize_t n) noexcept nogil:
    """Sort a short row by index, rating and weight."""
    cdef Entry moved
    cdef Py_ssize_t t, s
    for t in range(1, n):
        moved = row[t]
        s = t
        while s > 0 and follows(&row[s - 1], &moved):
            row[s] = row[s - 1]
            s -= 1
        row[s] = moved


cdef void sort_by_counting(
    Entry* row, Py_ssize_t n, uint32_t* start, Py_ssize_t n_index, Entry* scratch
) noexcept nogil:
    """Sort a long row: a counting sort by index, then equal indices by rating and weight."""
    cdef Comparison compare
    cdef Py_ssize_t t, first, index
    memset(start, 0, n_index * sizeof(uint32_t))
    for t in range(n):
        start[row[t].index] += 1
    starts_of(start, n_index)
    for t in range(n):
        index = row[t].index
        scratch[start[index]] = row[t]
        start[index] += 1
    memcpy(row, scratch, n * sizeof(row[0]))
    if Entry is Entry32:
        compare = compare_32
    elif Entry is Entry64:
        compare = compare_64
    else:
        compare = compare_pairs
    t = 0
    while t < n:
        first = t
        while t < n and row[t].index == row[first].index:
            t += 1
        if t - first > 1:
            qsort(row + first, t - first, sizeof(row[0]), compare)


cdef inline void sort_row(
    Entry* row, Py_ssize_t n, uint32_t* counts, Py_ssize_t n_index, Entry* scratch
) noexcept nogil:
    """Sort one row by index, rating and weight, in the way that is fastest for its length."""
    if n > RANKED_ROW:
        sort_by_counting(row, n, counts, n_index, scratch)
    elif n <= INSERTED_ROW or not sort_by_ranks(row, n, scratch):
        sort_by_insertion(row, n)


cdef Py_ssize_t most_repeats(const Entry* row, Py_ssize_t n) noexcept nogil:
    """Return how often the most frequent index of a sorted row occurs."""
    cdef Py_ssize_t t
    cdef Py_ssize_t repeats = 1
    cdef Py_ssize_t most = 1
    for t in range(1, n):
        repeats = repeats + 1 if row[t].index == row[t - 1].index else 1
        most = max(most, repeats)
    return most


cdef void spread_repeats(
    const Entry* row, Py_ssize_t n, Py_ssize_t repeats, uint32_t* start, Entry* out
) noexcept nogil:
    """Copy a sorted row: first each index's first rating, then the second ratings, and so on.

    `repeats` is how often the most frequent index occurs.
    """
    cdef Py_ssize_t t
    cdef Py_ssize_t number = 0  # of the rating among those with the same index
    memset(start, 0, repeats * sizeof(uint32_t))
    for t in range(n):
        number = number + 1 if t and row[t].index == row[t - 1].index else 0
        start[number] += 1
    starts_of(start, repeats)
    for t in range(n):
        number = number + 1 if t and row[t].index == row[t - 1].index else 0
        out[start[number]] = row[t]
        start[number] += 1
