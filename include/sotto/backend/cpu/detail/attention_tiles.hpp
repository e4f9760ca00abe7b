// What one head of one sequence is computed in: tiles of scores that stay in the L1 and L2 caches,
// and their products.
#pragma once

#include <cstddef>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

// A tile of scores is [tile_queries, tile_keys]; K^T and V^T lie in panels of panel_keys columns,
// [HeadWidth, panel_keys] each. Every micro-kernel's row count divides both extents of a tile.
inline constexpr int tile_queries = 48, tile_keys = 96, panel_keys = 2 * lanes;
static_assert(tile_keys % panel_keys == 0);

constexpr int ceil_to(int n, int step) { return (n + step - 1) / step * step; }

// Rows of a micro-kernel whose C is `Vectors` wide: as many accumulators as there are registers
// for.
template <int Vectors>
inline constexpr int kernel_rows = lanes == 16 ? (Vectors == 3 ? 8 : 12) : (Vectors == 3 ? 4 : 6);

// How many of the vectors left are taken at once, so that no single one is left over.
constexpr int take_vectors(int left) { return left >= 3 && left % 2 == 1 ? 3 : left >= 2 ? 2 : 1; }

// C[i][j] (+)= sum over k of A(i, k) B[k][j], one micro-tile. A(i, k) lies at i * ARow + k * AStep;
// rows of B and C are BRow and CRow apart. The strides are constants, so that addresses are
// immediate offsets.
template <int Vectors, int ARow, int AStep, int BRow, int CRow, bool Add>
SOTTO_ALWAYS_INLINE void micro_tile(int depth, float const* a, float const* b, float* c) {
  constexpr int rows = kernel_rows<Vectors>;
  Vec sum[rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Add ? load(c + i * CRow + j * lanes) : Vec{};
  for (int k = 0; k < depth; ++k) {
    Vec right[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) right[j] = load(b + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const float left = a[i * ARow];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += left * right[j];
    }
    a += AStep;
    b += BRow;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * CRow + j * lanes, sum[i][j]);
}

// All rows of some columns. Rows are rounded up to the micro-kernel's: A and C must have them.
template <int Vectors, int ARow, int AStep, int BRow, int CRow, bool Add>
SOTTO_NOINLINE void tile_columns(int rows, int depth, float const* a, float const* b, float* c) {
  for (int i = 0; i < rows; i += kernel_rows<Vectors>)
    micro_tile<Vectors, ARow, AStep, BRow, CRow, Add>(depth, a + i * ARow, b, c + i * CRow);
}

// S = Q K^T or dP = dO V^T: [rows, HeadWidth] (rows Padded apart) times panels, into a tile;
// `columns` rounded up to lanes.
template <int HeadWidth, int Padded>
SOTTO_ALWAYS_INLINE void tile_scores(int rows, int columns, float const* q, float const* panels, float* tile) {
  int j = 0;
  for (; j + lanes < columns; j += panel_keys)
    tile_columns<2, Padded, 1, panel_keys, tile_keys, false>(rows, HeadWidth, q, panels + j * HeadWidth, tile + j);
  if (j < columns)
    tile_columns<1, Padded, 1, panel_keys, tile_keys, false>(rows, HeadWidth, q, panels + j * HeadWidth, tile + j);
}

// C += A B with B and C [.., Padded]: a tile (ARow = tile_keys, AStep = 1) or its transpose (1,
// tile_keys) times rows.
template <int ARow, int AStep, int Padded, int First = 0>
SOTTO_ALWAYS_INLINE void tile_times_rows(int rows, int depth, float const* tile, float const* b, float* c) {
  constexpr int vectors = take_vectors((Padded - First) / lanes);
  tile_columns<vectors, ARow, AStep, Padded, Padded, true>(rows, depth, tile, b + First, c + First);
  if constexpr (First + vectors * lanes < Padded)
    tile_times_rows<ARow, AStep, Padded, First + vectors * lanes>(rows, depth, tile, b, c);
}

// Copies rows [count, HeadWidth] times scale to rows [.., Padded], and clears what the copy leaves:
// the columns from HeadWidth on, and the rows [count, rows).
template <int HeadWidth, int Padded, class E>
SOTTO_ALWAYS_INLINE void pack_rows(E const* from, std::ptrdiff_t stride, int count, float scale, int rows, float* to) {
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < HeadWidth; ++c) to[i * Padded + c] = static_cast<float>(from[i * stride + c]) * scale;
    for (int c = HeadWidth; c < Padded; ++c) to[i * Padded + c] = 0;
  }
  for (int i = count * Padded; i < rows * Padded; ++i) to[i] = 0;
}

// Transposes rows [.., Padded] into panels; keys at and beyond `length` up to the panel's end must
// be zeros in `rows`.
template <int HeadWidth, int Padded>
SOTTO_NOINLINE void pack_panels(float const* __restrict rows, int length, float* __restrict panels) {
  for (int j0 = 0; j0 < length; j0 += panel_keys)
    for (int c = 0; c < HeadWidth; ++c)
      for (int j = 0; j < panel_keys; ++j) panels[j0 * HeadWidth + c * panel_keys + j] = rows[(j0 + j) * Padded + c];
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI
