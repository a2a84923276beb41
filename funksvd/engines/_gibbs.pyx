# cython: language_level=3, freethreading_compatible=True
"""Kernels of the Gibbs sampler: they draw rows of one side (users or items) given the other side.

The model of standardised ratings y is biased matrix factorisation (Salakhutdinov and Mnih 2008,
with diagonal precisions) with a noise weight a for every user and every item, s being the sample
weight of a rating; the same holds for items::

    y_ui ~ N(b_u + b_i + p_u.q_i, 1 / (alpha a_u a_i s_ui))
    p_u ~ N(m, diag(1 / l))      b_u ~ N(m_b, 1 / l_b)      a_u ~ Gamma(nu / 2, rate nu / 2)

`rows` draws a row x = p_u, b = b_u, a = a_u from its conditional given everything else. With
w_j = alpha a a_j s_j, e_j = y_j - b_j and sums over the row's n ratings::

    A = sum w_j q_j q_j' + diag(l)    c = sum w_j e_j q_j + l m    s = sum w_j q_j
    A = U'U                           c~ = U'^-1 c                 v = U'^-1 s
(1) b ~ N((sum w_j e_j + l_b m_b - v.c~) / t, 1 / t),  t = sum w_j + l_b - v.v
(2) x = U^-1 (c~ - v b + z),  z ~ N(0, I)
(3) or, of few ratings: x0, b0 from the prior, r_j = e_j - q_j.x0 - b0 - N(0, 1 / w_j),
    S = Q diag(1 / l) Q' + 1 / l_b + diag(1 / w),  h = S^-1 r,
    x = x0 + diag(1 / l) Q' h,  b = b0 + sum h_j / l_b
(4) x' = mean + relax (old - mean) + sqrt(1 - relax^2) (x - mean), and b' alike
(5) a ~ Gamma((nu + n) / 2, rate (nu + sum w_j / a (e_j - q_j.x - b)^2) / 2)

(1) integrates the factors out, so that bias and factors are drawn jointly. (3) is Matheron's rule,
a draw of the prior that is conditioned on the ratings: n^2 k operations instead of k^3 halve the
time of a sweep where most items are rare. (4) is overrelaxation (Adler 1981; Barone and Frigessi
1990): a draw lies on the far side of its conditional mean, successive draws err to opposite sides,
and RMSE at equal sweeps falls by 0.002 to 0.004.

A row's ratings are gathered as g_j = scale_j q_j and error_j = scale_j e_j, scale_j^2 = a_j s_j, so
that all sums over ratings are plain sums; ``precision = alpha a`` then multiplies the sums.

Every kernel works on rows [first, last) of a side, writes nothing that another call reads or
writes, takes no lock and no GIL, and checks nothing. Random numbers are hashes (`_random.pxi`), so
neither the number of threads nor the cut into calls changes a bit.
"""

from libc.math cimport sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "../machine/_bounds.h":
    void CHECK_INSIDE(Py_ssize_t at, Py_ssize_t n) nogil

cdef extern from "../machine/_vec.h":
    enum: LANES
    ctypedef float vec              # LANES factors of a row that starts at a multiple of 64 bytes
    ctypedef float loose_vec        # LANES factors at any address
    void lane_sums8(vec, vec, vec, vec, vec, vec, vec, vec, float*) nogil
    float lane_sum(loose_vec) nogil
    vec vec_splat(float) nogil
    vec vec_sqrt(vec) nogil
    void PREFETCH(const void*) nogil

include "_random.pxi"
include "_linear.pxi"


cdef enum:
    FEW = 8             # a row with at most this many ratings is drawn by conditioning, see (3)
    AHEAD = 12          # ratings between the one that is gathered and the one that is prefetched

cdef float ROUNDING = 5.9604645e-08     # 2^-24, of each addition in a sum of float32


