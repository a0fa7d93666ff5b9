// SPDX-License-Identifier: Apache-2.0
// As on the CPU, but nothing looks at values, which would wait for the device. `stream` is a
// cudaStream_t as an integer; work is put into it and nothing waits for the result. All memory is
// the caller's.
#include "bindings_cuda.h"

#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "array.h"
#include "cuda/kernels.h"
#include "unwrap.h"

namespace py = pybind11;

namespace free_dit {
namespace {

// Where the work goes that this tensor is part of; the others must be there, too.
DLDevice gpu_of(const char* name, py::handle capsule) {
  const DLDevice device = Array(name, capsule).device();
  if (device.device_type != kDLCUDA) {
    throw py::value_error(std::string(name) + ": expected a tensor on a CUDA device, got one on " +
                          to_string(device));
  }
  return device;
}

cuda::Queue queue_of(const DLDevice& device, std::uintptr_t stream) {
  return {device.device_id, reinterpret_cast<void*>(stream)};
}

void require_width(const Window& window) {
  if (window.width > cuda::kMaxWidth) {
    throw py::value_error("states: expected at most " + std::to_string(cuda::kMaxWidth) +
                          " rows a window on CUDA, got " + std::to_string(window.width));
  }
}

void* workspace_of(const DLDevice& device, const Window& window, py::handle workspace) {
  const Array space("workspace", workspace, device);
  const std::int64_t bytes = cuda::verify_workspace(window.batch, window.width, window.size);
  return space.require_shape({bytes / static_cast<std::int64_t>(sizeof(double))}).float64();
}

std::int64_t verify_workspace(std::int64_t batch, std::int64_t width, std::int64_t size) {
  return cuda::verify_workspace(batch, width, size) / static_cast<std::int64_t>(sizeof(double));
}

void verify_window(const std::string& verifier, py::handle states, py::handle draft_means,
                   py::handle target_means, py::handle sigma, py::handle length,
                   py::handle uniforms, py::handle noise, py::handle state, py::handle advance,
                   py::handle accepted, py::handle log_ratio, py::handle workspace,
                   std::uintptr_t stream) {
  const DLDevice device = gpu_of("states", states);
  const Window window = window_of(device, states, draft_means, target_means, sigma, length,
                                  uniforms, noise, state, advance, accepted, log_ratio);
  const Verifier rule = named<Verifier>("verifier", kVerifierNames, verifier);
  require_width(window);
  void* space = workspace_of(device, window, workspace);
  const py::gil_scoped_release unlocked;
  cuda::verify_window(window, rule, space, queue_of(device, stream));
}

void verify_window_relaxed(const std::string& rule, double strength, double budget,
                           py::handle states, py::handle draft_means, py::handle target_means,
                           py::handle sigma, py::handle length, py::handle uniforms,
                           py::handle noise, py::handle uncertainty, py::handle spent,
                           py::handle state, py::handle advance, py::handle accepted,
                           py::handle log_ratio, py::handle bound, py::handle log_likelihood,
                           py::handle workspace, std::uintptr_t stream) {
  const DLDevice device = gpu_of("states", states);
  const Window window = window_of(device, states, draft_means, target_means, sigma, length,
                                  uniforms, noise, state, advance, accepted, log_ratio);
  const Lenience lenience = lenience_of(device, window, rule, strength, budget, uncertainty, spent,
                                        bound, log_likelihood);
  require_width(window);
  void* space = workspace_of(device, window, workspace);
  const py::gil_scoped_release unlocked;
  cuda::verify_window_relaxed(window, lenience, space, queue_of(device, stream));
}

void window_noise(std::uint32_t purpose, std::uint32_t decision, py::handle seeds, py::handle k,
                  py::handle rounds, py::handle length, py::handle noise, py::handle uniforms,
                  py::handle last, std::uintptr_t stream) {
  const DLDevice device = gpu_of("noise", noise);
  const Array normals("noise", noise, device);
  const Shape& shape = normals.shape();
  if (shape.size() != 3) {
    throw py::value_error("noise: expected shape [B, P, D], got " + to_string(shape));
  }
  const Shape samples{shape[0]};
  const WindowNoise arguments{
      shape[0],
      shape[1] + 1,
      shape[2],
      purpose,
      decision,
      Array("seeds", seeds, device).require_shape(samples).int64(),
      Array("k", k, device).require_shape(samples).int64(),
      rounds.is_none() ? nullptr : Array("rounds", rounds, device).require_shape(samples).int64(),
      Array("length", length, device).require_shape(samples).int32(),
      normals.float32(),
      Array("uniforms", uniforms, device).require_shape({shape[0], shape[1]}).float32(),
      Array("last", last, device).require_shape({shape[0], shape[2]}).float32(),
  };
  require_blocks("noise", arguments.size);
  const py::gil_scoped_release unlocked;
  cuda::window_noise(arguments, queue_of(device, stream));
}

void first_guesses(py::handle x, py::handle k, py::handle past_x, py::handle past_guess,
                   py::handle row, py::handle known, py::handle source, py::handle dot,
                   py::handle square, py::handle columns, py::handle states, py::handle means,
                   py::handle guesses, py::handle intercept, py::handle slope, py::handle settled,
                   py::handle at, py::handle coefficients, std::uintptr_t stream) {
  const DLDevice device = gpu_of("x", x);
  const FirstGuesses arguments =
      first_guesses_of(device, x, k, past_x, past_guess, row, known, source, dot, square, columns,
                       states, means, guesses, intercept, slope, settled, at, coefficients);
  const py::gil_scoped_release unlocked;
  cuda::first_guesses(arguments, queue_of(device, stream));
}

void roll_window(bool adds, std::int64_t first, std::int64_t end, py::handle states,
                 py::handle means, py::handle guesses, py::handle noise, py::handle intercept,
                 py::handle slope, py::handle change, py::handle settled, py::handle a,
                 py::handle b, py::handle sigma, std::uintptr_t stream) {
  const DLDevice device = gpu_of("states", states);
  const Roll roll = roll_of(device, adds, first, end, states, means, guesses, noise, intercept,
                            slope, change, settled, a, b, sigma);
  const py::gil_scoped_release unlocked;
  cuda::roll_window(roll, queue_of(device, stream));
}

void target_means(std::optional<float> cfg_scale, std::optional<std::int64_t> cfg_channels,
                  py::handle x, py::handle eps, py::handle a, py::handle b, py::handle signal,
                  py::handle noise, py::handle combined, py::handle means, py::handle guess,
                  std::uintptr_t stream) {
  const DLDevice device = gpu_of("x", x);
  const Array states("x", x, device);
  const Shape& shape = states.shape();
  if (shape.size() < 2) {
    throw py::value_error("x: expected shape [R, C, ...], got " + to_string(shape));
  }
  const Shape rows{shape[0]};
  std::int64_t size = 1;
  for (std::size_t axis = 1; axis < shape.size(); ++axis) {
    size *= shape[axis];
  }
  const std::int64_t channels = cfg_channels.value_or(shape[1]);
  if (channels < 0 || channels > shape[1]) {
    throw py::value_error("cfg_channels: expected a value in 0.." + std::to_string(shape[1]) +
                          ", got " + std::to_string(channels));
  }
  Shape answers = shape;
  answers[0] *= cfg_scale ? 2 : 1;
  const Array said("eps", eps, device);
  // What an image needs, which is all there or none of it.
  const auto of_image = [&](const char* name, py::handle capsule, const Shape& expected) -> float* {
    if (capsule.is_none() != guess.is_none()) {
      throw py::value_error("signal, noise and guess: expected all or none of them");
    }
    return capsule.is_none() ? nullptr
                             : Array(name, capsule, device).require_shape(expected).float32();
  };
  const TargetMeans arguments{
      shape[0],
      size,
      cfg_scale && size > 0 ? channels * (size / shape[1]) : 0,
      cfg_scale.value_or(1.0f),
      states.float32(),
      said.require_shape(answers).elements(),
      said.floating(),
      cfg_scale.has_value(),
      Array("a", a, device).require_shape(rows).float32(),
      Array("b", b, device).require_shape(rows).float32(),
      of_image("signal", signal, rows),
      of_image("noise", noise, rows),
      Array("combined", combined, device).require_shape(shape).float32(),
      Array("means", means, device).require_shape(shape).float32(),
      of_image("guess", guess, shape),
  };
  const py::gil_scoped_release unlocked;
  cuda::target_means(arguments, queue_of(device, stream));
}

void note_nonfinite(std::int64_t first, py::handle failed, py::handle values, py::handle k,
                    py::handle samples, py::handle low, py::handle high, std::uintptr_t stream) {
  const DLDevice device = gpu_of("failed", failed);
  const NoteNonfinite rows = note_of(device, first, failed, values, k, samples, low, high);
  const py::gil_scoped_release unlocked;
  cuda::note_nonfinite(rows, queue_of(device, stream));
}

std::int64_t response_workspace(std::int64_t batch, std::int64_t width, std::int64_t size) {
  return cuda::response_workspace(batch, width, size) / static_cast<std::int64_t>(sizeof(double));
}

void response_sums(double memory, py::handle states, py::handle guess, py::handle past_x,
                   py::handle past_guess, py::handle row, py::handle known, py::handle length,
                   py::handle advance, py::handle dot, py::handle square, py::handle dot_after,
                   py::handle square_after, py::handle workspace, std::uintptr_t stream) {
  const DLDevice device = gpu_of("states", states);
  const ResponseSums sums =
      response_of(device, memory, states, guess, past_x, past_guess, row, known, length, advance,
                  dot, square, dot_after, square_after);
  const std::int64_t count = response_workspace(sums.batch, sums.width, sums.size);
  void* space = Array("workspace", workspace, device).require_shape({count}).float64();
  const py::gil_scoped_release unlocked;
  cuda::response_sums(sums, space, queue_of(device, stream));
}

template <void (*Fill)(const Draws&, const cuda::Queue&)>
void philox(py::handle seeds, py::handle transition, py::handle round, std::uint32_t purpose,
            py::handle out, std::uintptr_t stream) {
  const DLDevice device = gpu_of("out", out);
  const Draws draws = draws_of(device, seeds, transition, round, purpose, out);
  const py::gil_scoped_release unlocked;
  Fill(draws, queue_of(device, stream));
}

void recycled_rows(bool discarded, std::int64_t stride, py::handle length, py::handle advance,
                   py::handle row, py::handle known, std::uintptr_t stream) {
  const DLDevice device = gpu_of("row", row);
  const Array rows("row", row, device);
  if (rows.shape().size() != 2) {
    throw py::value_error("row: expected shape [B, W], got " + to_string(rows.shape()));
  }
  const Shape samples{rows.shape()[0]};
  const RecycledRows arguments{
      rows.shape()[0],
      rows.shape()[1],
      discarded,
      stride,
      Array("length", length, device).require_shape(samples).int32(),
      Array("advance", advance, device).require_shape(samples).int32(),
      rows.int64(),
      Array("known", known, device).require_shape(samples).int64(),
  };
  const py::gil_scoped_release unlocked;
  cuda::recycled_rows(arguments, queue_of(device, stream));
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_verify_workspace", &verify_workspace, py::arg("batch"), py::arg("width"),
        py::arg("size"), "How many float64 of workspace verifying needs.");
  m.def("cuda_verify_window", &verify_window, py::arg("verifier"), py::arg("states"),
        py::arg("draft_means"), py::arg("target_means"), py::arg("sigma"), py::arg("length"),
        py::arg("uniforms"), py::arg("noise"), py::arg("state"), py::arg("advance"),
        py::arg("accepted"), py::arg("log_ratio"), py::arg("workspace"), py::kw_only(),
        py::arg("stream"), "verify_window of CUDA tensors.");
  m.def("cuda_verify_window_relaxed", &verify_window_relaxed, py::arg("rule"), py::arg("strength"),
        py::arg("budget"), py::arg("states"), py::arg("draft_means"), py::arg("target_means"),
        py::arg("sigma"), py::arg("length"), py::arg("uniforms"), py::arg("noise"),
        py::arg("uncertainty"), py::arg("spent"), py::arg("state"), py::arg("advance"),
        py::arg("accepted"), py::arg("log_ratio"), py::arg("bound"), py::arg("log_likelihood"),
        py::arg("workspace"), py::kw_only(), py::arg("stream"),
        "verify_window_relaxed of CUDA tensors.");
  m.def("cuda_window_noise", &window_noise, py::arg("purpose"), py::arg("decision"),
        py::arg("seeds"), py::arg("k"), py::arg("rounds"), py::arg("length"), py::arg("noise"),
        py::arg("uniforms"), py::arg("last"), py::kw_only(), py::arg("stream"),
        "Fill noise, uniforms and last of a window.");
  m.def("cuda_first_guesses", &first_guesses, py::arg("x"), py::arg("k"), py::arg("past_x"),
        py::arg("past_guess"), py::arg("row"), py::arg("known"), py::arg("source"), py::arg("dot"),
        py::arg("square"), py::arg("columns"), py::arg("states"), py::arg("means"),
        py::arg("guesses"), py::arg("intercept"), py::arg("slope"), py::arg("settled"),
        py::arg("at"), py::arg("coefficients"), py::kw_only(), py::arg("stream"),
        "first_guesses of CUDA tensors.");
  m.def("cuda_roll_window", &roll_window, py::arg("adds"), py::arg("first"), py::arg("end"),
        py::arg("states"), py::arg("means"), py::arg("guesses"), py::arg("noise"),
        py::arg("intercept"), py::arg("slope"), py::arg("change"), py::arg("settled"), py::arg("a"),
        py::arg("b"), py::arg("sigma"), py::kw_only(), py::arg("stream"),
        "roll_window of CUDA tensors.");
  m.def("cuda_target_means", &target_means, py::arg("cfg_scale"), py::arg("cfg_channels"),
        py::arg("x"), py::arg("eps"), py::arg("a"), py::arg("b"), py::arg("signal"),
        py::arg("noise"), py::arg("combined"), py::arg("means"), py::arg("guess"), py::kw_only(),
        py::arg("stream"), "Write the guided eps, the means of transitions and the image.");
  m.def("cuda_note_nonfinite", &note_nonfinite, py::arg("first"), py::arg("failed"),
        py::arg("values"), py::arg("k"), py::arg("samples"), py::arg("low"), py::arg("high"),
        py::kw_only(), py::arg("stream"),
        "Remember the first transition of each sample whose row is not finite.");
  m.def("cuda_response_workspace", &response_workspace, py::arg("batch"), py::arg("width"),
        py::arg("size"), "How many float64 of workspace response_sums needs.");
  m.def("cuda_response_sums", &response_sums, py::arg("memory"), py::arg("states"),
        py::arg("guess"), py::arg("past_x"), py::arg("past_guess"), py::arg("row"),
        py::arg("known"), py::arg("length"), py::arg("advance"), py::arg("dot"), py::arg("square"),
        py::arg("dot_after"), py::arg("square_after"), py::arg("workspace"), py::kw_only(),
        py::arg("stream"), "Write how the teacher's predictions follow its states.");
  m.def("cuda_philox_normal", &philox<cuda::philox_normal>, py::arg("seeds"), py::arg("transition"),
        py::arg("round"), py::arg("purpose"), py::arg("out"), py::kw_only(), py::arg("stream"),
        "philox_normal of CUDA tensors.");
  m.def("cuda_philox_uniform", &philox<cuda::philox_uniform>, py::arg("seeds"),
        py::arg("transition"), py::arg("round"), py::arg("purpose"), py::arg("out"), py::kw_only(),
        py::arg("stream"), "philox_uniform of CUDA tensors.");
  m.def("cuda_recycled_rows", &recycled_rows, py::arg("discarded"), py::arg("stride"),
        py::arg("length"), py::arg("advance"), py::arg("row"), py::arg("known"), py::kw_only(),
        py::arg("stream"),
        "Write which rows of a teacher call each sample recycles, and how many are its own.");
}

}  // namespace free_dit
