// CUDA kernels that train on the block grid, one warp to a block: the rules of _sgd.pyx.
//
// cuda_source.py compiles this text behind _solvers.cu, with three more macros: BIASED (biases are
// learned), WEIGHTED (ratings have weights) and PROXIMAL (there is an L1 penalty or a lower bound).
//
// A block holds runs: one row p of one side with its ratings, whose other rows q are "gathered". A
// run is worked on in micro-batches of m <= 8 ratings r, like on the CPU:
//
//   errors    e = r - (mean + (b_p + b_q) + p . q)        for each rating
//   rates     of each row, from its clock or accumulator
//   biases    b_q <- step(b_q, e),    b_p <- step(b_p, sum of e)
//   factors   q   <- step(q, e p),    p   <- step(p, sum of e q),    from the old p and q
//
// where l2 and l1 count once for each rating. A warp takes the ratings of a micro-batch in ROUNDS
// rounds; every group of lanes holds the whole row of the run.

#define MICRO_BATCH 8
#define ROUNDS (MICRO_BATCH / AT_ONCE)
#define NO_BOUND (-3.4e38f)
#define N_VALUES (float)(N_FACTORS + BIASED)  // learned values of a row

// The gathered rows of a micro-batch stay in registers from the errors to the step where they fit.
// Otherwise each round reads its row twice.
#define IN_REGISTERS (ROUNDS * OWN * VEC * (1 + STATES) <= 64)
#define UNROLLED (IN_REGISTERS ? ROUNDS : 1)
#define KEPT_ROUNDS (IN_REGISTERS ? ROUNDS : 1)
#define KEPT_OWN (IN_REGISTERS ? OWN : 1)
#define KEPT(array, c, n) array[IN_REGISTERS ? c : 0][IN_REGISTERS ? n : 0]

struct Task {  // a block; `TASK` of cuda_grid.py
  long long rating, run;  // where its ratings and its runs begin
  int runs;               // how many runs it has
  int gathered;           // the gathered side's row of index 0
  int block, unused;
};

struct Tasks {
  const Task* all;
  const int* order;  // the tasks of this launch
  int n;
};

struct Block {  // the arrays of all blocks, or of the blocks that are on the card
  const int* run_row;
  const unsigned* run_end;
  const unsigned short* index;
  const float *rating, *weight;
};

struct Side {
  stored* factors;
  float *biases, *state;
  float4* extra;  // of each row: its clocks, or ADAGRAD_ROW's accumulator, and its bias' states
};

struct Ahead {  // the ratings of the next micro-batch, on their way from memory
  int index[ROUNDS];
  float rating[ROUNDS];
};

struct Run {  // the row whose ratings are worked on
  stored* row;
  float* state;
  float bias, rate;
  float4 extra;
  float p[OWN][VEC], states[OWN][STATES + 1][VEC];
};

struct MicroBatch {
  unsigned t;     // the first rating's place in the block
  int m;          // its ratings, of all groups
  unsigned seed;  // of the rounding of halves
  Lane lane;

  // Return whether round c has a rating for this group.
  __device__ __forceinline__ bool has(int c) const { return c * AT_ONCE + lane.group < m; }

  // Return the place in the block of the rating of round c.
  __device__ __forceinline__ unsigned place(int c) const { return t + c * AT_ONCE + lane.group; }
};

// This group's ratings of a micro-batch, one a round, and what belongs to their gathered rows. The
// three are apart because the rounds of long rows are not unrolled: the compiler then keeps in
// local memory the whole struct, not the field, that a round indexes.

struct Ratings {
  int at[ROUNDS];  // the gathered row
  float e[ROUNDS], bias[ROUNDS], dot[ROUNDS];
};

struct Rates {
  float rate[ROUNDS];
  float4 extra[ROUNDS];
};

struct Rows {
  float q[KEPT_ROUNDS][KEPT_OWN][VEC], states[KEPT_ROUNDS][KEPT_OWN][STATES + 1][VEC];
};

__device__ __forceinline__ float predicted(float mean, float bias, float other_bias, float dot) {
  return mean + (bias + other_bias) + dot;
}

