# Linear algebra of the sampler in float32: inner products and Gram matrices.


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
