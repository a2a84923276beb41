// CUDA kernels of mini-batches, one warp to a row at a time: the rules of _minibatch.pyx.
//
// cuda_source.py compiles this text behind _solvers.cu. A row x of one side holds its factors, its
// bias and a 1; in a row y of the other side the last two change places. So, for one batch of
// ratings r with weights w,
//
//   errors    e = r - (mean + x . y)
//   pushes    d = 2 / size w e             minus the gradient of the loss by the prediction
//   sums      g_x = sum of d y over the ratings of x,    g_y = sum of d x over the ratings of y
//   steps     x <- step(x, g_x),    y <- step(y, g_y),    for all rows, from the old x and y
//
// `forward` goes over the rows of the side that a batch is grouped by and leaves the pushes.
// `backward` goes over the rows of the other side, whose ratings it finds by `order`. One warp sums
// a row's gradient in a fixed order, and new rows are written beside the old ones, so the same bits
// come out each time.

struct Batch {  // `Batch` of cuda_minibatch.py
  const long long* start;  // where each row's ratings begin
  const int* order;        // backward: the place of each rating
  const int* other;        // by place: the row on the other side
  const float *rating, *weight;
  float* push;
  int weighted;  // 0: all weights are 1
  float scale;   // 2 / size of the batch
};

struct Rows {  // of the side that takes a step; `Rows` of cuda_minibatch.py
  const float *old, *others;
  float *fresh, *state;
  const float* columns;  // of each value of a row: 2 l2, l1, lower bound, whether it is learned
  double* squares;       // of each row, grows by its weighted squared errors
  long long n;
};

struct Clocks {  // of all rows, which take every step together; `Clocks` of cuda_minibatch.py
  float beta_1, beta_2;  // beta_1^t, beta_2^t
  float share;           // of the penalty for each rating of a row; 0: the whole of it
};

struct Sums {  // of one row
  float x[OWN][VEC];    // the old row
  float sum[OWN][VEC];  // of pushes times rows of the other side
  double squares;       // of errors, times weights
};

struct Columns {  // the constants of the values in one slot
  float l2[VEC], l1[VEC], low[VEC], learned[VEC];
};

__device__ __forceinline__ void load_columns(Columns& to, const float* columns, int slot) {
  load_slot(columns, slot, to.l2);
  load_slot(columns + STRIDE, slot, to.l1);
  load_slot(columns + 2 * STRIDE, slot, to.low);
  load_slot(columns + 3 * STRIDE, slot, to.learned);
}

__device__ __forceinline__ float sign_of(float x) { return (float)(x > 0.0f) - (float)(x < 0.0f); }

// Step a row x by the summed pushes of m ratings and write it.
__device__ __forceinline__ void step_row(const Rows& rows, long long row, int m, const Sums& of,
                                         const Hyper& h, const Clocks& clocks) {
  const float rate = scaled_rate(h, clocks.beta_1, clocks.beta_2);
  const float penalty = clocks.share > 0.0f ? clocks.share * m : 1.0f;
  float* const state = rows.state + row * STATE_STRIDE;
#pragma unroll
  for (int n = 0; n < OWN; ++n) {
    const int slot = n * LANES + (int)(threadIdx.x % LANES);
    if (slot >= SLOTS) continue;
    float z[STATES + 1][VEC], fresh[VEC], none[2] = {0.0f, 0.0f};
    Columns c;
    load_states(state, slot, z);
    load_columns(c, rows.columns, slot);
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      float& a = STATES > 0 ? z[0][v] : none[0];
      float& b = STATES > 1 ? z[STATES - 1][v] : none[1];
      const float old = of.x[n][v];
      const float push = of.sum[n][v] * c.learned[v] - penalty * c.l1[v] * sign_of(old);
      const float shrink = shrinkage(rate, penalty * c.l2[v]);
      fresh[v] = fmaxf(step(h, shrink, rate, old, gain(rate) * push, a, b), c.low[v]);
    }
    store_slot(rows.fresh + row * STRIDE, slot, fresh, 0u);
    store_states(state, slot, z);
  }
}

// Read this lane's slots of a row, or zeros where it is not there.
__device__ __forceinline__ void load_row(float (*x)[VEC], const float* row, bool there,
                                         const Lane& lane) {
#pragma unroll
  for (int n = 0; n < OWN; ++n) {
    const int slot = n * LANES + lane.sub;
#pragma unroll
    for (int v = 0; v < VEC; ++v) x[n][v] = 0.0f;
    if (there && slot < SLOTS) load_slot(row, slot, x[n]);
  }
}

