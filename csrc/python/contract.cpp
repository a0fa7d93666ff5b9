// SPDX-License-Identifier: Apache-2.0
#include "contract.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <regex>
#include <sstream>

namespace free_dit {

Shape::Shape(const std::string& text) {
  static const std::regex kAxis(R"((?:([A-Z])>=)?(?:([A-Z])\*)?([A-Z])?([+-]?\d+)?)");
  std::istringstream words(text);
  for (std::string word; words >> word && word != ">";) {
    if (word[0] == '.') {
      rest = word == "..." ? 1 : 0;
      continue;
    }
    std::smatch found;
    std::regex_match(word, found, kAxis);
    axes.push_back(
        {found.str(2)[0], found.str(3)[0], std::atoll(found.str(4).c_str()), found.str(1)[0]});
  }
  filled = words.good();
}

std::int64_t Sizes::value(const Axis& axis) const {
  const std::int64_t value = (axis.letter == 0 ? 0 : of(axis.letter)) + axis.plus;
  return axis.times == 0 ? value : of(axis.times) * value;
}

bool Sizes::fits(const Axis& axis, std::int64_t extent) {
  if (axis.open != 0) {
    std::int64_t& open = of(axis.open);
    const bool fits = extent >= value(axis) && (open < 0 || open == extent);
    open = extent;
    return fits;
  }
  if (axis.letter == 0 || of(axis.letter) >= 0) {
    return extent == value(axis);
  }
  fresh |= 1u << (axis.letter - 'A');
  const std::int64_t each = axis.times == 0 ? 1 : of(axis.times);
  if (each <= 0 || extent % each != 0) {
    return false;
  }
  of(axis.letter) = extent / each - axis.plus;
  return of(axis.letter) >= 0;
}

bool Sizes::fits(const Shape& shape, const std::int64_t* extents, int axes) {
  fresh = 0;
  const int fixed = static_cast<int>(shape.axes.size());
  const int others = axes - fixed;
  const std::int64_t* const end = extents + axes;
  if (others < std::max(shape.rest, 0) || (shape.rest < 0 && others > 0) ||
      (shape.filled && std::find(extents, end, 0) != end)) {
    return false;
  }
  for (int i = 0; i < fixed; ++i) {
    if (!fits(shape.axes[static_cast<std::size_t>(i)], extents[i])) {
      return false;
    }
  }
  if (shape.rest >= 0 && rest == nullptr) {
    rest = extents + fixed;
    rest_end = end;
  }
  return shape.rest < 0 || std::equal(extents + fixed, end, rest, rest_end);
}

std::vector<std::int64_t> Sizes::extents(const Shape& shape) const {
  std::vector<std::int64_t> extents;
  for (const Axis& axis : shape.axes) {
    extents.push_back(value(axis));
  }
  if (shape.rest >= 0) {
    extents.insert(extents.end(), rest, rest_end);
  }
  return extents;
}

std::int64_t Sizes::count(const Shape& shape) const {
  const std::vector<std::int64_t> all = extents(shape);
  return std::accumulate(all.begin(), all.end(), std::int64_t{1}, std::multiplies<>());
}

std::string Sizes::text(const Shape& shape) const {
  std::string words;
  const auto add = [&](const std::string& word) { words += (words.empty() ? "" : ", ") + word; };
  for (const Axis& axis : shape.axes) {
    const bool part = axis.times != 0 && was_known(axis.times);
    add((axis.open != 0 ? "at least " : "") +
        (was_known(axis.letter) && was_known(axis.times) ? std::to_string(value(axis))
         : part ? "a multiple of " + std::to_string(of(axis.times))
                : std::string(1, axis.letter)));
  }
  if (shape.rest >= 0 && rest == nullptr) {
    add("...");
  }
  for (const auto* at = rest; shape.rest >= 0 && at != rest_end; ++at) {
    add(std::to_string(*at));
  }
  return (shape.filled ? "a non-empty shape [" : "shape [") + words + "]";
}

}  // namespace free_dit
