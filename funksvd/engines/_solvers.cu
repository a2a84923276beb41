// The part that all CUDA kernels share: the solvers, rows in memory, and sums over a warp.
//
// cuda_source.py puts this text before that of _sgd.cu or _minibatch.cu and compiles it for one
// model, with these macros:
//   N_FACTORS  number of values in a row
//   LANES      lanes that share a rating, a power of two from 4 to 32
//   HALF       1: rows are stored as IEEE halves; 0: as floats
//   SOLVER     one of the names in SOLVERS below
//   RULE       the hyper-parameters of one side, a list of names
// There is no #include, so NVRTC needs no headers. tests/cuda_host compiles the same text as C++
// and runs it on a CPU.
//
// A warp works on AT_ONCE ratings at once, and LANES lanes share each of them. Lane `sub` of such a
// group holds the 16-byte slots sub, sub + LANES, ... of a row. All 32 lanes of a warp take every
// branch that contains a shuffle together, because before Volta the lanes cannot diverge there.
//
// Rows and solver state are read with __ldcg: the L1 caches of different multiprocessors are not
// coherent, so a plain load could keep an old copy of a popular row for a whole launch. Data that
// is read once is read with __ldcs. Offsets have 64 bits.

// ------------------------------------------------------------------------------ table of solvers

// X(name, numbers of state for each factor, whether `step` takes a push already times the rate).
// _solvers.pxi gives the formulas.
#define SOLVERS(X)         \
  X(SGD, 0, true)          \
  X(MOMENTUM, 1, false)    \
  X(ADAGRAD_ROW, 0, true)  \
  X(ADAGRAD, 1, false)     \
  X(ADAM, 2, false)        \
  X(ADAMAX, 2, false)

#define NAME_OF(name, states, by_rate) name,
#define STATES_OF(name, states, by_rate) SOLVER == name ? states:
#define BY_RATE_OF(name, states, by_rate) SOLVER == name ? by_rate:

enum Solver { SOLVERS(NAME_OF) };
constexpr int STATES = SOLVERS(STATES_OF) 0;
constexpr bool PUSH_BY_RATE = SOLVERS(BY_RATE_OF) false;

struct Hyper {  // of one side
  float RULE;
  float fresh_1, fresh_2;  // 1 - beta_1, 1 - beta_2, which the host computes in double precision
};

struct Constants {
  float mean;
  Hyper run, gathered;  // the side whose ratings lie in runs, and the other one
};

// ------------------------------------------------------------------------------ layout of a row

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
#define OWN ((SLOTS + LANES - 1) / LANES)  // slots of one lane
#define AT_ONCE (32 / LANES)

#define ALL 0xffffffffu       // the mask of all lanes of a warp
#define TINY 1e-30f           // the least value of a clock: subnormal numbers are slow on a CPU
#define FRACTION 0x9e3779b9u  // 2^32 / golden ratio: spreads consecutive counters

struct Lane {  // the place of a thread in its warp
  int sub;    // in its group
  int group;  // the number of the group
};

__device__ __forceinline__ Lane this_lane() {
  return {(int)(threadIdx.x % LANES), (int)(threadIdx.x % 32 / LANES)};
}

// -------------------------------------------------------------------------- stochastic rounding

// Turn a counter into random bits (the hash lowbias32 of C. Wellons).
__device__ __forceinline__ unsigned mix(unsigned h) {
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

// Round f up or down to a neighbouring half, with the probabilities that make the mean f. Rounding
// to the nearest half would lose every step smaller than half a unit of the last place: less than
// 30 % of the movement survived it, against 80 to 120 % here.
__device__ __forceinline__ unsigned rounded(float f, unsigned random16) {
  unsigned short h = to_half(f);
  const float nearest = fabsf(to_float(h));
  const float size = fabsf(f);
  if (nearest != size && size < 65504.0f) {
    const unsigned short low = nearest > size ? (unsigned short)(h - 1) : h;
    const unsigned short high = (unsigned short)(low + 1);
    const float below = fabsf(to_float(low));
    const float above = fabsf(to_float(high));
    const float uniform = (float)random16 * (1.0f / 65536.0f);
    h = uniform * (above - below) < size - below ? high : low;
  }
  return h;
}
#endif

// ----------------------------------------------------------------------- rows: load and store

// Read slot number `slot` of a row as VEC floats.
__device__ __forceinline__ void load_slot(const stored* row, int slot, float* x) {
#if HALF
  const uint4 w = __ldcg((const uint4*)(row + slot * VEC));
  const unsigned pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    x[2 * j] = to_float((unsigned short)(pairs[j] & 0xffffu));
    x[2 * j + 1] = to_float((unsigned short)(pairs[j] >> 16));
  }
#else
  const float4 w = __ldcg((const float4*)(row + slot * VEC));
  x[0] = w.x;
  x[1] = w.y;
  x[2] = w.z;
  x[3] = w.w;
#endif
}

