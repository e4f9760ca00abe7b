// bf16 in memory: read, rounded and written as sotto::bf16 says; and the operations of the door that only move numbers
// between it, floats and doubles.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/backend/reference/reference.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

constexpr std::uint16_t guard = 0xc754;

// `lanes` floats.
struct Floats {
  float values[cpu::lanes] = {};
  cpu::Vec vector() const { return cpu::load(values); }
};

// Whether `bits` are what bf16::of() makes of x. The instruction that AVX512_BF16 has for it takes a denormal for 0.
bool is_rounded(std::uint16_t bits, float x) {
  const bf16 exact = bf16::of(x);
  if (std::isnan(x)) return std::isnan(static_cast<float>(bf16{bits})) && bits >> 15 == exact.bits >> 15;
  const bool denormal = std::fpclassify(x) == FP_SUBNORMAL, flushed = bits == (exact.bits & 0x8000);
  return bits == exact.bits || (denormal && flushed);
}

// Calls body with vectors of floats: every upper half of one, above lower halves about the middle.
template <class Body> void over_floats(Body body) {
  for (const std::uint32_t lower : {0x0000u, 0x0001u, 0x4321u, 0x7fffu, 0x8000u, 0x8001u, 0xcdefu, 0xffffu})
    for (std::uint32_t upper = 0; upper < 0x10000; upper += cpu::lanes) {
      Floats x;
      for (std::uint32_t l = 0; l < cpu::lanes; ++l) x.values[l] = std::bit_cast<float>((upper + l) << 16 | lower);
      body(x);
    }
}

}  // namespace

TEST_CASE("every bf16 is loaded as the float that it is, at any address") {
  for (const std::size_t offset : {0, 1, 5}) {
    std::vector<bf16> memory(cpu::lanes + offset);
    bool right = true;
    for (std::uint32_t first = 0; first < 0x10000; first += cpu::lanes) {
      for (std::uint32_t l = 0; l < cpu::lanes; ++l) memory[offset + l].bits = static_cast<std::uint16_t>(first + l);
      float loaded[cpu::lanes];
      cpu::store(loaded, cpu::load(memory.data() + offset));
      for (std::uint32_t l = 0; l < cpu::lanes; ++l)
        right &= std::bit_cast<std::uint32_t>(loaded[l]) == (first + l) << 16;
    }
    CHECK_MESSAGE(right, offset);
  }
}

TEST_CASE("floats are stored as the nearest bf16, from the middle as the even one, and what is none stays none") {
  for (const std::size_t offset : {0, 1, 5}) {
    std::vector<bf16> memory(cpu::lanes + 16);
    bool right = true;
    over_floats([&](Floats const& x) {
      std::fill(memory.begin(), memory.end(), bf16{guard});
      cpu::store(memory.data() + offset, x.vector());
      for (std::size_t i = 0; i < memory.size(); ++i)
        right &= i < offset || i >= offset + cpu::lanes ? memory[i].bits == guard
                                                        : is_rounded(memory[i].bits, x.values[i - offset]);
    });
    CHECK_MESSAGE(right, offset);
  }
}

TEST_CASE("floats of every size are stored as the nearest bf16") {
  Random random(1, Purpose::user);
  bool right = true;
  for (int i = 0; i < 20000; ++i) {
    Floats x;
    for (float& value : x.values)
      value = static_cast<float>(std::ldexp(random.normal(), static_cast<int>(random.below(280)) - 140));
    bf16 stored[cpu::lanes];
    cpu::store(stored, x.vector());
    for (int l = 0; l < cpu::lanes; ++l) {
      right &= is_rounded(stored[l].bits, x.values[l]);
      right &= is_rounded(cpu::stored<bf16>(x.values[l]).bits, x.values[l]);
    }
  }
  CHECK(right);
}