// Return the push of the rating at a place, by its error; add its weighted square to `squares`.
template <bool TRAIN>
__device__ __forceinline__ float push_of(const Batch& batch, long long at, bool there,
                                         float predicted, const Lane& lane, double& squares) {
  const float e = there ? __ldcs(batch.rating + at) - predicted : 0.0f;
  const float w = there && batch.weighted ? __ldcs(batch.weight + at) : 1.0f;
  squares += (double)w * e * e;
  const float push = batch.scale * e * w;
  if (TRAIN && there && lane.sub == 0) batch.push[at] = push;
  return push;
}

// Sum the pushes of a row's ratings first to last; FORWARD computes them and their errors.
template <bool FORWARD, bool TRAIN>
__device__ __forceinline__ void sum_pushes(const Batch& batch, const float* others, long long first,
                                           long long last, float mean, Sums& of,
                                           const Lane& lane) {
  for (long long t = first; t < last; t += AT_ONCE) {
    const bool there = t + lane.group < last;
    const long long place = t + lane.group;
    const long long at = !there ? 0 : FORWARD ? place : __ldcs(batch.order + place);
    const long long other = there ? __ldcg(batch.other + at) : 0;
    float y[OWN][VEC], dot = 0.0f, push = 0.0f;
    load_row(y, others + other * STRIDE, there, lane);
#pragma unroll
    for (int n = 0; n < OWN; ++n)
#pragma unroll
      for (int v = 0; v < VEC; ++v) dot += of.x[n][v] * y[n][v];
    if (FORWARD) {
      push = push_of<TRAIN>(batch, at, there, mean + sum_in_group(dot), lane, of.squares);
    } else if (there) {
      push = __ldcg(batch.push + at);
    }
#pragma unroll
    for (int n = 0; n < OWN; ++n)
#pragma unroll
      for (int v = 0; v < VEC; ++v) of.sum[n][v] += push * y[n][v];
  }
}

// Work on the rows of a side, each warp on every (number of warps)-th row.
template <bool FORWARD, bool TRAIN>
__device__ __forceinline__ void walk(const Batch& batch, const Rows& rows, float mean,
                                     const Hyper& h, const Clocks& clocks) {
  const Lane lane = this_lane();
  const int per_block = blockDim.x / 32;
  const long long n_warps = (long long)gridDim.x * per_block;
  long long row = (long long)blockIdx.x * per_block + threadIdx.x / 32;
  for (; row < rows.n; row += n_warps) {
    const long long first = __ldcs(batch.start + row);
    const long long last = __ldcs(batch.start + row + 1);
    Sums of;
    of.squares = 0.0;
    load_row(of.x, rows.old + row * STRIDE, true, lane);
#pragma unroll
    for (int n = 0; n < OWN; ++n)
#pragma unroll
      for (int v = 0; v < VEC; ++v) of.sum[n][v] = 0.0f;
    sum_pushes<FORWARD, TRAIN>(batch, rows.others, first, last, mean, of, lane);
    if (FORWARD) {
      of.squares = sum_over_groups(of.squares);
      if (threadIdx.x % 32 == 0) rows.squares[row] += of.squares;
    }
    if (TRAIN) {
#pragma unroll
      for (int n = 0; n < OWN; ++n)
#pragma unroll
        for (int v = 0; v < VEC; ++v) of.sum[n][v] = sum_over_groups(of.sum[n][v]);
      if (lane.group == 0) step_row(rows, row, (int)(last - first), of, h, clocks);
    }
  }
}

// The arguments of a kernel are the fields of `Batch` and `Rows`, the constants and the fields of
// `Clocks`.
#define PASS(name, forward, train, side)                                                       \
  extern "C" __global__ void __launch_bounds__(128, 1) name(                                   \
      const long long* start, const int* order, const int* other, const float* rating,         \
      const float* weight, float* push, int weighted, float scale, const float* old,           \
      const float* others, float* fresh, float* state, const float* columns, double* squares,  \
      long long n_rows, const Constants* constants, float clock_1, float clock_2,              \
      float share) {                                                                           \
    const Batch batch = {start, order, other, rating, weight, push, weighted, scale};          \
    const Rows rows = {old, others, fresh, state, columns, squares, n_rows};                   \
    const Clocks clocks = {clock_1, clock_2, share};                                           \
    const Constants h = *constants;                                                            \
    walk<forward, train>(batch, rows, h.mean, h.side, clocks);                                 \
  }
PASS(forward, true, true, run)
PASS(backward, false, true, gathered)
PASS(measure, true, false, run)
