// SPDX-License-Identifier: Apache-2.0
// A call of an op from Python: arguments by the op's contract into the record that its kernels get.
//
// What is not of the contract is a TypeError or a ValueError, before a thing is touched.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <utility>
#include <vector>

#include "contract.h"
#include "tensor.h"

namespace free_dit {

class Call {
 public:
  /// `exact`: no subclass of Tensor is a tensor. `memory`: tensors have some, unless they are fake.
  Call(const Op& op, bool exact, bool memory) : op_(op), exact_(exact), memory_(memory) {
    op_.init(record_.data());
  }

  /// So many arguments, at most, may be given by position.
  void take(PyObject* args, PyObject* kwargs, PyObject* defaults,
            std::size_t positional = kMostArguments);
  /// Whether there are kernels for tensors that lie as these do.
  bool served() const;
  /// Results, not written yet, where the kernels write.
  pybind11::tuple allocate();
  /// These results instead.
  void place(const pybind11::tuple& results);
  /// Runs the kernel. Throws what it throws, and std::invalid_argument for values out of range.
  void launch();
  pybind11::bytes record() const { return {record_.data(), op_.record_size}; }

 private:
  using Span = std::pair<const char*, const char*>;  // where a tensor lies in memory

  void take_value(const Argument& argument, PyObject* value);
  Span take_tensor(const Argument& argument, pybind11::handle tensor);
  void check_memory() const;
  bool absent(const Argument& argument) const;
  template <class T>
  T& field(std::size_t offset) {
    return *reinterpret_cast<T*>(record_.data() + offset);
  }

  const Op& op_;
  const bool exact_, memory_;
  bool readable_ = true;
  std::array<PyObject*, kMostArguments> values_{};  // borrowed
  std::array<Span, kMostArguments> spans_{};        // of those that are tensors
  std::vector<std::vector<std::int64_t>> shapes_;   // that are referred to
  Sizes sizes_;
  pybind11::handle first_;  // the tensor that says where
  DLDevice device_{kDLElsewhere, 0};
  alignas(16) std::array<char, kMostBytes> record_;
};

}  // namespace free_dit
