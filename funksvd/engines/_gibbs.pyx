# cython: language_level=3, freethreading_compatible=True
"""Kernels of the Gibbs sampler (`gibbs.py` states the model): rows of one side given the other side.

Every kernel works on rows [first, last) of a side, touches nothing else that another call writes, takes no lock and
no GIL and checks nothing. What a row draws is a function of the key, the row and a counter (a hash, no state), so
neither the number of threads nor the cut into calls changes a bit.

A row's ratings are gathered as ``g_j = scale_j q_j`` and ``e_j = scale_j (y_j - b_j)`` with
``scale_j^2 = a_j s_j`` (noise weight of the other side's row, sample weight), so that all sums over ratings are
plain sums; what is common to the row, ``precision = alpha a_row``, multiplies the sums.
"""

from libc.math cimport sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, float*) nogil
    float lane_sum(loose_vec) nogil
    void PREFETCH(const void*) nogil

include "_random.pxi"
include "_linear.pxi"


cdef enum:
    FEW = 8     # a row with at most so many ratings is drawn by conditioning a prior draw


cdef class Side:
    """Users or items: state of the chain, ratings, hyper-parameters. Arrays are shared with Python, not copied.

    n rows of `width` factors (a multiple of 8; those past the `used` are 0, with mean 0 and precision 1).
    """
    cdef public float[:, ::1] factors    # (n, width), 64-byte aligned
    cdef public float[:, ::1] scalars    # (n, 2) bias, square root of the noise weight
    cdef public float[:, ::1] means      # (n, width) conditional mean of the factors, after `keep` the kept row
    cdef public float[::1] mean_biases   # (n,)
    cdef public int64_t[::1] start       # (n + 1,) where each row's ratings begin
    cdef public int32_t[::1] index       # the other side's row of each rating
    cdef public float[::1] value         # the rating, standardised
    cdef public float[::1] weight        # square root of the sample weight, or empty
    cdef public float[::1] mean          # (width,) m of the factors
    cdef public float[::1] precision     # (width,) l
    cdef public double bias_mean, bias_precision  # m_b and l_b
    cdef public Py_ssize_t used
    cdef public bint biased


cdef struct Work:  # scratch of one call
    float* g           # (n, width) gathered rows
    float* scale       # (n,)
    float* error       # (n,)
    float* root        # (n,) of the noise weights of the other side
    float* gram        # (width, width): of it the rows' parts from the diagonal's vector on
    float* c           # (width,) sum of e g
    float* s           # (width,) sum of scale g
    float* solved_c    # (width,)
    float* solved_s
    float* inverse     # (width,) 1 / diagonal of the Cholesky factor
    float* x           # (width,) draw
    float* xm          # (width,) conditional mean
    float* z           # (width + 64,) normals


def scratch_size(Py_ssize_t most, Py_ssize_t width):
    """Floats of scratch that a call needs whose longest row has `most` ratings."""
    return (most + 16) * (width + 3) + width * width + 8 * (width + 16) + 128


cdef Work laid_out(float* scratch, Py_ssize_t most, Py_ssize_t width) noexcept nogil:
    cdef Work work
    cdef Py_ssize_t n = (most + 15) / 16 * 16, w = (width + 15) / 16 * 16
    work.g = scratch; scratch += n * width
    work.scale = scratch; scratch += n
    work.error = scratch; scratch += n
    work.root = scratch; scratch += n
    work.gram = scratch; scratch += width * width
    work.c = scratch; scratch += w
    work.s = scratch; scratch += w
    work.solved_c = scratch; scratch += w
    work.solved_s = scratch; scratch += w
    work.inverse = scratch; scratch += w
    work.x = scratch; scratch += w
    work.xm = scratch; scratch += w
    work.z = scratch
    return work


# ------------------------------------------------------------------------------------------------ linear algebra

