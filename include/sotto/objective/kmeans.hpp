// K-means: discrete labels for frames, HuBERT's first targets (fairseq
// examples/hubert/simple_kmeans).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>
#include <sotto/objective/detail/lloyd.hpp>

namespace sotto::inline SOTTO_ABI {

struct KmeansOptions {
  int clusters = 100;    ///< 1 to 65536
  int batch = 10000;     ///< frames of a mini-batch; three times as many are the sample that restarts begin on
  int restarts = 5;      ///< k-means++ initialisations; the best on the sample is kept
  int iterations = 100;  ///< mini-batches a restart at most
  int patience = 10;     ///< a restart ends after so many mini-batches without a better running mean
                         ///< of their inertia
  int passes = 3;        ///< Lloyd iterations over all frames at the end, fewer if one gains less than 0.1 %
};

/// Where a fit is, for a progress line.
struct KmeansProgress {
  int restart, restarts;  ///< restart == restarts: the passes over all frames
  int iteration;          ///< of the restart or of the passes
  double frame_inertia;   ///< mean squared distance of the frames just seen
  double part;            ///< of this restart, or of the passes, at most

  /// Part of the whole fit, at most: restarts and passes may end early.
  double done() const { return std::min(.99, (restart + part) / (restarts + 1)); }
};

/// Clusters, and what finding them cost.
struct Kmeans {
  int clusters = 0, dimensions = 0;
  std::vector<float> centroids;  ///< [clusters, dimensions]
  double inertia = 0;            ///< squared distances of all frames from their centroids, summed
  /// 2 · dimensions · clusters a frame scored (k-means++: 2 · dimensions a frame and candidate);
  /// the arithmetic that follows a label, a clusters-th of it, is not counted.
  std::uint64_t flops = 0;
};

/// labels[i] = the cluster nearest to frame i, the lowest-numbered of equals; *inertia, if given,
/// becomes the sum of the squared distances. frames: [frames, dimensions]. Error(usage) if the
/// widths differ.
inline SOTTO_COLD void assign(Matrix<float const> frames, Kmeans const& kmeans, std::uint16_t* labels,
                              double* inertia = nullptr) {
  if (frames.columns != kmeans.dimensions)
    throw_error(ErrorCode::usage,
                {"frames of ", frames.columns, " dimensions cannot be labelled by clusters of ", kmeans.dimensions});
  const Matrix<float const> centroids{kmeans.centroids.data(), kmeans.clusters, kmeans.dimensions, kmeans.dimensions};
  detail::NearestCentroid<float> nearest;
  nearest.prepare(centroids);
  constexpr int block = detail::NearestCentroid<float>::block;
  float const* rows[block];
  double total = 0;
  for (int i = 0; i < frames.rows; i += block) {
    const int count = std::min(block, frames.rows - i);
    for (int j = 0; j < count; ++j) rows[j] = frames.row(i + j);
    nearest.find(rows, count, labels + i);
    if (inertia)
      for (int j = 0; j < count; ++j)
        total += detail::squared_distance(rows[j], centroids.row(labels[i + j]), kmeans.dimensions);
  }
  if (inertia) *inertia = total;
}

/// One iteration of Lloyd's: every centroid moves to the mean of the frames nearest to it; one that
/// has none stays. Returns the inertia before the move.
template <class Scalar>
double lloyd_iteration(Matrix<Scalar const> frames, Matrix<Scalar> centroids, Executor& executor) {
  detail::LloydPass<Scalar> pass(centroids.rows, centroids.columns);
  pass.measure(
      frames.rows, [&](int i) { return frames.row(i); }, centroids, executor);
  std::vector<std::int64_t> weight(static_cast<std::size_t>(centroids.rows));
  pass.move(centroids, weight);
  return pass.inertia();
}

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// A fit under way.
class KmeansFit {
 public:
  using Report = std::optional<FunctionRef<void(KmeansProgress const&)>>;

