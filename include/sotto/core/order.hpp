// Sorting of indices.
#pragma once

#include <algorithm>
#include <span>

#include <sotto/config.hpp>
#include <sotto/core/parallel.hpp>

namespace sotto::inline SOTTO_ABI {

/// Sorts by a strict order. (One sort for every order: each std::sort of a comparison of its own is compiled anew.)
inline SOTTO_COLD void sort_indices(std::span<int> indices, FunctionRef<bool(int, int)> before) {
  // a lambda: its type, and so the instance of std::sort, is of this instruction set
  std::sort(indices.begin(), indices.end(), [&](int a, int b) { return before(a, b); });
}

}  // namespace sotto::inline SOTTO_ABI
