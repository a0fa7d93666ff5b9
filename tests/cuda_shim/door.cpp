// SPDX-License-Identifier: Apache-2.0
// The launchers by name, for ctypes: each is given the record that the compiled core fills in.
#include <exception>
#include <functional>
#include <map>
#include <string>

#include "cuda/kernels.h"
#include "cuda_runtime.h"

using namespace free_dit;

namespace {

const cuda::Queue kQueue{0, nullptr};

using Launch = std::function<void(const void*, void*)>;

template <class Record>
Launch plain(void (*launcher)(const Record&, const cuda::Queue&)) {
  return [=](const void* record, void*) { launcher(*static_cast<const Record*>(record), kQueue); };
}

template <class Record>
Launch spacious(void (*launcher)(const Record&, void*, const cuda::Queue&)) {
  return [=](const void* record, void* space) {
    launcher(*static_cast<const Record*>(record), space, kQueue);
  };
}

const std::map<std::string, Launch> kLaunchers{
    {"verify_window", spacious(cuda::verify_window)},
    {"verify_window_relaxed", spacious(cuda::verify_window_relaxed)},
    {"response_sums", spacious(cuda::response_sums)},
    {"window_noise", plain(cuda::window_noise)},
    {"first_guesses", plain(cuda::first_guesses)},
    {"roll_window_", plain(cuda::roll_window)},
    {"network_rows", plain(cuda::network_rows)},
    {"drafter_rows", plain(cuda::drafter_rows)},
    {"target_means", plain(cuda::target_means)},
    {"note_nonfinite_", plain(cuda::note_nonfinite)},
    {"advance_samples_", plain(cuda::advance_samples)},
    {"philox_normal", plain(cuda::philox_normal)},
    {"philox_uniform", plain(cuda::philox_uniform)},
};

}  // namespace

extern "C" {

void shim_device(int processors, int descending) {
  cuda_shim::processors = processors;
  cuda_shim::descending = descending != 0;
}

/// Bytes.
std::int64_t shim_workspace(const char* op, const void* record) {
  const std::string name = op;
  return name == "response_sums"
             ? cuda::response_workspace(*static_cast<const ResponseSums*>(record))
         : name.find("verify") == 0 ? cuda::verify_workspace(*static_cast<const Window*>(record))
                                    : 0;
}

/// Null, or what went wrong.
const char* shim_call(const char* op, const void* record, void* space) {
  static std::string text;
  try {
    kLaunchers.at(op)(record, space);
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

}  // extern "C"
