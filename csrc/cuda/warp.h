// SPDX-License-Identifier: Apache-2.0
// Sums over the 32 lanes of a warp.
#pragma once

#include <cuda_runtime.h>

namespace free_dit::cuda {

constexpr int kLanes = 32;

/// The same sum in every lane, to the bit, and in every run: lanes are added in pairs, pairs in
/// pairs, and a + b is b + a.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  return value;
}

}  // namespace free_dit::cuda
