// Options as texts: how a checkpoint keeps them, and compares them when a run goes on.
#pragma once

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <sotto/budget/units.hpp>
#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/texts.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// Writes numbers to and reads them from named texts.
class OptionText {
 public:
  static OptionText writing(Texts& to) { return OptionText(&to, nullptr, {}); }
  /// path: of the file that they were read from.
  static OptionText reading(Texts const& from, std::filesystem::path path) {
    return OptionText(nullptr, &from, std::move(path));
  }
  /// What comes before the names from now on.
  void under(std::string prefix) { prefix_ = std::move(prefix); }

  /// value: a number, a duration, or a budget.
  template <class T> SOTTO_COLD void operator()(std::string_view name, T& value) {
    if constexpr (std::is_same_v<T, Budget>) {
      budget(name, value);
    } else if constexpr (std::is_floating_point_v<T>) {
      auto number = static_cast<double>(value);
      real(name, number);
      value = static_cast<T>(number);
    } else if constexpr (std::is_unsigned_v<T>) {
      auto number = static_cast<std::uint64_t>(value);
      natural(name, number);
      value = static_cast<T>(number);
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      auto number = static_cast<std::int64_t>(value);
      whole(name, number);
      value = static_cast<T>(number);
    } else {
      auto number = static_cast<std::int64_t>(value.count());
      whole(name, number);
      value = T(number);
    }
  }

 private:
  OptionText(Texts* to, Texts const* from, std::filesystem::path path) : to_(to), from_(from), path_(std::move(path)) {}

  SOTTO_COLD void budget(std::string_view name, Budget& value) {
    if (to_ != nullptr)
      write(name, value.text());
    else
      value = Budget::parse(read(name));
  }
  // to_chars and from_chars: exact, and the same in every locale
  SOTTO_COLD void real(std::string_view name, double& value) {
    if (to_ != nullptr) {
      char text[40];
      write(name, {text, static_cast<std::size_t>(std::to_chars(text, text + sizeof text, value).ptr - text)});
      return;
    }
    std::string const& text = read(name);
    const auto end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, value);
    expect_number(name, text, result.ec == std::errc{} && result.ptr == end);
  }
  // integers of which no other text is read than the one that is written
  SOTTO_COLD void natural(std::string_view name, std::uint64_t& value) {
    if (to_ != nullptr) return write(name, joined({value}));
    std::string const& text = read(name);
    value = std::strtoull(text.c_str(), nullptr, 10);
    expect_number(name, text, joined({value}) == text);
  }
  SOTTO_COLD void whole(std::string_view name, std::int64_t& value) {
    if (to_ != nullptr) return write(name, joined({value}));
    std::string const& text = read(name);
    value = std::strtoll(text.c_str(), nullptr, 10);
    expect_number(name, text, joined({value}) == text);
  }
  SOTTO_COLD void expect_number(std::string_view name, std::string const& text, bool is_number) const {
    if (!is_number)
      throw_error(ErrorCode::checkpoint,
                  {"the checkpoint says '", text, "' for '", prefix_, name, "', which is no number: it is damaged"},
                  path_);
  }
  void write(std::string_view name, std::string_view text) { to_->set(joined({prefix_, name}), text); }
  SOTTO_COLD std::string const& read(std::string_view name) const {
    std::string const* const text = from_->find(joined({prefix_, name}));
    if (text == nullptr)
      throw_error(ErrorCode::checkpoint,
                  {"the checkpoint does not say '", prefix_, name, "': it is from another version"}, path_);
    return *text;
  }

  Texts* to_;
  Texts const* from_;
  std::filesystem::path path_;
  std::string prefix_;
};

/// Options of a user's own objective or augmentation are stored if they have `visit(f)`, which names each.
template <class Options> void visit_own(Options& options, OptionText& text) {
  if constexpr (requires { options.visit(text); }) options.visit(text);
}

}  // namespace sotto::detail::inline SOTTO_ABI
