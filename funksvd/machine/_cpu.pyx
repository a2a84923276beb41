# cython: language_level=3, freethreading_compatible=True
"""Which instruction set this CPU runs, and how wide the vectors of a build are."""

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
    """Factors that one vector of this build holds: 8, or 1 where the compiler has no vector types."""
    return LANES


def level():
    """The x86-64 micro-architecture level that this CPU runs: 3, 4, or 0 for less or another architecture."""
    return cpu_level()
