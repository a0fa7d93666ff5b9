// SPDX-License-Identifier: Apache-2.0
// verify_window on a GPU: reduce, decide, write.
//
// The sums of a transition are added up in chunks of kChunk elements, a warp to each chunk, and the
// chunks' sums in the chunks' order. Which block a chunk falls to changes nothing, so the result is
// the same in every run, in every batch and on every device. Two shapes of launch use that freedom:
//
//   one launch    a block a sample reduces, decides and writes
//   two launches  all warps of the chip reduce; then several blocks a sample each add up the
//                 chunks' sums, decide for themselves, all the same, and write their part
//
// One kernel with a counter, whose last block decides, would need the counter cleared first, a
// launch too, and leave the writing to one block. Nothing here waits for another block.
//
// Sums are in double, as on the CPU (free/transition.h): differences of floats are exact enough,
// but their squares overflow and underflow in float, and then a decision would differ from the
// CPU's.
#include <cuda_runtime.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"
#include "cuda/warp.h"
#include "free/outcome.h"
#include "free/relaxation.h"
#include "free/state.h"
#include "free/transition.h"
#include "free/verifier.h"

namespace free_dit::cuda {
namespace {

constexpr int kChunk = 512;  // elements: four quads a lane, twelve loads under way
constexpr int kChunkQuads = kChunk / (kQuad * kLanes);

constexpr int kReduceThreads = 128;  // small blocks: one sample's chunks reach many processors
constexpr int kReduceWarps = kReduceThreads / kLanes;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kLanes;
constexpr int kBlocksPerProcessor = 2;           // 64 registers a thread
constexpr std::int64_t kPart = 2048;             // elements that a block writes, in two launches
constexpr std::int64_t kSharedChunks = 512;      // most that a block reduces by itself
constexpr std::int64_t kFewChunks = 4 * kWarps;  // so few that it is not worth a second launch

struct Sums {
  double noise_dot_shift;
  double shift_sq;
  double fresh_noise_dot_shift;  // 0 where no verifier asks for it
};

__device__ __forceinline__ Sums sum_of_lanes(const Sums& sums) {
  return {warp_sum(sums.noise_dot_shift), warp_sum(sums.shift_sq),
          warp_sum(sums.fresh_noise_dot_shift)};
}

struct Plan {
  bool wide;            // rows can be moved by quads
  bool fresh;           // the verifier asks for fresh_noise_dot_shift
  bool alone;           // one launch: a block reduces its sample by itself
  std::int64_t chunks;  // of a transition
  std::int64_t parts;   // blocks that write a sample
};

// The rows of one sample.
struct Sample {
  std::int64_t index;
  int drafts;  // a length out of range must not lead out of the arrays

  __device__ Sample(const Window& w, std::int64_t b) : index(b) {
    const std::int64_t length = w.length[b];
    drafts = static_cast<int>(length < 1 ? 0 : (length > w.width ? w.width : length) - 1);
  }

  __device__ const float* x_hat(const Window& w, int j) const {
    return w.states + (index * w.width + j + 1) * w.size;
  }
  __device__ const float* m_hat(const Window& w, int j) const {
    return w.draft_means + (index * (w.width - 1) + j) * w.size;
  }
  __device__ const float* m(const Window& w, int j) const {
    return w.target_means + (index * w.width + j) * w.size;
  }
  __device__ const float* noise(const Window& w) const { return w.noise + index * w.size; }
};

// --- reduce ---

// By one warp; in every lane.
template <bool kWide>
__device__ Sums chunk_sums(const Window& w, const Sample& sample, int j, std::int64_t chunk,
                           bool fresh) {
  const float* x_hat = sample.x_hat(w, j);
  const float* m_hat = sample.m_hat(w, j);
  const float* m = sample.m(w, j);
  const std::int64_t first = chunk * kChunk + threadIdx.x % kLanes * kQuad;
  Quad<float> x[kChunkQuads], h[kChunkQuads], t[kChunkQuads];
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
    const std::int64_t at = first + q * kLanes * kQuad;
    x[q] = load<kWide>(x_hat, at, w.size);
    h[q] = load<kWide>(m_hat, at, w.size);
    t[q] = load<kWide>(m, at, w.size);
  }
  Sums sums{};
#pragma unroll
  for (int q = 0; q < kChunkQuads; ++q) {
    const std::int64_t at = first + q * kLanes * kQuad;
    const Quad<float> z = fresh ? load<kWide>(sample.noise(w), at, w.size) : Quad<float>{};
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const double shift = static_cast<double>(h[q].v[i] - t[q].v[i]);
      sums.noise_dot_shift += static_cast<double>(x[q].v[i] - h[q].v[i]) * shift;
      sums.shift_sq += shift * shift;
      if (fresh) {
        sums.fresh_noise_dot_shift += static_cast<double>(z.v[i]) * shift;
      }
    }
  }
  return sum_of_lanes(sums);
}

