// SPDX-License-Identifier: Apache-2.0
// As much of CUDA as the kernels of csrc/cuda use, for a C++ compiler: their text is compiled as it
// stands and executed on the CPU, a fibre for each thread (fibres.cpp). What this shows is indices,
// sums and branches; of races only those that another order of the threads brings out, and nothing
// of memory ordering or speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Blocks run one after the other.
#define __shared__ static

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorLaunchFailure };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace cuda_shim {

/// What the next launches find.
extern int processors;   // of the device
extern bool descending;  // blocks and threads run from the last to the first

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread);

/// What lane ^ distance of the calling thread's warp passes.
std::uint64_t exchange(std::uint64_t value, int distance);

}  // namespace cuda_shim

void __syncthreads();

// Threads run one after the other.
inline long long atomicMin(long long* at, long long value) {
  const long long before = *at;
  *at = value < before ? value : before;
  return before;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int distance) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t), "a shuffle moves at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = cuda_shim::exchange(bits, distance);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class... P, std::size_t... kIndex>
cudaError_t cuda_shim_launch(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments,
                             std::index_sequence<kIndex...>) {
  return cuda_shim::run(grid, block, [&] { kernel(*static_cast<P*>(arguments[kIndex])...); });
}

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block, void** arguments,
                             std::size_t, cudaStream_t) {
  return cuda_shim_launch(kernel, grid, block, arguments, std::index_sequence_for<P...>{});
}
