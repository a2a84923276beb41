# The draw of a row by its normal equations: in single precision, and in double precision for the
# rare row whose equations single precision cannot solve. `_gibbs.pyx` includes this file.


cdef void set_up_exactly(
    Py_ssize_t width, Py_ssize_t n, const Work* w, Side own, double precision
) noexcept nogil:
    """Write A (from the diagonal on), c and s of the row to `exact`."""
    cdef double* a = w.exact
    cdef double* c = a + width * width
    cdef double* s = c + width
    cdef const float* g
    cdef Py_ssize_t f, j, t
    memset(a, 0, (width * width + 2 * width) * sizeof(double))
    for j in range(n):
        g = w.g + j * width
        for f in range(width):
            c[f] += <double>w.error[j] * g[f]
            s[f] += <double>w.scale[j] * g[f]
            for t in range(f, width):
                a[f * width + t] += <double>g[f] * g[t]
    for f in range(width):
        for t in range(f, width):
            a[f * width + t] *= precision
        a[f * width + f] += own.precision[f]
        c[f] = precision * c[f] + <double>own.precision[f] * w.prior[f]
        s[f] *= precision


cdef void factorise_exactly(Py_ssize_t width, double* a, Side own) noexcept nogil:
    """Turn A into U (A = U'U), c into U'^-1 c and s into U'^-1 s.

    No pivot is below the prior's precision, nor below 2^-40 of its diagonal entry, which is far
    above the rounding and far below anything that the ratings could tell.
    """
    cdef double* c = a + width * width
    cdef double* s = c + width
    cdef double root
    cdef Py_ssize_t f, j, t
    for j in range(width):
        root = 0  # the diagonal entry, from the rows of U above
        for t in range(j):
            root += a[t * width + j] * a[t * width + j]
        root = (root + a[j * width + j]) * 9.094947017729282e-13
        root = sqrt(max(max(a[j * width + j], root), <double>own.precision[j]))
        a[j * width + j] = root
        c[j] /= root
        s[j] /= root
        for t in range(j + 1, width):
            a[j * width + t] /= root
            c[t] -= c[j] * a[j * width + t]
            s[t] -= s[j] * a[j * width + t]
        for t in range(j + 1, width):
            for f in range(t, width):
                a[t * width + f] -= a[j * width + t] * a[j * width + f]


cdef BiasDraw draw_exactly(
    Py_ssize_t width, Py_ssize_t n, Work* w, Side own, double precision
) noexcept nogil:
    """Draw a row as `draw_by_equations` does, from the same random numbers."""
    cdef BiasDraw bias
    cdef double* a = w.exact
    cdef double* c = a + width * width
    cdef double* s = c + width
    cdef double weights = 0, errors = 0, vv = 0, vc = 0, t, drawn, mean
    cdef Py_ssize_t f, j
    set_up_exactly(width, n, w, own, precision)
    factorise_exactly(width, a, own)
    bias.drawn = 0
    bias.mean = 0
    if own.biased:
        for j in range(n):
            weights += <double>w.scale[j] * w.scale[j]
            errors += <double>w.scale[j] * w.error[j]
        for f in range(width):
            vv += s[f] * s[f]
            vc += s[f] * c[f]
        t = max(precision * weights + own.bias_precision - vv, own.bias_precision)
        bias.mean = (precision * errors + own.bias_precision * w.prior_bias - vc) / t
        bias.drawn = bias.mean + w.z_bias[0] / sqrt(t)
    for j in range(width - 1, -1, -1):
        mean = c[j] - s[j] * bias.mean
        drawn = c[j] - s[j] * bias.drawn + w.z[j]
        for f in range(j + 1, width):
            mean -= a[j * width + f] * w.mean[f]
            drawn -= a[j * width + f] * w.x[f]
        w.mean[j] = <float>(mean / a[j * width + j])
        w.x[j] = <float>(drawn / a[j * width + j])
    return bias


cdef inline BiasDraw draw_by_equations(
    Py_ssize_t width, Py_ssize_t n, Work* w, Side own, double precision
) noexcept nogil:
    """Draw a row by its normal equations: the bias by (1), then the factors by (2).

    The conditional mean costs one more right side in the last solve.
    """
    cdef BiasDraw bias
    cdef Py_ssize_t f, j
    cdef float weights = 0, errors = 0
    cdef double vv = 0, vc = 0, t
    cdef const float* v = w.equations.solved_s
    cdef const float* c = w.equations.solved_c
    set_up_equations(width, n, w, own, <float>precision)
    for j in range(n):
        weights += w.scale[j] * w.scale[j]
        errors += w.scale[j] * w.error[j]
    if factorise_and_check(width, &w.equations, &own.precision[0], <float>n * ROUNDING):
        return draw_exactly(width, n, w, own, precision)
    bias.drawn = 0
    bias.mean = 0
    if own.biased:
        for f in range(width):
            vv += v[f] * v[f]
            vc += v[f] * c[f]
        # Without rounding, t is at least the prior's precision.
        t = max(precision * weights + own.bias_precision - vv, own.bias_precision)
        bias.mean = (precision * errors + own.bias_precision * w.prior_bias - vc) / t
        bias.drawn = bias.mean + w.z_bias[0] / sqrt(t)
    for f in range(width):
        w.mean[f] = c[f] - v[f] * <float>bias.mean
        w.x[f] = c[f] - v[f] * <float>bias.drawn + w.z[f]
    solve_back(width, &w.equations, w.x, w.mean)
    return bias
