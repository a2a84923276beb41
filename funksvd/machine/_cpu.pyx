# cython: language_level=3, freethreading_compatible=True
"""Facts about the CPU and about this build of the kernels."""

cdef extern from "_vec.h":
    enum: LANES

cdef extern from *:
    """
    static int cpu_level(void) {
    #if defined(__x86_64__) && defined(__GNUC__)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512cd")) return 4;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")) return 3;
    #endif
        return 0;
    }
    """
    int cpu_level() nogil


def lanes():
    """Return how many float32 a vector of this build holds; 1 if the compiler has no vectors."""
    return LANES


def level():
    """Return the x86-64 level that this CPU runs: 4, 3, or 0 for any lower or other one."""
    return cpu_level()
