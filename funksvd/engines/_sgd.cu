// CUDA kernels of one rating at a time: the rules of _sgd.pyx, one warp to a block of the grid. Compiled behind
// _solvers.cu, with -D for BIASED, WEIGHTED and PROXIMAL.
//
// The unit of work is the CPU's micro-batch: up to 8 ratings of one run, in ROUNDS rounds. Every group of lanes holds the
// whole row of the run.

#define MICRO_BATCH 8
#define NO_BOUND (-3.4e38f)
#define N_VALUES (float)(N_FACTORS + BIASED)  // of a row
#define ROUNDS (MICRO_BATCH / AT_ONCE)
#define IN_REGISTERS (ROUNDS * OWN * VEC * (1 + STATES) <= 64)  // else gathered rows are read again for their step
#define UNROLLED (IN_REGISTERS ? ROUNDS : 1)
#define KEPT(array, c, n) array[IN_REGISTERS ? c : 0][IN_REGISTERS ? n : 0]

struct Task {  // a block: where its ratings and runs begin, how many runs, the row of the gathered side's index 0
  long long rating, run;
  int runs, gathered, block, unused;
};

struct Side {  // extra: for each row its clocks (ADAGRAD_ROW: its accumulator), then the states of its bias
  stored* factors;
  float *biases, *state;
  float4* extra;
};

__device__ __forceinline__ float predicted(float mean, float bias, float other_bias, float dot) {
  return mean + (bias + other_bias) + dot;
}

// One slot after m ratings; `push` as `step` wants it.
__device__ __forceinline__ void step_slot(const Hyper& h, int m, float rate, float* x, const float* push, float (*z)[VEC]) {
  float none[2] = {0.0f, 0.0f};
  const float shrink = shrinkage(rate, (float)m * h.l2);
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    float &a = STATES > 0 ? z[0][v] : none[0], &b = STATES > 1 ? z[STATES - 1][v] : none[1];
    x[v] = step(h, shrink, rate, x[v], push[v], a, b);
#if PROXIMAL
    x[v] = proximal(x[v], (float)m * h.l1 * reach(h, rate, a, b), h.low);
#endif
  }
}

// A bias after the summed gradient of m ratings.
__device__ __forceinline__ float bias_step(const Hyper& h, int m, float rate, float x, float push, float4& extra) {
  x = step(h, shrinkage(rate, (float)m * h.l2_bias), rate, x, gain(rate) * push, extra.z, extra.w);
#if PROXIMAL
  x = proximal(x, (float)m * h.l1_bias * reach(h, rate, extra.z, extra.w), NO_BOUND);
#endif
  return x;
}

// ---------------------------------------------------------------------------------------------- one block

struct Block {  // the arrays of all blocks, or of those that are on the card
  const int* run_row;
  const unsigned* run_end;
  const unsigned short* index;
  const float *rating, *weight;
};

