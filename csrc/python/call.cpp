// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <pybind11/stl.h>

#include <cmath>
#include <map>

#include "cuda/device.h"

namespace py = pybind11;

namespace free_dit {
namespace {

// In the words of all errors.
template <class Error>
[[noreturn]] void refuse(const Argument& a, const std::string& expected, const std::string& got) {
  throw Error(a.name + ": expected " + expected + ", got " + got);
}

[[noreturn]] void refuse_type(const Argument& a, const char* expected, PyObject* value) {
  refuse<py::type_error>(a, expected, py::str(py::type::handle_of(value).attr("__name__")));
}

[[noreturn]] void refuse_value(const Argument& a, const std::string& expected, PyObject* value) {
  refuse<py::value_error>(a, expected, py::str(torch.shortened(py::handle(value))));
}

bool is_integer(PyObject* value) { return PyLong_Check(value) && !PyBool_Check(value); }

std::int64_t integer_of(const Argument& a, PyObject* value, std::int64_t high) {
  if (!is_integer(value)) {
    refuse_type(a, "an integer", value);
  }
  int overflow = 0;
  const std::int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
  const bool below = overflow < 0 || (overflow == 0 && number < a.low);
  if (below || overflow > 0 || number > high) {
    const std::string low = std::to_string(a.low), none = a.optional ? ", or None" : "";
    const std::string within = "a value in " + low + ".." + std::to_string(high);
    refuse_value(a, (below && high >= kWord ? "at least " + low : within) + none, value);
  }
  return number;
}

double number_of(const Argument& a, PyObject* value) {
  if (!PyFloat_Check(value) && !is_integer(value)) {
    refuse_type(a, "a number", value);
  }
  const double number = PyFloat_AsDouble(value);
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    refuse_value(a, "a value that a float can hold", value);
  }
  if (!(number >= a.least && number <= a.most)) {
    const char* const words = a.most < 1e300       ? "a value in [{:g}, {:g}]"
                              : std::isinf(a.most) ? "a value >= {:g}"
                                                   : "a finite value >= {:g}";
    refuse_value(a, py::str(words).format(a.least, a.most), value);
  }
  return number;
}

std::int64_t choice_of(const Argument& a, PyObject* value) {
  for (std::size_t i = 0; i < a.choices.size() && PyUnicode_Check(value); ++i) {
    if (PyUnicode_CompareWithASCIIString(value, a.choices[i]) == 0) {
      return static_cast<std::int64_t>(i);
    }
  }
  std::string expected;
  for (const char* name : a.choices) {
    expected += (expected.empty() ? "one of '" : ", '") + std::string(name) + "'";
  }
  refuse<py::value_error>(a, expected, py::repr(value));
}

// Whether this build has kernels for a GPU; asked once of each.
bool has_kernels(int device) {
  static std::map<int, bool> known;
  if (known.count(device) == 0) {
    known[device] = !cuda::refusal(device);
  }
  return known[device];
}

}  // namespace

void Call::take(PyObject* args, PyObject* kwargs, PyObject* defaults, std::size_t positional) {
  const std::vector<Argument>& arguments = op_.arguments;
  const auto given = static_cast<std::size_t>(PyTuple_GET_SIZE(args));
  Py_ssize_t named = PyDict_GET_SIZE(kwargs);
  bool bound = given <= positional && given <= arguments.size();
  for (std::size_t i = 0; bound && i < arguments.size(); ++i) {
    PyObject* const key = arguments[i].key;
    values_[i] = i < given ? PyTuple_GET_ITEM(args, static_cast<Py_ssize_t>(i))
                           : PyDict_GetItemWithError(kwargs, key);
    named -= i >= given && values_[i] != nullptr ? 1 : 0;
    values_[i] = values_[i] != nullptr ? values_[i] : PyDict_GetItemWithError(defaults, key);
    bound = values_[i] != nullptr;
  }
  if (!bound || named != 0) {
    throw py::type_error(op_.name + ": expected arguments as its signature has them");
  }
  // Values first: sizes of tensors may depend on them, and limits of values on sizes.
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].kind != Argument::Kind::kTensor) {
      take_value(arguments[i], values_[i]);
    }
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].kind == Argument::Kind::kTensor &&
        !(arguments[i].optional && values_[i] == Py_None)) {
      spans_[i] = take_tensor(arguments[i], values_[i]);
    }
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const Argument& a = arguments[i];
    if (values_[i] != Py_None && !a.highest.axes.empty()) {
      integer_of(a, values_[i], sizes_.count(a.highest));
    }
    if (a.optional && values_[i] != Py_None && absent(a)) {
      throw py::value_error(a.group + ": expected both or neither, got one of them");
    }
  }
  check_memory();
  for (const auto& [offset, shape] : op_.counts) {
    field<std::int64_t>(offset) = std::max<std::int64_t>(0, sizes_.count(shape));
  }
  op_.prepare(record_.data());
}

