# Linear algebra of the sampler and of the low-rank mean, in float32.
#
# A row has `width` factors, a multiple of 8, and the first row starts at a multiple of 64 bytes: a
# row is width / LANES whole vectors. Every function is inlined, so that where the caller's width is
# a constant (16 and 32 are the useful ones) the compiler unrolls the loops over it.


cdef inline float dot(Py_ssize_t width, const float* p, const float* q) noexcept nogil:
    """Return p . q."""
    cdef const vec* left = <const vec*>p
    cdef const vec* right = <const vec*>q
    cdef vec sums = left[0] * right[0]
    cdef Py_ssize_t f
    for f in range(1, width / LANES):
        sums += left[f] * right[f]
    return lane_sum(sums)


cdef inline float dot_at_any_address(
    Py_ssize_t width, const float* p, const float* q
) noexcept nogil:
    """Return `dot`, to the last bit, where q lies at any address."""
    cdef const vec* left = <const vec*>p
    cdef const loose_vec* right = <const loose_vec*>q
    cdef vec sums = left[0] * right[0]
    cdef Py_ssize_t f
    for f in range(1, width / LANES):
        sums += left[f] * right[f]
    return lane_sum(sums)


cdef inline void add_tile(
    Py_ssize_t width, Py_ssize_t n, const float* left, const float* right, float* out
) noexcept nogil:
    """Add to a tile of a Gram matrix its share of n rows: 8 factors times one vector of factors.

    left, right : the tile's 8 factors and its vector of factors, in the first of the rows
    out : the tile's corner in the matrix (width, width)

    The tile's sums stay in eight registers while the rows pass by, so that a row costs one load of
    a vector for eight products.
    """
    cdef Py_ssize_t vectors = width / LANES, _row
    cdef vec* sums = <vec*>out
    cdef vec s0 = sums[0]
    cdef vec s1 = sums[vectors]
    cdef vec s2 = sums[2 * vectors]
    cdef vec s3 = sums[3 * vectors]
    cdef vec s4 = sums[4 * vectors]
    cdef vec s5 = sums[5 * vectors]
    cdef vec s6 = sums[6 * vectors]
    cdef vec s7 = sums[7 * vectors]
    cdef vec v
    for _row in range(n):
        v = (<const vec*>right)[0]
        s0 += left[0] * v
        s1 += left[1] * v
        s2 += left[2] * v
        s3 += left[3] * v
        s4 += left[4] * v
        s5 += left[5] * v
        s6 += left[6] * v
        s7 += left[7] * v
        left += width
        right += width
    sums[0] = s0
    sums[vectors] = s1
    sums[2 * vectors] = s2
    sums[3 * vectors] = s3
    sums[4 * vectors] = s4
    sums[5 * vectors] = s5
    sums[6 * vectors] = s6
    sums[7 * vectors] = s7


cdef enum:
    GRAM_ROWS = 256     # a batch of rows stays in the cache while all tiles pass over it


cdef inline void add_gram(
    Py_ssize_t width, Py_ssize_t n, const float* g, float* gram
) noexcept nogil:
    """Add sum_j g_j g_j' of n rows to the tiles of gram (width, width) from the diagonal's on."""
    cdef Py_ssize_t first = 0, m, a, b
    cdef const float* rows
    while first < n:
        m = min(n - first, <Py_ssize_t>GRAM_ROWS)
        rows = g + first * width
        for a in range(0, width, 8):
            for b in range(a / LANES, width / LANES):
                add_tile(width, m, rows + a, rows + b * LANES, gram + a * width + b * LANES)
        first += m


# Two systems of equations with one matrix, A x = c and A y = s, solved by A = U'U.
cdef struct Equations:
    float* gram         # (width, width) A, then U; entries left of the diagonal are never read
    float* inverse      # (width,) 1 / diagonal of U
    float* c            # (width,) right side
    float* s            # (width,) right side
    float* solved_c     # (width,) U'^-1 c
    float* solved_s     # (width,) U'^-1 s


cdef inline void sum_sides(
    Py_ssize_t width, Py_ssize_t n, const float* g, const float* error, const float* scale,
    Equations* equations,
) noexcept nogil:
    """Write c = sum_j error_j g_j and s = sum_j scale_j g_j; n is a multiple of 4.

    Four ratings at a time have sums of their own, so that no addition waits for the one before.
    """
    cdef Py_ssize_t f, j, vectors = width / LANES
    cdef vec c0, c1, c2, c3, s0, s1, s2, s3, x
    cdef const vec* row
    for f in range(vectors):
        row = <const vec*>g + f
        x = row[0]
        c0 = c1 = c2 = c3 = s0 = s1 = s2 = s3 = x * 0
        for j in range(0, n, 4):
            x = row[0]
            c0 += error[j] * x
            s0 += scale[j] * x
            x = row[vectors]
            c1 += error[j + 1] * x
            s1 += scale[j + 1] * x
            x = row[2 * vectors]
            c2 += error[j + 2] * x
            s2 += scale[j + 2] * x
            x = row[3 * vectors]
            c3 += error[j + 3] * x
            s3 += scale[j + 3] * x
            row += 4 * vectors
        (<vec*>equations.c)[f] = (c0 + c1) + (c2 + c3)
        (<vec*>equations.s)[f] = (s0 + s1) + (s2 + s3)


