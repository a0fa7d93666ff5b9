// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <algorithm>
#include <stdexcept>

#include "cuda/device.h"

namespace free_dit {

Torch torch;

namespace {

constexpr std::int32_t kDLCPU = 1;
constexpr std::int32_t kDLCUDA = 2;

bool has_type(const DLDataType& actual, std::uint8_t code, std::uint8_t bits) {
  return actual.code == code && actual.bits == bits && actual.lanes == 1;
}

bool is_of(Type type, const DLDataType& actual, Float* floating) {
  constexpr std::uint8_t kInt = 0;
  constexpr std::uint8_t kFloat = 2;
  constexpr std::uint8_t kBfloat = 4;
  switch (type) {
    case Type::kFloat32:
      return has_type(actual, kFloat, 32);
    case Type::kFloat64:
      return has_type(actual, kFloat, 64);
    case Type::kInt32:
      return has_type(actual, kInt, 32);
    case Type::kInt64:
      return has_type(actual, kInt, 64);
    case Type::kFloating:
      break;
  }
  *floating = has_type(actual, kFloat, 32)   ? Float::kFloat32
              : has_type(actual, kFloat, 16) ? Float::kFloat16
                                             : Float::kBfloat16;
  return *floating != Float::kBfloat16 || has_type(actual, kBfloat, 16);
}

bool is_dense(const DLTensor& t) {
  if (t.strides == nullptr || std::find(t.shape, t.shape + t.ndim, 0) != t.shape + t.ndim) {
    return true;
  }
  std::int64_t stride = 1;
  for (int axis = t.ndim; axis-- > 0;) {
    if (t.shape[axis] != 1 && t.strides[axis] != stride) {
      return false;
    }
    stride *= t.shape[axis];
  }
  return true;
}

bool is_integer(PyObject* value) { return PyLong_Check(value) && !PyBool_Check(value); }

/// Another thread may have Python as long as this lives.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() { PyEval_RestoreThread(state_); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

/// Whether this build has kernels for a GPU; asked once of each.
bool serves(int device) {
  static std::vector<signed char> known(64, -1);
  const auto index = static_cast<std::size_t>(device);
  if (index >= known.size()) {
    return !cuda::refusal(device);
  }
  if (known[index] < 0) {
    known[index] = cuda::refusal(device) ? 0 : 1;
  }
  return known[index] == 1;
}

}  // namespace

Call::Call(const Op& op, const Names& names) : op_(op), names_(names) { op_.init(record_); }

bool Call::take(PyObject* args, PyObject* kwargs, bool exact) {
  exact_ = exact;
  const std::size_t count = op_.arguments.size();
  const auto given = static_cast<std::size_t>(PyTuple_GET_SIZE(args));
  if (given > (exact ? names_.positional : count)) {
    return false;
  }
  Py_ssize_t named = PyDict_GET_SIZE(kwargs);
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* value = i < given ? PyTuple_GET_ITEM(args, static_cast<Py_ssize_t>(i)) : nullptr;
    if (value == nullptr && named > 0) {
      value = PyDict_GetItemWithError(kwargs, names_.keys[i]);
      named -= value != nullptr ? 1 : 0;
    }
    values_[i] = value != nullptr ? value : names_.defaults[i];
    if (values_[i] == nullptr) {
      return false;
    }
  }
  if (named != 0) {
    return false;
  }
  // Values first: sizes of tensors may depend on them.
  for (std::size_t i = 0; i < count; ++i) {
    const Argument& argument = op_.arguments[i];
    if (argument.kind != Argument::Kind::kTensor && !take_value(argument, values_[i])) {
      return false;
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Argument& argument = op_.arguments[i];
    if (argument.kind == Argument::Kind::kTensor && !take_tensor(argument, values_[i])) {
      return false;
    }
  }
  if (!within_sizes()) {
    return false;
  }
  for (const auto& [field, shape] : op_.counts) {
    *reinterpret_cast<std::int64_t*>(at(field)) = sizes_.count(shape);
  }
  if (op_.prepare) {
    op_.prepare(record_);
  }
  return true;
}

bool Call::take_value(const Argument& a, PyObject* value) {
  const bool none = value == Py_None;
  if (none && !a.optional) {
    return false;
  }
  switch (a.kind) {
    case Argument::Kind::kInteger: {
      if (none) {
        return true;
      }
      int overflow = 0;
      const std::int64_t number =
          is_integer(value) ? PyLong_AsLongLongAndOverflow(value, &overflow) : a.low - 1;
      if (overflow != 0 || number < a.low || number > a.high) {
        return false;
      }
      if (a.store_integer != nullptr) {
        a.store_integer(at(a.field), number);
      }
      if (a.binds != 0) {
        sizes_.of(a.binds) = number;
      }
      return true;
    }
    case Argument::Kind::kNumber: {
      if (a.binds != 0) {
        sizes_.of(a.binds) = none ? 1 : 2;
      }
      if (none) {
        return true;
      }
      if (!PyFloat_Check(value) && !is_integer(value)) {
        return false;
      }
      const double number = PyFloat_AsDouble(value);
      if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        return false;
      }
      a.store_number(at(a.field), number);
      return number >= a.least && number <= a.most;
    }
    case Argument::Kind::kFlag:
      *reinterpret_cast<bool*>(at(a.field)) = value == Py_True;
      return PyBool_Check(value);
    case Argument::Kind::kChoice:
      for (std::size_t i = 0; PyUnicode_Check(value) && i < a.choices.size(); ++i) {
        if (PyUnicode_CompareWithASCIIString(value, a.choices[i]) == 0) {
          a.store_integer(at(a.field), static_cast<std::int64_t>(i));
          return true;
        }
      }
      return false;
    case Argument::Kind::kTensor:
      break;
  }
  return false;
}

