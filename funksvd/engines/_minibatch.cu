// CUDA kernels of mini-batches: the rules of _minibatch.pyx, a warp to a row at a time. Compiled behind _solvers.cu.
//
// A row holds its factors, its bias and a 1; on the other side the last two change places, so that one inner product is
// the prediction less the mean. `forward` goes over the rows of the side that a batch is grouped by and leaves each
// rating's push, `backward` over those of the other, which it finds by `order`. A row's gradient is summed by one warp in
// a fixed order and new rows are written beside the old ones: the same bits each time.

struct Batch {
  const long long* start;  // where each row's ratings begin
  const int *order, *other;  // backward: the place of a rating; by place: its row on the other side
  const float *rating, *weight;
  float* push;
  int weighted;
  float scale;  // 2 / size of the batch
};

struct Rows {  // of the side that takes a step
  const float *old, *others;
  float *fresh, *state;
  const float* columns;  // of each value in a row: L2 times 2, L1, lower bound, whether it is learnt
  double* squares;
  long long n;
};

struct Clocks {
  float beta_1, beta_2, share;  // beta^t; how much of the penalty a row gets for each of its ratings, 0: the whole of it
};

// A row after the summed pushes of m ratings.
__device__ __forceinline__ void step_row(const Rows& rows, long long row, int m, const float (*x)[VEC], const float (*sum)[VEC],
                                         const Hyper& h, const Clocks& clocks) {
  const float rate = scaled_rate(h, clocks.beta_1, clocks.beta_2), penalty = clocks.share > 0.0f ? clocks.share * m : 1.0f;
#pragma unroll
  for (int n = 0; n < OWN; ++n) {
    const int slot = n * LANES + (int)(threadIdx.x % LANES);
    if (slot >= SLOTS) continue;
    float z[STATES + 1][VEC], l2[VEC], l1[VEC], low[VEC], learnt[VEC], fresh[VEC], none[2] = {0.0f, 0.0f};
    load_states(rows.state + row * STATE_STRIDE, slot, z);
    load_slot(rows.columns, slot, l2);
    load_slot(rows.columns + STRIDE, slot, l1);
    load_slot(rows.columns + 2 * STRIDE, slot, low);
    load_slot(rows.columns + 3 * STRIDE, slot, learnt);
#pragma unroll
    for (int v = 0; v < VEC; ++v) {
      float &a = STATES > 0 ? z[0][v] : none[0], &b = STATES > 1 ? z[STATES - 1][v] : none[1];
      const float sign = (float)(x[n][v] > 0.0f) - (float)(x[n][v] < 0.0f);
      const float push = sum[n][v] * learnt[v] - penalty * l1[v] * sign;
      fresh[v] = fmaxf(step(h, shrinkage(rate, penalty * l2[v]), rate, x[n][v], gain(rate) * push, a, b), low[v]);
    }
    store_slot(rows.fresh + row * STRIDE, slot, fresh, 0u);
    store_states(rows.state + row * STATE_STRIDE, slot, z);
  }
}

template <bool FORWARD, bool TRAIN>
__device__ __forceinline__ void walk(const Batch& batch, const Rows& rows, float mean, const Hyper& h, const Clocks& clocks) {
  const int sub = threadIdx.x % LANES, group = threadIdx.x % 32 / LANES, per_block = blockDim.x / 32;
  for (long long row = (long long)blockIdx.x * per_block + threadIdx.x / 32; row < rows.n;
       row += (long long)gridDim.x * per_block) {
    const long long first = __ldcs(batch.start + row), last = __ldcs(batch.start + row + 1);
    float x[OWN][VEC], sum[OWN][VEC];
    double squares = 0.0;
#pragma unroll
    for (int n = 0; n < OWN; ++n) {
#pragma unroll
      for (int v = 0; v < VEC; ++v) x[n][v] = sum[n][v] = 0.0f;
      if (n * LANES + sub < SLOTS) load_slot(rows.old + row * STRIDE, n * LANES + sub, x[n]);
    }
    for (long long t = first; t < last; t += AT_ONCE) {
      const bool there = t + group < last;
      const long long at = !there ? 0 : FORWARD ? t + group : __ldcs(batch.order + t + group);
      const long long other = there ? __ldcg(batch.other + at) : 0;
      float y[OWN][VEC], dot = 0.0f, push = 0.0f;
#pragma unroll
      for (int n = 0; n < OWN; ++n) {
#pragma unroll
        for (int v = 0; v < VEC; ++v) y[n][v] = 0.0f;
        if (there && n * LANES + sub < SLOTS) load_slot(rows.others + other * STRIDE, n * LANES + sub, y[n]);
#pragma unroll
        for (int v = 0; v < VEC; ++v) dot += x[n][v] * y[n][v];
      }
      if (FORWARD) {
        const float predicted = mean + sum_in_group(dot), e = there ? __ldcs(batch.rating + at) - predicted : 0.0f;
        const float w = there && batch.weighted ? __ldcs(batch.weight + at) : 1.0f;
        squares += (double)w * e * e;
        push = batch.scale * e * w;
        if (TRAIN && there && sub == 0) batch.push[at] = push;
      } else if (there) {
        push = __ldcg(batch.push + at);
      }
#pragma unroll
      for (int n = 0; n < OWN; ++n)
#pragma unroll
        for (int v = 0; v < VEC; ++v) sum[n][v] += push * y[n][v];
    }
    if (FORWARD) {
      squares = sum_over_groups(squares);
      if (threadIdx.x % 32 == 0) rows.squares[row] += squares;
    }
    if (TRAIN) {
#pragma unroll
      for (int n = 0; n < OWN; ++n)
#pragma unroll
        for (int v = 0; v < VEC; ++v) sum[n][v] = sum_over_groups(sum[n][v]);
      if (group == 0) step_row(rows, row, (int)(last - first), x, sum, h, clocks);
    }
  }
}

#define PASS(name, forward, train, side)                                                                               \
  extern "C" __global__ void __launch_bounds__(128, 1)                                                                  \
  name(const long long* start, const int* order, const int* other, const float* rating, const float* weight,           \
       float* push, int weighted, float scale, const float* old, const float* others, float* fresh, float* state,      \
       const float* columns, double* squares, long long n_rows, const Constants* constants, float clock_1,             \
       float clock_2, float share) {                                                                                   \
    const Batch batch = {start, order, other, rating, weight, push, weighted, scale};                                  \
    const Rows rows = {old, others, fresh, state, columns, squares, n_rows};                                           \
    const Clocks clocks = {clock_1, clock_2, share};                                                                   \
    const Constants h = *constants;                                                                                    \
    walk<forward, train>(batch, rows, h.mean, h.side, clocks);                                                         \
  }
PASS(forward, true, true, run)
PASS(backward, false, true, gathered)
PASS(measure, true, false, run)
