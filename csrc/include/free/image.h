// SPDX-License-Identifier: Apache-2.0
// One element of the image that a prediction of the noise tells.
#pragma once

#include "free/platform.h"

namespace free_dit {

/// x0 where state = signal x0 + noise eps.
FREE_HOST_DEVICE float image_of(float state, float eps, float signal, float noise) {
  return (state - noise * eps) / signal;
}

}  // namespace free_dit
