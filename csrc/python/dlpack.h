// SPDX-License-Identifier: Apache-2.0
// The part of the DLPack ABI that is read here: unversioned capsules ("dltensor"), which every
// torch has, and the table of functions that newer ones offer (`Tensor.__dlpack_c_exchange_api__`).
// Source of the layouts: dmlc/dlpack 1.3, include/dlpack/dlpack.h, Apache-2.0.
#pragma once

#include <cstdint>

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

struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};

struct DLPackExchangeAPI {
  struct {
    std::uint32_t major, minor;
    DLPackExchangeAPI* older;
  } header;
  // Not called here.
  void (*managed_tensor_allocator)();
  void (*managed_tensor_from_py_object_no_sync)();
  void (*managed_tensor_to_py_object_no_sync)();
  // Fills in a view that borrows shape and strides; not 0: a Python error is set. May be null.
  int (*dltensor_from_py_object_no_sync)(void* object, DLTensor* out);
  int (*current_work_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

}  // extern "C"
