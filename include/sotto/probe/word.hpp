// The words probe: how well a linear classifier tells spoken words apart, on speakers it never
// heard.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/source.hpp>
#include <sotto/probe/detail/word_fit.hpp>
#include <sotto/probe/detail/word_plan.hpp>
#include <sotto/probe/features.hpp>
#include <sotto/probe/word_result.hpp>

namespace sotto::probe::inline SOTTO_ABI {

/// Probes features for words: ridge regression from pooled frames of each layer onto the word,
/// fitted on training speakers, layer and ridge (and pooling, if asked) chosen on validation
/// speakers, accuracy measured once on test speakers.
///
/// The manifest's splits are used; speakers without one, or in several, are dealt out by the seed
/// and `notes` says so. Deterministic, whatever the threads. Throws Error(data) where labels,
/// words, speakers or a split are missing, Error(usage) for options that cannot be.
inline ProbeResult words(AnySource const& source, FeatureExtractor const& extractor, WordOptions const& options = {}) {
  if (options.ridges.empty() || options.resamples < 1)
    throw_error(ErrorCode::usage,
                {"words probe: at least one ridge and one resample are needed; leave them out for the "
                 "defaults"});
  std::optional<ThreadPool> pool_of_own;
  Executor& executor = options.executor ? *options.executor : pool_of_own.emplace();
  ProbeResult result;
  detail::WordPlan plan = detail::plan_words(source, options, result);
  {  // fail before the long work if the splits cannot do
    detail::WordPlan trial = plan;
    ProbeResult counted;
    trial.settle(counted);
  }
  std::array<std::optional<WordScore>, 2> best;
  std::array<std::vector<int>, 2> predicted;
  std::array<std::vector<LayerScore>, 2> scores;
  for (int first = 0, last = 0; first < extractor.layers(); first = last) {
    for (std::size_t bytes = 0; last < extractor.layers(); ++last) {
      bytes += plan.items.size() * sizeof(float) * 22 * static_cast<std::size_t>(extractor.width(last));
      if (last > first && bytes > options.memory) break;
    }
    auto pooled = detail::pool_layers(source, extractor, first, last, plan.items, executor);
    if (first == 0) plan.settle(result);
    for (std::size_t p = 0; p < 2; ++p)
      for (int l = first; l < last; ++l) {
        auto& features = pooled[p][static_cast<std::size_t>(l - first)];
        const int width = pooled_width(detail::poolings[p], extractor.width(l));
        LayerScore score{l, extractor.layer_name(l), detail::poolings[p]};
        auto answers = detail::score_layer(plan, {features.data(), static_cast<int>(plan.items.size()), width, width},
                                           options, executor, score);
        features = {};
        scores[p].push_back(score);
        if (best[p] && best[p]->validation >= score.validation) continue;
        best[p].emplace(WordScore{score, score.test, 0, 0});
        predicted[p] = std::move(answers);
      }
  }
  for (std::size_t p = 0; p < 2; ++p) {
    std::tie(best[p]->low, best[p]->high) = detail::speaker_interval(plan, predicted[p], options);
    result.layers.insert(result.layers.end(), scores[p].begin(), scores[p].end());
  }
  if (result.test_speakers == 1)
    result.notes.push_back("one test speaker: the interval cannot say how other voices would do");
  result.frames20 = *best[0];
  result.mean_std = *best[1];
  const bool means = options.pooling == Pooling::mean_std ||
                     (options.pooling == Pooling::best && result.mean_std.validation > result.frames20.validation);
  static_cast<WordScore&>(result) = means ? result.mean_std : result.frames20;
  std::vector<int> examples(plan.classes.size(), 0);
  for (int i = 0; i < plan.utterances[0]; ++i)
    ++examples[static_cast<std::size_t>(plan.truth[static_cast<std::size_t>(i)])];
  const auto commonest = static_cast<int>(std::max_element(examples.begin(), examples.end()) - examples.begin());
  const auto tested = std::span<int const>(plan.truth).last(static_cast<std::size_t>(plan.utterances[2]));
  result.chance =
      static_cast<double>(std::count(tested.begin(), tested.end(), commonest)) / static_cast<double>(tested.size());
  return result;
}

}  // namespace sotto::probe::inline SOTTO_ABI
