// Log-mel features of the CUDA backend, executed by a host, against the extractor of one utterance.
#include <doctest/doctest.h>
#include <host_cuda/engine.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <sotto/backend/cuda/log_mel.cuh>

#include "on_gpu.hpp"

using namespace sotto;
using namespace sotto::test;
using frontend::Normalisation;

namespace {

/// Voices of a few harmonics with noise, one utterance a count of samples; some begin or end in silence.
std::vector<std::vector<float>> speak(std::vector<int> const& counts) {
  std::mt19937 generator(5);
  std::normal_distribution<float> noise(0, .01f);
  std::vector<std::vector<float>> utterances;
  for (int count : counts) {
    std::vector<float> samples;
    const double pitch = 90 + 40 * static_cast<double>(utterances.size());
    for (int i = 0; i < count; ++i) {
      const double t = i / 16000.;
      double sum = 0;
      for (int h = 1; h < 20; ++h) sum += std::sin(2 * 3.14159265358979 * h * pitch * (1 + .2 * t) * t) / h;
      const bool silent = i > 2000 && i < 2800;
      samples.push_back(silent ? .25f : static_cast<float>(.1 * sum) + noise(generator));
    }
    utterances.push_back(samples);
  }
  return utterances;
}

template <class T, int Bands, int Stack, Normalisation Normalise>
void agrees(std::vector<int> const& counts, int tail) {
  using Frontend = frontend::LogMel<Bands, Stack, Normalise>;
  const auto utterances = speak(counts);
  std::vector<float> samples;
  std::vector<int> sample_offsets{0}, offsets{0};
  for (auto const& utterance : utterances) {
    samples.insert(samples.end(), utterance.begin(), utterance.end());
    sample_offsets.push_back(static_cast<int>(samples.size()));
    offsets.push_back(offsets.back() + Frontend::frames(static_cast<std::int64_t>(utterance.size())));
  }
  const int sequences = static_cast<int>(utterances.size()), rows = offsets.back() + tail;
  std::vector<float> mean, deviation;
  for (int b = 0; b < Bands; ++b) {
    mean.push_back(8 + .1f * static_cast<float>(b));
    deviation.push_back(b == 3 ? 0 : 2 + .01f * static_cast<float>(b));
  }

  const auto size = static_cast<std::size_t>(rows) * Frontend::features;
  std::vector<float> expected(size, 0.f);
  typename Frontend::Extractor extractor;
  if constexpr (Normalise == Normalisation::corpus) extractor.corpus_statistics(mean, deviation);
  for (std::size_t s = 0; s < utterances.size(); ++s)
    extractor.compute(utterances[s], {expected.data() + offsets[s] * Frontend::features, offsets[s + 1] - offsets[s],
                                      Frontend::features, Frontend::features});

  const auto before = host_cuda::options;
  std::vector<T> first;
  for (const auto order : {host_cuda::Order::forward, host_cuda::Order::reverse, host_cuda::Order::random}) {
    host_cuda::options.threads = host_cuda::options.blocks = order;
    const auto tables = cuda::log_mel_tables({.bands = Bands});
    const OnGpu<float> numbers(tables.numbers), samples_(samples), mean_(mean), deviation_(deviation);
    const OnGpu<int> ranges(tables.ranges), sample_offsets_(sample_offsets), offsets_(offsets);
    const cuda::LogMelPlan plan{numbers, ranges, Bands, Stack};
    const OnGpu<float> scratch(cuda::log_mel_scratch(plan, rows, sequences));
    const OnGpu<T> out(size);
    cuda::log_mel<T>(plan, {samples_, sample_offsets_, offsets_, sequences, rows}, Normalise, mean_, deviation_, out,
                     scratch, stream());
    const std::vector<T> found = out.numbers();
    if (first.empty()) first = found;
    CHECK(std::memcmp(found.data(), first.data(), size * sizeof(T)) == 0);
  }
  host_cuda::options = before;
  double worst = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const double apart = std::abs(static_cast<double>(static_cast<float>(first[i]) - expected[i]));
    REQUIRE_FALSE(std::isnan(apart));
    // half of the last place of the type
    worst = std::max(worst, apart - (std::is_same_v<T, bf16> ? std::abs(expected[i]) / 256. : 0.));
  }
  CHECK(worst < 1e-4);
  for (std::size_t i = static_cast<std::size_t>(offsets.back()) * Frontend::features; i < size; ++i)
    REQUIRE(static_cast<float>(first[i]) == 0);
}

}  // namespace

TEST_CASE("log-mel features of a batch on a GPU are the extractor's of each utterance") {
  // one of no frame, one of one, some with samples to spare
  agrees<float, 80, 2, Normalisation::utterance>({6003, 300, 570, 3761}, 3);
  agrees<float, 23, 3, Normalisation::utterance>({4000, 724}, 0);
}
TEST_CASE("log-mel features on a GPU may be normalised by a corpus, or not at all") {
  agrees<float, 40, 1, Normalisation::corpus>({3000, 1200}, 2);
  agrees<float, 128, 1, Normalisation::none>({2961}, 1);
}
TEST_CASE("log-mel features on a GPU are rounded to bf16 once, at the end") {
  agrees<bf16, 80, 2, Normalisation::utterance>({3500}, 2);
  agrees<bf16, 80, 2, Normalisation::corpus>({3500}, 2);
}
TEST_CASE("log-mel features of a batch without sequences are zeros") {
  agrees<float, 10, 2, Normalisation::utterance>({0, 100}, 3);
}
