// SPDX-License-Identifier: Apache-2.0
// Launching a kernel: on a tensor's device and stream, never waiting, errors as exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/kernels.h"

namespace free_dit::cuda {

inline void check(const char* what, cudaError_t status) {
  if (status != cudaSuccess) {
    cudaGetLastError();  // it is reported here, and not by a later launch
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

/// The queue's device is the current one as long as this lives.
class OnDevice {
 public:
  explicit OnDevice(const Queue& queue) {
    check("CUDA", cudaGetDevice(&previous_));
    check("CUDA", cudaSetDevice(queue.device));
  }
  ~OnDevice() { cudaSetDevice(previous_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int previous_ = 0;
};

/// kernel<<<blocks, threads, 0, stream>>>(arguments...), and nothing for no blocks.
template <class... P>
void launch(const char* name, void (*kernel)(P...), std::int64_t blocks, int threads,
            const Queue& queue, std::common_type_t<P>... arguments) {
  if (blocks == 0) {
    return;
  }
  if (blocks > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument(std::string(name) + ": the tensors are too large, " +
                                std::to_string(blocks) + " blocks");
  }
  void* pointers[] = {&arguments...};
  check(name, cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)),
                               dim3(static_cast<unsigned>(threads)), pointers, 0,
                               static_cast<cudaStream_t>(queue.stream)));
}

constexpr std::int64_t ceil_div(std::int64_t count, std::int64_t each) {
  return (count + each - 1) / each;
}

}  // namespace free_dit::cuda
