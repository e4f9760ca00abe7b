#include <sotto/frontend/filterbank.hpp>

#include <bit>
#include <complex>
#include <limits>
#include <numbers>

#include <sotto/core/philox.hpp>

#include <doctest/doctest.h>

namespace {

using sotto::Matrix;
using sotto::frontend::Filterbank;
using sotto::frontend::FilterbankOptions;

std::vector<float> noise(std::size_t samples, double level = .1) {
  sotto::Random random(3, sotto::Purpose::user);
  std::vector<float> x(samples);
  for (float& v : x) v = static_cast<float>(level * random.normal());
  return x;
}
std::vector<float> energies(std::span<float const> samples, int stack = 1, FilterbankOptions const& options = {}) {
  const int rows = Filterbank::frames(static_cast<std::int64_t>(samples.size())) / stack,
            columns = stack * options.bands;
  std::vector<float> out(static_cast<std::size_t>(rows * columns));
  Filterbank(options).compute(samples, {out.data(), rows, columns, columns});
  return out;
}

/// Kaldi's recipe, step by step, in double: a plain DFT and every triangle at every bin.
std::vector<double> oracle(float const* samples, int bands) {
  constexpr double pi = std::numbers::pi;
  double x[512]{}, mean = 0;
  for (int i = 0; i < 400; ++i) mean += double{samples[i]} * 32768 / 400;
  for (int i = 0; i < 400; ++i) x[i] = double{samples[i]} * 32768 - mean;
  for (int i = 399; i >= 0; --i) x[i] -= .97 * x[i > 0 ? i - 1 : 0];
  for (int i = 0; i < 400; ++i) x[i] *= std::pow(.5 - .5 * std::cos(2 * pi * i / 399), .85);
  const auto mel = [](double hertz) { return 1127 * std::log(1 + hertz / 700); };
  std::vector<double> result(static_cast<std::size_t>(bands));
  const double low = mel(20), step = (mel(8000) - low) / (bands + 1);
  for (int k = 0; k < 256; ++k) {
    std::complex<double> sum = 0;
    for (int i = 0; i < 400; ++i) sum += x[i] * std::polar(1., -2 * pi * k * i / 512);
    for (int b = 0; b < bands; ++b) {
      const double up = (mel(31.25 * k) - (low + b * step)) / step, down = 2 - up;
      result[static_cast<std::size_t>(b)] += std::max(0., std::min(up, down)) * std::norm(sum);
    }
  }
  for (double& energy : result) energy = std::log(std::max(energy, 1.1920928955078125e-07));
  return result;
}

}  // namespace

TEST_CASE("log-mel energies are those of Kaldi's recipe in double precision") {
  const auto x = noise(400 + 160 * 20);
  for (const int bands : {1, 23, 40, 80, 128}) {
    const auto found = energies(x, 1, {.bands = bands});
    double worst = 0;
    for (int frame = 0; frame < 21; ++frame) {
      const auto expected = oracle(x.data() + 160 * frame, bands);
      for (int b = 0; b < bands; ++b)
        worst = std::max(worst, std::abs(double{found[static_cast<std::size_t>(frame * bands + b)]} -
                                         expected[static_cast<std::size_t>(b)]));
    }
    CAPTURE(bands);
    CHECK(worst < 2e-4);
  }
}

TEST_CASE("only whole frames count") {
  CHECK(Filterbank::frames(0) == 0);
  CHECK(Filterbank::frames(399) == 0);
  CHECK(Filterbank::frames(400) == 1);
  CHECK(Filterbank::frames(559) == 1);
  CHECK(Filterbank::frames(560) == 2);
  CHECK(energies(noise(300)).empty());
}

TEST_CASE("a frame's energies depend on its samples only: not on its lane, nor on where a crop begins or ends") {
  const auto x = noise(400 + 160 * 70 + 33);
  for (const int offset : {0, 33}) {  // of the first frame: not a multiple of anything
    const auto whole = std::span(x).subspan(static_cast<std::size_t>(offset));
    const auto all = energies(whole);
    for (int first = 0; first <= 2 * sotto::cpu::lanes; ++first)
      for (const int frames : {1, 2, sotto::cpu::lanes - 1, sotto::cpu::lanes, sotto::cpu::lanes + 1, 37}) {
        const auto crop =
            whole.subspan(static_cast<std::size_t>(160 * first), static_cast<std::size_t>(240 + 160 * frames));
        const auto found = energies(crop);
        REQUIRE(found.size() == static_cast<std::size_t>(80 * frames));
        CHECK(std::equal(found.begin(), found.end(), all.begin() + 80 * first));
      }
  }
}

