# cython: language_level=3, freethreading_compatible=True
"""The kernels of the block grid: rows are dealt out to bands, and ratings are sorted into blocks.

`grid.py` tells how they work together. Each call works on one chunk of the ratings or on one block
and holds no GIL, so that Python threads run several calls at once. No result depends on the number
of threads. Nothing here is a comparison sort of all ratings: both passes are counting sorts.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

include "_sort_row.pxi"

ctypedef fused key_t:
    int32_t
    int64_t

ctypedef fused other_key_t:
    int32_t
    int64_t

ctypedef fused value_t:
    float
    double

cdef struct Pair:  # a rating and its weight, as the structured dtype `grid.PAIR` lays them out
    double rating
    double weight

ctypedef fused rating_t:  # one rating in a block
    float
    double
    Pair


# ---------------------------------------------------------------------------- rows to bands


cdef struct Heap:  # a binary heap of the bands that still take rows; the lightest comes first
    int32_t* bands
    Py_ssize_t length
    int64_t* load  # number of ratings of each band so far


cdef inline bint lighter(const int64_t* load, int32_t a, int32_t b) noexcept nogil:
    """Return whether band a has fewer ratings than b, or as many and the lower number."""
    return load[a] < load[b] or (load[a] == load[b] and a < b)


cdef inline void replace_first(Heap* heap, int32_t band) noexcept nogil:
    """Put `band` in the place of the heap's first band, and sift it down to where it belongs."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t child
    while True:
        child = 2 * at + 1
        if child >= heap.length:
            break
        if child + 1 < heap.length:
            if lighter(heap.load, heap.bands[child + 1], heap.bands[child]):
                child += 1
        if not lighter(heap.load, heap.bands[child], band):
            break
        heap.bands[at] = heap.bands[child]
        at = child
    heap.bands[at] = band


def assign_bands(const int64_t[::1] counts, const int64_t[::1] order, int32_t n_bands,
                 int64_t most, int32_t[::1] band):
    """Deal the rows out to bands of about equal load, by longest processing time first.

    Each row, the largest first, goes to the band that has the fewest ratings so far.

    Parameters
    ----------
    counts : (rows,)
        Number of ratings of each row.
    order : (rows,)
        The rows by falling count.
    n_bands : int
    most : int
        Number of rows after which a band takes no more.
    band : (rows,)
        The band of each row; it is written here.
    """
    cdef Heap heap
    cdef int64_t* size = <int64_t*>malloc(n_bands * sizeof(int64_t))  # rows of each band so far
    cdef Py_ssize_t t
    cdef int64_t row
    cdef int32_t b
    heap.load = <int64_t*>malloc(n_bands * sizeof(int64_t))
    heap.bands = <int32_t*>malloc(n_bands * sizeof(int32_t))
    heap.length = n_bands
    try:
        if size == NULL or heap.load == NULL or heap.bands == NULL:
            raise MemoryError
        with nogil:
            for b in range(n_bands):
                heap.load[b] = 0
                heap.bands[b] = b
                size[b] = 0
            for t in range(order.shape[0]):
                row = order[t]
                b = heap.bands[0]
                band[row] = b
                heap.load[b] += counts[row]
                size[b] += 1
                if size[b] == most:  # the band is full and leaves the heap
                    heap.length -= 1
                    b = heap.bands[heap.length]
                replace_first(&heap, b)
    finally:
        free(size)
        free(heap.load)
        free(heap.bands)


# ------------------------------------------------------------------------ ratings to blocks


cdef class Places:
    """Where the ids of one side belong in the grid.

    Parameters
    ----------
    base : int
    place : (span,) int64
        ``place[key - base]`` is ``band << 32 | row within the band`` of the id with this key.
    """
    cdef int64_t base
    cdef const int64_t[::1] place

    def __init__(self, int64_t base, const int64_t[::1] place):
        self.base = base
        self.place = place


cdef struct Rows:  # the row of each rating within its band; one of the two pointers is NULL
    uint16_t* narrow
    uint32_t* wide


cdef inline uint32_t row_at(Rows rows, Py_ssize_t t) noexcept nogil:
    if rows.narrow != NULL:
        return rows.narrow[t]
    return rows.wide[t]


cdef inline void set_row(Rows rows, Py_ssize_t t, uint32_t row) noexcept nogil:
    if rows.narrow != NULL:
        rows.narrow[t] = <uint16_t>row
    else:
        rows.wide[t] = row


