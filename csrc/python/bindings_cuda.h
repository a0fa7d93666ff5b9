// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels' Python bindings; each raises in a build without CUDA.
#pragma once

#include <pybind11/pybind11.h>

namespace free_dit {

void bind_cuda(pybind11::module_& m);

}  // namespace free_dit
