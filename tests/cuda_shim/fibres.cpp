// SPDX-License-Identifier: Apache-2.0
// A fibre for each thread of a block, one block after the other. A fibre runs until it waits at a
// barrier of its warp or block; if all that are left wait, the launch fails: on a GPU it would
// hang.
#include <ucontext.h>

#include <memory>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_shim {

int processors = 1;
bool descending = false;

namespace {

constexpr unsigned kLanes = 32;
constexpr std::size_t kStack = std::size_t{64} << 10;

struct Barrier {
  unsigned arrived = 0;
  unsigned passed = 0;  // how often
};

struct Warp {
  Barrier barrier;
  std::uint64_t value[2][kLanes];  // in turns: one lane may be an exchange ahead of another
};

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  const Barrier* waits_at;
  unsigned passed;
  unsigned exchanges;
  bool done;
};

ucontext_t scheduler;
std::vector<Fibre> fibres;
std::vector<Warp> warps;
Barrier block_barrier;
unsigned current;
const std::function<void()>* body;

void start() {
  (*body)();
  fibres[current].done = true;
}

void wait(Barrier* barrier, unsigned threads) {
  Fibre& fibre = fibres[current];
  const unsigned passed = barrier->passed;
  if (++barrier->arrived == threads) {
    barrier->arrived = 0;
    ++barrier->passed;
    return;
  }
  fibre.waits_at = barrier;
  fibre.passed = passed;
  swapcontext(&fibre.context, &scheduler);
}

bool resume(unsigned thread) {
  Fibre& fibre = fibres[thread];
  if (fibre.done || (fibre.waits_at != nullptr && fibre.waits_at->passed == fibre.passed)) {
    return false;
  }
  fibre.waits_at = nullptr;
  current = thread;
  threadIdx = dim3(thread, 0, 0);
  swapcontext(&scheduler, &fibre.context);
  return true;
}

bool run_block(unsigned threads) {
  warps.assign((threads + kLanes - 1) / kLanes, Warp{});
  block_barrier = Barrier{};
  for (unsigned thread = 0; thread < threads; ++thread) {
    Fibre& fibre = fibres[thread];
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack.get();
    fibre.context.uc_stack.ss_size = kStack;
    fibre.context.uc_link = &scheduler;
    fibre.waits_at = nullptr;
    fibre.exchanges = 0;
    fibre.done = false;
    makecontext(&fibre.context, start, 0);
  }
  for (;;) {
    bool moved = false;
    bool left = false;
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned thread = descending ? threads - 1 - i : i;
      moved = resume(thread) || moved;
      left = left || !fibres[thread].done;
    }
    if (!left) {
      return true;
    }
    if (!moved) {
      return false;
    }
  }
}

}  // namespace

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread) {
  body = &thread;
  gridDim = grid;
  blockDim = block;
  if (fibres.size() < block.x) {
    fibres = std::vector<Fibre>(block.x);
  }
  for (unsigned i = 0; i < grid.x; ++i) {
    blockIdx = dim3(descending ? grid.x - 1 - i : i, 0, 0);
    if (!run_block(block.x)) {
      return cudaErrorLaunchFailure;
    }
  }
  return cudaSuccess;
}

std::uint64_t exchange(std::uint64_t value, int distance) {
  Fibre& fibre = fibres[current];
  Warp& warp = warps[current / kLanes];
  const unsigned lane = current % kLanes;
  std::uint64_t* values = warp.value[fibre.exchanges++ % 2];
  values[lane] = value;
  wait(&warp.barrier, kLanes);
  return values[lane ^ static_cast<unsigned>(distance)];
}

}  // namespace cuda_shim

void __syncthreads() { cuda_shim::wait(&cuda_shim::block_barrier, blockDim.x); }

cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "threads wait for others that never come"; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = cuda_shim::processors;
  return cudaSuccess;
}
