# cython: language_level=3, freethreading_compatible=True
"""Kernels of the Gibbs sampler (`gibbs.py` states the model): rows of one side given the other side.

Every kernel works on rows [first, last) of a side, touches nothing else that another call writes, takes no lock and
no GIL and checks nothing. What a row draws is a function of the key, the row and a counter (a hash, no state), so
neither the number of threads nor the cut into calls changes a bit.

A row's ratings are gathered as ``g_j = scale_j q_j`` and ``e_j = scale_j (y_j - b_j)`` with
``scale_j^2 = a_j s_j`` (noise weight of the other side's row, sample weight), so that all sums over ratings are
plain sums; what is common to the row, ``precision = alpha a_row``, multiplies the sums.
"""

from libc.math cimport cos, log, sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, float*) nogil
    float lane_sum(loose_vec) nogil
    void PREFETCH(const void*) nogil

cdef extern from *:
    """
    static CYTHON_INLINE float float_of_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
    static CYTHON_INLINE int32_t bits_of_float(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }
    """
    float float_of_bits(int32_t) nogil
    int32_t bits_of_float(float) nogil

cdef enum:
    FEW = 8     # a row with at most so many ratings is drawn by conditioning a prior draw
    PAIRS = 16  # normals are made 32 at a time


# ------------------------------------------------------------------------------------------------ random numbers

cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """The hash of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)


cdef inline uint64_t child(uint64_t key, uint64_t number) noexcept nogil:
    return mixed(key + (number + 1) * <uint64_t>0x9E3779B97F4A7C15)


cdef inline void normals_block(uint64_t key, float* z) noexcept nogil:
    """32 standard normals (Box and Muller 1958), in float32 arithmetic that the compiler turns into vectors."""
    cdef int32_t a[16]
    cdef int32_t b[16]
    cdef uint64_t h
    cdef int32_t bits, low
    cdef float m, e, x, s, c, r, main, other
    cdef int j
    for j in range(PAIRS):
        h = child(key, j)
        a[j] = <int32_t>(h >> 33)
        b[j] = <int32_t>h
    for j in range(PAIRS):
        # r = sqrt(-2 log u), u in (0, 1]; the logarithm is that of Cephes.
        bits = bits_of_float((<float>a[j] + <float>0.5) * <float>4.656612873077393e-10)
        m = float_of_bits((bits & 0x7FFFFF) | 0x3F000000)
        low = m < <float>0.70710678
        e = <float>((bits >> 23) - 126 - low)
        m = m - 1 + (m if low else 0)
        x = <float>7.0376836292e-2 * m - <float>1.1514610310e-1
        x = x * m + <float>1.1676998740e-1
        x = x * m - <float>1.2420140846e-1
        x = x * m + <float>1.4249322787e-1
        x = x * m - <float>1.6668057665e-1
        x = x * m + <float>2.0000714765e-1
        x = x * m - <float>2.4999993993e-1
        x = x * m + <float>3.3333331174e-1
        x = x * m * m * m - <float>0.5 * m * m + m + e * <float>0.69314718
        r = sqrtf(-2 * (x if x < 0 else 0))
        # An angle in [-pi/4, pi/4) and two bits that say in which quarter of the circle.
        x = <float>(b[j] << 2) * <float>3.6572652e-10  # (pi / 2) / 2^32
        c = x * x
        s = ((<float>-1.9515295891e-4 * c + <float>8.3321608736e-3) * c - <float>1.6666654611e-1) * c * x + x
        c = ((<float>2.443315711809948e-5 * c - <float>1.388731625493765e-3) * c + <float>4.166664568298827e-2) * c * c \
            - <float>0.5 * c + 1
        main = -c if b[j] < 0 else c
        other = main if b[j] & 0x40000000 else s
        main = s if b[j] & 0x40000000 else main
        z[j] = r * main
        z[j + PAIRS] = r * other


cdef inline void normals(uint64_t key, Py_ssize_t count, float* z) noexcept nogil:
    """count standard normals, rounded up to a multiple of 32."""
    cdef Py_ssize_t f
    for f in range(0, count, 32):
        normals_block(key + <uint64_t>f, z + f)


cdef inline double uniform(uint64_t key) noexcept nogil:
    return (<double>(key >> 11) + 0.5) * (1.0 / 9007199254740992.0)


cdef inline double gamma(uint64_t key, double shape, double normal) noexcept nogil:
    """Gamma(shape >= 1, rate 1) by Marsaglia and Tsang 2000; `normal` is the first standard normal it uses."""
    cdef double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d), v, u
    cdef uint64_t count = 0
    while True:
        v = 1 + c * normal
        if v > 0:
            v = v * v * v
            u = uniform(child(key, count))
            if u < 1 - 0.0331 * normal * normal * normal * normal or \
                    log(u) < 0.5 * normal * normal + d * (1 - v + log(v)):
                return d * v
        normal = sqrt(-2 * log(uniform(child(key, count + 1)))) * cos(6.283185307179586 * uniform(child(key, count + 2)))
        count += 3


# ------------------------------------------------------------------------------------------------ a side

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

cdef inline float dot(Py_ssize_t width, const float* p, const float* q) noexcept nogil:
    cdef vec s = (<const vec*>p)[0] * (<const vec*>q)[0]
    cdef Py_ssize_t f
    for f in range(1, width / LANES):
        s += (<const vec*>p)[f] * (<const vec*>q)[f]
    return lane_sum(s)


cdef inline void tile(
    Py_ssize_t width, Py_ssize_t n, const float* g, Py_ssize_t a, Py_ssize_t b, float* gram,
) noexcept nogil:
    """gram[a:a + 8, b:b + LANES] += sum_j g_j g_j': eight registers of sums."""
    cdef vec s0 = (<vec*>(gram + (a + 0) * width + b))[0], s1 = (<vec*>(gram + (a + 1) * width + b))[0]
    cdef vec s2 = (<vec*>(gram + (a + 2) * width + b))[0], s3 = (<vec*>(gram + (a + 3) * width + b))[0]
    cdef vec s4 = (<vec*>(gram + (a + 4) * width + b))[0], s5 = (<vec*>(gram + (a + 5) * width + b))[0]
    cdef vec s6 = (<vec*>(gram + (a + 6) * width + b))[0], s7 = (<vec*>(gram + (a + 7) * width + b))[0]
    cdef vec v
    cdef const float* left = g + a
    cdef const float* right = g + b
    cdef Py_ssize_t _j
    for _j in range(n):
        v = (<const vec*>right)[0]
        s0 += left[0] * v; s1 += left[1] * v; s2 += left[2] * v; s3 += left[3] * v
        s4 += left[4] * v; s5 += left[5] * v; s6 += left[6] * v; s7 += left[7] * v
        left += width
        right += width
    (<vec*>(gram + (a + 0) * width + b))[0] = s0; (<vec*>(gram + (a + 1) * width + b))[0] = s1
    (<vec*>(gram + (a + 2) * width + b))[0] = s2; (<vec*>(gram + (a + 3) * width + b))[0] = s3
    (<vec*>(gram + (a + 4) * width + b))[0] = s4; (<vec*>(gram + (a + 5) * width + b))[0] = s5
    (<vec*>(gram + (a + 6) * width + b))[0] = s6; (<vec*>(gram + (a + 7) * width + b))[0] = s7