// -------------------------------------------------------------------------------- one step

// Step one slot of a row by the pushes of m ratings, already times `gain`.
__device__ __forceinline__ void step_slot(const Hyper& h, int m, float rate, float* x,
                                          const float* push, float (*z)[VEC]) {
  float none[2] = {0.0f, 0.0f};
  const float shrink = shrinkage(rate, (float)m * h.l2);
#pragma unroll
  for (int v = 0; v < VEC; ++v) {
    float& a = STATES > 0 ? z[0][v] : none[0];
    float& b = STATES > 1 ? z[STATES - 1][v] : none[1];
    x[v] = step(h, shrink, rate, x[v], push[v], a, b);
#if PROXIMAL
    x[v] = proximal(x[v], (float)m * h.l1 * reach(h, rate, a, b), h.low);
#endif
  }
}

// Return a bias after the summed errors of m ratings.
__device__ __forceinline__ float step_bias(const Hyper& h, int m, float rate, float x, float push,
                                           float4& extra) {
  const float shrink = shrinkage(rate, (float)m * h.l2_bias);
  x = step(h, shrink, rate, x, gain(rate) * push, extra.z, extra.w);
#if PROXIMAL
  const float threshold = (float)m * h.l1_bias * reach(h, rate, extra.z, extra.w);
  x = proximal(x, threshold, NO_BOUND);
#endif
  return x;
}

// ---------------------------------------------------------------------- stages of a micro-batch

// Ask for the ratings from place t on. The next micro-batch begins where this one ends, so they can
// be on their way while this one is worked on. This reads past the block, but never past the
// arrays, which have 8 more entries.
__device__ __forceinline__ void fetch(Ahead& next, const Block& data, unsigned t,
                                      const Lane& lane) {
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c) {
    next.index[c] = __ldcs(data.index + (t + c * AT_ONCE + lane.group));
    next.rating[c] = __ldcs(data.rating + (t + c * AT_ONCE + lane.group));
  }
}

// Read the row of a run.
template <bool TRAIN>
__device__ __forceinline__ void load_run(Run& run, const Side& runs, int row, const Lane& lane) {
  run.row = runs.factors + (long long)row * STRIDE;
  run.state = runs.state + (long long)row * STATE_STRIDE;
  run.bias = __ldcg(runs.biases + row);
  run.extra = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (TRAIN && SOLVER != SGD) run.extra = __ldcg(runs.extra + row);
#pragma unroll
  for (int n = 0; n < OWN; ++n) {
    const int slot = n * LANES + lane.sub;
#pragma unroll
    for (int v = 0; v < VEC; ++v) run.p[n][v] = 0.0f;
    if (slot < SLOTS) {
      load_slot(run.row, slot, run.p[n]);
      if (TRAIN) load_states(run.state, slot, run.states[n]);
    }
  }
}

// Read the gathered rows; compute this lane's part of each dot product.
template <bool TRAIN>
__device__ __forceinline__ void dot_products(const MicroBatch& batch, Ratings& of, Rates& rates,
                                             Rows& rows, const Run& run, const Side& gathered) {
#pragma unroll UNROLLED
  for (int c = 0; c < ROUNDS; ++c) {
    const bool mine = batch.has(c);
    const long long at = of.at[c];
    of.dot[c] = 0.0f;
    of.bias[c] = mine ? __ldcg(gathered.biases + at) : 0.0f;
    rates.extra[c] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (TRAIN && SOLVER != SGD && mine) rates.extra[c] = __ldcg(gathered.extra + at);
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
      const int slot = n * LANES + batch.lane.sub;
      float* const q = KEPT(rows.q, c, n);
#pragma unroll
      for (int v = 0; v < VEC; ++v) q[v] = 0.0f;
      if (mine && slot < SLOTS) {
        load_slot(gathered.factors + at * STRIDE, slot, q);
        if (TRAIN && IN_REGISTERS)
          load_states(gathered.state + at * STATE_STRIDE, slot, KEPT(rows.states, c, n));
      }
#pragma unroll
      for (int v = 0; v < VEC; ++v) of.dot[c] += run.p[n][v] * q[v];
    }
  }
}

