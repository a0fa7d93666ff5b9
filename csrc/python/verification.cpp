// SPDX-License-Identifier: Apache-2.0
// Ops that make an outcome of what the teacher answers: its means, which drafts stand, and what the
// next window knows of that. As in drafting.cpp: of each its contract, values to look at, kernels.
#include <cmath>

#include "contract.h"
#include "cpu/kernels.h"
#include "free/evidence.h"
#include "values.h"

namespace free_dit {
namespace {

// --- teacher -------------------------------------------------------------------------------------

struct GuidedMeans : TargetMeans {
  std::int64_t cfg_channels = kAny;
};

void count_guided(GuidedMeans& m) {
  const std::int64_t channels = m.cfg_channels == kAny ? m.channels : m.cfg_channels;
  m.guided = m.answers == 2 ? channels * m.size : 0;
  m.size *= m.channels;
}

Op target_means() {
  return Declare<GuidedMeans>("target_means")
      .tensor("x", "R C ...?", &TargetMeans::x)
      .answers("eps", "G*R C ...?", &TargetMeans::eps, &TargetMeans::type)
      .tensor("k", "R", &TargetMeans::k)
      .tensor("columns", "8 N > 0", &TargetMeans::columns)
      .number("cfg_scale?", -kLargestFloat, kLargestFloat, &TargetMeans::scale, 'G')
      .integer("cfg_channels?", 0, "C", &GuidedMeans::cfg_channels)
      .number("clip?", 0.0, kLargestFloat, &TargetMeans::clip)
      .result("combined", "R C ...?", &TargetMeans::combined)
      .result("means", "R C ...?", &TargetMeans::means)
      .result("guess", "R C ...?", &TargetMeans::guess)
      .result("sigma", "R", &TargetMeans::sigma)
      .counts("R C ... G N", &TargetMeans::rows, &TargetMeans::channels, &TargetMeans::size,
              &TargetMeans::answers, &TargetMeans::steps)
      .prepare(count_guided)
      .check([](const GuidedMeans& m) { check_integers("k", m.k, m.rows, m.steps - 1, "row"); })
      .kernels(cpu::target_means, cuda::target_means);
}

Op note_nonfinite() {
  return Declare<NoteNonfinite>("note_nonfinite_")
      .tensor("failed", "S", &NoteNonfinite::failed)
      .tensor("samples", "B > 0", &NoteNonfinite::samples)
      .answers("values", "B*K ... > 0", &NoteNonfinite::values, &NoteNonfinite::type)
      .tensor("k", "B*K", &NoteNonfinite::k)
      .integer("first", 0, kAny / 2, &NoteNonfinite::first)
      .tensor("low?", "B", &NoteNonfinite::low)
      .tensor("high", "B", &NoteNonfinite::high)
      .counts("B K ... S", &NoteNonfinite::batch, &NoteNonfinite::entries, &NoteNonfinite::size,
              &NoteNonfinite::known)
      .check([](const NoteNonfinite& n) {
        check_integers("samples", n.samples, n.batch, n.known - 1, "entry");
      })
      .kernels(cpu::note_nonfinite, cuda::note_nonfinite);
}

// --- verify --------------------------------------------------------------------------------------

bool is_scale(double value) { return value >= 0.0 && std::isfinite(value); }
bool is_uniform(double value) { return value >= 0.0 && value < 1.0; }
bool is_finite(double value) { return std::isfinite(value); }

std::string scales() { return "finite values >= 0"; }
std::string uniforms() { return "values in [0, 1)"; }
std::string finite() { return "finite values"; }

// Entries at and beyond length are not looked at.
void check_window(const Window& w) {
  check_integers("length", w.length, w.batch, w.width, "sample", 1);
  for (std::int64_t b = 0; b < w.batch; ++b) {
    const std::int64_t drafts = w.length[b] - 1;
    check_values("sigma", w.sigma + b * w.width, drafts + 1, is_scale, scales, "transition", b);
    check_values("uniforms", w.uniforms + b * (w.width - 1), drafts, is_uniform, uniforms,
                 "transition", b);
  }
}

void check_relaxed(const RelaxedWindow& w) {
  check_window(w);
  check_values("spent", w.spent, w.batch, is_scale, scales, "sample");
  for (std::int64_t b = 0; w.uncertainty != nullptr && b < w.batch; ++b) {
    check_values("uncertainty", w.uncertainty + b * (w.width - 1), w.length[b] - 1, is_finite,
                 finite, "transition", b);
  }
}

template <class Record>
Declare<Record> window_op(const char* name) {
  return Declare<Record>(name)
      .tensor("states", "B W ... > 0", &Record::states)
      .tensor("draft_means", "B W-1 ...", &Record::draft_means)
      .tensor("target_means", "B W ...", &Record::target_means)
      .tensor("sigma", "B W", &Record::sigma)
      .tensor("length", "B", &Record::length)
      .tensor("uniforms", "B W-1", &Record::uniforms)
      .tensor("noise", "B ...", &Record::noise)
      .result("state", "B ...", &Record::state)
      .result("advance", "B", &Record::advance)
      .result("accepted", "B", &Record::accepted)
      .result("log_ratio", "B W-1", &Record::log_ratio)
      .counts("B W ...", &Record::batch, &Record::width, &Record::size);
}

Op verify_window() {
  return window_op<VerifiedWindow>("verify_window")
      .choice("verifier", kVerifierNames, &VerifiedWindow::verifier)
      .check(check_window)
      .kernels(cpu::verify_window, cuda::verify_window, cuda::verify_workspace);
}

Op verify_window_relaxed() {
  using Record = RelaxedWindow;
  return window_op<Record>("verify_window_relaxed")
      .tensor("uncertainty?", "B W-1", &Record::uncertainty)
      .tensor("spent", "B", &Record::spent)
      .choice("rule", kRuleNames, &Record::rule)
      .number("strength", 0.0, kLargest, &Record::strength)
      .number("budget", 0.0, kInfinite, &Record::budget)
      .result("bound", "B", &Record::bound)
      .result("log_likelihood", "B", &Record::log_likelihood)
      .check(check_relaxed)
      .kernels(cpu::verify_window_relaxed, cuda::verify_window_relaxed, cuda::verify_workspace);
}

// --- recycle -------------------------------------------------------------------------------------

// Of the transitions that count; others are not looked at.
void check_response(const ResponseSums& r) {
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const std::int64_t count = counted(r.advance[b], r.length[b], r.known[b], r.width - 1);
    check_integers("row", r.row + b * r.entries + 1, count, r.past - 1, "entry", 0, b, 1);
  }
}

Op response_sums() {
  return Declare<ResponseSums>("response_sums")
      .tensor("states", "B W ... > 0", &ResponseSums::states)
      .tensor("guess", "B W ...", &ResponseSums::guess)
      .tensor("past_x", "R ... > 0", &ResponseSums::past_x)
      .tensor("past_guess", "R ...", &ResponseSums::past_guess)
      .tensor("row", "B V>=W", &ResponseSums::row)
      .tensor("known", "B", &ResponseSums::known)
      .tensor("length", "B", &ResponseSums::length)
      .tensor("advance", "B", &ResponseSums::advance)
      .tensor("dot", "B", &ResponseSums::dot)
      .tensor("square", "B", &ResponseSums::square)
      .number("memory", 0.0, 1.0, &ResponseSums::memory)
      .result("dot_after", "B", &ResponseSums::dot_after)
      .result("square_after", "B", &ResponseSums::square_after)
      .counts("B W ... R V", &ResponseSums::batch, &ResponseSums::width, &ResponseSums::size,
              &ResponseSums::past, &ResponseSums::entries)
      .check(check_response)
      .kernels(cpu::response_sums, cuda::response_sums, cuda::response_workspace);
}

Op advance_samples() {
  return Declare<Advance>("advance_samples_")
      .tensor("after", "B ... > 0", &Advance::after)
      .tensor("x", "B ...", &Advance::x)
      .tensor("k", "B", &Advance::k)
      .tensor("rounds", "B", &Advance::rounds)
      .tensor("wanted", "B", &Advance::wanted)
      .tensor("length", "B", &Advance::length)
      .tensor("advance", "B", &Advance::advance)
      .tensor("accepted", "B", &Advance::accepted)
      .integer("width", 1, kWord, &Advance::width, 'W')
      .flag("discarded", &Advance::discarded)
      .integer("stride?", 1, kWord, &Advance::stride)
      .tensor("log?", "M 3 B > 0", &Advance::log)
      .result("k_after", "B", &Advance::k_after)
      .result("rounds_after", "B", &Advance::rounds_after)
      .result("row", "B W", &Advance::row)
      .result("known", "B", &Advance::known)
      .counts("B ... M", &Advance::batch, &Advance::size, &Advance::entries)
      .kernels(cpu::advance_samples, cuda::advance_samples);
}

}  // namespace

const std::vector<Op>& ops() {
  static const std::vector<Op> all = [] {
    std::vector<Op> made = drafting_ops();
    made.insert(made.end(), {target_means(), note_nonfinite(), verify_window(),
                             verify_window_relaxed(), response_sums(), advance_samples()});
    return made;
  }();
  return all;
}

}  // namespace free_dit
