// SPDX-License-Identifier: Apache-2.0
// free.ops._C: the contracts as Python reads them, and the one door to all ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "call.h"
#include "contract.h"
#include "cpu/kernels.h"
#include "cuda/device.h"

namespace py = pybind11;

namespace free_dit {
namespace {

// --- contracts -----------------------------------------------------------------------------------

std::string letter(char c) { return c == 0 ? "" : std::string(1, c); }

py::object described(const Axis& a) {
  return py::make_tuple(letter(a.times), letter(a.letter), a.plus, letter(a.open));
}

py::dict described(const Argument& a) {
  static const char* const kKinds[] = {"tensor", "integer", "number", "flag", "choice"};
  static const char* const kRests[] = {"", "...", "...?"};
  static const char* const kTypes[] = {"float32", "float64", "int32", "int64",
                                       "float32 float16 bfloat16"};
  py::dict d;
  d["name"] = a.name;
  d["kind"] = kKinds[static_cast<int>(a.kind)];
  d["optional"] = a.optional;
  py::list axes;
  for (const Axis& axis : a.shape.axes) {
    axes.append(described(axis));
  }
  d["axes"] = py::tuple(axes);
  d["rest"] = kRests[static_cast<int>(a.shape.rest)];
  d["filled"] = a.shape.filled;
  d["dtypes"] = kTypes[static_cast<int>(a.type)];
  d["written"] = a.written;
  d["group"] = a.group;
  d["binds"] = letter(a.binds);
  d["low"] = a.kind == Argument::Kind::kNumber ? py::object(py::float_(a.least)) : py::int_(a.low);
  d["high"] = a.kind == Argument::Kind::kNumber ? py::object(py::float_(a.most)) : py::int_(a.high);
  d["highest"] = a.highest.letter == 0 ? py::object(py::none()) : described(a.highest);
  d["choices"] = py::tuple(py::cast(std::vector<std::string>(a.choices.begin(), a.choices.end())));
  return d;
}

py::list contracts() {
  py::list all;
  for (const Op& op : ops()) {
    py::list arguments, results;
    for (const Argument& argument : op.arguments) {
      arguments.append(described(argument));
    }
    for (const Argument& result : op.results) {
      results.append(described(result));
    }
    all.append(py::make_tuple(op.name, arguments, results));
  }
  return all;
}

// --- torch ---------------------------------------------------------------------------------------

// Held until the process ends.
PyObject* kept(const py::handle& object) {
  return py::object(py::reinterpret_borrow<py::object>(object)).release().ptr();
}

std::vector<Names>& names() {
  static std::vector<Names> all(ops().size());
  return all;
}

// What torch is asked for. Without an exchange API, tensors cross as DLPack capsules.
void connect(const py::dict& used) {
  torch.tensor = kept(used["tensor"]);
  torch.to_dlpack = kept(used["to_dlpack"]);
  torch.stream_of = kept(used["stream_of"]);
  int type = 0;
  for (const py::handle dtype : used["dtypes"]) {
    torch.dtypes[type++] = kept(dtype);
  }
  torch.api = nullptr;
  if (!used["exchange"].is_none()) {
    const auto* api = static_cast<const DLPackExchangeAPI*>(
        PyCapsule_GetPointer(kept(used["exchange"]), "dlpack_exchange_api"));
    if (api == nullptr) {
      throw py::error_already_set();
    }
    while (api != nullptr && api->header.major != 1) {
      api = api->header.older;
    }
    torch.api = api != nullptr && api->dltensor_from_py_object_no_sync != nullptr ? api : nullptr;
  }
}

// The values of arguments that need not be given, and how many may be given by position.
void set_signature(std::size_t index, const py::dict& defaults, std::size_t positional) {
  const Op& op = ops().at(index);
  Names& n = names().at(index);
  n = {};
  n.positional = positional;
  for (const Argument& argument : op.arguments) {
    const py::str name(argument.name);
    n.keys.push_back(PyUnicode_InternFromString(argument.name.c_str()));
    n.defaults.push_back(defaults.contains(name) ? kept(defaults[name]) : nullptr);
  }
}

// --- calls ---------------------------------------------------------------------------------------

// (op, args, kwargs, x): false sets a TypeError for anything else.
bool unpack(PyObject* const* given, Py_ssize_t count, std::size_t* op) {
  if (count == 4 && PyLong_Check(given[0]) && PyTuple_Check(given[1]) && PyDict_Check(given[2])) {
    *op = PyLong_AsSize_t(given[0]);
    if (*op < ops().size() && !names()[*op].keys.empty()) {
      return true;
    }
  }
  PyErr_Clear();
  PyErr_SetString(PyExc_TypeError, "expected (op: int, args: tuple, kwargs: dict, ...)");
  return false;
}

template <class Work>
PyObject* translated(const Work& work) {
  try {
    return work();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* not_ours() {
  if (PyErr_Occurred() != nullptr) {
    return nullptr;
  }
  Py_RETURN_NOTIMPLEMENTED;
}

PyObject* run(PyObject*, PyObject* const* given, Py_ssize_t count) {
  std::size_t op = 0;
  if (!unpack(given, count, &op)) {
    return nullptr;
  }
  return translated([&] {
    Call call(ops()[op], names()[op]);
    return call.take(given[1], given[2], given[3] == Py_True) && call.allocate() && call.launch()
               ? call.result()
               : not_ours();
  });
}

PyObject* record(PyObject*, PyObject* const* given, Py_ssize_t count) {
  std::size_t op = 0;
  if (!unpack(given, count, &op) || !PyTuple_Check(given[3])) {
    return nullptr;
  }
  return translated([&] {
    Call call(ops()[op], names()[op]);
    return call.take(given[1], given[2], true) && call.take_results(given[3]) ? call.record()
                                                                              : not_ours();
  });
}

#define FREE_FAST(name, doc) \
  {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(name)), METH_FASTCALL, doc}

PyMethodDef kFast[] = {
    FREE_FAST(run,
              "run(op, args, kwargs, exact): results of an op by its compiled kernel, or "
              "NotImplemented for what is not of its contract or not on a device with kernels."),
    FREE_FAST(record,
              "record(op, args, kwargs, results): the bytes of what the kernels would be given."),
    {nullptr, nullptr, 0, nullptr}};

// --- the build -----------------------------------------------------------------------------------

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["cuda"] = cuda::version();
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["simd"] = cpu::simd_level();
  return info;
}

py::dict cuda_devices() {
  const cuda::Devices found = cuda::devices();
  py::list devices;
  for (const cuda::Device& device : found.devices) {
    py::dict entry;
    entry["name"] = device.name;
    entry["capability"] = py::make_tuple(device.major, device.minor);
    devices.append(entry);
  }
  py::dict result;
  result["devices"] = devices;
  result["reason"] = found.reason.empty() ? py::object(py::none()) : py::str(found.reason);
  return result;
}

}  // namespace
}  // namespace free_dit

PYBIND11_MODULE(_C, m) {
  using namespace free_dit;
  m.doc() = "Compiled core of free; free.ops is the checked door to it.";
  m.def("contracts", &contracts, "Of each op its name, arguments and results.");
  m.def("connect", &connect, "Say what is used of torch.");
  m.def("set_signature", &set_signature, "Say how an op is called.");
  m.def("cuda_refusal", &cuda::refusal, "Why there are no kernels for a CUDA device, or None.");
  m.def("build_info", &build_info,
        "Compiler, CUDA version (or None), OpenMP and instruction set in use.");
  m.def("cuda_devices", &cuda_devices,
        "{'devices': [{'name', 'capability'}], 'reason': why there are none, or None}.");
  if (PyModule_AddFunctions(m.ptr(), kFast) != 0) {
    throw py::error_already_set();
  }
}
