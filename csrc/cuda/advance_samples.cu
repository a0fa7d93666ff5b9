// SPDX-License-Identifier: Apache-2.0
// advance_samples_ on a GPU: a block a chunk of a sample's state, of which one that has finished
// keeps its own; the first block's first warp does the rest.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/warp.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kChunk = 4096;

// By one warp.
__device__ void advance(const Advance& a, std::int64_t b, int lane) {
  std::int64_t start = b * a.stride;
  if (a.stride == 0) {
    // The rows of the samples before. A batch is small: adding them up anew for each sample is
    // quicker than telling the others.
    for (std::int64_t i = lane; i < b; i += kLanes) {
      start += a.length[i];
    }
    start = warp_sum(start);
  }
  const std::int64_t made = std::int64_t{a.advance[b]} - 1;
  const std::int64_t last = a.discarded ? std::int64_t{a.length[b]} - 1 : made;
  for (std::int64_t i = lane; i < a.width; i += kLanes) {
    a.row[b * a.width + i] = start + (made + i < last ? made + i : last);
  }
  if (lane == 0) {
    a.known[b] = last - made + 1;
    const std::int64_t wanted = a.wanted[b];
    a.k_after[b] = wrapped_sum(a.k[b], a.advance[b] < wanted ? a.advance[b] : wanted);
    a.rounds_after[b] = wrapped_sum(a.rounds[b], 1);
    if (a.entries > 0) {
      std::int64_t* entry = a.log + log_entry(a.rounds[0], a.entries) * 3 * a.batch + b;
      entry[0] = a.k[b];
      entry[a.batch] = wanted;
      entry[2 * a.batch] = a.accepted[b];
    }
  }
}

__global__ void __launch_bounds__(kThreads) advance_chunks(Advance a, std::int64_t chunks) {
  const std::int64_t b = blockIdx.x / chunks;
  const std::int64_t chunk = blockIdx.x % chunks;
  const int thread = static_cast<int>(threadIdx.x);
  if (a.wanted[b] < 1) {
    const std::int64_t left = a.size - chunk * kChunk;
    const std::int64_t at = b * a.size + chunk * kChunk;
    for (std::int64_t i = thread; i < left && i < kChunk; i += kThreads) {
      a.after[at + i] = a.x[at + i];
    }
  }
  if (chunk == 0 && thread < kLanes) {
    advance(a, b, thread);
  }
}

}  // namespace

void advance_samples(const Advance& a, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t chunks = ceil_div(a.size, kChunk);
  launch("advance_samples_", advance_chunks, a.batch * chunks, kThreads, queue, a, chunks);
}

}  // namespace free_dit::cuda
