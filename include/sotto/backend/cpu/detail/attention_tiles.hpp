// What one head of one sequence is computed in: products that stay in the L1 and L2 caches, whose operands lie as
// kernels want them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <sotto/backend/cpu/product.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/arena.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

constexpr int ceil_to(int n, int step) { return (n + step - 1) / step * step; }

// Queries are taken `tile_queries` at a time and, in the backward pass, keys `tile_keys` at a time: multiples of a
// kernel's rows and of its panels.
template <class Kernel> inline constexpr int tile_queries = Kernel::rows == 32 ? 64 : 48;
template <class Kernel> inline constexpr int tile_keys = Kernel::rows == 32 ? 64 : 96;

/// A of a product: rows of numbers as the kernel reads them.
template <class Kernel> struct Operand {
  typename Kernel::Left* begin;
  std::ptrdiff_t stride;
};

/// Rows [count, k] as A.
template <class Kernel, int K>
SOTTO_ALWAYS_INLINE void copy_rows(typename Kernel::Number const* from, std::ptrdiff_t stride, int count,
                                   Operand<Kernel> to) {
  for (int i = 0; i < count; ++i) Kernel::copy_row(from + i * stride, K, to.begin + i * to.stride);
}

/// C [m, n] = A [m, units] B, where B's panels begin `panel` units apart.
template <class Kernel>
SOTTO_NOINLINE void multiply_rows(int m, int n, int units, typename Kernel::Left const* a, std::ptrdiff_t a_stride,
                                  typename Kernel::Unit const* b, std::ptrdiff_t panel, float* c,
                                  std::ptrdiff_t c_stride) {
  for (int j = 0; j < n; j += panel_columns, b += panel)
    for (int i = 0; i < m; i += Kernel::rows)
      Kernel::multiply(std::min(Kernel::rows, m - i), std::min(panel_columns, n - j),
                       {units, a + i * a_stride, a_stride, b, panel_columns}, c + i * c_stride + j, c_stride);
}

/// C += A B, for C [m, n] of floats.
template <class Kernel>
SOTTO_NOINLINE void add_rows(int m, int n, int units, typename Kernel::Left const* a, std::ptrdiff_t a_stride,
                             typename Kernel::Unit const* b, std::ptrdiff_t panel, Matrix<float> c) {
  alignas(64) float tile[Kernel::rows * panel_columns];
  for (int j = 0; j < n; j += panel_columns, b += panel)
    for (int i = 0; i < m; i += Kernel::rows) {
      const Place at{i, std::min(Kernel::rows, m - i), j, std::min(panel_columns, n - j)};
      Kernel::multiply(at.rows, at.columns, {units, a + i * a_stride, a_stride, b, panel_columns}, tile, panel_columns);
      finish_tile<float>(tile, at, {.kind = Epilogue<float>::Kind::accumulate}, {}, c);
    }
}

/// C [m, n] += P^T B for P [k, m].
template <class Kernel>
SOTTO_NOINLINE void add_transposed(int m, int n, int k, typename Kernel::Number const* p, std::ptrdiff_t p_stride,
                                   typename Kernel::Unit const* b, std::ptrdiff_t panel, Matrix<float> c) {
  alignas(64) float tile[Kernel::rows * panel_columns];
  alignas(64) typename Kernel::Left left[Kernel::left_size];
  for (int i = 0; i < m; i += Kernel::rows) {
    const int rows = std::min(Kernel::rows, m - i);
    Kernel::copy_columns(p + i, p_stride, k, rows, m - i, left);
    auto const* at_b = b;
    for (int j = 0; j < n; j += panel_columns, at_b += panel) {
      const int columns = std::min(panel_columns, n - j);
      Kernel::multiply_transposed(rows, columns, {units_of<Kernel>(k), left, Kernel::left_stride, at_b, panel_columns},
                                  tile, panel_columns);
      finish_tile<float>(tile, {i, rows, j, columns}, {.kind = Epilogue<float>::Kind::accumulate}, {}, c);
    }
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI
