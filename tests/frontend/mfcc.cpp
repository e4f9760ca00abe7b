#include <sotto/frontend/mfcc.hpp>

#include <vector>

#include <sotto/core/philox.hpp>

#include <doctest/doctest.h>

using sotto::Matrix;
using sotto::frontend::Mfcc;

namespace {

std::vector<float> cepstra(std::vector<float> const& samples, int stride = 39) {
  const int rows = Mfcc::frames(static_cast<std::int64_t>(samples.size()));
  std::vector<float> out(static_cast<std::size_t>(rows * stride), 7);
  Mfcc().compute(samples, Matrix<float>{out.data(), rows, 39, stride});
  return out;
}
std::vector<float> noise(std::size_t samples) {
  sotto::Random random(5, sotto::Purpose::user);
  std::vector<float> x(samples);
  for (float& v : x) v = static_cast<float>(.1 * random.normal());
  return x;
}

}  // namespace

TEST_CASE("silence has one cepstrum, the level, and no deltas") {
  const auto out = cepstra(std::vector<float>(4000));
  for (std::size_t t = 0; t < out.size() / 39; ++t) {
    CHECK(out[39 * t] == doctest::Approx(std::sqrt(23.) * std::log(0x1p-23)));
    for (std::size_t c = 1; c < 39; ++c) CHECK(std::abs(out[39 * t + c]) < 1e-4);
  }
}

TEST_CASE("deltas are weighted differences over two frames each way, edges repeated") {
  const auto out = cepstra(noise(400 + 160 * 9));
  const int frames = 10;
  const auto at = [&](int t, int c) {
    return out[static_cast<std::size_t>(39 * std::min(std::max(t, 0), frames - 1) + c)];
  };
  for (int t = 0; t < frames; ++t)
    for (int c = 0; c < 26; ++c)
      CHECK(at(t, c + 13) ==
            doctest::Approx((at(t + 1, c) - at(t - 1, c) + 2 * (at(t + 2, c) - at(t - 2, c))) / 10).epsilon(1e-4));
}

TEST_CASE("short audio and rows that lie apart are fine; other room is refused") {
  CHECK(cepstra(noise(100)).empty());
  CHECK(cepstra(noise(400)).size() == 39);
  const auto x = noise(2000);
  const auto dense = cepstra(x), apart = cepstra(x, 50);
  for (std::size_t t = 0; t < dense.size() / 39; ++t) {
    for (std::size_t c = 0; c < 39; ++c) CHECK(dense[39 * t + c] == apart[50 * t + c]);
    for (std::size_t c = 39; c < 50; ++c) CHECK(apart[50 * t + c] == 7);
  }
  std::vector<float> out(40 * 11);
  CHECK_THROWS_AS(Mfcc().compute(x, Matrix<float>{out.data(), 11, 40, 40}), sotto::Error);
  CHECK_THROWS_AS(Mfcc().compute(x, Matrix<float>{out.data(), 10, 39, 40}), sotto::Error);
  static_assert(Mfcc::flops(2) == 2 * Mfcc::flops(1));
}
