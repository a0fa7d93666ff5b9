// SPDX-License-Identifier: Apache-2.0
#include "unwrap.h"

#include <cmath>
#include <limits>

namespace py = pybind11;

namespace free_dit {
namespace {

std::int64_t count_of(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    count *= extent;
  }
  return count;
}

}  // namespace

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

Roll roll_of(const DLDevice& device, bool adds, std::int64_t first, std::int64_t end,
             py::handle states, py::handle means, py::handle guesses, py::handle noise,
             py::handle intercept, py::handle slope, py::handle change, py::handle settled,
             py::handle a, py::handle b, py::handle sigma) {
  const Array rows("states", states, device);
  const Shape& window = rows.shape();
  if (window.size() < 3 || count_of(window) == 0) {
    throw py::value_error("states: expected a non-empty shape [B, P + 1, ...], got " +
                          to_string(window));
  }
  const std::int64_t batch = window[0];
  const std::int64_t width = window[1];
  if (!(0 <= first && first <= end && end < width)) {
    throw py::value_error(
        "first and end: expected 0 <= first <= end <= " + std::to_string(width - 1) + ", got " +
        std::to_string(first) + " and " + std::to_string(end));
  }
  if (change.is_none() != settled.is_none()) {
    throw py::value_error("settled: expected with change, and only then, got one of them");
  }
  const bool changed = !change.is_none();
  Shape drafts = window;
  drafts[1] = width - 1;
  const Shape coefficients{batch, width};
  return {
      batch,
      width,
      count_of(window) / (batch * width),
      first,
      end,
      adds,
      rows.float32(),
      Array("means", means, device).require_shape(window).float32(),
      Array("guesses", guesses, device).require_shape(window).float32(),
      Array("noise", noise, device).require_shape(drafts).float32(),
      Array("intercept", intercept, device).require_shape(drafts).float32(),
      Array("slope", slope, device).require_shape({batch, width - 1}).float32(),
      changed ? Array("change", change, device).require_shape(drafts).float32() : nullptr,
      changed ? Array("settled", settled, device).require_shape({batch}).int64() : nullptr,
      Array("a", a, device).require_shape(coefficients).float32(),
      Array("b", b, device).require_shape(coefficients).float32(),
      Array("sigma", sigma, device).require_shape(coefficients).float32(),
  };
}

FirstGuesses first_guesses_of(const DLDevice& device, py::handle x, py::handle k, py::handle past_x,
                              py::handle past_guess, py::handle row, py::handle known,
                              py::handle source, py::handle dot, py::handle square,
                              py::handle columns, py::handle states, py::handle means,
                              py::handle guesses, py::handle intercept, py::handle slope,
                              py::handle settled, py::handle at, py::handle coefficients) {
  const Array current("x", x, device);
  const Shape& sample = current.shape();
  if (sample.size() < 2 || count_of(sample) == 0) {
    throw py::value_error("x: expected a non-empty shape [B, ...], got " + to_string(sample));
  }
  const std::int64_t batch = sample[0];
  const Shape samples{batch};

  const Array where("at", at, device);
  if (where.shape().size() != 2 || where.shape()[0] != batch || where.shape()[1] == 0) {
    throw py::value_error("at: expected shape [" + std::to_string(batch) + ", W], got " +
                          to_string(where.shape()));
  }
  const std::int64_t width = where.shape()[1];
  Shape window = sample;
  window.insert(window.begin() + 1, width);
  Shape drafts = window;
  drafts[1] = width - 1;

  const Array past("past_x", past_x, device);
  Shape call = sample;
  call[0] = past.shape().empty() ? 0 : past.shape()[0];
  if (call[0] == 0 || past.shape() != call) {
    throw py::value_error("past_x: expected a non-empty shape [R, ...] with rows as of x, got " +
                          to_string(past.shape()));
  }
  const Array rows("row", row, device);
  if (rows.shape().size() != 2 || rows.shape()[0] != batch || rows.shape()[1] < width) {
    throw py::value_error("row: expected shape [" + std::to_string(batch) + ", at least " +
                          std::to_string(width) + "], got " + to_string(rows.shape()));
  }
  const Array schedule("columns", columns, device);
  const Shape& table = schedule.shape();
  if (table.size() != 2 || table[0] != 4 || table[1] == 0) {
    throw py::value_error("columns: expected shape [4, N], got " + to_string(table));
  }
  return {
      batch,
      width,
      count_of(sample) / batch,
      call[0],
      rows.shape()[1],
      table[1],
      current.float32(),
      Array("k", k, device).require_shape(samples).int64(),
      past.float32(),
      Array("past_guess", past_guess, device).require_shape(call).float32(),
      rows.int64(),
      Array("known", known, device).require_shape(samples).int64(),
      Array("source", source, device).require_shape(samples).int64(),
      Array("dot", dot, device).require_shape(samples).float32(),
      Array("square", square, device).require_shape(samples).float32(),
      schedule.float32(),
      Array("states", states, device).require_shape(window).float32(),
      Array("means", means, device).require_shape(window).float32(),
      Array("guesses", guesses, device).require_shape(window).float32(),
      Array("intercept", intercept, device).require_shape(drafts).float32(),
      Array("slope", slope, device).require_shape({batch, width - 1}).float32(),
      Array("settled", settled, device).require_shape(samples).int64(),
      where.int64(),
      Array("coefficients", coefficients, device).require_shape({3, batch, width}).float32(),
  };
}

