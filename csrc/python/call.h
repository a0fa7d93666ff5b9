// SPDX-License-Identifier: Apache-2.0
// A call of an op from Python: arguments by the op's contract into the record that its kernels get.
#pragma once

#include <Python.h>

#include <memory>
#include <vector>

#include "contract.h"
#include "dlpack.h"

namespace free_dit {

/// A reference that is held.
struct Release {
  void operator()(PyObject* object) const { Py_XDECREF(object); }
};
using Held = std::unique_ptr<PyObject, Release>;

/// What is used of torch; filled in once, by free.ops.
struct Torch {
  PyObject* tensor = nullptr;     // the class
  PyObject* to_dlpack = nullptr;  // a capsule from a tensor
  PyObject* stream_of = nullptr;  // the current stream of a tensor, as an integer
  PyObject* dtypes[4] = {};       // by Type
  const DLPackExchangeAPI* api = nullptr;
};
extern Torch torch;

/// Of an op's arguments: the interned names, and the values of those that need not be given.
struct Names {
  std::vector<PyObject*> keys;
  std::vector<PyObject*> defaults;  // or null
  std::size_t positional = 0;       // how many may be given by position
};

class Call {
 public:
  Call(const Op& op, const Names& names);

  /// Takes the arguments; false for what is not of the contract, and nothing has been touched then.
  /// `exact`: subclasses of Tensor are not.
  bool take(PyObject* args, PyObject* kwargs, bool exact);
  /// The results, that are allocated here or given by the caller; false where they do not fit.
  bool allocate();
  bool take_results(PyObject* results);
  /// Runs the kernel. Throws what it throws, and std::invalid_argument for values out of range.
  /// False where this build has no kernel for the device.
  bool launch();
  /// None, a tensor or a tuple of them.
  PyObject* result() const;
  /// The record as the kernels get it.
  PyObject* record() const;

  static constexpr std::size_t kMostArguments = 16;

 private:
  char* at(std::size_t field) { return record_ + field; }
  bool take_value(const Argument& argument, PyObject* value);
  bool take_tensor(const Argument& argument, PyObject* value);
  bool view(PyObject* value, DLTensor* out);
  bool fill(const Argument& argument, PyObject* value);
  bool within_sizes();
  Held new_tensor(const Argument& result);
  Held empty(const std::int64_t* extents, std::size_t axes, Type type) const;
  bool absent(const Argument& argument) const;

  const Op& op_;
  const Names& names_;
  PyObject* values_[kMostArguments] = {};  // borrowed
  Sizes sizes_;
  PyObject* first_ = nullptr;  // the tensor that says where
  DLDevice device_{0, 0};
  bool exact_ = true;
  std::vector<Held> results_;
  std::vector<Held> capsules_;  // whose shapes are borrowed
  alignas(16) char record_[512];
};

}  // namespace free_dit
