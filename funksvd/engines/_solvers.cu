// What all CUDA kernels share: rows in memory, sums over a warp, and the solvers. gpu.py puts this text before that of
// _sgd.cu or _minibatch.cu and compiles it for one model, with -D for N_FACTORS (values in a row), LANES, HALF and SOLVER.
// There is no #include: NVRTC then needs no headers, and tests/cuda_host compiles the same text as C++, runs it on a CPU.
//
// LANES lanes share a rating, a warp works on AT_ONCE ratings at once. Lane `sub` of a group holds the 16-byte slots sub,
// sub + LANES, ... of a row. All 32 lanes take every branch with a shuffle in it together, so this also holds on cards
// whose lanes cannot part (before Volta).
//
// Rows and solver state are read with __ldcg: L1 is not coherent between SMs, and a plain load could keep an old popular
// row for a whole launch. What is read once is read with __ldcs. Offsets are 64-bit.

#define ALL 0xffffffffu
#define TINY 1e-30f

#define SGD 0
#define MOMENTUM 1
#define ADAGRAD_ROW 2
#define ADAGRAD 3
#define ADAM 4
#define ADAMAX 5
#if SOLVER == ADAM || SOLVER == ADAMAX
#define STATES 2  // numbers of state for each factor
#elif SOLVER == MOMENTUM || SOLVER == ADAGRAD
#define STATES 1
#else
#define STATES 0
#endif

#if HALF
typedef unsigned short stored;  // the bits of an IEEE half; arithmetic and solver state are float
#define VEC 8
#else
typedef float stored;
#define VEC 4
#endif
#define SLOTS ((N_FACTORS + VEC - 1) / VEC)
#define STRIDE ((N_FACTORS + 7) / 8 * 8)  // as the CPU's rows, zero padded
#define STATE_STRIDE (STATES * STRIDE)
#define OWN ((SLOTS + LANES - 1) / LANES)  // slots of a lane
#define AT_ONCE (32 / LANES)

struct Hyper {  // of one side
  float rate, l2, l1, l2_bias, l1_bias, low, momentum, beta_1, beta_2, fresh_1, fresh_2, epsilon;
};

struct Constants {
  float mean;
  Hyper run, gathered;
};

// ---------------------------------------------------------------------------------------------- rows

__device__ __forceinline__ unsigned mix(unsigned h) {  // counter -> random bits (Wellons' lowbias32)
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
}

#if HALF
#ifndef ON_HOST
__device__ __forceinline__ float to_float(unsigned short h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}

__device__ __forceinline__ unsigned short to_half(float f) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
#endif

// Up or down to a neighbour, with the chances that make the mean f: rounding to the nearest would lose every step
// smaller than half a unit of the last place.
__device__ __forceinline__ unsigned rounded(float f, unsigned random16) {
  unsigned short h = to_half(f);
  const float nearest = fabsf(to_float(h)), size = fabsf(f);
  if (nearest != size && size < 65504.0f) {
    const unsigned short low = nearest > size ? (unsigned short)(h - 1) : h, high = (unsigned short)(low + 1);
    const float below = fabsf(to_float(low)), above = fabsf(to_float(high));
    h = (float)random16 * (1.0f / 65536.0f) * (above - below) < size - below ? high : low;
  }
  return h;
}
#endif

__device__ __forceinline__ void load_slot(const stored* row, int slot, float* x) {
#if HALF
  const uint4 w = __ldcg((const uint4*)(row + slot * VEC));
  const unsigned a[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    x[2 * j] = to_float((unsigned short)(a[j] & 0xffffu));
    x[2 * j + 1] = to_float((unsigned short)(a[j] >> 16));
  }
#else
  const float4 w = __ldcg((const float4*)(row + slot * VEC));
  x[0] = w.x, x[1] = w.y, x[2] = w.z, x[3] = w.w;
#endif
}

__device__ __forceinline__ void store_slot(stored* row, int slot, const float* x, unsigned random) {
#if HALF
  unsigned a[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const unsigned bits = mix(random + (unsigned)(slot * 4 + j) * 0x9e3779b9u);
    a[j] = rounded(x[2 * j], bits & 0xffffu) | (rounded(x[2 * j + 1], bits >> 16) << 16);
  }
  const uint4 w = {a[0], a[1], a[2], a[3]};
  *(uint4*)(row + slot * VEC) = w;
#else
  const float4 w = {x[0], x[1], x[2], x[3]};
  *(float4*)(row + slot * VEC) = w;
#endif
}

