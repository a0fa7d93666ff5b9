// SPDX-License-Identifier: Apache-2.0
// Which transitions of a window tell how the teacher's predictions follow its states.
#pragma once

#include <cstdint>

#include "free/platform.h"

namespace free_dit {

/// How many of a window's first `drafts` transitions count: made, from a draft, and seen before.
/// Whatever the other numbers are, it is in 0 .. drafts.
FREE_HOST_DEVICE std::int64_t counted(std::int64_t advance, std::int64_t length, std::int64_t known,
                                      std::int64_t drafts) {
  std::int64_t count = advance < drafts ? advance : drafts;
  if (length <= count) {
    count = length - 1;
  }
  if (known <= count) {
    count = known < 1 ? 0 : known - 1;
  }
  return count > 0 ? count : 0;
}

}  // namespace free_dit
