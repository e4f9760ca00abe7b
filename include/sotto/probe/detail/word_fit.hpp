// The work of the words probe: features, fits, and the interval of the answer.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>
#include <sotto/data/source.hpp>
#include <sotto/probe/detail/word_plan.hpp>
#include <sotto/probe/features.hpp>
#include <sotto/probe/ridge.hpp>

namespace sotto::probe::detail::inline SOTTO_ABI {

constexpr std::array<Pooling, 2> poolings{Pooling::frames20, Pooling::mean_std};

// Pooled features of layers [first, last): one matrix [items, pooled width] a pooling and layer.
using PooledLayers = std::array<std::vector<std::vector<float>>, 2>;

inline PooledLayers pool_layers(AnySource const& source, FeatureExtractor const& extractor, int first, int last,
                                std::vector<WordItem>& items, Executor& executor) {
  PooledLayers pooled;
  for (std::size_t p = 0; p < 2; ++p)
    for (int l = first; l < last; ++l)
      pooled[p].emplace_back(items.size() * static_cast<std::size_t>(pooled_width(poolings[p], extractor.width(l))));
  std::atomic<std::size_t> next{0};
  executor.run(executor.concurrency(), [&](int) {
    const auto own = extractor.clone();
    std::vector<float> samples;
    std::vector<std::vector<float>> layers;
    for (std::size_t n; (n = next.fetch_add(1)) < items.size();) {
      WordItem& item = items[n];
      samples.resize(static_cast<std::size_t>(source.samples(item.index)));
      if (!samples.empty()) source.read(item.index, 0, std::span<float>(samples));
      own->extract(samples, layers);
      for (auto const& layer : layers)
        if (!std::all_of(layer.begin(), layer.end(), [](float x) { return std::isfinite(x); }))
          item.trouble = "features that are not finite numbers";
      if (layers.empty() || layers[0].empty()) item.trouble = "too short for one frame";
      if (item.trouble) continue;
      for (int l = first; l < last; ++l) {
        auto const& layer = layers[static_cast<std::size_t>(l)];
        const int width = extractor.width(l);
        const Matrix<float const> frames{layer.data(), static_cast<int>(layer.size() / static_cast<std::size_t>(width)),
                                         width, width};
        for (std::size_t p = 0; p < 2; ++p) {
          const auto length = static_cast<std::size_t>(pooled_width(poolings[p], width));
          auto& matrix = pooled[p][static_cast<std::size_t>(l - first)];
          pool(poolings[p], frames, std::span<float>(matrix.data() + n * length, length));
        }
      }
    }
  });
  // Close the gaps of utterances that could not be used.
  for (auto& of_pooling : pooled)
    for (auto& matrix : of_pooling) {
      const std::size_t length = matrix.size() / std::max<std::size_t>(1, items.size());
      std::size_t kept = 0;
      for (std::size_t n = 0; n < items.size(); ++n) {
        if (items[n].trouble) continue;
        if (kept != n)
          std::copy_n(matrix.begin() + static_cast<std::ptrdiff_t>(n * length), length,
                      matrix.begin() + static_cast<std::ptrdiff_t>(kept * length));
        ++kept;
      }
      matrix.resize(kept * length);
    }
  return pooled;
}

inline double accuracy(std::span<int const> predicted, std::span<int const> truth) {
  std::size_t right = 0;
  for (std::size_t i = 0; i < predicted.size(); ++i) right += predicted[i] == truth[i];
  return static_cast<double>(right) / static_cast<double>(predicted.size());
}

// One layer under one pooling: fits every ridge, keeps the one that validates best (the strongest
// of equals), and only then looks at the test speakers. Returns its predictions of them.
inline std::vector<int> score_layer(WordPlan const& plan, Matrix<float const> pooled, WordOptions const& options,
                                    Executor& executor, LayerScore& score) {
  const int train = plan.utterances[0], validation = plan.utterances[1], test = plan.utterances[2];
  const std::span<int const> truth(plan.truth);
  const Ridge problem(pooled.slice_rows(0, train), truth.first(static_cast<std::size_t>(train)),
                      static_cast<int>(plan.classes.size()), executor);
  std::vector<std::optional<RidgeClassifier>> classifiers(options.ridges.size());
  std::vector<double> validated(options.ridges.size());
  executor.run(static_cast<int>(options.ridges.size()), [&](int k) {
    const auto r = static_cast<std::size_t>(k);
    classifiers[r] = problem.solve(options.ridges[r]);
    std::vector<int> predicted(static_cast<std::size_t>(validation));
    classifiers[r]->predict(pooled.slice_rows(train, validation), predicted);
    validated[r] = accuracy(predicted, truth.subspan(static_cast<std::size_t>(train)));
  });
  std::size_t best = 0;
  for (std::size_t r = 1; r < validated.size(); ++r)
    if (validated[r] > validated[best] || (validated[r] == validated[best] && options.ridges[r] > options.ridges[best]))
      best = r;
  std::vector<int> predicted(static_cast<std::size_t>(test));
  classifiers[best]->predict(pooled.slice_rows(train + validation, test), predicted);
  score.ridge = options.ridges[best];
  score.validation = validated[best];
  score.test = accuracy(predicted, truth.last(static_cast<std::size_t>(test)));
  return predicted;
}

// 95 % interval of the test accuracy under resampling of speakers, since utterances of one voice
// are not independent.
inline std::pair<double, double> speaker_interval(WordPlan const& plan, std::span<int const> predicted,
                                                  WordOptions const& options) {
  std::map<int, std::pair<int, int>> by_speaker;  // right, all
  const std::size_t first = plan.items.size() - predicted.size();
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    auto& [right, all] = by_speaker[plan.items[first + i].speaker];
    right += predicted[i] == plan.items[first + i].label;
    ++all;
  }
  std::vector<std::pair<int, int>> counts;
  for (auto const& [speaker, count] : by_speaker) counts.push_back(count);
  Random random(options.seed, Purpose::probe, 1);
  std::vector<double> drawn(static_cast<std::size_t>(options.resamples));
  for (double& value : drawn) {
    std::int64_t right = 0, all = 0;
    for (std::size_t s = 0; s < counts.size(); ++s) {
      auto const& pick = counts[random.below(static_cast<std::uint32_t>(counts.size()))];
      right += pick.first;
      all += pick.second;
    }
    value = static_cast<double>(right) / static_cast<double>(all);
  }
  std::sort(drawn.begin(), drawn.end());
  const auto percentile = [&](double p) {
    const double position = p * static_cast<double>(drawn.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, drawn.size() - 1);
    return drawn[below] + (position - static_cast<double>(below)) * (drawn[above] - drawn[below]);
  };
  return {percentile(.025), percentile(.975)};
}

}  // namespace sotto::probe::detail::inline SOTTO_ABI
