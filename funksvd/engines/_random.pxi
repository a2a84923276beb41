# Random numbers of the sampler: each is a hash of a key, so that threads and chunks change no bit.

from libc.math cimport cos, log, sqrt, sqrtf
from libc.stdint cimport int32_t, uint64_t

include "../machine/_hash.pxi"

cdef extern from *:
    """
    static CYTHON_INLINE float float_of_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
    static CYTHON_INLINE int32_t bits_of_float(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }
    """
    float float_of_bits(int32_t) nogil
    int32_t bits_of_float(float) nogil

cdef enum:
    PAIRS = 16  # normals are made 32 at a time


cdef inline uint64_t child(uint64_t key, uint64_t number) noexcept nogil:
    return mix(key + (number + 1) * <uint64_t>0x9E3779B97F4A7C15)


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
