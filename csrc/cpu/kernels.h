// SPDX-License-Identifier: Apache-2.0
// The CPU kernels. Pointers are to dense row-major arrays that the caller has checked.
#pragma once

#include <cstdint>

#include "free/relaxation.h"
#include "free/verifier.h"

// One copy of a hot loop per instruction set, chosen when the module is loaded. The loops fix their
// own order of operations, so that every copy gives the same bits.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define FREE_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FREE_SIMD_CLONES
#endif

namespace free_dit::cpu {

struct Window {
  std::int64_t batch;  // B
  std::int64_t width;  // W
  std::int64_t size;   // D, elements of one state

  const float* states;         // [B, W, D]
  const float* draft_means;    // [B, W-1, D]
  const float* target_means;   // [B, W, D]
  const float* sigma;          // [B, W]
  const std::int32_t* length;  // [B], 1..W
  const float* uniforms;       // [B, W-1]
  const float* noise;          // [B, D]

  float* state;            // [B, D]
  std::int32_t* advance;   // [B]
  std::int32_t* accepted;  // [B]
  float* log_ratio;        // [B, W-1], NaN where not examined
};

void verify_window(const Window& window, Verifier verifier);

struct Lenience {
  Relaxation rule;
  const float* uncertainty;  // [B, W-1]; null for the discrepancy
  const double* spent;       // [B], before this window

  double* bound;           // [B], after it
  double* log_likelihood;  // [B], of this window
};

void verify_window_relaxed(const Window& window, const Lenience& lenience);

struct Roll {
  std::int64_t batch;  // B
  std::int64_t steps;  // P, transitions; may be 0
  std::int64_t size;   // D, elements of one state

  const float* x;      // [B, D]
  const float* guess;  // [B, P, D]
  const float* noise;  // [B, P, D]
  const float* a;      // [B, P]
  const float* b;      // [B, P]
  const float* sigma;  // [B, P]

  float* states;  // [B, P+1, D]
  float* means;   // [B, P, D]
};

void roll_window(const Roll& roll);

struct Draws {
  std::int64_t rows;  // R
  std::int64_t size;  // D, elements of one row

  const std::int64_t* seeds;       // [R], read as unsigned 64-bit keys
  const std::int64_t* transition;  // [R], 0 .. 2^32 - 1
  const std::int64_t* round;       // [R], 0 .. 2^32 - 1
  std::uint32_t purpose;
  float* out;  // [R, D]
};

void philox_normal(const Draws& draws);
void philox_uniform(const Draws& draws);

/// The instruction set that the kernels run with on this machine.
const char* simd_level();

}  // namespace free_dit::cpu
