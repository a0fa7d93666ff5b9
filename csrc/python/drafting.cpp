// SPDX-License-Identifier: Apache-2.0
// Ops that make a window, up to the rows that networks are asked about: of each its contract
// (contract.h has the language) and its kernels.
//
// What is said here is said nowhere else. On the CPU the values that a kernel indexes or decides
// with are looked at first; on a GPU that would wait for the device, and the kernels bear them.
#include "contract.h"
#include "cpu/kernels.h"
#include "values.h"

namespace free_dit {
namespace {

// --- noise ---------------------------------------------------------------------------------------

// Four elements a block, 2^32 blocks a row.
constexpr std::int64_t kLongestRow = std::int64_t{4} << 32;

Declare<Draws> draws(const char* name) {
  return Declare<Draws>(name)
      .tensor("seeds", "R", &Draws::seeds)
      .tensor("transition", "R", &Draws::transition)
      .tensor("round", "R", &Draws::round)
      .integer("purpose", 0, kWord, &Draws::purpose)
      .integer("size", 1, kLongestRow, &Draws::size, 'D')
      .result("out", "R D", &Draws::out)
      .counts("R", &Draws::rows)
      .check([](const Draws& d) {
        check_integers("transition", d.transition, d.rows, kWord, "row");
        check_integers("round", d.round, d.rows, kWord, "row");
      });
}

void check_noise(const WindowNoise& d) {
  check_integers("k", d.k, d.batch, kWord + 1 - d.width, "sample");
  check_integers("rounds", d.rounds, d.rounds == nullptr ? 0 : d.batch, kWord, "sample");
}

Op window_noise() {
  return Declare<WindowNoise>("window_noise")
      .tensor("seeds", "B", &WindowNoise::seeds)
      .tensor("k", "B", &WindowNoise::k)
      .tensor("rounds?", "B", &WindowNoise::rounds)
      .tensor("widths?", "B", &WindowNoise::widths)
      .tensor("like", "B ...", &WindowNoise::like)
      .integer("width", 1, kWord, &WindowNoise::width, 'W')
      .integer("steps", 1, kAny, &WindowNoise::steps)
      .integer("purpose", 0, kWord, &WindowNoise::purpose)
      .integer("decision", 0, kWord, &WindowNoise::decision)
      .result("noise", "B W-1 ...", &WindowNoise::noise)
      .result("uniforms", "B W-1", &WindowNoise::uniforms)
      .result("last", "B ...", &WindowNoise::last)
      .result("wanted", "B", &WindowNoise::wanted)
      .result("drafted", "B", &WindowNoise::drafted)
      .result("length", "B", &WindowNoise::length)
      .counts("B ...", &WindowNoise::batch, &WindowNoise::size)
      .check(check_noise)
      .kernels(cpu::window_noise, cuda::window_noise);
}

// --- draft ---------------------------------------------------------------------------------------

void check_guesses(const FirstGuesses& g) {
  for (std::int64_t b = 0; b < g.batch; ++b) {
    check_integers("row", g.row + b * g.stride, g.width, g.rows - 1, "entry", 0, b);
  }
}

Op first_guesses() {
  return Declare<FirstGuesses>("first_guesses")
      .tensor("x", "B ... > 0", &FirstGuesses::x)
      .tensor("k", "B", &FirstGuesses::k)
      .tensor("past_x", "R ... > 0", &FirstGuesses::past_x)
      .tensor("past_guess", "R ...", &FirstGuesses::past_guess)
      .tensor("row", "B V>=P+1", &FirstGuesses::row)
      .tensor("known", "B", &FirstGuesses::known)
      .integer("source", 0, static_cast<std::int64_t>(Source::kDrafter), &FirstGuesses::source)
      .tensor("dot", "B", &FirstGuesses::dot)
      .tensor("square", "B", &FirstGuesses::square)
      .tensor("columns", "8 N > 0", &FirstGuesses::columns)
      .integer("drafts", 0, kWord, 'P')
      .tensor("noise?", "B P ...", &FirstGuesses::noise)
      .number("clip?", 0.0, kLargestFloat, &FirstGuesses::clip)
      .result("states", "B P+1 ...", &FirstGuesses::states)
      .result("means", "B P ...", &FirstGuesses::means)
      .result("guesses", "B P+1 ...", &FirstGuesses::guesses)
      .result("mean_before", "B ...", &FirstGuesses::mean_before)
      .result("intercept", "B P ...", &FirstGuesses::intercept)
      .result("slope", "B P", &FirstGuesses::slope)
      .result("settled", "B", &FirstGuesses::settled)
      .result("at", "B P+1", &FirstGuesses::at)
      .result("coefficients", "6 B P+1", &FirstGuesses::coefficients)
      .counts("B P+1 ... R V N", &FirstGuesses::batch, &FirstGuesses::width, &FirstGuesses::size,
              &FirstGuesses::rows, &FirstGuesses::stride, &FirstGuesses::steps)
      .check(check_guesses)
      .kernels(cpu::first_guesses, cuda::first_guesses);
}

Op roll_window() {
  return Declare<Roll>("roll_window_")
      .tensor("states", "B W ... > 0", &Roll::states)
      .tensor("means", "B W-1 ...", &Roll::means)
      .tensor("guesses", "B W ...", &Roll::guesses)
      .tensor("noise", "B W-1 ...", &Roll::noise)
      .tensor("intercept", "B W-1 ...", &Roll::intercept)
      .tensor("slope", "B W-1", &Roll::slope)
      .tensor("change?", "B W-1 ...", &Roll::change, "change and settled")
      .tensor("settled?", "B", &Roll::settled, "change and settled")
      .choice("says", kSaidNames, &Roll::says)
      .tensor("coefficients", "6 B W", &Roll::coefficients)
      .number("clip?", 0.0, kLargestFloat, &Roll::clip)
      .integer("first", 0, "E", &Roll::first)
      .integer("end", 0, "W-1", &Roll::end, 'E')
      .counts("B W ...", &Roll::batch, &Roll::width, &Roll::size)
      .kernels(cpu::roll_window, cuda::roll_window);
}

// --- networks ------------------------------------------------------------------------------------

void check_rows(const NetworkRows& n) {
  if (n.sample == nullptr && n.rows != n.batch * (n.end - n.first)) {
    throw std::invalid_argument("rows: expected " + std::to_string(n.batch * (n.end - n.first)) +
                                " in this span, got " + std::to_string(n.rows));
  }
  const std::int64_t listed = n.sample == nullptr ? 0 : n.rows;
  check_integers("sample", n.sample, listed, n.batch - 1, "row");
  check_integers("entry", n.entry, listed, n.width - 1, "row");
}

Op network_rows() {
  return Declare<NetworkRows>("network_rows")
      .tensor("states", "B W ... > 0", &NetworkRows::states)
      .tensor("at", "B W", &NetworkRows::at)
      .tensor("y", "B", &NetworkRows::y)
      .tensor("timesteps", "N > 0", &NetworkRows::timesteps)
      .tensor("scale?", "N", &NetworkRows::scale)
      .integer("rows", 0, kAny, &NetworkRows::rows, 'R')
      .integer("first", 0, "E", &NetworkRows::first)
      .integer("end", 0, "W", &NetworkRows::end, 'E')
      .tensor("sample?", "R", &NetworkRows::sample, "sample and entry")
      .tensor("entry?", "R", &NetworkRows::entry, "sample and entry")
      .integer("null_label?", -kAny, kAny, &NetworkRows::null_label, 'G')
      .tensor("means?", "B W-1 ...", &NetworkRows::means, "means and mean_before")
      .tensor("mean_before?", "B ...", &NetworkRows::mean_before, "means and mean_before")
      .result("x", "G*R ...", &NetworkRows::x)
      .result("t", "G*R", &NetworkRows::t)
      .result("label", "G*R", &NetworkRows::label)
      .result("k", "R", &NetworkRows::k)
      .result("mean", "R ...", &NetworkRows::mean, "means and mean_before")
      .counts("B W ... N G", &NetworkRows::batch, &NetworkRows::width, &NetworkRows::size,
              &NetworkRows::steps, &NetworkRows::each)
      .check(check_rows)
      .kernels(cpu::network_rows, cuda::network_rows);
}

Op drafter_rows() {
  return Declare<DrafterRows>("drafter_rows")
      .tensor("x", "R ...", &DrafterRows::x)
      .tensor("mean", "R ...", &DrafterRows::mean)
      .tensor("k", "R", &DrafterRows::k)
      .tensor("y", "R", &DrafterRows::y)
      .tensor("timesteps", "N > 0", &DrafterRows::timesteps)
      .tensor("sigma", "N", &DrafterRows::sigma)
      .tensor("scale?", "N", &DrafterRows::scale)
      .integer("null_label?", -kAny, kAny, &DrafterRows::null_label, 'G')
      .result("states", "G*R ...", &DrafterRows::states)
      .result("innovation", "G*R ...", &DrafterRows::innovation)
      .result("t", "G*R", &DrafterRows::t)
      .result("label", "G*R", &DrafterRows::label)
      .counts("R ... N G", &DrafterRows::rows, &DrafterRows::size, &DrafterRows::steps,
              &DrafterRows::each)
      .check([](const DrafterRows& d) { check_integers("k", d.k, d.rows, d.steps - 1, "row"); })
      .kernels(cpu::drafter_rows, cuda::drafter_rows);
}

}  // namespace

std::vector<Op> drafting_ops() {
  return {window_noise(),
          first_guesses(),
          roll_window(),
          network_rows(),
          drafter_rows(),
          draws("philox_normal").kernels(cpu::philox_normal, cuda::philox_normal),
          draws("philox_uniform").kernels(cpu::philox_uniform, cuda::philox_uniform)};
}

}  // namespace free_dit