cdef inline void subtract_products(
    Py_ssize_t width, Py_ssize_t n, const float* g, const float* x, float* error
) noexcept nogil:
    """Subtract g_j . x from error_j; eight ratings at a time, n is a multiple of 8.

    Eight dot products share each load of x, and their lanes are summed together by one transpose.
    """
    cdef Py_ssize_t f, j, i, vectors = width / LANES
    cdef vec s0, s1, s2, s3, s4, s5, s6, s7, v
    cdef float dots[8]
    cdef float* out = dots
    cdef const vec* row
    for j in range(0, n, 8):
        row = <const vec*>(g + j * width)
        v = (<const vec*>x)[0]
        s0 = v * row[0]
        s1 = v * row[vectors]
        s2 = v * row[2 * vectors]
        s3 = v * row[3 * vectors]
        s4 = v * row[4 * vectors]
        s5 = v * row[5 * vectors]
        s6 = v * row[6 * vectors]
        s7 = v * row[7 * vectors]
        for f in range(1, vectors):
            v = (<const vec*>x)[f]
            row += 1
            s0 += v * row[0]
            s1 += v * row[vectors]
            s2 += v * row[2 * vectors]
            s3 += v * row[3 * vectors]
            s4 += v * row[4 * vectors]
            s5 += v * row[5 * vectors]
            s6 += v * row[6 * vectors]
            s7 += v * row[7 * vectors]
        lane_sums8(s0, s1, s2, s3, s4, s5, s6, s7, out)
        for i in range(8):
            error[j + i] -= dots[i]


cdef inline bint factorise_and_check(
    Py_ssize_t width, Equations* equations, const float* least, float rounding
) noexcept nogil:
    """Turn A into its Cholesky factor U (A = U'U), and solve U' solved_c = c, U' solved_s = s.

    A is the sum of a positive matrix and diag(least), so that no pivot is below least[j] but by
    rounding. Both right sides are taken through the same pass over the rows; c and s are destroyed.

    Returns whether a pivot is smaller than the share `rounding` of its entry in A: its digits are
    noise then, and the solutions mean nothing.
    """
    cdef Py_ssize_t j, t, f, vectors = width / LANES
    cdef float inverse, factor, cj, sj
    cdef bint lost = False
    cdef float* gram = equations.gram
    cdef vec* row
    cdef vec* target
    cdef vec* c = <vec*>equations.c
    cdef vec* s = <vec*>equations.s
    for j in range(width):
        equations.inverse[j] = rounding * gram[j * width + j]  # until it gets its own content
    for j in range(width):
        lost |= gram[j * width + j] < equations.inverse[j]
        inverse = 1 / sqrtf(max(gram[j * width + j], least[j]))
        cj = equations.c[j] * inverse
        sj = equations.s[j] * inverse
        equations.inverse[j] = inverse
        equations.solved_c[j] = cj
        equations.solved_s[j] = sj
        row = <vec*>(gram + j * width)
        for f in range(j / LANES, vectors):
            row[f] = row[f] * inverse
            c[f] = c[f] - cj * row[f]
            s[f] = s[f] - sj * row[f]
        for t in range(j + 1, width):
            factor = gram[j * width + t]
            target = <vec*>(gram + t * width)
            for f in range(t / LANES, vectors):
                target[f] = target[f] - factor * row[f]
    return lost


cdef inline void factorise(
    Py_ssize_t width, Equations* equations, const float* least
) noexcept nogil:
    """Do the same without looking for lost digits."""
    factorise_and_check(width, equations, least, 0)


cdef inline void solve_back(
    Py_ssize_t width, Equations* equations, float* x, float* y
) noexcept nogil:
    """Solve U x' = x and U y' = y in place; solved_c and solved_s are destroyed.

    They hold the right sides meanwhile: whole vectors are multiplied, and what stands in U left of
    the diagonal must meet zeros in x and y.
    """
    cdef Py_ssize_t j, f, vectors = width / LANES
    cdef float* right_x = equations.solved_c
    cdef float* right_y = equations.solved_s
    cdef vec sum_x, sum_y
    cdef vec* row
    memcpy(right_x, x, width * sizeof(float))
    memcpy(right_y, y, width * sizeof(float))
    memset(x, 0, width * sizeof(float))
    memset(y, 0, width * sizeof(float))
    for j in range(width - 1, -1, -1):
        row = <vec*>(equations.gram + j * width)
        f = j / LANES
        sum_x = row[f] * (<vec*>x)[f]
        sum_y = row[f] * (<vec*>y)[f]
        for f in range(j / LANES + 1, vectors):
            sum_x += row[f] * (<vec*>x)[f]
            sum_y += row[f] * (<vec*>y)[f]
        x[j] = (right_x[j] - lane_sum(sum_x)) * equations.inverse[j]
        y[j] = (right_y[j] - lane_sum(sum_y)) * equations.inverse[j]
