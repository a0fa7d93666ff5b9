// SPDX-License-Identifier: Apache-2.0
// What the kernels are given, on the CPU and on a GPU. Pointers are to dense row-major arrays that
// the caller has checked, all in the memory of the device that the kernel runs on.
#pragma once

#include <cstdint>
#include <limits>

#include "free/guess.h"
#include "free/relaxation.h"
#include "free/roll.h"
#include "free/verifier.h"

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

struct VerifiedWindow : Window {
  Verifier verifier;
};

struct Lenience : Relaxation {
  const float* uncertainty;  // [B, W-1]; null for the discrepancy
  const double* spent;       // [B], before this window

  double* bound;           // [B], after it
  double* log_likelihood;  // [B], of this window
};

struct RelaxedWindow : Window, Lenience {};

/// A window of P transitions, of which first .. end - 1 are made.
struct Roll {
  std::int64_t batch;  // B
  std::int64_t width;  // P+1, states of a window
  std::int64_t size;   // D, elements of one state
  std::int64_t first;
  std::int64_t end;
  Said says;  // what a change is

  float* states;   // [B, P+1, D], entries first+1 .. end are written
  float* means;    // [B, P, D], entries first .. end-1 are written
  float* guesses;  // [B, P+1, D], as of states

  const float* noise;           // [B, P, D]
  const float* intercept;       // [B, P, D]
  const float* slope;           // [B, P]
  const float* change;          // [B, P, D]; null: all is settled
  const std::int64_t* settled;  // [B]; null without a change
  const float* coefficients;    // [6, B, P+1]; the last of a window are unused
  float clip = std::numeric_limits<float>::infinity();  // the largest guess
};

struct FirstGuesses {
  std::int64_t batch;   // B
  std::int64_t width;   // W = P+1
  std::int64_t size;    // D, elements of one state
  std::int64_t rows;    // R of the teacher's last call
  std::int64_t stride;  // V, from a sample's entries of `row` to the next one's; at least W
  std::int64_t steps;   // N of the schedule
  Source source;

  const float* x;                                       // [B, D]
  const std::int64_t* k;                                // [B]
  const float* past_x;                                  // [R, D]
  const float* past_guess;                              // [R, D]
  const std::int64_t* row;                              // [B, V], 0..R-1
  const std::int64_t* known;                            // [B]
  const float* dot;                                     // [B]
  const float* square;                                  // [B]
  const float* columns;                                 // [8, N], as Column has them
  const float* noise;                                   // [B, P, D]; null: the window is not rolled
  float clip = std::numeric_limits<float>::infinity();  // the largest guess

  float* states;          // [B, W, D]; not rolled, only entry 0 is written
  float* means;           // [B, P, D]; not rolled, none is
  float* guesses;         // [B, W, D], as of states
  float* mean_before;     // [B, D], of the transition just made
  float* intercept;       // [B, P, D]
  float* slope;           // [B, P]
  std::int64_t* settled;  // [B]
  std::int64_t* at;       // [B, W]
  float* coefficients;    // [6, B, W]: a, b, c, sigma, p and q
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

struct WindowNoise {
  std::int64_t batch;      // B
  std::int64_t width;      // W
  std::int64_t size;       // D, elements of one state
  std::int64_t steps;      // N of the schedule
  std::uint32_t purpose;   // of the normals
  std::uint32_t decision;  // of the uniforms

  const std::int64_t* seeds;   // [B], read as unsigned 64-bit keys
  const std::int64_t* k;       // [B], 0 .. 2^32 - W
  const std::int64_t* rounds;  // [B], 0 .. 2^32 - 1; null: 0
  const std::int64_t* widths;  // [B], rows asked for; null: W
  const float* like;           // [B, D]; not read

