// SPDX-License-Identifier: Apache-2.0
#include "tensor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>

namespace py = pybind11;

namespace free_dit {

Torch torch;

namespace {

// By Type, and any other.
constexpr DLDataType kElements[] = {{2, 32, 1}, {2, 16, 1}, {4, 16, 1}, {2, 64, 1},
                                    {0, 32, 1}, {0, 64, 1}, {0, 8, 1}};
constexpr int kNone = std::size(kElements) - 1;

bool is_dense(const DLTensor& t) {
  const bool empty = std::find(t.shape, t.shape + t.ndim, 0) != t.shape + t.ndim;
  std::int64_t stride = 1;
  for (int axis = t.ndim; t.strides != nullptr && !empty && axis-- > 0;) {
    if (t.shape[axis] != 1 && t.strides[axis] != stride) {
      return false;
    }
    stride *= t.shape[axis];
  }
  return true;
}

// Whether there is memory to be had of a tensor.
bool by_exchange(py::handle tensor, View* view) {
  if (torch.api == nullptr || torch.api->dltensor_from_py_object_no_sync(tensor.ptr(), view) != 0) {
    PyErr_Clear();
    return false;
  }
  const DLDataType& type = view->dtype;
  while (view->element < kNone && (kElements[view->element].code != type.code ||
                                   kElements[view->element].bits != type.bits || type.lanes != 1)) {
    ++view->element;
  }
  view->data = static_cast<char*>(view->data) + view->byte_offset;
  view->dense = is_dense(*view);
  return true;
}

// Slower, and there for every kind of tensor and every torch.
void by_attributes(py::handle tensor, bool memory, View* view) {
  const py::tuple found = torch.described(tensor, memory);
  view->own = found[0].cast<std::vector<std::int64_t>>();
  view->shape = view->own.data();
  view->ndim = static_cast<int>(view->own.size());
  view->element = found[1].cast<int>();
  view->device = {found[2].cast<std::int32_t>(), found[3].cast<std::int32_t>()};
  view->dense = found[4].cast<bool>();
  view->data = PyLong_AsVoidPtr(found[5].ptr());
}

}  // namespace

View::View(py::handle tensor, bool memory) : DLTensor{} {
  if (!by_exchange(tensor, this)) {
    by_attributes(tensor, memory, this);
  }
  const auto each = static_cast<std::uintptr_t>(kElements[element].bits / 8);
  bytes = kElements[element].bits / 8;
  for (int axis = 0; axis < ndim; ++axis) {
    bytes *= shape[axis];
  }
  const bool aligned = (reinterpret_cast<std::uintptr_t>(data) & (each - 1)) == 0;
  readable = aligned && (data != nullptr || bytes == 0);
}

py::object host_tensor(std::vector<std::int64_t>& shape, int element, void** data) {
  // Of one piece: what DLPack says of a tensor, then its elements, as torch aligns them.
  constexpr std::size_t kAligned = 64, kHead = sizeof(DLManagedTensorVersioned) + kAligned;
  std::size_t bytes = kElements[element].bits / 8;
  for (const std::int64_t extent : shape) {
    bytes *= static_cast<std::size_t>(extent);
  }
  auto* const made = static_cast<DLManagedTensorVersioned*>(std::malloc(kHead + bytes));
  if (made == nullptr) {
    PyErr_NoMemory();
    throw py::error_already_set();
  }
  const auto start = reinterpret_cast<std::uintptr_t>(made + 1) + kAligned - 1;
  *data = reinterpret_cast<void*>(start / kAligned * kAligned);
  const auto axes = static_cast<std::int32_t>(shape.size());
  *made = {{1, 0},
           nullptr,
           [](DLManagedTensorVersioned* self) { std::free(self); },
           0,
           {*data, {kDLCPU, 0}, axes, kElements[element], shape.data(), nullptr, 0}};
  void* tensor = nullptr;
  if (torch.api->managed_tensor_to_py_object_no_sync(made, &tensor) != 0) {
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(tensor));
}

}  // namespace free_dit