cdef inline void add_sides(
    Py_ssize_t width, Py_ssize_t n, const float* g, const float* error, const float* scale, float* c, float* s,
) noexcept nogil:
    """c = sum_j error_j g_j, s = sum_j scale_j g_j; four ratings at a time, n is a multiple of 4."""
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
        (<vec*>c)[f] = (c0 + c1) + (c2 + c3)
        (<vec*>s)[f] = (s0 + s1) + (s2 + s3)


cdef inline void take_off(Py_ssize_t width, Py_ssize_t n, const float* g, const float* x, float* error) noexcept nogil:
    """error_j -= g_j . x; eight ratings at a time, n is a multiple of 8."""
    cdef Py_ssize_t f, j, k, vectors = width / LANES
    cdef vec s0, s1, s2, s3, s4, s5, s6, s7, v
    cdef float sums[8]
    cdef const vec* row
    cdef float* dots = sums
    for j in range(0, n, 8):
        row = <const vec*>(g + j * width)
        v = (<const vec*>x)[0]
        s0 = v * row[0]; s1 = v * row[vectors]; s2 = v * row[2 * vectors]; s3 = v * row[3 * vectors]
        s4 = v * row[4 * vectors]; s5 = v * row[5 * vectors]; s6 = v * row[6 * vectors]; s7 = v * row[7 * vectors]
        for f in range(1, vectors):
            v = (<const vec*>x)[f]
            row += 1
            s0 += v * row[0]; s1 += v * row[vectors]; s2 += v * row[2 * vectors]; s3 += v * row[3 * vectors]
            s4 += v * row[4 * vectors]; s5 += v * row[5 * vectors]; s6 += v * row[6 * vectors]; s7 += v * row[7 * vectors]
        lane_sums8(s0, s1, s2, s3, s4, s5, s6, s7, dots)
        for k in range(8):
            error[j + k] -= dots[k]


cdef inline void factorise(Py_ssize_t width, Work* w, const float* precision) noexcept nogil:
    """gram = U'U in place, with both forward solves U' solved_c = c and U' solved_s = s.

    The entries left of the diagonal are never read. Exactly, no pivot is below the prior's precision.
    """
    cdef Py_ssize_t j, t, f, n = width / LANES
    cdef float d, h, cj, sj
    cdef vec* row
    cdef vec* target
    cdef vec* c = <vec*>w.c
    cdef vec* s = <vec*>w.s
    for j in range(width):
        d = 1 / sqrtf(max(w.gram[j * width + j], precision[j]))
        cj = w.c[j] * d
        sj = w.s[j] * d
        w.inverse[j], w.solved_c[j], w.solved_s[j] = d, cj, sj
        row = <vec*>(w.gram + j * width)
        for f in range(j / LANES, n):
            row[f] = row[f] * d
            c[f] = c[f] - cj * row[f]
            s[f] = s[f] - sj * row[f]
        for t in range(j + 1, width):
            h = w.gram[j * width + t]
            target = <vec*>(w.gram + t * width)
            for f in range(t / LANES, n):
                target[f] = target[f] - h * row[f]


cdef inline void solve_back(Py_ssize_t width, Work* w) noexcept nogil:
    """U x = x and U xm = xm, in place."""
    cdef Py_ssize_t j, f, n = width / LANES
    cdef vec s, t
    cdef vec* row
    # The right sides wait in solved_c and solved_s: what lies left of the diagonal is garbage and must meet zeros.
    memcpy(w.solved_c, w.x, width * 4)
    memcpy(w.solved_s, w.xm, width * 4)
    memset(w.x, 0, width * 4)
    memset(w.xm, 0, width * 4)
    for j in range(width - 1, -1, -1):
        row = <vec*>(w.gram + j * width)
        f = j / LANES
        s = row[f] * (<vec*>w.x)[f]
        t = row[f] * (<vec*>w.xm)[f]
        for f in range(j / LANES + 1, n):
            s += row[f] * (<vec*>w.x)[f]
            t += row[f] * (<vec*>w.xm)[f]
        w.x[j] = (w.solved_c[j] - lane_sum(s)) * w.inverse[j]
        w.xm[j] = (w.solved_s[j] - lane_sum(t)) * w.inverse[j]


# ------------------------------------------------------------------------------------------------ a row

