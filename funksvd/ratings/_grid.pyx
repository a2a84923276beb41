# cython: language_level=3, freethreading_compatible=True
"""Counting sorts that turn encoded ratings into the block grid. Every kernel here works on one chunk or one block, so
that Python threads run several at once; none of the results depends on how many do.

A rating comes as a pair of integer keys and a value. ``place[key - base]`` packs where a key belongs:
band << 32 | row within its band.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

ctypedef fused key_t:
    int32_t
    int64_t

ctypedef fused other_key_t:
    int32_t
    int64_t

ctypedef fused value_t:
    float
    double

ctypedef fused real:
    float
    double


def assign_bands(const int64_t[::1] counts, const int64_t[::1] order, int32_t n_bands, int64_t most,
                 int32_t[::1] band):
    """band[row] by longest processing time: each row, largest first, to the band with the fewest ratings so far.

    A band takes at most `most` rows. `order` lists rows by falling count.
    """
    cdef int64_t* load = <int64_t*>malloc(n_bands * sizeof(int64_t))
    cdef int64_t* size = <int64_t*>malloc(n_bands * sizeof(int64_t))
    cdef int32_t* heap = <int32_t*>malloc(n_bands * sizeof(int32_t))
    cdef Py_ssize_t t, at, child, length = n_bands
    cdef int32_t b, moved
    cdef int64_t row
    with nogil:
        for b in range(n_bands):
            load[b] = 0
            size[b] = 0
            heap[b] = b
        for t in range(order.shape[0]):
            row = order[t]
            b = heap[0]
            band[row] = b
            load[b] += counts[row]
            size[b] += 1
            moved = b
            if size[b] == most:  # full: out of the heap
                length -= 1
                moved = heap[length]
            at = 0
            while True:  # sift down
                child = 2 * at + 1
                if child >= length:
                    break
                if child + 1 < length and less(load, heap[child + 1], heap[child]):
                    child += 1
                if not less(load, heap[child], moved):
                    break
                heap[at] = heap[child]
                at = child
            heap[at] = moved
    free(load)
    free(size)
    free(heap)


cdef inline bint less(const int64_t* load, int32_t a, int32_t b) noexcept nogil:
    return load[a] < load[b] or (load[a] == load[b] and a < b)


def count_blocks(const key_t[:] run_keys, int64_t run_base, const int64_t[::1] run_place,
                 const other_key_t[:] keys, int64_t base, const int64_t[::1] place, int64_t n_bands,
                 int64_t[::1] counts):
    """counts[run band * n_bands + band] += 1 for every rating."""
    cdef Py_ssize_t t
    with nogil:
        for t in range(keys.shape[0]):
            counts[(run_place[run_keys[t] - run_base] >> 32) * n_bands + (place[keys[t] - base] >> 32)] += 1


def scatter(const key_t[:] run_keys, int64_t run_base, const int64_t[::1] run_place,
            const other_key_t[:] keys, int64_t base, const int64_t[::1] place, const value_t[:] values,
            int64_t n_bands, int64_t[::1] cursor, uint32_t[::1] row, uint16_t[::1] low_row, uint16_t[::1] index,
            real[::1] rating):
    """Ratings to their blocks, in the order they come; cursor[block] is where the next one goes.

    The row within the run side's band goes to `low_row` where 16 bits hold every one, else to `row`; the other of the
    two is empty. That halves the only large temporary.
    """
    cdef Py_ssize_t t
    cdef int64_t a, b, at
    cdef bint narrow = low_row.shape[0] > 0
    with nogil:
        for t in range(keys.shape[0]):
            a = run_place[run_keys[t] - run_base]
            b = place[keys[t] - base]
            at = cursor[(a >> 32) * n_bands + (b >> 32)]
            cursor[(a >> 32) * n_bands + (b >> 32)] = at + 1
            if narrow:
                low_row[at] = <uint16_t>a
            else:
                row[at] = <uint32_t>a
            index[at] = <uint16_t>b
            rating[at] = <real>values[t]


cdef struct Entry32:  # a rating on its way through the sort: one write in place of two
    float rating
    uint16_t index

cdef struct Entry64:
    double rating
    uint16_t index

ctypedef fused Entry:
    Entry32
    Entry64

cdef enum:
    SHORT_ROW = 64  # up to about here comparisons beat counting


cdef inline bint after(const Entry* a, const Entry* b) noexcept nogil:
    return a.index > b.index or (a.index == b.index and a.rating > b.rating)


cdef int by_value32(const void* a, const void* b) noexcept nogil:
    return after(<const Entry32*>a, <const Entry32*>b) - after(<const Entry32*>b, <const Entry32*>a)


cdef int by_value64(const void* a, const void* b) noexcept nogil:
    return after(<const Entry64*>a, <const Entry64*>b) - after(<const Entry64*>b, <const Entry64*>a)


cdef bint rank_row(Entry* row, Py_ssize_t n, Entry* scratch) noexcept nogil:
    """Sort a short row by its items' ranks, all compared with all: vectors and no branch to mispredict.

    False, and nothing done, where an item repeats.
    """
    cdef int16_t x[SHORT_ROW]
    cdef int16_t rank[SHORT_ROW]
    cdef int16_t v
    cdef Py_ssize_t t, s, total = 0, padded = (n + 7) & ~7
    for t in range(n):
        x[t] = <int16_t>(row[t].index - 32768)  # signed: the compare that every instruction set has
    for t in range(n, padded):
        x[t] = 0
    for t in range(padded):
        rank[t] = 0
    for s in range(n):
        v = x[s]
        for t in range(padded):
            rank[t] += x[t] > v
    for t in range(n):
        total += rank[t]
    if total != n * (n - 1) // 2:
        return False
    for t in range(n):
        scratch[rank[t]] = row[t]
    memcpy(row, scratch, n * sizeof(row[0]))
    return True


cdef void sort_row(Entry* row, Py_ssize_t n, uint32_t* at, Py_ssize_t n_index, Entry* scratch) noexcept nogil:
    """One row by (index, rating): by comparisons where it is short, else by counting, then equal pairs by rating."""
    cdef Py_ssize_t t, s
    cdef Entry moved
    cdef uint32_t sum = 0, c
    if n <= SHORT_ROW:
        if n > 6 and rank_row(row, n, scratch):
            return
        for t in range(1, n):
            moved = row[t]
            s = t
            while s > 0 and after(&row[s - 1], &moved):
                row[s] = row[s - 1]
                s -= 1
            row[s] = moved
        return
    for t in range(n_index):
        at[t] = 0
    for t in range(n):
        at[row[t].index] += 1
    for t in range(n_index):
        c = at[t]
        at[t] = sum
        sum += c
    for t in range(n):
        s = at[row[t].index]
        at[row[t].index] += 1
        scratch[s] = row[t]
    memcpy(row, scratch, n * sizeof(row[0]))
    t = 0
    while t < n:
        s = t
        while t < n and row[t].index == row[s].index:
            t += 1
        if t - s > 1:
            qsort(row + s, t - s, sizeof(row[0]), by_value32 if Entry is Entry32 else by_value64)


cdef void spread(const Entry* row, Py_ssize_t n, Py_ssize_t repeats, uint32_t* at, Entry* out) noexcept nogil:
    """A sorted row to: every item's first rating, then the second ones, ... `repeats` <= n of them."""
    cdef Py_ssize_t t, number = 0
    cdef uint32_t sum = 0, c
    for t in range(repeats):
        at[t] = 0
    for t in range(n):
        number = number + 1 if t and row[t].index == row[t - 1].index else 0
        at[number] += 1
    for t in range(repeats):
        c = at[t]
        at[t] = sum
        sum += c
    for t in range(n):
        number = number + 1 if t and row[t].index == row[t - 1].index else 0
        out[at[number]] = row[t]
        at[number] += 1