cdef class Side:
    """Users or items: state of the chain, ratings, hyper-parameters; Python shares the arrays.

    n rows of `width` factors, a multiple of 8. Factors past the first `used` are 0, with mean 0 and
    precision 1.
    """
    cdef public float[:, ::1] factors       # (n, width) drawn; starts at a multiple of 64 bytes
    cdef public float[:, ::1] scalars       # (n, 2) drawn bias, square root of the noise weight
    cdef public float[:, ::1] means         # (n, width) conditional means, after `keep` centred
    cdef public float[::1] mean_biases      # (n,) the same of the biases
    cdef public int64_t[::1] start          # (n + 1,) where each row's ratings begin
    cdef public int32_t[::1] index          # (ratings,) the other side's row
    cdef public float[::1] value            # (ratings,) standardised rating
    cdef public float[::1] root_weight      # (ratings,) square root of the sample weight, or (0,)
    cdef public float[::1] residual         # (ratings,) written by `rows` for the moods, or (0,)
    cdef public float[::1] squared_scale    # (ratings,) likewise, a_j s_j
    cdef public float[::1] mean             # (width,) m of the factors
    cdef public float[::1] precision        # (width,) l of the factors
    cdef public float[:, ::1] offsets       # (n, width) of the rows' prior means from m, or (0, 0)
    cdef public float[::1] bias_offsets     # (n,) the same of the biases, or (0,)
    cdef public double bias_mean            # m_b
    cdef public double bias_precision       # l_b
    cdef public Py_ssize_t used
    cdef public bint biased


cdef class Sweep:
    """What the draws of all rows of one side have in common in one sweep.

    Parameters
    ----------
    key : name of the sweep's and the side's random numbers
    alpha : global noise precision
    nu : degrees of freedom of the noise weights
    draw_noise : whether the noise weights are drawn; else they stay
    relax : in (-1, 0], see (4); 0 makes plain draws
    longest : ratings of the longest row, at least `few`
    few : a row with at most this many ratings (<= 8) is drawn by conditioning
    """
    cdef uint64_t key
    cdef double alpha, nu
    cdef bint draw_noise
    cdef float relax
    cdef float fresh    # share of the draw's own deviation that keeps the conditional's variance
    cdef Py_ssize_t longest, few

    def __init__(
        self, *, uint64_t key, double alpha, double nu, bint draw_noise, float relax,
        Py_ssize_t longest, Py_ssize_t few=FEW,
    ):
        self.key = key
        self.alpha = alpha
        self.nu = nu
        self.draw_noise = draw_noise
        self.relax = relax
        self.fresh = sqrtf(1 - relax * relax)
        self.longest = longest
        self.few = few


# The ratings of one row, and the rows of the other side.
cdef struct Given:
    Py_ssize_t n
    const int32_t* index        # (n,)
    const float* value          # (n,)
    const float* root_weight    # (n,), or NULL where all sample weights are 1
    Py_ssize_t n_others         # rows of the other side, which a debug build checks
    const float* factors        # (others, width)
    const float* scalars        # (others, 2)


# Scratch of one call, in which one row after the other is drawn.
cdef struct Work:
    float* g                # (n, width) gathered ratings: scale_j q_j
    float* scale            # (n,) square root of a_j s_j
    float* error            # (n,) scale_j e_j, after the draw what is left of it
    float* root             # (n,) square root of a_j
    Equations equations
    float* spread           # (FEW, width) g_j / l; the memory of the equations' matrix
    float* prior            # (width,) prior mean of the row's factors
    double prior_bias       # and of its bias
    float* variance         # (width,) 1 / l; the memory of the equations' c
    double* exact           # (width, width) A, (width,) c and (width,) s in double precision
    float* x                # (width,) drawn factors
    float* mean             # (width,) their conditional mean
    float* z                # (width,) normals of the factors,
    float* z_bias           # (1,) of the bias,
    float* z_ratings        # (FEW,) of the ratings' noise,
    float* z_noise          # (1,) and of the noise weight


cdef struct BiasDraw:
    double drawn
    double mean


# Sums over ratings with residual e, in units of their noise or with the sample weight alone.
cdef struct Sums:
    double weighted         # z = a_row a_other s e^2
    double plain            # s e^2
    double fourth           # z^2


def scratch_size(Py_ssize_t longest, Py_ssize_t width):
    """Return how many floats of scratch a call of `rows` needs; `longest` is that of the sweep."""
    return (longest + 16) * (width + 3) + 3 * width * width + 13 * (width + 16) + 128


cdef inline float* taken(float** free, Py_ssize_t count) noexcept nogil:
    """Return the next `count` floats of the scratch, and move `free` past them."""
    cdef float* start = free[0]
    free[0] += count
    return start