// A slot's states: z[0][v] and, where the solver keeps two, z[1][v].
__device__ __forceinline__ void load_states(const float* state, int slot, float (*z)[VEC]) {
#pragma unroll
  for (int s = 0; s < STATES; ++s)
#pragma unroll
    for (int v = 0; v < VEC; v += 4) {
      const float4 w = __ldcg((const float4*)(state + s * STRIDE + slot * VEC + v));
      z[s][v] = w.x, z[s][v + 1] = w.y, z[s][v + 2] = w.z, z[s][v + 3] = w.w;
    }
}

__device__ __forceinline__ void store_states(float* state, int slot, const float (*z)[VEC]) {
#pragma unroll
  for (int s = 0; s < STATES; ++s)
#pragma unroll
    for (int v = 0; v < VEC; v += 4) {
      const float4 w = {z[s][v], z[s][v + 1], z[s][v + 2], z[s][v + 3]};
      *(float4*)(state + s * STRIDE + slot * VEC + v) = w;
    }
}

// Butterflies: a fixed order, and every lane ends with the same bits.
__device__ __forceinline__ float sum_in_group(float v) {
#pragma unroll
  for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);
  return v;
}

template <class T>
__device__ __forceinline__ T sum_over_groups(T v) {
#pragma unroll
  for (int o = LANES; o < 32; o <<= 1) v += __shfl_xor_sync(ALL, v, o);
  return v;
}

// ---------------------------------------------------------------------------------------------- solvers
// As in _solvers.pxi, whose comments state each rule. `extra` is a row's clocks (x, y) and its bias' states (z, w).

// What a step wants its push multiplied by beforehand.
__device__ __forceinline__ float gain(float rate) { return SOLVER == SGD || SOLVER == ADAGRAD_ROW ? rate : 1.0f; }

// What a step wants to know of a penalty of l2 (times the ratings that ask for it).
__device__ __forceinline__ float shrinkage(float rate, float l2) {
  return SOLVER == SGD || SOLVER == ADAGRAD_ROW ? 1.0f - rate * l2 : l2;
}

// One more step of a row.
__device__ __forceinline__ void tick(const Hyper& h, float4& extra) {
  if (SOLVER == ADAM || SOLVER == ADAMAX) extra.x = fmaxf(extra.x * h.beta_1, TINY);
  if (SOLVER == ADAM) extra.y = fmaxf(extra.y * h.beta_2, TINY);
}

// A row's rate; the clocks hold beta^t, or ADAGRAD_ROW's accumulator.
__device__ __forceinline__ float scaled_rate(const Hyper& h, float clock_1, float clock_2) {
  if (SOLVER == ADAGRAD_ROW) return h.rate / sqrtf(clock_1 + h.epsilon);
  if (SOLVER == ADAM) return h.rate * sqrtf(1.0f - clock_2) / (1.0f - clock_1);
  if (SOLVER == ADAMAX) return h.rate / (1.0f - clock_1);
  return h.rate;
}

// x after one step: `push` is minus the gradient of the loss times `gain`, `shrink` what `shrinkage` gave; a and b are
// its states.
__device__ __forceinline__ float step(const Hyper& h, float shrink, float rate, float x, float push, float& a, float& b) {
  if (SOLVER == SGD || SOLVER == ADAGRAD_ROW) return x * shrink + push;
  const float g = x * shrink - push;
  if (SOLVER == MOMENTUM) {
    a = h.momentum * a - rate * g;
    return x + a;
  }
  if (SOLVER == ADAGRAD) {
    a += g * g;
    return x - rate * g / sqrtf(a + h.epsilon);
  }
  b = SOLVER == ADAM ? b + (g * g - b) * h.fresh_2 : fmaxf(h.beta_2 * b, fabsf(g));
  a += (g - a) * h.fresh_1;
  return x - rate * a / ((SOLVER == ADAM ? sqrtf(b) : b) + h.epsilon);
}

// How far the last step went for a gradient of 1: L1's threshold is that times l1.
__device__ __forceinline__ float reach(const Hyper& h, float rate, float a, float b) {
  if (SOLVER == ADAGRAD) return rate / sqrtf(a + h.epsilon);
  if (SOLVER == ADAM) return rate / (sqrtf(b) + h.epsilon);
  if (SOLVER == ADAMAX) return rate / (b + h.epsilon);
  return rate;
}

// The soft threshold of L1, then the lower bound.
__device__ __forceinline__ float proximal(float x, float threshold, float low) {
  return fmaxf(fmaxf(x - threshold, 0.0f) + fminf(x + threshold, 0.0f), low);
}
