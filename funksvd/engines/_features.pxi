# Features of rows: they give every row of a side a prior mean of its own.
#
# A row u has the features j with values v_uj, and each feature has factors B_j and a bias beta_j
# (Koren 2008 adds the same sums to the prediction itself):
#
#     p_u ~ N(m + sum_j v_uj B_j, diag(1 / l))           b_u ~ N(m_b + sum_j v_uj beta_j, 1 / l_b)
#     B_j ~ N(0, diag(1 / L))                            beta_j ~ N(0, 1 / L_b)
#
# `offsets` of a side are the sums, and its residuals are E_u = p_u - m - sum_j v_uj B_j. Given the
# rows, all factors of a feature are independent, and with q_j = sum_u v_uj^2
#
# (6) B_j ~ N(l (sum_u v_uj E_u + q_j B_j) / t, 1 / t),  t = L + l q_j;  E_u -= v_uj (B_j' - B_j)
#
# one feature after the other. Factors do not meet in (6): slices of 16 factors, each with a table
# of residuals of its own, are drawn by calls of their own, the first one with the biases. So
# threads share nothing, and their number changes no bit. A slice of a row is one cache line: with
# slices of 8 a draw takes 1.5 times as long.

cdef enum:
    SLICE = 16                                  # factors of a slice
    FEATURES_OF_A_BLOCK = NORMALS / SLICE       # features that one block of normals serves
    MOST_VECTORS = SLICE                        # vectors of a slice, at most


cdef class Features:
    """A sparse matrix of features of one side's rows, feature after feature, and what it draws.

    v of entry t of feature j in row r = index[t] is scale[r] value[t]; start[j] <= t < start[j + 1]
    """
    cdef public int64_t[::1] start          # (n_features + 1,)
    cdef public int32_t[::1] index          # (entries,) rows of the side
    cdef public float[::1] value            # (entries,), or (0,) where all are 1
    cdef public float[::1] scale            # (rows,)
    cdef public float[::1] squares          # (n_features,) q
    cdef public float[:, :, ::1] factors    # (slices, n_features, SLICE) B
    cdef public float[::1] biases           # (n_features,) beta
    cdef public float[::1] precision        # (width,) L of the factors
    cdef public double bias_precision       # L_b


def sum_squares(Features own):
    """Write to `squares` the sum of v^2 of each feature."""
    cdef Py_ssize_t j, t
    cdef double total
    cdef float v
    with nogil:
        for j in range(own.squares.shape[0]):
            total = 0
            for t in range(own.start[j], own.start[j + 1]):
                v = own.scale[own.index[t]]
                if own.value.shape[0]:
                    v *= own.value[t]
                total += v * v
            own.squares[j] = <float>total


def take_residuals(
    Side side, Py_ssize_t first, Py_ssize_t last, float[:, :, ::1] residuals, float[::1] biases
):
    """Write the residuals of rows to `residuals` (slices, n, SLICE) and `biases` (n,)."""
    cdef Py_ssize_t row, f
    with nogil:
        for row in range(first, last):
            for f in range(side.factors.shape[1]):
                residuals[f / SLICE, row, f % SLICE] = (
                    side.factors[row, f] - side.mean[f] - side.offsets[row, f]
                )
            biases[row] = (
                side.scalars[row, 0] - <float>side.bias_mean - side.bias_offsets[row]
            )


def give_offsets(
    Side side, Py_ssize_t first, Py_ssize_t last, float[:, :, ::1] residuals, float[::1] biases
):
    """Write to the offsets of rows what their residuals leave of them."""
    cdef Py_ssize_t row, f
    with nogil:
        for row in range(first, last):
            for f in range(side.factors.shape[1]):
                side.offsets[row, f] = (
                    side.factors[row, f] - side.mean[f] - residuals[f / SLICE, row, f % SLICE]
                )
            side.bias_offsets[row] = (
                side.scalars[row, 0] - <float>side.bias_mean - biases[row]
            )