  SOTTO_COLD KmeansFit(Matrix<float const> frames, KmeansOptions const& options, std::uint64_t seed, Executor& executor,
                       Report report)
      : frames_(frames), options_(options), seed_(seed), executor_(executor), report_(report),
        pass_(options.clusters, frames.columns), distinct_(find_distinct()),
        wanted_(std::max(3 * std::int64_t{options.batch}, 10 * std::int64_t{options.clusters})),
        whole_(frames.rows <= wanted_), sample_(draw_sample()), blocks_(sample_, frames.columns) {}

  SOTTO_COLD Kmeans run() {
    Kmeans best;
    for (int restart = 0; restart < options_.restarts; ++restart) {
      std::vector<float> centroids = plus_plus(restart);
      if (whole_)
        lloyd(centroids, restart, options_.iterations, 1e-5);
      else
        mini_batches(centroids, restart);
      measure_sample(view(centroids));
      if (restart == 0 || pass_.inertia() < best.inertia) {
        best.inertia = pass_.inertia();
        best.centroids = std::move(centroids);
      }
    }
    best.clusters = options_.clusters;
    best.dimensions = frames_.columns;
    if (!whole_) best.inertia = lloyd(best.centroids, options_.restarts, options_.passes, 1e-3);
    best.flops = flops_;
    return best;
  }

 private:
  SOTTO_COLD std::vector<float const*> draw_sample() const {
    std::vector<float const*> sample(static_cast<std::size_t>(whole_ ? frames_.rows : wanted_));
    const Permutation order(static_cast<std::uint64_t>(frames_.rows), seed_, Purpose::clusters, 1);
    for (std::size_t i = 0; i < sample.size(); ++i) sample[i] = frames_.row(static_cast<int>(whole_ ? i : order(i)));
    return sample;
  }
  Matrix<float> view(std::vector<float>& centroids) const {
    return {centroids.data(), options_.clusters, frames_.columns, frames_.columns};
  }
  void measure(int count, LloydPass<float>::Row row, Matrix<float const> centroids) {
    pass_.measure(count, row, centroids, executor_);
    flops_ += 2 * static_cast<std::uint64_t>(count) * static_cast<std::uint64_t>(frames_.columns) *
              static_cast<std::uint64_t>(options_.clusters);
  }
  SOTTO_COLD void measure_sample(Matrix<float const> centroids) {
    measure(
        static_cast<int>(sample_.size()), [&](int i) { return sample_[static_cast<std::size_t>(i)]; }, centroids);
  }
  SOTTO_COLD void progress(int restart, int iteration, int most, int frames) const {
    if (report_)
      (*report_)({restart, options_.restarts, iteration, pass_.inertia() / frames,
                  std::min(1., (iteration + 1.) / std::max(1, most))});
  }

  /// The first row of each of the first `clusters` distinct frames. Error(data) if there are fewer.
  SOTTO_COLD std::vector<int> find_distinct() const {
    std::vector<int> found;
    for (int i = 0; i < frames_.rows && static_cast<int>(found.size()) < options_.clusters; ++i) {
      float const* const frame = frames_.row(i);
      bool seen = false;
      for (const int j : found) seen = seen || std::equal(frame, frame + frames_.columns, frames_.row(j));
      if (!seen) found.push_back(i);
    }
    if (static_cast<int>(found.size()) < options_.clusters)
      throw_error(
          ErrorCode::data,
          {options_.clusters, " clusters need as many distinct frames, but the ", frames_.rows, " frames given hold ",
           found.size(), "; give more speech (silence is one frame over and over) or ask for fewer clusters"});
    return found;
  }

