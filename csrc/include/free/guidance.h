// SPDX-License-Identifier: Apache-2.0
// Classifier-free guidance of one element, and the 16-bit floats that networks may answer in.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "free/platform.h"

namespace free_dit {

FREE_HOST_DEVICE float float_of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// As they lie in memory.
struct Half {
  std::uint16_t bits;
};
struct Bfloat {
  std::uint16_t bits;
};

FREE_HOST_DEVICE float widen(float value) { return value; }

FREE_HOST_DEVICE float widen(Bfloat value) {
  return float_of_bits(static_cast<std::uint32_t>(value.bits) << 16);
}

FREE_HOST_DEVICE float widen(Half value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t rest = static_cast<std::uint32_t>(value.bits & 0x7FFFu) << 13;
  if (rest >= 0x0F800000u) {  // infinite or NaN
    return float_of_bits(sign | rest | 0x7F800000u);
  }
  // The exponent's bias is 15 there and 127 here; subnormals come out right as well.
  const float magnitude = float_of_bits(rest) * 0x1p112f;
  return sign != 0 ? -magnitude : magnitude;
}

/// unconditional + scale * (conditional - unconditional), from the nearer end, as torch.lerp has
/// it, to the bit: scale 0 and 1 give the ends themselves.
FREE_HOST_DEVICE float guide(float conditional, float unconditional, float scale) {
  const float change = conditional - unconditional;
  return std::fabs(scale) < 0.5f ? std::fma(scale, change, unconditional)
                                 : std::fma(scale - 1.0f, change, conditional);
}

/// The scale of a guidance of which a share counts: `scale` itself for 1, no guidance for 0.
FREE_HOST_DEVICE float scale_at(float scale, float share) {
  return share == 1.0f ? scale : 1.0f + share * (scale - 1.0f);
}

}  // namespace free_dit
