// SPDX-License-Identifier: Apache-2.0
// A checked, borrowed view of a tensor that came as a DLPack capsule.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "arguments.h"
#include "dlpack.h"

namespace free_dit {

using Shape = std::vector<std::int64_t>;

std::string to_string(const Shape& shape);

constexpr DLDevice kCPU{1, 0};
constexpr std::int32_t kDLCUDA = 2;

/// "the CPU", "CUDA device 1".
std::string to_string(const DLDevice& device);

/// Dense, row-major and in the memory of one device, or the constructor throws; the capsule must
/// outlive the view.
class Array {
 public:
  /// @throws py::type_error for anything but an unused "dltensor" capsule,
  ///         py::value_error for one on another device, or not dense row-major.
  Array(const char* name, pybind11::handle capsule, const DLDevice& device);

  /// On any device.
  Array(const char* name, pybind11::handle capsule);

  const DLDevice& device() const { return tensor_->device; }

  const Shape& shape() const { return shape_; }

  /// @throws py::value_error that names the argument, what was expected and what came.
  const Array& require_shape(const Shape& expected) const;

  /// The elements. @throws py::type_error where they are not of this type.
  float* float32() const { return static_cast<float*>(data(kDLFloat, 32, "float32")); }
  double* float64() const { return static_cast<double*>(data(kDLFloat, 64, "float64")); }
  std::int32_t* int32() const { return static_cast<std::int32_t*>(data(kDLInt, 32, "int32")); }
  std::int64_t* int64() const { return static_cast<std::int64_t*>(data(kDLInt, 64, "int64")); }

  /// Of whatever type; `floating` says which, or throws where it is none that networks answer in.
  const void* elements() const { return data(); }
  Float floating() const;

 private:
  static constexpr std::uint8_t kDLInt = 0;
  static constexpr std::uint8_t kDLFloat = 2;
  static constexpr std::uint8_t kDLBfloat = 4;

  bool holds(std::uint8_t code, std::uint8_t bits) const;
  void* data() const { return static_cast<char*>(tensor_->data) + tensor_->byte_offset; }
  void* data(std::uint8_t code, std::uint8_t bits, const char* type) const;

  const char* name_;
  const DLTensor* tensor_;
  Shape shape_;
};

}  // namespace free_dit
