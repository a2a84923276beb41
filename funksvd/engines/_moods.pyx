# cython: language_level=3, freethreading_compatible=True
"""Kernel of the sampler that draws users' moods, by which ratings of one time are alike.

Rating t of a user, in the order of time, has beside the rest of the model the moods x_1t, x_2t, ...,
each a stationary Gaussian process with the exponential correlation (an Ornstein-Uhlenbeck process),
hence a Markov chain along the user's ratings. With r_t = exp(-|time since rating t - 1| / T), r_0 =
0, and e_t the rating less all other terms, one process of variance s has::

    x_t ~ N(r_t x_t-1, s f_t),  f_t = 1 - r_t^2        e_t ~ N(x_t, 1 / w_t)

It is drawn exactly, in O(n), by forward filtering and backward sampling (Carter and Kohn 1994)::

(1) forward: m = r_t m_t-1,  v = r_t^2 v_t-1 + s f_t
             v_t = v / (1 + w_t v),  m_t = m + v_t w_t (e_t - m)
(2) backward, with r = r_t+1, f = f_t+1 and p = r^2 v_t + s f:
             x_t ~ N(m_t + (v_t r / p) (x_t+1 - r m_t), v_t s f / p)

Both recursions wait for each of their steps, so a block draws `USERS_OF_A_BLOCK` users at once, a
user in each lane of the vectors. Users with the most ratings come first, so that those of a block
have about equally many; past the end of a user's ratings a lane holds ratings of weight 0 and
correlation 0, which tell the others nothing.

The kernel works on blocks [first, last), writes nothing that another call reads or writes, takes no
lock and no GIL, and checks nothing. Its random numbers are named by process, block and step, so
that the number of threads changes no bit.
"""

from libc.math cimport sqrtf
from libc.stdint cimport int32_t, int64_t, uint64_t

include "_random.pxi"

cdef enum:
    USERS_OF_A_BLOCK = 16
    LANE_ARRAYS = 4         # arrays of a block's scratch

BLOCK_USERS = USERS_OF_A_BLOCK


cdef class Moods:
    """Moods of all users and what they are drawn from; Python shares the arrays.

    A block has `steps` rows of `USERS_OF_A_BLOCK` lanes, as many as its longest user has ratings.
    """
    cdef public int64_t[::1] start          # (blocks + 1,) first step of each block
    cdef public int32_t[:, ::1] user        # (blocks, lanes) row of a lane's user, or -1
    cdef public int32_t[:, ::1] place       # (steps, lanes) place among the users' ratings, or -1
    cdef public int32_t[:, ::1] item_place  # (steps, lanes) place among the items' ratings
    cdef public float[:, ::1] value         # (steps, lanes) standardised rating
    cdef public float[:, :, ::1] kept       # (processes, steps, lanes) r
    cdef public float[:, :, ::1] mood       # (processes, steps, lanes) x
    # Shared with the sides of `_gibbs.pyx`.
    cdef public float[::1] residual         # (ratings,) of the users, without the moods' change
    cdef public float[::1] squared_scale    # (ratings,) a_i s of a rating of the users
    cdef public float[::1] root_weight      # (ratings,) square root of s of the users, or (0,)
    cdef public float[:, ::1] scalars       # (users, 2), of which the second is sqrt(a_u)
    cdef public float[::1] user_value       # (ratings,) rating less moods, of the users
    cdef public float[::1] item_value       # (ratings,) the same of the items


# A block at work: all arrays are (steps, lanes).
cdef struct Block:
    Py_ssize_t steps
    const int32_t* place
    float* rest         # rating less all terms
    float* weight       # precision w of a rating, 0 past the end of a user's
    float* mean         # m of (1)
    float* variance     # v of (1)


# Sums over ratings with residual e, like those of `_gibbs.pyx`.
cdef struct Sums:
    double weighted         # z = a_u a_i s e^2
    double plain            # s e^2
    double fourth           # z^2


