// What may be spent: FLOPs, updates, audio or wall clock, each a type of its own.
#pragma once

#include <charconv>
#include <chrono>
#include <cmath>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_API {

/// Model FLOPs, exact: 2 per multiply-add of the products that the mathematics needs on real rows.
struct Flops {
  std::uint64_t count = 0;

  friend SOTTO_ALWAYS_INLINE constexpr bool operator==(Flops const&, Flops const&) = default;
  friend SOTTO_ALWAYS_INLINE constexpr auto operator<=>(Flops const&, Flops const&) = default;
  friend SOTTO_ALWAYS_INLINE constexpr Flops operator+(Flops a, Flops b) { return {a.count + b.count}; }
  friend SOTTO_ALWAYS_INLINE constexpr Flops operator-(Flops a, Flops b) { return {a.count - b.count}; }
  friend SOTTO_ALWAYS_INLINE constexpr Flops operator*(std::uint64_t n, Flops a) { return {n * a.count}; }
  SOTTO_ALWAYS_INLINE constexpr Flops& operator+=(Flops b) { return *this = *this + b; }
  /// a / b as a ratio.
  friend SOTTO_ALWAYS_INLINE constexpr double operator/(Flops a, Flops b) {
    return static_cast<double>(a.count) / static_cast<double>(b.count);
  }
};

/// Seconds of audio that training may see.
struct AudioBudget {
  double seconds;
};
/// Seconds that training may take; turned into FLOPs by a short calibration at the start.
struct WallBudget {
  double seconds;
};
/// Optimiser steps that training may take.
struct UpdateBudget {
  std::uint64_t count;
};
template <class Rep, class Period> constexpr AudioBudget audio(std::chrono::duration<Rep, Period> length) {
  return {std::chrono::duration<double>(length).count()};
}
template <class Rep, class Period> constexpr WallBudget wall(std::chrono::duration<Rep, Period> length) {
  return {std::chrono::duration<double>(length).count()};
}
constexpr UpdateBudget updates(std::uint64_t n) { return {n}; }

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// When training stops. Made from `1e15_flop`, `audio(2h)`, `wall(10min)` or `updates(200)`; a bare duration does not
/// say which clock it means, and does not compile.
class Budget {
 public:
  enum class Kind { flops, updates, audio, wall };

  constexpr Budget(Flops flops) : kind_(Kind::flops), amount_(static_cast<double>(flops.count)) {}   // NOLINT
  constexpr Budget(UpdateBudget n) : kind_(Kind::updates), amount_(static_cast<double>(n.count)) {}  // NOLINT
  constexpr Budget(AudioBudget a) : kind_(Kind::audio), amount_(a.seconds) {}                        // NOLINT
  constexpr Budget(WallBudget w) : kind_(Kind::wall), amount_(w.seconds) {}                          // NOLINT

  constexpr Kind kind() const { return kind_; }
  /// FLOPs, updates, or seconds.
  constexpr double amount() const { return amount_; }
  friend constexpr bool operator==(Budget const&, Budget const&) = default;

  /// Reads what text() writes: 1e13flop, 200updates, 2h-audio, 90s-audio, 10min-wall.
  SOTTO_COLD static Budget parse(std::string_view text) {
    double amount = 0;
    const auto number = std::from_chars(text.data(), text.data() + text.size(), amount);  // the same in every locale
    const std::string_view unit = text.substr(static_cast<std::size_t>(number.ptr - text.data()));
    const auto refuse = [&](char const* why) {
      throw_error(ErrorCode::usage,
                  {"budget '", text, "' ", why, ": write 1e13flop, 200updates, 2h-audio or 10min-wall"});
    };
    if (number.ec == std::errc::invalid_argument) refuse("does not begin with a number");
    if (number.ec != std::errc{} || !std::isfinite(amount) || amount <= 0) refuse("is not a positive number");
    if (unit == "flop" || unit == "flops") {
      if (amount < 1) refuse("is less than one");
      if (amount > 1.8e19) refuse("is beyond the 1.8e19 that are counted exactly");
      return Flops{static_cast<std::uint64_t>(amount)};
    }
    if (unit == "updates" || unit == "update") {
      if (amount != std::floor(amount) || amount > 0x1p53) refuse("is not a whole number of updates");
      return sotto::updates(static_cast<std::uint64_t>(amount));
    }
    const auto dash = unit.find('-');
    if (dash != std::string_view::npos) {
      const std::string_view clock = unit.substr(dash + 1), time = unit.substr(0, dash);
      const double scale = time == "s" ? 1 : time == "min" ? 60 : time == "h" ? 3600 : 0;
      if (scale > 0 && clock == "audio") return AudioBudget{amount * scale};
      if (scale > 0 && clock == "wall") return WallBudget{amount * scale};
    }
    refuse("has no unit that sotto knows");
    return Flops{};
  }
  SOTTO_COLD std::string text() const {
    char number[40];
    const auto end = std::to_chars(number, number + sizeof number, amount_).ptr;
    constexpr char const* units[] = {"flop", "updates", "s-audio", "s-wall"};
    return joined({std::string_view(number, static_cast<std::size_t>(end - number)), units[static_cast<int>(kind_)]});
  }

 private:
  Kind kind_;
  double amount_;
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::inline SOTTO_API {

/// `using namespace sotto::literals;` gives 1e15_flop, and std::chrono's 2h, 10min.
namespace literals {
using namespace std::chrono_literals;
consteval Flops operator""_flop(long double count) { return {static_cast<std::uint64_t>(count)}; }
consteval Flops operator""_flop(unsigned long long count) { return {count}; }
}  // namespace literals

}  // namespace sotto::inline SOTTO_API
