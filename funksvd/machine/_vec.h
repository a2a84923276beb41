/* Vectors for the kernels. setup.py builds every kernel that includes this file twice: with
   REAL = float, REAL_BYTES = 4 and with REAL = double, REAL_BYTES = 8. */

#ifndef FUNKSVD_VEC_H
#define FUNKSVD_VEC_H

#include <math.h>

#include "_prefetch.h"

#if REAL_BYTES == 4
#define REAL_SQRT sqrtf
#else
#define REAL_SQRT sqrt
#endif

/* Whether the compiler knows the value. Code under `if (KNOWN(x))` vanishes where it does not.
   FUNKSVD_SCALAR leaves out what other compilers lack, so that gcc tests their way. */
#if defined(__GNUC__) && !defined(FUNKSVD_SCALAR)
#define KNOWN(value) __builtin_constant_p(value)
#else
#define KNOWN(value) 0
#endif

/* A `vec` is LANES neighbouring factors as one value, in a vector register of the target. Where the
   compiler has no vector types it is one factor, and the kernels become scalar ones. may_alias: the
   arrays are allocated as REAL. */
#if defined(__GNUC__) && !defined(FUNKSVD_SCALAR)
#if defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))
typedef REAL vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef REAL loose_vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#if REAL_BYTES == 4
typedef unsigned mask __attribute__((vector_size(VECTOR_BYTES)));
#else
typedef unsigned long long mask __attribute__((vector_size(VECTOR_BYTES)));
#endif
#ifndef SHUFFLE  /* gcc before 12 */
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (mask){__VA_ARGS__})
#endif

/* lane_sums4(s0, ..., s3, out) and lane_sums8(s0, ..., s7, out) set out[j] to the sum of the lanes
   of s_j. They transpose and add at once: each fold halves the number of vectors. lane_sum(s) is
   the sum of the lanes of one vector. */
#if VECTOR_BYTES == 32 && REAL_BYTES == 4
static inline vec fold8(vec a, vec b) {
    return SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
}
static inline vec fold4(vec a, vec b) {
    return SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
}
static inline vec fold2(vec a, vec b) {
    return SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
}
static inline void lane_sums4(vec s0, vec s1, vec s2, vec s3, REAL *out) {
    vec a = fold4(fold8(s0, s1), fold8(s2, s3));
    *(loose_vec *)out = fold2(a, a);
}
static inline void lane_sums8(vec s0, vec s1, vec s2, vec s3, vec s4, vec s5, vec s6, vec s7,
                              REAL *out) {
    vec a = fold4(fold8(s0, s1), fold8(s2, s3));
    vec b = fold4(fold8(s4, s5), fold8(s6, s7));
    *(loose_vec *)out = fold2(a, b);
}
static inline REAL lane_sum(vec s) {
    s += SHUFFLE(s, s, 4, 5, 6, 7, 0, 1, 2, 3);
    s += SHUFFLE(s, s, 2, 3, 0, 1, 6, 7, 4, 5);
    return s[0] + s[1];
}
#elif VECTOR_BYTES == 4 * REAL_BYTES
static inline void lane_sums4(vec s0, vec s1, vec s2, vec s3, REAL *out) {
    vec a = SHUFFLE(s0, s1, 0, 4, 1, 5) + SHUFFLE(s0, s1, 2, 6, 3, 7);
    vec b = SHUFFLE(s2, s3, 0, 4, 1, 5) + SHUFFLE(s2, s3, 2, 6, 3, 7);
    *(loose_vec *)out = SHUFFLE(a, b, 0, 1, 4, 5) + SHUFFLE(a, b, 2, 3, 6, 7);
}
static inline REAL lane_sum(vec s) { return (s[0] + s[2]) + (s[1] + s[3]); }
#else
static inline void lane_sums4(vec s0, vec s1, vec s2, vec s3, REAL *out) {
    *(loose_vec *)out = SHUFFLE(s0, s1, 0, 2) + SHUFFLE(s0, s1, 1, 3);
    *(loose_vec *)(out + 2) = SHUFFLE(s2, s3, 0, 2) + SHUFFLE(s2, s3, 1, 3);
}
static inline REAL lane_sum(vec s) { return s[0] + s[1]; }
#endif

static inline vec vec_splat(REAL x) { return (vec){0} + x; }
static inline REAL vec_first(vec x) { return x[0]; }

