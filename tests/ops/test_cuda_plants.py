"""Bugs planted in the CUDA kernels' text, each of which a test of that text finds.

A row: what is wrong, in which kernel (and header of it), who finds it, the text, and what stands
there instead.
"""

from pathlib import Path

import pytest
import torch

from free.reference.draft import DRAFTER, RESPONSE
from tests.drafts import CHANGES
from tests.ops import test_cuda_kernels as verifying
from tests.ops import test_cuda_rows as rows
from tests.ops import test_cuda_windows as windows
from tests.ops import test_rows as noting
from tests.shim import NEEDS_COMPILER, Check, Kernels, assert_caught

pytestmark = NEEDS_COMPILER


def guesses(kernels: Kernels) -> None:
    for source in (RESPONSE, DRAFTER):
        windows.test_guesses_agree_with_twin_and_cpu(kernels, 9, 7, 16, source, True)


def rolls(kernels: Kernels) -> None:
    for changes in CHANGES:
        windows.test_rolling_agrees_with_twin_and_cpu(kernels, 5, 7, (2, 6), 16, changes)


def looks_everywhere(kernels: Kernels) -> None:
    noting.test_any_element_counts(kernels.note_nonfinite_, torch.float32)


def keeps_the_smallest(kernels: Kernels) -> None:
    noting.test_a_sample_named_twice_keeps_the_smallest(kernels.note_nonfinite_)


# fmt: off
VERIFIES: Check = (verifying.test_verifying_agrees_with_twin_and_cpu, "reflection", 5, 4, 513)
REPAIRS: Check = (verifying.test_drafts_stand_and_are_repaired, "reflection")
BITS: Check = (verifying.test_launches_runs_order_and_alignment_change_no_bit, "block", 4501)
EXTREMES: Check = (verifying.test_extreme_magnitudes_decide_as_on_the_cpu, "reflection", 1e25)
PHILOX: Check = (verifying.test_noise_agrees_with_twin_and_cpu, 130, 5)
DRAWS: Check = (windows.test_noise_agrees_with_twin_and_cpu, 9, 8, 16, True)
BEYOND: Check = (windows.test_rows_end_with_the_schedule_wherever_a_window_begins, 7)
GUESSES: Check = (guesses,)
NEAREST: Check = (windows.test_a_row_that_is_not_there_is_not_read, 11)
ROLLS: Check = (rolls,)
GUIDES: Check = (rows.test_target_means_agree_with_twin, (4, 3, 3), torch.float16, 4.0, 3, 0.5)
NOTES: Check = (rows.test_noting_agrees_with_twin, 13, 3, 513, torch.float16, True)
LOOKS: Check = (looks_everywhere,)
SMALLEST: Check = (keeps_the_smallest,)
SAMPLES: Check = (rows.test_a_sample_out_of_range_reaches_no_other_memory, 2)
SUMS: Check = (rows.test_sums_agree_with_twin, 13, 4, 257)
ROWS: Check = (rows.test_a_row_out_of_range_reaches_no_other_memory, 9)
ADVANCES: Check = (rows.test_advancing_agrees_with_twin_and_cpu, 33, 9, True, 2)
STAYS: Check = (rows.test_large_states_of_finished_samples_stay,)
GATHERS: Check = (rows.test_gathering_agrees_with_twin, 3, 4, 16, True, 7, False)
MEANS: Check = (rows.test_gathering_agrees_with_twin, 3, 4, 255, True, None, True)
SPANS: Check = (rows.test_gathering_agrees_with_twin, 3, 5, 255, False, 7, False)
TELLS: Check = (rows.test_innovations_agree_with_twin_and_cpu, 5, 16, True, 7)
UNTOLD: Check = (rows.test_a_transition_that_is_not_there_is_not_looked_up, 9)
ABSENT: Check = (rows.test_a_row_that_is_not_there_is_not_gathered, 9)