bool Call::within_sizes() {
  for (std::size_t i = 0; i < op_.arguments.size(); ++i) {
    const Argument& a = op_.arguments[i];
    if (a.highest.letter != 0 && values_[i] != Py_None &&
        PyLong_AsLongLong(values_[i]) > sizes_.value(a.highest)) {
      return false;
    }
  }
  return true;
}

bool Call::take_tensor(const Argument& a, PyObject* value) {
  if (value != Py_None) {
    return !absent(a) && fill(a, value);
  }
  // Of a group, others may have been taken.
  for (std::size_t i = 0; !a.group.empty() && i < op_.arguments.size(); ++i) {
    if (op_.arguments[i].group == a.group && values_[i] != Py_None) {
      return false;
    }
  }
  return a.optional;
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
  PyTypeObject* tensor = reinterpret_cast<PyTypeObject*>(torch.tensor);
  if (exact_ ? Py_TYPE(value) != tensor : !PyObject_TypeCheck(value, tensor)) {
    return false;
  }
  if (torch.api != nullptr) {
    if (torch.api->dltensor_from_py_object_no_sync(value, out) == 0) {
      return true;
    }
  } else if (Held capsule{PyObject_CallOneArg(torch.to_dlpack, value)}) {
    if (auto* managed =
            static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.get(), "dltensor"))) {
      *out = managed->dl_tensor;
      capsules_.push_back(std::move(capsule));
      return true;
    }
  }
  PyErr_Clear();  // there is no memory to be had of it: other implementations may do without
  return false;
}

bool Call::fill(const Argument& a, PyObject* value) {
  DLTensor t;
  Float floating = Float::kFloat32;
  if (!view(value, &t) || !is_of(a.type, t.dtype, &floating) || !is_dense(t) ||
      !sizes_.fits(a.shape, t.shape, t.ndim)) {
    return false;
  }
  if (first_ == nullptr) {
    first_ = value;
    device_ = t.device;
  }
  if (t.device.device_type != device_.device_type || t.device.device_id != device_.device_id) {
    return false;
  }
  *reinterpret_cast<void**>(at(a.field)) = static_cast<char*>(t.data) + t.byte_offset;
  if (a.type_field != 0) {
    *reinterpret_cast<Float*>(at(a.type_field)) = floating;
  }
  return true;
}

