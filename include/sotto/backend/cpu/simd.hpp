// Vectors of floats in GNU vector extensions, as wide as the target's registers, and the functions that hot loops need.
#pragma once

#include <cstring>

#include <sotto/config.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
#elif defined(__AVX__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif
/// `lanes` floats.
using Vec = float __attribute__((vector_size(lanes * 4)));
/// `lanes` ints: what comparing two Vecs gives, -1 where true.
using VecInt = int __attribute__((vector_size(lanes * 4)));

SOTTO_ALWAYS_INLINE Vec load(float const* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SOTTO_ALWAYS_INLINE void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
/// The first n floats, zeros beyond; memory beyond is not touched.
SOTTO_ALWAYS_INLINE Vec load_part(float const* p, int n) {
  Vec v{};
  if (n >= lanes) return load(p);
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  return v;
}
SOTTO_ALWAYS_INLINE void store_part(float* p, Vec v, int n) {
  if (n >= lanes)
    store(p, v);
  else
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
}
SOTTO_ALWAYS_INLINE Vec splat(float x) { return Vec{} + x; }
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

/// e^x: 2 ulp; 0 below -87.3 (so e^-inf = 0), e^88.3 above it; NaN stays NaN.
SOTTO_ALWAYS_INLINE Vec fast_exp(Vec x) {
  const Vec low = splat(-87.33654f), high = splat(88.37f);
  const VecInt vanishes = x < low;
  const Vec clamped = x > high ? high : (vanishes ? low : x);  // a NaN fails both comparisons and goes on
  // x = n ln 2 + f, |f| <= ln 2 / 2; adding 1.5 * 2^23 rounds to an integer
  const Vec n = (clamped * 1.44269504088896341f + 12582912.f) - 12582912.f;
  const Vec f = (clamped - n * 0.693145751953125f) - n * 1.42860682030941723212e-6f;
  // Taylor's series to the seventh power, with the last coefficients balanced over the interval
  Vec p = f * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = (p * f) * f + f + 1.f;
  const VecInt power = (__builtin_convertvector(n, VecInt) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &power, sizeof scale);
  const Vec y = p * scale;
  return vanishes ? Vec{} : y;
}

/// erf(x): 4e-7 absolute. The rational approximation that Eigen and XLA use, odd in x over even in x, on [-4, 4].
SOTTO_ALWAYS_INLINE Vec fast_erf(Vec x) {
  const Vec limit = splat(4.f);
  const Vec c = x > limit ? limit : (x < -limit ? -limit : x);
  const Vec s = c * c;
  Vec p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
  p = p * s + -2.10102402082508e-06f;
  p = p * s + -5.69250639462346e-05f;
  p = p * s + -7.34990630326855e-04f;
  p = p * s + -2.95459980854025e-03f;
  p = p * s + -1.60960333262415e-02f;
  Vec q = s * -1.45660718464996e-05f + -2.13374055278905e-04f;
  q = q * s + -1.68282697438203e-03f;
  q = q * s + -7.37332916720468e-03f;
  q = q * s + -1.42647390514189e-02f;
  return c * p / q;
}

/// tanh(x) = 1 - 2 / (e^2x + 1).
SOTTO_ALWAYS_INLINE Vec fast_tanh(Vec x) { return 1.f - 2.f / (fast_exp(x + x) + 1.f); }

/// x Phi(x), Phi the normal distribution's function: the exact GELU, not its tanh form.
SOTTO_ALWAYS_INLINE Vec gelu(Vec x) { return .5f * x * (1.f + fast_erf(x * 0.70710678118654752f)); }
/// Phi(x) + x phi(x).
SOTTO_ALWAYS_INLINE Vec gelu_slope(Vec x) {
  return .5f * (1.f + fast_erf(x * 0.70710678118654752f)) + x * 0.39894228040143268f * fast_exp(-.5f * x * x);
}

}  // namespace sotto::cpu::inline SOTTO_ABI
