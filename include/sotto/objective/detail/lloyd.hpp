// One pass of k-means over frames: who is nearest to whom, and where the centroids' frames have
// their means.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/views.hpp>
#include <sotto/objective/detail/nearest.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// Sums over the frames of each cluster. Frames are cut into slots by their number alone, and slots
/// are added in order: the same bits for any number of threads.
template <class Scalar> class LloydPass {
 public:
  using Row = FunctionRef<Scalar const*(int)>;  ///< where frame i begins

  LloydPass(int clusters, int dimensions)
      : clusters_(clusters), dimensions_(dimensions),
        size_(static_cast<std::size_t>(clusters) * static_cast<std::size_t>(dimensions)), slots_(most_slots) {}

  /// row(i), i < frames, is a frame's begin. Fills sums, counts and inertia.
  SOTTO_COLD void measure(int frames, Row row, Matrix<Scalar const> centroids, Executor& executor) {
    nearest_.prepare(centroids);
    const int slots = std::clamp(frames / 256, 1, most_slots);
    executor.run(slots, [&](int s) {
      Slot& slot = slots_[static_cast<std::size_t>(s)];
      slot.sums.assign(size_, 0);
      slot.counts.assign(static_cast<std::size_t>(clusters_), 0);
      slot.inertia = 0;
      const auto first = static_cast<int>(std::int64_t{frames} * s / slots),
                 last = static_cast<int>(std::int64_t{frames} * (s + 1) / slots);
      constexpr int block = NearestCentroid<Scalar>::block;
      Scalar const* rows[block];
      std::uint16_t labels[block];
      for (int i = first; i < last; i += block) {
        const int count = std::min(block, last - i);
        for (int j = 0; j < count; ++j) rows[j] = row(i + j);
        nearest_.find(rows, count, labels);
        for (int j = 0; j < count; ++j) {
          const std::size_t k = labels[j];
          ++slot.counts[k];
          double* sum = slot.sums.data() + k * static_cast<std::size_t>(dimensions_);
          for (int d = 0; d < dimensions_; ++d) sum[d] += static_cast<double>(rows[j][d]);
          slot.inertia += squared_distance(rows[j], centroids.row(labels[j]), dimensions_);
        }
      }
    });
    Slot& total = slots_[0];
    for (int s = 1; s < slots; ++s) {
      total.inertia += slots_[static_cast<std::size_t>(s)].inertia;
      for (std::size_t k = 0; k < total.counts.size(); ++k)
        total.counts[k] += slots_[static_cast<std::size_t>(s)].counts[k];
    }
    constexpr std::size_t parts = 16;
    executor.run(parts, [&](int part) {
      const std::size_t first = size_ * static_cast<std::size_t>(part) / parts,
                        last = size_ * static_cast<std::size_t>(part + 1) / parts;
      for (int s = 1; s < slots; ++s)
        for (std::size_t i = first; i < last; ++i) total.sums[i] += slots_[static_cast<std::size_t>(s)].sums[i];
    });
    if (!std::isfinite(total.inertia)) refuse(frames, row);
  }

  double inertia() const { return slots_[0].inertia; }
  std::vector<std::int64_t> const& counts() const { return slots_[0].counts; }
  /// Each centroid moves to the mean of `weight` frames that it was made of and those of this pass;
  /// both are counted in weight then. Nobody's centroid stays.
  SOTTO_COLD void move(Matrix<Scalar> centroids, std::vector<std::int64_t>& weight) const {
    for (int k = 0; k < clusters_; ++k) {
      const std::int64_t count = counts()[static_cast<std::size_t>(k)];
      auto& before = weight[static_cast<std::size_t>(k)];
      if (count == 0) continue;
      Scalar* c = centroids.row(k);
      double const* sum = slots_[0].sums.data() + static_cast<std::size_t>(k) * static_cast<std::size_t>(dimensions_);
      for (int d = 0; d < dimensions_; ++d)
        c[d] = static_cast<Scalar>((static_cast<double>(c[d]) * static_cast<double>(before) + sum[d]) /
                                   static_cast<double>(before + count));
      before += count;
    }
  }

 private:
  static constexpr int most_slots = 32;
  struct Slot {
    std::vector<double> sums;  // [clusters, dimensions]
    std::vector<std::int64_t> counts;
    double inertia = 0;
  };
  SOTTO_COLD void refuse(int frames, Row row) const {
    for (int i = 0; i < frames; ++i)
      for (int d = 0; d < dimensions_; ++d)
        if (!std::isfinite(static_cast<double>(row(i)[d])))
          throw_error(ErrorCode::data, {"k-means was given a frame with a number that is not finite in dimension ", d,
                                        "; check the audio it was made of"});
    throw_error(ErrorCode::data, {"k-means was given frames so large that their distances overflow; scale them down"});
  }

  int clusters_, dimensions_;
  std::size_t size_;
  NearestCentroid<Scalar> nearest_;
  std::vector<Slot> slots_;
};

/// Whether some centroid has no frames.
inline SOTTO_COLD bool some_idle(std::vector<std::int64_t> const& weight) {
  for (const std::int64_t frames : weight)
    if (frames == 0) return true;
  return false;
}

/// Centroids of no weight go, one after another, to the row that is farthest from all others; where
/// every row is a centroid already they stay. blocks: of rows. Returns how many centroids were
/// compared with all rows.
inline SOTTO_COLD std::size_t place_idle(FrameBlocks const& blocks, std::vector<float const*> const& rows,
                                         Matrix<float> centroids, std::vector<std::int64_t> const& weight) {
  if (!some_idle(weight)) return 0;
  std::size_t compared = 0;
  std::vector<float> distance(rows.size(), std::numeric_limits<float>::infinity());
  const auto approach = [&](float const* centroid) {
    float to[FrameBlocks::block];
    for (std::size_t b = 0, i = 0; b < blocks.blocks(); ++b) {
      blocks.distances(b, centroid, to);
      for (std::size_t j = 0; j < FrameBlocks::block && i < distance.size(); ++i, ++j)
        distance[i] = std::min(distance[i], to[j]);
    }
    ++compared;
  };
  for (int k = 0; k < centroids.rows; ++k)
    if (weight[static_cast<std::size_t>(k)] > 0) approach(centroids.row(k));
  for (int k = 0; k < centroids.rows; ++k) {
    if (weight[static_cast<std::size_t>(k)] > 0) continue;
    const auto farthest = std::max_element(distance.begin(), distance.end());
    if (!(*farthest > 0)) break;
    float const* row = rows[static_cast<std::size_t>(farthest - distance.begin())];
    std::copy(row, row + centroids.columns, centroids.row(k));
    approach(centroids.row(k));
  }
  return compared;
}

}  // namespace sotto::detail::inline SOTTO_ABI
