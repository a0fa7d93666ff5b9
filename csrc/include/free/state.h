// SPDX-License-Identifier: Apache-2.0
// One element of the state that an Outcome speaks of (free/outcome.h): the write phase.
#pragma once

#include "free/platform.h"

namespace free_dit {

/// A draw from the target.
FREE_HOST_DEVICE float fresh_state(float m, float sigma, float noise) { return m + sigma * noise; }

/// A draw from what a draft has left of the target.
FREE_HOST_DEVICE float shifted_state(float m, float sigma, float noise, float m_hat,
                                     float shift_factor) {
  return m + (sigma * noise + shift_factor * (m_hat - m));
}

/// A draft, repaired: sigma * z is x_hat - m_hat as it stands.
FREE_HOST_DEVICE float repaired_state(float m, float x_hat, float m_hat, float shift_factor) {
  return m + ((x_hat - m_hat) + shift_factor * (m_hat - m));
}

}  // namespace free_dit
