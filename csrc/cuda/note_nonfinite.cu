// SPDX-License-Identifier: Apache-2.0
// Whether rows are finite, remembered by sample: a warp looks at a chunk of a row. Nobody waits to
// learn what other warps found: the smallest transition is the same in whatever order they say so.
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "cuda/warp.h"

namespace free_dit::cuda {
namespace {

constexpr int kChunk = 512;  // elements: four quads a lane under way
constexpr int kChunkQuads = kChunk / (kQuad * kLanes);
constexpr int kThreads = 128;  // small blocks: one row's chunks reach many processors
constexpr int kWarps = kThreads / kLanes;

// In every lane, how many of them saw NaN or inf.
template <class T, bool kWide>
__device__ int bad_lanes(const T* row, std::int64_t chunk, std::int64_t size) {
  const std::int64_t first = chunk * kChunk + threadIdx.x % kLanes * kQuad;
  Quad<float> values[kChunkQuads];
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
    values[q] = load<kWide>(row, first + q * kLanes * kQuad, size);
  }
  bool bad = false;
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      bad = bad || !std::isfinite(values[q].v[i]);
    }
  }
  return warp_sum(bad ? 1 : 0);
}

template <class T, bool kWide>
__global__ void __launch_bounds__(kThreads) note_chunks(NoteNonfinite n, std::int64_t chunks) {
  const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const std::int64_t row = task / chunks;
  const std::int64_t b = row / n.entries;
  if (b >= n.batch) {
    return;
  }
  const std::int64_t position = n.first + row % n.entries;
  const std::int64_t sample = n.samples[b];
  const bool wanted = position < n.high[b] && (n.low == nullptr || position >= n.low[b]);
  // A sample out of range must not lead out of the array.
  if (!wanted || sample < 0 || sample >= n.known) {
    return;
  }
  const T* values = static_cast<const T*>(n.values) + row * n.size;
  if (bad_lanes<T, kWide>(values, task % chunks, n.size) > 0 && threadIdx.x % kLanes == 0) {
    // The same 64 bits by the name that CUDA has for them.
    atomicMin(reinterpret_cast<long long*>(n.failed + sample), static_cast<long long>(n.k[row]));
  }
}

template <class T>
void launch_note(const NoteNonfinite& n, const Queue& queue) {
  const std::int64_t chunks = ceil_div(n.size, kChunk);
  const bool wide = whole_quads(n.size, static_cast<const T*>(n.values));
  launch("note_nonfinite", wide ? note_chunks<T, true> : note_chunks<T, false>,
         ceil_div(n.batch * n.entries * chunks, kWarps), kThreads, queue, n, chunks);
}

}  // namespace

void note_nonfinite(const NoteNonfinite& n, const Queue& queue) {
  const OnDevice here(queue);
  switch (n.type) {
    case Float::kFloat32:
      return launch_note<float>(n, queue);
    case Float::kFloat16:
      return launch_note<Half>(n, queue);
    case Float::kBfloat16:
      return launch_note<Bfloat>(n, queue);
  }
}

}  // namespace free_dit::cuda