cdef struct Draw:
    double bias, bias_mean


cdef inline Draw draw_many(Py_ssize_t width, Py_ssize_t n, Work* w, Side own, double precision) noexcept nogil:
    """Factors and bias of a row by its normal equations, the bias first with the factors integrated out."""
    cdef Draw out
    cdef Py_ssize_t f, j, vectors = width / LANES
    cdef double vv = 0, vc = 0, q
    cdef float p = <float>precision, weights = 0, errors = 0
    cdef const float* lam = &own.precision[0]
    memset(w.gram, 0, width * width * 4)
    add_gram(width, n, w.g, w.gram)
    add_sides(width, (n + 3) / 4 * 4, w.g, w.error, w.scale, w.c, w.s)
    for j in range(n):
        weights += w.scale[j] * w.scale[j]
        errors += w.scale[j] * w.error[j]
    for f in range(width * vectors):
        (<vec*>w.gram)[f] = p * (<vec*>w.gram)[f]
    for f in range(width):
        w.gram[f * width + f] += lam[f]
        w.c[f] = p * w.c[f] + lam[f] * own.mean[f]
        w.s[f] = p * w.s[f]
    factorise(width, w, lam)
    out.bias = out.bias_mean = 0
    if own.biased:
        for f in range(width):
            vv += w.solved_s[f] * w.solved_s[f]
            vc += w.solved_s[f] * w.solved_c[f]
        q = max(precision * weights + own.bias_precision - vv, own.bias_precision)
        out.bias_mean = (precision * errors + own.bias_precision * own.bias_mean - vc) / q
        out.bias = out.bias_mean + w.z[width] / sqrt(q)
    for f in range(width):
        w.xm[f] = w.solved_c[f] - w.solved_s[f] * <float>out.bias_mean
        w.x[f] = w.solved_c[f] - w.solved_s[f] * <float>out.bias + w.z[f]
    solve_back(width, w)
    return out


cdef inline Draw draw_few(Py_ssize_t width, Py_ssize_t n, Work* w, Side own, double precision) noexcept nogil:
    """The same draw for n <= FEW: a draw of the prior, then conditioned on the n ratings (Matheron's rule)."""
    cdef Draw out
    cdef Py_ssize_t f, j, i, t
    cdef double S[8][8]
    cdef double draw[8]
    cdef double mean[8]
    cdef double d, root = sqrt(precision), b0 = 0, bias_mean = 0, bias_variance = 0
    cdef float* h = w.gram  # (n, width) prior variance x g_j
    cdef const float* lam = &own.precision[0]
    if own.biased:
        bias_mean, bias_variance = own.bias_mean, 1 / own.bias_precision
        b0 = bias_mean + w.z[width] * sqrt(bias_variance)
    for f in range(width):
        w.c[f] = 1 / lam[f]
        w.xm[f] = own.mean[f]
        w.x[f] = own.mean[f] + w.z[f] * sqrtf(w.c[f])
    for j in range(n):
        for f in range(width):
            h[j * width + f] = w.g[j * width + f] * w.c[f]
        draw[j] = root * (w.error[j] - dot(width, w.g + j * width, w.x) - w.scale[j] * b0) - w.z[width + 1 + j]
        mean[j] = root * (w.error[j] - dot(width, w.g + j * width, w.xm) - w.scale[j] * bias_mean)
        for i in range(j + 1):
            d = dot(width, h + j * width, w.g + i * width) + bias_variance * w.scale[j] * w.scale[i]
            S[j][i] = precision * d + (i == j)
    # Cholesky S = L L' with both solves.
    for j in range(n):
        for i in range(j + 1):
            d = S[j][i]
            for t in range(i):
                d -= S[j][t] * S[i][t]
            S[j][i] = sqrt(d) if i == j else d / S[i][i]
        for t in range(j):
            draw[j] -= S[j][t] * draw[t]
            mean[j] -= S[j][t] * mean[t]
        draw[j] /= S[j][j]
        mean[j] /= S[j][j]
    out.bias, out.bias_mean = b0, bias_mean
    for j in range(n - 1, -1, -1):
        for t in range(j + 1, n):
            draw[j] -= S[t][j] * draw[t]
            mean[j] -= S[t][j] * mean[t]
        draw[j] /= S[j][j]
        mean[j] /= S[j][j]
        out.bias += root * draw[j] * bias_variance * w.scale[j]
        out.bias_mean += root * mean[j] * bias_variance * w.scale[j]
        for f in range(width):
            w.x[f] += <float>(root * draw[j]) * h[j * width + f]
            w.xm[f] += <float>(root * mean[j]) * h[j * width + f]
    return out


