// Axes of charts: a range that holds the numbers, and ticks where people expect them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/study/format.hpp>

namespace sotto::study::detail::inline SOTTO_ABI {

struct Tick {
  double value;
  std::string label;
};

struct Axis {
  double low = 0, high = 1;
  bool logarithmic = false;
  std::string prefix;  ///< SI letter that the labels leave out
  std::vector<Tick> ticks;

  /// Where a value lies, 0 at the low end and 1 at the high end.
  double at(double value) const {
    if (logarithmic) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
    return (value - low) / (high - low);
  }
};

/// 1, 2, 2.5 or 5 times a power of ten, the smallest that is at least `step`.
inline double nice_step(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1., 2., 2.5, 5.})
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
};

/// Ticks from low to high at a nice step, some `count` of them; the range grows outwards to ticks
/// if `to_ticks`. scale: what the numbers are divided by in labels; suffix follows each.
inline Axis linear_axis(Range range, int count, bool to_ticks, double scale = 1, std::string const& suffix = {}) {
  if (range.empty()) range = {0, 1};
  if (range.high - range.low <= 1e-12 * std::max(std::abs(range.low), std::abs(range.high)) ||
      range.high == range.low) {
    const double room = range.low == 0 ? 1 : std::abs(range.low) * .1;
    range = {range.low - room, range.high + room};
  }
  const double step = nice_step((range.high - range.low) / count);
  Axis axis;
  axis.low = to_ticks ? std::floor(range.low / step + 1e-9) * step : range.low;
  axis.high = to_ticks ? std::ceil(range.high / step - 1e-9) * step : range.high;
  const double shown = step / scale;
  int digits = 0;
  while (digits < 12 && std::abs(shown * std::pow(10., digits) - std::round(shown * std::pow(10., digits))) >
                            1e-6 * std::pow(10., digits) * shown)
    ++digits;
  for (double k = std::ceil(axis.low / step - 1e-6); k * step <= axis.high + 1e-6 * step; ++k)
    axis.ticks.push_back({k * step, format_fixed(k * step / scale, digits) + suffix});
  return axis;
}

/// Ticks at powers of ten, or at 1, 2 and 5 times them where there are few; each with its own
/// prefix.
inline Axis logarithmic_axis(Range range, int count) {
  if (range.empty() || !(range.low > 0)) range = {1, 10};
  if (range.high < range.low * 1.01) range = {range.low / 2, range.high * 2};
  Axis axis;
  axis.logarithmic = true;
  axis.low = range.low;
  axis.high = range.high;
  const double decades = std::log10(range.high / range.low);
  const int every = std::max(1, static_cast<int>(std::ceil(decades / count)));
  const std::vector<double> factors = decades >= 3 ? std::vector<double>{1} : std::vector<double>{1, 2, 5};
  for (int power = static_cast<int>(std::floor(std::log10(range.low))); power <= std::ceil(std::log10(range.high));
       ++power) {
    if (power % every != 0) continue;
    for (const double factor : factors) {
      const double value = factor * std::pow(10., power);
      if (value < range.low * (1 - 1e-9) || value > range.high * (1 + 1e-9)) continue;
      const SiPrefix prefix = si_prefix(value);
      axis.ticks.push_back({value, format_significant(value / prefix.factor, 3) +
                                       (*prefix.letter ? std::string(" ") + prefix.letter : "")});
    }
  }
  return axis;
}

}  // namespace sotto::study::detail::inline SOTTO_ABI