// Write VEC floats to a slot; `random` seeds the rounding of halves.
__device__ __forceinline__ void store_slot(stored* row, int slot, const float* x, unsigned random) {
#if HALF
  unsigned pairs[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const unsigned bits = mix(random + (unsigned)(slot * 4 + j) * FRACTION);
    const unsigned even = rounded(x[2 * j], bits & 0xffffu);
    const unsigned odd = rounded(x[2 * j + 1], bits >> 16);
    pairs[j] = even | (odd << 16);
  }
  const uint4 w = {pairs[0], pairs[1], pairs[2], pairs[3]};
  *(uint4*)(row + slot * VEC) = w;
#else
  const float4 w = {x[0], x[1], x[2], x[3]};
  *(float4*)(row + slot * VEC) = w;
#endif
}

// Read a slot's states: z[0][v] and, where the solver keeps two, z[1][v].
__device__ __forceinline__ void load_states(const float* state, int slot, float (*z)[VEC]) {
#pragma unroll
  for (int s = 0; s < STATES; ++s)
#pragma unroll
    for (int v = 0; v < VEC; v += 4) {
      const float4 w = __ldcg((const float4*)(state + s * STRIDE + slot * VEC + v));
      z[s][v] = w.x;
      z[s][v + 1] = w.y;
      z[s][v + 2] = w.z;
      z[s][v + 3] = w.w;
    }
}

// Write a slot's states.
__device__ __forceinline__ void store_states(float* state, int slot, const float (*z)[VEC]) {
#pragma unroll
  for (int s = 0; s < STATES; ++s)
#pragma unroll
    for (int v = 0; v < VEC; v += 4) {
      const float4 w = {z[s][v], z[s][v + 1], z[s][v + 2], z[s][v + 3]};
      *(float4*)(state + s * STRIDE + slot * VEC + v) = w;
    }
}

// ------------------------------------------------------------------------------------- sums

// Both sums are butterflies: the order of the additions is fixed, and every lane ends with the
// same bits.

// Return the sum over the lanes that share a rating.
__device__ __forceinline__ float sum_in_group(float v) {
#pragma unroll
  for (int o = LANES / 2; o > 0; o >>= 1) v += __shfl_xor_sync(ALL, v, o);
  return v;
}

// Return the sum over the groups of a warp, of the values in lanes of equal place.
template <class T>
__device__ __forceinline__ T sum_over_groups(T v) {
#pragma unroll
  for (int o = LANES; o < 32; o <<= 1) v += __shfl_xor_sync(ALL, v, o);
  return v;
}

// ------------------------------------------------------------------------------- one step

// The functions below mirror those of _solvers.pxi. `extra` holds four numbers of a row: its clocks
// beta_1^t and beta_2^t (x, y) and the states of its bias (z, w). ADAGRAD_ROW keeps its accumulator
// in x.

// Return the factor that the caller must apply to `push` before calling `step`.
__device__ __forceinline__ float gain(float rate) { return PUSH_BY_RATE ? rate : 1.0f; }

// Return the argument `shrink` of `step`; `l2` is the penalty times the ratings that ask for it.
__device__ __forceinline__ float shrinkage(float rate, float l2) {
  return PUSH_BY_RATE ? 1.0f - rate * l2 : l2;
}

// Advance a row's clocks by one step.
__device__ __forceinline__ void tick(const Hyper& h, float4& extra) {
  if (SOLVER == ADAM || SOLVER == ADAMAX) extra.x = fmaxf(extra.x * h.beta_1, TINY);
  if (SOLVER == ADAM) extra.y = fmaxf(extra.y * h.beta_2, TINY);
}

// Return the learning rate of a row from its clocks (beta^t), or from ADAGRAD_ROW's accumulator.
__device__ __forceinline__ float scaled_rate(const Hyper& h, float clock_1, float clock_2) {
  if (SOLVER == ADAGRAD_ROW) return h.rate / sqrtf(clock_1 + h.epsilon);
  if (SOLVER == ADAM) return h.rate * sqrtf(1.0f - clock_2) / (1.0f - clock_1);
  if (SOLVER == ADAMAX) return h.rate / (1.0f - clock_1);
  return h.rate;
}

// Return x after one step and change its states a and b. `push` is minus the gradient of the loss,
// times `gain`; `shrink` is of `shrinkage`.
__device__ __forceinline__ float step(const Hyper& h, float shrink, float rate, float x, float push,
                                      float& a, float& b) {
  if (PUSH_BY_RATE) return x * shrink + push;
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

// Return the effective step size of the last update; the L1 threshold is l1 times this.
__device__ __forceinline__ float reach(const Hyper& h, float rate, float a, float b) {
  if (SOLVER == ADAGRAD) return rate / sqrtf(a + h.epsilon);
  if (SOLVER == ADAM) return rate / (sqrtf(b) + h.epsilon);
  if (SOLVER == ADAMAX) return rate / (b + h.epsilon);
  return rate;
}

// Return x after the soft threshold of L1, then after the lower bound.
__device__ __forceinline__ float proximal(float x, float threshold, float low) {
  return fmaxf(fmaxf(x - threshold, 0.0f) + fminf(x + threshold, 0.0f), low);
}
