// SPDX-License-Identifier: Apache-2.0
// free.ops._C: the contracts as Python reads them, and the one door to all ops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "call.h"
#include "contract.h"
#include "cpu/kernels.h"
#include "cuda/device.h"

namespace py = pybind11;
using py::literals::operator""_a;

namespace free_dit {
namespace {

std::string letter(char c) { return std::string(c != 0, c); }

// As Axis of _C.pyi.
std::vector<py::tuple> described(const Shape& shape) {
  std::vector<py::tuple> all;
  for (const Axis& a : shape.axes) {
    all.push_back(py::make_tuple(letter(a.times), letter(a.letter), a.plus, letter(a.open)));
  }
  return all;
}

// What is said is kept as long as the process lives.
void connect(const py::kwargs& used) {
  used.inc_ref();
  torch = {used["tensor"],    used["described"], used["empty"],
           used["stream_of"], used["shortened"], nullptr};
  const py::object table = used["exchange"];
  const auto* api =
      table.is_none() ? nullptr : table.cast<py::capsule>().get_pointer<DLPackExchangeAPI>();
  while (api != nullptr &&
         (api->header.major != 1 || api->dltensor_from_py_object_no_sync == nullptr)) {
    api = api->header.older;
  }
  torch.api = api;
}

py::tuple check(std::size_t op, const py::tuple& args, bool allocate) {
  Call call(ops().at(op), false, false);
  call.take(args.ptr(), py::dict().ptr(), py::dict().ptr());
  return allocate ? call.allocate() : py::tuple();
}

py::bytes record(std::size_t op, const py::dict& kwargs, const py::tuple& results) {
  Call call(ops().at(op), true, true);
  call.take(py::tuple().ptr(), kwargs.ptr(), py::dict().ptr());
  call.place(results);
  return call.record();
}

// As Python's fastest calls pass it: pybind11's own would take as long as all that a small op does.
PyObject* run(PyObject*, PyObject* const* given, Py_ssize_t count) {
  const std::size_t op = count == 5 && PyLong_Check(given[0]) ? PyLong_AsSize_t(given[0]) : ~0u;
  if (op >= ops().size() || !PyTuple_Check(given[1]) || !PyDict_Check(given[2]) ||
      !PyDict_Check(given[3]) || (given[4] != Py_None && !PyLong_Check(given[4]))) {
    PyErr_SetString(PyExc_TypeError, "expected an int, a tuple, two dicts, and an int or None");
    return nullptr;
  }
  const bool exact = given[4] != Py_None;
  try {
    Call call(ops()[op], exact, true);
    call.take(given[1], given[2], given[3], exact ? PyLong_AsSize_t(given[4]) : kMostArguments);
    if (!call.served()) {
      return Py_NewRef(Py_NotImplemented);
    }
    const py::tuple results = call.allocate();
    call.launch();
    return Py_NewRef(results.size() > 1 ? results.ptr()
                     : results.empty()  ? Py_None
                                        : PyTuple_GET_ITEM(results.ptr(), 0));
  } catch (const py::type_error& error) {
    if (exact) {
      return Py_NewRef(Py_NotImplemented);
    }
    error.set_error();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyMethodDef kRun = {
    "run", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL,
    "run(op, args, kwargs, defaults, most): results of an op by its kernel. NotImplemented for "
    "tensors that "
    "no kernel can read; unless most is None, also for types that the contract does not have, and "
    "more than so many arguments by position."};

py::dict build_info() {
#if defined(_OPENMP)
  constexpr bool kThreads = true;
#else
  constexpr bool kThreads = false;
#endif
#if defined(__clang__)
  const char* const compiler = "clang " __clang_version__;
#else
  const char* const compiler = "gcc " __VERSION__;
#endif
  return py::dict("compiler"_a = compiler, "cuda"_a = cuda::version(), "openmp"_a = kThreads,
                  "simd"_a = cpu::simd_level());
}

py::tuple cuda_devices() {
  const cuda::Devices found = cuda::devices();
  py::list devices;
  for (const auto& [name, major, minor] : found.devices) {
    devices.append(py::dict("name"_a = name, "capability"_a = py::make_tuple(major, minor)));
  }
  const py::object reason = found.reason.empty() ? py::object(py::none()) : py::str(found.reason);
  return py::make_tuple(devices, reason);
}

}  // namespace
}  // namespace free_dit

PYBIND11_MODULE(_C, m) {
  using namespace free_dit;
  m.doc() = "Compiled core of free; free.ops is the checked door to it.";
  using A = const Argument&;
  static const char* const kKinds[] = {"tensor", "integer", "number", "flag", "choice"};
  static const char* const kRests[] = {"", "...?", "..."};
  py::class_<Argument>(m, "Argument")
      .def_readonly("name", &Argument::name)
      .def_property_readonly("kind", [](A a) { return kKinds[static_cast<int>(a.kind)]; })
      .def_readonly("optional", &Argument::optional)
      .def_property_readonly("axes", [](A a) { return described(a.shape); })
      .def_property_readonly("rest", [](A a) { return kRests[a.shape.rest + 1]; })
      .def_property_readonly("filled", [](A a) { return a.shape.filled; })
      .def_property_readonly("dtypes", [](A a) { return kTypeNames[static_cast<int>(a.type)]; })
      .def_readonly("written", &Argument::written)
      .def_readonly("group", &Argument::group)
      .def_property_readonly("binds", [](A a) { return letter(a.binds); })
      .def_readonly("low", &Argument::low)
      .def_readonly("high", &Argument::high)
      .def_readonly("least", &Argument::least)
      .def_readonly("most", &Argument::most)
      .def_property_readonly("highest", [](A a) { return described(a.highest); })
      .def_readonly("choices", &Argument::choices)
      .def("__repr__", [](A a) { return a.name; });
  py::class_<Op>(m, "Contract")
      .def_property_readonly("number", [](const Op& op) { return &op - ops().data(); })
      .def_readonly("name", &Op::name)
      .def_readonly("arguments", &Op::arguments)
      .def_readonly("results", &Op::results);
  m.attr("DTYPES") = py::cast(std::vector<std::string>(kTypeNames, std::end(kTypeNames) - 1));
  m.def("contracts", &ops, py::return_value_policy::reference, "All of them, in one order.");
  m.def("connect", &connect, "Say what is used of torch.");
  m.def("check", &check,
        "Raise for what is not of the contract; results, unwritten, if asked for.");
  m.def("record", &record, "The bytes of what the kernels would be given.");
  m.def("cuda_refusal", &cuda::refusal, "Why there are no kernels for a CUDA device, or None.");
  m.def("build_info", &build_info,
        "Compiler, CUDA version (or None), OpenMP and instruction set in use.");
  m.def("cuda_devices", &cuda_devices, "Devices with name and capability; why there are none.");
  m.add_object("run", py::reinterpret_steal<py::object>(PyCFunction_New(&kRun, nullptr)));
}
