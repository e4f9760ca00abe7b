#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <sotto/backend/cpu/dropout.hpp>

using namespace sotto;

namespace {

constexpr float guard = -12345.0f;

// Numbers as E keeps them.
template <class E> std::vector<E> numbers(std::size_t n, float x) { return std::vector<E>(n, cpu::stored<E>(x)); }
template <class E> bool same(std::vector<E> const& a, std::vector<E> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(E)) == 0;
}

struct Packed {  // three sequences of utterances 7, 2, 9 cut at frames 5, 0, 100
  std::vector<int> offsets{0, 4, 5, 12}, utterances{7, 2, 9}, starts{5, 0, 100};
  Lane<int> lane() const {
    return {offsets.data(), utterances.data(), starts.data(), 3, 12, 7, nullptr, nullptr, 0, 0, nullptr};
  }
};

}  // namespace

TEST_CASE_TEMPLATE("dropout keeps what dropout_kept keeps, at every width and stride", E, float, bf16) {
  const Packed packed;
  const auto lane = packed.lane();
  const Philox key(11, Purpose::dropout);
  for (int width = 1; width <= 131; ++width) {
    const int stride = width + width % 4, before_it = 5;
    auto memory = numbers<E>(static_cast<std::size_t>(12 * stride + 16), guard);
    const Matrix<E> view{memory.data() + before_it, 12, width, stride};
    for (int i = 0; i < 12; ++i)
      for (int j = 0; j < width; ++j) view.row(i)[j] = cpu::stored<E>(.37f * static_cast<float>(1 + i + j));
    const float p = 0.3f;
    auto expected = memory;
    for (int s = 0, i = 0; s < 3; ++s)
      for (int t = 0; i < packed.offsets[static_cast<std::size_t>(s) + 1]; ++t, ++i)
        for (int j = 0; j < width; ++j) {
          E& number = expected[static_cast<std::size_t>(before_it + i * stride + j)];
          const bool kept =
              dropout_kept(key, 3, 17, static_cast<std::uint32_t>(packed.utterances[static_cast<std::size_t>(s)]),
                           static_cast<std::uint32_t>(packed.starts[static_cast<std::size_t>(s)] + t),
                           static_cast<std::uint32_t>(j), p);
          number = kept ? cpu::stored<E>(static_cast<float>(number) * dropout_scale(p)) : E{};
        }
    cpu::dropout(lane, key, 3, 17, p, view);
    CHECK_MESSAGE(same(memory, expected), "width ", width);
  }
}

TEST_CASE_TEMPLATE("a number has the same bits after dropout, in the middle of a row and in the rest of it", E, float,
                   bf16) {
  const Packed packed;
  const Philox key(11, Purpose::dropout);
  const int whole = 192;
  std::vector<E> wide;
  for (int i = 0; i < 12 * whole; ++i) wide.push_back(cpu::stored<E>(std::sin(static_cast<float>(i))));
  const auto before = wide;
  cpu::dropout<E>(packed.lane(), key, 3, 17, .1f, {wide.data(), 12, whole, whole});
  for (int width = 1; width < whole; width += 5) {
    auto narrow = before;
    cpu::dropout<E>(packed.lane(), key, 3, 17, .1f, {narrow.data(), 12, width, whole});
    bool right = true;
    for (int i = 0; i < 12; ++i) {
      const auto at = static_cast<std::size_t>(i * whole), n = static_cast<std::size_t>(width);
      right &= std::memcmp(narrow.data() + at, wide.data() + at, n * sizeof(E)) == 0;
      right &= std::memcmp(narrow.data() + at + n, before.data() + at + n, (whole - n) * sizeof(E)) == 0;
    }
    CHECK_MESSAGE(right, "width ", width);
  }
}

