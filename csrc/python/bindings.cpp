// SPDX-License-Identifier: Apache-2.0
// Python bindings: check, unwrap DLPack, call.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>

#include "array.h"
#include "bindings_cuda.h"
#include "cpu/kernels.h"
#include "cuda/device.h"
#include "free/evidence.h"
#include "unwrap.h"

namespace py = pybind11;

namespace free_dit {
namespace {

std::string at(std::int64_t sample, std::int64_t transition) {
  return " for sample " + std::to_string(sample) + ", transition " + std::to_string(transition);
}

// Values that the kernel indexes or decides with; entries at and beyond length are not looked at.
void check_values(const Window& w) {
  for (std::int64_t b = 0; b < w.batch; ++b) {
    const std::int64_t length = w.length[b];
    if (length < 1 || length > w.width) {
      throw py::value_error("length: expected values in 1.." + std::to_string(w.width) + ", got " +
                            std::to_string(length) + " for sample " + std::to_string(b));
    }
    for (std::int64_t j = 0; j < length; ++j) {
      const float sigma = w.sigma[b * w.width + j];
      if (!(sigma >= 0.0f && sigma <= std::numeric_limits<float>::max())) {
        throw py::value_error("sigma: expected finite values >= 0, got " + std::to_string(sigma) +
                              at(b, j));
      }
      if (j < length - 1) {
        const float u = w.uniforms[b * (w.width - 1) + j];
        if (!(u >= 0.0f && u < 1.0f)) {
          throw py::value_error("uniforms: expected values in [0, 1), got " + std::to_string(u) +
                                at(b, j));
        }
      }
    }
  }
}

void verify_window(const std::string& verifier, py::handle states, py::handle draft_means,
                   py::handle target_means, py::handle sigma, py::handle length,
                   py::handle uniforms, py::handle noise, py::handle state, py::handle advance,
                   py::handle accepted, py::handle log_ratio) {
  const Window window = window_of(kCPU, states, draft_means, target_means, sigma, length, uniforms,
                                  noise, state, advance, accepted, log_ratio);
  const Verifier rule = named<Verifier>("verifier", kVerifierNames, verifier);
  check_values(window);
  const py::gil_scoped_release unlocked;
  cpu::verify_window(window, rule);
}

void check_lenience(const Window& w, const Lenience& l) {
  for (std::int64_t b = 0; b < w.batch; ++b) {
    if (!(l.spent[b] >= 0.0 && std::isfinite(l.spent[b]))) {
      throw py::value_error("spent: expected finite values >= 0, got " +
                            std::to_string(l.spent[b]) + " for sample " + std::to_string(b));
    }
    for (std::int64_t j = 0; l.uncertainty != nullptr && j < w.length[b] - 1; ++j) {
      const float u = l.uncertainty[b * (w.width - 1) + j];
      if (!std::isfinite(u)) {
        throw py::value_error("uncertainty: expected finite values, got " + std::to_string(u) +
                              at(b, j));
      }
    }
  }
}

void verify_window_relaxed(const std::string& rule, double strength, double budget,
                           py::handle states, py::handle draft_means, py::handle target_means,
                           py::handle sigma, py::handle length, py::handle uniforms,
                           py::handle noise, py::handle uncertainty, py::handle spent,
                           py::handle state, py::handle advance, py::handle accepted,
                           py::handle log_ratio, py::handle bound, py::handle log_likelihood) {
  const Window window = window_of(kCPU, states, draft_means, target_means, sigma, length, uniforms,
                                  noise, state, advance, accepted, log_ratio);
  const Lenience lenience =
      lenience_of(kCPU, window, rule, strength, budget, uncertainty, spent, bound, log_likelihood);
  check_values(window);
  check_lenience(window, lenience);
  const py::gil_scoped_release unlocked;
  cpu::verify_window_relaxed(window, lenience);
}

void roll_window(bool adds, std::int64_t first, std::int64_t end, py::handle states,
                 py::handle means, py::handle guesses, py::handle noise, py::handle intercept,
                 py::handle slope, py::handle change, py::handle settled, py::handle a,
                 py::handle b, py::handle sigma) {
  const Roll roll = roll_of(kCPU, adds, first, end, states, means, guesses, noise, intercept, slope,
                            change, settled, a, b, sigma);
  const py::gil_scoped_release unlocked;
  cpu::roll_window(roll);
}

void check_row(std::int64_t row, std::int64_t rows, std::int64_t sample, std::int64_t entry) {
  if (row < 0 || row >= rows) {
    throw py::value_error("row: expected values in 0.." + std::to_string(rows - 1) + ", got " +
                          std::to_string(row) + " for sample " + std::to_string(sample) +
                          ", entry " + std::to_string(entry));
  }
}

void check_rows(const FirstGuesses& g) {
  for (std::int64_t b = 0; b < g.batch; ++b) {
    for (std::int64_t i = 0; i < g.width; ++i) {
      check_row(g.row[b * g.stride + i], g.rows, b, i);
    }
  }
}

void first_guesses(py::handle x, py::handle k, py::handle past_x, py::handle past_guess,
                   py::handle row, py::handle known, py::handle source, py::handle dot,
                   py::handle square, py::handle columns, py::handle states, py::handle means,
                   py::handle guesses, py::handle intercept, py::handle slope, py::handle settled,
                   py::handle at, py::handle coefficients) {
  const FirstGuesses arguments =
      first_guesses_of(kCPU, x, k, past_x, past_guess, row, known, source, dot, square, columns,
                       states, means, guesses, intercept, slope, settled, at, coefficients);
  check_rows(arguments);
  const py::gil_scoped_release unlocked;
  cpu::first_guesses(arguments);
}

// Of the transitions that count; others are not looked at.
void check_rows(const ResponseSums& r) {
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const std::int64_t count = counted(r.advance[b], r.length[b], r.known[b], r.width - 1);
    for (std::int64_t i = 1; i <= count; ++i) {
      check_row(r.row[b * r.entries + i], r.past, b, i);
    }
  }
}

void response_sums(double memory, py::handle states, py::handle guess, py::handle past_x,
                   py::handle past_guess, py::handle row, py::handle known, py::handle length,
                   py::handle advance, py::handle dot, py::handle square, py::handle dot_after,
                   py::handle square_after) {
  const ResponseSums sums = response_of(kCPU, memory, states, guess, past_x, past_guess, row, known,
                                        length, advance, dot, square, dot_after, square_after);
  check_rows(sums);
  const py::gil_scoped_release unlocked;
  cpu::response_sums(sums);
}

void check_counters(const char* name, const std::int64_t* values, std::int64_t count) {
  for (std::int64_t r = 0; r < count; ++r) {
    if (values[r] < 0 || values[r] > std::numeric_limits<std::uint32_t>::max()) {
      throw py::value_error(std::string(name) + ": expected values in 0..4294967295, got " +
                            std::to_string(values[r]) + " for row " + std::to_string(r));
    }
  }
}

template <void (*Fill)(const Draws&)>
void philox(py::handle seeds, py::handle transition, py::handle round, std::uint32_t purpose,
            py::handle out) {
  const Draws draws = draws_of(kCPU, seeds, transition, round, purpose, out);
  check_counters("transition", draws.transition, draws.rows);
  check_counters("round", draws.round, draws.rows);
  const py::gil_scoped_release unlocked;
  Fill(draws);
}

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  const std::optional<std::string> cuda = cuda::version();
  info["cuda"] = cuda;
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  info["simd"] = cpu::simd_level();
  return info;
}

