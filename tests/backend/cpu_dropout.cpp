#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <sotto/backend/cpu/dropout.hpp>

using namespace sotto;

namespace {

constexpr float guard = -12345.0f;

struct Packed {  // three sequences of utterances 7, 2, 9 cut at frames 5, 0, 100
  std::vector<int> offsets{0, 4, 5, 12}, utterances{7, 2, 9}, starts{5, 0, 100};
  Lane<int> lane() const {
    return {offsets.data(), utterances.data(), starts.data(), 3, 12, 7, nullptr, nullptr, 0, 0, nullptr};
  }
};

}  // namespace

TEST_CASE("dropout keeps what dropout_kept keeps, at every width and stride") {
  const Packed packed;
  const auto lane = packed.lane();
  const Philox key(11, Purpose::dropout);
  for (int width = 1; width <= 131; ++width) {
    const int stride = width + 3;
    std::vector<float> x(12 * static_cast<std::size_t>(stride), guard);
    for (int i = 0; i < 12; ++i)
      for (int j = 0; j < width; ++j) x[static_cast<std::size_t>(i * stride + j)] = static_cast<float>(1 + i + j);
    const auto before = x;
    const Matrix<float> view{x.data(), 12, width, stride};
    const float p = 0.3f;
    cpu::dropout<float>(lane, key, 3, 17, p, view);
    bool right = true;
    for (int s = 0, i = 0; s < 3; ++s)
      for (int t = 0; i < packed.offsets[static_cast<std::size_t>(s) + 1]; ++t, ++i)
        for (int j = 0; j < stride; ++j) {
          const auto at = static_cast<std::size_t>(i * stride + j);
          if (j >= width) {
            right &= x[at] == guard;
            continue;
          }
          const bool kept =
              dropout_kept(key, 3, 17, static_cast<std::uint32_t>(packed.utterances[static_cast<std::size_t>(s)]),
                           static_cast<std::uint32_t>(packed.starts[static_cast<std::size_t>(s)] + t),
                           static_cast<std::uint32_t>(j), p);
          const float expected = kept ? before[at] * dropout_scale(p) : 0.0f;
          right &= x[at] == expected;
        }
    CHECK_MESSAGE(right, "width ", width);
  }
}

TEST_CASE("dropout drops the asked share and keeps the mean") {
  const int rows = 500, width = 384;
  const std::vector<int> offsets{0, rows}, utterances{4}, starts{0};
  const Lane<int> lane{offsets.data(), utterances.data(), starts.data(), 1, rows, rows, nullptr, nullptr, 0, 0,
                       nullptr};
  for (float p : {0.05f, 0.1f, 0.5f}) {
    std::vector<float> x(static_cast<std::size_t>(rows) * width, 1.0f);
    cpu::dropout<float>(lane, Philox(1, Purpose::dropout), 0, 0, p, {x.data(), rows, width, width});
    double zeros = 0, sum = 0;
    for (float v : x) {
      zeros += v == 0;
      sum += static_cast<double>(v);
    }
    const double n = static_cast<double>(x.size());
    const double q = static_cast<double>(p), error = 4 * std::sqrt(q * (1 - q) / n);
    CHECK(std::abs(zeros / n - q) < error);
    CHECK(std::abs(sum / n - 1) < error / (1 - q));
  }
}

TEST_CASE("a frame's dropout mask does not depend on the lane it is packed in") {
  const Packed packed;
  const Philox key(5, Purpose::dropout);
  std::vector<float> together(12 * 64, 1.0f), alone(7 * 64, 1.0f);
  cpu::dropout<float>(packed.lane(), key, 8, 2, 0.5f, {together.data(), 12, 64, 64});
  const std::vector<int> offsets{0, 7}, utterances{9}, starts{100};
  cpu::dropout<float>({offsets.data(), utterances.data(), starts.data(), 1, 7, 7, nullptr, nullptr, 0, 0, nullptr}, key,
                      8, 2, 0.5f, {alone.data(), 7, 64, 64});
  CHECK(std::vector<float>(together.begin() + 5 * 64, together.end()) == alone);
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

TEST_CASE("dropout with probability 0 changes nothing") {
  const Packed packed;
  std::vector<float> x(12 * 5, 3.0f);
  cpu::dropout<float>(packed.lane(), Philox(1, Purpose::dropout), 0, 0, 0, {x.data(), 12, 5, 5});
  CHECK(x == std::vector<float>(12 * 5, 3.0f));
}
