// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <algorithm>
#include <map>

#include "cuda/device.h"

namespace py = pybind11;

namespace free_dit {

Torch torch;

namespace {

constexpr std::int32_t kDLCPU = 1;
constexpr std::int32_t kDLCUDA = 2;

// Whether a tensor is of a type; of networks' answers also which of them it is.
bool is_of(Type type, const DLDataType& actual, Float* floating) {
  constexpr DLDataType kTypes[] = {{2, 32, 1}, {2, 64, 1}, {0, 32, 1}, {0, 64, 1}};
  constexpr DLDataType kFloating[] = {{2, 32, 1}, {2, 16, 1}, {4, 16, 1}};
  const auto same = [&](const DLDataType& t) {
    return t.code == actual.code && t.bits == actual.bits && t.lanes == actual.lanes;
  };
  if (type != Type::kFloating) {
    return same(kTypes[static_cast<int>(type)]);
  }
  const auto* found = std::find_if(std::begin(kFloating), std::end(kFloating), same);
  *floating = static_cast<Float>(found - kFloating);
  return found != std::end(kFloating);
}

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

void* memory_of(const DLTensor& t) { return static_cast<char*>(t.data) + t.byte_offset; }

/// Kernels read whole elements; memory that a caller brought need not lie as they do.
bool is_aligned(const DLTensor& t) {
  return reinterpret_cast<std::uintptr_t>(memory_of(t)) % (t.dtype.bits / 8) == 0;
}

std::int64_t bytes_of(const DLTensor& t) {
  std::int64_t bytes = t.dtype.bits / 8;
  for (int axis = 0; axis < t.ndim; ++axis) {
    bytes *= t.shape[axis];
  }
  return bytes;
}

bool is_integer(PyObject* value) { return PyLong_Check(value) && !PyBool_Check(value); }

// Whether this build has kernels for a GPU; asked once of each.
bool serves(int device) {
  static std::map<int, bool> known;
  const auto found = known.find(device);
  return found != known.end() ? found->second
                              : known.emplace(device, !cuda::refusal(device)).first->second;
}

}  // namespace

bool Call::take(PyObject* args, PyObject* kwargs, bool exact) {
  exact_ = exact;
  const std::vector<Argument>& arguments = op_.arguments;
  const auto given = static_cast<std::size_t>(PyTuple_GET_SIZE(args));
  if (given > (exact ? signature_.positional : arguments.size())) {
    return false;
  }
  Py_ssize_t named = PyDict_GET_SIZE(kwargs);
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    PyObject* value = i < given ? PyTuple_GET_ITEM(args, static_cast<Py_ssize_t>(i))
                                : PyDict_GetItemWithError(kwargs, signature_.names[i]);
    named -= i >= given && value != nullptr ? 1 : 0;
    values_[i] = value != nullptr ? value : signature_.defaults[i];
    if (values_[i] == nullptr) {
      return false;
    }
  }
  if (named != 0) {
    return false;
  }
  // Values first: sizes of tensors may depend on them, and limits of values on sizes.
  for (const bool tensors : {false, true}) {
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const Argument& a = arguments[i];
      if ((a.kind == Argument::Kind::kTensor) == tensors &&
          !(tensors ? take_tensor(a, values_[i], &spans_[i]) : take_value(a, values_[i]))) {
        return false;
      }
    }
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const Shape& highest = arguments[i].highest;
    if (!highest.axes.empty() && values_[i] != Py_None &&
        PyLong_AsLongLong(values_[i]) > sizes_.count(highest)) {
      return false;
    }
  }
  for (const auto& [offset, shape] : op_.counts) {
    field<std::int64_t>(offset) = sizes_.count(shape);
  }
  op_.prepare(record_.data());
  return !writes_into_another();
}

