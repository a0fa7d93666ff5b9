// SPDX-License-Identifier: Apache-2.0
// recycled_rows on the CPU: sample by sample.
#include <algorithm>

#include "cpu/kernels.h"

namespace free_dit::cpu {

void recycled_rows(const RecycledRows& r) {
  std::int64_t start = 0;
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const std::int64_t made = std::int64_t{r.advance[b]} - 1;
    const std::int64_t last = r.discarded ? std::int64_t{r.length[b]} - 1 : made;
    for (std::int64_t i = 0; i < r.width; ++i) {
      r.row[b * r.width + i] = start + std::min(made + i, last);
    }
    r.known[b] = last - made + 1;
    start += r.stride == 0 ? r.length[b] : r.stride;
  }
}

}  // namespace free_dit::cpu
