// What a front-end must know of a corpus before it is used.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <sotto/budget/units.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/source.hpp>
#include <sotto/frontend/log_mel.hpp>

namespace sotto::inline SOTTO_ABI {

/// Mean and deviation of each mel band over the utterances listed, into the front-end's parameters; returns what that
/// cost. The same bits on any number of threads.
template <class Frontend, class Parameters>
SOTTO_COLD Flops measure_corpus(AnySource const& source, std::span<std::uint32_t const> utterances, Executor& executor,
                                Parameters const& parameters) {
  using Raw = typename Frontend::Raw;
  constexpr int parts = 16;  // fixed, and merged in order
  std::vector<frontend::CorpusStatistics> statistics(parts, frontend::CorpusStatistics(Raw::bands));
  std::vector<std::uint64_t> flops(parts, 0);
  executor.run(parts, [&](int part) {
    typename Raw::Extractor extractor;
    std::vector<float> samples, features;
    for (auto i = static_cast<std::size_t>(part); i < utterances.size(); i += parts) {
      const std::int64_t length = source.samples(utterances[i]);
      const int frames = Raw::frames(length);
      samples.resize(static_cast<std::size_t>(length));
      source.read_sound(utterances[i], 0, samples);
      features.resize(static_cast<std::size_t>(frames) * Raw::features);
      const Matrix<float> out{features.data(), frames, Raw::features, Raw::features};
      extractor.compute(std::span<float const>(samples).first(static_cast<std::size_t>(Raw::samples_for(frames))), out);
      statistics[static_cast<std::size_t>(part)].add(out);
      flops[static_cast<std::size_t>(part)] += Raw::flops(frames);
    }
  });
  for (int part = 1; part < parts; ++part) statistics[0].merge(statistics[static_cast<std::size_t>(part)]);
  std::ranges::copy(statistics[0].mean(), parameters.mean.begin);
  std::ranges::copy(statistics[0].deviation(), parameters.deviation.begin);
  Flops total{};
  for (const std::uint64_t n : flops) total += Flops{n};
  return total;
}

}  // namespace sotto::inline SOTTO_ABI
