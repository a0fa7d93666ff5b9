// SPDX-License-Identifier: Apache-2.0
// free.ops._C: the contracts as Python reads them, and the one door to all ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>
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

// As free.ops.contract.Argument has it.
py::tuple described(const Argument& a) {
  static const char* const kKinds[] = {"tensor", "integer", "number", "flag", "choice"};
  static const char* const kTypes[] = {"float32", "float64", "int32", "int64",
                                       "float32 float16 bfloat16"};
  const bool number = a.kind == Argument::Kind::kNumber;
  const py::object low = number ? py::object(py::float_(a.least)) : py::int_(a.low);
  const py::object high = number ? py::object(py::float_(a.most)) : py::int_(a.high);
  const std::vector<std::string> choices(a.choices.begin(), a.choices.end());
  return py::make_tuple(a.name, kKinds[static_cast<int>(a.kind)], a.optional, a.shape.text,
                        kTypes[static_cast<int>(a.type)], a.written, a.group,
                        a.binds == 0 ? "" : std::string(1, a.binds), low, high, a.highest.text,
                        choices);
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

// Without an exchange API, tensors cross as DLPack capsules.
void connect(py::object tensor, py::object to_dlpack, py::object stream_of,
             const std::vector<py::object>& dtypes, py::object exchange) {
  torch = {
      tensor.release().ptr(), to_dlpack.release().ptr(), stream_of.release().ptr(), {}, nullptr};
  for (py::object dtype : dtypes) {
    torch.dtypes.push_back(dtype.release().ptr());
  }
  if (!exchange.is_none()) {
    const auto* api = static_cast<const DLPackExchangeAPI*>(
        PyCapsule_GetPointer(exchange.release().ptr(), "dlpack_exchange_api"));
    while (api != nullptr && api->header.major != 1) {
      api = api->header.older;
    }
    torch.api = api != nullptr && api->dltensor_from_py_object_no_sync != nullptr ? api : nullptr;
    PyErr_Clear();
  }
}

std::vector<Signature>& signatures() {
  static std::vector<Signature> all(ops().size());
  return all;
}

void set_signature(std::size_t index, const py::dict& defaults, std::size_t positional) {
  Signature& s = signatures().at(index);
  if (ops()[index].arguments.size() > kMostArguments) {
    throw std::logic_error(ops()[index].name + " has too many arguments");
  }
  s = {{}, {}, positional};
  for (const Argument& argument : ops()[index].arguments) {
    s.names.push_back(PyUnicode_InternFromString(argument.name.c_str()));
    PyObject* value = PyDict_GetItem(defaults.ptr(), s.names.back());
    Py_XINCREF(value);
    s.defaults.push_back(value);
  }
}

// (op, args, kwargs, exact or results), as Python's fastest calls pass it: pybind11's own would
// take as long as all that a small op does.
template <class Work>
PyObject* with_call(PyObject* const* given, Py_ssize_t count, const Work& work) {
  try {
    const std::size_t op = count == 4 && PyLong_Check(given[0]) ? PyLong_AsSize_t(given[0]) : ~0u;
    PyErr_Clear();
    if (op >= ops().size() || signatures()[op].names.empty() || !PyTuple_Check(given[1]) ||
        !PyDict_Check(given[2])) {
      throw py::type_error("expected (op: int, args: tuple, kwargs: dict, exact or results)");
    }
    Call call(ops()[op], signatures()[op]);
    if (PyObject* found = work(call, given).release().ptr()) {
      return found;
    }
    return PyErr_Occurred() != nullptr ? nullptr : Py_NewRef(Py_NotImplemented);
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyObject* run(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return with_call(given, count, [](Call& call, PyObject* const* g) {
    const bool done =
        call.take(g[1], g[2], g[3] == Py_True) && call.take_results() && call.launch();
    return done ? call.result() : py::object();
  });
}

PyObject* record(PyObject*, PyObject* const* given, Py_ssize_t count) {
  return with_call(given, count, [](Call& call, PyObject* const* g) {
    const bool taken =
        call.take(g[1], g[2], true) && PyTuple_Check(g[3]) && call.take_results(g[3]);
    return taken ? py::object(call.record()) : py::object();
  });
}

PyCFunction fast(PyObject* (*f)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

PyMethodDef kFast[] = {
    {"run", fast(run), METH_FASTCALL,
     "run(op, args, kwargs, exact): results of an op by its kernel, or NotImplemented for what is "
     "not of its contract or not on a device with kernels."},
    {"record", fast(record), METH_FASTCALL,
     "record(op, args, kwargs, results): the bytes of what the kernels would be given."},
    {nullptr, nullptr, 0, nullptr}};

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

py::tuple cuda_devices() {
  const cuda::Devices found = cuda::devices();
  py::list devices;
  for (const cuda::Device& device : found.devices) {
    devices.append(py::dict(py::arg("name") = device.name,
                            py::arg("capability") = py::make_tuple(device.major, device.minor)));
  }
  return py::make_tuple(
      devices, found.reason.empty() ? py::object(py::none()) : py::object(py::str(found.reason)));
}

}  // namespace
}  // namespace free_dit

PYBIND11_MODULE(_C, m) {
  using namespace free_dit;
  m.doc() = "Compiled core of free; free.ops is the checked door to it.";
  m.def("contracts", &contracts, "Of each op its name, arguments and results.");
  m.def("connect", &connect, py::kw_only(), py::arg("tensor"), py::arg("to_dlpack"),
        py::arg("stream_of"), py::arg("dtypes"), py::arg("exchange"), "Say what is used of torch.");
  m.def("set_signature", &set_signature, "Say how an op is called.");
  m.def("cuda_refusal", &cuda::refusal, "Why there are no kernels for a CUDA device, or None.");
  m.def("build_info", &build_info,
        "Compiler, CUDA version (or None), OpenMP and instruction set in use.");
  m.def("cuda_devices", &cuda_devices, "Devices with name and capability; why there are none.");
  if (PyModule_AddFunctions(m.ptr(), kFast) != 0) {
    throw py::error_already_set();
  }
}