PLANTED = [
    ("no reflection", "verify_window.cu", REPAIRS,
     "repaired_state(m.v[i], z.v[i], h.v[i], shift_factor)",
     "repaired_state(m.v[i], z.v[i], h.v[i], 0.0f * shift_factor)"),
    ("every window is full", "verify_window.cu", VERIFIES,
     "length > w.width ? w.width : length", "w.width"),
    ("the last chunk is left out", "verify_window.cu", VERIFIES,
     "chunks = ceil_div(w.size, kChunk)", "chunks = std::max<std::int64_t>(1, w.size / kChunk)"),
    ("reads past the end of a row", "verify_window.cu", VERIFIES,
     "load<kWide>(m_hat, at, w.size)", "load<kWide>(m_hat, at, w.size + 1)"),
    ("sums in float", "verify_window.cu", EXTREMES,
     "sums.shift_sq += shift * shift",
     "sums.shift_sq += static_cast<float>(shift) * static_cast<float>(shift)"),
    ("adds the chunks before they are there", "verify_window.cu", BITS,
     "    __syncthreads();\n    partial = chunks;", "    partial = chunks;"),
    ("decides before the sums are there", "verify_window.cu", VERIFIES,
     "  __syncthreads();\n  if (thread == 0) {\n    scalars.outcome",
     "  if (thread == 0) {\n    scalars.outcome"),
    ("writes before the decision is there", "verify_window.cu", BITS,
     "  __syncthreads();\n\n  const Outcome outcome = scalars.outcome;",
     "\n  const Outcome outcome = scalars.outcome;"),
    ("some threads do not come to the barrier", "verify_window.cu", VERIFIES,
     "  __syncthreads();\n\n  const Outcome outcome = scalars.outcome;",
     "  if (warp > 0) __syncthreads();\n\n  const Outcome outcome = scalars.outcome;"),
    ("one block's part is left out", "verify_window.cu", BITS,
     "w.batch * plan.parts, kThreads", "w.batch * plan.parts - (plan.parts > 1), kThreads"),
    ("forgets the round", "philox.cu", PHILOX, "static_cast<std::uint32_t>(d.round[r])", "0u"),
    ("one noise for the whole window", "philox.cu", DRAWS, "wrapped_sum(d.k[b], j)", "d.k[b]"),
    ("the decisions' purpose", "philox.cu", DRAWS,
     "{block, transition, round, d.purpose}", "{block, transition, round, d.decision}"),
    ("the normals' purpose", "philox.cu", DRAWS, "round, d.decision}", "round, d.purpose}"),
    ("the last row of a full window", "philox.cu", DRAWS,
     "j == length - 1", "j == d.width - 1"),
    ("more rows than a window has", "philox.cu free/arguments.h", DRAWS,
     "left < d.width ? left : d.width", "left"),
    ("a window beyond the schedule", "philox.cu free/arguments.h", BEYOND,
     "d.steps - d.k[b] : 0", "d.steps : 0"),
    ("rows of who has finished", "philox.cu free/arguments.h", BEYOND,
     "d.steps - d.k[b] : 0", "d.steps - d.k[b] : 1"),
    ("a row of who wants none", "philox.cu", DRAWS, "d.wanted[b] = wanted", "d.wanted[b] = length"),
    ("one draft too many", "philox.cu", DRAWS, "drafted[b] = length - 1", "drafted[b] = length"),
    ("the first round, always", "philox.cu", DRAWS, "d.rounds == nullptr", "true"),
    ("the mean of the transition to come", "first_guesses.cu", GUESSES,
     "nearest(g.k[b], -1, g.steps)", "nearest(g.k[b], 0, g.steps)"),
    ("the largest response of the next", "first_guesses.cu", GUESSES,
     "kLargestResponse * g.steps + step", "kLargestResponse * g.steps + nearest(step, 1, g.steps)"),
    ("reads rows that are not there, of guesses", "first_guesses.cu", NEAREST,
     "nearest(g.row[b * g.stride + i], 0, g.rows)", "g.row[b * g.stride + i]"),
    ("responses below 0", "first_guesses.cu free/guess.h", GUESSES,
     "measured < 0.0f ? 0.0f : measured", "measured"),
    ("responses of any size", "first_guesses.cu free/guess.h", GUESSES,
     "response > largest || largest != largest ? largest : response", "response"),
    ("settles one too many", "first_guesses.cu free/guess.h", GUESSES,
     "? 0 : known - 1", "? 0 : known"),
    ("the noise of the transition before", "first_guesses.cu", GUESSES,
     "(b * (g.width - 1) + i - 1) * g.size", "(b * (g.width - 1) + (i > 1 ? i - 2 : 0)) * g.size"),
    ("rolls on from the first state", "first_guesses.cu", GUESSES,
     "state.v[e] = rolled.state", "rolled.state"),
    ("a first guess without its limit", "first_guesses.cu", GUESSES,
     "c, g.clip)", "c, 1e9f)"),
    ("forgets the guess before a transition", "first_guesses.cu", GUESSES,
     "guess.v[e], last, past.noise", "guess.v[e], 0.0f, past.noise"),
    ("the mean of the transition just made for the first draft's", "first_guesses.cu", GUESSES,
     "mean.v[e] = rolled.mean", "rolled.mean"),
    ("means one place on", "roll_window.cu", ROLLS,
     "(b * (r.width - 1) + r.first) * r.size", "(b * (r.width - 1) + r.first + 1) * r.size"),
    ("keeps one too many", "roll_window.cu free/roll.h", ROLLS,
     "transition < settled", "transition <= settled"),
    ("changes that do not add up", "roll_window.cu", ROLLS,
     "step.slope, state.v[i], last,", "step.slope, state.v[i], 0.0f,"),
    ("takes the guess for the one before", "roll_window.cu", ROLLS,
     "guess.v[i], last, step.noise", "guess.v[i], guess.v[i], step.noise"),
    ("takes nothing of the transition before", "roll_window.cu free/roll.h", ROLLS,
     "c.c == 0.0f ? mean", "true ? mean"),
    ("no limit", "roll_window.cu", ROLLS, "step.c, r.clip)", "step.c, 1e9f)"),
    ("a limit on one side", "roll_window.cu free/roll.h", ROLLS,
     "guess < -clip ? -clip : guess", "guess"),
    ("predictions of the state that was rolled", "roll_window.cu", ROLLS,
     "step.asked.v[i]", "state.v[i]"),
    ("p for q", "roll_window.cu free/roll.h", ROLLS,
     "c.p * state + c.q * prediction", "c.q * state + c.p * prediction"),
    ("forgets the guess before the span", "roll_window.cu", ROLLS,
     "guess = load<kWide>(r.guesses + row, at, r.size)", "guess{}"),
    ("the first transition's noise for all", "roll_window.cu", ROLLS,
     "r.noise + step * r.size", "r.noise + b * (r.width - 1) * r.size"),
    ("starts with the window", "roll_window.cu", ROLLS,
     "(b * r.width + r.first) * r.size", "b * r.width * r.size"),
    ("guides every channel", "target_means.cu", GUIDES, "at + i < m.guided", "true"),
    ("the image of what was not guided", "target_means.cu", GUIDES,
     "told(c, x.v[i], eps.v[i], m.clip)",
     "told(c, x.v[i], load<kWide>(said, at, m.size).v[i], m.clip)"),
    ("the coefficients of another row", "target_means.cu", GUIDES,
     "coefficients_at(m.columns, m.steps, k)",
     "coefficients_at(m.columns, m.steps, k == 0 ? 0 : k - 1)"),
    ("the sigma of one row for all", "target_means.cu", GUIDES,
     "m.sigma[place.row]", "m.sigma[0]"),
    ("an image without its limit", "target_means.cu", GUIDES,
     "eps.v[i], m.clip)", "eps.v[i], 1e9f)"),
    ("guidance in full, everywhere", "target_means.cu", GUIDES,
     "scale_at(m.scale, m.columns[kGuided * m.steps + k])", "m.scale"),
    ("notes rows before the first that is wanted", "note_nonfinite.cu", NOTES,
     "(n.low == nullptr || position >= n.low[b])", "true"),
    ("notes the row behind the last that is wanted", "note_nonfinite.cu", NOTES,
     "position < n.high[b]", "position <= n.high[b]"),
    ("counts positions from 0", "note_nonfinite.cu", NOTES,
     "n.first + row % n.entries", "row % n.entries"),
    ("notes the largest transition", "note_nonfinite.cu", NOTES,
     "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ",
     "n.failed[sample] = std::max<long long>(n.failed[sample], "),
    ("the last one to come is noted", "note_nonfinite.cu", SMALLEST,
     "atomicMin(reinterpret_cast<long long*>(n.failed + sample), ", "n.failed[sample] = ("),
    ("a row's last chunk is not looked at", "note_nonfinite.cu", LOOKS,
     "chunks = ceil_div(n.size, kChunk)", "chunks = n.size < kChunk ? 1 : n.size / kChunk"),
    ("infinity passes", "note_nonfinite.cu", LOOKS,
     "!std::isfinite(values[q].v[i])", "std::isnan(values[q].v[i])"),
    ("notes samples that are not there", "note_nonfinite.cu", SAMPLES,
     "sample >= n.known", "sample > n.known"),
    ("counts one transition too many", "response_sums.cu free/evidence.h", SUMS,
     "known < 1 ? 0 : known - 1", "known < 1 ? 0 : known"),
    ("takes the last transition for a draft", "response_sums.cu free/evidence.h", SUMS,
     "count = length - 1;", "count = length;"),
    ("the past of the transition before", "response_sums.cu", SUMS,
     "r.row[b * r.entries + j + 1]", "r.row[b * r.entries + j]"),
    ("a chunk is left out", "response_sums.cu", SUMS,
     "ceil_div(r.batch * (r.width - 1) * chunks, kWarps)",
     "ceil_div(r.batch * (r.width - 1) * chunks, kWarps) - 1"),
    ("adds chunks that do not count", "response_sums.cu", SUMS,
     "counted(r, b) * chunks", "(r.width - 1) * chunks"),
    ("forgets nothing", "response_sums.cu", SUMS, "r.memory * r.dot[b]", "r.dot[b]"),
    ("reads rows that are not there", "response_sums.cu", ROWS,
     "nearest(r.row[b * r.entries + j + 1], 0, r.past)", "r.row[b * r.entries + j + 1]"),
    ("counts its own rows", "advance_samples.cu", ADVANCES, "i < b;", "i <= b;"),
    ("advances who wanted nothing", "advance_samples.cu", ADVANCES,
     "a.advance[b] < wanted ? a.advance[b] : wanted", "a.advance[b]"),
    ("finished samples move on", "advance_samples.cu", ADVANCES, "a.wanted[b] < 1", "false"),
    ("only a chunk of a state stays", "advance_samples.cu", STAYS,
     "chunks = ceil_div(a.size, kChunk)", "chunks = 1"),
    ("logs into the next round", "advance_samples.cu", ADVANCES,
     "log_entry(a.rounds[0], a.entries)", "log_entry(a.rounds[0] + 1, a.entries)"),
    ("the label for the null label", "network_rows.cu", GATHERS,
     "n.y[from.b] : n.null_label", "n.y[from.b] : n.y[from.b]"),
    ("rows without the null label", "network_rows.cu", SPANS,
     "store<kWide>(n.x + out * n.size", "store<kWide>(n.x + r * n.size"),
    ("rows of the span before", "network_rows.cu free/arguments.h", SPANS,
     "n.first + r % span", "r % span"),
    ("rows listed that are not there", "network_rows.cu free/arguments.h", ABSENT,
     "nearest(n.sample[r], 0, n.batch)", "n.sample[r]"),
    ("timesteps that are not there", "network_rows.cu", ABSENT,
     "nearest(k, 0, n.steps)", "k"),
    ("a network's input without its scale", "network_rows.cu", GATHERS,
     "n.scale != nullptr", "false"),
    ("the mean of the transition to come, to a drafter", "network_rows.cu free/arguments.h", MEANS,
     "(n.width - 1) + i - 1)", "(n.width - 1) + i)"),
    ("the first draft's mean for the one before", "network_rows.cu free/arguments.h", MEANS,
     "n.mean_before + b * n.size", "n.means + b * (n.width - 1) * n.size"),
    ("the scale of another row", "network_rows.cu", GATHERS, "n.scale[step]", "n.scale[0]"),
    ("the sigma of the transition to come", "drafter_rows.cu", TELLS,
     "nearest(k, -1, d.steps)", "nearest(k, 0, d.steps)"),
    ("the innovation of the scaled state", "drafter_rows.cu", TELLS,
     "innovation_of(state.v[i], mean", "innovation_of(d.scale[step] * state.v[i], mean"),
    ("noise that is not divided", "drafter_rows.cu free/arguments.h", TELLS,
     "(state - mean) / sigma", "(state - mean)"),
    ("the innovation of one row of two", "drafter_rows.cu", TELLS,
     "d.innovation + out * d.size", "d.innovation + d.each * r * d.size"),
    ("a drafter without the null label", "drafter_rows.cu", TELLS,
     "d.y[r] : d.null_label", "d.y[r] : d.y[r]"),
    ("a drafter's input without its scale", "drafter_rows.cu", TELLS,
     "d.scale == nullptr", "true"),
    ("timesteps beyond the schedule", "drafter_rows.cu", UNTOLD,
     "nearest(k, 0, d.steps)", "k"),
]
# fmt: on


@pytest.mark.parametrize("bug", PLANTED, ids=[row[0] for row in PLANTED])
def test_planted_bugs_are_caught(kernels, bug, tmp_path: Path) -> None:
    what, source, check, old, new = bug
    message = assert_caught(kernels, source, old, new, check, tmp_path)
    if "barrier" in what:
        assert "threads wait for others that never come" in message