# A chunk is what one call draws: the factors of a slice, and perhaps the biases.
cdef struct Chunk:
    Py_ssize_t n_features
    const float* squares                    # (n_features,) q
    uint64_t key                            # of the normals of the slice
    float* factors                          # (n_features, SLICE) B
    float* residuals                        # (rows, SLICE) E
    float own_precision[SLICE]              # l
    float precision[SLICE]                  # L
    float used[SLICE]                       # 1, or 0 of a factor that is not used
    double total[SLICE]                     # sums of B^2
    uint64_t bias_key
    float* biases                           # (n_features,) beta
    float* bias_residuals                   # (rows,) E of the biases
    float own_bias_precision                # l_b
    float bias_precision                    # L_b
    double bias_total                       # sum of beta^2


cdef inline vec drawn_step(
    Chunk* chunk, Py_ssize_t j, Py_ssize_t first, vec total, const float* z
) noexcept nogil:
    """Draw factors first, ... of feature j, given sum v E; return by how much they change."""
    cdef Py_ssize_t f
    cdef float* b = chunk.factors + SLICE * j + first
    cdef vec old = (<vec*>b)[0]
    cdef float q = chunk.squares[j]
    cdef vec lam = (<const loose_vec*>(chunk.own_precision + first))[0]
    cdef vec t = (<const loose_vec*>(chunk.precision + first))[0] + lam * q
    cdef vec new = lam * (total + q * old) / t + (<const loose_vec*>(z + first))[0] / vec_sqrt(t)
    new = new * (<const loose_vec*>(chunk.used + first))[0]
    (<vec*>b)[0] = new
    for f in range(LANES):
        chunk.total[first + f] += b[f] * b[f]
    return new - old


cdef inline float drawn_bias_step(Chunk* chunk, Py_ssize_t j, float total, float z) noexcept nogil:
    """Draw the bias of feature j, given sum v E; return by how much it changes."""
    cdef float old = chunk.biases[j]
    cdef float q = chunk.squares[j]
    cdef float lam = chunk.own_bias_precision
    cdef float t = chunk.bias_precision + lam * q
    cdef float new = lam * (total + q * old) / t + z / sqrtf(t)
    chunk.biases[j] = new
    chunk.bias_total += new * new
    return new - old


cdef inline void draw_chunk(
    bint biased, Features own, Chunk* chunk
) noexcept nogil:
    """Draw a chunk of one feature after the other by (6).

    Entries take turns with two sums, so that no addition waits for the one before.
    """
    cdef float z[NORMALS]
    cdef float z_bias[NORMALS]
    cdef vec even[MOST_VECTORS]
    cdef vec odd[MOST_VECTORS]
    cdef vec step[MOST_VECTORS]
    cdef float even_bias, odd_bias, bias_step = 0, v, v2
    cdef const float* scale = &own.scale[0]
    cdef const float* value = NULL
    cdef const int32_t* index
    cdef vec* row
    cdef vec* row2
    cdef Py_ssize_t j, i, t, n, half, vectors = SLICE / LANES
    for j in range(chunk.n_features):
        if j % FEATURES_OF_A_BLOCK == 0:
            normals_block(child(chunk.key, j / FEATURES_OF_A_BLOCK), z)
        if biased and j % NORMALS == 0:
            normals_block(child(chunk.bias_key, j / NORMALS), z_bias)
        n = own.start[j + 1] - own.start[j]
        half = n / 2 * 2
        index = NULL
        if n:
            index = &own.index[own.start[j]]
            if own.value.shape[0]:
                value = &own.value[own.start[j]]
        for i in range(vectors):
            even[i] = vec_splat(0)
            odd[i] = vec_splat(0)
        even_bias = 0
        odd_bias = 0
        for t in range(0, half, 2):
            v = scale[index[t]]
            v2 = scale[index[t + 1]]
            if value != NULL:
                v *= value[t]
                v2 *= value[t + 1]
            row = <vec*>(chunk.residuals + SLICE * <Py_ssize_t>index[t])
            row2 = <vec*>(chunk.residuals + SLICE * <Py_ssize_t>index[t + 1])
            for i in range(vectors):
                even[i] += v * row[i]
                odd[i] += v2 * row2[i]
            if biased:
                even_bias += v * chunk.bias_residuals[index[t]]
                odd_bias += v2 * chunk.bias_residuals[index[t + 1]]
        if half < n:
            v = scale[index[half]]
            if value != NULL:
                v *= value[half]
            row = <vec*>(chunk.residuals + SLICE * <Py_ssize_t>index[half])
            for i in range(vectors):
                even[i] += v * row[i]
            if biased:
                even_bias += v * chunk.bias_residuals[index[half]]
        for i in range(vectors):
            step[i] = drawn_step(
                chunk, j, i * LANES, even[i] + odd[i], z + j % FEATURES_OF_A_BLOCK * SLICE
            )
        if biased:
            bias_step = drawn_bias_step(chunk, j, even_bias + odd_bias, z_bias[j % NORMALS])
        for t in range(n):
            v = scale[index[t]]
            if value != NULL:
                v *= value[t]
            row = <vec*>(chunk.residuals + SLICE * <Py_ssize_t>index[t])
            for i in range(vectors):
                row[i] = row[i] - v * step[i]
            if biased:
                chunk.bias_residuals[index[t]] -= v * bias_step