cdef Py_ssize_t sort_rows(
    uint32_t[::1] row, uint16_t[::1] low_row, uint16_t[::1] index, real[::1] rating, Py_ssize_t n_rows,
    Py_ssize_t n_index, Entry* entries, Entry* scratch, uint32_t* at, uint32_t* counts, double* total,
) noexcept nogil:
    cdef Py_ssize_t n = index.shape[0], t, r, first, end, repeats, repeat, runs = 0
    cdef bint narrow = low_row.shape[0] > 0
    cdef uint32_t s, sum = 0, c
    cdef Entry* sorted_row
    memset(at, 0, n_rows * sizeof(uint32_t))
    for t in range(n):
        at[low_row[t] if narrow else row[t]] += 1
    for r in range(n_rows):
        c = at[r]
        at[r] = sum
        sum += c
    for t in range(n):
        r = low_row[t] if narrow else row[t]
        s = at[r]
        at[r] = s + 1
        entries[s].index = index[t]
        entries[s].rating = rating[t]

    first = 0  # at[r] is where row r ends by now
    for r in range(n_rows):
        end = at[r]
        if end == first:
            continue
        sorted_row = entries + first
        sort_row(sorted_row, end - first, counts, n_index, scratch)
        repeats = repeat = 1
        for t in range(1, end - first):
            repeat = repeat + 1 if sorted_row[t].index == sorted_row[t - 1].index else 1
            repeats = max(repeats, repeat)
        if repeats > 1:
            spread(sorted_row, end - first, repeats, counts, scratch)
            sorted_row = scratch
        runs += repeats
        for t in range(first, end):
            index[t] = sorted_row[t - first].index
            rating[t] = sorted_row[t - first].rating
            total[0] += rating[t]
            if narrow:
                low_row[t] = <uint16_t>r
            else:
                row[t] = <uint32_t>r
        first = end
    return runs