// Turn the ratings in `e` into errors times weights and return their sum over this group; add the
// weighted squares to `squares`.
__device__ __forceinline__ float errors(const MicroBatch& batch, Ratings& of, float mean,
                                        float run_bias, const float* weight, double& squares) {
  float total = 0.0f;
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c) {
    const bool mine = batch.has(c);
    float e = of.e[c] - predicted(mean, run_bias, of.bias[c], sum_in_group(of.dot[c]));
    if (!mine) e = 0.0f;
#if WEIGHTED
    const float w = mine ? __ldcs(weight + batch.place(c)) : 0.0f;
    squares += (double)(w * e * e);
    e *= w;
#else
    squares += (double)(e * e);
#endif
    of.e[c] = e;
    total += e;
  }
  return total;
}

// Advance the clocks of all rows and compute their learning rates.
__device__ __forceinline__ void step_rates(Rates& rates, Run& run, const Constants& h) {
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c) {
    tick(h.gathered, rates.extra[c]);
    rates.rate[c] = scaled_rate(h.gathered, rates.extra[c].x, rates.extra[c].y);
  }
  tick(h.run, run.extra);
  run.rate = scaled_rate(h.run, run.extra.x, run.extra.y);
}

// Step the biases; `total` is the sum of the errors of the whole micro-batch.
__device__ __forceinline__ void step_biases(const MicroBatch& batch, Ratings& of, Rates& rates,
                                            Run& run, const Side& gathered, const Constants& h,
                                            float total) {
#if BIASED
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c) {
    const float bias = of.bias[c];
    of.bias[c] = step_bias(h.gathered, 1, rates.rate[c], bias, of.e[c], rates.extra[c]);
    if (batch.lane.sub == 0 && batch.has(c)) gathered.biases[of.at[c]] = of.bias[c];
  }
  run.bias = step_bias(h.run, batch.m, run.rate, run.bias, total, run.extra);
#endif
}

// Step the gathered rows by the run's old row; add their pushes on the run's row to `push`.
__device__ __forceinline__ void step_gathered(const MicroBatch& batch, const Ratings& of,
                                              const Rates& rates, Rows& rows, const Run& run,
                                              const Side& gathered, const Hyper& h,
                                              float (*push)[VEC]) {
  float q_push[VEC];
#pragma unroll UNROLLED
  for (int c = 0; c < ROUNDS; ++c) {
    stored* const q_row = gathered.factors + (long long)of.at[c] * STRIDE;
    float* const q_state = gathered.state + (long long)of.at[c] * STATE_STRIDE;
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
      const int slot = n * LANES + batch.lane.sub;
      if (!batch.has(c) || slot >= SLOTS) continue;
      float* const q = KEPT(rows.q, c, n);
      float(*const states)[VEC] = KEPT(rows.states, c, n);
      if (!IN_REGISTERS) {
        load_slot(q_row, slot, q);
        load_states(q_state, slot, states);
      }
#pragma unroll
      for (int v = 0; v < VEC; ++v) {
        push[n][v] += of.e[c] * q[v];
        q_push[v] = gain(rates.rate[c]) * of.e[c] * run.p[n][v];
      }
      step_slot(h, 1, rates.rate[c], q, q_push, states);
      store_slot(q_row, slot, q, mix(batch.seed + 2 * batch.place(c)));
      store_states(q_state, slot, states);
    }
  }
}

// Step the run's row by the pushes of all groups; return the sum of their squares for ADAGRAD_ROW.
__device__ __forceinline__ float step_run(Run& run, int m, const Hyper& h, float (*push)[VEC],
                                          const Lane& lane) {
  float push_square = 0.0f;
#pragma unroll
  for (int n = 0; n < OWN; ++n) {
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      push[n][v] = sum_over_groups(push[n][v]);
      if (SOLVER == ADAGRAD_ROW) push_square += push[n][v] * push[n][v];
      push[n][v] *= gain(run.rate);
    }
    if (n * LANES + lane.sub < SLOTS) step_slot(h, m, run.rate, run.p[n], push[n], run.states[n]);
  }
  return SOLVER == ADAGRAD_ROW ? sum_in_group(push_square) : 0.0f;
}

