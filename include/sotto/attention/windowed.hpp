// Every query sees its neighbourhood.
#pragma once

#include <sotto/attention/policy.hpp>

namespace sotto::attention::inline SOTTO_API {

/// Softmax attention to the keys [query - Before, query + After], in frames; After = 0 is causal.
/// Costs O(length · window) (Longformer's sliding window, arXiv 2004.05150).
template <int Before, int After = Before> struct Windowed : Softmax {
  static_assert(Before >= 0 && After >= 0, "sotto: a window must not be negative");
  static constexpr Span span{Before, After};
};

}  // namespace sotto::attention::inline SOTTO_API
