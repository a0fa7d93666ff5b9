// SPDX-License-Identifier: Apache-2.0
// response_sums on a GPU: a warp sums up a chunk of a counted transition, then a warp a sample adds
// the chunks of its transitions in one order. So the sums are the same in every run, in every batch
// and on every device, as verify_window's are.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "cuda/warp.h"
#include "free/evidence.h"
#include "free/guess.h"

namespace free_dit::cuda {
namespace {

constexpr int kChunk = 256;  // elements: two quads a lane, eight loads under way
constexpr int kChunkQuads = kChunk / (kQuad * kLanes);
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kLanes;

struct Sums {
  double dot;
  double square;
};

__device__ __forceinline__ Sums sum_of_lanes(const Sums& sums) {
  return {warp_sum(sums.dot), warp_sum(sums.square)};
}

__device__ std::int64_t counted(const ResponseSums& r, std::int64_t b) {
  return free_dit::counted(r.advance[b], r.length[b], r.known[b], r.width - 1);
}

// By one warp; in every lane.
template <bool kWide>
__device__ Sums chunk_sums(const ResponseSums& r, std::int64_t b, std::int64_t j,
                           std::int64_t chunk) {
  // A row that is not there is not read.
  const std::int64_t past = nearest(r.row[b * r.entries + j + 1], 0, r.past);
  const float* state = r.states + (b * r.width + j) * r.size;
  const float* guess = r.guess + (b * r.width + j) * r.size;
  const float* past_x = r.past_x + past * r.size;
  const float* past_guess = r.past_guess + past * r.size;
  const std::int64_t first = chunk * kChunk + threadIdx.x % kLanes * kQuad;
  Quad<float> x[kChunkQuads], x_old[kChunkQuads], g[kChunkQuads], g_old[kChunkQuads];
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
    const std::int64_t at = first + q * kLanes * kQuad;
    x[q] = load<kWide>(state, at, r.size);
    x_old[q] = load<kWide>(past_x, at, r.size);
    g[q] = load<kWide>(guess, at, r.size);
    g_old[q] = load<kWide>(past_guess, at, r.size);
  }
  Sums sums{};
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const double moved = static_cast<double>(x[q].v[i] - x_old[q].v[i]);
      sums.dot += moved * static_cast<double>(g[q].v[i] - g_old[q].v[i]);
      sums.square += moved * moved;
    }
  }
  return sum_of_lanes(sums);
}

// A warp a chunk; partial [B, W-1, chunks], of which only what counts is written.
template <bool kWide>
__global__ void __launch_bounds__(kThreads)
    reduce(ResponseSums r, std::int64_t chunks, Sums* partial) {
  const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const std::int64_t transition = task / chunks;
  const std::int64_t b = transition / (r.width - 1);
  const std::int64_t j = transition % (r.width - 1);
  if (b >= r.batch || j >= counted(r, b)) {
    return;
  }
  const Sums sums = chunk_sums<kWide>(r, b, j, task % chunks);
  if (threadIdx.x % kLanes == 0) {
    partial[task] = sums;
  }
}

// A warp a sample.
__global__ void __launch_bounds__(kThreads)
    add_up(ResponseSums r, std::int64_t chunks, const Sums* partial) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  if (b >= r.batch) {
    return;
  }
  partial += b * (r.width - 1) * chunks;
  const std::int64_t terms = counted(r, b) * chunks;
  Sums total{};
  for (std::int64_t i = lane; i < terms; i += kLanes) {
    total.dot += partial[i].dot;
    total.square += partial[i].square;
  }
  total = sum_of_lanes(total);
  if (lane == 0) {
    r.dot_after[b] = static_cast<float>(r.memory * r.dot[b] + total.dot);
    r.square_after[b] = static_cast<float>(r.memory * r.square[b] + total.square);
  }
}

}  // namespace

std::int64_t response_workspace(const ResponseSums& r) {
  return r.batch * (r.width - 1) * ceil_div(r.size, kChunk) *
         static_cast<std::int64_t>(sizeof(Sums));
}

void response_sums(const ResponseSums& r, void* workspace, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t chunks = ceil_div(r.size, kChunk);
  const bool wide = whole_quads(r.size, r.states, r.guess, r.past_x, r.past_guess);
  auto* partial = static_cast<Sums*>(workspace);
  launch("response_sums", wide ? reduce<true> : reduce<false>,
         ceil_div(r.batch * (r.width - 1) * chunks, kWarps), kThreads, queue, r, chunks, partial);
  launch("response_sums", add_up, ceil_div(r.batch, kWarps), kThreads, queue, r, chunks, partial);
}

}  // namespace free_dit::cuda
