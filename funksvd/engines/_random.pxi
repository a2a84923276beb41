# Random numbers of the sampler.
#
# Each number is a hash of a key, and there is no state that threads could share (a counter-based
# generator, Salmon et al. 2011). A key is named by whole numbers: the seed, the sweep, the side,
# the row. So neither the number of threads nor the cut of the rows into calls changes a bit.
#
#     stream, child    the key of something that is numbered below another key
#     normals          standard normals of a key
#     uniform, gamma   one number of a uniform or gamma distribution

from libc.math cimport cos, log, sqrt, sqrtf
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy

include "../machine/_hash.pxi"

cdef extern from *:
    """
    static CYTHON_INLINE float float_of_bits(int32_t bits) {
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    static CYTHON_INLINE int32_t bits_of_float(float x) {
        int32_t bits;
        memcpy(&bits, &x, 4);
        return bits;
    }
    """
    float float_of_bits(int32_t) nogil
    int32_t bits_of_float(float) nogil

cdef enum:
    NORMAL_PAIRS = 16               # two independent normals come from two random integers
    NORMALS = 2 * NORMAL_PAIRS      # normals are made in blocks of this size
    NOISE_WEIGHT = 1 << 20          # number, below a row's key, of the stream of its noise weight


cdef inline uint64_t child(uint64_t key, uint64_t number) noexcept nogil:
    """Return the key of what has this number below `key`."""
    return mix(key + (number + 1) * <uint64_t>0x9E3779B97F4A7C15)


def stream(uint64_t seed, numbers):
    """Return the key that a seed and some whole numbers name."""
    cdef uint64_t key = mix(seed)
    for number in numbers:
        key = child(key, number)
    return key


cdef inline float log_of_share(int32_t number) noexcept nogil:
    """Return log(u) of u = (number + 1/2) / 2^31, in (0, 1], as Cephes' logf computes it.

    With u = m 2^e and m in [sqrt(1/2), sqrt(2)), log(u) = log(m) + e log(2), where log(m) is a
    polynomial in m - 1.
    """
    cdef int32_t bits = bits_of_float((<float>number + <float>0.5) * <float>4.656612873077393e-10)
    cdef float m = float_of_bits((bits & 0x7FFFFF) | 0x3F000000)
    cdef int32_t low = m < <float>0.70710678
    cdef float e = <float>((bits >> 23) - 126 - low)
    cdef float x
    m = m - 1 + (m if low else 0)
    x = <float>7.0376836292e-2 * m - <float>1.1514610310e-1
    x = x * m + <float>1.1676998740e-1
    x = x * m - <float>1.2420140846e-1
    x = x * m + <float>1.4249322787e-1
    x = x * m - <float>1.6668057665e-1
    x = x * m + <float>2.0000714765e-1
    x = x * m - <float>2.4999993993e-1
    x = x * m + <float>3.3333331174e-1
    return x * m * m * m - <float>0.5 * m * m + m + e * <float>0.69314718


cdef inline float sine(float x) noexcept nogil:
    """Return sin(x) for |x| <= pi / 4, by Cephes' polynomial."""
    cdef float square = x * x
    cdef float sum_ = <float>-1.9515295891e-4 * square + <float>8.3321608736e-3
    sum_ = sum_ * square - <float>1.6666654611e-1
    return sum_ * square * x + x


cdef inline float cosine(float x) noexcept nogil:
    """Return cos(x) for |x| <= pi / 4, by Cephes' polynomial."""
    cdef float square = x * x
    cdef float sum_ = <float>2.443315711809948e-5 * square - <float>1.388731625493765e-3
    sum_ = sum_ * square + <float>4.166664568298827e-2
    return sum_ * square * square - <float>0.5 * square + 1