/// Whether a tensor that is changed in place shares memory with another argument.
bool Call::writes_into_another() const {
  for (std::size_t i = 0; i < op_.arguments.size(); ++i) {
    for (std::size_t j = 0; op_.arguments[i].written && j < op_.arguments.size(); ++j) {
      if (j != i && spans_[i].begin < spans_[j].end && spans_[j].begin < spans_[i].end) {
        return true;
      }
    }
  }
  return false;
}

bool Call::take_value(const Argument& a, PyObject* value) {
  const bool none = value == Py_None;
  if (a.optional && a.binds != 0) {
    sizes_.of(a.binds) = none ? 1 : 2;
  }
  if (none) {
    return a.optional;
  }
  if (a.kind == Argument::Kind::kFlag) {
    field<bool>(a.field) = value == Py_True;
    return PyBool_Check(value);
  }
  if (a.kind == Argument::Kind::kNumber) {
    if (!PyFloat_Check(value) && !is_integer(value)) {
      return false;
    }
    const double number = PyFloat_AsDouble(value);
    if (PyErr_Occurred() != nullptr) {  // an integer that is too large
      PyErr_Clear();
      return false;
    }
    a.store_number(&field<char>(a.field), number);
    return number >= a.least && number <= a.most;
  }
  std::int64_t number = a.low - 1;
  if (a.kind == Argument::Kind::kInteger && is_integer(value)) {
    int overflow = 0;
    number = PyLong_AsLongLongAndOverflow(value, &overflow);
    number = overflow != 0 ? a.low - 1 : number;
  }
  for (std::size_t i = 0; i < a.choices.size() && PyUnicode_Check(value); ++i) {
    if (PyUnicode_CompareWithASCIIString(value, a.choices[i]) == 0) {
      number = static_cast<std::int64_t>(i);
    }
  }
  if (number < a.low || number > a.high) {
    return false;
  }
  if (!a.optional && a.binds != 0) {
    sizes_.of(a.binds) = number;
  }
  a.store_integer(&field<char>(a.field), number);
  return true;
}

/// Whether an argument of its group is None.
bool Call::absent(const Argument& a) const {
  for (std::size_t i = 0; !a.group.empty() && i < op_.arguments.size(); ++i) {
    if (op_.arguments[i].group == a.group && values_[i] == Py_None) {
      return true;
    }
  }
  return false;
}

bool Call::view(PyObject* value, DLTensor* out) {
  auto* tensor = reinterpret_cast<PyTypeObject*>(torch.tensor);
  if (exact_ ? Py_TYPE(value) != tensor : !PyObject_TypeCheck(value, tensor)) {
    return false;
  }
  if (torch.api != nullptr) {
    if (torch.api->dltensor_from_py_object_no_sync(value, out) == 0) {
      return true;
    }
  } else {
    capsules_.push_back(
        py::reinterpret_steal<py::object>(PyObject_CallOneArg(torch.to_dlpack, value)));
    PyObject* capsule = capsules_.back().ptr();
    if (capsule != nullptr && PyCapsule_IsValid(capsule, "dltensor")) {
      *out = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor"))->dl_tensor;
      return true;
    }
  }
  PyErr_Clear();  // there is no memory to be had of it: other implementations may do without
  return false;
}

bool Call::take_tensor(const Argument& a, PyObject* value, Span* span) {
  if (value == Py_None || (!a.group.empty() && absent(a))) {
    return value == Py_None && a.optional;
  }
  DLTensor t;
  Float floating = Float::kFloat32;
  if (!view(value, &t) || !is_of(a.type, t.dtype, &floating) || !is_dense(t) || !is_aligned(t) ||
      !sizes_.fits(a.shape, t.shape, t.ndim)) {
    return false;
  }
  if (first_ == nullptr) {
    first_ = value;
    device_ = t.device;
  }
  // What is empty has no address, but it is not None, which kernels are told by null.
  alignas(64) static char nothing[64];
  field<void*>(a.field) = memory_of(t) != nullptr ? memory_of(t) : nothing;
  if (const std::int64_t bytes = bytes_of(t)) {
    span->begin = static_cast<const char*>(memory_of(t));
    span->end = span->begin + bytes;
  }
  if (a.type == Type::kFloating) {
    field<Float>(a.type_field) = floating;
  }
  return t.device.device_type == device_.device_type && t.device.device_id == device_.device_id;
}