  float* noise;           // [B, W-1, D]
  float* uniforms;        // [B, W-1]
  float* last;            // [B, D], of transition length - 1
  std::int64_t* wanted;   // [B], 0..W
  std::int64_t* drafted;  // [B], length - 1
  std::int32_t* length;   // [B], 1..W
};

/// Rows that a window has: those asked for, but no more than there are transitions left.
FREE_HOST_DEVICE std::int64_t wanted_of(const WindowNoise& d, std::int64_t b) {
  const std::int64_t asked = d.widths == nullptr ? d.width : d.widths[b];
  const std::int64_t left = d.k[b] < 0 ? d.steps : d.k[b] < d.steps ? d.steps - d.k[b] : 0;
  const std::int64_t most = left < d.width ? left : d.width;
  return asked < 0 ? 0 : asked < most ? asked : most;
}

/// A window of no rows goes through the motions of one.
FREE_HOST_DEVICE std::int64_t length_of(std::int64_t wanted) { return wanted < 1 ? 1 : wanted; }

/// Rows of windows that a network is asked about: those listed, or entries first .. end - 1 of
/// every sample; with a null label each twice, with the label and without.
struct NetworkRows {
  std::int64_t batch;  // B
  std::int64_t width;  // W
  std::int64_t size;   // D, elements of one state
  std::int64_t steps;  // N of the schedule
  std::int64_t rows;   // R
  std::int64_t each;   // 2 with a null label, else 1
  std::int64_t first;  // 0..end
  std::int64_t end;    // 0..W
  std::int64_t null_label;

  const float* states;            // [B, W, D]
  const float* means;             // [B, W-1, D], of the transitions that led there; null: none
  const float* mean_before;       // [B, D], of the one that led to the first; null: none
  const std::int64_t* at;         // [B, W], transitions, 0..N-1
  const std::int64_t* y;          // [B]
  const std::int64_t* timesteps;  // [N]; copied, whatever 64 bits they are
  const float* scale;             // [N], of a network's input; null: 1
  const std::int64_t* sample;     // [R], 0..B-1; null: not listed
  const std::int64_t* entry;      // [R], 0..W-1; null: not listed

  float* x;             // [each R, D]
  std::int64_t* t;      // [each R]
  std::int64_t* label;  // [each R]
  std::int64_t* k;      // [R]
  float* mean;          // [R, D]; without means, not written
};

/// Rows that a drafter's network is asked about, which is told the noise that led to each state;
/// with a null label each twice, with the label and without.
struct DrafterRows {
  std::int64_t rows;   // R
  std::int64_t size;   // D, elements of one state
  std::int64_t steps;  // N of the schedule
  std::int64_t each;   // 2 with a null label, else 1
  std::int64_t null_label;

  const float* x;                 // [R, D]
  const float* mean;              // [R, D], of the transitions that led there
  const std::int64_t* k;          // [R], 0..N-1
  const std::int64_t* y;          // [R]
  const std::int64_t* timesteps;  // [N]; copied, whatever 64 bits they are
  const float* sigma;             // [N]
  const float* scale;             // [N], of a network's input; null: 1

  float* states;        // [each R, D]
  float* innovation;    // [each R, D]
  std::int64_t* t;      // [each R]
  std::int64_t* label;  // [each R]
};

/// The noise of a transition that led to a state.
FREE_HOST_DEVICE float innovation_of(float state, float mean, float sigma) {
  return (state - mean) / sigma;
}

/// Sample and entry of row r.
struct RowPlace {
  std::int64_t b;
  std::int64_t i;
};

FREE_HOST_DEVICE RowPlace place_of(const NetworkRows& n, std::int64_t r) {
  if (n.sample != nullptr) {
    return {nearest(n.sample[r], 0, n.batch), nearest(n.entry[r], 0, n.width)};
  }
  const std::int64_t span = n.end > n.first ? n.end - n.first : 1;
  return {nearest(r / span, 0, n.batch), nearest(n.first + r % span, 0, n.width)};
}

/// The mean of the transition that led to entry i of sample b.
FREE_HOST_DEVICE const float* mean_at(const NetworkRows& n, std::int64_t b, std::int64_t i) {
  return i == 0 ? n.mean_before + b * n.size : n.means + (b * (n.width - 1) + i - 1) * n.size;
}

enum class Float { kFloat32, kFloat16, kBfloat16 };

struct TargetMeans {
  std::int64_t rows;      // R
  std::int64_t channels;  // C
  std::int64_t size;      // D, elements of one row, C times those of a channel
  std::int64_t answers;   // 2 under guidance: a row with its label, then without; else 1
  std::int64_t guided;    // leading elements of a row that are guided; 0 without guidance
  std::int64_t steps;     // N of the schedule
  float scale;            // of the guidance where all of it counts