NoteNonfinite note_of(const DLDevice& device, std::int64_t first, py::handle failed,
                      py::handle values, py::handle k, py::handle samples, py::handle low,
                      py::handle high) {
  const Array account("failed", failed, device);
  if (account.shape().size() != 1) {
    throw py::value_error("failed: expected shape [S], got " + to_string(account.shape()));
  }
  const Array rows("values", values, device);
  const Shape& shape = rows.shape();
  std::int64_t size = 1;
  for (std::size_t axis = 1; axis < shape.size(); ++axis) {
    size *= shape[axis];
  }
  if (shape.size() < 2 || shape[0] == 0 || size == 0) {
    throw py::value_error("values: expected a non-empty shape [B n, ...], got " + to_string(shape));
  }
  const Array asked("samples", samples, device);
  const Shape& batch = asked.shape();
  if (batch.size() != 1 || batch[0] == 0 || shape[0] % batch[0] != 0) {
    throw py::value_error("samples: expected shape [B], B a divisor of " +
                          std::to_string(shape[0]) + " rows, got " + to_string(batch));
  }
  return {
      batch[0],
      shape[0] / batch[0],
      size,
      account.shape()[0],
      first,
      rows.elements(),
      rows.floating(),
      Array("k", k, device).require_shape({shape[0]}).int64(),
      asked.int64(),
      low.is_none() ? nullptr : Array("low", low, device).require_shape(batch).int64(),
      Array("high", high, device).require_shape(batch).int64(),
      account.int64(),
  };
}

ResponseSums response_of(const DLDevice& device, double memory, py::handle states, py::handle guess,
                         py::handle past_x, py::handle past_guess, py::handle row, py::handle known,
                         py::handle length, py::handle advance, py::handle dot, py::handle square,
                         py::handle dot_after, py::handle square_after) {
  const Array window("states", states, device);
  const Shape& shape = window.shape();
  Shape past{0};
  std::int64_t size = 1;
  for (std::size_t axis = 2; axis < shape.size(); ++axis) {
    size *= shape[axis];
    past.push_back(shape[axis]);
  }
  if (shape.size() < 3 || shape[0] == 0 || shape[1] == 0 || size == 0) {
    throw py::value_error("states: expected a non-empty shape [B, W, ...], got " +
                          to_string(shape));
  }
  const Array seen("past_x", past_x, device);
  past[0] = seen.shape().empty() ? 0 : seen.shape()[0];
  if (seen.shape() != past || past[0] == 0) {
    const std::string sample = to_string(Shape(past.begin() + 1, past.end()));
    throw py::value_error("past_x: expected shape [R, " + sample.substr(1) + ", got " +
                          to_string(seen.shape()));
  }
  const Array entries("row", row, device);
  const Shape& rows = entries.shape();
  if (rows.size() != 2 || rows[0] != shape[0] || rows[1] < shape[1]) {
    throw py::value_error("row: expected shape [" + std::to_string(shape[0]) + ", at least " +
                          std::to_string(shape[1]) + "], got " + to_string(rows));
  }
  const Shape samples{shape[0]};
  return {
      shape[0],
      shape[1],
      size,
      past[0],
      rows[1],
      memory,
      window.float32(),
      Array("guess", guess, device).require_shape(shape).float32(),
      seen.float32(),
      Array("past_guess", past_guess, device).require_shape(past).float32(),
      entries.int64(),
      Array("known", known, device).require_shape(samples).int64(),
      Array("length", length, device).require_shape(samples).int32(),
      Array("advance", advance, device).require_shape(samples).int32(),
      Array("dot", dot, device).require_shape(samples).float32(),
      Array("square", square, device).require_shape(samples).float32(),
      Array("dot_after", dot_after, device).require_shape(samples).float32(),
      Array("square_after", square_after, device).require_shape(samples).float32(),
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
  require_blocks("out", draws.size);
  return draws;
}

void require_blocks(const char* name, std::int64_t size) {
  // Four elements a block, 2^32 blocks a row.
  if (size > std::int64_t{4} << 32) {
    throw py::value_error(std::string(name) + ": expected at most 2^34 elements a row, got " +
                          std::to_string(size));
  }
}

}  // namespace free_dit
