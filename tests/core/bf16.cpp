#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include <sotto/core/bf16.hpp>

using sotto::bf16;

namespace {

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace

TEST_CASE("every bf16 is itself again") {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bf16 x{static_cast<std::uint16_t>(bits)};
    const float wide = static_cast<float>(x);
    if (std::isnan(wide))
      CHECK(std::isnan(static_cast<float>(bf16::of(wide))));
    else
      CHECK(bf16::of(wide).bits == bits);
  }
}

TEST_CASE("a float goes to the nearest bf16, and from the middle to the even one") {
  CHECK(bf16::of(from_bits(0x3f807fff)).bits == 0x3f80);  // just below the middle
  CHECK(bf16::of(from_bits(0x3f808000)).bits == 0x3f80);  // the middle, above an even one
  CHECK(bf16::of(from_bits(0x3f818000)).bits == 0x3f82);  // the middle, above an odd one
  CHECK(bf16::of(from_bits(0x3f808001)).bits == 0x3f81);
  CHECK(bf16::of(-1.f).bits == 0xbf80);
  CHECK(bf16::of(std::numeric_limits<float>::max()).bits == 0x7f80);  // rounds to infinity
  CHECK(bf16::of(std::numeric_limits<float>::infinity()).bits == 0x7f80);
  CHECK(std::isnan(static_cast<float>(bf16::of(from_bits(0x7f800001)))));  // whose upper half alone is infinity
}

TEST_CASE("between any two neighbours the middle divides, denormals and infinities included") {
  bool right = true;
  for (const std::uint32_t sign : {0x0000u, 0x8000u})
    for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {
      const std::uint32_t low = sign | bits, high = low + 1, even = bits % 2 == 0 ? low : high;
      const double a = static_cast<double>(from_bits(low << 16)),
                   // as if the exponent went on: whoever is nearer to it than to the greatest number is infinite
          b = bits == 0x7f7f ? std::copysign(0x1p128, a) : static_cast<double>(from_bits(high << 16));
      const auto middle = static_cast<float>((a + b) / 2);
      const float below = std::nextafter(middle, from_bits(low << 16)),
                  above = std::nextafter(middle, from_bits(high << 16));
      right &= bf16::of(middle).bits == even && bf16::of(below).bits == low && bf16::of(above).bits == high;
    }
  CHECK(right);
}

TEST_CASE("what is not a number keeps its sign, and is quiet") {
  bool right = true;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const std::uint32_t lower : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0xffffu}) {
      const float x = from_bits(upper << 16 | lower);
      if (!std::isnan(x)) continue;
      const bf16 kept = bf16::of(x);
      right &= std::isnan(static_cast<float>(kept)) && (kept.bits & 0x40) != 0 && kept.bits >> 15 == upper >> 15;
    }
  CHECK(right);
}

TEST_CASE("precisions have the names that options and checkpoints say") {
  CHECK(name(sotto::Precision::fp32) == std::string("fp32"));
  CHECK(name(sotto::Precision::bf16) == std::string("bf16"));
}
