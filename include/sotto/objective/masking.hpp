// Which frames an objective hides: spans, drawn as fairseq's compute_mask_indices draws them (commit 3d262bb,
// data_utils: mask_type static, overlaps allowed, one rounding an utterance).
#pragma once

#include <algorithm>
#include <vector>

#include <sotto/core/philox.hpp>

namespace sotto::inline SOTTO_ABI {

/// How much of an utterance is hidden. HuBERT: .8 and 10 (57 % of the frames); wav2vec 2.0: .65 and 10 (49 %).
struct MaskOptions {
  float probability = .8f;  ///< expected starts times length, as a part of the frames; spans overlap
  int length = 10;          ///< frames of a span
  int minimum = 2;          ///< spans an utterance at least

  friend bool operator==(MaskOptions const&, MaskOptions const&) = default;
};

/// The part of a long utterance that is hidden: 1 - (1 - p / L)^L, since spans overlap.
constexpr double expected_masked(MaskOptions const& options) {
  double whole = 1;
  for (int i = 0; i < options.length; ++i) whole *= 1 - static_cast<double>(options.probability) / options.length;
  return 1 - whole;
}

/// Draws the masks of utterances; keeps its buffers.
class SpanMasker {
 public:
  /// Appends the masked rows of an utterance, ascending, each plus `first_row`. An utterance too short to hold a span
  /// beside an unmasked frame (under 2 frames) is left whole.
  SOTTO_COLD void draw(MaskOptions const& options, int frames, Random random, int first_row, std::vector<int>& masked) {
    if (frames < 2) return;
    int spans = static_cast<int>(options.probability * static_cast<float>(frames) / static_cast<float>(options.length) +
                                 static_cast<float>(random.uniform()));
    spans = std::max(spans, options.minimum);
    // distinct starts from [0, frames - length); where there are too few, spans get shorter, as in fairseq
    int length = std::min(options.length, frames - 1);
    if (frames - length <= spans) length = frames - spans - 1;
    if (length < 1) {
      length = 1;
      spans = frames - 1;
    }
    const int starts = frames - length;
    spans = std::min(spans, starts);
    hidden_.clear();
    hidden_.resize(static_cast<std::size_t>(frames));
    order_.resize(static_cast<std::size_t>(starts));
    for (int i = 0; i < starts; ++i) order_[static_cast<std::size_t>(i)] = i;
    for (int i = 0; i < spans; ++i) {  // the head of a Fisher-Yates shuffle
      const auto j = static_cast<std::size_t>(i) + random.below(static_cast<std::uint32_t>(starts - i));
      std::swap(order_[static_cast<std::size_t>(i)], order_[j]);
      std::fill_n(hidden_.begin() + order_[static_cast<std::size_t>(i)], length, 1);
    }
    for (int t = 0; t < frames; ++t)
      if (hidden_[static_cast<std::size_t>(t)] != 0) masked.push_back(first_row + t);
  }

 private:
  std::vector<int> hidden_, order_;
};

}  // namespace sotto::inline SOTTO_ABI