// Every run of a block in its order; returns this group's sum of squared errors, each seen before its own step.
template <bool TRAIN>
__device__ __forceinline__ double walk(const Task& task, const Block& data, const Side& runs, const Side& gathered,
                                       const Constants& h, unsigned seed) {
  const int sub = threadIdx.x % LANES, group = threadIdx.x / LANES;
  const int* const run_row = data.run_row + task.run;
  const unsigned* const run_end = data.run_end + task.run;
  const unsigned short* const index = data.index + task.rating;
  const float* const rating = data.rating + task.rating;
#if WEIGHTED
  const float* const weight = data.weight + task.rating;
#endif
  double squares = 0.0;
  unsigned t = 0;
  // The next micro-batch begins where this one ends, so its indices and ratings can be on their way during this one.
  // Reads past the block but never past the arrays, which have 8 more entries.
  int next_index[ROUNDS];
  float next_rating[ROUNDS];
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c) {
    next_index[c] = __ldcs(index + (c * AT_ONCE + group));
    next_rating[c] = __ldcs(rating + (c * AT_ONCE + group));
  }
  int next_row = __ldcs(run_row);
  unsigned next_end = __ldcs(run_end);
  for (int r = 0; r < task.runs; ++r) {
    const int row = next_row;
    const unsigned end = next_end;
    if (r + 1 < task.runs) {
      next_row = __ldcs(run_row + r + 1);
      next_end = __ldcs(run_end + r + 1);
    }
    stored* const p_row = runs.factors + (long long)row * STRIDE;
    float* const p_state = runs.state + (long long)row * STATE_STRIDE;
    float p[OWN][VEC], p_bias = __ldcg(runs.biases + row);
    float p_states[OWN][STATES + 1][VEC];
    float4 p_extra = {0.0f, 0.0f, 0.0f, 0.0f};
    if (TRAIN && SOLVER != SGD) p_extra = __ldcg(runs.extra + row);
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
#pragma unroll
      for (int v = 0; v < VEC; ++v) p[n][v] = 0.0f;
      if (n * LANES + sub < SLOTS) {
        load_slot(p_row, n * LANES + sub, p[n]);
        if (TRAIN) load_states(p_state, n * LANES + sub, p_states[n]);
      }
    }
    while (t < end) {
      const int m = end - t < MICRO_BATCH ? (int)(end - t) : MICRO_BATCH;
      int at[ROUNDS];
      float e[ROUNDS], b[ROUNDS], dot[ROUNDS];
      float q[IN_REGISTERS ? ROUNDS : 1][IN_REGISTERS ? OWN : 1][VEC];
      float q_states[IN_REGISTERS ? ROUNDS : 1][IN_REGISTERS ? OWN : 1][STATES + 1][VEC];
      float4 q_extra[ROUNDS];
#pragma unroll
      for (int c = 0; c < ROUNDS; ++c) {
        at[c] = task.gathered + next_index[c];
        e[c] = next_rating[c];
        next_index[c] = __ldcs(index + (t + m + c * AT_ONCE + group));
        next_rating[c] = __ldcs(rating + (t + m + c * AT_ONCE + group));
      }

      // Dot products.
#pragma unroll UNROLLED
      for (int c = 0; c < ROUNDS; ++c) {
        const bool mine = c * AT_ONCE + group < m;
        dot[c] = 0.0f;
        b[c] = mine ? __ldcg(gathered.biases + at[c]) : 0.0f;
        q_extra[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (TRAIN && SOLVER != SGD && mine) q_extra[c] = __ldcg(gathered.extra + at[c]);
#pragma unroll
        for (int n = 0; n < OWN; ++n) {
          const int slot = n * LANES + sub;
#pragma unroll
          for (int v = 0; v < VEC; ++v) KEPT(q, c, n)[v] = 0.0f;
          if (mine && slot < SLOTS) {
            load_slot(gathered.factors + (long long)at[c] * STRIDE, slot, KEPT(q, c, n));
            if (TRAIN && IN_REGISTERS) load_states(gathered.state + (long long)at[c] * STATE_STRIDE, slot, KEPT(q_states, c, n));
          }
#pragma unroll
          for (int v = 0; v < VEC; ++v) dot[c] += p[n][v] * KEPT(q, c, n)[v];
        }
      }

      // Errors.
      float total = 0.0f;
#pragma unroll
      for (int c = 0; c < ROUNDS; ++c) {
        const bool mine = c * AT_ONCE + group < m;
        e[c] -= predicted(h.mean, p_bias, b[c], sum_in_group(dot[c]));
        if (!mine) e[c] = 0.0f;
#if WEIGHTED
        const float w = mine ? __ldcs(weight + (t + c * AT_ONCE + group)) : 0.0f;
        squares += (double)(w * e[c] * e[c]);
        e[c] *= w;
#else
        squares += (double)(e[c] * e[c]);
#endif
        total += e[c];
      }

      if (TRAIN) {
        // Clocks and rates of the rows.
        float rate[ROUNDS];
#pragma unroll
        for (int c = 0; c < ROUNDS; ++c) {
          tick(h.gathered, q_extra[c]);
          rate[c] = scaled_rate(h.gathered, q_extra[c].x, q_extra[c].y);
        }
        tick(h.run, p_extra);
        const float p_rate = scaled_rate(h.run, p_extra.x, p_extra.y);
        float p_square = 0.0f, push_square = 0.0f;
        if (SOLVER == ADAGRAD_ROW) {
#pragma unroll
          for (int n = 0; n < OWN; ++n)
#pragma unroll
            for (int v = 0; v < VEC; ++v) p_square += p[n][v] * p[n][v];
          p_square = sum_in_group(p_square);
        }

        // Biases.
        total = sum_over_groups(total);
#if BIASED
#pragma unroll
        for (int c = 0; c < ROUNDS; ++c) {
          b[c] = bias_step(h.gathered, 1, rate[c], b[c], e[c], q_extra[c]);
          if (sub == 0 && c * AT_ONCE + group < m) gathered.biases[at[c]] = b[c];
        }
        p_bias = bias_step(h.run, m, p_rate, p_bias, total, p_extra);
#endif

        // Factors: both old values are read before either is written.
        float push[OWN][VEC], q_push[VEC];
#pragma unroll
        for (int n = 0; n < OWN; ++n)
#pragma unroll
          for (int v = 0; v < VEC; ++v) push[n][v] = 0.0f;
#pragma unroll UNROLLED
        for (int c = 0; c < ROUNDS; ++c) {
          stored* const q_row = gathered.factors + (long long)at[c] * STRIDE;
          float* const q_state = gathered.state + (long long)at[c] * STATE_STRIDE;
#pragma unroll
          for (int n = 0; n < OWN; ++n) {
            const int slot = n * LANES + sub;
            if (c * AT_ONCE + group >= m || slot >= SLOTS) continue;
            if (!IN_REGISTERS) {
              load_slot(q_row, slot, KEPT(q, c, n));
              load_states(q_state, slot, KEPT(q_states, c, n));
            }
#pragma unroll
            for (int v = 0; v < VEC; ++v) {
              push[n][v] += e[c] * KEPT(q, c, n)[v];
              q_push[v] = gain(rate[c]) * e[c] * p[n][v];
            }
            step_slot(h.gathered, 1, rate[c], KEPT(q, c, n), q_push, KEPT(q_states, c, n));
            store_slot(q_row, slot, KEPT(q, c, n), mix(seed + 2 * (t + c * AT_ONCE + group)));
            store_states(q_state, slot, KEPT(q_states, c, n));
          }
        }
#pragma unroll
        for (int n = 0; n < OWN; ++n) {
#pragma unroll
          for (int v = 0; v < VEC; ++v) {
            push[n][v] = sum_over_groups(push[n][v]);
            if (SOLVER == ADAGRAD_ROW) push_square += push[n][v] * push[n][v];
            push[n][v] *= gain(p_rate);
          }
          if (n * LANES + sub < SLOTS) step_slot(h.run, m, p_rate, p[n], push[n], p_states[n]);
        }

        // Clocks of the gathered rows and states of their biases go back.
        if (SOLVER == ADAGRAD_ROW) p_extra.x += (sum_in_group(push_square) + BIASED * total * total) / N_VALUES;
#pragma unroll
        for (int c = 0; c < ROUNDS; ++c) {
          if (SOLVER == ADAGRAD_ROW) q_extra[c].x += e[c] * e[c] * (p_square + BIASED) / N_VALUES;
          if (SOLVER != SGD && sub == 0 && c * AT_ONCE + group < m) gathered.extra[at[c]] = q_extra[c];
        }
      }
      t += m;
    }
    if (TRAIN) {
      if (group == 0) {
#pragma unroll
        for (int n = 0; n < OWN; ++n)
          if (n * LANES + sub < SLOTS) {
            store_slot(p_row, n * LANES + sub, p[n], mix(seed + 2 * t + 1));
            store_states(p_state, n * LANES + sub, p_states[n]);
          }
        if (sub == 0) {
          if (BIASED) runs.biases[row] = p_bias;
          if (SOLVER != SGD) runs.extra[row] = p_extra;
        }
      }
      __syncwarp(ALL);  // the next run may meet the same rows in other lanes
    }
  }
  return squares;
}