def scratch_size(Py_ssize_t longest):
    """Return how many floats of scratch a call of `draw` needs; `longest` is the longest row."""
    return LANE_ARRAYS * longest * USERS_OF_A_BLOCK


cdef inline void gather(
    Moods moods, Py_ssize_t number, double alpha, const Block* block
) noexcept nogil:
    """Write the residuals and precisions of a block's ratings side by side."""
    cdef Py_ssize_t t, lane, slot, place
    cdef float precision[USERS_OF_A_BLOCK]
    cdef float root
    for lane in range(USERS_OF_A_BLOCK):
        precision[lane] = 0
        if moods.user[number, lane] >= 0:
            root = moods.scalars[moods.user[number, lane], 1]
            precision[lane] = <float>(alpha * root * root)
    for t in range(block.steps):
        for lane in range(USERS_OF_A_BLOCK):
            slot = t * USERS_OF_A_BLOCK + lane
            place = block.place[slot]
            if place >= 0:
                block.rest[slot] = moods.residual[place]
                block.weight[slot] = precision[lane] * moods.squared_scale[place]
            else:
                block.rest[slot] = 0
                block.weight[slot] = 0


cdef inline void filter_forward(
    const Block* block, const float* kept, const float* mood, float s
) noexcept nogil:
    """Write m and v of (1); `mood` is the process as it was drawn last, s its variance."""
    cdef Py_ssize_t t, lane, slot
    cdef float m[USERS_OF_A_BLOCK]
    cdef float v[USERS_OF_A_BLOCK]
    cdef float r, w, mean, variance
    for lane in range(USERS_OF_A_BLOCK):
        m[lane] = 0
        v[lane] = 0
    for t in range(block.steps):
        for lane in range(USERS_OF_A_BLOCK):
            slot = t * USERS_OF_A_BLOCK + lane
            r = kept[slot]
            w = block.weight[slot]
            mean = r * m[lane]
            variance = r * r * v[lane] + s * ((1 - r) * (1 + r))
            variance = variance / (1 + w * variance)
            m[lane] = mean + variance * w * (block.rest[slot] + mood[slot] - mean)
            v[lane] = variance
            block.mean[slot] = m[lane]
            block.variance[slot] = variance


cdef inline double sample_backward(
    const Block* block, const float* kept, float* mood, float s, uint64_t key
) noexcept nogil:
    """Draw a process by (2); return the sum of (x_t - r_t x_t-1)^2 / f_t over the ratings."""
    cdef Py_ssize_t t, lane, slot
    cdef float z[NORMALS]
    cdef float after[USERS_OF_A_BLOCK]      # x of the next step,
    cdef float r_after[USERS_OF_A_BLOCK]    # its correlation with this one,
    cdef float counts[USERS_OF_A_BLOCK]     # and 1 if it is a rating, else 0
    cdef float squares[USERS_OF_A_BLOCK]
    cdef float r, f, m, v, x, e, inverse
    cdef double total = 0
    cdef const float* normal
    for lane in range(USERS_OF_A_BLOCK):
        after[lane] = 0
        r_after[lane] = 0
        counts[lane] = 0
        squares[lane] = 0
    for t in range(block.steps - 1, -1, -1):
        if t & 1 or t == block.steps - 1:
            normals_block(key + <uint64_t>(t >> 1), z)
        normal = z + (t & 1) * USERS_OF_A_BLOCK
        for lane in range(USERS_OF_A_BLOCK):
            slot = t * USERS_OF_A_BLOCK + lane
            r = r_after[lane]
            f = (1 - r) * (1 + r)
            m = block.mean[slot]
            v = block.variance[slot]
            inverse = 1 / (r * r * v + s * f)
            x = m + v * r * inverse * (after[lane] - r * m)
            x = x + sqrtf(v * (s * f) * inverse) * normal[lane]
            e = after[lane] - r * x
            squares[lane] += counts[lane] * (e * e / f)
            block.rest[slot] += mood[slot] - x
            mood[slot] = x
            after[lane] = x
            r_after[lane] = kept[slot]
            counts[lane] = 1 if block.weight[slot] > 0 else 0
    for lane in range(USERS_OF_A_BLOCK):
        total += squares[lane] + counts[lane] * (after[lane] * after[lane])
    return total


