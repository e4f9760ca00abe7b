#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

Philox with_key(std::uint32_t key0, std::uint32_t key1) {
  Philox philox(0, Purpose::initialise);
  philox.key0 = key0;
  philox.key1 = key1;
  return philox;
}

bool equal(Philox::Block block, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return block.word[0] == a && block.word[1] == b && block.word[2] == c && block.word[3] == d;
}

}  // namespace

TEST_CASE("Philox gives the known answers that Random123 publishes for philox4x32-10") {
  CHECK(equal(with_key(0, 0)(0, 0, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  const std::uint32_t f = 0xffffffffu;
  CHECK(equal(with_key(f, f)(f, f, f, f), 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  CHECK(equal(with_key(0xa4093822u, 0x299f31d0u)(0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u), 0xd16cfe09u,
              0x94fdcceb, 0x5001e420u, 0x24126ea1u));
}

TEST_CASE("two purposes and neighbouring seeds have different keys") {
  const Philox a(1, Purpose::mask), b(1, Purpose::dropout), c(2, Purpose::mask);
  CHECK((a.key0 != b.key0 || a.key1 != b.key1));
  CHECK((a.key0 != c.key0 || a.key1 != c.key1));
}

TEST_CASE("a random sequence is a function of its key, and a copy goes on independently") {
  Random a(3, Purpose::mask, 5, 1ull << 40), b(3, Purpose::mask, 5, 1ull << 40), other(3, Purpose::mask, 6, 1ull << 40);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const auto value = a.next();
    CHECK(value == b.next());
    differs |= value != other.next();
  }
  CHECK(differs);
  Random copy = a;
  const auto next = a.next();
  a.next();
  CHECK(copy.next() == next);
}

TEST_CASE("below(n) is uniform and stays below n") {
  for (std::uint32_t n : {1u, 2u, 3u, 7u, 100u}) {
    Random random(9, Purpose::user, n);
    std::vector<double> counts(n);
    const int draws = 40000;
    for (int i = 0; i < draws; ++i) {
      const auto value = random.below(n);
      REQUIRE(value < n);
      ++counts[value];
    }
    double chi = 0;
    const double expected = static_cast<double>(draws) / n;
    for (double count : counts) chi += (count - expected) * (count - expected) / expected;
    CHECK(chi < n - 1 + 4 * std::sqrt(2.0 * n));  // chi-squared: mean n - 1, deviation sqrt(2 (n - 1))
  }
  // With n = 3 * 2^30 a multiplication without rejection would draw a third of the values twice as
  // often.
  Random random(9, Purpose::user, 1);
  const std::uint32_t n = 3u << 30;
  int thirds[3] = {};
  for (int i = 0; i < 30000; ++i) ++thirds[random.below(n) % 3];
  for (int count : thirds) CHECK(std::abs(count - 10000) < 4 * 82);
}

TEST_CASE("uniform numbers lie in [0, 1) and normal ones have mean 0 and variance 1") {
  Random random(4, Purpose::noise);
  const int n = 20000;
  double mean = 0, normal_mean = 0, normal_square = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform();
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    mean += u / n;
    const double z = random.normal();
    normal_mean += z / n;
    normal_square += z * z / n;
  }
  CHECK(std::abs(mean - 0.5) < 4 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(normal_mean) < 4 / std::sqrt(n));
  CHECK(std::abs(normal_square - 1) < 4 * std::sqrt(2.0 / n));
}

TEST_CASE("a permutation meets every item once, whatever its size") {
  for (std::uint64_t size : {1u, 2u, 3u, 5u, 16u, 17u, 63u, 1000u, 4097u}) {
    const Permutation permutation(size, 12, Purpose::epoch, 3);
    CHECK(permutation.size() == size);
    std::vector<char> met(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const auto to = permutation(i);
      REQUIRE(to < size);
      CHECK_FALSE(met[to]);
      met[to] = 1;
    }
  }
}

TEST_CASE("permutations of two epochs differ, and items move") {
  const Permutation first(1001, 12, Purpose::epoch, 0), second(1001, 12, Purpose::epoch, 1);
  int equal_places = 0, fixed = 0;
  for (std::uint64_t i = 0; i < 1001; ++i) {
    equal_places += first(i) == second(i);
    fixed += first(i) == i;
  }
  CHECK(equal_places < 10);
  CHECK(fixed < 10);
}
