# cython: language_level=3, freethreading_compatible=True
"""Codes for texts: the hash table behind ids that are text in Parquet."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy

cdef extern from "../machine/_prefetch.h":
    void PREFETCH(const void*) nogil

ctypedef fused offset_t:
    int32_t
    int64_t

cdef struct Slot:
    int64_t place  # of the text's length and the text itself in `memory`
    uint32_t hash
    int32_t code  # + 1; 0 where the slot is empty

cdef enum:
    AHEAD = 32  # texts whose slots are on their way from memory together
    LENGTH = sizeof(int64_t)


cdef class TextCodes:
    """Text -> code, numbered in order of appearance; for one thread at a time.

    One table serves all batches, where Arrow's dictionary_encode makes one for each, and the misses of the cache, which are
    what takes the time, overlap.
    """

    cdef Slot* slots
    cdef uint8_t* memory  # length and text of each code, one after another
    cdef int64_t n_slots, n_texts, used, room

    def __cinit__(self):
        self.n_slots = 1 << 10
        self.n_texts = self.used = self.room = 0
        self.memory = NULL
        self.slots = <Slot*>calloc(self.n_slots, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)
        free(self.memory)

    def encode(self, const offset_t[::1] offsets, const uint8_t[::1] data, int32_t[::1] out):
        """out[t] = code of data[offsets[t] : offsets[t + 1]]."""
        cdef Py_ssize_t t, first, end = 0, n = out.shape[0]
        cdef int64_t length
        cdef uint32_t hashes[AHEAD]
        cdef Slot* slot
        cdef const uint8_t* texts = &data[0] if data.shape[0] else NULL
        if offsets.shape[0] <= n or (n and (offsets[0] < 0 or offsets[n] > data.shape[0])):
            raise ValueError("offsets and texts do not fit")
        with nogil:
            while end < n:
                first, end = end, min(end + AHEAD, n)
                for t in range(first, end):
                    hashes[t - first] = hash_of(texts + offsets[t], offsets[t + 1] - offsets[t])
                    PREFETCH(&self.slots[hashes[t - first] & (self.n_slots - 1)])
                for t in range(first, end):
                    slot = &self.slots[hashes[t - first] & (self.n_slots - 1)]
                    if slot.hash == hashes[t - first]:
                        PREFETCH(self.memory + slot.place)
                for t in range(first, end):
                    length = offsets[t + 1] - offsets[t]
                    out[t] = self.code_of(texts + offsets[t], length, hashes[t - first])
                    if out[t] < 0:
                        with gil:
                            raise MemoryError

    def texts(self):
        """The distinct texts, a list of str by code."""
        cdef int64_t place = 0, length
        texts = []
        while place < self.used:
            memcpy(&length, self.memory + place, LENGTH)
            place += LENGTH
            texts.append(self.memory[place:place + length].decode())
            place += length
        return texts

    cdef inline int32_t code_of(self, const uint8_t* text, int64_t n, uint32_t hashed) noexcept nogil:
        """The code of a text, a new one where it is new; -1 where memory is short."""
        cdef int64_t at = hashed & (self.n_slots - 1), length
        cdef const uint8_t* held
        while self.slots[at].code:
            if self.slots[at].hash == hashed:
                held = self.memory + self.slots[at].place
                memcpy(&length, held, LENGTH)
                if length == n and memcmp(held + LENGTH, text, n) == 0:
                    return self.slots[at].code - 1
            at = (at + 1) & (self.n_slots - 1)
        return self.add(text, n, hashed, at)

    cdef int32_t add(self, const uint8_t* text, int64_t n, uint32_t hashed, int64_t at) noexcept nogil:
        cdef int64_t needed = self.used + LENGTH + n
        cdef void* more
        if needed > self.room:
            more = realloc(self.memory, 2 * needed)
            if more == NULL:
                return -1
            self.memory = <uint8_t*>more
            self.room = 2 * needed
        self.n_texts += 1
        self.slots[at].place, self.slots[at].hash, self.slots[at].code = self.used, hashed, <int32_t>self.n_texts
        memcpy(self.memory + self.used, &n, LENGTH)
        memcpy(self.memory + self.used + LENGTH, text, n)
        self.used = needed
        if 3 * self.n_texts > 2 * self.n_slots and not self.grow():
            return -1
        return <int32_t>(self.n_texts - 1)

    cdef bint grow(self) noexcept nogil:
        cdef int64_t t, at, mask = 2 * self.n_slots - 1
        cdef Slot* larger = <Slot*>calloc(mask + 1, sizeof(Slot))
        if larger == NULL:
            return False
        for t in range(self.n_slots):
            if self.slots[t].code:
                at = self.slots[t].hash & mask
                while larger[at].code:
                    at = (at + 1) & mask
                larger[at] = self.slots[t]
        free(self.slots)
        self.slots = larger
        self.n_slots = mask + 1
        return True


cdef inline uint32_t hash_of(const uint8_t* text, int64_t n) noexcept nogil:
    """Eight bytes at a time through the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    cdef uint64_t x = n, word
    while n > 0:
        word = 0
        if n >= 8:
            memcpy(&word, text, 8)
        else:
            memcpy(&word, text, n)
        x = (x ^ word) * <uint64_t>0xBF58476D1CE4E5B9
        x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
        x ^= x >> 31
        text += 8
        n -= 8
    return <uint32_t>x