// Return the sum of the squares of a run's row.
__device__ __forceinline__ float square_of(const Run& run) {
  float square = 0.0f;
#pragma unroll
  for (int n = 0; n < OWN; ++n)
#pragma unroll
    for (int v = 0; v < VEC; ++v) square += run.p[n][v] * run.p[n][v];
  return sum_in_group(square);
}

// Step the factors of both sides, and the accumulators of ADAGRAD_ROW. Both old values are read
// before either is written.
__device__ __forceinline__ void step_factors(const MicroBatch& batch, const Ratings& of,
                                             Rates& rates, Rows& rows, Run& run,
                                             const Side& gathered, const Constants& h,
                                             float total) {
  const float p_square = SOLVER == ADAGRAD_ROW ? square_of(run) : 0.0f;
  float push[OWN][VEC];
#pragma unroll
  for (int n = 0; n < OWN; ++n)
#pragma unroll
    for (int v = 0; v < VEC; ++v) push[n][v] = 0.0f;
  step_gathered(batch, of, rates, rows, run, gathered, h.gathered, push);
  const float push_square = step_run(run, batch.m, h.run, push, batch.lane);
  if (SOLVER == ADAGRAD_ROW) {
    run.extra.x += (push_square + BIASED * total * total) / N_VALUES;
#pragma unroll
    for (int c = 0; c < ROUNDS; ++c)
      rates.extra[c].x += of.e[c] * of.e[c] * (p_square + BIASED) / N_VALUES;
  }
}

// Write the clocks of the gathered rows and the states of their biases.
__device__ __forceinline__ void store_extra(const MicroBatch& batch, const Ratings& of,
                                            const Rates& rates, const Side& gathered) {
  if (SOLVER == SGD) return;
#pragma unroll
  for (int c = 0; c < ROUNDS; ++c)
    if (batch.lane.sub == 0 && batch.has(c)) gathered.extra[of.at[c]] = rates.extra[c];
}

// Write the row of a run whose ratings end at place t.
__device__ __forceinline__ void store_run(const Run& run, const Side& runs, int row, unsigned t,
                                          unsigned seed, const Lane& lane) {
  if (lane.group == 0) {
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
      const int slot = n * LANES + lane.sub;
      if (slot >= SLOTS) continue;
      store_slot(run.row, slot, run.p[n], mix(seed + 2 * t + 1));
      store_states(run.state, slot, run.states[n]);
    }
    if (lane.sub == 0) {
      if (BIASED) runs.biases[row] = run.bias;
      if (SOLVER != SGD) runs.extra[row] = run.extra;
    }
  }
  __syncwarp(ALL);  // the next run may meet the same rows in other lanes
}

// ------------------------------------------------------------------------------- one block

// Return the arrays of a block, which begin at its own ratings and runs.
__device__ __forceinline__ Block block_of(const Block& all, const Task& task) {
  Block own = {all.run_row + task.run, all.run_end + task.run, all.index + task.rating,
               all.rating + task.rating, all.weight};
  if (WEIGHTED) own.weight += task.rating;
  return own;
}

// Work through the runs of a block in their order; return this group's sum of squared errors, each
// seen before its own step.
template <bool TRAIN>
__device__ __forceinline__ double walk(const Task& task, const Block& all, const Side& runs,
                                       const Side& gathered, const Constants& h, unsigned seed) {
  const Lane lane = this_lane();
  const Block data = block_of(all, task);
  double squares = 0.0;
  unsigned t = 0;
  Ahead next;
  fetch(next, data, t, lane);
  int next_row = __ldcs(data.run_row);
  unsigned next_end = __ldcs(data.run_end);
  for (int r = 0; r < task.runs; ++r) {
    const int row = next_row;
    const unsigned end = next_end;
    if (r + 1 < task.runs) {
      next_row = __ldcs(data.run_row + r + 1);
      next_end = __ldcs(data.run_end + r + 1);
    }
    Run run;
    load_run<TRAIN>(run, runs, row, lane);
    while (t < end) {
      const int m = end - t < MICRO_BATCH ? (int)(end - t) : MICRO_BATCH;
      const MicroBatch batch = {t, m, seed, lane};
      Ratings of;
      Rates rates;
      Rows rows;
#pragma unroll
      for (int c = 0; c < ROUNDS; ++c) {
        of.at[c] = task.gathered + next.index[c];
        of.e[c] = next.rating[c];
      }
      fetch(next, data, t + m, lane);
      dot_products<TRAIN>(batch, of, rates, rows, run, gathered);
      float total = errors(batch, of, h.mean, run.bias, data.weight, squares);
      if (TRAIN) {
        total = sum_over_groups(total);
        step_rates(rates, run, h);
        step_biases(batch, of, rates, run, gathered, h, total);
        step_factors(batch, of, rates, rows, run, gathered, h, total);
        store_extra(batch, of, rates, gathered);
      }
      t += m;
    }
    if (TRAIN) store_run(run, runs, row, t, seed, lane);
  }
  return squares;
}

