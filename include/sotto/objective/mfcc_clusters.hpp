// HuBERT's first labels: k-means clusters of MFCC frames.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/source.hpp>
#include <sotto/frontend/mfcc.hpp>
#include <sotto/objective/kmeans.hpp>

namespace sotto::objective::inline SOTTO_ABI {

struct MfccClusterOptions {
  int fit_frames = 2'000'000;  ///< 10 ms frames that k-means sees at most, whole utterances drawn at random
  int restarts = 5;            ///< k-means++ initialisations; the best is kept
  int iterations = 100;        ///< mini-batches of 10,000 frames a restart at most

  template <class F> void visit(F&& f) {
    f("targets.fit_frames", fit_frames);
    f("targets.restarts", restarts);
    f("targets.iterations", iterations);
  }
};

}  // namespace sotto::objective::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// MfccClusters of any number.
class MfccLabels {
 public:
  static constexpr int dimensions = frontend::Mfcc::dimensions;

  explicit MfccLabels(int clusters) { model_.clusters = clusters; }

  /// Learns the clusters from the utterances listed. Error(data) if there are too few frames.
  SOTTO_COLD void fit(AnySource const& source, std::span<std::uint32_t const> utterances,
                      objective::MfccClusterOptions const& options, std::uint64_t seed, Executor& executor,
                      FunctionRef<void(double done)> progress) {
    // whole utterances in a keyed order, until enough frames
    const Permutation order(utterances.size(), seed, Purpose::clusters);
    std::vector<std::uint32_t> chosen;
    std::vector<std::int64_t> offsets{0};
    for (std::uint64_t i = 0; i < utterances.size() && offsets.back() < options.fit_frames; ++i) {
      const std::uint32_t utterance = utterances[order(i)];
      chosen.push_back(utterance);
      offsets.push_back(offsets.back() + frontend::Mfcc::frames(source.samples(utterance)));
    }
    const auto rows = static_cast<int>(offsets.back());
    std::vector<float> frames(static_cast<std::size_t>(rows) * dimensions);
    each_utterance(source, chosen, executor, [&](std::size_t i, std::span<float const> samples, frontend::Mfcc& mfcc) {
      mfcc.compute(samples, {frames.data() + offsets[i] * dimensions, static_cast<int>(offsets[i + 1] - offsets[i]),
                             dimensions, dimensions});
    });
    KmeansOptions kmeans;
    kmeans.clusters = model_.clusters;
    kmeans.restarts = options.restarts;
    kmeans.iterations = options.iterations;
    model_ = fit_kmeans({frames.data(), rows, dimensions, dimensions}, kmeans, seed, executor,
                        [&](KmeansProgress const& p) { progress(p.done()); });
    flops_ = model_.flops + frontend::Mfcc::flops(rows);
  }

  /// Labels all utterances of the source. Adds to flops().
  SOTTO_COLD void label(AnySource const& source, Executor& executor) {
    offsets_.clear();
    offsets_.push_back(0);
    std::vector<std::uint32_t> all;
    std::uint64_t frames = 0;
    for (std::size_t i = 0; i < source.size(); ++i) {
      all.push_back(static_cast<std::uint32_t>(i));
      const int mfcc_frames = frontend::Mfcc::frames(source.samples(i));
      frames += static_cast<std::uint64_t>(mfcc_frames);
      offsets_.push_back(offsets_.back() + (mfcc_frames + 1) / 2);
    }
    labels_ = std::vector<std::uint16_t>(static_cast<std::size_t>(offsets_.back()));
    each_utterance(source, all, executor, [&](std::size_t i, std::span<float const> samples, frontend::Mfcc& mfcc) {
      const int n = frontend::Mfcc::frames(static_cast<std::int64_t>(samples.size()));
      std::vector<float> features(static_cast<std::size_t>(n) * dimensions);
      std::vector<std::uint16_t> labels(static_cast<std::size_t>(n));
      mfcc.compute(samples, {features.data(), n, dimensions, dimensions});
      assign({features.data(), n, dimensions, dimensions}, model_, labels.data());
      for (std::size_t t = 0; 2 * t < labels.size(); ++t)
        labels_[static_cast<std::size_t>(offsets_[i]) + t] = labels[2 * t];
    });
    flops_ += frontend::Mfcc::flops(static_cast<std::int64_t>(frames)) +
              2 * frames * static_cast<std::uint64_t>(model_.clusters) * dimensions;
  }
  /// FLOPs of fit() and label() so far.
  std::uint64_t flops() const { return flops_; }

  /// The labels of frames [first, first + n) of an utterance, 20 ms apart, into `to`. Clean input beyond the last label
  /// takes the last one: the front-end never has more frames than there are labels.
  SOTTO_COLD void read(std::size_t utterance, int first, int n, int* to) const {
    const std::int64_t begin = offsets_[utterance] + first, last = offsets_[utterance + 1] - 1;
    for (int t = 0; t < n; ++t) to[t] = labels_[static_cast<std::size_t>(std::min(begin + t, last))];
  }

  /// What a checkpoint keeps: the centroids, [clusters, 39].
  std::span<float const> state() const { return model_.centroids; }
  SOTTO_COLD void restore(std::span<float const> state) {
    if (state.size() != static_cast<std::size_t>(model_.clusters) * dimensions)
      throw_error(ErrorCode::checkpoint, {"the clusters of the checkpoint have the wrong size"});
    model_.dimensions = dimensions;
    model_.centroids.resize(state.size());
    std::copy(state.begin(), state.end(), model_.centroids.begin());
  }

 private:
  /// f(i, samples of utterances[i], an extractor of its own), in parallel over chunks.
  SOTTO_COLD static void each_utterance(AnySource const& source, std::span<std::uint32_t const> utterances,
                                        Executor& executor,
                                        FunctionRef<void(std::size_t, std::span<float const>, frontend::Mfcc&)> f) {
    const int tasks = 8 * executor.concurrency();
    executor.run(tasks, [&](int task) {
      const std::size_t n = utterances.size(),
                        first = n * static_cast<std::size_t>(task) / static_cast<std::size_t>(tasks),
                        last = n * static_cast<std::size_t>(task + 1) / static_cast<std::size_t>(tasks);
      frontend::Mfcc mfcc;
      std::vector<float> samples;
      for (std::size_t i = first; i < last; ++i) {
        samples.resize(static_cast<std::size_t>(source.samples(utterances[i])));
        source.read_sound(utterances[i], 0, samples);
        f(i, std::span<float const>(samples), mfcc);
      }
    });
  }

  Kmeans model_{};
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint16_t> labels_;
  std::uint64_t flops_ = 0;
};

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::objective::inline SOTTO_ABI {

/// Labels every 20 ms frame t of every utterance with the cluster of its 10 ms frame 2t (fairseq: label_rate 100,
/// feat2tar_ratio 2). One k-means labels training and held-out speech alike. Fitting and labelling are billed.
template <int Clusters> class MfccClusters : public detail::MfccLabels {
 public:
  using Options = MfccClusterOptions;
  static constexpr int classes = Clusters;
  MfccClusters() : MfccLabels(Clusters) {}
};

}  // namespace sotto::objective::inline SOTTO_ABI