cdef inline void draw_rows(
    Py_ssize_t width, Side own, Side other, Py_ssize_t first, Py_ssize_t last, float* scratch, uint64_t key, double alpha,
    double nu, bint draw_noise, float relax, Py_ssize_t few, Py_ssize_t most, double* sums,
) noexcept nogil:
    cdef Work w = laid_out(scratch, most, width)
    cdef float fresh = sqrtf(1 - relax * relax)
    cdef Py_ssize_t row, n, j, f, begin, ahead, vectors = width / LANES
    cdef const float* factors = &other.factors[0, 0]
    cdef const float* scalars = &other.scalars[0, 0]
    cdef const int32_t* index
    cdef const float* value
    cdef const float* weight = NULL
    cdef const float* q
    cdef vec* old
    cdef vec* mean
    cdef vec* x
    cdef float scale, e, root
    cdef float squares, plain, fourth
    cdef double noise
    cdef uint64_t row_key
    cdef Draw drawn
    for row in range(first, last):
        begin = own.start[row]
        n = own.start[row + 1] - begin
        if n:
            index, value = &own.index[begin], &own.value[begin]
            if own.weight.shape[0]:
                weight = &own.weight[begin]
        for j in range(n):
            ahead = index[min(j + 12, n - 1)]
            PREFETCH(factors + ahead * width)
            if width > 16:
                PREFETCH(factors + ahead * width + 16)
            q = factors + index[j] * width
            scale = scalars[2 * index[j] + 1]
            if weight != NULL:
                scale *= weight[j]
            w.root[j], w.scale[j] = scalars[2 * index[j] + 1], scale
            w.error[j] = scale * (value[j] - scalars[2 * index[j]])
            for f in range(vectors):
                (<vec*>w.g)[j * vectors + f] = scale * (<const vec*>q)[f]
        for j in range(n, (n + 7) / 8 * 8):  # to a multiple of 8 with ratings that say nothing
            w.root[j], w.scale[j], w.error[j] = 1, 0, 0
            memset(w.g + j * width, 0, width * 4)

        row_key = child(key, row)
        normals(row_key, width + FEW + 2, w.z)
        for f in range(own.used, width):
            w.z[f] = 0
        root = own.scalars[row, 1]
        noise = root * root
        drawn = draw_few(width, n, &w, own, alpha * noise) if n <= few else draw_many(width, n, &w, own, alpha * noise)
        # Overrelaxed: the old row, mirrored at the conditional mean, and so much of the draw that the conditional is kept.
        drawn.bias = (drawn.bias_mean + relax * (own.scalars[row, 0] - drawn.bias_mean)
                      + fresh * (drawn.bias - drawn.bias_mean))
        old, mean, x = <vec*>&own.factors[row, 0], <vec*>w.xm, <vec*>w.x
        for f in range(vectors):
            x[f] = mean[f] + relax * (old[f] - mean[f]) + fresh * (x[f] - mean[f])
        memcpy(&own.factors[row, 0], w.x, width * 4)
        memcpy(&own.means[row, 0], w.xm, width * 4)
        own.scalars[row, 0], own.mean_biases[row] = <float>drawn.bias, <float>drawn.bias_mean

        # What is left: weighted by all but the row's own precision; and by the sample weight alone.
        take_off(width, (n + 7) / 8 * 8, w.g, w.x, w.error)
        squares = plain = fourth = 0
        scale = <float>drawn.bias
        for j in range(n):
            e = w.error[j] - w.scale[j] * scale
            e *= e
            squares += e
            fourth += e * e
            plain += e / (w.root[j] * w.root[j])
        if draw_noise:
            noise = gamma(child(row_key, 1 << 20), (nu + n) / 2, w.z[width + FEW + 1]) * 2 / (nu + alpha * squares)
            own.scalars[row, 1] = <float>sqrt(noise)
        sums[0] += noise * squares
        sums[1] += plain
        sums[2] += noise * noise * fourth


