// Sixteen bits of a float: what activations and working weights are kept in where memory decides the speed.
#pragma once

#include <string.h>

#include <cstdint>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// The upper half of an IEEE float: its range, 8 bits of its precision. Made by rounding to nearest, ties to even; a
/// NaN stays one. Arithmetic is done in float.
struct bf16 {
  std::uint16_t bits;

  static SOTTO_HOST_DEVICE bf16 of(float x) {
    std::uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(u >> 16 | 0x40u)};
    return {static_cast<std::uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
  }
  explicit SOTTO_HOST_DEVICE operator float() const {
    const std::uint32_t u = static_cast<std::uint32_t>(bits) << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
  }
};

/// What activations are kept in and products multiply. Parameters, gradients and sums are fp32 either way.
enum class Precision { fp32, bf16 };
SOTTO_ALWAYS_INLINE constexpr char const* name(Precision precision) {
  return precision == Precision::bf16 ? "bf16" : "fp32";
}

}  // namespace sotto::inline SOTTO_API
