// From the frames of an utterance to one vector: what a linear probe can take in.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::probe {
inline namespace SOTTO_API {

/// How the frames of an utterance become one vector.
enum class Pooling {
  frames20,  ///< 20 frames interpolated over time, side by side: keeps the order of sounds
  mean_std,  ///< mean and standard deviation over time: forgets it
  best       ///< whichever does better on the validation speakers
};

}  // namespace SOTTO_API

inline namespace SOTTO_ABI {

/// Its name in tables and JSON.
inline std::string pooling_name(Pooling pooling) {
  return pooling == Pooling::frames20   ? "20 resampled frames"
         : pooling == Pooling::mean_std ? "mean and deviation over time"
                                        : "best of both";
}

/// Length of the pooled vector of frames that are `width` wide. Not for Pooling::best.
inline int pooled_width(Pooling pooling, int width) { return pooling == Pooling::frames20 ? 20 * width : 2 * width; }

/// Pools frames [T, width], T >= 1, into pooled [pooled_width]. frames20 reads T at 20 positions
/// evenly spaced from the first frame to the last, by linear interpolation; mean_std writes the
/// means, then the (population) deviations.
inline void pool(Pooling pooling, Matrix<float const> frames, std::span<float> pooled) {
  const auto width = static_cast<std::size_t>(frames.columns);
  if (pooling == Pooling::frames20) {
    for (std::size_t k = 0; k < 20; ++k) {
      const double position = static_cast<double>(k) * (frames.rows - 1) / 19.0;
      const int below = std::min(static_cast<int>(position), frames.rows - 1);
      const int above = std::min(below + 1, frames.rows - 1);
      const auto share = static_cast<float>(position - below);
      float const *a = frames.row(below), *b = frames.row(above);
      for (std::size_t j = 0; j < width; ++j) pooled[k * width + j] = a[j] + share * (b[j] - a[j]);
    }
    return;
  }
  std::vector<double> sum(width, 0), square(width, 0);
  for (int t = 0; t < frames.rows; ++t)
    for (std::size_t j = 0; j < width; ++j) sum[j] += frames.row(t)[j];
  for (double& s : sum) s /= frames.rows;
  for (int t = 0; t < frames.rows; ++t)
    for (std::size_t j = 0; j < width; ++j) {
      const double d = frames.row(t)[j] - sum[j];
      square[j] += d * d;
    }
  for (std::size_t j = 0; j < width; ++j) {
    pooled[j] = static_cast<float>(sum[j]);
    pooled[width + j] = static_cast<float>(std::sqrt(square[j] / frames.rows));
  }
}

}  // namespace SOTTO_ABI
}  // namespace sotto::probe
