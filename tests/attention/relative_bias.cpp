#include <sotto/attention/relative_bias.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <vector>

using namespace sotto::attention;

namespace {

// As unilm's wavlm/modules.py and Hugging Face's WavLMAttention compute it, in single precision,
// for key - query.
int bucket_of_wavlm(int relative, int buckets, int max_distance) {
  const int half = buckets / 2;
  int bucket = relative > 0 ? half : 0;
  const int distance = std::abs(relative);
  const int max_exact = half / 2;
  if (distance < max_exact) return bucket + distance;
  float large = std::log(static_cast<float>(distance) / static_cast<float>(max_exact));
  large = large / static_cast<float>(std::log(static_cast<double>(max_distance) / max_exact));
  large = large * static_cast<float>(half - max_exact);
  return bucket + std::min(static_cast<int>(static_cast<float>(max_exact) + large), half - 1);
}

}  // namespace

TEST_CASE("distances fall into WavLM's buckets") {
  for (int d = -3000; d <= 3000; ++d) {
    CHECK(RelativeBias<>::bucket(d) == bucket_of_wavlm(d, 320, 800));
    CHECK(RelativeBias<320, 1280>::bucket(d) == bucket_of_wavlm(d, 320, 1280));
    CHECK(RelativeBias<32, 128>::bucket(d) == bucket_of_wavlm(d, 32, 128));
  }
  CHECK(RelativeBias<>::bucket(0) == 0);
  CHECK(RelativeBias<>::bucket(1) == 161);
  CHECK(RelativeBias<>::bucket(-1) == 1);
  CHECK(RelativeBias<>::bucket(10000) == 319);
  CHECK(RelativeBias<>::bucket(-10000) == 159);
}

TEST_CASE("a score gets the learned number of its head and bucket, also beyond the farthest distance") {
  using P = RelativeBias<32, 128>;
  const int heads = 3;
  std::vector<double> learned(static_cast<std::size_t>(P::parameters(heads))),
      table(static_cast<std::size_t>(P::table(heads)));
  for (std::size_t i = 0; i < learned.size(); ++i) learned[i] = static_cast<double>(i);
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] = learned[static_cast<std::size_t>(P::source(static_cast<int>(i), heads))];
  for (int head = 0; head < heads; ++head)
    for (const int key : {0, 1, 7, 8, 99, 250, 299, 301, 320, 500})
      CHECK(scored<P>(0.0, Pair{head, 300, key}, table.data()) == bucket_of_wavlm(key - 300, 32, 128) * heads + head);
}

TEST_CASE("WavLM's gate is a (b c - 1) + 2 with sigmoids of sums of four") {
  const double raw[] = {0.1, -0.4, 0.3, 0.2, 1.0, -0.2, 0.4, -0.9}, constant = 1.3;
  const double a = 1 / (1 + std::exp(-0.2)), b = 1 / (1 + std::exp(-0.3));
  const auto slope = gate_slope<WavLmBias>(raw, constant);
  CHECK(gated<WavLmBias>(raw, constant) == doctest::Approx(a * (b * constant - 1) + 2));
  CHECK(slope.gate == doctest::Approx(a * (b * constant - 1) + 2));
  CHECK(slope.by_constant == doctest::Approx(a * b));
  for (int i = 0; i < 4; ++i) {
    CHECK(slope.by_raw[i] == doctest::Approx(a * (1 - a) * (b * constant - 1)));
    CHECK(slope.by_raw[4 + i] == doctest::Approx(a * b * (1 - b) * constant));
  }
}

TEST_CASE("relative biases begin as Xavier's normal") {
  CHECK(RelativeBias<>::deviation(12) == doctest::Approx(std::sqrt(2.0 / 332)));
}
