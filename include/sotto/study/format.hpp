// Numbers as people read them, whatever the locale.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_ABI {

/// A number with so many digits after the point ("3.40"); "n/a" if it is not finite.
inline std::string format_fixed(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  std::array<char, 400> text;
  if (value == 0) value = 0;  // no "-0"
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, digits);
  std::string result(text.data(), end.ptr);
  if (result.find_first_of("123456789") == std::string::npos && result[0] == '-') result.erase(0, 1);
  return result;
}

/// So many significant digits, without an exponent and without zeros at the end ("3.4", "1250").
inline std::string format_significant(double value, int digits) {
  if (!std::isfinite(value)) return "n/a";
  if (value == 0) return "0";
  const int exponent = static_cast<int>(std::floor(std::log10(std::abs(value))));
  std::string text = format_fixed(value, std::max(0, digits - 1 - exponent));
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

/// A power of 1000 and its letter.
struct SiPrefix {
  double factor;
  char const* letter;
};

/// The prefix that leaves value between 1 and 1000; none below 1000 and beyond what the letters
/// reach.
inline SiPrefix si_prefix(double value) {
  constexpr std::array<SiPrefix, 8> prefixes{
      {{1e21, "Z"}, {1e18, "E"}, {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}}};
  for (auto const& prefix : prefixes)
    if (std::abs(value) >= prefix.factor * (1 - 1e-9)) return prefix;
  return {1, ""};
}

/// "12.5 TFLOP" for 1.25e13: three significant digits and an SI prefix.
inline std::string format_flops(double flops) {
  if (!std::isfinite(flops)) return "n/a";
  SiPrefix prefix = si_prefix(flops);
  if (std::abs(flops) / prefix.factor >= 999.5 && prefix.factor < 1e21)  // would round to 1000
    prefix = si_prefix(prefix.factor * 1000);
  return format_significant(flops / prefix.factor, 3) + " " + prefix.letter + "FLOP";
}

/// "0.42 s", "43 s", "2 min 05 s", "1 h 12 min", "3 d 04 h": two units at most.
inline std::string format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "n/a";
  if (seconds < 0) return std::string("-").append(format_duration(-seconds));
  if (seconds < 9.95) return format_significant(seconds, 2) + " s";
  const auto two = [](long long n) { return std::string(n < 10 ? "0" : "").append(std::to_string(n)); };
  if (seconds > 1e15) return "n/a";
  long long whole = std::llround(seconds);
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + two(whole % 60) + " s";
  whole = std::llround(seconds / 60);
  if (whole < 24 * 60) return std::to_string(whole / 60) + " h " + two(whole % 60) + " min";
  whole = std::llround(seconds / 3600);
  return std::to_string(whole / 24) + " d " + two(whole % 24) + " h";
}

/// "54.9 %" for 0.549.
inline std::string format_percent(double fraction, int digits = 1) {
  return std::isfinite(fraction) ? format_fixed(100 * fraction, digits) + " %" : "n/a";
}

}  // namespace sotto::inline SOTTO_ABI
