// SpecAugment's masks on features (Park et al., arXiv 1904.08779): bands of channels and spans of frames set to 0,
// which is the mean of normalised features.
#pragma once

#include <algorithm>

#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>

namespace sotto::augment::inline SOTTO_ABI {

/// Masks of the log-mel bands of stacked frames: the same bands in each of the `Stack` sub-frames of a row.
template <int Stack = 2> struct SpecAugment {
  struct Options {
    int time_masks = 0;        ///< spans of frames a crop
    int time_width = 20;       ///< longest span, frames; never more than a fifth of the crop
    int frequency_masks = 0;   ///< bands a crop
    int frequency_width = 10;  ///< widest band, mel channels

    template <class F> void visit(F&& f) {
      f("time_masks", time_masks);
      f("time_width", time_width);
      f("frequency_masks", frequency_masks);
      f("frequency_width", frequency_width);
    }
  };
  static void apply(Options const& options, Random& random, Matrix<float> features) {
    const int bands = features.columns / Stack;
    for (int i = 0; i < options.frequency_masks; ++i) {
      const int width = span(random, std::min(options.frequency_width, bands));
      const int first = static_cast<int>(random.below(static_cast<std::uint32_t>(bands - width + 1)));
      for (int t = 0; t < features.rows; ++t)
        for (int s = 0; s < Stack; ++s) std::fill_n(features.row(t) + s * bands + first, width, 0.f);
    }
    for (int i = 0; i < options.time_masks; ++i) {
      const int width = span(random, std::min(options.time_width, features.rows / 5));
      const int first = static_cast<int>(random.below(static_cast<std::uint32_t>(features.rows - width + 1)));
      for (int t = first; t < first + width; ++t) std::fill_n(features.row(t), features.columns, 0.f);
    }
  }

 private:
  static int span(Random& random, int widest) {
    return static_cast<int>(random.below(static_cast<std::uint32_t>(std::max(widest, 0) + 1)));
  }
};

}  // namespace sotto::augment::inline SOTTO_ABI