cdef inline void add_gram(Py_ssize_t width, Py_ssize_t n, const float* g, float* gram) noexcept nogil:
    """gram += sum_j g_j g_j', of each row the part from the diagonal's tile on; a batch of rows stays in the cache."""
    cdef Py_ssize_t j, a, b, m
    for j in range(0, n, 256):
        m = min(n - j, <Py_ssize_t>256)
        for a in range(0, width, 8):
            for b in range(a / LANES, width / LANES):
                tile(width, m, g + j * width, a, b * LANES, gram)


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


cdef inline float row_scale(Side side, Py_ssize_t row) noexcept nogil:
    return sqrtf(<float>(side.start[row + 1] - side.start[row] + 3))


def append(Side side, Py_ssize_t column, Py_ssize_t first, Py_ssize_t last, float[:, ::1] table):
    """table[row, column + f] = sqrt(ratings of the row + 3) means[row, f]: rows with more ratings matter more."""
    cdef Py_ssize_t row, f
    cdef float scale
    with nogil:
        for row in range(first, last):
            scale = row_scale(side, row)
            for f in range(side.means.shape[1]):
                table[row, column + f] = scale * side.means[row, f]


def gram(float[:, ::1] table, Py_ssize_t first, Py_ssize_t last, float[::1] scratch, double[:, ::1] out):
    """out += sum over rows of t t', its tiles from the diagonal on; batches of 256 rows are summed in float32."""
    cdef Py_ssize_t begin, j, f, width = table.shape[1]
    cdef float* sums = &scratch[0]
    with nogil:
        for begin in range(first, last, 256):
            memset(sums, 0, width * width * 4)
            add_gram(width, min(last - begin, <Py_ssize_t>256), &table[begin, 0], sums)
            for j in range(width):
                for f in range(width):
                    out[j, f] += sums[j * width + f]


