// A batch: whole crops packed into lanes, without padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <sotto/core/order.hpp>
#include <sotto/core/views.hpp>

namespace sotto::inline SOTTO_ABI {

/// One lane's rows on the host, and what is known of them before any forward.
struct PackedLane {
  std::vector<int> offsets;             ///< [sequences + 1]
  std::vector<int> utterances, starts;  ///< [sequences]
  std::vector<int> masked, unmasked;    ///< rows, ascending
  std::vector<int> targets;             ///< [rows] labels of the masked rows, then of the unmasked ones
  std::vector<float> features;          ///< [rows, features]; or, where the backend computes them:
  std::vector<float> samples;           ///< of all sequences
  std::vector<int> sample_offsets;      ///< [sequences + 1]

  int rows() const { return offsets.back(); }
  int sequences() const { return static_cast<int>(offsets.size()) - 1; }
  int longest() const {
    int longest = 0;
    for (std::size_t i = 1; i < offsets.size(); ++i) longest = std::max(longest, offsets[i] - offsets[i - 1]);
    return longest;
  }
  Lane<int> view() const {
    return {offsets.data(),
            utterances.data(),
            starts.data(),
            sequences(),
            rows(),
            longest(),
            masked.data(),
            unmasked.data(),
            static_cast<int>(masked.size()),
            static_cast<int>(unmasked.size()),
            targets.data()};
  }
  SOTTO_COLD void clear() {
    offsets.clear();
    offsets.push_back(0);
    utterances.clear();
    starts.clear();
    masked.clear();
    unmasked.clear();
    targets.clear();
    samples.clear();
    sample_offsets.clear();
    sample_offsets.push_back(0);
  }
  /// Room for the most that a lane can get, so that filling it again allocates nothing.
  SOTTO_COLD void reserve(int rows, int width) {
    const auto n = static_cast<std::size_t>(rows);
    offsets.reserve(n + 1);
    for (auto* part : {&utterances, &starts, &masked, &unmasked, &targets}) part->reserve(n);
    if (features.size() < n * static_cast<std::size_t>(width)) features.resize(n * static_cast<std::size_t>(width));
  }
};

/// What one optimiser step sees. Its buffers are kept from batch to batch.
struct Batch {
  std::uint64_t position = 0,
                next = 0;    ///< in the endless sequence of utterances: where it begins, and the next one
  std::uint32_t cursor = 0;  ///< the step it is for
  std::int64_t rows = 0, masked = 0;
  double audio_seconds = 0;
  std::vector<PackedLane> lanes;  ///< those after the last used one are empty
};

/// How crops are dealt to lanes: longest first, each to the lane with the fewest rows so far.
/// `lengths` are rows; result: the lane of each crop. Lanes: a multiple of `slots`, enough for
/// `lane_rows` rows each.
class LanePacking {
 public:
  LanePacking(int lane_rows, int slots) : lane_rows_(lane_rows), slots_(slots) {}

  int lanes(std::int64_t rows, std::size_t crops) const {
    const std::int64_t round = static_cast<std::int64_t>(lane_rows_) * slots_;
    const std::int64_t n = (rows + round - 1) / round * slots_;
    return static_cast<int>(std::min<std::int64_t>(n, static_cast<std::int64_t>(crops)));
  }
  /// order[i]: the crop numbered i, longest first; lane_of[crop].
  SOTTO_COLD void deal(std::span<int const> lengths, std::vector<int>& order, std::vector<int>& lane_of) {
    order.resize(lengths.size());
    std::iota(order.begin(), order.end(), 0);
    sort_indices(order, [&](int a, int b) {
      const int x = lengths[static_cast<std::size_t>(a)], y = lengths[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    filled_.assign(static_cast<std::size_t>(lanes(rows, lengths.size())), 0);
    lane_of.resize(lengths.size());
    for (const int crop : order) {
      const auto least = std::min_element(filled_.begin(), filled_.end());
      lane_of[static_cast<std::size_t>(crop)] = static_cast<int>(least - filled_.begin());
      *least += lengths[static_cast<std::size_t>(crop)];
    }
  }
  /// Most rows that a lane can get from a batch of at most `rows` rows with crops of at most
  /// `longest`.
  int most_rows(int rows, int longest) const {
    return std::min(std::max(rows, longest), std::min(rows, lane_rows_) + longest);
  }

 private:
  int lane_rows_, slots_;
  std::vector<std::int64_t> filled_;
};

}  // namespace sotto::inline SOTTO_ABI
