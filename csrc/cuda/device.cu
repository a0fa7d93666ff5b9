// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include <cuda_runtime_api.h>

#include "free/philox.h"
#include "free/roll.h"
#include "free/verifier.h"

namespace free_dit::cuda {

struct Sums {
  const Transition* transitions;
  const double* fresh_noise_dot_shifts;

  __device__ Transition examine(int j) const { return transitions[j]; }
  __device__ double fresh_noise_dot_shift(int j) const { return fresh_noise_dot_shifts[j]; }
};

// Never launched. Its instantiation holds the shared headers to what compiles as device code, in
// every build with CUDA.
__global__ void shared_headers(Verifier verifier, Sums sums, int drafts, const float* sigmas,
                               const float* uniforms, float* log_ratios, Outcome* outcome,
                               Pair* normals, float* uniform, Rolled* rolled) {
  *outcome = decide(verifier, drafts, sums, sigmas, uniforms, log_ratios);
  const Philox4 word = philox4x32({threadIdx.x, 0, 0, 0}, 0);
  *normals = box_muller(word.x, word.y);
  *uniform = unit_uniform(word.z);
  *rolled = roll({1.0f, 1.0f, *sigmas}, *uniform, *uniform, normals->first);
}

std::optional<std::string> version() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

Devices devices() {
  Devices found;
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  for (int index = 0; status == cudaSuccess && index < count; ++index) {
    cudaDeviceProp properties;
    status = cudaGetDeviceProperties(&properties, index);
    if (status == cudaSuccess) {
      found.devices.push_back({properties.name, properties.major, properties.minor});
    }
  }
  if (status != cudaSuccess) {
    cudaGetLastError();  // a query that failed must not be reported by a later launch
    found.devices.clear();
    found.reason = cudaGetErrorString(status);
  } else if (count == 0) {
    found.reason = "CUDA sees no device";
  }
  return found;
}

}  // namespace free_dit::cuda
