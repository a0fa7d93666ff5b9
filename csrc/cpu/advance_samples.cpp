// SPDX-License-Identifier: Apache-2.0
// advance_samples_ on the CPU: sample by sample.
#include <algorithm>

#include "cpu/kernels.h"

namespace free_dit::cpu {

void advance_samples(const Advance& a) {
  std::int64_t start = 0;
  for (std::int64_t b = 0; b < a.batch; ++b) {
    const std::int64_t made = std::int64_t{a.advance[b]} - 1;
    const std::int64_t last = a.discarded ? std::int64_t{a.length[b]} - 1 : made;
    for (std::int64_t i = 0; i < a.width; ++i) {
      a.row[b * a.width + i] = start + std::min(made + i, last);
    }
    a.known[b] = last - made + 1;
    start += a.stride == 0 ? a.length[b] : a.stride;
    a.k_after[b] = wrapped_sum(a.k[b], std::min<std::int64_t>(a.advance[b], a.wanted[b]));
    a.rounds_after[b] = wrapped_sum(a.rounds[b], 1);
    if (a.wanted[b] < 1) {
      std::copy_n(a.x + b * a.size, a.size, a.after + b * a.size);
    }
    if (a.entries > 0) {
      std::int64_t* entry = a.log + log_entry(a.rounds[0], a.entries) * 3 * a.batch + b;
      entry[0] = a.k[b];
      entry[a.batch] = a.wanted[b];
      entry[2 * a.batch] = a.accepted[b];
    }
  }
}

}  // namespace free_dit::cpu
