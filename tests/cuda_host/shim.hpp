// The parts of CUDA that a source needs to be compiled as C++ and run on one CPU thread. shim.cpp
// says how it runs.
// Not here: dynamic shared memory, textures, cooperative groups, inline PTX.
#pragma once
#define ON_HOST 1
#include <stdint.h>
#include <string.h>

// The functions of <math.h> that the kernels use. The header alone takes half of the time to
// compile them.
#define sqrtf __builtin_sqrtf
#define fabsf __builtin_fabsf
#define fmaxf __builtin_fmaxf
#define fminf __builtin_fminf

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {
enum Kind { SHUFFLE, SYNCWARP };
extern uint3 thread, block, threads, blocks;  // of the CUDA thread that runs
uint64_t meet(Kind kind, unsigned mask, uint64_t value, int source);
int run(void (*kernel)(void**), void** arguments, unsigned n_blocks, unsigned n_threads,
        int resident, int order, uint64_t seed);

template <class T> T shuffled(unsigned mask, T value, int source) {
  uint64_t bits = 0;
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  memcpy(&bits, &value, sizeof(T));
  bits = meet(SHUFFLE, mask, bits, source);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace host

#define threadIdx (host::thread)
#define blockIdx (host::block)
#define blockDim (host::threads)
#define gridDim (host::blocks)
#define LANE ((int)(host::thread.x % 32))
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  return host::shuffled(mask, v, (LANE & ~(width - 1)) + (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  int source = LANE ^ bits;
  return host::shuffled(mask, v, source >= (LANE & ~(width - 1)) + width ? LANE : source);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
  int source = LANE + (int)by;
  return host::shuffled(mask, v, source >= (LANE & ~(width - 1)) + width ? LANE : source);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) { host::meet(host::SYNCWARP, mask, 0, 0); }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }

// Halves without _Float16, which not every compiler has: to nearest, ties to even.
inline float to_float(unsigned short h) {
  int exponent = h >> 10 & 31, fraction = h & 0x3ff;
  float implicit = exponent ? 1024.0f : 0.0f;
  float size = __builtin_ldexpf(fraction + implicit, (exponent ? exponent : 1) - 25);
  if (exponent == 31) size = fraction ? __builtin_nanf("") : __builtin_inff();
  return h >> 15 ? -size : size;
}
inline unsigned short to_half(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return (unsigned short)(sign | 0x7fff);
  if (size >= 0x477ff000) return (unsigned short)(sign | 0x7c00);
  if (size < 0x33000001) return (unsigned short)sign;
  uint32_t exponent = size >> 23, fraction = (size & 0x7fffff) | 0x800000;
  uint32_t shift = exponent < 113 ? 126 - exponent : 13;
  uint32_t half = 1u << (shift - 1), rest = fraction & ((1u << shift) - 1);
  uint32_t h = (exponent < 113 ? 0 : (exponent - 113) << 10) + (fraction >> shift);
  return (unsigned short)(sign | (h + (rest > half || (rest == half && (h & 1)))));
}

namespace host {
template <int... I> struct Indices {};
template <int N, int... I> struct Count : Count<N - 1, N - 1, I...> {};
template <int... I> struct Count<0, I...> { typedef Indices<I...> type; };
template <class... A, int... I> void call(void (*kernel)(A...), void** a, Indices<I...>) {
  kernel(*(A*)a[I]...);
}
template <class... A> void call(void (*kernel)(A...), void** a) {
  call(kernel, a, typename Count<sizeof...(A)>::type());
}
}  // namespace host

#define LAUNCHABLE(kernel)                                                                 \
  static void kernel##_call(void** a) { host::call(kernel, a); }                           \
  extern "C" int kernel##_run(void** a, unsigned blocks, unsigned threads, int resident,   \
                              int order, uint64_t seed) {                                  \
    return host::run(kernel##_call, a, blocks, threads, resident, order, seed);            \
  }
