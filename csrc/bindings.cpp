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
#include "cpu/kernels.h"
#include "cuda/device.h"

namespace py = pybind11;

namespace free_dit {
namespace {

// The entry of an enumeration by its name.
template <class Enum, std::size_t kCount>
Enum named(const char* argument, const char* const (&names)[kCount], const std::string& name) {
  std::string expected;
  int index = 0;
  for (const char* known : names) {
    if (name == known) {
      return static_cast<Enum>(index);
    }
    expected += (index++ == 0 ? "'" : ", '") + std::string(known) + "'";
  }
  throw py::value_error(argument + (": expected one of " + expected) + ", got '" + name + "'");
}

std::string at(std::int64_t sample, std::int64_t transition) {
  return " for sample " + std::to_string(sample) + ", transition " + std::to_string(transition);
}

// Values that the kernel indexes or decides with; entries at and beyond length are not looked at.
void check_values(const cpu::Window& w) {
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

cpu::Window window_of(py::handle states, py::handle draft_means, py::handle target_means,
                      py::handle sigma, py::handle length, py::handle uniforms, py::handle noise,
                      py::handle state, py::handle advance, py::handle accepted,
                      py::handle log_ratio) {
  const Array rows("states", states);
  if (rows.shape().size() < 3) {
    throw py::value_error("states: expected shape [B, W, ...], got " + to_string(rows.shape()));
  }
  const std::int64_t batch = rows.shape()[0];
  const std::int64_t width = rows.shape()[1];
  std::int64_t size = 1;
  Shape drafts = rows.shape();
  Shape sample{batch};
  drafts[1] = width - 1;
  for (std::size_t axis = 2; axis < rows.shape().size(); ++axis) {
    size *= rows.shape()[axis];
    sample.push_back(rows.shape()[axis]);
  }
  if (batch == 0 || width == 0 || size == 0 || width > std::numeric_limits<std::int32_t>::max()) {
    throw py::value_error("states: expected a non-empty shape [B, W, ...], got " +
                          to_string(rows.shape()));
  }
  return {
      batch,
      width,
      size,
      rows.float32(),
      Array("draft_means", draft_means).require_shape(drafts).float32(),
      Array("target_means", target_means).require_shape(rows.shape()).float32(),
      Array("sigma", sigma).require_shape({batch, width}).float32(),
      Array("length", length).require_shape({batch}).int32(),
      Array("uniforms", uniforms).require_shape({batch, width - 1}).float32(),
      Array("noise", noise).require_shape(sample).float32(),
      Array("state", state).require_shape(sample).float32(),
      Array("advance", advance).require_shape({batch}).int32(),
      Array("accepted", accepted).require_shape({batch}).int32(),
      Array("log_ratio", log_ratio).require_shape({batch, width - 1}).float32(),
  };
}

void verify_window(const std::string& verifier, py::handle states, py::handle draft_means,
                   py::handle target_means, py::handle sigma, py::handle length,
                   py::handle uniforms, py::handle noise, py::handle state, py::handle advance,
                   py::handle accepted, py::handle log_ratio) {
  const cpu::Window window = window_of(states, draft_means, target_means, sigma, length, uniforms,
                                       noise, state, advance, accepted, log_ratio);
  const Verifier rule = named<Verifier>("verifier", kVerifierNames, verifier);
  check_values(window);
  const py::gil_scoped_release unlocked;
  cpu::verify_window(window, rule);
}

void check_lenience(const cpu::Window& w, const cpu::Lenience& l) {
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
  const cpu::Window window = window_of(states, draft_means, target_means, sigma, length, uniforms,
                                       noise, state, advance, accepted, log_ratio);
  const Shape drafts{window.batch, window.width - 1};
  const Shape samples{window.batch};
  const cpu::Lenience lenience{
      {named<Rule>("rule", kRuleNames, rule), strength, budget},
      uncertainty.is_none() ? nullptr
                            : Array("uncertainty", uncertainty).require_shape(drafts).float32(),
      Array("spent", spent).require_shape(samples).float64(),
      Array("bound", bound).require_shape(samples).float64(),
      Array("log_likelihood", log_likelihood).require_shape(samples).float64(),
  };
  if (!(strength >= 0.0 && std::isfinite(strength))) {
    throw py::value_error("strength: expected a finite value >= 0, got " +
                          std::to_string(strength));
  }
  if (!(budget >= 0.0)) {
    throw py::value_error("budget: expected a value >= 0, got " + std::to_string(budget));
  }
  check_values(window);
  check_lenience(window, lenience);
  const py::gil_scoped_release unlocked;
  cpu::verify_window_relaxed(window, lenience);
}

void roll_window(py::handle x, py::handle guess, py::handle noise, py::handle a, py::handle b,
                 py::handle sigma, py::handle states, py::handle means) {
  const Array guesses("guess", guess);
  const Shape& window = guesses.shape();
  if (window.size() < 3) {
    throw py::value_error("guess: expected shape [B, P, ...], got " + to_string(window));
  }
  const std::int64_t batch = window[0];
  const std::int64_t steps = window[1];
  std::int64_t size = 1;
  Shape sample{batch};
  Shape rows{batch, steps + 1};
  for (std::size_t axis = 2; axis < window.size(); ++axis) {
    size *= window[axis];
    sample.push_back(window[axis]);
    rows.push_back(window[axis]);
  }
  if (batch == 0 || size == 0) {
    throw py::value_error("guess: expected shape [B, P, ...] where only P may be 0, got " +
                          to_string(window));
  }
  const Shape coefficients{batch, steps};
  const cpu::Roll roll{
      batch,
      steps,
      size,
      Array("x", x).require_shape(sample).float32(),
      guesses.float32(),
      Array("noise", noise).require_shape(window).float32(),
      Array("a", a).require_shape(coefficients).float32(),
      Array("b", b).require_shape(coefficients).float32(),
      Array("sigma", sigma).require_shape(coefficients).float32(),
      Array("states", states).require_shape(rows).float32(),
      Array("means", means).require_shape(window).float32(),
  };
  const py::gil_scoped_release unlocked;
  cpu::roll_window(roll);
}

void check_counters(const char* name, const std::int64_t* values, std::int64_t count) {
  for (std::int64_t r = 0; r < count; ++r) {
    if (values[r] < 0 || values[r] > std::numeric_limits<std::uint32_t>::max()) {
      throw py::value_error(std::string(name) + ": expected values in 0..4294967295, got " +
                            std::to_string(values[r]) + " for row " + std::to_string(r));
    }
  }
}

template <void (*Fill)(const cpu::Draws&)>
void philox(py::handle seeds, py::handle transition, py::handle round, std::uint32_t purpose,
            py::handle out) {
  const Array result("out", out);
  if (result.shape().size() != 2) {
    throw py::value_error("out: expected shape [R, D], got " + to_string(result.shape()));
  }
  const Shape rows{result.shape()[0]};
  const cpu::Draws draws{
      rows[0],
      result.shape()[1],
      Array("seeds", seeds).require_shape(rows).int64(),
      Array("transition", transition).require_shape(rows).int64(),
      Array("round", round).require_shape(rows).int64(),
      purpose,
      result.float32(),
  };
  // Four elements a block, 2^32 blocks a row.
  if (draws.size > std::int64_t{4} << 32) {
    throw py::value_error("out: expected at most 2^34 elements a row, got " +
                          std::to_string(draws.size));
  }
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
  m.def("roll_window", &roll_window, py::arg("x"), py::arg("guess"), py::arg("noise"), py::arg("a"),
        py::arg("b"), py::arg("sigma"), py::arg("states"), py::arg("means"),
        "Write states and means of a window that is rolled forward from guesses.");
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
}