__device__ void reduce_chunk(const Window& w, const Plan& plan, const Sample& sample, int j,
                             std::int64_t chunk, Sums* out) {
  const Sums sums = plan.wide ? chunk_sums<true>(w, sample, j, chunk, plan.fresh)
                              : chunk_sums<false>(w, sample, j, chunk, plan.fresh);
  if (threadIdx.x % kLanes == 0) {
    *out = sums;
  }
}

// A warp a chunk; partial [B, W-1, chunks].
__global__ void __launch_bounds__(kReduceThreads) reduce(Window w, Plan plan, Sums* partial) {
  const std::int64_t task =
      static_cast<std::int64_t>(blockIdx.x) * kReduceWarps + threadIdx.x / kLanes;
  const std::int64_t chunk = task % plan.chunks;
  const std::int64_t transition = task / plan.chunks;
  const std::int64_t b = transition / (w.width - 1);
  if (b >= w.batch) {
    return;
  }
  const Sample sample(w, b);
  const int j = static_cast<int>(transition % (w.width - 1));
  if (j < sample.drafts) {
    reduce_chunk(w, plan, sample, j, chunk, partial + task);
  }
}

// --- decide ---

// What the decision reads and writes, in shared memory: a chain of single reads from the device's
// memory would take longer than all the sums.
struct Scalars {
  Sums sums[kMaxWidth - 1];
  float sigmas[kMaxWidth];
  float uniforms[kMaxWidth - 1];
  float log_ratios[kMaxWidth - 1];
  Outcome outcome;
};

struct Transitions {
  const Scalars& scalars;

  __device__ Transition examine(int j) const {
    const Sums& sums = scalars.sums[j];
    return {sums.noise_dot_shift, sums.shift_sq, scalars.sigmas[j]};
  }
  __device__ double fresh_noise_dot_shift(int j) const {
    return scalars.sums[j].fresh_noise_dot_shift;
  }
};

// A rule is asked by every block of a sample; what it has to say beside the outcome is written by
// the one that `records`.
struct Exact {
  Verifier verifier;

  __device__ Outcome operator()(const Window&, const Sample& sample, Scalars* s, bool) const {
    return decide(verifier, sample.drafts, Transitions{*s}, s->sigmas, s->uniforms, s->log_ratios);
  }
};

struct Relaxed {
  Lenience lenience;

  __device__ Outcome operator()(const Window& w, const Sample& sample, Scalars* s,
                                bool records) const {
    const std::int64_t b = sample.index;
    const float* uncertainty = lenience.uncertainty;
    Account account{lenience.spent[b], 0.0};
    const Outcome outcome =
        decide_relaxed(lenience, sample.drafts, Transitions{*s}, s->sigmas, s->uniforms,
                       uncertainty == nullptr ? nullptr : uncertainty + b * (w.width - 1), &account,
                       s->log_ratios);
    if (records) {
      lenience.bound[b] = account.spent;
      lenience.log_likelihood[b] = account.log_likelihood;
    }
    return outcome;
  }
};

// --- write ---

template <bool kWide>
__device__ void write_state(const Window& w, const Sample& sample, const Outcome& outcome,
                            float sigma, std::int64_t first, std::int64_t stride) {
  const int j = outcome.accepted;
  const float shift_factor = static_cast<float>(outcome.shift_factor);
  const bool drafted = shift_factor != 0.0f || outcome.noise == Noise::kDraft;
  const float* mean = sample.m(w, j);
  // Where there is no draft, or nothing of it is needed, any row will do.
  const float* draft_mean = drafted ? sample.m_hat(w, j) : mean;
  const float* noise = outcome.noise == Noise::kDraft ? sample.x_hat(w, j) : sample.noise(w);
  float* state = w.state + sample.index * w.size;
  for (std::int64_t at = first; at < w.size; at += stride) {
    const Quad<float> m = load<kWide>(mean, at, w.size);
    if (outcome.noise == Noise::kNone) {
      store<kWide>(state, at, w.size, m);
      continue;
    }
    const Quad<float> h = drafted ? load<kWide>(draft_mean, at, w.size) : m;
    const Quad<float> z = load<kWide>(noise, at, w.size);
    Quad<float> out;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      if (outcome.noise == Noise::kDraft) {
        out.v[i] = repaired_state(m.v[i], z.v[i], h.v[i], shift_factor);
      } else if (drafted) {
        out.v[i] = shifted_state(m.v[i], sigma, z.v[i], h.v[i], shift_factor);
      } else {
        out.v[i] = fresh_state(m.v[i], sigma, z.v[i]);
      }
    }
    store<kWide>(state, at, w.size, out);
  }
}

