#include <sotto/frontend/log_mel.hpp>

#include <sotto/core/philox.hpp>

#include <doctest/doctest.h>

namespace {

using sotto::Matrix;
using sotto::frontend::CorpusStatistics;
using sotto::frontend::LogMel;
using sotto::frontend::Normalisation;

using Plain = LogMel<40, 2, Normalisation::none>;
using Usual = LogMel<40, 2>;
using Corpus = LogMel<40, 2, Normalisation::corpus>;

template <class Frontend>
std::vector<float> features(typename Frontend::Extractor& extractor, std::span<float const> samples) {
  const int rows = Frontend::frames(static_cast<std::int64_t>(samples.size()));
  std::vector<float> out(static_cast<std::size_t>(rows * Frontend::features));
  extractor.compute(samples, {out.data(), rows, Frontend::features, Frontend::features});
  return out;
}
template <class Frontend> std::vector<float> features(std::span<float const> samples) {
  typename Frontend::Extractor extractor;
  return features<Frontend>(extractor, samples);
}
Matrix<float const> view(std::vector<float> const& values, int columns) {
  return {values.data(), static_cast<int>(values.size()) / columns, columns, columns};
}
std::vector<float> noise(std::size_t samples, std::uint64_t seed = 3) {
  sotto::Random random(seed, sotto::Purpose::user);
  std::vector<float> x(samples);
  for (float& v : x) v = static_cast<float>(.1 * random.normal());
  return x;
}

}  // namespace

TEST_CASE("frames are 20 ms apart, and so many samples give so many frames, exactly") {
  static_assert(LogMel<>::features == 160 && LogMel<>::hop == 320);
  static_assert(LogMel<>::samples_for(1) == 560 && LogMel<>::samples_for(0) == 0);
  static_assert(LogMel<>::frames(15600 * 16) == 779);
  for (int frames = 1; frames < 50; ++frames) {
    CHECK(LogMel<>::frames(LogMel<>::samples_for(frames)) == frames);
    CHECK(LogMel<>::frames(LogMel<>::samples_for(frames) - 1) == frames - 1);
    CHECK(LogMel<80, 3>::frames(LogMel<80, 3>::samples_for(frames)) == frames);
  }
  static_assert(LogMel<>::flops(10) == 20 * sotto::frontend::Filterbank::flops(1, 80));
}

TEST_CASE("over an utterance every band has mean 0 and deviation 1") {
  const auto out = features<Usual>(noise(16000));
  CorpusStatistics statistics(40);
  statistics.add(view(out, 80));
  CHECK(statistics.frames() == 98);
  for (const float mean : statistics.mean()) CHECK(std::abs(mean) < 1e-5);
  for (const float deviation : statistics.deviation()) CHECK(deviation == doctest::Approx(1).epsilon(1e-5));
}

TEST_CASE("silence is 0 after normalisation, not NaN, and so is a lone frame") {
  for (const float level : {0.f, .3f})
    for (const float value : features<Usual>(std::vector<float>(8000, level))) CHECK(value == 0);
  const auto x = noise(400);
  for (const float value : features<LogMel<40, 1>>(x)) CHECK(value == 0);
  CHECK(features<Usual>(noise(100)).empty());
}

TEST_CASE("corpus statistics computed in parts are those of the whole, and normalise as promised") {
  const auto first = noise(16000, 1), second = noise(24000, 2);
  const auto a = features<Plain>(first), b = features<Plain>(second);
  auto both = a;
  both.insert(both.end(), b.begin(), b.end());
  CorpusStatistics whole(40), parts(40), other(40);
  whole.add(view(both, 80));
  parts.add(view(a, 80));
  other.add(view(b, 40));
  parts.merge(other);
  parts.merge(CorpusStatistics(40));
  CHECK(parts.frames() == whole.frames());
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(parts.mean()[i] == doctest::Approx(whole.mean()[i]).epsilon(1e-6));
    CHECK(parts.deviation()[i] == doctest::Approx(whole.deviation()[i]).epsilon(1e-6));
  }

  Corpus::Extractor extractor;
  std::vector<float> out(a.size());
  CHECK_THROWS_AS(extractor.compute(first, {out.data(), 49, 80, 80}), sotto::Error);
  CHECK_THROWS_AS(extractor.corpus_statistics(std::vector<float>(39), std::vector<float>(40)), sotto::Error);
  auto deviation = whole.deviation();
  deviation[3] = 0;
  extractor.corpus_statistics(whole.mean(), deviation);
  out = features<Corpus>(extractor, first);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t band = i % 40;
    const float expected = band == 3 ? 0 : (a[i] - whole.mean()[band]) / whole.deviation()[band];
    CHECK(out[i] == doctest::Approx(expected).epsilon(1e-4));
  }
  CHECK_THROWS_AS(whole.merge(CorpusStatistics(41)), sotto::Error);
}

TEST_CASE("a model is saved with its corpus statistics, and with nothing in the other modes") {
  CHECK(sotto::ParameterTable<Usual::Parameters>::entries == 0);
  constexpr auto table = sotto::ParameterTable<Corpus::Parameters>::make();
  static_assert(table.size() == 2 && table[1].offset == 40 && !table[0].info.trained);
}

TEST_CASE("room of another shape is refused") {
  const auto x = noise(16000);
  std::vector<float> out(50 * 81);
  Usual::Extractor extractor;
  CHECK_THROWS_AS(extractor.compute(x, {out.data(), 50, 80, 80}), sotto::Error);
  CHECK_THROWS_AS(extractor.compute(x, {out.data(), 49, 81, 81}), sotto::Error);
}
