// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), uniforms and normals.
//
// The key is a request's 64-bit seed; the counter is (element block, transition, round, purpose).
// A block yields four words, hence four uniforms or four normals: element i of a row comes from
// block i / 4, word i % 4. Nothing else enters, so a row does not depend on its batch.
//
// log and sincos are polynomials here, not library calls: they vectorise, and CPU and GPU then
// evaluate the same expressions and agree to rounding.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "free/platform.h"

namespace free_dit {

struct Philox4 {
  std::uint32_t x, y, z, w;
};

struct Pair {
  float first, second;
};

/// The ten rounds: a bijection of the 128-bit counter for each 64-bit key.
FREE_HOST_DEVICE constexpr Philox4 philox4x32(Philox4 c, std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key);
  std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(c.x) * 0xD2511F53u;
    const std::uint64_t p1 = static_cast<std::uint64_t>(c.z) * 0xCD9E8D57u;
    c = Philox4{static_cast<std::uint32_t>(p1 >> 32) ^ c.y ^ k0, static_cast<std::uint32_t>(p1),
                static_cast<std::uint32_t>(p0 >> 32) ^ c.w ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// Uniform in [0, 1) from the upper 24 bits: every value is a multiple of 2^-24, exact in float.
FREE_HOST_DEVICE constexpr float unit_uniform(std::uint32_t word) {
  return static_cast<float>(static_cast<std::int32_t>(word >> 8)) * 0x1p-24f;
}

/// The minimax coefficients here and in cos_sin_turn are those of the Cephes library (S. Moshier).
///
/// Natural logarithm of a normal float in (0, 1]; within 1.5e-7 of the value, relatively.
FREE_HOST_DEVICE float log_unit(float u) {
  std::int32_t bits;
  std::memcpy(&bits, &u, sizeof bits);
  // u = mantissa * 2^exponent with the mantissa in [sqrt(1/2), sqrt(2)).
  const std::int32_t exponent = (bits - 0x3F3504F3) >> 23;
  bits -= exponent * (1 << 23);
  float mantissa;
  std::memcpy(&mantissa, &bits, sizeof mantissa);

  const float f = mantissa - 1.0f;
  const float e = static_cast<float>(exponent);
  const float f2 = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  // ln 2 is split in two so that exponent * ln 2 loses nothing.
  p = p * f * f2 - 2.12194440e-4f * e - 0.5f * f2;
  return f + p + 0.693359375f * e;
}

/// (cos, sin) of 2 pi word / 2^32; within 1.2e-7 absolutely.
FREE_HOST_DEVICE Pair cos_sin_turn(std::uint32_t word) {
  // The quarter turn nearest to the angle comes from the top bits, exactly; an eighth remains.
  const std::uint32_t quarter = (word + 0x20000000u) >> 30;
  const std::int32_t rest = static_cast<std::int32_t>(word - (quarter << 30));
  const float t = static_cast<float>(rest) * 1.4629180792671596e-9f;  // 2 pi / 2^32

  const float t2 = t * t;
  const float sine =
      ((-1.9515295891e-4f * t2 + 8.3321608736e-3f) * t2 - 1.6666654611e-1f) * t2 * t + t;
  const float cosine =
      ((2.443315711809948e-5f * t2 - 1.388731625493765e-3f) * t2 + 4.166664568298827e-2f) * t2 *
          t2 -
      0.5f * t2 + 1.0f;

  const bool swapped = (quarter & 1u) != 0;
  const float c = swapped ? sine : cosine;
  const float s = swapped ? cosine : sine;
  const bool negate_cos = quarter == 1u || quarter == 2u;
  const bool negate_sin = quarter >= 2u;
  return {negate_cos ? -c : c, negate_sin ? -s : s};
}

/// Two independent normals from two words (Box-Muller). |result| <= 6.67: 32 bits reach that far.
FREE_HOST_DEVICE Pair box_muller(std::uint32_t radius_word, std::uint32_t angle_word) {
  // 31 bits, then centred: never 0, and the conversion from a signed integer vectorises.
  const float u =
      (static_cast<float>(static_cast<std::int32_t>(radius_word >> 1)) + 0.5f) * 0x1p-31f;
  const float radius = std::sqrt(-2.0f * log_unit(u));
  const Pair direction = cos_sin_turn(angle_word);
  return {radius * direction.first, radius * direction.second};
}

}  // namespace free_dit