TEST_CASE_TEMPLATE("what is kept stays infinite or not a number, and what is dropped is 0", E, float, bf16) {
  const Packed packed;
  const Philox key(11, Purpose::dropout);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    const int width = 75;
    auto x = numbers<E>(12 * width, bad), ones = numbers<E>(12 * width, 1);
    cpu::dropout<E>(packed.lane(), key, 0, 1, .5f, {x.data(), 12, width, width});
    cpu::dropout<E>(packed.lane(), key, 0, 1, .5f, {ones.data(), 12, width, width});
    bool right = true;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto number = static_cast<float>(x[i]);
      right &= static_cast<float>(ones[i]) == 0 ? number == 0 : std::isnan(bad) ? std::isnan(number) : number == bad;
    }
    CHECK(right);
  }
}

TEST_CASE_TEMPLATE("dropout drops the asked share and keeps the mean", E, float, bf16) {
  const int rows = 500, width = 384;
  const std::vector<int> offsets{0, rows}, utterances{4}, starts{0};
  const Lane<int> lane{offsets.data(), utterances.data(), starts.data(), 1, rows, rows, nullptr, nullptr, 0, 0,
                       nullptr};
  for (float p : {0.05f, 0.1f, 0.5f}) {
    auto x = numbers<E>(static_cast<std::size_t>(rows) * width, 1);
    cpu::dropout<E>(lane, Philox(1, Purpose::dropout), 0, 0, p, {x.data(), rows, width, width});
    double zeros = 0, sum = 0;
    for (const E v : x) {
      const auto number = static_cast<double>(static_cast<float>(v));
      zeros += number == 0;
      sum += number;
    }
    const double n = static_cast<double>(x.size());
    const double q = static_cast<double>(p), error = 4 * std::sqrt(q * (1 - q) / n);
    const double rounding = sizeof(E) == 2 ? 0x1p-8 : 0;  // of the scale
    CHECK(std::abs(zeros / n - q) < error);
    CHECK(std::abs(sum / n - 1) < error / (1 - q) + rounding);
  }
}

TEST_CASE_TEMPLATE("a frame's dropout mask does not depend on the lane it is packed in", E, float, bf16) {
  const Packed packed;
  const Philox key(5, Purpose::dropout);
  auto together = numbers<E>(12 * 64, 1), alone = numbers<E>(7 * 64, 1);
  cpu::dropout<E>(packed.lane(), key, 8, 2, 0.5f, {together.data(), 12, 64, 64});
  const std::vector<int> offsets{0, 7}, utterances{9}, starts{100};
  cpu::dropout<E>({offsets.data(), utterances.data(), starts.data(), 1, 7, 7, nullptr, nullptr, 0, 0, nullptr}, key, 8,
                  2, 0.5f, {alone.data(), 7, 64, 64});
  CHECK(same(std::vector<E>(together.begin() + 5 * 64, together.end()), alone));
}

TEST_CASE("dropout masks differ by site, step, seed, utterance and frame") {
  auto bits = [](Philox key, std::uint32_t cursor, std::uint32_t site, std::uint32_t u, std::uint32_t f) {
    std::uint64_t mask = 0;
    for (std::uint32_t c = 0; c < 64; ++c)
      mask |= static_cast<std::uint64_t>(dropout_kept(key, cursor, site, u, f, c, 0.5f)) << c;
    return mask;
  };
  const Philox key(1, Purpose::dropout);
  const auto base = bits(key, 1, 1, 1, 1);
  CHECK(base != bits(key, 2, 1, 1, 1));
  CHECK(base != bits(key, 1, 2, 1, 1));
  CHECK(base != bits(key, 1, 1, 2, 1));
  CHECK(base != bits(key, 1, 1, 1, 2));
  CHECK(base != bits(Philox(2, Purpose::dropout), 1, 1, 1, 1));
}

TEST_CASE_TEMPLATE("dropout with probability 0 changes nothing", E, float, bf16) {
  const Packed packed;
  auto x = numbers<E>(12 * 5, 3);
  cpu::dropout<E>(packed.lane(), Philox(1, Purpose::dropout), 0, 0, 0, {x.data(), 12, 5, 5});
  CHECK(same(x, numbers<E>(12 * 5, 3)));
}
