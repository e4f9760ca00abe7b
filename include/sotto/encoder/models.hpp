// From a name, or a checkpoint, to a type: the one way from run time to compile time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <sotto/core/error.hpp>
#include <sotto/encoder/presets.hpp>

namespace sotto::inline SOTTO_ABI {

/// A list of specs that have names.
template <class... Specs> struct Models {
  static std::vector<std::string_view> names() { return {Specs::name...}; }

  /// Calls f.operator()<S>() for the spec of that name and returns what it returns. Error(usage) lists the names.
  template <class F> static auto visit(std::string_view name, F&& f) {
    return select<F, Specs...>([&]<class S>() { return name == S::name; }, f,
                               [&] {
                                 std::string known;
                                 for (auto each : names()) known += (known.empty() ? "" : ", ") + std::string(each);
                                 throw_error(ErrorCode::usage, {"there is no model '", name, "'; there are ", known});
                               });
  }
  /// Calls f for the first spec for which `matches.operator()<S>()` holds; otherwise `none()`, which must throw.
  template <class F, class Matches, class None> static auto visit_if(Matches&& matches, F&& f, None&& none) {
    return select<F, Specs...>(matches, f, none);
  }

 private:
  template <class F, class S, class... Rest, class Matches, class None>
  static auto select(Matches&& matches, F& f, None&& none) -> decltype(f.template operator()<S>()) {
    if (matches.template operator()<S>()) return f.template operator()<S>();
    if constexpr (sizeof...(Rest) > 0)
      return select<F, Rest...>(matches, f, none);
    else {
      none();
      throw_error(ErrorCode::internal, {"no model matched and nothing was thrown"});
    }
  }
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::presets::inline SOTTO_ABI {

/// Every preset.
using All = Models<Tiny, Slim, Small, Deep, Wide, Ladder30, Ladder50, Ladder60, Ladder70, Ladder90, Ladder130,
                   Ladder160, Ladder190, Ladder200, Base, Large>;

}  // namespace sotto::presets::inline SOTTO_ABI