cdef Work laid_out(float* scratch, Py_ssize_t longest, Py_ssize_t width) noexcept nogil:
    """Return the scratch of a call, cut into its arrays, each at a multiple of 64 bytes."""
    cdef Work work
    cdef Py_ssize_t n = (longest + 15) / 16 * 16
    cdef Py_ssize_t w = (width + 15) / 16 * 16
    work.g = taken(&scratch, n * width)
    work.scale = taken(&scratch, n)
    work.error = taken(&scratch, n)
    work.root = taken(&scratch, n)
    work.equations.gram = taken(&scratch, width * width)
    work.equations.c = taken(&scratch, w)
    work.equations.s = taken(&scratch, w)
    work.equations.solved_c = taken(&scratch, w)
    work.equations.solved_s = taken(&scratch, w)
    work.equations.inverse = taken(&scratch, w)
    work.spread = work.equations.gram
    work.variance = work.equations.c
    work.exact = <double*>taken(&scratch, 2 * (width * width + 2 * width))
    work.x = taken(&scratch, w)
    work.mean = taken(&scratch, w)
    work.prior = taken(&scratch, w)
    work.z = scratch
    work.z_bias = work.z + width
    work.z_ratings = work.z_bias + 1
    work.z_noise = work.z_ratings + FEW
    return work


# ---------------------------------------------------------------------------------- draws of a row

cdef inline void gather(Py_ssize_t width, const Given* given, Work* w) noexcept nogil:
    """Write the row's ratings to g, scale, error and root, side by side.

    The other side's rows lie anywhere in memory: they are prefetched, and read here once, while the
    draw passes over their copies several times.
    """
    cdef Py_ssize_t j, f, other, ahead, vectors = width / LANES, n = given.n
    cdef const vec* q
    cdef float scale
    for j in range(n):
        ahead = given.index[min(j + AHEAD, n - 1)]
        PREFETCH(given.factors + ahead * width)
        if width > 16:  # a row of 16 factors is one cache line
            PREFETCH(given.factors + ahead * width + 16)
        other = given.index[j]
        CHECK_INSIDE(other, given.n_others)
        q = <const vec*>(given.factors + other * width)
        scale = given.scalars[2 * other + 1]
        w.root[j] = scale
        if given.root_weight != NULL:
            scale *= given.root_weight[j]
        w.scale[j] = scale
        w.error[j] = scale * (given.value[j] - given.scalars[2 * other])
        for f in range(vectors):
            (<vec*>w.g)[j * vectors + f] = scale * q[f]
    for j in range(n, (n + 7) / 8 * 8):  # up to a multiple of 8, ratings that say nothing
        w.root[j] = 1
        w.scale[j] = 0
        w.error[j] = 0
        memset(w.g + j * width, 0, width * sizeof(float))


cdef inline void draw_normals(Py_ssize_t width, Side own, uint64_t key, Work* w) noexcept nogil:
    """Write the row's normals to z and what follows it; unused factors have none."""
    cdef Py_ssize_t f
    normals(key, width + FEW + 2, w.z)
    for f in range(own.used, width):
        w.z[f] = 0


cdef inline void set_prior(
    Py_ssize_t width, Side own, Py_ssize_t row, Work* w
) noexcept nogil:
    """Write the row's prior means: m and m_b, plus its offsets if rows have features."""
    cdef Py_ssize_t f
    w.prior_bias = own.bias_mean
    memcpy(w.prior, &own.mean[0], width * sizeof(float))
    if own.bias_offsets.shape[0]:
        w.prior_bias += own.bias_offsets[row]
        for f in range(width):
            w.prior[f] += own.offsets[row, f]


cdef inline void set_up_equations(
    Py_ssize_t width, Py_ssize_t n, Work* w, Side own, float precision
) noexcept nogil:
    """Write A, c and s of the row to the equations."""
    cdef Py_ssize_t f
    cdef float* gram = w.equations.gram
    cdef float* c = w.equations.c
    cdef float* s = w.equations.s
    cdef const float* lam = &own.precision[0]
    memset(gram, 0, width * width * sizeof(float))
    add_gram(width, n, w.g, gram)
    sum_sides(width, (n + 3) / 4 * 4, w.g, w.error, w.scale, &w.equations)
    for f in range(width * (width / LANES)):
        (<vec*>gram)[f] = precision * (<vec*>gram)[f]
    for f in range(width):
        gram[f * width + f] += lam[f]
        c[f] = precision * c[f] + lam[f] * w.prior[f]
        s[f] = precision * s[f]


include "_equations.pxi"


# The system of (3) with its right sides for the draw and for the mean, which become the solutions.
cdef struct FewEquations:
    double S[FEW][FEW]
    double draw[FEW]
    double mean[FEW]


