# cython: language_level=3, freethreading_compatible=True
"""Kernel of the sampler that draws users' moods, by which ratings of one time are alike.

Rating t of a user, in the order of time, has beside the rest of the model the moods x_1t, x_2t and
so on, each a stationary Gaussian process with the exponential correlation (an Ornstein-Uhlenbeck
process), hence a Markov chain along the user's ratings. With r_t = exp(-time since rating t - 1 /
T), r_0 = 0, and e_t the rating less all other terms, one process of variance s has::

    x_t ~ N(r_t x_t-1, s f_t),  f_t = 1 - r_t^2        e_t ~ N(x_t, 1 / w_t)

It is drawn exactly, in O(n), by forward filtering and backward sampling (Carter and Kohn 1994)::

(1) forward: m = r_t m_t-1,  v = r_t^2 v_t-1 + s f_t
             v_t = v / (1 + w_t v),  m_t = m + v_t w_t (e_t - m)
(2) backward, with r = r_t+1, f = f_t+1 and p = r^2 v_t + s f:
             x_t ~ N(m_t + (v_t r / p) (x_t+1 - r m_t), v_t s f / p)

A variance mixes slowly given its process, because moods are known badly one by one. So a process is
then multiplied by a factor, drawn given x / sqrt(s) (the ancillary parametrisation of
Yu and Meng 2011), for which the kernel returns the products::

(3) h = sum w_t x_t e_t,  g = sum w_t x_t^2,  e_t being the residual less all moods

Both recursions wait for each of their steps, so a block draws `USERS_OF_A_BLOCK` users at once, a
user in each lane of the vectors. Users with the most ratings come first, so that those of a block
have about equally many; past the end of a user's ratings a lane holds ratings of weight 0 and
correlation 0, which tell the others nothing.

The kernel works on blocks [first, last), writes nothing that another call reads or writes, takes no
lock and no GIL, and checks nothing. Its random numbers are named by process, block and step, so
that the number of threads changes no bit.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memset

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec
    ctypedef float loose_vec        # LANES users of a block, at any address
    float lane_sum(loose_vec) nogil
    vec vec_sqrt(vec) nogil
    vec vec_min(vec, vec) nogil
    vec vec_splat(float) nogil
    void PREFETCH(const void*) nogil

include "_random.pxi"

cdef enum:
    USERS_OF_A_BLOCK = NORMALS  # so that a step takes one block of normals
    AHEAD = 32                  # slots between the one that is written and the one prefetched
    LANE_ARRAYS = 2         # arrays of a block's scratch

BLOCK_USERS = USERS_OF_A_BLOCK


cdef inline loose_vec are_ratings(loose_vec weight) noexcept nogil:
    """Return 1 in the lanes with a weight, and 0 in those without one."""
    cdef float large = <float>1e30
    return vec_min(weight * large, vec_splat(1))


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
    cdef public float[:, ::1] rest          # (steps, lanes) rating less all terms
    cdef public float[:, ::1] weight        # (steps, lanes) w, 0 past the end of a user's ratings
    cdef public float[::1] level            # (users,) mean of the moods of a user's ratings
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
    float* rest
    float* weight
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
    cdef Py_ssize_t t, j, at
    cdef loose_vec one = vec_splat(1)
    cdef loose_vec m[USERS_OF_A_BLOCK]  # of which the first `VECTORS` are used
    cdef loose_vec v[USERS_OF_A_BLOCK]
    cdef loose_vec r, w, predicted, variance
    memset(m, 0, USERS_OF_A_BLOCK * sizeof(float))
    memset(v, 0, USERS_OF_A_BLOCK * sizeof(float))
    for t in range(block.steps):
        for j in range(USERS_OF_A_BLOCK / LANES):
            at = t * (USERS_OF_A_BLOCK / LANES) + j
            r = (<const loose_vec*>kept)[at]
            w = (<const loose_vec*>block.weight)[at]
            predicted = r * m[j]
            variance = r * r * v[j] + s * ((one - r) * (one + r))
            variance = variance / (one + w * variance)
            v[j] = variance
            m[j] = predicted + variance * w * (
                (<const loose_vec*>block.rest)[at] + (<const loose_vec*>mood)[at] - predicted
            )
            (<loose_vec*>block.mean)[at] = m[j]
            (<loose_vec*>block.variance)[at] = variance


cdef inline double sample_backward(
    const Block* block, const float* kept, float* mood, float* total_mean, float s, uint64_t key
) noexcept nogil:
    """Draw a process by (2); return the sum of (x_t - r_t x_t-1)^2 / f_t over the ratings.

    The means of the ratings' x are added to `total_mean` unless it is NULL.
    """
    cdef Py_ssize_t t, j, at
    cdef loose_vec one = vec_splat(1)
    cdef float z[NORMALS]
    # Of the next step: x, the correlation with this one, and 1 if it is a rating, else 0.
    cdef loose_vec after[USERS_OF_A_BLOCK]
    cdef loose_vec r_after[USERS_OF_A_BLOCK]
    cdef loose_vec counts[USERS_OF_A_BLOCK]
    cdef loose_vec mean_after[USERS_OF_A_BLOCK]
    cdef loose_vec squares[USERS_OF_A_BLOCK]
    cdef loose_vec r, f, v, p, e, x, gain, inverse, mean
    cdef double total = 0
    memset(after, 0, USERS_OF_A_BLOCK * sizeof(float))
    memset(r_after, 0, USERS_OF_A_BLOCK * sizeof(float))
    memset(counts, 0, USERS_OF_A_BLOCK * sizeof(float))
    memset(mean_after, 0, USERS_OF_A_BLOCK * sizeof(float))
    memset(squares, 0, USERS_OF_A_BLOCK * sizeof(float))
    for t in range(block.steps - 1, -1, -1):
        normals_block(key + <uint64_t>(t * NORMALS), z)
        for j in range(USERS_OF_A_BLOCK / LANES):
            at = t * (USERS_OF_A_BLOCK / LANES) + j
            r = r_after[j]
            f = (one - r) * (one + r)
            v = (<const loose_vec*>block.variance)[at]
            mean = (<const loose_vec*>block.mean)[at]
            p = r * r * v + s * f
            inverse = one / (p * f)  # one division gives 1 / p and 1 / f
            gain = v * r * (inverse * f)
            x = mean + gain * (after[j] - r * mean)
            mean_after[j] = mean + gain * (mean_after[j] - r * mean)
            if total_mean != NULL:
                (<loose_vec*>total_mean)[at] = (<loose_vec*>total_mean)[at] + mean_after[j]
            x = x + vec_sqrt(v * (s * f) * (inverse * f)) * (<const loose_vec*>z)[j]
            e = after[j] - r * x
            squares[j] = squares[j] + counts[j] * (e * e * (inverse * p))
            (<loose_vec*>block.rest)[at] = (
                (<loose_vec*>block.rest)[at] + (<loose_vec*>mood)[at] - x
            )
            (<loose_vec*>mood)[at] = x
            after[j] = x
            r_after[j] = (<const loose_vec*>kept)[at]
            counts[j] = are_ratings((<const loose_vec*>block.weight)[at])
    for j in range(USERS_OF_A_BLOCK / LANES):
        total += lane_sum(squares[j] + counts[j] * after[j] * after[j])
    return total


cdef inline void add_products(
    const Block* block, const float* x, double* products
) noexcept nogil:
    """Add the products (3) of a process x in a block to `products`."""
    cdef Py_ssize_t slot
    cdef float force = 0, square = 0
    for slot in range(block.steps * USERS_OF_A_BLOCK):
        force += block.weight[slot] * x[slot] * block.rest[slot]
        square += block.weight[slot] * x[slot] * x[slot]
    products[0] += force
    products[1] += square


cdef inline void stretch(const Block* block, float* x, float factor) noexcept nogil:
    """Multiply a process x in a block by a factor."""
    cdef Py_ssize_t slot
    for slot in range(block.steps * USERS_OF_A_BLOCK):
        block.rest[slot] += x[slot] - factor * x[slot]
        x[slot] = factor * x[slot]


cdef inline void write_values(
    Moods moods, Py_ssize_t number, const Block* block, float* value
) noexcept nogil:
    """Subtract a block's moods from its ratings on both sides, and write their means."""
    cdef Py_ssize_t t, lane, slot, process, begin = moods.start[number]
    cdef Py_ssize_t size = block.steps * USERS_OF_A_BLOCK
    cdef const int32_t* item_place = &moods.item_place[begin, 0]
    cdef const float* rating = &moods.value[begin, 0]
    cdef const float* x
    cdef float* user_value = &moods.user_value[0]
    cdef float* item_value = &moods.item_value[0]
    cdef float total[USERS_OF_A_BLOCK]
    cdef float count[USERS_OF_A_BLOCK]
    cdef float is_rating
    for slot in range(size):
        value[slot] = rating[slot]
    for process in range(moods.mood.shape[0]):
        x = &moods.mood[process, begin, 0]
        for slot in range(size):
            value[slot] -= x[slot]
    for slot in range(size):
        PREFETCH(item_value + item_place[min(slot + AHEAD, size - 1)])
        if block.place[slot] >= 0:
            user_value[block.place[slot]] = value[slot]
            item_value[item_place[slot]] = value[slot]
    for lane in range(USERS_OF_A_BLOCK):
        total[lane] = 0
        count[lane] = 0
    for t in range(block.steps):
        for lane in range(USERS_OF_A_BLOCK):
            slot = t * USERS_OF_A_BLOCK + lane
            is_rating = 1 if block.place[slot] >= 0 else 0
            total[lane] += is_rating * (rating[slot] - value[slot])
            count[lane] += is_rating
    for lane in range(USERS_OF_A_BLOCK):
        if count[lane] > 0:
            moods.level[moods.user[number, lane]] = total[lane] / count[lane]