// Tasks order[c], order[c + gridDim.x], ... by warp c. A task's sum of squared errors goes to out[its block].
template <bool TRAIN>
__device__ __forceinline__ void walk_all(const Task* tasks, const int* order, int n_tasks, const Block& data,
                                         const Side& runs, const Side& gathered, const Constants* constants, unsigned seed,
                                         double* out) {
  const Constants h = *constants;
  for (int c = blockIdx.x; c < n_tasks; c += gridDim.x) {
    const Task task = tasks[order[c]];
    double squares = 0.0;
    if (task.runs) squares = walk<TRAIN>(task, data, runs, gathered, h, mix(seed + task.block));
    squares = sum_over_groups(squares);
    if (threadIdx.x == 0) out[task.block] = squares;
  }
}

#define PASS(name, train)                                                                                              \
  extern "C" __global__ void __launch_bounds__(32, 1)                                                                  \
  name(const Task* tasks, const int* order, int n_tasks, const int* run_row, const unsigned* run_end,                  \
       const unsigned short* index, const float* rating, const float* weight, stored* run_factors, float* run_biases,  \
       float* run_state, float4* run_extra, stored* factors, float* biases, float* state, float4* extra,               \
       const Constants* constants, unsigned seed, double* out) {                                                       \
    const Block data = {run_row, run_end, index, rating, weight};                                                      \
    const Side runs = {run_factors, run_biases, run_state, run_extra}, gathered = {factors, biases, state, extra};     \
    walk_all<train>(tasks, order, n_tasks, data, runs, gathered, constants, seed, out);                                \
  }
PASS(train, true)
PASS(measure, false)

// The penalties of reg_scale="row", one proximal step for every row: thresholds of factors and biases, then factors.
extern "C" __global__ void shrink(stored* factors, float* biases, long long n_rows, float threshold, float factor,
                                  float bias_threshold, float bias_factor, unsigned seed) {
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x, all = (long long)gridDim.x * blockDim.x;
  for (long long i = first; i < n_rows * SLOTS; i += all) {
    stored* const row = factors + i / SLOTS * STRIDE;
    const int slot = (int)(i % SLOTS);
    float x[VEC];
    load_slot(row, slot, x);
#pragma unroll
    for (int v = 0; v < VEC; ++v) x[v] = proximal(x[v], threshold, NO_BOUND) * factor;
    store_slot(row, slot, x, mix(seed + (unsigned)(i / SLOTS)));
    if (slot == 0) biases[i / SLOTS] = proximal(biases[i / SLOTS], bias_threshold, NO_BOUND) * bias_factor;
  }
}