cdef class Cells:
    """The cell of each rating within its block, one block after the other.

    Parameters
    ----------
    row : (n,) uint16 or uint32
        Row within the run side's band. 16 bits, where they can hold every row, halve the only
        large temporary array of the grid.
    index : (n,) uint16
        Row within the gathered side's band.
    """
    cdef Rows rows
    cdef uint16_t[::1] index
    cdef object row  # keeps the memory of `rows` alive

    def __init__(self, row, uint16_t[::1] index):
        cdef uint16_t[::1] narrow
        cdef uint32_t[::1] wide
        self.row = row
        self.index = index
        self.rows.narrow = NULL
        self.rows.wide = NULL
        if index.shape[0] == 0 or len(row) == 0:
            return  # nothing has an address
        if row.itemsize == 2:
            narrow = row
            self.rows.narrow = &narrow[0]
        else:
            wide = row
            self.rows.wide = &wide[0]


def count_blocks(const key_t[:] run_keys, const other_key_t[:] keys, Places run, Places gathered,
                 int64_t[:, ::1] counts):
    """Count the ratings of a chunk that belong to each block.

    Parameters
    ----------
    run_keys, keys : (n,)
        Keys of the ratings on the run side and on the gathered side.
    run, gathered : Places
    counts : (B, B)
        ``counts[x, y]`` grows by the number of ratings of block (x, y).
    """
    cdef const int64_t[::1] run_place = run.place
    cdef const int64_t[::1] place = gathered.place
    cdef int64_t run_base = run.base
    cdef int64_t base = gathered.base
    cdef int64_t x, y
    cdef Py_ssize_t t
    with nogil:
        for t in range(keys.shape[0]):
            x = run_place[run_keys[t] - run_base] >> 32
            y = place[keys[t] - base] >> 32
            counts[x, y] += 1


def scatter(const key_t[:] run_keys, const other_key_t[:] keys, const value_t[:] values,
            Places run, Places gathered, int64_t[:, ::1] cursor, Cells cells, rating_t[::1] ratings,
            weights=None):
    """Write the ratings of a chunk into their blocks, in the order in which they come.

    Parameters
    ----------
    run_keys, keys, run, gathered
        As in `count_blocks`.
    values : (n,)
    cursor : (B, B)
        ``cursor[x, y]`` is where the next rating of block (x, y) goes; it moves on.
    cells : Cells
    ratings : (N,) float, double or Pair
        The ratings of all blocks.
    weights : (n,) float64
        The weight of each rating, where `ratings` are pairs.
    """
    cdef const int64_t[::1] run_place = run.place
    cdef const int64_t[::1] place = gathered.place
    cdef const double[:] weight
    cdef int64_t run_base = run.base
    cdef int64_t base = gathered.base
    cdef Rows rows = cells.rows
    cdef uint16_t[::1] index = cells.index
    cdef int64_t a, b, at
    cdef Py_ssize_t t
    if rating_t is Pair:
        weight = weights
    with nogil:
        for t in range(keys.shape[0]):
            a = run_place[run_keys[t] - run_base]
            b = place[keys[t] - base]
            at = cursor[a >> 32, b >> 32]
            cursor[a >> 32, b >> 32] = at + 1
            set_row(rows, at, <uint32_t>a)
            index[at] = <uint16_t>b
            if rating_t is Pair:
                ratings[at].rating = values[t]
                ratings[at].weight = weight[t]
            else:
                ratings[at] = <rating_t>values[t]


# --------------------------------------------------------------------------- sorting a block

cdef struct Block:
    Rows rows
    uint16_t* index
    void* ratings  # float, double or Pair
    Py_ssize_t n        # ratings
    Py_ssize_t n_rows   # rows of the run side's band
    Py_ssize_t n_index  # rows of the gathered side's band

cdef struct Workspace:  # memory that the sort of a block needs
    uint32_t* row_end  # (n_rows,)
    uint32_t* counts   # (max(n, n_index),)
    void* entries      # (n,)
    void* scratch      # (n,)


cdef inline void load(Entry* entry, const Block* block, Py_ssize_t t) noexcept nogil:
    """Read rating t of a block."""
    entry.index = block.index[t]
    if Entry is Entry32:
        entry.rating = (<const float*>block.ratings)[t]
    elif Entry is Entry64:
        entry.rating = (<const double*>block.ratings)[t]
    else:
        entry.rating = (<const Pair*>block.ratings)[t].rating
        entry.weight = (<const Pair*>block.ratings)[t].weight


cdef inline void store(const Entry* entry, const Block* block, Py_ssize_t t) noexcept nogil:
    """Write rating t of a block."""
    block.index[t] = entry.index
    if Entry is Entry32:
        (<float*>block.ratings)[t] = entry.rating
    elif Entry is Entry64:
        (<double*>block.ratings)[t] = entry.rating
    else:
        (<Pair*>block.ratings)[t].rating = entry.rating
        (<Pair*>block.ratings)[t].weight = entry.weight


cdef void group_rows(const Block* block, uint32_t* row_end, Entry* entries) noexcept nogil:
    """Copy the ratings of a block to `entries`, row after row; row r ends at row_end[r]."""
    cdef Py_ssize_t t, row
    memset(row_end, 0, block.n_rows * sizeof(uint32_t))
    for t in range(block.n):
        row_end[row_at(block.rows, t)] += 1
    starts_of(row_end, block.n_rows)
    for t in range(block.n):
        row = row_at(block.rows, t)
        load(&entries[row_end[row]], block, t)
        row_end[row] += 1