cdef inline void add_residuals(
    Moods moods, const Block* block, double alpha, Sums* sums
) noexcept nogil:
    """Add the residuals of a block to `sums`."""
    cdef Py_ssize_t slot, size = block.steps * USERS_OF_A_BLOCK
    cdef float e, s, squares, weighted = 0, plain = 0, fourth = 0
    cdef float inverse = <float>(1 / alpha)
    for slot in range(size):
        squares = block.weight[slot] * inverse * block.rest[slot] * block.rest[slot]
        weighted += squares
        fourth += squares * squares
    if moods.root_weight.shape[0]:
        for slot in range(size):
            if block.place[slot] >= 0:
                s = moods.root_weight[block.place[slot]]
                plain += s * s * block.rest[slot] * block.rest[slot]
    else:
        for slot in range(size):
            e = block.rest[slot] if block.place[slot] >= 0 else 0
            plain += e * e
    sums.weighted += weighted
    sums.plain += plain
    sums.fourth += fourth


cdef inline Block block_of(Moods moods, Py_ssize_t number) noexcept nogil:
    """Return a block without scratch."""
    cdef Block block
    cdef Py_ssize_t begin = moods.start[number]
    block.steps = moods.start[number + 1] - begin
    block.place = &moods.place[begin, 0]
    block.rest = &moods.rest[begin, 0]
    block.weight = &moods.weight[begin, 0]
    block.mean = NULL
    block.variance = NULL
    return block