py::dict cuda_devices() {
  const cuda::Devices found = cuda::devices();
  py::list devices;
  for (const cuda::Device& device : found.devices) {
    py::dict entry;
    entry["name"] = device.name;
    entry["capability"] = py::make_tuple(device.major, device.minor);
    devices.append(entry);
  }
  py::dict result;
  result["devices"] = devices;
  result["reason"] = found.reason.empty() ? py::object(py::none()) : py::str(found.reason);
  return result;
}

}  // namespace
}  // namespace free_dit

PYBIND11_MODULE(_C, m) {
  using namespace free_dit;
  m.doc() =
      "Compiled core of free. Tensors are DLPack capsules; free.ops is the checked door to it.";
  m.def("verify_window", &verify_window, py::arg("verifier"), py::arg("states"),
        py::arg("draft_means"), py::arg("target_means"), py::arg("sigma"), py::arg("length"),
        py::arg("uniforms"), py::arg("noise"), py::arg("state"), py::arg("advance"),
        py::arg("accepted"), py::arg("log_ratio"),
        "Write state, advance, accepted and log_ratio of a verified window.");
  m.def("verify_window_relaxed", &verify_window_relaxed, py::arg("rule"), py::arg("strength"),
        py::arg("budget"), py::arg("states"), py::arg("draft_means"), py::arg("target_means"),
        py::arg("sigma"), py::arg("length"), py::arg("uniforms"), py::arg("noise"),
        py::arg("uncertainty"), py::arg("spent"), py::arg("state"), py::arg("advance"),
        py::arg("accepted"), py::arg("log_ratio"), py::arg("bound"), py::arg("log_likelihood"),
        "Write what verify_window writes, with a relaxed decision, bound and log_likelihood.");
  m.def("roll_window", &roll_window, py::arg("adds"), py::arg("first"), py::arg("end"),
        py::arg("states"), py::arg("means"), py::arg("guesses"), py::arg("noise"),
        py::arg("intercept"), py::arg("slope"), py::arg("change"), py::arg("settled"), py::arg("a"),
        py::arg("b"), py::arg("sigma"),
        "Write states, means and guesses of transitions first .. end - 1 of a window.");
  m.def("first_guesses", &first_guesses, py::arg("x"), py::arg("k"), py::arg("past_x"),
        py::arg("past_guess"), py::arg("row"), py::arg("known"), py::arg("source"), py::arg("dot"),
        py::arg("square"), py::arg("columns"), py::arg("states"), py::arg("means"),
        py::arg("guesses"), py::arg("intercept"), py::arg("slope"), py::arg("settled"),
        py::arg("at"), py::arg("coefficients"),
        "Write a window as the teacher's last call has it.");
  m.def("response_sums", &response_sums, py::arg("memory"), py::arg("states"), py::arg("guess"),
        py::arg("past_x"), py::arg("past_guess"), py::arg("row"), py::arg("known"),
        py::arg("length"), py::arg("advance"), py::arg("dot"), py::arg("square"),
        py::arg("dot_after"), py::arg("square_after"),
        "Write how the teacher's predictions follow its states.");
  m.def("philox_normal", &philox<cpu::philox_normal>, py::arg("seeds"), py::arg("transition"),
        py::arg("round"), py::arg("purpose"), py::arg("out"),
        "Fill out [R, D] with standard normals.");
  m.def("philox_uniform", &philox<cpu::philox_uniform>, py::arg("seeds"), py::arg("transition"),
        py::arg("round"), py::arg("purpose"), py::arg("out"),
        "Fill out [R, D] with uniforms in [0, 1).");
  m.def("build_info", &build_info,
        "Compiler, CUDA version (or None), OpenMP and instruction set in use.");
  m.def("cuda_devices", &cuda_devices,
        "{'devices': [{'name', 'capability'}], 'reason': why there are none, or None}.");
  bind_cuda(m);
}
