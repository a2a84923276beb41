# Passes over whole rows of a side: sums for the hyper-parameters, the shift move, and what is kept.

cdef enum:
    SHIFT_ROWS = 256    # rows that `shift_sums` sums in float32


def moments(Side side, Py_ssize_t first, Py_ssize_t last, double[:, ::1] out):
    """Add to out (2, width + 1) the sums over rows of x_f less its prior mean, and of its square.

    The last column is that of the bias.
    """
    cdef Py_ssize_t row, f, width = side.factors.shape[1]
    cdef bint featured = side.bias_offsets.shape[0] > 0
    cdef float d
    cdef double b
    with nogil:
        for row in range(first, last):
            for f in range(width):
                d = side.factors[row, f] - side.mean[f]
                if featured:
                    d -= side.offsets[row, f]
                out[0, f] += d
                out[1, f] += d * d
            b = side.scalars[row, 0] - side.bias_mean
            if featured:
                b -= side.bias_offsets[row]
            out[0, width] += b
            out[1, width] += b * b


def shift_sums(
    Side side, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[:, ::1] out
):
    """Add to out (width + 1, width) the sum of q q', and in its last row that of (b - m_b) q.

    m_b is the prior mean of the row's bias.

    Of q q' only the tiles from the diagonal's on are summed, in batches in float32.
    """
    cdef Py_ssize_t begin = first, m, j, f, width = side.factors.shape[1]
    cdef float* gram = &scratch[0]
    cdef float* c = gram + width * width
    cdef float b
    with nogil:
        while begin < last:
            m = min(last - begin, <Py_ssize_t>SHIFT_ROWS)
            memset(gram, 0, width * (width + 1) * sizeof(float))
            add_gram(width, m, &side.factors[begin, 0], gram)
            for j in range(begin, begin + m):
                b = side.scalars[j, 0] - <float>side.bias_mean
                if side.bias_offsets.shape[0]:
                    b -= side.bias_offsets[j]
                for f in range(width):
                    c[f] += b * side.factors[j, f]
            for j in range(width + 1):
                for f in range(width):
                    out[j, f] += gram[j * width + f]
            begin += m


def move(Side side, const float[::1] delta, Py_ssize_t first, Py_ssize_t last):
    """Subtract delta from every row's factors."""
    cdef Py_ssize_t row, f
    with nogil:
        for row in range(first, last):
            for f in range(side.factors.shape[1]):
                side.factors[row, f] -= delta[f]


def tilt(Side side, const float[::1] delta, Py_ssize_t first, Py_ssize_t last):
    """Add factors . delta to every row's bias."""
    cdef Py_ssize_t row, width = side.factors.shape[1]
    with nogil:
        for row in range(first, last):
            side.scalars[row, 0] += dot_at_any_address(
                width, &side.factors[row, 0], &delta[0]
            )


def pair_draws(
    Side users, Side items, const int32_t[::1] user, const int32_t[::1] item, double[:, ::1] sums
):
    """Add to sums (pairs, 2) the drawn predictions f = b_u + b_i + p_u.q_i, and f^2."""
    cdef Py_ssize_t t, width = users.factors.shape[1]
    cdef double f
    with nogil:
        for t in range(user.shape[0]):
            f = users.scalars[user[t], 0] + items.scalars[item[t], 0]
            f += dot(width, &users.factors[user[t], 0], &items.factors[item[t], 0])
            sums[t, 0] += f
            sums[t, 1] += f * f


def keep(
    Side side, const float[::1] other_mean, bint conditional, Py_ssize_t first, Py_ssize_t last,
    float[:, ::1] total, double[:, ::1] sums,
):
    """Centre the rows of this sweep, and add them up if `sums` has rows.

    With p = m + p~ and q = m' + q~ on the other side, b_u + b_i + p.q is a constant + b~_u + b~_i +
    p~.q~ with b~_u = b_u - m_b + p~.m'. `means` and `mean_biases` become p~ and b~ of the
    conditional means; if not `conditional`, of the draws, but for a row without ratings, whose
    conditional mean is that of the prior.

    Parameters
    ----------
    side : Side
    other_mean : (width,) m'
    conditional : bool
    first, last : int
    total : (n, width), to which p~ is added
    sums : (n, 4), to which b~ and, of the draws, b~^2, p~.p~ and 1 / a are added
    """
    cdef Py_ssize_t row, f, width = side.factors.shape[1]
    cdef float* mean
    cdef const float* drawn
    cdef float d, draw_tilt, squares, mean_tilt, root
    cdef double b
    cdef bint add = sums.shape[0] > 0
    cdef bint by_mean
    with nogil:
        for row in range(first, last):
            mean = &side.means[row, 0]
            drawn = &side.factors[row, 0]
            by_mean = conditional or side.start[row + 1] == side.start[row]
            draw_tilt = 0
            mean_tilt = 0
            squares = 0
            for f in range(width):
                d = drawn[f] - side.mean[f]
                draw_tilt += d * other_mean[f]
                squares += d * d
                mean[f] = mean[f] - side.mean[f] if by_mean else d
                mean_tilt += mean[f] * other_mean[f]
            b = side.scalars[row, 0] - side.bias_mean + draw_tilt
            if by_mean:
                side.mean_biases[row] = side.mean_biases[row] - <float>side.bias_mean + mean_tilt
            else:
                side.mean_biases[row] = <float>b
            if add:
                root = side.scalars[row, 1]
                for f in range(width):
                    total[row, f] += mean[f]
                sums[row, 0] += side.mean_biases[row]
                sums[row, 1] += b * b
                sums[row, 2] += squares
                sums[row, 3] += 1 / (<double>root * root)
