// SPDX-License-Identifier: Apache-2.0
// Which rows of a teacher call each sample's next window recycles: a warp a sample.
#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/warp.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kLanes;

__global__ void __launch_bounds__(kThreads) index_rows(RecycledRows r) {
  const std::int64_t b = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  if (b >= r.batch) {
    return;
  }
  std::int64_t start = b * r.stride;
  if (r.stride == 0) {
    // The rows of the samples before. A batch is small: adding them up anew for each sample is
    // quicker than telling the others.
    for (std::int64_t i = lane; i < b; i += kLanes) {
      start += r.length[i];
    }
    start = warp_sum(start);
  }
  const std::int64_t made = std::int64_t{r.advance[b]} - 1;
  const std::int64_t last = r.discarded ? std::int64_t{r.length[b]} - 1 : made;
  for (std::int64_t i = lane; i < r.width; i += kLanes) {
    r.row[b * r.width + i] = start + (made + i < last ? made + i : last);
  }
  if (lane == 0) {
    r.known[b] = last - made + 1;
  }
}

}  // namespace

void recycled_rows(const RecycledRows& r, const Queue& queue) {
  const OnDevice here(queue);
  launch("recycled_rows", index_rows, ceil_div(r.batch, kWarps), kThreads, queue, r);
}

}  // namespace free_dit::cuda