  const float* x;   // [R, D]
  const void* eps;  // [answers R, D]
  Float type;       // of eps

  const std::int64_t* k;                                // [R], 0..N-1
  const float* columns;                                 // [8, N], as Column has them
  float clip = std::numeric_limits<float>::infinity();  // the largest guess

  float* combined;  // [R, D]
  float* means;     // [R, D], without what the transition before adds
  float* guess;     // [R, D]
  float* sigma;     // [R]
};

struct NoteNonfinite {
  std::int64_t batch;    // B
  std::int64_t entries;  // n, rows of a sample
  std::int64_t size;     // D, elements of one row
  std::int64_t known;    // S, samples that are kept account of
  std::int64_t first;    // position of a sample's first row

  const void* values;           // [B n, D]
  Float type;                   // of values
  const std::int64_t* k;        // [B n]
  const std::int64_t* samples;  // [B], 0..S-1
  const std::int64_t* low;      // [B]; null for none
  const std::int64_t* high;     // [B]

  std::int64_t* failed;  // [S]
};

struct ResponseSums {
  std::int64_t batch;    // B
  std::int64_t width;    // W
  std::int64_t size;     // D, elements of one state
  std::int64_t past;     // R, rows of the call before
  std::int64_t entries;  // V >= W
  double memory;

  const float* states;          // [B, W, D]
  const float* guess;           // [B, W, D]
  const float* past_x;          // [R, D]
  const float* past_guess;      // [R, D]
  const std::int64_t* row;      // [B, V], 0..R-1
  const std::int64_t* known;    // [B]
  const std::int32_t* length;   // [B], 1..W
  const std::int32_t* advance;  // [B]
  const float* dot;             // [B]
  const float* square;          // [B]

  float* dot_after;     // [B]
  float* square_after;  // [B]
};

struct Advance {
  std::int64_t batch;    // B
  std::int64_t size;     // D, elements of one state
  std::int64_t width;    // W of the next window
  std::int64_t entries;  // M of the log; 0 without
  bool discarded;        // whether rows behind a rejection are kept
  std::int64_t stride;   // from a sample's first row to the next one's; 0: its length

  float* after;                  // [B, D], of which samples that wanted nothing get x
  const float* x;                // [B, D]
  const std::int64_t* k;         // [B]
  const std::int64_t* rounds;    // [B]
  const std::int64_t* wanted;    // [B]
  const std::int32_t* length;    // [B], 1..
  const std::int32_t* advance;   // [B], 1..length
  const std::int32_t* accepted;  // [B]
  std::int64_t* log;             // [M, 3, B]; null without

  std::int64_t* k_after;       // [B]
  std::int64_t* rounds_after;  // [B]
  std::int64_t* row;           // [B, W]
  std::int64_t* known;         // [B]
};

/// a + b; it wraps at the end of 64 bits, as torch's does.
FREE_HOST_DEVICE std::int64_t wrapped_sum(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

/// The entry of a log that a round writes: one of `entries`, whatever the count is.
FREE_HOST_DEVICE std::int64_t log_entry(std::int64_t rounds, std::int64_t entries) {
  const std::int64_t entry = rounds % entries;
  return entry < 0 ? entry + entries : entry;
}

}  // namespace free_dit
