// SPDX-License-Identifier: Apache-2.0
// What the kernels are given, on the CPU and on a GPU. Pointers are to dense row-major arrays that
// the caller has checked, all in the memory of the device that the kernel runs on.
#pragma once

#include <cstdint>

#include "free/relaxation.h"

namespace free_dit {

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

struct Lenience {
  Relaxation rule;
  const float* uncertainty;  // [B, W-1]; null for the discrepancy
  const double* spent;       // [B], before this window

  double* bound;           // [B], after it
  double* log_likelihood;  // [B], of this window
};

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

struct Draws {
  std::int64_t rows;  // R
  std::int64_t size;  // D, elements of one row

  const std::int64_t* seeds;       // [R], read as unsigned 64-bit keys
  const std::int64_t* transition;  // [R], 0 .. 2^32 - 1
  const std::int64_t* round;       // [R], 0 .. 2^32 - 1
  std::uint32_t purpose;
  float* out;  // [R, D]
};

enum class Float { kFloat32, kFloat16, kBfloat16 };

struct TargetMeans {
  std::int64_t rows;    // R
  std::int64_t size;    // D, elements of one row
  std::int64_t guided;  // leading elements of a row that are guided; 0 without guidance
  float scale;          // of the guidance

  const float* x;   // [R, D]
  const void* eps;  // [R, D], or [2R, D] under guidance: a row with its label, then without
  Float type;       // of eps
  bool paired;      // whether eps has 2R rows
  const float* a;   // [R]
  const float* b;   // [R]

  float* combined;  // [R, D]
  float* means;     // [R, D]
};

struct RecycledRows {
  std::int64_t batch;   // B
  std::int64_t width;   // W of the next window
  bool discarded;       // whether rows behind a rejection are kept
  std::int64_t stride;  // from a sample's first row to the next one's; 0: its length

  const std::int32_t* length;   // [B], 1..
  const std::int32_t* advance;  // [B], 1..length

  std::int64_t* row;    // [B, W]
  std::int64_t* known;  // [B]
};

}  // namespace free_dit