def transform(float[:, ::1] table, const float[:, ::1] by, Py_ssize_t first, Py_ssize_t last, float[::1] scratch,
              float[:, ::1] out):
    """The first columns of out's rows = rows @ by; four rows at a time, eight registers of sums.

    by.shape[1] is a multiple of 16.
    """
    cdef Py_ssize_t row, f, c, j, width = by.shape[0], columns = by.shape[1]
    cdef const float* x[4]
    cdef vec* y[4]
    cdef const vec* source
    cdef vec a0, a1, b0, b1, c0, c1, d0, d1, s, t
    with nogil:
        for row in range(first, last, 4):
            for j in range(4):  # past the end the last row again
                x[j] = &table[min(row + j, last - 1), 0]
                y[j] = <vec*>(&scratch[0] + j * columns)
            for c in range(0, columns / LANES, 2):
                s = (<const vec*>&by[0, 0])[0] * 0
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = s
                for f in range(width):
                    source = <const vec*>(&by[f, 0]) + c
                    s = source[0]
                    t = source[1]
                    a0 += x[0][f] * s; a1 += x[0][f] * t
                    b0 += x[1][f] * s; b1 += x[1][f] * t
                    c0 += x[2][f] * s; c1 += x[2][f] * t
                    d0 += x[3][f] * s; d1 += x[3][f] * t
                y[0][c] = a0; y[0][c + 1] = a1
                y[1][c] = b0; y[1][c + 1] = b1
                y[2][c] = c0; y[2][c + 1] = c1
                y[3][c] = d0; y[3][c + 1] = d1
            for j in range(min(last - row, <Py_ssize_t>4)):
                memcpy(&out[row + j, 0], y[j], columns * 4)


cdef void cholesky(Py_ssize_t n, double[:, ::1] a) noexcept nogil:
    """The lower factor in place of a's upper triangle, read as a symmetric matrix; zeros above it."""
    cdef Py_ssize_t i, j, t
    cdef double ridge = 1e-30, sum_
    for i in range(n):
        ridge += 1e-7 * a[i, i]
    for i in range(n):
        a[i, i] += ridge
        for j in range(i):
            a[i, j] = a[j, i]
    for i in range(n):
        for j in range(i + 1):
            sum_ = a[i, j]
            for t in range(j):
                sum_ -= a[i, t] * a[j, t]
            a[i, j] = sqrt(max(sum_, 1e-3 * ridge)) if i == j else sum_ / a[j, j]
        for j in range(i + 1, n):
            a[i, j] = 0


cdef double rotated(Py_ssize_t n, float* x, float* y, double* xx, double* yy, double floor) noexcept nogil:
    """Turn rows x and y of n vectors until their dot product is 0; returns how far it was (cosine squared).

    xx and yy are their squared norms, and are kept up to date.
    """
    cdef vec* p = <vec*>x
    cdef vec* q = <vec*>y
    cdef vec sums, old
    cdef double xy, tangent, zeta, far
    cdef float c, s
    cdef Py_ssize_t t
    if xx[0] < floor or yy[0] < floor:
        return 0
    sums = p[0] * q[0]
    for t in range(1, n):
        sums += p[t] * q[t]
    xy = lane_sum(sums)
    far = xy * xy / (xx[0] * yy[0])
    if far < 1e-10:
        return 0
    zeta = (yy[0] - xx[0]) / (2 * xy)
    tangent = (1 if zeta >= 0 else -1) / ((zeta if zeta >= 0 else -zeta) + sqrt(1 + zeta * zeta))
    c = <float>(1 / sqrt(1 + tangent * tangent))
    s = <float>(c * tangent)
    for t in range(n):
        old = p[t]
        p[t] = c * old - s * q[t]
        q[t] = s * old + c * q[t]
    xx[0] -= tangent * xy
    yy[0] += tangent * xy
    return far


