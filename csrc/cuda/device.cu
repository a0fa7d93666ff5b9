// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include <cuda_runtime_api.h>

namespace free_dit::cuda {

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