// plan.parts blocks a sample. Reduces first where it is alone.
template <class Rule>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor)
    settle(Window w, Plan plan, Rule rule, const Sums* partial) {
  __shared__ Scalars scalars;
  __shared__ Sums chunks[kSharedChunks];
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kLanes;
  const int lane = thread % kLanes;
  const std::int64_t part = blockIdx.x % plan.parts;
  const Sample sample(w, blockIdx.x / plan.parts);
  const std::int64_t b = sample.index;

  for (int j = thread; j < w.width; j += kThreads) {
    scalars.sigmas[j] = w.sigma[b * w.width + j];
    if (j < w.width - 1) {
      scalars.uniforms[j] = w.uniforms[b * (w.width - 1) + j];
      scalars.log_ratios[j] = NAN;
    }
  }
  if (plan.alone) {
    for (int task = warp; task < sample.drafts * plan.chunks; task += kWarps) {
      const int j = static_cast<int>(task / plan.chunks);
      reduce_chunk(w, plan, sample, j, task % plan.chunks, chunks + task);
    }
    __syncthreads();
    partial = chunks;
  } else {
    partial += b * (w.width - 1) * plan.chunks;
  }
  for (int j = warp; j < sample.drafts; j += kWarps) {
    Sums total{};
    for (std::int64_t chunk = lane; chunk < plan.chunks; chunk += kLanes) {
      const Sums sums = partial[j * plan.chunks + chunk];
      total.noise_dot_shift += sums.noise_dot_shift;
      total.shift_sq += sums.shift_sq;
      total.fresh_noise_dot_shift += sums.fresh_noise_dot_shift;
    }
    total = sum_of_lanes(total);
    if (lane == 0) {
      scalars.sums[j] = total;
    }
  }
  __syncthreads();
  if (thread == 0) {
    scalars.outcome = rule(w, sample, &scalars, part == 0);
  }
  __syncthreads();

  const Outcome outcome = scalars.outcome;
  if (part == 0) {
    for (int j = thread; j < w.width - 1; j += kThreads) {
      w.log_ratio[b * (w.width - 1) + j] = scalars.log_ratios[j];
    }
    if (thread == 0) {
      w.accepted[b] = outcome.accepted;
      w.advance[b] = outcome.accepted + 1;
    }
  }
  const float sigma = scalars.sigmas[outcome.accepted];
  const std::int64_t first = (part * kThreads + thread) * kQuad;
  const std::int64_t stride = plan.parts * kThreads * kQuad;
  if (plan.wide) {
    write_state<true>(w, sample, outcome, sigma, first, stride);
  } else {
    write_state<false>(w, sample, outcome, sigma, first, stride);
  }
}

// --- launch ---

Plan plan_for(const Window& w, bool fresh, const Queue& queue) {
  int processors = 0;
  check("verify_window",
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, queue.device));
  const bool wide = whole_quads(w.size, w.states, w.draft_means, w.target_means, w.noise, w.state);
  const std::int64_t chunks = ceil_div(w.size, kChunk);
  const std::int64_t to_reduce = (w.width - 1) * chunks;
  const bool alone =
      to_reduce <= kSharedChunks && (to_reduce <= kFewChunks || w.batch >= processors);
  return {wide, fresh, alone, chunks, alone ? 1 : ceil_div(w.size, kPart)};
}

template <class Rule>
void verify(const char* name, const Window& w, const Rule& rule, bool fresh, void* workspace,
            const Queue& queue) {
  if (w.width > kMaxWidth) {
    throw std::invalid_argument("states: expected at most " + std::to_string(kMaxWidth) +
                                " rows a window on CUDA, got " + std::to_string(w.width));
  }
  const OnDevice here(queue);
  const Plan plan = plan_for(w, fresh, queue);
  auto* partial = static_cast<Sums*>(workspace);
  if (!plan.alone) {
    const std::int64_t tasks = w.batch * (w.width - 1) * plan.chunks;
    launch(name, reduce, ceil_div(tasks, kReduceWarps), kReduceThreads, queue, w, plan, partial);
  }
  launch(name, settle<Rule>, w.batch * plan.parts, kThreads, queue, w, plan, rule, partial);
}

}  // namespace

std::int64_t verify_workspace(const Window& w) {
  return w.batch * (w.width - 1) * ceil_div(w.size, kChunk) *
         static_cast<std::int64_t>(sizeof(Sums));
}

void verify_window(const VerifiedWindow& w, void* workspace, const Queue& queue) {
  verify("verify_window", w, Exact{w.verifier}, w.verifier == Verifier::kBlock, workspace, queue);
}

void verify_window_relaxed(const RelaxedWindow& w, void* workspace, const Queue& queue) {
  verify("verify_window_relaxed", w, Relaxed{w}, false, workspace, queue);
}

}  // namespace free_dit::cuda
