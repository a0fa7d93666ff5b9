// SPDX-License-Identifier: Apache-2.0
#include "tensor.h"

#include <algorithm>

namespace py = pybind11;

namespace free_dit {

Torch torch;

namespace {

// As torch.dtypes, and any other.
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
  static const auto name = [](const char* word) { return PyUnicode_InternFromString(word); };
  static PyObject *const kShape = name("shape"), *const kDtype = name("dtype"),
                         *const kIsCpu = name("is_cpu"), *const kIsCuda = name("is_cuda"),
                         *const kDevice = name("get_device"),
                         *const kIsDense = name("is_contiguous"),
                         *const kPointer = name("data_ptr");
  const auto call = [&](PyObject* method) {
    return py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor.ptr(), method));
  };
  for (const py::handle extent : py::tuple(tensor.attr(kShape))) {
    view->own.push_back(extent.cast<std::int64_t>());
  }
  view->shape = view->own.data();
  view->ndim = static_cast<int>(view->own.size());
  const py::object type = tensor.attr(kDtype);
  while (view->element < kNone &&
         PyTuple_GET_ITEM(torch.dtypes.ptr(), view->element) != type.ptr()) {
    ++view->element;
  }
  if (tensor.attr(kIsCpu).ptr() == Py_True) {
    view->device = {kDLCPU, 0};
  } else if (tensor.attr(kIsCuda).ptr() == Py_True) {
    view->device = {kDLCUDA, call(kDevice).cast<std::int32_t>()};
  }
  view->dense = call(kIsDense).ptr() == Py_True;
  const py::object pointer = memory ? call(kPointer) : py::none();
  view->data = pointer && memory ? PyLong_AsVoidPtr(pointer.ptr()) : nullptr;
  PyErr_Clear();
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

}  // namespace free_dit
