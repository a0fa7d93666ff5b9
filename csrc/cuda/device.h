// SPDX-License-Identifier: Apache-2.0
// The CUDA devices of this machine, as a build with CUDA (device.cu) or without (none.cpp) sees
// them.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace free_dit::cuda {

struct Device {
  std::string name;
  int major, minor;  // compute capability
};

struct Devices {
  std::vector<Device> devices;
  std::string reason;  // why there are none; empty otherwise
};

/// The toolkit's version, "13.0"; nothing in a build without CUDA.
std::optional<std::string> version();

/// Never throws for a machine without a driver or a GPU: the reason says what CUDA said.
Devices devices();

/// Why this build has no kernels for a device, and how to get them; nothing where it has, or where
/// CUDA does not say: then a launch will.
std::optional<std::string> refusal(int device);

}  // namespace free_dit::cuda