def rows(Side own, Side other, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, uint64_t key, double alpha,
         double nu, bint draw_noise, float relax, Py_ssize_t most, Py_ssize_t few=FEW):
    """Draw rows [first, last) of `own` given `other`: bias, factors, then the noise weight.

    Parameters
    ----------
    scratch : (scratch_size(most, width),) 64-byte aligned
    key : names the draws of this sweep and side
    alpha, nu : global noise precision, degrees of freedom of the noise weights
    draw_noise : False leaves the noise weights
    relax : in (-1, 0]; x' = m + relax (x - m) + sqrt(1 - relax^2) (draw - m), m the conditional mean of bias and factors;
        0 is the plain draw
    most : ratings of the longest row among them, at least `few`
    few : rows of at most so many ratings (<= 8) go by conditioning a prior draw

    Returns
    -------
    (sum over ratings of z = a_row a_other s e^2, sum of s e^2, sum of z^2), e being what is left after the draw.
    """
    cdef double sums[3]
    cdef Py_ssize_t width = own.factors.shape[1]
    sums[0] = sums[1] = sums[2] = 0
    with nogil:
        if width == 16:
            draw_rows(16, own, other, first, last, &scratch[0], key, alpha, nu, draw_noise, relax, few, most, sums)
        elif width == 32:
            draw_rows(32, own, other, first, last, &scratch[0], key, alpha, nu, draw_noise, relax, few, most, sums)
        else:
            draw_rows(width, own, other, first, last, &scratch[0], key, alpha, nu, draw_noise, relax, few, most, sums)
    return sums[0], sums[1], sums[2]


# ------------------------------------------------------------------------------------------------ all rows of a side

def moments(Side side, Py_ssize_t first, Py_ssize_t last, double[:, ::1] out):
    """out (2, width + 1) += sums over rows of (x_f - m_f) and of its square; the bias is the last column."""
    cdef Py_ssize_t row, f, width = side.factors.shape[1]
    cdef float d
    cdef double b
    with nogil:
        for row in range(first, last):
            for f in range(width):
                d = side.factors[row, f] - side.mean[f]
                out[0, f] += d
                out[1, f] += d * d
            b = side.scalars[row, 0] - side.bias_mean
            out[0, width] += b
            out[1, width] += b * b


def shift_sums(Side side, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[:, ::1] out):
    """out (width + 1, width) += sum of q q' (its tiles from the diagonal on), and in the last row of (b - m_b) q.

    Batches of 256 rows are summed in float32.
    """
    cdef Py_ssize_t begin, m, j, f, width = side.factors.shape[1]
    cdef float* gram = &scratch[0]
    cdef float* c = gram + width * width
    cdef float b
    with nogil:
        for begin in range(first, last, 256):
            m = min(last - begin, <Py_ssize_t>256)
            memset(gram, 0, width * (width + 1) * 4)
            add_gram(width, m, &side.factors[begin, 0], gram)
            for j in range(begin, begin + m):
                b = side.scalars[j, 0] - <float>side.bias_mean
                for f in range(width):
                    c[f] += b * side.factors[j, f]
            for j in range(width + 1):
                for f in range(width):
                    out[j, f] += gram[j * width + f]


def move(Side side, const float[::1] delta, Py_ssize_t first, Py_ssize_t last):
    """Every row's factors -= delta."""
    cdef Py_ssize_t row, f
    with nogil:
        for row in range(first, last):
            for f in range(side.factors.shape[1]):
                side.factors[row, f] -= delta[f]