  /// Greedy k-means++ (Arthur & Vassilvitskii 2007, section 5): of 2 + ln(clusters) candidates,
  /// drawn by their squared distance from what is chosen, the one that leaves the least of it.
  SOTTO_COLD std::vector<float> plus_plus(int restart) {
    Random random(seed_, Purpose::clusters, static_cast<std::uint32_t>(restart) + 2, 0);
    const auto count = sample_.size(), trials = static_cast<std::size_t>(2 + std::log(options_.clusters));
    const int dimensions = frames_.columns;
    std::vector<float> centroids(static_cast<std::size_t>(options_.clusters) * static_cast<std::size_t>(dimensions));
    std::size_t filled = 0;  // numbers of the centroids chosen so far
    const std::size_t room = blocks_.blocks() * FrameBlocks::block;
    std::vector<float> closest(room, std::numeric_limits<float>::infinity()), distances(trials * room);
    std::vector<double> cumulative(count);
    constexpr std::size_t parts = 16;
    std::vector<double> potentials(trials * parts);
    std::vector<float const*> candidates(trials);
    candidates[0] = sample_[random.below(static_cast<std::uint32_t>(count))];
    std::size_t tried = 1;  // of the candidates
    for (;;) {
      executor_.run(parts, [&](int part) {
        const std::size_t first = blocks_.blocks() * static_cast<std::size_t>(part) / parts,
                          last = blocks_.blocks() * static_cast<std::size_t>(part + 1) / parts;
        for (std::size_t t = 0; t < tried; ++t) potentials[t * parts + static_cast<std::size_t>(part)] = 0;
        for (std::size_t b = first; b < last; ++b)
          for (std::size_t t = 0; t < tried; ++t) {
            float* distance = distances.data() + t * room + b * FrameBlocks::block;
            blocks_.distances(b, candidates[t], distance);
            double sum = 0;
            for (std::size_t i = b * FrameBlocks::block, j = 0; j < FrameBlocks::block && i < count; ++i, ++j)
              sum += static_cast<double>(distance[j] = std::min(closest[i], distance[j]));
            potentials[t * parts + static_cast<std::size_t>(part)] += sum;
          }
      });
      flops_ += 2 * tried * count * static_cast<std::uint64_t>(dimensions);
      std::size_t chosen = 0;
      double least = std::numeric_limits<double>::infinity();
      for (std::size_t t = 0; t < tried; ++t) {
        double sum = 0;
        for (std::size_t part = 0; part < parts; ++part) sum += potentials[t * parts + part];
        if (sum < least) {
          least = sum;
          chosen = t;
        }
      }
      std::copy_n(candidates[chosen], dimensions, centroids.data() + filled);
      filled += static_cast<std::size_t>(dimensions);
      const auto begin = distances.begin() + static_cast<std::ptrdiff_t>(chosen * room);
      std::copy(begin, begin + static_cast<std::ptrdiff_t>(count), closest.begin());
      if (filled == centroids.size()) return centroids;

      double sum = 0;
      for (std::size_t i = 0; i < count; ++i) cumulative[i] = sum += static_cast<double>(closest[i]);
      tried = sum > 0 ? trials : 1;
      for (std::size_t t = 0; t < tried; ++t) {
        if (sum > 0) {
          const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), random.uniform() * sum);
          candidates[t] = sample_[std::min(static_cast<std::size_t>(at - cumulative.begin()), count - 1)];
        } else {
          candidates[t] = unlike({centroids.data(), filled});  // the sample has no other frame, but the whole has
        }
      }
    }
  }
  /// A frame that differs from every centroid so far. There is one: they are fewer than the
  /// distinct frames.
  SOTTO_COLD float const* unlike(std::span<float const> centroids) const {
    const auto width = static_cast<std::size_t>(frames_.columns);
    for (const int i : distinct_) {
      bool taken = false;
      for (std::size_t at = 0; at < centroids.size() && !taken; at += width)
        taken = std::equal(frames_.row(i), frames_.row(i) + width, centroids.begin() + static_cast<std::ptrdiff_t>(at));
      if (!taken) return frames_.row(i);
    }
    return frames_.row(distinct_.back());
  }

  /// Sculley 2010: each centroid is the mean of all frames that mini-batches have given it.
  SOTTO_COLD void mini_batches(std::vector<float>& centroids, int restart) {
    Random random(seed_, Purpose::clusters, static_cast<std::uint32_t>(restart) + 2, 1);
    std::vector<std::int64_t> weight(static_cast<std::size_t>(options_.clusters));
    std::vector<float const*> batch(static_cast<std::size_t>(options_.batch));
    const double share = 2. / (options_.patience + 1);
    double running = 0, least = std::numeric_limits<double>::infinity();
    for (int iteration = 0, idle = 0; iteration < options_.iterations && idle < options_.patience; ++iteration) {
      for (auto& row : batch)
        row = frames_.row(static_cast<int>(random.below(static_cast<std::uint32_t>(frames_.rows))));
      measure(
          options_.batch, [&](int i) { return batch[static_cast<std::size_t>(i)]; }, view(centroids));
      pass_.move(view(centroids), weight);
      progress(restart, iteration, options_.iterations, options_.batch);
      running = iteration == 0 ? pass_.inertia() : running + share * (pass_.inertia() - running);
      idle = running < least ? 0 : idle + 1;
      least = std::min(least, running);
    }
    reseed(centroids, weight);
  }

  /// At most `most` moves over all frames; returns the inertia of where the centroids end up.
  SOTTO_COLD double lloyd(std::vector<float>& centroids, int restart, int most, double gain) {
    double before = std::numeric_limits<double>::infinity();
    for (int iteration = 0;; ++iteration) {
      measure(
          frames_.rows, [&](int i) { return frames_.row(i); }, view(centroids));
      progress(restart, iteration, most, frames_.rows);
      const double inertia = pass_.inertia();
      const bool empty = some_idle(pass_.counts());
      // A cluster that became empty at the very end gets ten more passes to find frames.
      if (iteration >= most + (empty ? 10 : 0) || (!empty && !(before - inertia > gain * inertia))) return inertia;
      before = inertia;
      std::vector<std::int64_t> weight(static_cast<std::size_t>(options_.clusters));
      pass_.move(view(centroids), weight);
      if (empty) reseed(centroids, weight);
    }
  }

  SOTTO_COLD void reseed(std::vector<float>& centroids, std::vector<std::int64_t> const& weight) {
    const std::size_t asked = place_idle(blocks_, sample_, view(centroids), weight);
    flops_ += 2 * static_cast<std::uint64_t>(asked) * sample_.size() * static_cast<std::uint64_t>(frames_.columns);
  }

  Matrix<float const> frames_;
  KmeansOptions options_;
  std::uint64_t seed_;
  Executor& executor_;
  Report report_;
  LloydPass<float> pass_;
  std::vector<int> distinct_;
  std::int64_t wanted_;               // frames of the sample
  bool whole_;                        // it is all there is
  std::vector<float const*> sample_;  // rows of frames_
  FrameBlocks blocks_;                // the sample's numbers
  std::uint64_t flops_ = 0;
};

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Clusters frames, [frames, dimensions]: k-means++ on a sample, mini-batches, the best of some
/// restarts, and Lloyd iterations over everything to finish; with few frames (three batches) Lloyd
/// iterations alone. The same bits for any number of threads. Error(usage) for impossible options,
/// Error(data) if there are fewer distinct frames than clusters or numbers that are not finite.
inline SOTTO_COLD Kmeans fit_kmeans(Matrix<float const> frames, KmeansOptions const& options, std::uint64_t seed,
                                    Executor& executor,
                                    std::optional<FunctionRef<void(KmeansProgress const&)>> progress = {}) {
  const auto within = [](char const* what, int value, int least, int most) {
    if (value < least || value > most)
      throw_error(ErrorCode::usage,
                  {"k-means cannot have ", what, " = ", value, "; it must be from ", least, " to ", most});
  };
  within("clusters", options.clusters, 1, 65536);
  within("batch", options.batch, 1, 1 << 28);
  within("restarts", options.restarts, 1, 1000);
  within("iterations", options.iterations, 1, 1'000'000);
  within("patience", options.patience, 1, 1'000'000);
  within("passes", options.passes, 0, 1'000'000);
  within("dimensions", frames.columns, 1, 1 << 20);
  return detail::KmeansFit(frames, options, seed, executor, progress).run();
}

}  // namespace sotto::inline SOTTO_ABI