def sort_block(uint32_t[::1] row, uint16_t[::1] low_row, uint16_t[::1] index, real[::1] rating, Py_ssize_t n_rows,
               Py_ssize_t n_index):
    """Sort one block by (row, index, rating) and move repeated pairs apart; returns (runs, sum of the ratings).

    A counting sort by row, then each row by itself; whatever order the ratings came in leaves no trace. A row's second
    ratings of the same items follow its first ones as a run of their own, its third ones follow these: within a run
    every item is distinct, and a run ends where the index does not rise.
    """
    cdef Py_ssize_t n = index.shape[0], runs
    cdef size_t entry = sizeof(Entry32) if real is float else sizeof(Entry64)
    cdef double total = 0
    cdef uint32_t* at = <uint32_t*>malloc(n_rows * sizeof(uint32_t))
    cdef uint32_t* counts = <uint32_t*>malloc(max(n, n_index) * sizeof(uint32_t))
    cdef void* entries = malloc(n * entry)
    cdef void* scratch = malloc(n * entry)
    try:
        if at == NULL or counts == NULL or entries == NULL or scratch == NULL:
            raise MemoryError
        with nogil:
            if real is float:
                runs = sort_rows(row, low_row, index, rating, n_rows, n_index, <Entry32*>entries, <Entry32*>scratch,
                                 at, counts, &total)
            else:
                runs = sort_rows(row, low_row, index, rating, n_rows, n_index, <Entry64*>entries, <Entry64*>scratch,
                                 at, counts, &total)
        return runs, total
    finally:
        free(at)
        free(counts)
        free(entries)
        free(scratch)


def list_runs(const uint32_t[::1] row, const uint16_t[::1] low_row, const uint16_t[::1] index, int32_t band_start,
              int32_t[::1] run_row, uint32_t[::1] run_end):
    """The run table of one sorted block: rows count from the start of all bands, ends from the start of the block."""
    cdef Py_ssize_t t, r = -1, n = index.shape[0]
    cdef bint narrow = low_row.shape[0] > 0
    cdef uint32_t this, last = 0
    with nogil:
        for t in range(n):
            this = low_row[t] if narrow else row[t]
            if t == 0 or this != last or index[t] <= index[t - 1]:
                r += 1
                run_row[r] = band_start + <int32_t>this
            run_end[r] = <uint32_t>(t + 1)
            last = this