TEST_CASE("samples beyond the last frame that counts are not heard, whatever they are") {
  auto x = noise(400 + 160 * 6);  // seven frames, of which stacks of four leave three
  const auto expected = energies(x, 4);
  std::fill(x.begin() + 400 + 160 * 3, x.end(), std::numeric_limits<float>::infinity());
  CHECK(energies(x, 4) == expected);
}

TEST_CASE("the logarithm is within a unit in the last place of max(1, |ln x|), and two of ln x") {
  constexpr std::uint32_t fraction = 1u << 23;
  double worst = 0, worst_relative = 0;
  for (std::uint32_t exponent = 1; exponent < 255; ++exponent) {
    const std::uint32_t step = exponent == 126 || exponent == 127 ? 1 : 997;  // every number around 1
    for (std::uint32_t at = 0; at < fraction; at += step * sotto::cpu::lanes) {
      float x[sotto::cpu::lanes], found[sotto::cpu::lanes];
      for (std::uint32_t i = 0; i < sotto::cpu::lanes; ++i)
        x[i] = std::bit_cast<float>(exponent << 23 | (at + i * step) % fraction);
      sotto::cpu::store(found, sotto::frontend::detail::log_of(sotto::cpu::load(x)));
      for (int i = 0; i < sotto::cpu::lanes; ++i) {
        const double expected = std::log(double{x[i]}), apart = std::abs(found[i] - expected);
        const auto unit = [](double y) { return std::ldexp(1., std::ilogb(y) - 23); };
        worst = std::max(worst, apart / unit(std::max(1., std::abs(expected))));
        if (apart > 0) worst_relative = std::max(worst_relative, apart / unit(expected));  // ln 1 is 0, exactly
      }
    }
  }
  CHECK(worst <= 1);
  CHECK(worst_relative <= 2);
}

TEST_CASE("successive frames are stacked side by side and an odd tail is dropped") {
  const auto x = noise(400 + 160 * 6);
  const auto single = energies(x), paired = energies(x, 2);
  CHECK(paired.size() == 6 * 80);
  CHECK(std::equal(paired.begin(), paired.end(), single.begin()));
}

TEST_CASE("silence and a constant are the floor, exactly, and never a NaN") {
  for (const float level : {0.f, .1f, -1.f})
    for (const float energy : energies(std::vector<float>(4000, level)))
      CHECK(energy == doctest::Approx(std::log(1.1920928955078125e-07)).epsilon(1e-6));
}

TEST_CASE("a frame costs the products of its transform and of its nonzero mel weights") {
  // every bin from 1 to 255 lies under two triangles, but for those under the first's rise and the
  // last's fall
  static_assert(Filterbank::flops(1, 80) > 11520 + 2 * 2 * 245 && Filterbank::flops(1, 80) <= 11520 + 2 * 2 * 255);
  static_assert(Filterbank::flops(7, 40) == 7 * Filterbank::flops(1, 40));
  std::uint64_t weights = 0;
  for (int k = 0; k < 256; ++k)
    for (int b = 0; b < 80; ++b) {
      const auto mel = [](double hertz) { return 1127 * std::log(1 + hertz / 700); };
      const double step = (mel(8000) - mel(20)) / 81, up = (mel(31.25 * k) - mel(20)) / step - b;
      weights += std::min(up, 2 - up) > 0;
    }
  CHECK(Filterbank::flops(1, 80) == 2 * weights + 11520);
}

TEST_CASE("impossible filterbanks and wrong room are refused") {
  CHECK_THROWS_AS(Filterbank({.bands = 0}), sotto::Error);
  CHECK_THROWS_AS(Filterbank({.bands = 129}), sotto::Error);
  std::vector<float> out(10 * 80);
  const auto x = noise(400 + 160 * 4);
  CHECK_THROWS_AS(Filterbank().compute(x, {out.data(), 6, 80, 80}), sotto::Error);
  CHECK_THROWS_AS(Filterbank().compute(x, {out.data(), 4, 80, 80}), sotto::Error);
  CHECK_THROWS_AS(Filterbank().compute(x, {out.data(), 5, 79, 80}), sotto::Error);
}