cdef inline void write_values(Moods moods, Py_ssize_t number) noexcept nogil:
    """Subtract a block's moods from its ratings on both sides."""
    cdef Py_ssize_t t, lane, process
    cdef float rest
    for t in range(moods.start[number], moods.start[number + 1]):
        for lane in range(USERS_OF_A_BLOCK):
            if moods.place[t, lane] >= 0:
                rest = moods.value[t, lane]
                for process in range(moods.mood.shape[0]):
                    rest = rest - moods.mood[process, t, lane]
                moods.user_value[moods.place[t, lane]] = rest
                moods.item_value[moods.item_place[t, lane]] = rest


cdef inline void add_residuals(
    Moods moods, const Block* block, double alpha, Sums* sums
) noexcept nogil:
    """Add the residuals of a block to `sums`."""
    cdef Py_ssize_t slot
    cdef float e, s, squares, weighted = 0, plain = 0, fourth = 0
    cdef float inverse = <float>(1 / alpha)
    for slot in range(block.steps * USERS_OF_A_BLOCK):
        if block.place[slot] >= 0:
            e = block.rest[slot]
            s = 1
            if moods.root_weight.shape[0]:
                s = moods.root_weight[block.place[slot]]
            squares = block.weight[slot] * inverse * e * e
            weighted += squares
            plain += s * s * e * e
            fourth += squares * squares
    sums.weighted += weighted
    sums.plain += plain
    sums.fourth += fourth


def draw(
    Moods moods, uint64_t key, double alpha, const double[::1] variances,
    Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[::1] squares,
):
    """Draw the moods of blocks [first, last), and subtract them from the ratings on both sides.

    Parameters
    ----------
    moods : Moods
    key : name of the sweep's random numbers
    alpha : global noise precision
    variances : (processes,) s
    first, last : int
    scratch : (scratch_size(longest),)
    squares : (processes,), to which the sums of (x_t - r_t x_t-1)^2 / f_t are added

    Returns
    -------
    (sum over ratings of z = a_u a_i s e^2, sum of s e^2, sum of z^2), e being the residuals
    """
    cdef Block block
    cdef Sums sums
    cdef Py_ssize_t number, process, begin, size
    cdef uint64_t process_key
    sums.weighted = 0
    sums.plain = 0
    sums.fourth = 0
    with nogil:
        for number in range(first, last):
            begin = moods.start[number]
            block.steps = moods.start[number + 1] - begin
            size = block.steps * USERS_OF_A_BLOCK
            block.place = &moods.place[begin, 0]
            block.rest = &scratch[0]
            block.weight = block.rest + size
            block.mean = block.weight + size
            block.variance = block.mean + size
            gather(moods, number, alpha, &block)
            for process in range(moods.mood.shape[0]):
                process_key = child(child(key, process), number)
                filter_forward(
                    &block,
                    &moods.kept[process, begin, 0],
                    &moods.mood[process, begin, 0],
                    <float>variances[process],
                )
                squares[process] += sample_backward(
                    &block,
                    &moods.kept[process, begin, 0],
                    &moods.mood[process, begin, 0],
                    <float>variances[process],
                    process_key,
                )
            write_values(moods, number)
            add_residuals(moods, &block, alpha, &sums)
    return sums.weighted, sums.plain, sums.fourth


def subtract(Moods moods, Py_ssize_t first, Py_ssize_t last):
    """Subtract the moods of blocks [first, last) from the ratings on both sides."""
    cdef Py_ssize_t number
    with nogil:
        for number in range(first, last):
            write_values(moods, number)
