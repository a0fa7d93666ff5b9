// SPDX-License-Identifier: Apache-2.0
// The launchers by plain names, for ctypes. Each returns null, or what went wrong.
#include <exception>
#include <string>

#include "cuda/kernels.h"
#include "cuda_runtime.h"

using namespace free_dit;

namespace {

template <class Call>
const char* attempt(const Call& call) {
  static std::string text;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    text = error.what();
    return text.c_str();
  }
}

const cuda::Queue kQueue{0, nullptr};

}  // namespace

extern "C" {

void shim_device(int processors, int descending) {
  cuda_shim::processors = processors;
  cuda_shim::descending = descending != 0;
}

std::int64_t shim_workspace(std::int64_t batch, std::int64_t width, std::int64_t size) {
  return cuda::verify_workspace(batch, width, size);
}

const char* shim_verify(const Window* window, int verifier, void* workspace) {
  return attempt(
      [&] { cuda::verify_window(*window, static_cast<Verifier>(verifier), workspace, kQueue); });
}

const char* shim_verify_relaxed(const Window* window, const Lenience* lenience, void* workspace) {
  return attempt([&] { cuda::verify_window_relaxed(*window, *lenience, workspace, kQueue); });
}

const char* shim_window_noise(const WindowNoise* draws) {
  return attempt([&] { cuda::window_noise(*draws, kQueue); });
}

const char* shim_first_guesses(const FirstGuesses* guesses) {
  return attempt([&] { cuda::first_guesses(*guesses, kQueue); });
}

const char* shim_roll(const Roll* roll) {
  return attempt([&] { cuda::roll_window(*roll, kQueue); });
}

const char* shim_means(const TargetMeans* means) {
  return attempt([&] { cuda::target_means(*means, kQueue); });
}

const char* shim_note(const NoteNonfinite* rows) {
  return attempt([&] { cuda::note_nonfinite(*rows, kQueue); });
}

std::int64_t shim_response_workspace(std::int64_t batch, std::int64_t width, std::int64_t size) {
  return cuda::response_workspace(batch, width, size);
}

const char* shim_response(const ResponseSums* sums, void* workspace) {
  return attempt([&] { cuda::response_sums(*sums, workspace, kQueue); });
}

const char* shim_philox(const Draws* draws, int normal) {
  return attempt(
      [&] { normal ? cuda::philox_normal(*draws, kQueue) : cuda::philox_uniform(*draws, kQueue); });
}

const char* shim_rows(const RecycledRows* rows) {
  return attempt([&] { cuda::recycled_rows(*rows, kQueue); });
}

}  // extern "C"