cdef inline void solve_few(Py_ssize_t n, FewEquations* few) noexcept nogil:
    """Solve S x = draw and S x = mean in place (Cholesky, S = L L')."""
    cdef Py_ssize_t i, j, t
    cdef double d
    for j in range(n):
        for i in range(j + 1):
            d = few.S[j][i]
            for t in range(i):
                d -= few.S[j][t] * few.S[i][t]
            # S is the unit matrix and a sum of squares: below 1/2 there is nothing but rounding.
            few.S[j][i] = sqrt(max(d, 0.5)) if i == j else d / few.S[i][i]
        for t in range(j):
            few.draw[j] -= few.S[j][t] * few.draw[t]
            few.mean[j] -= few.S[j][t] * few.mean[t]
        few.draw[j] /= few.S[j][j]
        few.mean[j] /= few.S[j][j]
    for j in range(n - 1, -1, -1):
        for t in range(j + 1, n):
            few.draw[j] -= few.S[t][j] * few.draw[t]
            few.mean[j] -= few.S[t][j] * few.mean[t]
        few.draw[j] /= few.S[j][j]
        few.mean[j] /= few.S[j][j]


cdef inline BiasDraw draw_by_conditioning(
    Py_ssize_t width, Py_ssize_t n, Work* w, Side own, double precision
) noexcept nogil:
    """Draw a row of n <= FEW ratings by (3): a draw of the prior, conditioned on the ratings.

    Every equation is multiplied by the square root of its w_j, so that the noise is N(0, 1).
    """
    cdef BiasDraw bias
    cdef FewEquations few
    cdef Py_ssize_t f, j, i
    cdef double d, root = sqrt(precision), bias_variance = 0
    cdef const float* g
    cdef const float* spread
    bias.mean = 0
    bias.drawn = 0
    if own.biased:
        bias_variance = 1 / own.bias_precision
        bias.mean = w.prior_bias
        bias.drawn = w.prior_bias + w.z_bias[0] * sqrt(bias_variance)
    for f in range(width):
        w.variance[f] = 1 / own.precision[f]
        w.mean[f] = w.prior[f]
        w.x[f] = w.prior[f] + w.z[f] * sqrtf(w.variance[f])
    for j in range(n):
        g = w.g + j * width
        spread = w.spread + j * width
        for f in range(width):
            w.spread[j * width + f] = g[f] * w.variance[f]
        d = w.error[j] - dot(width, g, w.x) - w.scale[j] * bias.drawn
        few.draw[j] = root * d - w.z_ratings[j]
        d = w.error[j] - dot(width, g, w.mean) - w.scale[j] * bias.mean
        few.mean[j] = root * d
        for i in range(j + 1):
            d = dot(width, spread, w.g + i * width) + bias_variance * w.scale[j] * w.scale[i]
            few.S[j][i] = precision * d + (i == j)
    solve_few(n, &few)
    for j in range(n - 1, -1, -1):
        spread = w.spread + j * width
        bias.drawn += root * few.draw[j] * bias_variance * w.scale[j]
        bias.mean += root * few.mean[j] * bias_variance * w.scale[j]
        for f in range(width):
            w.x[f] += <float>(root * few.draw[j]) * spread[f]
            w.mean[f] += <float>(root * few.mean[j]) * spread[f]
    return bias


cdef inline void overrelax(
    Py_ssize_t width, Work* w, BiasDraw* bias, Side own, Py_ssize_t row, Sweep sweep
) noexcept nogil:
    """Replace the draw by (4): the old row, mirrored at the conditional mean, and a fresh part."""
    cdef Py_ssize_t f
    cdef float relax = sweep.relax
    cdef float fresh = sweep.fresh
    cdef double old_bias = own.scalars[row, 0]
    cdef const vec* old = <const vec*>&own.factors[row, 0]
    cdef const vec* mean = <const vec*>w.mean
    cdef vec* x = <vec*>w.x
    bias.drawn = bias.mean + relax * (old_bias - bias.mean) + fresh * (bias.drawn - bias.mean)
    for f in range(width / LANES):
        x[f] = mean[f] + relax * (old[f] - mean[f]) + fresh * (x[f] - mean[f])


