// SPDX-License-Identifier: Apache-2.0
// Kernel arguments from DLPack capsules: shapes, types and the device are checked, values are not.
//
// Each throws py::type_error or py::value_error that names the argument, what was expected and what
// came. All capsules must be on `device`.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "arguments.h"
#include "array.h"

namespace free_dit {

/// The entry of an enumeration by its name.
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
  throw pybind11::value_error(argument + (": expected one of " + expected) + ", got '" + name +
                              "'");
}

Window window_of(const DLDevice& device, pybind11::handle states, pybind11::handle draft_means,
                 pybind11::handle target_means, pybind11::handle sigma, pybind11::handle length,
                 pybind11::handle uniforms, pybind11::handle noise, pybind11::handle state,
                 pybind11::handle advance, pybind11::handle accepted, pybind11::handle log_ratio);

Lenience lenience_of(const DLDevice& device, const Window& window, const std::string& rule,
                     double strength, double budget, pybind11::handle uncertainty,
                     pybind11::handle spent, pybind11::handle bound,
                     pybind11::handle log_likelihood);

Roll roll_of(const DLDevice& device, bool adds, std::int64_t first, std::int64_t end,
             pybind11::handle states, pybind11::handle means, pybind11::handle guesses,
             pybind11::handle noise, pybind11::handle intercept, pybind11::handle slope,
             pybind11::handle change, pybind11::handle settled, pybind11::handle a,
             pybind11::handle b, pybind11::handle sigma);

FirstGuesses first_guesses_of(const DLDevice& device, pybind11::handle x, pybind11::handle k,
                              pybind11::handle past_x, pybind11::handle past_guess,
                              pybind11::handle row, pybind11::handle known, pybind11::handle source,
                              pybind11::handle dot, pybind11::handle square,
                              pybind11::handle columns, pybind11::handle states,
                              pybind11::handle means, pybind11::handle guesses,
                              pybind11::handle intercept, pybind11::handle slope,
                              pybind11::handle settled, pybind11::handle at,
                              pybind11::handle coefficients);

NoteNonfinite note_of(const DLDevice& device, std::int64_t first, pybind11::handle failed,
                      pybind11::handle values, pybind11::handle k, pybind11::handle samples,
                      pybind11::handle low, pybind11::handle high);

ResponseSums response_of(const DLDevice& device, double memory, pybind11::handle states,
                         pybind11::handle guess, pybind11::handle past_x,
                         pybind11::handle past_guess, pybind11::handle row, pybind11::handle known,
                         pybind11::handle length, pybind11::handle advance, pybind11::handle dot,
                         pybind11::handle square, pybind11::handle dot_after,
                         pybind11::handle square_after);

Draws draws_of(const DLDevice& device, pybind11::handle seeds, pybind11::handle transition,
               pybind11::handle round, std::uint32_t purpose, pybind11::handle out);

/// Throws for rows that are longer than their counters count.
void require_blocks(const char* name, std::int64_t size);

}  // namespace free_dit