def draw_features(
    Features own, Side side, uint64_t key, Py_ssize_t slice_, bint biased,
    float[:, :, ::1] residuals, float[::1] bias_residuals, double[::1] squares,
):
    """Draw a slice of the factors of all features, and their biases if `biased`, by (6).

    Parameters
    ----------
    own : Features
    side : Side, of which the precisions are read
    key : int, names the random numbers of this sweep's features
    slice_ : int, number of the slice
    biased : bool
    residuals : (slices, n, SLICE), updated; rows start at multiples of 64 bytes
    bias_residuals : (n,), updated
    squares : (slices * SLICE + 1,), to which the sums of squares are added; the last is the biases'
    """
    cdef Chunk chunk
    cdef Py_ssize_t f, first = slice_ * SLICE, width = own.precision.shape[0]
    chunk.n_features = own.squares.shape[0]
    chunk.squares = &own.squares[0]
    chunk.key = child(key, slice_)
    chunk.factors = &own.factors[slice_, 0, 0]
    chunk.residuals = &residuals[slice_, 0, 0]
    for f in range(SLICE):
        chunk.used[f] = first + f < side.used
        chunk.own_precision[f] = side.precision[first + f] if first + f < width else 1
        chunk.precision[f] = own.precision[first + f] if first + f < width else 1
        chunk.total[f] = 0
    chunk.bias_key = child(key, own.factors.shape[0])
    chunk.biases = &own.biases[0]
    chunk.bias_residuals = &bias_residuals[0]
    chunk.own_bias_precision = side.bias_precision
    chunk.bias_precision = own.bias_precision
    chunk.bias_total = 0
    with nogil:
        if biased:
            draw_chunk(True, own, &chunk)
        else:
            draw_chunk(False, own, &chunk)
    for f in range(SLICE):
        squares[first + f] += chunk.total[f]
    squares[squares.shape[0] - 1] += chunk.bias_total


def add_features(
    Features own, const float[::1] other_mean, float[:, ::1] totals, float[::1] biases
):
    """Add the factors B to `totals` (n_features, width), and beta + B.m' to `biases`.

    `other_mean` (width,) is m', the other side's mean: a feature is centred as a row is (`keep`).
    """
    cdef Py_ssize_t j, f
    cdef float b, tilt
    with nogil:
        for j in range(totals.shape[0]):
            tilt = own.biases[j]
            for f in range(totals.shape[1]):
                b = own.factors[f / SLICE, j, f % SLICE]
                totals[j, f] += b
                tilt += b * other_mean[f]
            biases[j] += tilt
