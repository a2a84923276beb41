// Runs a CUDA kernel on one CPU thread. Every CUDA thread is a fiber. A warp collective (shuffle,
// syncwarp) parks a fiber until every lane named in the mask has arrived. Between collectives the
// lanes of a warp run in an order that the caller chooses, which is a legal schedule since Volta: a
// kernel that silently relies on lockstep fails here. `resident` blocks are interleaved at
// collectives, so races between blocks happen, and they are the same each time.
// Errors that a GPU would not report are reported here: a lane that is missing from its own mask,
// unlike masks, a shuffle from a lane outside the mask, a lane that exits while others wait for it,
// a deadlock.
#include "shim.hpp"
#include <setjmp.h>
#include <stdio.h>
#include <ucontext.h>
#include <memory>
#include <utility>
#include <vector>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace host {
uint3 thread, block, threads, blocks;
enum State { READY, WAITING, DONE };
const size_t STACK = 65536;

struct Fiber {
  ucontext_t context;
  jmp_buf position;
  bool started = false;
  State state = READY;
  Kind kind = SYNCWARP;
  unsigned mask = 0, lane = 0;
  int source = 0;
  uint64_t value = 0, result = 0;
  uint3 id{};
  std::unique_ptr<char[]> stack{new char[STACK]};
};

struct Block {
  unsigned id = 0, live = 0;
  std::vector<Fiber> fibers;
};

static Fiber* current;
static jmp_buf scheduler;
static void (*kernel_)(void**);
static void** arguments_;
static char error[256];
static uint64_t state_;

static uint64_t random_bits() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  return state_ ^= state_ << 17;
}

static void fail(const char* message, const Fiber& f) {
  if (error[0]) return;
  snprintf(error, sizeof error, "%s (block %u, thread %u)", message, block.x, f.id.x);
}

static void begin() {
  kernel_(arguments_);
  current->state = DONE;
  _longjmp(scheduler, 1);
}

uint64_t meet(Kind kind, unsigned mask, uint64_t value, int source) {
  Fiber& f = *current;
  f.kind = kind, f.mask = mask, f.value = value, f.source = source, f.state = WAITING;
  if (!(mask >> f.lane & 1)) fail("lane is not in its own mask", f);
  if (!_setjmp(f.position)) _longjmp(scheduler, 1);
  return f.result;
}

static void resume(Fiber& f) {
  current = &f;
  thread = f.id;
  if (_setjmp(scheduler)) return;
  if (f.started) _longjmp(f.position, 1);
  f.started = true;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack.get();
  f.context.uc_stack.ss_size = STACK;
  f.context.uc_link = nullptr;
  makecontext(&f.context, begin, 0);
  setcontext(&f.context);
}

// Lets the lanes go on that wait where f waits, if all of its mask have arrived.
static bool release(Fiber* warp, unsigned n, Fiber& f) {
  if (n < 32 && f.mask >> n) return fail("mask names lanes beyond the block", f), false;
  for (unsigned l = 0; l < n; ++l) {
    if (!(f.mask >> l & 1)) continue;
    if (warp[l].state == DONE) return fail("a lane named in the mask has exited", f), false;
    if (warp[l].state == READY || warp[l].kind != f.kind || warp[l].mask != f.mask) return false;
  }
  const unsigned mask = f.mask;
  for (unsigned l = 0; l < n; ++l) {
    Fiber& g = warp[l];
    if (!(mask >> l & 1)) continue;
    if (g.kind == SHUFFLE) {
      if (g.source < 0 || g.source > 31 || !(mask >> g.source & 1))
        return fail("shuffle reads a lane outside the mask", g), false;
      g.result = warp[g.source].value;
    }
    g.state = READY;
  }
  return true;
}

static void start(Block& b, unsigned id) {
  b.id = id, b.live = threads.x;
  b.fibers.resize(threads.x);
  for (unsigned t = 0; t < threads.x; ++t) {
    Fiber& f = b.fibers[t];
    f.started = false, f.state = READY, f.id = {t, 0, 0}, f.lane = t % 32;
  }
}

// Lanes run in `order`: 0 ascending, 1 descending, 2 random; then warps of blocks also stall at
// random.
int run(void (*kernel)(void**), void** arguments, unsigned n_blocks, unsigned n_threads,
        int resident, int order, uint64_t seed) {
#if defined(__SSE__)
  struct Csr {
    unsigned before = _mm_getcsr();
    ~Csr() { _mm_setcsr(before); }
  } csr;
  _mm_setcsr(csr.before | 0x8040);  // CuPy compiles with -ftz=true
#endif
  kernel_ = kernel, arguments_ = arguments, error[0] = 0, state_ = 2 * seed + 1;
  blocks = {n_blocks, 1, 1}, threads = {n_threads, 1, 1};
  unsigned next = 0;
  std::vector<Block> running(resident < (int)n_blocks ? (resident < 1 ? 1 : resident) : n_blocks);
  for (Block& b : running) start(b, next++);
  for (bool any = true; any;) {
    any = false;
    for (Block& b : running) {
      if (!b.live) continue;
      any = true;
      block = {b.id, 0, 0};
      bool progress = false;
      for (unsigned first = 0; first < n_threads; first += 32) {
        Fiber* warp = &b.fibers[first];
        const unsigned n = n_threads - first < 32 ? n_threads - first : 32;
        if (order == 2 && running.size() > 1 && random_bits() & 1) {
          progress = true;
          continue;
        }
        unsigned lanes[32];
        for (unsigned l = 0; l < n; ++l) lanes[l] = order == 1 ? n - 1 - l : l;
        if (order == 2)
          for (unsigned l = n - 1; l > 0; --l) std::swap(lanes[l], lanes[random_bits() % (l + 1)]);
        for (unsigned l = 0; l < n; ++l) {
          Fiber& f = warp[lanes[l]];
          if (f.state != READY) continue;
          progress = true;
          resume(f);
          if (f.state == DONE) --b.live;
          if (error[0]) return 1;
        }
        for (unsigned l = 0; l < n; ++l)
          if (warp[l].state == WAITING && release(warp, n, warp[l])) progress = true;
        if (error[0]) return 1;
      }
      if (b.live && !progress)
        for (Fiber& f : b.fibers)
          if (f.state == WAITING) {
            fail("deadlock: lanes wait at different collectives", f);
            return 1;
          }
      if (!b.live && next < n_blocks) start(b, next++);
    }
  }
  return 0;
}
}  // namespace host

extern "C" const char* host_error() { return host::error; }
