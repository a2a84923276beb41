# The hash of SplitMix64 (Steele, Lea, Flood 2014), which names every random number of the kernels.

from libc.stdint cimport uint64_t


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """Return the finaliser of SplitMix64: every bit of it depends on every bit of `x`."""
    return mix_without_first_shift(x ^ (x >> 30))


cdef inline uint64_t mix_without_first_shift(uint64_t x) noexcept nogil:
    """Return `mix` without its first step, which would take 2 to 7 % of a hash table's time."""
    x = x * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)