cdef Py_ssize_t sort_rows(
    const Block* block, const Workspace* space, Entry* entries, double* total
) noexcept nogil:
    """Sort a block in place; return its number of runs and add its ratings to `total`.

    `entries` is the workspace's, with its type.
    """
    cdef Entry* scratch = <Entry*>space.scratch
    cdef Entry* row
    cdef Py_ssize_t r, t, end, repeats
    cdef Py_ssize_t first = 0
    cdef Py_ssize_t runs = 0
    group_rows(block, space.row_end, entries)
    for r in range(block.n_rows):
        end = space.row_end[r]
        if end == first:
            continue
        row = entries + first
        sort_row(row, end - first, space.counts, block.n_index, scratch)
        repeats = most_repeats(row, end - first)
        if repeats > 1:
            spread_repeats(row, end - first, repeats, space.counts, scratch)
            row = scratch
        runs += repeats
        for t in range(first, end):
            store(&row[t - first], block, t)
            set_row(block.rows, t, <uint32_t>r)
            total[0] += row[t - first].rating
        first = end
    return runs


def sort_block(Cells cells, rating_t[::1] ratings, Py_ssize_t first, Py_ssize_t end,
               Py_ssize_t n_rows, Py_ssize_t n_index):
    """Sort one block by row, index, rating and weight, and move repeated pairs apart.

    It is a counting sort by row, and then each row is sorted by itself. The order in which the
    ratings came leaves no trace. The second ratings of a row's repeated indices follow the first
    ones as a run of their own, and the third ones follow these: within a run every index is
    distinct, and a run ends where the index does not rise.

    Parameters
    ----------
    cells : Cells
    ratings : (N,) float, double or Pair
    first, end : int
        The block is first:end of `cells` and `ratings`; it is not empty.
    n_rows, n_index : int
        Number of rows of the block's bands, on the run side and on the gathered side.

    Returns
    -------
    runs, total
        Number of runs, and sum of the ratings without regard to weights.
    """
    cdef Block block
    cdef Workspace space
    cdef Py_ssize_t n = end - first
    cdef Py_ssize_t runs
    cdef size_t entry_bytes
    cdef double total = 0
    if rating_t is float:
        entry_bytes = sizeof(Entry32)
    elif rating_t is double:
        entry_bytes = sizeof(Entry64)
    else:
        entry_bytes = sizeof(PairEntry)
    block.rows.narrow = cells.rows.narrow + first if cells.rows.narrow != NULL else NULL
    block.rows.wide = cells.rows.wide + first if cells.rows.wide != NULL else NULL
    block.index = &cells.index[first]
    block.ratings = &ratings[first]
    block.n = n
    block.n_rows = n_rows
    block.n_index = n_index
    space.row_end = <uint32_t*>malloc(n_rows * sizeof(uint32_t))
    space.counts = <uint32_t*>malloc(max(n, n_index) * sizeof(uint32_t))
    space.entries = malloc(n * entry_bytes)
    space.scratch = malloc(n * entry_bytes)
    try:
        if space.row_end == NULL or space.counts == NULL:
            raise MemoryError
        if space.entries == NULL or space.scratch == NULL:
            raise MemoryError
        with nogil:
            if rating_t is float:
                runs = sort_rows(&block, &space, <Entry32*>space.entries, &total)
            elif rating_t is double:
                runs = sort_rows(&block, &space, <Entry64*>space.entries, &total)
            else:
                runs = sort_rows(&block, &space, <PairEntry*>space.entries, &total)
        return runs, total
    finally:
        free(space.row_end)
        free(space.counts)
        free(space.entries)
        free(space.scratch)


def list_runs(Cells cells, Py_ssize_t first, Py_ssize_t end, int32_t band_start,
              int32_t[::1] run_row, uint32_t[::1] run_end):
    """Write the run table of one sorted block.

    Parameters
    ----------
    cells : Cells
    first, end : int
        The block is first:end of `cells`.
    band_start : int
        The row, counted over all bands, at which the run side's band starts.
    run_row : (runs,)
        Row of each run, counted over all bands; it is written here.
    run_end : (runs,)
        Where in the block each run ends; it is written here.
    """
    cdef Rows rows = cells.rows
    cdef uint16_t[::1] index = cells.index
    cdef Py_ssize_t t
    cdef Py_ssize_t run = -1
    cdef uint32_t row
    cdef uint32_t last = 0
    with nogil:
        for t in range(first, end):
            row = row_at(rows, t)
            if t == first or row != last or index[t] <= index[t - 1]:
                run += 1
                run_row[run] = band_start + <int32_t>row
            run_end[run] = <uint32_t>(t - first + 1)
            last = row