// Work on the tasks order[c], order[c + gridDim.x], ... by warp c. Write the sum of squared errors
// of a task to out[its block].
template <bool TRAIN>
__device__ __forceinline__ void walk_all(const Tasks& tasks, const Block& data, const Side& runs,
                                         const Side& gathered, const Constants& h, unsigned seed,
                                         double* out) {
  for (int c = blockIdx.x; c < tasks.n; c += gridDim.x) {
    const Task task = tasks.all[tasks.order[c]];
    double squares = 0.0;
    if (task.runs) squares = walk<TRAIN>(task, data, runs, gathered, h, mix(seed + task.block));
    squares = sum_over_groups(squares);
    if (threadIdx.x == 0) out[task.block] = squares;
  }
}

// The arguments of a kernel are those of the records `Tasks`, `Columns`, `SideArrays` (twice) and
// `Pass` of cuda_grid.py, one after another.
#define PASS(name, train)                                                                      \
  extern "C" __global__ void __launch_bounds__(32, 1) name(                                    \
      const Task* all, const int* order, int n_tasks, const int* run_row,                      \
      const unsigned* run_end, const unsigned short* index, const float* rating,               \
      const float* weight, stored* run_factors, float* run_biases, float* run_state,           \
      float4* run_extra, stored* factors, float* biases, float* state, float4* extra,          \
      const Constants* constants, unsigned seed, double* out) {                                \
    const Tasks tasks = {all, order, n_tasks};                                                 \
    const Block data = {run_row, run_end, index, rating, weight};                              \
    const Side runs = {run_factors, run_biases, run_state, run_extra};                         \
    const Side gathered = {factors, biases, state, extra};                                     \
    const Constants h = *constants;                                                            \
    walk_all<train>(tasks, data, runs, gathered, h, seed, out);                                \
  }
PASS(train, true)
PASS(measure, false)

// ----------------------------------------------------------------- penalties of reg_scale="row"

struct Shrinkage {  // of all factors, or of all biases, of one side
  float threshold;  // of L1: rate l1
  float factor;     // of L2: 1 / (1 + rate l2)
};

__device__ __forceinline__ float shrunk(float x, const Shrinkage& by) {
  return proximal(x, by.threshold, NO_BOUND) * by.factor;
}

// Make one proximal step of every row of a side.
extern "C" __global__ void shrink(stored* factors, float* biases, long long n_rows, float threshold,
                                  float factor, float bias_threshold, float bias_factor,
                                  unsigned seed) {
  const Shrinkage of_factors = {threshold, factor};
  const Shrinkage of_bias = {bias_threshold, bias_factor};
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const long long all = (long long)gridDim.x * blockDim.x;
  for (long long i = first; i < n_rows * SLOTS; i += all) {
    const long long row = i / SLOTS;
    const int slot = (int)(i % SLOTS);
    stored* const values = factors + row * STRIDE;
    float x[VEC];
    load_slot(values, slot, x);
#pragma unroll
    for (int v = 0; v < VEC; ++v) x[v] = shrunk(x[v], of_factors);
    store_slot(values, slot, x, mix(seed + (unsigned)row));
    if (slot == 0) biases[row] = shrunk(biases[row], of_bias);
  }
}