def tilt(Side side, const float[::1] delta, Py_ssize_t first, Py_ssize_t last):
    """Every row's bias += its factors . delta."""
    cdef Py_ssize_t row, width = side.factors.shape[1]
    with nogil:
        for row in range(first, last):
            side.scalars[row, 0] += dot(width, &side.factors[row, 0], &delta[0])


def pair_draws(Side users, Side items, const int32_t[::1] user, const int32_t[::1] item, double[:, ::1] sums):
    """sums (pairs, 2) += f and f^2, f = b_u + b_i + p_u.q_i of the draws."""
    cdef Py_ssize_t t, width = users.factors.shape[1]
    cdef double f
    with nogil:
        for t in range(user.shape[0]):
            f = users.scalars[user[t], 0] + items.scalars[item[t], 0]
            f += dot(width, &users.factors[user[t], 0], &items.factors[item[t], 0])
            sums[t, 0] += f
            sums[t, 1] += f * f


# ------------------------------------------------------------------------------------------------ what is kept

def keep(Side side, const float[::1] other_mean, bint conditional, Py_ssize_t first, Py_ssize_t last,
         float[:, ::1] total, double[:, ::1] sums):
    """Centre the rows of this sweep and, where `sums` has rows, add them up.

    With p = m + p~ and q = m' + q~ on the other side, b_u + b_i + p.q is a constant + b~_u + b~_i + p~.q~ with
    b~_u = b_u - m_b + p~.m'. `means` and `mean_biases` become p~ and b~: of the conditional means, or of the draws
    (`conditional` False), then 0 for a row without ratings, which is its mean under the prior.

    total (n, width) : += p~
    sums (n, 4) : += b~, and of the draws b~^2, p~.p~, 1 / a
    """
    cdef Py_ssize_t row, f, width = side.factors.shape[1]
    cdef float* mean
    cdef const float* drawn
    cdef float d, draw_tilt, squares, mean_tilt, root
    cdef double b
    cdef bint add = sums.shape[0] > 0
    with nogil:
        for row in range(first, last):
            mean, drawn = &side.means[row, 0], &side.factors[row, 0]
            draw_tilt = mean_tilt = squares = 0
            for f in range(width):
                d = drawn[f] - side.mean[f]
                draw_tilt += d * other_mean[f]
                squares += d * d
                mean[f] = mean[f] - side.mean[f] if conditional else d
                mean_tilt += mean[f] * other_mean[f]
            b = side.scalars[row, 0] - side.bias_mean + draw_tilt
            if conditional:
                side.mean_biases[row] = side.mean_biases[row] - <float>side.bias_mean + mean_tilt
            elif side.start[row + 1] > side.start[row]:
                side.mean_biases[row] = <float>b
            else:
                side.mean_biases[row] = 0
                memset(mean, 0, width * 4)
            if add:
                root = side.scalars[row, 1]
                for f in range(width):
                    total[row, f] += mean[f]
                sums[row, 0] += side.mean_biases[row]
                sums[row, 1] += b * b
                sums[row, 2] += squares
                sums[row, 3] += 1 / (<double>root * root)


def normal_rows(uint64_t key, Py_ssize_t first, float[::1] scratch, float[:, ::1] out):
    """out[j] = the fixed normals of row first + j."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(out.shape[0]):
            normals(child(key, first + j), out.shape[1], &scratch[0])
            memcpy(&out[j, 0], &scratch[0], out.shape[1] * 4)


def stream(uint64_t seed, numbers):
    """A key that `seed` and the whole numbers name."""
    cdef uint64_t key = mix(seed)
    for number in numbers:
        key = child(key, number)
    return key


def gammas(uint64_t key, Py_ssize_t first, const double[::1] shape, const double[::1] normal, double[::1] out):
    """out[j] = Gamma(shape[j], rate 1) as `rows` draws it for row first + j; normal[j] is the first one it uses."""
    cdef Py_ssize_t j
    for j in range(out.shape[0]):
        out[j] = gamma(child(child(key, first + j), 1 << 20), shape[j], normal[j])