void Call::take_value(const Argument& a, PyObject* value) {
  const bool none = value == Py_None;
  if (a.optional && a.binds != 0) {
    sizes_.of(a.binds) = none ? 1 : 2;
  }
  if (a.optional && none) {
    return;
  }
  char* const at = &field<char>(a.field);
  switch (a.kind) {
    case Argument::Kind::kFlag:
      if (!PyBool_Check(value)) {
        refuse_type(a, "a bool", value);
      }
      field<bool>(a.field) = value == Py_True;
      return;
    case Argument::Kind::kNumber:
      return a.store_number(at, number_of(a, value));
    case Argument::Kind::kChoice:
      return a.store_integer(at, choice_of(a, value));
    default: {
      const std::int64_t number = integer_of(a, value, a.high);
      if (!a.optional && a.binds != 0) {
        sizes_.of(a.binds) = number;
      }
      return a.store_integer(at, number);
    }
  }
}

Call::Span Call::take_tensor(const Argument& a, py::handle tensor) {
  auto* const plain = reinterpret_cast<PyTypeObject*>(torch.tensor.ptr());
  if (exact_ ? Py_TYPE(tensor.ptr()) != plain : !PyObject_TypeCheck(tensor.ptr(), plain)) {
    refuse_type(a, "a tensor", tensor.ptr());
  }
  View view(tensor, memory_);
  const int type = static_cast<int>(a.type);
  if (a.type == Type::kFloating ? view.element > 2 : view.element != type) {
    const std::string got = py::str(tensor.attr("dtype"));
    refuse<py::type_error>(a, kTypeNames[type], got.substr(got.find('.') + 1));
  }
  if (!sizes_.fits(a.shape, view.shape, view.ndim)) {
    refuse<py::value_error>(a, sizes_.text(a.shape), py::str(py::list(tensor.attr("shape"))));
  }
  if (!first_) {
    first_ = tensor;
    device_ = view.device;
  }
  if (view.device.device_type != device_.device_type ||
      view.device.device_id != device_.device_id || device_.device_type == kDLElsewhere) {
    const py::object here = first_.attr("device"), there = tensor.attr("device");
    if (!there.equal(here)) {
      refuse<py::value_error>(a, py::str("a tensor on {}").format(here),
                              py::str("one on {}").format(there));
    }
  }
  if (!view.dense) {
    const py::list strides(tensor.attr("stride")());
    refuse<py::value_error>(a, "a contiguous tensor", py::str("strides {}").format(strides));
  }
  readable_ = readable_ && view.readable;
  // What is empty has no address, but it is not None, which kernels are told by null.
  alignas(64) static char nothing[64];
  field<void*>(a.field) = view.data != nullptr ? view.data : nothing;
  if (a.type == Type::kFloating) {
    field<Float>(a.type_field) = static_cast<Float>(view.element);
  }
  if (!view.own.empty()) {
    shapes_.push_back(std::move(view.own));
  }
  const auto* const begin = static_cast<const char*>(view.data);
  return {begin, begin + view.bytes};
}

// What is changed in place lies in no other argument's memory.
void Call::check_memory() const {
  for (std::size_t i = 0; i < op_.arguments.size(); ++i) {
    for (std::size_t j = 0; op_.arguments[i].written && j < op_.arguments.size(); ++j) {
      const Span &a = spans_[i], &b = spans_[j];
      if (i != j && a.first != nullptr && a.first < b.second && b.first < a.second) {
        refuse<py::value_error>(op_.arguments[i], "memory of its own, because it is written to",
                                "memory of " + op_.arguments[j].name);
      }
    }
  }
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

bool Call::served() const {
  return readable_ && (device_.device_type == kDLCPU ||
                       (device_.device_type == kDLCUDA && has_kernels(device_.device_id)));
}

py::tuple Call::allocate() {
  const bool own = memory_ && torch.api != nullptr && device_.device_type == kDLCPU;
  py::tuple results(op_.results.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    const Argument& a = op_.results[i];
    std::vector<std::int64_t> shape{0};
    if (!absent(a)) {
      shape = sizes_.extents(a.shape);
    }
    const int type = static_cast<int>(a.type);
    void* data = nullptr;
    results[i] = own ? host_tensor(shape, type, &data) : torch.empty(first_, shape, type);
    field<void*>(a.field) = absent(a) ? nullptr : data;
  }
  if (memory_ && !own) {
    place(results);
  }
  return results;
}

void Call::place(const py::tuple& results) {
  if (results.size() != op_.results.size()) {
    throw py::type_error("expected " + std::to_string(op_.results.size()) + " results");
  }
  for (std::size_t i = 0; i < op_.results.size(); ++i) {
    if (!absent(op_.results[i])) {
      take_tensor(op_.results[i], py::object(results[i]));
    }
  }
}

void Call::launch() {
  if (device_.device_type == kDLCPU) {
    op_.check(record_.data());
    const py::gil_scoped_release unlocked;
    op_.cpu(record_.data());
    return;
  }
  py::object space;
  void* memory = nullptr;
  if (const std::int64_t bytes = op_.workspace(record_.data())) {
    space = torch.empty(first_, py::make_tuple(bytes / 8), static_cast<int>(Type::kFloat64));
    memory = View(space, true).data;
  }
  cuda::Queue queue{device_.device_id, nullptr};
  if (torch.api == nullptr) {
    queue.stream = PyLong_AsVoidPtr(torch.stream_of(first_).ptr());
  } else if (torch.api->current_work_stream(kDLCUDA, device_.device_id, &queue.stream) != 0) {
    throw py::error_already_set();
  }
  const py::gil_scoped_release unlocked;
  op_.cuda(record_.data(), memory, queue);
}

}  // namespace free_dit
