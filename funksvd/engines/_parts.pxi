# Cuts of a batch's rows into parts of about equal work, each found by a binary search.

cdef enum:
    MOST = 32  # parts
    RATING_COST = 3  # of a rating, where a row costs 1

cdef struct Part:  # rows first to last, and their ratings from place `start` to place `stop`
    Py_ssize_t first, last
    Py_ssize_t start, stop


cdef Py_ssize_t first_not_below(const int32_t* row, Py_ssize_t count, Py_ssize_t least) noexcept:
    """Return the first place in ascending rows whose row is not below `least`."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if row[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


cdef Py_ssize_t row_at(
    const int32_t* row, Py_ssize_t count, Py_ssize_t n_rows, Py_ssize_t work,
) noexcept:
    """Return the row before which there is so much work, of rows and of ratings grouped by them."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle, above, below
    while low < high:
        middle = (low + high) // 2
        if RATING_COST * middle + row[middle] < work:
            low = middle + 1
        else:
            high = middle
    below = row[low - 1] if low else 0
    above = row[low] if low < count else n_rows
    return min(max(work - RATING_COST * low, below), above)


cdef Py_ssize_t row_of_starts_at(
    const int32_t* start, Py_ssize_t n_rows, Py_ssize_t work,
) noexcept:
    """Return the same for rows whose entries begin at start[row]."""
    cdef Py_ssize_t low = 0
    cdef Py_ssize_t high = n_rows
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) // 2
        if RATING_COST * <Py_ssize_t>start[middle] + middle < work:
            low = middle + 1
        else:
            high = middle
    return low


cdef void cut_ratings(
    Part* parts, Py_ssize_t n_parts, const int32_t* row, Py_ssize_t count, Py_ssize_t n_rows,
) noexcept:
    """Cut rows by their ratings, which are grouped by ascending row."""
    cdef Py_ssize_t part, work
    parts[0].first = 0
    parts[0].start = 0
    for part in range(1, n_parts):
        work = (RATING_COST * count + n_rows) * part // n_parts
        parts[part].first = row_at(row, count, n_rows, work)
        parts[part].start = first_not_below(row, count, parts[part].first)
        parts[part - 1].last = parts[part].first
        parts[part - 1].stop = parts[part].start
    parts[n_parts - 1].last = n_rows
    parts[n_parts - 1].stop = count


cdef void cut_entries(
    Part* parts, Py_ssize_t n_parts, const int32_t* start, Py_ssize_t n_rows,
) noexcept:
    """Cut rows whose entries begin at start[row]."""
    cdef Py_ssize_t part, work
    cdef Py_ssize_t count = start[n_rows]
    parts[0].first = 0
    for part in range(1, n_parts):
        work = (RATING_COST * count + n_rows) * part // n_parts
        parts[part].first = row_of_starts_at(start, n_rows, work)
        parts[part - 1].last = parts[part].first
    parts[n_parts - 1].last = n_rows
    for part in range(n_parts):
        parts[part].start = start[parts[part].first]
        parts[part].stop = start[parts[part].last]
