// SPDX-License-Identifier: Apache-2.0
#include "unwrap.h"

#include <cmath>
#include <limits>

namespace py = pybind11;

namespace free_dit {

Window window_of(const DLDevice& device, py::handle states, py::handle draft_means,
                 py::handle target_means, py::handle sigma, py::handle length, py::handle uniforms,
                 py::handle noise, py::handle state, py::handle advance, py::handle accepted,
                 py::handle log_ratio) {
  const Array rows("states", states, device);
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
      Array("draft_means", draft_means, device).require_shape(drafts).float32(),
      Array("target_means", target_means, device).require_shape(rows.shape()).float32(),
      Array("sigma", sigma, device).require_shape({batch, width}).float32(),
      Array("length", length, device).require_shape({batch}).int32(),
      Array("uniforms", uniforms, device).require_shape({batch, width - 1}).float32(),
      Array("noise", noise, device).require_shape(sample).float32(),
      Array("state", state, device).require_shape(sample).float32(),
      Array("advance", advance, device).require_shape({batch}).int32(),
      Array("accepted", accepted, device).require_shape({batch}).int32(),
      Array("log_ratio", log_ratio, device).require_shape({batch, width - 1}).float32(),
  };
}

Lenience lenience_of(const DLDevice& device, const Window& window, const std::string& rule,
                     double strength, double budget, py::handle uncertainty, py::handle spent,
                     py::handle bound, py::handle log_likelihood) {
  const Shape drafts{window.batch, window.width - 1};
  const Shape samples{window.batch};
  const Lenience lenience{
      {named<Rule>("rule", kRuleNames, rule), strength, budget},
      uncertainty.is_none()
          ? nullptr
          : Array("uncertainty", uncertainty, device).require_shape(drafts).float32(),
      Array("spent", spent, device).require_shape(samples).float64(),
      Array("bound", bound, device).require_shape(samples).float64(),
      Array("log_likelihood", log_likelihood, device).require_shape(samples).float64(),
  };
  if (!(strength >= 0.0 && std::isfinite(strength))) {
    throw py::value_error("strength: expected a finite value >= 0, got " +
                          std::to_string(strength));
  }
  if (!(budget >= 0.0)) {
    throw py::value_error("budget: expected a value >= 0, got " + std::to_string(budget));
  }
  return lenience;
}

Roll roll_of(const DLDevice& device, py::handle x, py::handle guess, py::handle noise, py::handle a,
             py::handle b, py::handle sigma, py::handle states, py::handle means) {
  const Array guesses("guess", guess, device);
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
  return {
      batch,
      steps,
      size,
      Array("x", x, device).require_shape(sample).float32(),
      guesses.float32(),
      Array("noise", noise, device).require_shape(window).float32(),
      Array("a", a, device).require_shape(coefficients).float32(),
      Array("b", b, device).require_shape(coefficients).float32(),
      Array("sigma", sigma, device).require_shape(coefficients).float32(),
      Array("states", states, device).require_shape(rows).float32(),
      Array("means", means, device).require_shape(window).float32(),
  };
}

Draws draws_of(const DLDevice& device, py::handle seeds, py::handle transition, py::handle round,
               std::uint32_t purpose, py::handle out) {
  const Array result("out", out, device);
  if (result.shape().size() != 2) {
    throw py::value_error("out: expected shape [R, D], got " + to_string(result.shape()));
  }
  const Shape rows{result.shape()[0]};
  const Draws draws{
      rows[0],
      result.shape()[1],
      Array("seeds", seeds, device).require_shape(rows).int64(),
      Array("transition", transition, device).require_shape(rows).int64(),
      Array("round", round, device).require_shape(rows).int64(),
      purpose,
      result.float32(),
  };
  // Four elements a block, 2^32 blocks a row.
  if (draws.size > std::int64_t{4} << 32) {
    throw py::value_error("out: expected at most 2^34 elements a row, got " +
                          std::to_string(draws.size));
  }
  return draws;
}

}  // namespace free_dit
