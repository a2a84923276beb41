# cython: language_level=3, freethreading_compatible=True
"""Codes for texts: the hash table behind ids that are text in files that pyarrow reads."""

import os

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy

include "../machine/_hash.pxi"

cdef extern from "../machine/_prefetch.h":
    void PREFETCH(const void*) nogil

ctypedef fused offset_t:
    int32_t
    int64_t

cdef struct Slot:
    int64_t place  # in `memory`, of the length of the slot's text; the text itself follows
    uint32_t hash
    int32_t code  # + 1; 0 where the slot is empty

cdef enum:
    FIRST_SLOTS = 1 << 10  # the number of slots is always a power of two
    TEXTS_IN_FLIGHT = 32  # texts whose slots are fetched from memory together
    LENGTH_BYTES = sizeof(int64_t)


cdef class TextCodes:
    """A table text -> code, numbered in order of appearance; for one thread at a time.

    Each table has a random key, without which nobody can make many texts with one hash, which would
    take time with the square of their number. No code depends on it.

    One table serves all batches of a column; Arrow's dictionary_encode makes one for each. Cache
    misses take most of the time, and here those of `TEXTS_IN_FLIGHT` texts overlap.
    """

    cdef Slot* slots
    cdef uint8_t* memory  # length and text of each code, one after another
    cdef int64_t n_slots, n_texts
    cdef uint64_t key  # of the hashes
    cdef int64_t n_used, n_room  # bytes of `memory`: in use, and in all

    def __cinit__(self):
        self.n_slots = FIRST_SLOTS
        self.key = int.from_bytes(os.urandom(sizeof(uint64_t)), "little")
        self.n_texts = 0
        self.n_used = 0
        self.n_room = 0
        self.memory = NULL
        self.slots = <Slot*>calloc(self.n_slots, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)
        free(self.memory)

    def encode(self, const offset_t[::1] offsets, const uint8_t[::1] data, int32_t[::1] out):
        """Write the codes of n texts; texts that are not in the table are added.

        Parameters
        ----------
        offsets : (n + 1,) int32 or int64
            Text t is data[offsets[t] : offsets[t + 1]].
        data : (n_bytes,) uint8
            The texts in UTF-8, one after another.
        out : (n,) int32
            Text t's code is written to out[t].

        Raises
        ------
        ValueError
            If a text does not lie within `data`, or has a negative length.
        """
        cdef Py_ssize_t t, first, end = 0, n = out.shape[0]
        cdef uint32_t hashes[TEXTS_IN_FLIGHT]
        cdef Slot* slot
        cdef const uint8_t* texts = &data[0] if data.shape[0] else NULL
        cdef Py_ssize_t size = data.shape[0]
        if offsets.shape[0] <= n or (n and offsets[0] < 0):
            raise ValueError("offsets and texts do not fit")
        with nogil:
            while end < n:
                first = end
                end = min(end + TEXTS_IN_FLIGHT, n)
                # Fetch the slots,
                for t in range(first, end):
                    if offsets[t + 1] < offsets[t] or offsets[t + 1] > size:
                        with gil:
                            raise ValueError("offsets and texts do not fit")
                    hashes[t - first] = hash_of(
                        texts + offsets[t], offsets[t + 1] - offsets[t], self.key
                    )
                    PREFETCH(&self.slots[hashes[t - first] & (self.n_slots - 1)])
                # then the texts that probably match,
                for t in range(first, end):
                    slot = &self.slots[hashes[t - first] & (self.n_slots - 1)]
                    if slot.hash == hashes[t - first]:
                        PREFETCH(self.memory + slot.place)
                # and look the texts up when both have come from memory.
                for t in range(first, end):
                    out[t] = self.code_of(
                        texts + offsets[t], offsets[t + 1] - offsets[t], hashes[t - first]
                    )
                    if out[t] < 0:
                        with gil:
                            raise MemoryError

    def texts(self):
        """Return the distinct texts, a list of str in order of their codes."""
        cdef int64_t place = 0, length
        texts = []
        while place < self.n_used:
            memcpy(&length, self.memory + place, LENGTH_BYTES)
            place += LENGTH_BYTES
            texts.append(self.memory[place:place + length].decode())
            place += length
        return texts

    cdef inline int32_t code_of(
        self, const uint8_t* text, int64_t n, uint32_t hashed
    ) noexcept nogil:
        """Return the code of a text of n bytes, which may be new; -1 if memory is short."""
        cdef int64_t at = hashed & (self.n_slots - 1), length
        cdef const uint8_t* held
        while self.slots[at].code:
            if self.slots[at].hash == hashed:
                held = self.memory + self.slots[at].place
                memcpy(&length, held, LENGTH_BYTES)
                if length == n and memcmp(held + LENGTH_BYTES, text, n) == 0:
                    return self.slots[at].code - 1
            at = (at + 1) & (self.n_slots - 1)
        return self.add(text, n, hashed, at)

    cdef int32_t add(
        self, const uint8_t* text, int64_t n, uint32_t hashed, int64_t at
    ) noexcept nogil:
        """Put a new text into the empty slot `at` and return its code; -1 if memory is short."""
        cdef int64_t needed = self.n_used + LENGTH_BYTES + n
        cdef void* more
        if needed > self.n_room:
            more = realloc(self.memory, 2 * needed)
            if more == NULL:
                return -1
            self.memory = <uint8_t*>more
            self.n_room = 2 * needed
        self.n_texts += 1
        self.slots[at].place = self.n_used
        self.slots[at].hash = hashed
        self.slots[at].code = <int32_t>self.n_texts
        memcpy(self.memory + self.n_used, &n, LENGTH_BYTES)
        memcpy(self.memory + self.n_used + LENGTH_BYTES, text, n)
        self.n_used = needed
        if 3 * self.n_texts > 2 * self.n_slots and not self.grow():
            return -1
        return <int32_t>(self.n_texts - 1)

    cdef bint grow(self) noexcept nogil:
        """Double the number of slots; return False if memory is short."""
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


cdef inline uint32_t hash_of(const uint8_t* text, int64_t n, uint64_t key) noexcept nogil:
    """Return the hash of a text of n bytes: a key, then eight bytes at a time, through SplitMix64.

    Codes are numbered in order of appearance, so no result depends on the hash.
    """
    cdef uint64_t x = key ^ <uint64_t>n
    cdef uint64_t word
    while n > 0:
        word = 0
        if n >= 8:
            memcpy(&word, text, 8)
        else:
            memcpy(&word, text, n)
        x = mix_without_first_shift(x ^ word)
        text += 8
        n -= 8
    return <uint32_t>x
