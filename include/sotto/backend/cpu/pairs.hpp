// Products of bf16 numbers, two of k in a step, summed in floats: by AVX512_BF16's dot products where the target has
// them, else by two fused multiply-adds of floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sotto/backend/cpu/fma.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/bf16.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// bf16 patterns of n numbers, zeros beyond, in the lower halves.
SOTTO_ALWAYS_INLINE VecBits patterns(float const* p, int n) {
  return __builtin_convertvector(to_halves(load_part(p, n)), VecBits);
}
SOTTO_ALWAYS_INLINE VecBits patterns(bf16 const* p, int n) { return reinterpret_cast<VecBits>(load_part(p, n)) >> 16; }

/// Panels of units, however they are multiplied: the number with the smaller k in the lower half.
struct PairUnits {
  using Number = bf16;
  using Unit = std::uint32_t;
  static constexpr int depth = 2;
  static constexpr bool copies = true;  ///< rows of any length and at any stride become whole units

  /// The first n columns of two rows of B, as units; `present` rows are left from b on; zeros beyond.
  template <class Source>
  static SOTTO_ALWAYS_INLINE VecBits unit_row(Source const* b, std::ptrdiff_t row, int present, int n) {
    if (present <= 0 || n <= 0) return VecBits{};
    const VecBits low = patterns(b, n);
    return present == 1 ? low : low | patterns(b + row, n) << 16;
  }
  /// `lanes` units of numbers that lie side by side, of which `present` are left; zeros beyond.
  template <class Source> static SOTTO_ALWAYS_INLINE VecBits units(Source const* b, int present) {
    bf16 numbers[2 * lanes] = {};
    if (present > 0) store(numbers, load_part(b, present));
    if (present > lanes) store(numbers + lanes, load_part(b + lanes, present - lanes));
    VecBits v;
    std::memcpy(&v, numbers, sizeof v);
    return v;
  }
};

/// A step of a row of A.
struct WidePair {
  float low, high;
};
/// A step of `lanes` columns of B.
struct WidePairs {
  Vec low, high;
};

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

#if defined(__AVX512BF16__) && defined(__AVX512F__)

/// By vdpbf16ps. Twice as fast as floats on some processors (Zen 4), half as fast on others (Sapphire Rapids).
struct Pairs : detail::PairUnits, detail::RegisterKernel<Pairs, std::uint32_t, std::uint32_t> {
  using Left = std::uint32_t;
  using Right = VecBits;
  static constexpr int step = 1, rows = 12, most_units = 768, gradient_units = 384;

  static SOTTO_ALWAYS_INLINE VecBits right(std::uint32_t const* b) {
    VecBits v;
    std::memcpy(&v, b, sizeof v);
    return v;
  }
  template <int Vectors> static SOTTO_ALWAYS_INLINE void add(Vec* sum, std::uint32_t left, VecBits const* right) {
    const VecBits all = VecBits{} + left;
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum[v]) : "v"(all), "v"(right[v]));
  }
  /// k numbers of a row of A.
  static void copy_row(bf16 const* from, int k, std::uint32_t* to) {
    if (k % 2 != 0) to[k / 2] = from[k - 1].bits;
    std::memcpy(to, from, static_cast<std::size_t>(k / 2) * sizeof(std::uint32_t));
  }
  /// dy^T's block: row t of `left` holds the first `n` units of rows 2t and 2t + 1 of dy; `most` numbers of a row may
  /// be read.
  static void copy_columns(bf16 const* dy, std::ptrdiff_t stride, int k, int n, int most, std::uint32_t* left) {
    for (int t = 0; t < k; t += 2, left += rows)
      for (int v = 0; v < n; v += lanes) {
        const VecBits units = unit_row(dy + t * stride + v, stride, k - t, most - v);
        std::memcpy(left + v, &units, sizeof units);
      }
  }
  static constexpr int left_stride = rows, left_size = gradient_units * rows + 2 * lanes;
};

#else

/// By floats: no faster than Fma, for targets without dot products of bf16.
struct Pairs : detail::PairUnits, detail::RegisterKernel<Pairs, detail::WidePair, std::uint32_t> {
  using Left = detail::WidePair;
  using Right = detail::WidePairs;
  static constexpr int step = 1, rows = lanes == 16 ? 12 : 4, most_units = 384, gradient_units = 192;

  static SOTTO_ALWAYS_INLINE Right right(std::uint32_t const* b) {
    VecBits v;
    std::memcpy(&v, b, sizeof v);
    return {reinterpret_cast<Vec>(v << 16), reinterpret_cast<Vec>(v & 0xffff0000u)};
  }
  template <int Vectors> static SOTTO_ALWAYS_INLINE void add(Vec* sum, Left left, Right const* right) {
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[v] += left.low * right[v].low;
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[v] += left.high * right[v].high;
  }
  static void copy_row(bf16 const* from, int k, Left* to) {
    for (int p = 0; p < k; p += 2)
      to[p / 2] = {static_cast<float>(from[p]), p + 1 < k ? static_cast<float>(from[p + 1]) : 0.f};
  }
  static void copy_columns(bf16 const* dy, std::ptrdiff_t stride, int k, int n, int, Left* left) {
    for (int t = 0; t < k; t += 2, left += rows)
      for (int i = 0; i < n; ++i)
        left[i] = {static_cast<float>(dy[t * stride + i]),
                   t + 1 < k ? static_cast<float>(dy[(t + 1) * stride + i]) : 0.f};
  }
  static constexpr int left_stride = rows, left_size = gradient_units * rows + 2 * lanes;
};

#endif

}  // namespace sotto::cpu::inline SOTTO_ABI
