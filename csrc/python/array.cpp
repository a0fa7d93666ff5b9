// SPDX-License-Identifier: Apache-2.0
#include "array.h"

namespace py = pybind11;

namespace free_dit {
namespace {

std::string type_name(const DLDataType& type) {
  static const char* const kinds[] = {"int",    "uint",    "float", "opaque",
                                      "bfloat", "complex", "bool"};
  const std::string kind = type.code < 7 ? kinds[type.code] : "type" + std::to_string(type.code);
  return kind + std::to_string(type.bits) +
         (type.lanes == 1 ? "" : "x" + std::to_string(type.lanes));
}

bool is_dense(const DLTensor& t, const Shape& shape) {
  std::int64_t stride = 1;
  for (std::size_t axis = shape.size(); t.strides != nullptr && axis-- > 0;) {
    if (shape[axis] != 1 && t.strides[axis] != stride) {
      return false;
    }
    stride *= shape[axis];
  }
  return true;
}

}  // namespace

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    text += (axis == 0 ? "" : ", ") + std::to_string(shape[axis]);
  }
  return text + "]";
}

std::string to_string(const DLDevice& device) {
  if (device.device_type == kCPU.device_type) {
    return "the CPU";
  }
  return device.device_type == kDLCUDA ? "CUDA device " + std::to_string(device.device_id)
                                       : "DLPack device type " + std::to_string(device.device_type);
}

Array::Array(const char* name, py::handle capsule, const DLDevice& device) : Array(name, capsule) {
  const DLDevice& actual = tensor_->device;
  if (actual.device_type != device.device_type ||
      (actual.device_type != kCPU.device_type && actual.device_id != device.device_id)) {
    throw py::value_error(std::string(name) + ": expected a tensor on " + to_string(device) +
                          ", got one on " + to_string(actual));
  }
}

Array::Array(const char* name, py::handle capsule) : name_(name), tensor_(nullptr) {
  if (!PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    throw py::type_error(std::string(name) + ": expected an unused DLPack capsule, got " +
                         std::string(py::str(py::type::handle_of(capsule).attr("__name__"))));
  }
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  tensor_ = &managed->dl_tensor;
  shape_.assign(tensor_->shape, tensor_->shape + tensor_->ndim);
  bool empty = false;
  for (const std::int64_t extent : shape_) {
    empty = empty || extent == 0;
  }
  if (!empty && !is_dense(*tensor_, shape_)) {
    throw py::value_error(std::string(name) + ": expected a contiguous tensor, got strides " +
                          to_string(Shape(tensor_->strides, tensor_->strides + tensor_->ndim)));
  }
}

const Array& Array::require_shape(const Shape& expected) const {
  if (shape_ != expected) {
    throw py::value_error(std::string(name_) + ": expected shape " + to_string(expected) +
                          ", got " + to_string(shape_));
  }
  return *this;
}

bool Array::holds(std::uint8_t code, std::uint8_t bits) const {
  const DLDataType& actual = tensor_->dtype;
  return actual.code == code && actual.bits == bits && actual.lanes == 1;
}

void* Array::data(std::uint8_t code, std::uint8_t bits, const char* type) const {
  if (!holds(code, bits)) {
    throw py::type_error(std::string(name_) + ": expected " + type + ", got " +
                         type_name(tensor_->dtype));
  }
  return data();
}

Float Array::floating() const {
  if (holds(kDLFloat, 32)) {
    return Float::kFloat32;
  }
  if (holds(kDLFloat, 16)) {
    return Float::kFloat16;
  }
  if (holds(kDLBfloat, 16)) {
    return Float::kBfloat16;
  }
  throw py::type_error(std::string(name_) + ": expected float32, float16 or bfloat16, got " +
                       type_name(tensor_->dtype));
}

}  // namespace free_dit
