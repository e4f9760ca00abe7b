#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include <sotto/core/arena.hpp>
#include <sotto/core/buffer.hpp>

#include "../sanitizers.hpp"

using namespace sotto;

TEST_CASE("an arena measures without memory what it carves with it, each view at a multiple of 64 bytes") {
  const auto carve = [](Arena& arena) {
    auto const a = arena.rows<float, 5>(3);
    auto const b = arena.take<double>(1);
    auto const c = arena.rows<float, 16>(1);
    return std::array<void const*, 3>{a.begin, b, c.begin};
  };
  Arena measuring;
  for (void const* p : carve(measuring)) CHECK(p == nullptr);
  CHECK(measuring.used() == 64 + 64 + 64);
  const Buffer buffer(measuring.used());
  Arena arena(buffer.begin());
  for (void const* p : carve(arena)) CHECK(reinterpret_cast<std::uintptr_t>(p) % 64 == 0);
  CHECK(arena.used() == buffer.size());
}

TEST_CASE("a buffer is zeroed, moves, and says kindly that there is no memory") {
  Buffer first(1000);
  for (std::size_t i = 0; i < 1000; ++i) REQUIRE(first.begin()[i] == std::byte{0});
  first.as<float>()[3] = 7;
  const Buffer second(std::move(first));
  CHECK(second.as<float>()[3] == 7);
#if !SOTTO_SANITIZED
  CHECK_THROWS_WITH_AS(Buffer(std::size_t{1} << 60), doctest::Contains("use a smaller model"), Error);
#endif
}
