// Vectors of floats in GNU vector extensions, as wide as the target's registers, and the functions
// that hot loops need. Memory holds floats or bf16: arithmetic is in floats either way.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <sotto/config.hpp>
#include <sotto/core/bf16.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
#elif defined(__AVX2__)  // AVX alone has no integers as wide
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif
/// `lanes` floats.
using Vec = float __attribute__((vector_size(lanes * 4)));
/// `lanes` ints: what comparing two Vecs gives, -1 where true.
using VecInt = int __attribute__((vector_size(lanes * 4)));

/// `lanes` bit patterns, and `lanes` bf16.
using VecBits = std::uint32_t __attribute__((vector_size(lanes * 4)));
using VecHalves = std::uint16_t __attribute__((vector_size(lanes * 2)));

SOTTO_ALWAYS_INLINE Vec load(float const* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SOTTO_ALWAYS_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
SOTTO_ALWAYS_INLINE Vec load(bf16 const* p) {
  VecHalves halves;
  std::memcpy(&halves, p, sizeof halves);
  return reinterpret_cast<Vec>(__builtin_convertvector(halves, VecBits) << 16);
}
/// Rounded to nearest, ties to even; a NaN stays one.
SOTTO_ALWAYS_INLINE VecHalves to_halves(Vec v) {
#if defined(__AVX512BF16__) && defined(__AVX512F__)
  VecHalves halves;
  __asm__("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(v));
  return halves;
#else
  const auto bits = reinterpret_cast<VecBits>(v);
  const VecBits rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
  return __builtin_convertvector(v == v ? rounded : quiet, VecHalves);
#endif
}
SOTTO_ALWAYS_INLINE void store(bf16* p, Vec v) {
  const VecHalves halves = to_halves(v);
  std::memcpy(p, &halves, sizeof halves);
}
/// A parameter that an argument converts to: another one says what E is.
template <class E> using In = Matrix<std::type_identity_t<E> const>;

/// One number as memory of E holds it.
template <class E> SOTTO_ALWAYS_INLINE E stored(float x) {
  if constexpr (std::is_same_v<E, bf16>)
    return bf16::of(x);
  else
    return x;
}

template <class E> SOTTO_NOINLINE Vec load_tail(E const* p, int n) {
  // by powers of two: a copy of a size known only at run time is a call
  E part[lanes] = {};
  E* to = part;
  const auto piece = [&](int size) {
    if ((n & size) == 0) return;
    for (int i = 0; i < size; ++i) to[i] = p[i];
    to += size;
    p += size;
  };
  if constexpr (lanes > 8) piece(8);
  if constexpr (lanes > 4) piece(4);
  piece(2);
  piece(1);
  return load(part);
}
template <class E> SOTTO_NOINLINE void store_tail(E* p, Vec v, int n) {
  E part[lanes];
  store(part, v);
  E const* from = part;
  const auto piece = [&](int size) {
    if ((n & size) == 0) return;
    for (int i = 0; i < size; ++i) p[i] = from[i];
    from += size;
    p += size;
  };
  if constexpr (lanes > 8) piece(8);
  if constexpr (lanes > 4) piece(4);
  piece(2);
  piece(1);
}
/// The first n numbers, zeros beyond; memory beyond is not touched. The end of a row: a call, so that loops stay small.
template <class E> SOTTO_ALWAYS_INLINE Vec load_part(E const* p, int n) {
  return n >= lanes ? load(p) : load_tail(p, n);
}
/// The first n numbers of v; memory beyond is not touched.
template <class E> SOTTO_ALWAYS_INLINE void store_part(E* p, Vec v, int n) {
  n >= lanes ? store(p, v) : store_tail(p, v, n);
}
SOTTO_ALWAYS_INLINE Vec splat(float x) {
  Vec v;
  for (int i = 0; i < lanes; ++i) v[i] = x;  // Vec{} + x would be a real addition: -0 + 0
  return v;
}
SOTTO_ALWAYS_INLINE float sum_of(Vec v) {
  float part[lanes];
  std::memcpy(part, &v, sizeof v);
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}
SOTTO_ALWAYS_INLINE float max_of(Vec v) {
  float part[lanes];
  std::memcpy(part, &v, sizeof v);
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
  return part[0];
}
SOTTO_ALWAYS_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
SOTTO_ALWAYS_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

// A stage of a transposition: squares of 2 Size x 2 Size swap the halves that are off their diagonal. Low and high:
// what becomes of a row and of the one Size below it; numbers are those of __builtin_shufflevector, which wants them
// literal.
template <int Size, class Low, class High> SOTTO_ALWAYS_INLINE void swap_halves(VecBits* rows, Low low, High high) {
  for (int i = 0; i < lanes; ++i) {
    if (i / Size % 2 != 0) continue;
    const VecBits a = rows[i], b = rows[i + Size];
    rows[i] = low(a, b);
    rows[i + Size] = high(a, b);
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// A square of lanes x lanes numbers, transposed.
SOTTO_ALWAYS_INLINE void transpose(VecBits* rows) {
#define SOTTO_SHUFFLE(...) [](VecBits a, VecBits b) { return __builtin_shufflevector(a, b, __VA_ARGS__); }
#if defined(__AVX512F__)
  detail::swap_halves<1>(rows, SOTTO_SHUFFLE(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                         SOTTO_SHUFFLE(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31));
  detail::swap_halves<2>(rows, SOTTO_SHUFFLE(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                         SOTTO_SHUFFLE(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31));
  detail::swap_halves<4>(rows, SOTTO_SHUFFLE(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                         SOTTO_SHUFFLE(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31));
  detail::swap_halves<8>(rows, SOTTO_SHUFFLE(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                         SOTTO_SHUFFLE(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
#elif defined(__AVX2__)
  detail::swap_halves<1>(rows, SOTTO_SHUFFLE(0, 8, 2, 10, 4, 12, 6, 14), SOTTO_SHUFFLE(1, 9, 3, 11, 5, 13, 7, 15));
  detail::swap_halves<2>(rows, SOTTO_SHUFFLE(0, 1, 8, 9, 4, 5, 12, 13), SOTTO_SHUFFLE(2, 3, 10, 11, 6, 7, 14, 15));
  detail::swap_halves<4>(rows, SOTTO_SHUFFLE(0, 1, 2, 3, 8, 9, 10, 11), SOTTO_SHUFFLE(4, 5, 6, 7, 12, 13, 14, 15));
#else
  detail::swap_halves<1>(rows, SOTTO_SHUFFLE(0, 4, 2, 6), SOTTO_SHUFFLE(1, 5, 3, 7));
  detail::swap_halves<2>(rows, SOTTO_SHUFFLE(0, 1, 4, 5), SOTTO_SHUFFLE(2, 3, 6, 7));
#endif
#undef SOTTO_SHUFFLE
}

/// a + b x + c x^2 + ..., the last coefficient first in the chain.
template <class... Rest> SOTTO_ALWAYS_INLINE Vec polynomial(Vec x, float a, Rest... rest) {
  if constexpr (sizeof...(rest) == 0)
    return splat(a);
  else if constexpr (sizeof...(rest) == 1)
    return x * (rest + ...) + a;
  else
    return polynomial(x, rest...) * x + a;
}

// The coefficients below are our own: weighted least squares, reweighted towards equal errors
// (Lawson).

/// e^x: 2 ulp; 0 below -87 (so e^-inf = 0), infinite above 88.7; NaN stays NaN.
SOTTO_ALWAYS_INLINE Vec fast_exp(Vec x) {
  const Vec low = splat(-87.3f), high = splat(89.f);
  x = x > high ? high : x;  // a NaN fails both comparisons and goes on
  x = x < low ? low : x;
  // x = n ln 2 + f, |f| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer and leaves it in the
  // lowest bits
  const Vec shifted = x * 1.44269504088896341f + 12582912.f, n = shifted - 12582912.f;
  const Vec f = (x - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f;
  // e^f - 1 - f over f^2, relative to e^f within 3e-9; twice all of it, since 2^n alone may
  // overflow where e^x does not
  const Vec p = polynomial(f, 2 * .499999935f, 2 * .166665207f, 2 * .0416683875f, 2 * .00836871134f, 2 * .00138146083f);
  const Vec twice = (p * f) * f + (f * 2.f + 2.f);
  VecInt power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power + 126) << 23;  // 2^(n - 1), and 0 for n = -126
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  return twice * scale;
}

/// x Phi(x), Phi the normal distribution's function: the exact GELU, not its tanh form. 2e-7 max(1,
/// |x|) absolute (2.5e-7 without fused multiply-adds).
SOTTO_ALWAYS_INLINE Vec gelu(Vec x) {
  // Phi - 1/2 is odd: x times a quotient in x^2, 7e-9 on [-5.5, 5.5]; beyond, Phi is within 2e-8 of
  // 0 or 1
  const Vec s = x * x;
  const Vec p = polynomial(s, .398942235f, .0338506058f, .0046771113f, 1.68801573e-4f, 6.3516597e-6f, 2.2749199e-8f);
  const Vec q = polynomial(s, 1.f, .251516807f, .0286446409f, .00188431018f, 7.36382199e-5f, 1.19746494e-6f);
  const Vec limit = splat(5.5f), y = x * p / q;
  return x * (.5f + (x > limit ? splat(.5f) : (x < -limit ? splat(-.5f) : y)));
}
/// GELU's slope, Phi(x) + x phi(x), phi the normal density: 4e-7 absolute.
SOTTO_ALWAYS_INLINE Vec gelu_slope(Vec x) {
  // the slope - 1/2 is odd too: 9e-8 on [-5.75, 5.75]; beyond, the slope is within 1.5e-7 of 0 or 1
  const Vec s = x * x;
  const Vec p = polynomial(s, .797885156f, -.0325197552f, .0142232961f, -2.91797035e-6f, 3.4698538e-5f, 1.3232444e-7f);
  const Vec q =
      polynomial(s, 1.f, .292582096f, .0403386481f, .00342017835f, 1.84214514e-4f, 8.1266016e-6f, -6.29953164e-9f);
  const Vec limit = splat(5.75f), y = x * p / q;
  return .5f + (x > limit ? splat(.5f) : (x < -limit ? splat(-.5f) : y));
}

}  // namespace sotto::cpu::inline SOTTO_ABI
