// SPDX-License-Identifier: Apache-2.0
// Tensors of torch as the compiled core sees them, without torch's headers.
//
// The structs of C are the part of the DLPack ABI that is used here: the table of functions that
// newer torches offer (`Tensor.__dlpack_c_exchange_api__`). Source of the layouts: dmlc/dlpack 1.3,
// include/dlpack/dlpack.h, Apache-2.0.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

extern "C" {

struct DLDevice {
  std::int32_t device_type;
  std::int32_t device_id;
};

struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: dense, row-major
  std::uint64_t byte_offset;
};

struct DLManagedTensorVersioned {
  struct {
    std::uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

struct DLPackExchangeAPI {
  struct {
    std::uint32_t major, minor;
    DLPackExchangeAPI* older;
  } header;
  void (*managed_tensor_allocator)();               // not called here
  void (*managed_tensor_from_py_object_no_sync)();  // neither
  // A new tensor, which owns what it is made of. All return not 0 where a Python error is set.
  int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned* tensor, void** out);
  // Fills in a view that borrows shape and strides. May be null.
  int (*dltensor_from_py_object_no_sync)(void* object, DLTensor* out);
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // extern "C"

namespace free_dit {

constexpr std::int32_t kDLElsewhere = 0;  // neither of the others
constexpr std::int32_t kDLCPU = 1;
constexpr std::int32_t kDLCUDA = 2;

/// What is used of Python, for as long as the process lives; free/ops/operator.py says it.
struct Torch {
  pybind11::handle tensor;                 // the class
  pybind11::handle described;              // a tensor as View has it
  pybind11::handle empty;                  // a tensor on the device of another
  pybind11::handle stream_of;              // the current stream of a tensor's device, an integer
  pybind11::handle shortened;              // a value as an error shows it
  const DLPackExchangeAPI* api = nullptr;  // null: the functions above serve
};
extern Torch torch;

/// A tensor as it lies in memory.
struct View : DLTensor {
  int element = 0;                // a Type, or one more
  std::int64_t bytes = 0;         // of all elements
  bool dense = false;             // row-major
  bool readable = false;          // there is memory, and elements lie in it as kernels read them
  std::vector<std::int64_t> own;  // the shape of a tensor that does not lend its own

  /// Fake tensors must not be asked where their memory is.
  View(pybind11::handle tensor, bool memory);
};

/// A tensor in the host's memory, and where its elements lie: in memory of its own, which takes a
/// third of the time that torch's allocation takes. There must be an exchange API.
pybind11::object host_tensor(std::vector<std::int64_t>& shape, int element, void** data);

}  // namespace free_dit
