// SPDX-License-Identifier: Apache-2.0
// Four neighbouring elements of a row: what a thread loads, computes and stores at a time.
//
// kWide says that rows start at multiples of 16 bytes and have a multiple of 4 elements; one access
// then moves all four. Otherwise they are moved one by one, to and from the same threads, so that
// results do not depend on it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "free/guidance.h"

namespace free_dit::cuda {

constexpr int kQuad = 4;

template <class T>
struct alignas(kQuad * sizeof(T)) Quad {
  T v[kQuad];
};

/// Whether quads of rows of `size` elements can be moved whole.
template <class... T>
bool whole_quads(std::int64_t size, const T*... rows) {
  return size % kQuad == 0 && (... && (reinterpret_cast<std::uintptr_t>(rows) % 16 == 0));
}

/// Elements at, at + 1, ... of a row; 0 beyond its end.
template <bool kWide, class T>
__device__ __forceinline__ Quad<float> load(const T* row, std::int64_t at, std::int64_t size) {
  Quad<float> out{};
  if (kWide) {
    if (at < size) {
      const Quad<T> in = *reinterpret_cast<const Quad<T>*>(row + at);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        out.v[i] = widen(in.v[i]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (at + i < size) {
        out.v[i] = widen(row[at + i]);
      }
    }
  }
  return out;
}

/// To elements at, at + 1, ... of a row, as far as it goes.
template <bool kWide>
__device__ __forceinline__ void store(float* row, std::int64_t at, std::int64_t size,
                                      const Quad<float>& in) {
  if (kWide) {
    if (at < size) {
      *reinterpret_cast<Quad<float>*>(row + at) = in;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (at + i < size) {
        row[at + i] = in.v[i];
      }
    }
  }
}

/// The quad of a grid over rows of `quads` quads; false for threads beyond the last.
struct Place {
  std::int64_t row;
  std::int64_t at;  ///< of the quad's first element
};

__device__ __forceinline__ bool find_place(std::int64_t rows, std::int64_t quads, Place* place) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * quads) {
    return false;
  }
  place->row = index / quads;
  place->at = (index - place->row * quads) * kQuad;
  return true;
}

}  // namespace free_dit::cuda