// By a tensor of that type, if there is one: torch makes no quicker ones.
Held Call::empty(const std::int64_t* extents, std::size_t axes, Type type) const {
  static PyObject* const method = PyUnicode_InternFromString("new_empty");
  static PyObject* const dtype = Py_BuildValue("(s)", "dtype");
  PyObject* like = first_;
  bool same = false;
  for (std::size_t i = 0; !same && i < op_.arguments.size(); ++i) {
    const Argument& a = op_.arguments[i];
    if (a.kind == Argument::Kind::kTensor && a.type == type && values_[i] != Py_None) {
      like = values_[i];
      same = true;
    }
  }
  std::array<PyObject*, 64> given;
  given[0] = like;
  const std::size_t count = std::min(axes, given.size() - 2) + 1;
  std::vector<Held> integers;
  integers.reserve(count);
  for (std::size_t i = 1; i < count; ++i) {
    integers.emplace_back(PyLong_FromLongLong(extents[i - 1]));
    given[i] = integers.back().get();
  }
  given[count] = torch.dtypes[static_cast<int>(type)];
  return Held{PyObject_VectorcallMethod(method, given.data(), count, same ? nullptr : dtype)};
}

Held Call::new_tensor(const Argument& result) {
  std::vector<std::int64_t> extents;
  for (const Axis& axis : result.shape.axes) {
    extents.push_back(sizes_.value(axis));
  }
  if (result.shape.rest != Shape::Rest::kNone) {
    extents.insert(extents.end(), sizes_.rest, sizes_.rest + sizes_.rest_axes);
  }
  if (absent(result)) {
    extents.assign(1, 0);
  }
  return empty(extents.data(), extents.size(), result.type);
}

bool Call::allocate() {
  // Where there is no kernel nothing is allocated.
  if (device_.device_type != kDLCPU &&
      (device_.device_type != kDLCUDA || !serves(device_.device_id))) {
    return false;
  }
  results_.reserve(op_.results.size());
  for (const Argument& result : op_.results) {
    Held made = new_tensor(result);
    if (made == nullptr || (!absent(result) && !fill(result, made.get()))) {
      return false;
    }
    results_.push_back(std::move(made));
  }
  return true;
}

bool Call::take_results(PyObject* results) {
  if (PyTuple_GET_SIZE(results) != static_cast<Py_ssize_t>(op_.results.size())) {
    return false;
  }
  for (std::size_t i = 0; i < op_.results.size(); ++i) {
    PyObject* value = PyTuple_GET_ITEM(results, static_cast<Py_ssize_t>(i));
    if (!absent(op_.results[i]) && !fill(op_.results[i], value)) {
      return false;
    }
  }
  return true;
}

bool Call::launch() {
  if (device_.device_type == kDLCPU) {
    if (op_.check) {
      op_.check(record_);
    }
    const Unlocked unlocked;
    op_.cpu(record_);
    return true;
  }
  Held space;
  void* memory = nullptr;
  if (op_.workspace) {
    const std::int64_t doubles = op_.workspace(record_) / static_cast<std::int64_t>(sizeof(double));
    space = empty(&doubles, 1, Type::kFloat64);
    DLTensor t;
    if (space == nullptr || !view(space.get(), &t)) {
      return false;
    }
    memory = static_cast<char*>(t.data) + t.byte_offset;
  }
  cuda::Queue queue{device_.device_id, nullptr};
  if (torch.api != nullptr) {
    if (torch.api->current_work_stream(kDLCUDA, device_.device_id, &queue.stream) != 0) {
      return false;
    }
  } else {
    const Held stream{PyObject_CallOneArg(torch.stream_of, first_)};
    if (stream == nullptr) {
      return false;
    }
    queue.stream = PyLong_AsVoidPtr(stream.get());
  }
  const Unlocked unlocked;
  op_.cuda(record_, memory, queue);
  return true;
}

PyObject* Call::result() const {
  if (results_.empty()) {
    Py_RETURN_NONE;
  }
  if (results_.size() == 1) {
    return Py_NewRef(results_[0].get());
  }
  PyObject* all = PyTuple_New(static_cast<Py_ssize_t>(results_.size()));
  for (std::size_t i = 0; all != nullptr && i < results_.size(); ++i) {
    PyTuple_SET_ITEM(all, static_cast<Py_ssize_t>(i), Py_NewRef(results_[i].get()));
  }
  return all;
}

PyObject* Call::record() const {
  return PyBytes_FromStringAndSize(record_, static_cast<Py_ssize_t>(op_.record_size));
}

}  // namespace free_dit
