/* Requests to load a cache line ahead of its use. They do nothing if the compiler lacks them. */

#ifndef FUNKSVD_PREFETCH_H
#define FUNKSVD_PREFETCH_H

#if defined(__GNUC__) && !defined(FUNKSVD_SCALAR)
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_WRITE(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH(address) ((void)0)
#define PREFETCH_WRITE(address) ((void)0)
#endif

#endif
