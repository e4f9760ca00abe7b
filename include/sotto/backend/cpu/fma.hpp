// The micro-kernel that every product ends in, and what it multiplies where numbers are floats.
#pragma once

#include <cstddef>
#include <cstring>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// Columns of a panel of B, and of a tile of the result.
inline constexpr int panel_columns = 2 * lanes;

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// What a micro-kernel multiplies: k steps along A and B.
template <class Left, class Unit> struct Strip {
  int k;
  Left const* a;
  std::ptrdiff_t a_stride;  ///< from row to row of A; where A is transposed, from step to step
  Unit const* b;
  std::ptrdiff_t b_stride;  ///< from step to step
};

/// C [M, Vectors * lanes] = A [M, k] B. A transposed lies as [k, M].
template <class Kernel, int M, int Vectors, bool Transposed>
SOTTO_NOINLINE void micro(Strip<typename Kernel::Left, typename Kernel::Unit> const& strip, float* c,
                          std::ptrdiff_t c_stride) {
  using Left = typename Kernel::Left;
  Left const* a = strip.a;
  auto const* b = strip.b;
  const std::ptrdiff_t a_stride = strip.a_stride, b_stride = strip.b_stride;
  // one base pointer for three rows: [base], [base + stride], [base + 2 stride] are addressing
  // modes, 12 pointers spill
  constexpr int bases = (M + 2) / 3;
  Left const* base[bases];
  for (int q = 0; q < bases; ++q) base[q] = a + 3 * q * a_stride;
  // every loop over the sums is unrolled, or they would live in memory
  Vec sum[M][Vectors];
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[i][v] = Vec{};
  for (int p = strip.k; p > 0; --p) {
    typename Kernel::Right right[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) right[v] = Kernel::right(b + v * lanes);
    b += b_stride;
#pragma GCC unroll 12
    for (int i = 0; i < M; ++i) {
      const Left left = Transposed ? a[i] : base[i / 3][(i % 3) * a_stride];
      Kernel::template add<Vectors>(sum[i], left, right);
    }
    if constexpr (Transposed)
      a += a_stride;
    else
      for (int q = 0; q < bases; ++q) ++base[q];
  }
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i, c += c_stride)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) store(c + v * lanes, sum[i][v]);
}

template <class Kernel, int Vectors, bool Transposed>
inline void micro_rows(int rows, Strip<typename Kernel::Left, typename Kernel::Unit> strip, float* c,
                       std::ptrdiff_t c_stride) {
  const auto step = [&]<int M>() {
    micro<Kernel, M, Vectors, Transposed>(strip, c, c_stride);
    rows -= M;
    strip.a += Transposed ? M : M * strip.a_stride;
    c += M * c_stride;
  };
  if (rows == Kernel::rows) return step.template operator()<Kernel::rows>();
  while (rows >= 4) step.template operator()<4>();
  if (rows >= 2) step.template operator()<2>();
  if (rows >= 1) step.template operator()<1>();
}

/// What kernels share that multiply in registers: C [rows, columns] = A B, for at most Kernel::rows rows and
/// panel_columns columns. Whole vectors of columns are written.
template <class Kernel, class Left, class Unit> struct RegisterKernel {
  static void multiply(int rows, int columns, Strip<Left, Unit> const& strip, float* c, std::ptrdiff_t c_stride) {
    multiplied<false>(rows, columns, strip, c, c_stride);
  }
  static void multiply_transposed(int rows, int columns, Strip<Left, Unit> const& strip, float* c,
                                  std::ptrdiff_t c_stride) {
    multiplied<true>(rows, columns, strip, c, c_stride);
  }
  struct Session {};

 private:
  template <bool Transposed>
  static void multiplied(int rows, int columns, Strip<Left, Unit> const& strip, float* c, std::ptrdiff_t c_stride) {
    if (columns > lanes)
      micro_rows<Kernel, 2, Transposed>(rows, strip, c, c_stride);
    else
      micro_rows<Kernel, 1, Transposed>(rows, strip, c, c_stride);
  }
};

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Products of floats by fused multiply-adds. What a product needs to know of its kernel:
/// Session: lives while a product computes. Number: what A and C hold. Unit: `depth` numbers of B that lie above each
/// other, multiplied in one step; panels consist of them. Left: what meets a unit from the side of A. rows: of a tile.
/// copies: A is always copied, as Left.
struct Fma : detail::RegisterKernel<Fma, float, float> {
  using Number = float;
  using Unit = float;
  using Left = float;
  using Right = Vec;
  static constexpr int depth = 1, step = 1;
  static constexpr bool copies = false;
  /// What fits the registers beside two vectors of B and one number of A. 12 divides every width that is used; 14 is no
  /// faster.
  static constexpr int rows = lanes == 16 ? 12 : 6;
  static constexpr int most_units = 512, gradient_units = 384;  ///< of a block of k, and of a gradient's rows

  static SOTTO_ALWAYS_INLINE Vec right(float const* b) { return load(b); }
  template <int Vectors> static SOTTO_ALWAYS_INLINE void add(Vec* sum, float left, Vec const* right) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[v] += left * right[v];
  }

  /// k numbers of a row of A.
  static void copy_row(float const* from, int k, float* to) {
    std::memcpy(to, from, static_cast<std::size_t>(k) * sizeof(float));
  }
  /// The first n columns of a row of B, as units; zeros beyond.
  template <class Source> static SOTTO_ALWAYS_INLINE Vec unit_row(Source const* b, std::ptrdiff_t, int, int n) {
    return n > 0 ? load_part(b, n) : Vec{};
  }
  /// `lanes` units of numbers that lie side by side, of which `present` are left; zeros beyond.
  static SOTTO_ALWAYS_INLINE VecBits units(float const* b, int present) {
    return present > 0 ? reinterpret_cast<VecBits>(load_part(b, present)) : VecBits{};
  }
  /// dy^T's block: row t of `left` holds `n` numbers of row t of dy, and numbers beyond that are read by nobody.
  static void copy_columns(float const* dy, std::ptrdiff_t stride, int k, int n, int most, float* left) {
    for (int t = 0; t < k; ++t)
      for (int v = 0; v < n; v += lanes) store(left + t * rows + v, load_part(dy + t * stride + v, most - v));
  }
  static constexpr int left_stride = rows, left_size = gradient_units * rows + 2 * lanes;
};

}  // namespace sotto::cpu::inline SOTTO_ABI