// As a tensor of that type makes others, if there is one: torch has no quicker way.
py::object Call::empty(const std::vector<std::int64_t>& extents, Type type) const {
  static PyObject* const method = PyUnicode_InternFromString("new_empty");
  static PyObject* const dtype = Py_BuildValue("(s)", "dtype");
  PyObject* like = nullptr;
  for (std::size_t i = 0; like == nullptr && i < op_.arguments.size(); ++i) {
    const Argument& a = op_.arguments[i];
    const bool fits = a.kind == Argument::Kind::kTensor && a.type == type;
    like = fits && values_[i] != Py_None ? values_[i] : nullptr;
  }
  std::vector<py::int_> sizes(extents.begin(), extents.end());
  std::vector<PyObject*> given{like != nullptr ? like : first_};
  for (const py::int_& size : sizes) {
    given.push_back(size.ptr());
  }
  given.push_back(torch.dtypes[static_cast<std::size_t>(type)]);
  return py::reinterpret_steal<py::object>(PyObject_VectorcallMethod(
      method, given.data(), given.size() - 1, like != nullptr ? nullptr : dtype));
}

bool Call::take_results(PyObject* given) {
  const std::size_t count = op_.results.size();
  if (given != nullptr ? PyTuple_GET_SIZE(given) != static_cast<Py_ssize_t>(count)
                       : device_.device_type != kDLCPU &&
                             (device_.device_type != kDLCUDA || !serves(device_.device_id))) {
    return false;
  }
  results_.reserve(count);
  for (const Argument& result : op_.results) {
    const bool none = absent(result);
    const auto index = static_cast<Py_ssize_t>(results_.size());
    results_.push_back(
        given != nullptr ? py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(given, index))
                         : empty(none ? std::vector<std::int64_t>{0} : sizes_.extents(result.shape),
                                 result.type));
    PyObject* tensor = results_.back().ptr();
    Span span;
    if (tensor == nullptr || (!none && !take_tensor(result, tensor, &span))) {
      return false;
    }
  }
  return true;
}

bool Call::launch() {
  if (device_.device_type == kDLCPU) {
    op_.check(record_.data());
    const py::gil_scoped_release unlocked;
    op_.cpu(record_.data());
    return true;
  }
  py::object space;
  void* memory = nullptr;
  if (const std::int64_t bytes = op_.workspace(record_.data())) {
    DLTensor t;
    space = empty({bytes / static_cast<std::int64_t>(sizeof(double))}, Type::kFloat64);
    if (!space || !view(space.ptr(), &t)) {
      return false;
    }
    memory = memory_of(t);
  }
  cuda::Queue queue{device_.device_id, nullptr};
  if (torch.api != nullptr) {
    if (torch.api->current_work_stream(kDLCUDA, device_.device_id, &queue.stream) != 0) {
      return false;
    }
  } else {
    const py::object stream = py::reinterpret_borrow<py::object>(torch.stream_of)(
        py::reinterpret_borrow<py::object>(first_));
    queue.stream = PyLong_AsVoidPtr(stream.ptr());
  }
  const py::gil_scoped_release unlocked;
  op_.cuda(record_.data(), memory, queue);
  return true;
}

py::object Call::result() const {
  if (results_.size() < 2) {
    return results_.empty() ? py::none() : results_[0];
  }
  py::tuple all(results_.size());
  for (std::size_t i = 0; i < results_.size(); ++i) {
    PyTuple_SET_ITEM(all.ptr(), static_cast<Py_ssize_t>(i),
                     py::object(results_[i]).release().ptr());
  }
  return all;
}

}  // namespace free_dit
