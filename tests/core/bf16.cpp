#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

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
