// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include <cuda_runtime.h>

namespace free_dit::cuda {
namespace {

__global__ void probe() {}

}  // namespace

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

std::optional<std::string> refusal(int device) {
  int previous = 0;
  if (cudaGetDevice(&previous) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) {
    cudaGetLastError();
    return std::nullopt;
  }
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe);
  std::optional<std::string> reason;
  cudaDeviceProp properties;
  if ((status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction) &&
      cudaGetDeviceProperties(&properties, device) == cudaSuccess) {
    const std::string major = std::to_string(properties.major);
    const std::string minor = std::to_string(properties.minor);
    reason = "this build of free has no kernels for compute capability " + major + "." + minor +
             ": pip install . -C cmake.define.CMAKE_CUDA_ARCHITECTURES=" + major + minor +
             " in its source";
  }
  cudaGetLastError();
  cudaSetDevice(previous);
  return reason;
}

}  // namespace free_dit::cuda