#if defined(__SSE2__)  /* the instruction itself: compilers miss it in some loops over lanes */
#if VECTOR_BYTES == 32 && REAL_BYTES == 4
#define LANEWISE(name) __builtin_ia32_##name##ps256
#elif VECTOR_BYTES == 32
#define LANEWISE(name) __builtin_ia32_##name##pd256
#elif REAL_BYTES == 4
#define LANEWISE(name) __builtin_ia32_##name##ps
#else
#define LANEWISE(name) __builtin_ia32_##name##pd
#endif
static inline vec vec_sqrt(vec x) { return LANEWISE(sqrt)(x); }
static inline vec vec_max(vec x, vec y) { return LANEWISE(max)(x, y); }
static inline vec vec_min(vec x, vec y) { return LANEWISE(min)(x, y); }
#else
static inline vec vec_sqrt(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = REAL_SQRT(x[i]);
    return x;
}
static inline vec vec_max(vec x, vec y) {
    for (int i = 0; i < LANES; i++) x[i] = x[i] > y[i] ? x[i] : y[i];
    return x;
}
static inline vec vec_min(vec x, vec y) {
    for (int i = 0; i < LANES; i++) x[i] = x[i] < y[i] ? x[i] : y[i];
    return x;
}
#endif
static inline vec vec_sign(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = (REAL)((x[i] > 0) - (x[i] < 0));
    return x;
}
static inline vec vec_abs(vec x) { return (vec)((mask)x << 1 >> 1); }
static inline vec vec_without_tiny(vec x, REAL least) {
    return (vec)((mask)x & ~(mask)(vec_abs(x) < vec_splat(least)));
}

#else
#define VECTOR_BYTES 0
#define LANES 1
typedef REAL vec, loose_vec;
static inline vec vec_splat(REAL x) { return x; }
static inline REAL vec_first(vec x) { return x; }
static inline vec vec_sqrt(vec x) { return REAL_SQRT(x); }
static inline vec vec_max(vec x, vec y) { return x > y ? x : y; }
static inline vec vec_min(vec x, vec y) { return x < y ? x : y; }
static inline vec vec_sign(vec x) { return (REAL)((x > 0) - (x < 0)); }
static inline vec vec_abs(vec x) { return x < 0 ? -x : x; }
static inline vec vec_without_tiny(vec x, REAL least) { return vec_abs(x) < least ? 0 : x; }
static inline void lane_sums4(vec s0, vec s1, vec s2, vec s3, REAL *out) {
    out[0] = s0; out[1] = s1; out[2] = s2; out[3] = s3;
}
static inline REAL lane_sum(vec s) { return s; }
#endif

/* Factors and solver states below these become 0 before they are subnormal numbers, which are slow;
   `engines/clearing.py` says why. */
#if REAL_BYTES == 4
#define LEAST_FACTOR 0x1p-50f
#define LEAST_STATE 0x1p-100f
#else
#define LEAST_FACTOR 0x1p-450
#define LEAST_STATE 0x1p-900
#endif

/* Vectors that hold the 8 numbers of a micro-batch. */
#define BATCH_VECS (8 / LANES)

/* Copies of `_sgd`'s loop for speed: 2 for all solvers, 1 for plain SGD, 0 none; see setup.py. */
#ifndef FUNKSVD_COPIES
#define FUNKSVD_COPIES 2
#endif

/* Set the lanes of out to from[index[j]] for j < size <= 8 and to zeros after them. The numbers do
   not pass through memory: the load of a vector that was stored in parts waits until all its parts
   are in the cache. */
static inline void gather(const REAL *from, const unsigned short *index, int size, vec *out) {
#define AT(j) ((j) < size ? from[index[j]] : 0)
#if VECTOR_BYTES == 8 * REAL_BYTES
    out[0] = (vec){AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), AT(6), AT(7)};
#elif VECTOR_BYTES == 4 * REAL_BYTES
    for (int j = 0; j < size; j += 4)
        out[j / 4] = (vec){AT(j), AT(j + 1), AT(j + 2), AT(j + 3)};
#elif VECTOR_BYTES == 2 * REAL_BYTES
    for (int j = 0; j < size; j += 2) out[j / 2] = (vec){AT(j), AT(j + 1)};
#else
    for (int j = 0; j < size; j++) out[j] = AT(j);
#endif
#undef AT
}

#if VECTOR_BYTES != 32 || REAL_BYTES != 4
static inline void lane_sums8(vec s0, vec s1, vec s2, vec s3, vec s4, vec s5, vec s6, vec s7,
                              REAL *out) {
    lane_sums4(s0, s1, s2, s3, out);
    lane_sums4(s4, s5, s6, s7, out + 4);
}
#endif

/* Set out[j] to the sum of the lanes of s[j] for j < size <= 8. Numbers after them, up to out[3] or
   out[7], mean nothing. */
static inline void lane_sums(const vec *s, int size, REAL *out) {
#define AT(j) s[(j) < size ? (j) : 0]
    if (size > 4)
        lane_sums8(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), AT(6), AT(7), out);
    else
        lane_sums4(AT(0), AT(1), AT(2), AT(3), out);
#undef AT
}

#endif