def best_rank(double[:, ::1] a, double[:, ::1] b, float[:, ::1] x, double[:, ::1] sums, Py_ssize_t rank,
              float[:, ::1] by_a, float[:, ::1] by_b):
    """From the Gram matrices a of A and b of B (overwritten): A by_a (B by_b)' is the best rank-`rank` A B'.

    With a = L L', b = M M' the singular values of A B' are those of L'M = U S V'; B by_b = B L U / sqrt(S) has its
    right singular vectors times sqrt(S), A by_a = A M V / sqrt(S) the left ones. V = M'L U / S, less what earlier columns
    have of it: errors in U count (S_1 / S)^2 times there, and singular values below 1e-4 of the largest are dropped.
    The ridge on the diagonals keeps A B' where nothing is cut. One-sided Jacobi rotations (Hestenes 1958) on the rows of
    (L'M)'; no BLAS, whose own threads would stay awake beside ours. Scratch: x (n, n or more) of zeros, 64-byte aligned
    rows, which holds them and then V, and sums (4, n).
    """
    cdef Py_ssize_t n = a.shape[0], i, j, t, _turn, best, vectors = x.shape[1] / LANES
    cdef double off = 1, total = 0, floor = 0, most, root, sum_
    cdef double* norm = &sums[0, 0]
    cdef double* y = &sums[1, 0]
    cdef double* z = &sums[2, 0]
    cdef double* order = &sums[3, 0]  # rows of x that hold columns of V
    cdef float* v
    with nogil:
        cholesky(n, a)
        cholesky(n, b)
        for t in range(n):
            for i in range(t + 1):
                for j in range(t + 1):
                    x[i, j] += <float>(b[t, i] * a[t, j])
        for _turn in range(30):
            total = 0
            for i in range(n):
                norm[i] = 0
                for j in range(n):
                    norm[i] += x[i, j] * x[i, j]
                total += norm[i]
            if off < 1e-5:  # convergence is quadratic: by now the cosines are at 1e-5
                break
            off = 0
            for i in range(n):
                for j in range(i + 1, n):
                    off = max(off, rotated(vectors, &x[i, 0], &x[j, 0], &norm[i], &norm[j], 1e-11 * total))
        for i in range(n):
            floor = max(floor, 1e-8 * norm[i])
        for t in range(rank):
            best, most = -1, floor
            for i in range(n):
                if norm[i] > most:
                    best, most = i, norm[i]
            if best < 0:
                for i in range(n):
                    for j in range(t, rank):
                        by_a[i, j] = by_b[i, j] = 0
                break
            norm[best] = 0
            root = most ** -0.75  # of the singular value, to the power of 3 / 2
            for j in range(n):
                z[j] = 0
            for i in range(n):
                sum_ = 0
                for j in range(i + 1):
                    sum_ += a[i, j] * x[best, j]
                y[i] = sum_ * root
                by_b[i, t] = <float>y[i]
                for j in range(i + 1):
                    z[j] += b[i, j] * y[i]
            for i in range(t):
                v, sum_ = &x[<Py_ssize_t>order[i], 0], 0
                for j in range(n):
                    sum_ += v[j] * z[j]
                for j in range(n):
                    z[j] -= sum_ * v[j]
            order[t], v, root = best, &x[best, 0], most ** -0.25
            for j in range(n):
                v[j] = <float>(z[j] * root)
            root = 1 / sqrt(most)
            for i in range(n):
                sum_ = 0
                for j in range(i + 1):
                    sum_ += b[i, j] * z[j]
                by_a[i, t] = <float>(sum_ * root)


def normal_rows(uint64_t key, Py_ssize_t first, float[::1] scratch, float[:, ::1] out):
    """out[j] = the fixed normals of row first + j."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(out.shape[0]):
            normals(child(key, first + j), out.shape[1], &scratch[0])
            memcpy(&out[j, 0], &scratch[0], out.shape[1] * 4)


def stream(uint64_t seed, numbers):
    """A key that `seed` and the whole numbers name."""
    cdef uint64_t key = mixed(seed)
    for number in numbers:
        key = child(key, number)
    return key


def gammas(uint64_t key, Py_ssize_t first, const double[::1] shape, const double[::1] normal, double[::1] out):
    """out[j] = Gamma(shape[j], rate 1) as `rows` draws it for row first + j; normal[j] is the first one it uses."""
    cdef Py_ssize_t j
    for j in range(out.shape[0]):
        out[j] = gamma(child(child(key, first + j), 1 << 20), shape[j], normal[j])
