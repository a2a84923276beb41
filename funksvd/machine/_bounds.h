/* Checks of indices behind pointers, where Cython's own bounds checks do not reach. They are there
   in a debug build (FUNKSVD_DEBUG=1) alone; otherwise they are nothing, and cost nothing. */

#ifndef FUNKSVD_BOUNDS_H
#define FUNKSVD_BOUNDS_H

#ifdef FUNKSVD_DEBUG
#include <stdio.h>
#include <stdlib.h>

static inline void funksvd_check_inside(long long at, long long n, const char *file, int line) {
    if (at < 0 || at >= n) {
        fprintf(stderr, "%s:%d: the index %lld is not below %lld\n", file, line, at, n);
        abort();
    }
}

#define CHECK_INSIDE(at, n) \
    funksvd_check_inside((long long)(at), (long long)(n), __FILE__, __LINE__)
#else
#define CHECK_INSIDE(at, n) ((void)0)
#endif

#endif
