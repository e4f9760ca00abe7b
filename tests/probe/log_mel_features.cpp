#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <sotto/core/philox.hpp>
#include <sotto/probe/log_mel_features.hpp>

TEST_CASE("log-mel features are normalised frames of 20 ms, none where the sound is too short") {
  using namespace sotto;
  Random random(1, Purpose::user);
  std::vector<float> samples(16000);
  for (float& x : samples) x = static_cast<float>(.1 * random.normal());
  const probe::LogMelFeatures features;
  std::vector<std::vector<float>> layers;
  features.extract(samples, layers);
  REQUIRE(features.layers() == 1);
  REQUIRE(features.width(0) == 160);
  REQUIRE(layers.size() == 1);
  REQUIRE(layers[0].size() == 49 * 160);
  for (std::size_t bin = 0; bin < 80; ++bin) {
    double sum = 0, square = 0;
    for (std::size_t i = bin; i < layers[0].size(); i += 80) {
      sum += layers[0][i];
      square += layers[0][i] * layers[0][i];
    }
    CHECK(std::abs(sum / 98) < 1e-3);
    CHECK(square / 98 == doctest::Approx(1).epsilon(.05));
  }
  std::vector<std::vector<float>> again;
  features.clone()->extract(samples, again);
  CHECK(again == layers);
  features.extract({samples.data(), 300}, layers);
  CHECK(layers[0].empty());
}
