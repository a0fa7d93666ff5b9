// SPDX-License-Identifier: Apache-2.0
// response_sums on the CPU: transition by transition of each sample.
#include <cstring>

#include "cpu/kernels.h"
#include "free/evidence.h"

namespace free_dit::cpu {
namespace {

// Eight double accumulators a sum, whatever the machine's vectors are: the order of the additions
// depends on nothing but the size.
using Float8 = float __attribute__((vector_size(32)));
using Double8 = double __attribute__((vector_size(64)));
constexpr std::int64_t kBlock = 8;

struct Sums {
  double dot;
  double square;
};

FREE_SIMD_CLONES void add_row(const float* x, const float* x_old, const float* guess,
                              const float* guess_old, std::int64_t size, Sums* sums) {
  Double8 dots = {};
  Double8 squares = {};
  std::int64_t i = 0;
  for (; i + kBlock <= size; i += kBlock) {
    Float8 x8, old8, guess8, said8;
    std::memcpy(&x8, x + i, sizeof x8);
    std::memcpy(&old8, x_old + i, sizeof old8);
    std::memcpy(&guess8, guess + i, sizeof guess8);
    std::memcpy(&said8, guess_old + i, sizeof said8);
    const Double8 moved = __builtin_convertvector(x8 - old8, Double8);
    dots += moved * __builtin_convertvector(guess8 - said8, Double8);
    squares += moved * moved;
  }
  for (int lane = 0; lane < kBlock; ++lane) {
    sums->dot += dots[lane];
    sums->square += squares[lane];
  }
  for (; i < size; ++i) {
    const double moved = static_cast<double>(x[i] - x_old[i]);
    sums->dot += moved * static_cast<double>(guess[i] - guess_old[i]);
    sums->square += moved * moved;
  }
}

void sum_sample(const ResponseSums& r, std::int64_t b) {
  const std::int64_t count = counted(r.advance[b], r.length[b], r.known[b], r.width - 1);
  Sums sums{0.0, 0.0};
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t now = (b * r.width + j) * r.size;
    const std::int64_t past = r.row[b * r.entries + j + 1] * r.size;
    add_row(r.states + now, r.past_x + past, r.guess + now, r.past_guess + past, r.size, &sums);
  }
  r.dot_after[b] = static_cast<float>(r.memory * r.dot[b] + sums.dot);
  r.square_after[b] = static_cast<float>(r.memory * r.square[b] + sums.square);
}

}  // namespace

void response_sums(const ResponseSums& r) {
#pragma omp parallel for if (r.batch * r.width * r.size >= kParallelElements)
  for (std::int64_t b = 0; b < r.batch; ++b) {
    sum_sample(r, b);
  }
}

}  // namespace free_dit::cpu