cdef inline void note_residuals(
    Side own, Py_ssize_t row, Py_ssize_t n, float drawn, const Work* w
) noexcept nogil:
    """Write the residuals of a row, and the shares of their precisions that are not the row's."""
    cdef Py_ssize_t j, begin = own.start[row]
    for j in range(n):
        own.residual[begin + j] = w.error[j] / w.scale[j] - drawn
        own.squared_scale[begin + j] = w.scale[j] * w.scale[j]


cdef inline void draw_row(
    Py_ssize_t width, Side own, Py_ssize_t row, const Given* given, Sweep sweep, Work* w, Sums* sums
) noexcept nogil:
    """Draw bias, factors and noise weight of one row, and add its residuals to `sums`."""
    cdef Py_ssize_t j, n = given.n
    cdef uint64_t key = child(sweep.key, row)
    cdef float root = own.scalars[row, 1]
    cdef double noise = root * root
    cdef BiasDraw bias
    cdef float drawn, e, squares = 0, plain = 0, fourth = 0
    gather(width, given, w)
    set_prior(width, own, row, w)
    draw_normals(width, own, key, w)
    if n <= sweep.few:
        bias = draw_by_conditioning(width, n, w, own, sweep.alpha * noise)
    else:
        bias = draw_by_equations(width, n, w, own, sweep.alpha * noise)
    overrelax(width, w, &bias, own, row, sweep)
    memcpy(&own.factors[row, 0], w.x, width * sizeof(float))
    memcpy(&own.means[row, 0], w.mean, width * sizeof(float))
    drawn = <float>bias.drawn
    own.scalars[row, 0] = drawn
    own.mean_biases[row] = <float>bias.mean
    # The residuals: first with all weights but the row's own, then with the sample weight alone.
    subtract_products(width, (n + 7) / 8 * 8, w.g, w.x, w.error)
    for j in range(n):
        e = w.error[j] - w.scale[j] * drawn
        e *= e
        squares += e
        fourth += e * e
        plain += e / (w.root[j] * w.root[j])
    if own.residual.shape[0]:
        note_residuals(own, row, n, drawn, w)
    if sweep.draw_noise:  # (5)
        noise = gamma(child(key, NOISE_WEIGHT), (sweep.nu + n) / 2, w.z_noise[0]) * 2
        noise /= sweep.nu + sweep.alpha * squares
        own.scalars[row, 1] = <float>sqrt(noise)
    sums.weighted += noise * squares
    sums.plain += plain
    sums.fourth += noise * noise * fourth


cdef inline void draw_rows(
    Py_ssize_t width, Side own, Side other, Sweep sweep, Py_ssize_t first, Py_ssize_t last,
    float* scratch, Sums* sums,
) noexcept nogil:
    """Draw rows [first, last) one after the other."""
    cdef Work work = laid_out(scratch, sweep.longest, width)
    cdef Given given
    cdef Py_ssize_t row, begin
    given.root_weight = NULL
    given.n_others = other.factors.shape[0]
    given.factors = &other.factors[0, 0]
    given.scalars = &other.scalars[0, 0]
    for row in range(first, last):
        begin = own.start[row]
        given.n = own.start[row + 1] - begin
        if given.n:
            given.index = &own.index[begin]
            given.value = &own.value[begin]
            if own.root_weight.shape[0]:
                given.root_weight = &own.root_weight[begin]
        draw_row(width, own, row, &given, sweep, &work, sums)


def rows(
    Side own, Side other, Sweep sweep, Py_ssize_t first, Py_ssize_t last, float[::1] scratch
):
    """Draw rows [first, last) of `own` given `other`: bias, factors, then the noise weight.

    Parameters
    ----------
    own, other : Side
    sweep : Sweep
    first, last : int
    scratch : (scratch_size(longest, width),) at a multiple of 64 bytes

    Returns
    -------
    (sum over ratings of z = a_row a_other s e^2, sum of s e^2, sum of z^2), e being the residuals
    """
    cdef Sums sums
    cdef Py_ssize_t width = own.factors.shape[1]
    sums.weighted = 0
    sums.plain = 0
    sums.fourth = 0
    with nogil:
        # The useful numbers of factors get loops of their own, with constant bounds.
        if width == 16:
            draw_rows(16, own, other, sweep, first, last, &scratch[0], &sums)
        elif width == 32:
            draw_rows(32, own, other, sweep, first, last, &scratch[0], &sums)
        else:
            draw_rows(width, own, other, sweep, first, last, &scratch[0], &sums)
    return sums.weighted, sums.plain, sums.fourth


include "_whole_side.pxi"
include "_features.pxi"
