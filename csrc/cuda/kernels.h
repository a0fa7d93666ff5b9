// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels' launchers. They put work into a stream and return; a launch that fails is a
// std::runtime_error with CUDA's text. Pointers are the device's, values are not looked at.
#pragma once

#include <cstdint>

#include "free/arguments.h"

namespace free_dit::cuda {

/// Where the work goes.
struct Queue {
  int device;
  void* stream;  ///< a cudaStream_t of that device
};

/// W of the widest window that verify_window is compiled for.
constexpr int kMaxWidth = 256;

/// Bytes of device memory that verifying needs beside its arguments, aligned to 8.
std::int64_t verify_workspace(const Window& window);

void verify_window(const VerifiedWindow& window, void* workspace, const Queue& queue);
void verify_window_relaxed(const RelaxedWindow& window, void* workspace, const Queue& queue);
void window_noise(const WindowNoise& draws, const Queue& queue);
void first_guesses(const FirstGuesses& guesses, const Queue& queue);
void roll_window(const Roll& roll, const Queue& queue);
void network_rows(const NetworkRows& rows, const Queue& queue);
void drafter_rows(const DrafterRows& rows, const Queue& queue);
void target_means(const TargetMeans& means, const Queue& queue);
void note_nonfinite(const NoteNonfinite& rows, const Queue& queue);
/// Bytes of device memory that response_sums needs beside its arguments, aligned to 8.
std::int64_t response_workspace(const ResponseSums& sums);
void response_sums(const ResponseSums& sums, void* workspace, const Queue& queue);
void philox_normal(const Draws& draws, const Queue& queue);
void philox_uniform(const Draws& draws, const Queue& queue);
void advance_samples(const Advance& samples, const Queue& queue);

}  // namespace free_dit::cuda
