// SPDX-License-Identifier: Apache-2.0
// What a build without CUDA answers.
#include <stdexcept>

#include "cuda/device.h"
#include "cuda/kernels.h"

namespace free_dit::cuda {
namespace {

constexpr const char* kRefusal =
    "this build of free has no CUDA kernels: install it again where nvcc is in PATH, with "
    "FREE_CUDA=ON pip install --force-reinstall --no-deps . in its source";

[[noreturn]] void refuse() { throw std::runtime_error(kRefusal); }

}  // namespace

std::optional<std::string> version() { return std::nullopt; }

Devices devices() { return {{}, "this build has no CUDA"}; }

std::optional<std::string> refusal(int) { return kRefusal; }

std::int64_t verify_workspace(const Window&) { refuse(); }
void verify_window(const VerifiedWindow&, void*, const Queue&) { refuse(); }
void verify_window_relaxed(const RelaxedWindow&, void*, const Queue&) { refuse(); }
void window_noise(const WindowNoise&, const Queue&) { refuse(); }
void first_guesses(const FirstGuesses&, const Queue&) { refuse(); }
void roll_window(const Roll&, const Queue&) { refuse(); }
void network_rows(const NetworkRows&, const Queue&) { refuse(); }
void drafter_rows(const DrafterRows&, const Queue&) { refuse(); }
void target_means(const TargetMeans&, const Queue&) { refuse(); }
void note_nonfinite(const NoteNonfinite&, const Queue&) { refuse(); }
std::int64_t response_workspace(const ResponseSums&) { refuse(); }
void response_sums(const ResponseSums&, void*, const Queue&) { refuse(); }
void philox_normal(const Draws&, const Queue&) { refuse(); }
void philox_uniform(const Draws&, const Queue&) { refuse(); }
void advance_samples(const Advance&, const Queue&) { refuse(); }

}  // namespace free_dit::cuda
