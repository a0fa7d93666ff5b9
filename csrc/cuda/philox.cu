// SPDX-License-Identifier: Apache-2.0
// Rows of counter-based normals and uniforms on a GPU, and those of a window: a thread a counter
// block.
#include "free/philox.h"

#include <cuda_runtime.h>

#include "cuda/kernels.h"
#include "cuda/launch.h"
#include "cuda/quad.h"

namespace free_dit::cuda {
namespace {

constexpr int kThreads = 128;

struct Normals {
  __device__ Quad<float> operator()(const Philox4& word) const {
    const Pair head = box_muller(word.x, word.y);
    const Pair tail = box_muller(word.z, word.w);
    return {{head.first, head.second, tail.first, tail.second}};
  }
};

struct Uniforms {
  __device__ Quad<float> operator()(const Philox4& word) const {
    return {
        {unit_uniform(word.x), unit_uniform(word.y), unit_uniform(word.z), unit_uniform(word.w)}};
  }
};

template <class Law, bool kWide>
__global__ void __launch_bounds__(kThreads) draw_quads(Draws d, std::int64_t quads) {
  Place place;
  if (!find_place(d.rows, quads, &place)) {
    return;
  }
  const std::int64_t r = place.row;
  const Philox4 counter{static_cast<std::uint32_t>(place.at / kQuad),
                        static_cast<std::uint32_t>(d.transition[r]),
                        static_cast<std::uint32_t>(d.round[r]), d.purpose};
  const Philox4 word = philox4x32(counter, static_cast<std::uint64_t>(d.seeds[r]));
  store<kWide>(d.out + r * d.size, place.at, d.size, Law{}(word));
}

template <bool kWide>
__global__ void __launch_bounds__(kThreads) draw_window(WindowNoise d, std::int64_t quads) {
  Place place;
  if (!find_place(d.batch * d.width, quads, &place)) {
    return;
  }
  const std::int64_t b = place.row / d.width;
  const std::int64_t j = place.row - b * d.width;
  const std::int64_t wanted = wanted_of(d, b);
  const std::int64_t length = length_of(wanted);
  const bool drafted = j < d.width - 1;
  const bool last = j == length - 1;
  if (!drafted && !last) {
    return;
  }
  const std::uint64_t key = static_cast<std::uint64_t>(d.seeds[b]);
  const std::uint32_t transition = static_cast<std::uint32_t>(wrapped_sum(d.k[b], j));
  const std::uint32_t round = d.rounds == nullptr ? 0u : static_cast<std::uint32_t>(d.rounds[b]);
  const std::uint32_t block = static_cast<std::uint32_t>(place.at / kQuad);
  const Quad<float> noise = Normals{}(philox4x32({block, transition, round, d.purpose}, key));
  if (drafted) {
    const std::int64_t draft = b * (d.width - 1) + j;
    store<kWide>(d.noise + draft * d.size, place.at, d.size, noise);
    if (block == 0) {
      d.uniforms[draft] = unit_uniform(philox4x32({0, transition, round, d.decision}, key).x);
    }
  }
  if (last) {
    if (block == 0) {
      d.wanted[b] = wanted;
      d.drafted[b] = length - 1;
      d.length[b] = static_cast<std::int32_t>(length);
    }
    store<kWide>(d.last + b * d.size, place.at, d.size, noise);
  }
}

template <class Law>
void draw(const char* name, const Draws& d, const Queue& queue) {
  const OnDevice here(queue);
  const std::int64_t quads = ceil_div(d.size, kQuad);
  const bool wide = whole_quads(d.size, d.out);
  launch(name, wide ? draw_quads<Law, true> : draw_quads<Law, false>,
         ceil_div(d.rows * quads, kThreads), kThreads, queue, d, quads);
}

}  // namespace

void philox_normal(const Draws& draws, const Queue& queue) {
  draw<Normals>("philox_normal", draws, queue);
}

void philox_uniform(const Draws& draws, const Queue& queue) {
  draw<Uniforms>("philox_uniform", draws, queue);
}

void window_noise(const WindowNoise& d, const Queue& queue) {
  const OnDevice here(queue);
  // The first thread of a row writes its uniform and length, also of states without elements.
  const std::int64_t quads = d.size < 1 ? 1 : ceil_div(d.size, kQuad);
  const bool wide = whole_quads(d.size, d.noise, d.last);
  launch("window_noise", wide ? draw_window<true> : draw_window<false>,
         ceil_div(d.batch * d.width * quads, kThreads), kThreads, queue, d, quads);
}

}  // namespace free_dit::cuda
