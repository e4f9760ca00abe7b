// The augmentation chain of a spec, fixed at compile time: each link alters the features of one crop.
#pragma once

#include <concepts>
#include <tuple>
#include <utility>

#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>

namespace sotto::augment::inline SOTTO_ABI {

/// What a link of the chain must have: Options, and apply(options, random, features [frames, width]).
template <class Link>
concept Augmentation = requires(typename Link::Options const& options, Random& random, Matrix<float> features) {
  Link::apply(options, random, features);
};

/// Links in the order they are applied. Chain<> does nothing and costs nothing.
template <Augmentation... Links> struct Chain {
  using Options = std::tuple<typename Links::Options...>;
  static constexpr bool empty = sizeof...(Links) == 0;

  /// Alters the features of one crop in place; a function of the random stream.
  static void apply(Options const& options, Random& random, Matrix<float> features) {
    [&]<std::size_t... I>(std::index_sequence<I...>) { (Links::apply(std::get<I>(options), random, features), ...); }
    (std::index_sequence_for<Links...>{});
  }
};

}  // namespace sotto::augment::inline SOTTO_ABI
