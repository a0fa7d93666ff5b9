// SPDX-License-Identifier: Apache-2.0
// A call of an op from Python: arguments by the op's contract into the record that its kernels get.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <vector>

#include "contract.h"
#include "dlpack.h"

namespace free_dit {

/// What is used of torch, for as long as the process lives; filled in by free.ops.
struct Torch {
  PyObject* tensor = nullptr;              // the class
  PyObject* to_dlpack = nullptr;           // a capsule from a tensor
  PyObject* stream_of = nullptr;           // the current stream of a tensor's device, as an integer
  std::vector<PyObject*> dtypes;           // by Type
  const DLPackExchangeAPI* api = nullptr;  // null: tensors cross as capsules
};
extern Torch torch;

/// How an op is called: the interned names of its arguments, the values of those that need not be
/// given (or null), and how many may be given by position.
struct Signature {
  std::vector<PyObject*> names;
  std::vector<PyObject*> defaults;
  std::size_t positional = 0;
};

/// Each step says false for what is not of the contract or not for these kernels; nothing has been
/// touched then, and other implementations may serve. What may not be has set a Python error.
class Call {
 public:
  Call(const Op& op, const Signature& signature) : op_(op), signature_(signature) {
    op_.init(record_.data());
  }

  /// `exact`: subclasses of Tensor are not taken, nor more by position than the signature says.
  bool take(PyObject* args, PyObject* kwargs, bool exact);
  /// Results are allocated, unless the caller gives them as a tuple.
  bool take_results(PyObject* given = nullptr);
  /// Runs the kernel. Throws what it throws, and std::invalid_argument for values out of range.
  bool launch();
  /// None, a tensor or a tuple of them.
  pybind11::object result() const;
  /// The record as the kernels get it.
  pybind11::bytes record() const { return {record_.data(), op_.record_size}; }

 private:
  /// Where a tensor lies in memory.
  struct Span {
    const char* begin = nullptr;
    const char* end = nullptr;
  };

  bool take_value(const Argument& argument, PyObject* value);
  bool take_tensor(const Argument& argument, PyObject* value, Span* span);
  bool writes_into_another() const;
  bool view(PyObject* value, DLTensor* out);
  bool absent(const Argument& argument) const;
  pybind11::object empty(const std::vector<std::int64_t>& extents, Type type) const;
  template <class T>
  T& field(std::size_t offset) {
    return *reinterpret_cast<T*>(record_.data() + offset);
  }

  const Op& op_;
  const Signature& signature_;
  std::array<PyObject*, kMostArguments> values_{};  // borrowed
  std::array<Span, kMostArguments> spans_{};        // of arguments that are tensors
  Sizes sizes_;
  PyObject* first_ = nullptr;  // the tensor that says where
  DLDevice device_{0, 0};
  bool exact_ = true;
  std::vector<pybind11::object> results_;
  std::vector<pybind11::object> capsules_;  // whose shapes are borrowed
  alignas(16) std::array<char, kMostBytes> record_;
};

}  // namespace free_dit
