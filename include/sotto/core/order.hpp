// Sorting of indices.
#pragma once

#include <algorithm>
#include <span>

#include <sotto/config.hpp>
#include <sotto/core/parallel.hpp>

namespace sotto::inline SOTTO_ABI {

/// Sorts by a strict order, in which no two are equal. (One sort for every order: each of a comparison of its own is
/// compiled anew, and a heap's is a third of std::sort.)
inline SOTTO_COLD void sort_indices(std::span<int> indices, FunctionRef<bool(int, int)> before) {
  // a lambda: its type, and so the instances of the sort, are of this instruction set
  const auto less = [&](int a, int b) { return before(a, b); };
  int* const end = indices.data() + indices.size();
  std::make_heap(indices.data(), end, less);
  std::sort_heap(indices.data(), end, less);
}

}  // namespace sotto::inline SOTTO_ABI