def draw(
    Moods moods, Py_ssize_t process, uint64_t key, double alpha, double variance,
    Py_ssize_t first, Py_ssize_t last, float[::1] scratch, float[:, ::1] total_mean,
):
    """Draw one process in blocks [first, last).

    Parameters
    ----------
    moods : Moods
    process : int
    key : name of the random numbers of the sweep and the process
    alpha : global noise precision
    variance : s of the process
    first, last : int
    scratch : (scratch_size(longest),)
    total_mean : (steps, lanes), to which the conditional means of x are added, or (0, lanes)

    Returns
    -------
    (sum of (x_t - r_t x_t-1)^2 / f_t, h, g), see (3)
    """
    cdef Block block
    cdef Py_ssize_t number, begin
    cdef double squares = 0
    cdef double products[2]
    cdef float* mood
    cdef float* total = NULL
    products[0] = 0
    products[1] = 0
    with nogil:
        for number in range(first, last):
            begin = moods.start[number]
            block = block_of(moods, number)
            block.mean = &scratch[0]
            block.variance = block.mean + block.steps * USERS_OF_A_BLOCK
            mood = &moods.mood[process, begin, 0]
            if total_mean.shape[0]:
                total = &total_mean[begin, 0]
            gather(moods, number, alpha, &block)
            filter_forward(&block, &moods.kept[process, begin, 0], mood, <float>variance)
            squares += sample_backward(
                &block,
                &moods.kept[process, begin, 0],
                mood,
                total,
                <float>variance,
                child(key, number),
            )
            add_products(&block, mood, products)
    return squares, products[0], products[1]


def subtract(
    Moods moods, Py_ssize_t process, double factor, double alpha,
    Py_ssize_t first, Py_ssize_t last, float[::1] scratch,
):
    """Multiply a process in blocks [first, last) by a factor; subtract all from the ratings.

    Returns
    -------
    (sum over ratings of z = a_u a_i s e^2, sum of s e^2, sum of z^2), e being the residuals
    """
    cdef Block block
    cdef Sums sums
    cdef Py_ssize_t number
    sums.weighted = 0
    sums.plain = 0
    sums.fourth = 0
    with nogil:
        for number in range(first, last):
            block = block_of(moods, number)
            stretch(&block, &moods.mood[process, moods.start[number], 0], <float>factor)
            write_values(moods, number, &block, &scratch[0])
            add_residuals(moods, &block, alpha, &sums)
    return sums.weighted, sums.plain, sums.fourth
