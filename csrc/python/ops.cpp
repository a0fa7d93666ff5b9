// SPDX-License-Identifier: Apache-2.0
// The ops: of each its contract (contract.h has the language) and its kernels.
//
// What is said here is said nowhere else. On the CPU the values that a kernel indexes or decides
// with are looked at first; on a GPU that would wait for the device, and the kernels bear them.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "contract.h"
#include "cpu/kernels.h"
#include "free/evidence.h"
#include "values.h"

namespace free_dit {
namespace {

// --- verify --------------------------------------------------------------------------------------

// Entries at and beyond length are not looked at.
void check_window(const Window& w) {
  for (std::int64_t b = 0; b < w.batch; ++b) {
    const std::int64_t length = w.length[b];
    if (length < 1 || length > w.width) {
      refuse("length", range(1, w.width), length, at("sample", b));
    }
    for (std::int64_t j = 0; j < length; ++j) {
      const auto here = [&] { return at("sample", b) + at(", transition", j); };
      const float sigma = w.sigma[b * w.width + j];
      if (!(sigma >= 0.0f && sigma <= std::numeric_limits<float>::max())) {
        refuse("sigma", "finite values >= 0", sigma, here());
      }
      const float u = j < length - 1 ? w.uniforms[b * (w.width - 1) + j] : 0.0f;
      if (!(u >= 0.0f && u < 1.0f)) {
        refuse("uniforms", "values in [0, 1)", u, here());
      }
    }
  }
}

void check_relaxed(const RelaxedWindow& w) {
  check_window(w);
  for (std::int64_t b = 0; b < w.batch; ++b) {
    if (!(w.spent[b] >= 0.0 && std::isfinite(w.spent[b]))) {
      refuse("spent", "finite values >= 0", w.spent[b], at("sample", b));
    }
    for (std::int64_t j = 0; w.uncertainty != nullptr && j < w.length[b] - 1; ++j) {
      const float u = w.uncertainty[b * (w.width - 1) + j];
      if (!std::isfinite(u)) {
        refuse("uncertainty", "finite values", u, at("sample", b) + at(", transition", j));
      }
    }
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
      .counts({{"B", &Record::batch}, {"W", &Record::width}, {"...", &Record::size}})
      .workspace([](const Window& w) { return cuda::verify_workspace(w); });
}

Op verify_window() {
  return window_op<VerifiedWindow>("verify_window")
      .choice("verifier", kVerifierNames, &VerifiedWindow::verifier)
      .check(check_window)
      .cpu([](const VerifiedWindow& w) { cpu::verify_window(w, w.verifier); })
      .cuda([](const VerifiedWindow& w, void* space, const cuda::Queue& queue) {
        cuda::verify_window(w, w.verifier, space, queue);
      });
}

Op verify_window_relaxed() {
  return window_op<RelaxedWindow>("verify_window_relaxed")
      .maybe("uncertainty", "B W-1", &RelaxedWindow::uncertainty)
      .tensor("spent", "B", &RelaxedWindow::spent)
      .choice("rule", kRuleNames, &RelaxedWindow::rule)
      .number("strength", 0.0, kLargest, &RelaxedWindow::strength)
      .number("budget", 0.0, kInfinite, &RelaxedWindow::budget)
      .result("bound", "B", &RelaxedWindow::bound)
      .result("log_likelihood", "B", &RelaxedWindow::log_likelihood)
      .check(check_relaxed)
      .cpu([](const RelaxedWindow& w) { cpu::verify_window_relaxed(w, w); })
      .cuda([](const RelaxedWindow& w, void* space, const cuda::Queue& queue) {
        cuda::verify_window_relaxed(w, w, space, queue);
      });
}

// --- noise ---------------------------------------------------------------------------------------

// Four elements a block, 2^32 blocks a row.
constexpr std::int64_t kLongestRow = std::int64_t{4} << 32;

void check_draws(const Draws& d) {
  check_integers("transition", d.transition, d.rows, kWord, "row");
  check_integers("round", d.round, d.rows, kWord, "row");
}

Declare<Draws> draws(const char* name) {
  return Declare<Draws>(name)
      .tensor("seeds", "R", &Draws::seeds)
      .tensor("transition", "R", &Draws::transition)
      .tensor("round", "R", &Draws::round)
      .integer("purpose", 0, kWord, &Draws::purpose)
      .integer("size", 1, kLongestRow, &Draws::size, 'D')
      .result("out", "R D", &Draws::out)
      .counts({{"R", &Draws::rows}})
      .check(check_draws);
}

void check_noise(const WindowNoise& d) {
  check_integers("k", d.k, d.batch, kWord + 1 - d.width, "sample");
  if (d.rounds != nullptr) {
    check_integers("rounds", d.rounds, d.batch, kWord, "sample");
  }
}

Op window_noise() {
  return Declare<WindowNoise>("window_noise")
      .tensor("seeds", "B", &WindowNoise::seeds)
      .tensor("k", "B", &WindowNoise::k)
      .maybe("rounds", "B", &WindowNoise::rounds)
      .maybe("widths", "B", &WindowNoise::widths)
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
      .counts({{"B", &WindowNoise::batch}, {"...", &WindowNoise::size}})
      .check(check_noise)
      .cpu(cpu::window_noise)
      .cuda(cuda::window_noise);
}

// --- draft ---------------------------------------------------------------------------------------

void check_row(std::int64_t row, std::int64_t rows, std::int64_t sample, std::int64_t entry) {
  if (row < 0 || row >= rows) {
    refuse("row", range(0, rows - 1), row, at("sample", sample) + at(", entry", entry));
  }
}

void check_guesses(const FirstGuesses& g) {
  for (std::int64_t b = 0; b < g.batch; ++b) {
    for (std::int64_t i = 0; i < g.width; ++i) {
      check_row(g.row[b * g.stride + i], g.rows, b, i);
    }
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
      .maybe("noise", "B P ...", &FirstGuesses::noise)
      .number("clip", 0.0, kLargestFloat, &FirstGuesses::clip)
      .or_none()
      .result("states", "B P+1 ...", &FirstGuesses::states)
      .result("means", "B P ...", &FirstGuesses::means)
      .result("guesses", "B P+1 ...", &FirstGuesses::guesses)
      .result("mean_before", "B ...", &FirstGuesses::mean_before)
      .result("intercept", "B P ...", &FirstGuesses::intercept)
      .result("slope", "B P", &FirstGuesses::slope)
      .result("settled", "B", &FirstGuesses::settled)
      .result("at", "B P+1", &FirstGuesses::at)
      .result("coefficients", "6 B P+1", &FirstGuesses::coefficients)
      .counts({{"B", &FirstGuesses::batch},
               {"P+1", &FirstGuesses::width},
               {"...", &FirstGuesses::size},
               {"R", &FirstGuesses::rows},
               {"V", &FirstGuesses::stride},
               {"N", &FirstGuesses::steps}})
      .check(check_guesses)
      .cpu(cpu::first_guesses)
      .cuda(cuda::first_guesses);
}

Op roll_window() {
  return Declare<Roll>("roll_window_")
      .tensor("states", "B W ... > 0", &Roll::states)
      .tensor("means", "B W-1 ...", &Roll::means)
      .tensor("guesses", "B W ...", &Roll::guesses)
      .tensor("noise", "B W-1 ...", &Roll::noise)
      .tensor("intercept", "B W-1 ...", &Roll::intercept)
      .tensor("slope", "B W-1", &Roll::slope)
      .maybe("change", "B W-1 ...", &Roll::change, "change and settled")
      .maybe("settled", "B", &Roll::settled, "change and settled")
      .choice("says", kSaidNames, &Roll::says)
      .tensor("coefficients", "6 B W", &Roll::coefficients)
      .number("clip", 0.0, kLargestFloat, &Roll::clip)
      .or_none()
      .integer("first", 0, kAny, &Roll::first)
      .at_most("E")
      .integer("end", 0, kAny, &Roll::end, 'E')
      .at_most("W-1")
      .counts({{"B", &Roll::batch}, {"W", &Roll::width}, {"...", &Roll::size}})
      .cpu(cpu::roll_window)
      .cuda(cuda::roll_window);
}

// --- networks ------------------------------------------------------------------------------------

void check_rows(const NetworkRows& n) {
  if (n.sample == nullptr && n.rows != n.batch * (n.end - n.first)) {
    throw std::invalid_argument("rows: expected " + std::to_string(n.batch * (n.end - n.first)) +
                                " in this span, got " + std::to_string(n.rows));
  }
  if (n.sample != nullptr) {
    check_integers("sample", n.sample, n.rows, n.batch - 1, "row");
    check_integers("entry", n.entry, n.rows, n.width - 1, "row");
  }
}

Op network_rows() {
  return Declare<NetworkRows>("network_rows")
      .tensor("states", "B W ... > 0", &NetworkRows::states)
      .tensor("at", "B W", &NetworkRows::at)
      .tensor("y", "B", &NetworkRows::y)
      .tensor("timesteps", "N > 0", &NetworkRows::timesteps)
      .maybe("scale", "N", &NetworkRows::scale)
      .integer("rows", 0, kAny, &NetworkRows::rows, 'R')
      .integer("first", 0, kAny, &NetworkRows::first)
      .at_most("E")
      .integer("end", 0, kAny, &NetworkRows::end, 'E')
      .at_most("W")
      .maybe("sample", "R", &NetworkRows::sample, "sample and entry")
      .maybe("entry", "R", &NetworkRows::entry, "sample and entry")
      .integer("null_label", -kAny, kAny, &NetworkRows::null_label, 'G')
      .or_none()
      .maybe("means", "B W-1 ...", &NetworkRows::means, "means and mean_before")
      .maybe("mean_before", "B ...", &NetworkRows::mean_before, "means and mean_before")
      .result("x", "G*R ...", &NetworkRows::x)
      .result("t", "G*R", &NetworkRows::t)
      .result("label", "G*R", &NetworkRows::label)
      .result("k", "R", &NetworkRows::k)
      .result("mean", "R ...", &NetworkRows::mean, "means and mean_before")
      .counts({{"B", &NetworkRows::batch},
               {"W", &NetworkRows::width},
               {"...", &NetworkRows::size},
               {"N", &NetworkRows::steps},
               {"G", &NetworkRows::each}})
      .check(check_rows)
      .cpu(cpu::network_rows)
      .cuda(cuda::network_rows);
}

Op drafter_rows() {
  return Declare<DrafterRows>("drafter_rows")
      .tensor("x", "R ...", &DrafterRows::x)
      .tensor("mean", "R ...", &DrafterRows::mean)
      .tensor("k", "R", &DrafterRows::k)
      .tensor("y", "R", &DrafterRows::y)
      .tensor("timesteps", "N > 0", &DrafterRows::timesteps)
      .tensor("sigma", "N", &DrafterRows::sigma)
      .maybe("scale", "N", &DrafterRows::scale)
      .integer("null_label", -kAny, kAny, &DrafterRows::null_label, 'G')
      .or_none()
      .result("states", "G*R ...", &DrafterRows::states)
      .result("innovation", "G*R ...", &DrafterRows::innovation)
      .result("t", "G*R", &DrafterRows::t)
      .result("label", "G*R", &DrafterRows::label)
      .counts({{"R", &DrafterRows::rows},
               {"...", &DrafterRows::size},
               {"N", &DrafterRows::steps},
               {"G", &DrafterRows::each}})
      .check([](const DrafterRows& d) { check_integers("k", d.k, d.rows, d.steps - 1, "row"); })
      .cpu(cpu::drafter_rows)
      .cuda(cuda::drafter_rows);
}

struct GuidedMeans : TargetMeans {
  std::int64_t cfg_channels = kAny;
};

void count_guided(GuidedMeans& m) {
  const bool all = m.cfg_channels == kAny;
  const std::int64_t channels = all ? m.channels : m.cfg_channels;
  m.guided = m.answers == 2 && m.channels > 0 ? channels * (m.size / m.channels) : 0;
}

Op target_means() {
  return Declare<GuidedMeans>("target_means")
      .tensor("x", "R C ...?", &TargetMeans::x)
      .answers("eps", "G*R C ...?", &TargetMeans::eps, &TargetMeans::type)
      .tensor("k", "R", &TargetMeans::k)
      .tensor("columns", "8 N > 0", &TargetMeans::columns)
      .number("cfg_scale", -kLargestFloat, kLargestFloat, &TargetMeans::scale, 'G')
      .or_none()
      .integer("cfg_channels", 0, kAny, &GuidedMeans::cfg_channels)
      .at_most("C")
      .or_none()
      .number("clip", 0.0, kLargestFloat, &TargetMeans::clip)
      .or_none()
      .result("combined", "R C ...?", &TargetMeans::combined)
      .result("means", "R C ...?", &TargetMeans::means)
      .result("guess", "R C ...?", &TargetMeans::guess)
      .result("sigma", "R", &TargetMeans::sigma)
      .counts({{"R", &TargetMeans::rows},
               {"C", &TargetMeans::channels},
               {"C ...?", &TargetMeans::size},
               {"G", &TargetMeans::answers},
               {"N", &TargetMeans::steps}})
      .prepare(count_guided)
      .check([](const GuidedMeans& m) { check_integers("k", m.k, m.rows, m.steps - 1, "row"); })
      .cpu(cpu::target_means)
      .cuda(cuda::target_means);
}

Op note_nonfinite() {
  return Declare<NoteNonfinite>("note_nonfinite_")
      .tensor("failed", "S", &NoteNonfinite::failed)
      .tensor("samples", "B > 0", &NoteNonfinite::samples)
      .answers("values", "B*K ... > 0", &NoteNonfinite::values, &NoteNonfinite::type)
      .tensor("k", "B*K", &NoteNonfinite::k)
      .integer("first", 0, kAny / 2, &NoteNonfinite::first)
      .maybe("low", "B", &NoteNonfinite::low)
      .tensor("high", "B", &NoteNonfinite::high)
      .counts({{"B", &NoteNonfinite::batch},
               {"K", &NoteNonfinite::entries},
               {"...", &NoteNonfinite::size},
               {"S", &NoteNonfinite::known}})
      .check([](const NoteNonfinite& n) {
        check_integers("samples", n.samples, n.batch, n.known - 1, "entry");
      })
      .cpu(cpu::note_nonfinite)
      .cuda(cuda::note_nonfinite);
}

// --- recycle -------------------------------------------------------------------------------------

// Of the transitions that count; others are not looked at.
void check_response(const ResponseSums& r) {
  for (std::int64_t b = 0; b < r.batch; ++b) {
    const std::int64_t count = counted(r.advance[b], r.length[b], r.known[b], r.width - 1);
    for (std::int64_t i = 1; i <= count; ++i) {
      check_row(r.row[b * r.entries + i], r.past, b, i);
    }
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
      .counts({{"B", &ResponseSums::batch},
               {"W", &ResponseSums::width},
               {"...", &ResponseSums::size},
               {"R", &ResponseSums::past},
               {"V", &ResponseSums::entries}})
      .check(check_response)
      .cpu(cpu::response_sums)
      .workspace(cuda::response_workspace)
      .cuda(cuda::response_sums);
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
      .integer("stride", 1, kWord, &Advance::stride)
      .or_none()
      .maybe("log", "M 3 B > 0", &Advance::log)
      .result("k_after", "B", &Advance::k_after)
      .result("rounds_after", "B", &Advance::rounds_after)
      .result("row", "B W", &Advance::row)
      .result("known", "B", &Advance::known)
      .counts({{"B", &Advance::batch}, {"...", &Advance::size}, {"M", &Advance::entries}})
      .prepare([](Advance& a) { a.entries = a.log == nullptr ? 0 : a.entries; })
      .cpu(cpu::advance_samples)
      .cuda(cuda::advance_samples);
}

}  // namespace

const std::vector<Op>& ops() {
  static const std::vector<Op> all{
      verify_window(),
      verify_window_relaxed(),
      window_noise(),
      first_guesses(),
      roll_window(),
      network_rows(),
      drafter_rows(),
      target_means(),
      note_nonfinite(),
      response_sums(),
      advance_samples(),
      draws("philox_normal").cpu(cpu::philox_normal).cuda(cuda::philox_normal),
      draws("philox_uniform").cpu(cpu::philox_uniform).cuda(cuda::philox_uniform),
  };
  return all;
}

}  // namespace free_dit