cdef inline void normals_block(uint64_t key, float* z) noexcept nogil:
    """Write `NORMALS` standard normals to z (Box and Muller 1958): r cos(angle) and r sin(angle).

    The arithmetic is float32 without branches or calls, so that the compiler makes vectors of the
    second loop.
    """
    cdef int32_t for_radius[NORMAL_PAIRS]
    cdef int32_t for_angle[NORMAL_PAIRS]
    cdef uint64_t hashed
    cdef float log_u, radius, angle, s, c, main, other
    cdef int32_t without  # the two bits of the quarter
    cdef int j
    for j in range(NORMAL_PAIRS):
        hashed = child(key, j)
        for_radius[j] = <int32_t>(hashed >> 33)
        for_angle[j] = <int32_t>hashed
    for j in range(NORMAL_PAIRS):
        log_u = log_of_share(for_radius[j])
        radius = sqrtf(-2 * (log_u if log_u < 0 else 0))
        # 30 bits give an angle in [-pi/4, pi/4), two bits the quarter of the circle.
        without = <int32_t>(<uint32_t>for_angle[j] << 2)
        angle = <float>without * <float>3.6572652e-10  # (pi / 2) / 2^32
        s = sine(angle)
        c = cosine(angle)
        main = -c if for_angle[j] < 0 else c
        other = main if for_angle[j] & 0x40000000 else s
        main = s if for_angle[j] & 0x40000000 else main
        z[j] = radius * main
        z[j + NORMAL_PAIRS] = radius * other


cdef inline void normals(uint64_t key, Py_ssize_t count, float* z) noexcept nogil:
    """Write `count` standard normals to z, and more up to a multiple of `NORMALS`."""
    cdef Py_ssize_t first = 0
    while first < count:
        normals_block(key + <uint64_t>first, z + first)
        first += NORMALS


cdef inline double uniform(uint64_t key) noexcept nogil:
    """Return a number in (0, 1)."""
    return (<double>(key >> 11) + 0.5) * (1.0 / 9007199254740992.0)


cdef inline double normal_of(uint64_t first, uint64_t second) noexcept nogil:
    """Return one standard normal from two keys (Box and Muller 1958)."""
    return sqrt(-2 * log(uniform(first))) * cos(6.283185307179586 * uniform(second))


cdef inline double gamma(uint64_t key, double shape, double normal) noexcept nogil:
    """Return a draw of Gamma(shape, rate 1), shape >= 1, by rejection (Marsaglia and Tsang 2000).

    `normal` is the first standard normal that it uses; in 95 % of the cases or more it is enough.
    """
    cdef double d = shape - 1.0 / 3
    cdef double c = 1 / sqrt(9 * d)
    cdef double cube, u
    cdef uint64_t count = 0
    while True:
        cube = 1 + c * normal
        if cube > 0:
            cube = cube * cube * cube
            u = uniform(child(key, count))
            # A bound that costs no logarithm, then the exact test.
            if u < 1 - 0.0331 * normal * normal * normal * normal:
                return d * cube
            if log(u) < 0.5 * normal * normal + d * (1 - cube + log(cube)):
                return d * cube
        normal = normal_of(child(key, count + 1), child(key, count + 2))
        count += 3


def normal_rows(uint64_t key, Py_ssize_t first, float[::1] scratch, float[:, ::1] out):
    """Write the normals of row first + j to out[j]; scratch (columns + 32,) may hold anything."""
    cdef Py_ssize_t j
    with nogil:
        for j in range(out.shape[0]):
            normals(child(key, first + j), out.shape[1], &scratch[0])
            memcpy(&out[j, 0], &scratch[0], out.shape[1] * sizeof(float))


def gammas(
    uint64_t key,
    Py_ssize_t first,
    const double[::1] shape,
    const double[::1] normal,
    double[::1] out,
):
    """Write to out[j] the draw of Gamma(shape[j], rate 1) that `rows` makes for row first + j.

    normal[j] is the first standard normal that the draw uses.
    """
    cdef Py_ssize_t j
    for j in range(out.shape[0]):
        out[j] = gamma(child(child(key, first + j), NOISE_WEIGHT), shape[j], normal[j])
