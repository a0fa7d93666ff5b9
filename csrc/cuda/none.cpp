// SPDX-License-Identifier: Apache-2.0
// What a build without CUDA answers.
#include "cuda/device.h"

namespace free_dit::cuda {

std::optional<std::string> version() { return std::nullopt; }

Devices devices() { return {{}, "this build has no CUDA"}; }

}  // namespace free_dit::cuda