TEST_CASE("the rest of a row is stored with the bits of a whole vector, and nothing beyond it is touched") {
  for (int n = 0; n <= cpu::lanes; ++n) {
    bool right = true;
    over_floats([&](Floats const& x) {
      bf16 whole[cpu::lanes], memory[cpu::lanes + 2];
      std::fill(std::begin(memory), std::end(memory), bf16{guard});
      cpu::store(whole, x.vector());
      cpu::store_part(memory + 1, x.vector(), n);
      right &= memory[0].bits == guard;
      for (int l = 0; l <= cpu::lanes; ++l) right &= memory[1 + l].bits == (l < n ? whole[l].bits : guard);
    });
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE("the rest of a row is loaded with zeros beyond it, which are not read") {
  for (int n = 0; n <= cpu::lanes; ++n) {
    const auto memory = std::make_unique<bf16[]>(static_cast<std::size_t>(n));  // a sanitizer sees its end
    bool right = true;
    for (std::uint32_t first = 0; first < 0x10000; first += cpu::lanes) {
      for (int l = 0; l < n; ++l)
        memory[static_cast<std::size_t>(l)].bits = static_cast<std::uint16_t>(first + static_cast<std::uint32_t>(l));
      float loaded[cpu::lanes];
      cpu::store(loaded, cpu::load_part(memory.get(), n));
      for (int l = 0; l < cpu::lanes; ++l) {
        const std::uint32_t bits = (first + static_cast<std::uint32_t>(l)) << 16;
        right &= std::bit_cast<std::uint32_t>(loaded[l]) == (l < n ? bits : 0);
      }
    }
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE_TEMPLATE("what a batch brings is converted, copied and cleared to its last number and no further", E, float,
                   bf16) {
  Cpu<E> b;
  const float values[] = {
      1.f, -0.f, 1.00390625f, 3e38f, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  const auto same = [](E x, E y) { return std::memcmp(&x, &y, sizeof(E)) == 0; };
  for (std::size_t n = 0; n <= 131; ++n) {
    const E untouched = cpu::stored<E>(-54321.f);
    std::vector<float> from(n);
    for (std::size_t i = 0; i < n; ++i) from[i] = i % 7 == 6 ? std::sin(static_cast<float>(i)) : values[i % 7];
    std::vector<E> to(n + 2, untouched), copied(n + 2, untouched), cleared(n + 2, untouched);
    b.convert({from.data(), n}, {to.data() + 1, n});
    b.copy({to.data() + 1, n}, {copied.data() + 1, n});
    b.clear(Array<E>{cleared.data() + 1, n});
    bool right = true;
    for (auto const& memory : {to, copied, cleared})
      right &= same(memory.front(), untouched) && same(memory.back(), untouched);
    for (std::size_t i = 1; i <= n; ++i) {
      right &= same(to[i], cpu::stored<E>(from[i - 1])) && same(copied[i], to[i]);
      right &= static_cast<float>(cleared[i]) == 0;
    }
    CHECK_MESSAGE(right, n);
    if (n == 0) continue;
    from[n - 1] = std::nanf("");
    b.convert({from.data(), n}, {to.data() + 1, n});
    CHECK(std::isnan(static_cast<float>(to[n])));
  }
}

TEST_CASE_TEMPLATE("sums of columns are kept in double, and sinusoids added in float, as the Reference has them", E,
                   float, bf16) {
  Cpu<E> b;
  Reference<double> reference;
  for (const int width : {1, 6, 16, 37, 67}) {
    // three sequences, one of them empty, in rows that lie apart
    const std::vector<int> offsets{0, 4, 4, 13}, utterances{0, 1, 2}, starts{0, 0, 0};
    const Lane<int> lane{offsets.data(), utterances.data(), starts.data(), 3, 13, 9, nullptr, nullptr, 0, 0, nullptr};
    const int stride = width + 2;
    Random random(static_cast<std::uint64_t>(width), Purpose::user);
    std::vector<E> x, y(static_cast<std::size_t>(13 * stride), cpu::stored<E>(7));
    std::vector<double> exact;
    for (int i = 0; i < 13 * stride; ++i) {
      x.push_back(cpu::stored<E>(static_cast<float>(random.normal())));
      exact.push_back(static_cast<double>(static_cast<float>(x.back())));
    }
    std::vector<double> exact_y(exact.size(), 7.), sums(static_cast<std::size_t>(width), .5), exact_sums = sums;
    std::vector<float> means(sums.size());
    const Matrix<E> in{x.data(), 13, width, stride}, out{y.data(), 13, width, stride};
    b.add_sinusoids(lane, in, out);
    reference.add_sinusoids(lane, {exact.data(), 13, width, stride}, {exact_y.data(), 13, width, stride});
    b.column_sums(in, sums.data());
    reference.column_sums({exact.data(), 13, width, stride}, exact_sums.data());
    b.from_sums(sums.data(), .25, {means.data(), means.size()});
    bool right = true;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double got = static_cast<double>(static_cast<float>(y[i])), wanted = exact_y[i];
      const double rounding = sizeof(E) == 2 ? 0x1p-8 * std::abs(wanted) : 0;
      right &= std::abs(got - wanted) <= 1e-6 * (1 + std::abs(wanted)) + rounding;
    }
    for (std::size_t i = 0; i < sums.size(); ++i) {
      right &= std::abs(sums[i] - exact_sums[i]) < 1e-13 * (1 + std::abs(exact_sums[i]));
      right &= means[i] == static_cast<float>(.25 * sums[i]);
    }
    CHECK_MESSAGE(right, width);
    b.add_sinusoids(lane, in, in);  // in place
    for (int i = 0; i < 13; ++i)
      right &= std::memcmp(in.row(i), out.row(i), static_cast<std::size_t>(width) * sizeof(E)) == 0;
    CHECK_MESSAGE(right, width);
  }
}
