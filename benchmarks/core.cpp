// SPDX-License-Identifier: Apache-2.0
// Calls one kernel of the C++ core again and again, for counting its instructions
// (benchmarks/check.py):
//
//   core reflection|block|relaxed|guess|roll|normal CALLS
//
// One sample, a window of 8, 784 elements a state; every draft is close to the target's mean.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/kernels.h"

namespace {

constexpr std::int64_t kWidth = 8;
constexpr std::int64_t kSize = 784;
constexpr float kSigma = 0.1f;

std::vector<float> numbers(std::int64_t count, float scale) {
  std::vector<float> values(count);
  std::uint32_t state = 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = scale * (static_cast<float>(state >> 8) / 8388608.0f - 1.0f);
  }
  return values;
}

struct Data {
  std::vector<float> draft_means = numbers((kWidth - 1) * kSize, 1.0f);
  std::vector<float> target_means = numbers(kWidth * kSize, 1.0f);
  std::vector<float> states = numbers(kWidth * kSize, 1.0f);
  std::vector<float> sigma = std::vector<float>(kWidth, kSigma);
  std::vector<float> uniforms = std::vector<float>(kWidth - 1, 0.5f);
  std::vector<float> noise = numbers(kSize, 1.0f);
  std::vector<float> state = std::vector<float>(kSize);
  std::vector<float> log_ratio = std::vector<float>(kWidth - 1);
  std::vector<float> slope = std::vector<float>(kWidth - 1, 0.1f);
  std::vector<float> rolled = std::vector<float>(kWidth * kSize);
  std::vector<float> means = std::vector<float>(kWidth * kSize);
  std::vector<float> guesses = std::vector<float>(kWidth * kSize);
  std::vector<float> intercept = std::vector<float>((kWidth - 1) * kSize);
  std::vector<float> columns = std::vector<float>(8 * kWidth, kSigma);
  std::vector<float> coefficients = std::vector<float>(6 * kWidth);
  std::vector<std::int64_t> row = std::vector<std::int64_t>(kWidth);
  std::vector<std::int64_t> at = std::vector<std::int64_t>(kWidth);
  std::int64_t known = kWidth;
  std::int64_t settled = 0;
  std::int32_t length = kWidth;
  std::int32_t advance = 0;
  std::int32_t accepted = 0;

  Data() {
    // A hundredth of a sigma apart: every draft stands, so every row is read.
    for (std::size_t i = 0; i < draft_means.size(); ++i) {
      draft_means[i] = target_means[i] + 0.01f * kSigma / std::sqrt(784.0f);
      states[kSize + i] = draft_means[i] + kSigma * states[kSize + i];
    }
  }

  free_dit::Window window() {
    return {1,
            kWidth,
            kSize,
            states.data(),
            draft_means.data(),
            target_means.data(),
            sigma.data(),
            &length,
            uniforms.data(),
            noise.data(),
            state.data(),
            &advance,
            &accepted,
            log_ratio.data()};
  }

  free_dit::FirstGuesses first_guesses() {
    static const std::int64_t kNone = 0;
    static const float kOne = 1.0f;
    return {1,
            kWidth,
            kSize,
            kWidth,
            kWidth,
            kWidth,
            free_dit::Source::kResponse,
            noise.data(),
            &kNone,
            states.data(),
            target_means.data(),
            row.data(),
            &known,
            &kOne,
            &kOne,
            columns.data(),
            nullptr,
            std::numeric_limits<float>::infinity(),
            rolled.data(),
            means.data(),
            guesses.data(),
            state.data(),
            intercept.data(),
            slope.data(),
            &settled,
            at.data(),
            coefficients.data()};
  }

  free_dit::Roll roll() {
    return {1,
            kWidth,
            kSize,
            0,
            kWidth - 1,
            free_dit::Said::kGuess,
            rolled.data(),
            means.data(),
            guesses.data(),
            draft_means.data(),
            target_means.data(),
            slope.data(),
            nullptr,
            nullptr,
            columns.data()};
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: core reflection|block|relaxed|guess|roll|normal CALLS\n");
    return 2;
  }
  const char* kernel = argv[1];
  const int calls = std::atoi(argv[2]);
  Data data;
  const free_dit::VerifiedWindow reflection{data.window(), free_dit::Verifier::kReflection};
  const free_dit::VerifiedWindow block{data.window(), free_dit::Verifier::kBlock};
  const double spent = 0.0;
  double bound = 0.0;
  double log_likelihood = 0.0;
  const free_dit::RelaxedWindow relaxed{
      data.window(),
      {{free_dit::Rule::kAllow, 0.3, std::numeric_limits<double>::infinity()},
       nullptr,
       &spent,
       &bound,
       &log_likelihood}};
  const free_dit::FirstGuesses guesses = data.first_guesses();
  const free_dit::Roll roll = data.roll();
  const std::int64_t seed = 1;
  const std::int64_t none = 0;
  const free_dit::Draws draws{1, kSize, &seed, &none, &none, 0, data.state.data()};
  for (int call = 0; call < calls; ++call) {
    if (std::strcmp(kernel, "reflection") == 0) {
      free_dit::cpu::verify_window(reflection);
    } else if (std::strcmp(kernel, "block") == 0) {
      free_dit::cpu::verify_window(block);
    } else if (std::strcmp(kernel, "relaxed") == 0) {
      free_dit::cpu::verify_window_relaxed(relaxed);
    } else if (std::strcmp(kernel, "guess") == 0) {
      free_dit::cpu::first_guesses(guesses);
    } else if (std::strcmp(kernel, "roll") == 0) {
      free_dit::cpu::roll_window(roll);
    } else if (std::strcmp(kernel, "normal") == 0) {
      free_dit::cpu::philox_normal(draws);
    } else {
      std::fprintf(stderr, "no kernel %s\n", kernel);
      return 2;
    }
  }
  std::printf("%s %d\n", free_dit::cpu::simd_level(), static_cast<int>(data.accepted));
  return 0;
}
