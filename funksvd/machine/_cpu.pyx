# cython: language_level=3, freethreading_compatible=True
"""Facts about the CPU and about this build of the kernels."""

cdef extern from "_vec.h":
    enum: LANES

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    /* The words of CPUID in which the features of the levels are bits, and whether the system keeps
       the vectors of a thread: bit 0 those of AVX, bit 1 those of AVX-512, too. */
    static void cpu_words(unsigned *words) {
        unsigned a, b, c, d, low, high;
        for (int j = 0; j < 4; j++) words[j] = 0;
        if (!__get_cpuid(1, &a, &b, &c, &d)) return;
        words[0] = c;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) words[1] = b;
        if (__get_cpuid(0x80000001, &a, &b, &c, &d)) words[2] = c;
        if (words[0] & 1u << 27) {  /* the system uses XSAVE */
            __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            words[3] = (low & 0x06) == 0x06;
            words[3] |= ((low & 0xe6) == 0xe6) << 1;
        }
    }
    #else
    static void cpu_words(unsigned *words) {
        for (int j = 0; j < 4; j++) words[j] = 0;
    }
    #endif
    """
    void cpu_words(unsigned*) nogil


# The features that a compiler may use at each level (System V ABI for x86-64, table 3.1), beside
# those of the level below: (word of `cpu_words`, bit).
cdef dict FEATURES = {
    3: {
        "SSE3": (0, 0), "SSSE3": (0, 9), "CMPXCHG16B": (0, 13), "SSE4.1": (0, 19),
        "SSE4.2": (0, 20), "POPCNT": (0, 23), "LAHF": (2, 0), "AVX": (0, 28), "AVX2": (1, 5),
        "BMI1": (1, 3), "BMI2": (1, 8), "F16C": (0, 29), "FMA": (0, 12), "LZCNT": (2, 5),
        "MOVBE": (0, 22), "OSXSAVE": (0, 27), "YMM kept": (3, 0),
    },
    4: {
        "AVX512F": (1, 16), "AVX512BW": (1, 30), "AVX512CD": (1, 28), "AVX512DQ": (1, 17),
        "AVX512VL": (1, 31), "ZMM kept": (3, 1),
    },
}


def lanes():
    """Return how many float32 a vector of this build holds; 1 if the compiler has no vectors."""
    return LANES


def features():
    """Return {level: {feature: whether this CPU has it}} of the x86-64 levels 3 and 4."""
    cdef unsigned words[4]
    cpu_words(words)
    found = {}
    for number, bits in FEATURES.items():
        found[number] = {name: bool(words[word] >> bit & 1) for name, (word, bit) in bits.items()}
    return found


def level(has=None):
    """Return the x86-64 level that a CPU runs: 4, 3, or 0 for any lower or other one.

    `has` is the result of `features`, by default that of this CPU. A level needs all features of
    its own and of the level below: a compiler may use any of them.
    """
    has = features() if has is None else has
    if not all(has[3].values()):
        return 0
    return 4 if all(has[4].values()) else 3
