// SPDX-License-Identifier: Apache-2.0
// The CPU kernels.
#pragma once

#include <cstdint>

#include "free/arguments.h"

// One copy of a hot loop per instruction set, chosen when the module is loaded. The loops fix their
// own order of operations, so that every copy gives the same bits.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define FREE_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
// Of loops with fused products and sums, which the library does where the machine does not.
#define FREE_FMA_CLONES __attribute__((target_clones("avx512f", "fma", "default")))
#else
#define FREE_SIMD_CLONES
#define FREE_FMA_CLONES
#endif

namespace free_dit::cpu {

/// Elements of a batch below which starting threads costs more than it saves.
constexpr std::int64_t kParallelElements = std::int64_t{1} << 20;

void verify_window(const VerifiedWindow& window);
void verify_window_relaxed(const RelaxedWindow& window);
void window_noise(const WindowNoise& draws);
void first_guesses(const FirstGuesses& guesses);
void roll_window(const Roll& roll);
void network_rows(const NetworkRows& rows);
void drafter_rows(const DrafterRows& rows);
void target_means(const TargetMeans& means);
void note_nonfinite(const NoteNonfinite& rows);
void response_sums(const ResponseSums& sums);
void philox_normal(const Draws& draws);
void philox_uniform(const Draws& draws);
void advance_samples(const Advance& samples);

/// The instruction set that the kernels run with on this machine.
const char* simd_level();

}  // namespace free_dit::cpu
