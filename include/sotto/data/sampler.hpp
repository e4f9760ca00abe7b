// Which crops make a batch: a pure function of a seed and a position, so that a run resumes
// anywhere.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/philox.hpp>

namespace sotto::inline SOTTO_ABI {

struct SamplerOptions {
  int rows = 8000;  ///< frames of a batch: utterances are taken until the next would exceed it
  int crop = 780;   ///< frames of the longest crop (15.6 s at 50 Hz)
  int minimum = 2;  ///< utterances of fewer frames are never drawn
  int hop = 320;    ///< samples from one frame to the next: crops begin at multiples of it
};

/// Part of an utterance: `frames` frames from frame `first_frame` on, whose first sample is
/// `first_sample`.
struct Crop {
  std::uint32_t utterance;
  std::int64_t first_sample;
  int frames;
  int first_frame;
  friend bool operator==(Crop const&, Crop const&) = default;
};

/// Draws batches of crops. Positions count utterances since the run began: position p is utterance
/// Permutation(n, seed, Purpose::epoch, p / n)(p mod n), so that each epoch takes every utterance
/// once, in another order, and a batch may span two epochs. An utterance longer than the crop is
/// cut at a random frame, keyed by (seed, epoch, utterance): the cut does not depend on the batch
/// it falls in.
class Sampler {
 public:
  struct Plan {
    std::vector<Crop> crops;
    std::uint64_t next = 0;  ///< position of the batch after this one
    int rows = 0;            ///< frames of all crops
  };

  /// utterances: indices into the source of those to train on; frames: [utterances.size()] the
  /// frames of each. Throws Error(usage) for options that cannot be and Error(data) if no utterance
  /// is long enough.
  SOTTO_COLD Sampler(std::vector<std::uint32_t> const& utterances, std::span<std::int32_t const> frames,
                     SamplerOptions options, std::uint64_t seed)
      : options_(options), seed_(seed) {
    if (frames.size() != utterances.size())
      throw_error(ErrorCode::internal,
                  {"the sampler was given ", utterances.size(), " utterances and the frames of ", frames.size()});
    if (options_.minimum < 1 || options_.hop < 1 || options_.crop < options_.minimum)
      throw_error(ErrorCode::usage,
                  {"a crop of ", options_.crop, " frames of ", options_.hop, " samples is shorter than the minimum of ",
                   options_.minimum, "; ask for a longer crop"});
    if (options_.rows < options_.crop)
      throw_error(ErrorCode::usage, {"a batch of ", options_.rows, " rows cannot hold a crop of ", options_.crop,
                                     " frames; raise the rows or shorten the crop"});
    for (std::size_t i = 0; i < frames.size(); ++i)
      if (frames[i] >= options_.minimum) {
        utterances_.push_back(utterances[i]);
        frames_.push_back(frames[i]);
      }
    if (utterances_.empty())
      throw_error(ErrorCode::data, {"none of the ", frames.size(), " utterances to train on has ", options_.minimum,
                                    " frames or more; add longer speech"});
  }

  /// Utterances of an epoch.
  std::uint64_t size() const { return utterances_.size(); }
  SamplerOptions const& options() const { return options_; }

  /// The batch at `position`: at least one crop, at most options().rows frames. Allocates only
  /// while out's vector still grows. Safe to call from several threads.
  SOTTO_COLD void plan(std::uint64_t position, Plan& out) const {
    out.crops.clear();
    out.rows = 0;
    std::uint64_t epoch = position / size();
    Permutation order = permutation(epoch);
    for (;; ++position) {
      if (position / size() != epoch) {
        epoch = position / size();
        order = permutation(epoch);
      }
      auto const i = static_cast<std::size_t>(order(position % size()));
      int const frames = std::min(frames_[i], options_.crop);
      if (out.rows + frames > options_.rows) break;
      int first = 0;
      if (frames_[i] > frames)
        first = static_cast<int>(Random(seed_, Purpose::crop, static_cast<std::uint32_t>(epoch), utterances_[i])
                                     .below(static_cast<std::uint32_t>(frames_[i] - frames + 1)));
      out.crops.push_back({utterances_[i], static_cast<std::int64_t>(first) * options_.hop, frames, first});
      out.rows += frames;
    }
    out.next = position;
  }

 private:
  Permutation permutation(std::uint64_t epoch) const {
    return Permutation(size(), seed_, Purpose::epoch, static_cast<std::uint32_t>(epoch));
  }
  std::vector<std::uint32_t> utterances_;
  std::vector<std::int32_t> frames_;
  SamplerOptions options_;
  std::uint64_t seed_;
};

}  // namespace sotto::inline SOTTO_ABI
