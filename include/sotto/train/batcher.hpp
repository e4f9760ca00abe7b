// From a plan of crops to a batch: audio, features, augmentation, masks, labels, packed into lanes.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <sotto/data/batch.hpp>
#include <sotto/data/sampler.hpp>
#include <sotto/data/source.hpp>
#include <sotto/objective/masking.hpp>

namespace sotto::inline SOTTO_ABI {

/// Makes batches; a function of (seed, cursor, crops). One object a thread. Raw: lanes carry samples, and the backend
/// computes features of them.
template <class Frontend, class Augmentation, class Targets, bool Raw> class Batcher {
 public:
  Batcher(AnySource source, Targets const& targets, LanePacking packing, MaskOptions const& mask,
          typename Augmentation::Options const& augmentation, std::uint64_t seed)
      : source_(std::move(source)), targets_(targets), packing_(std::move(packing)), mask_(mask),
        augmentation_(augmentation), seed_(seed) {}

  /// The most rows of a lane and of a batch: buffers are made for them once.
  SOTTO_COLD void reserve(int lane_rows, int batch_rows) {
    lane_capacity_ = lane_rows;
    lengths_.reserve(static_cast<std::size_t>(batch_rows));
    order_.reserve(static_cast<std::size_t>(batch_rows));
    lane_of_.reserve(static_cast<std::size_t>(batch_rows));
    labels_.reserve(static_cast<std::size_t>(lane_rows));
  }
  /// Gives the front-end what it needs of the model's parameters; before the first batch.
  template <class P> void configure(P const& parameters) { extractor_.configure(parameters); }

  /// purpose: Purpose::mask while training, Purpose::held_out for fixed masks and no augmentation.
  SOTTO_COLD void make(std::span<Crop const> crops, std::uint32_t cursor, Purpose purpose, Batch& batch) {
    lengths_.clear();
    batch.rows = 0;
    batch.masked = 0;
    batch.cursor = cursor;
    for (Crop const& crop : crops) {
      lengths_.push_back(crop.frames);
      batch.rows += crop.frames;
    }
    batch.audio_seconds = static_cast<double>(batch.rows) * Frontend::hop / 16000;
    packing_.deal(lengths_, order_, lane_of_);
    const int lanes = packing_.lanes(batch.rows, crops.size());
    if (batch.lanes.size() < static_cast<std::size_t>(lanes)) {
      batch.lanes = std::vector<PackedLane>(static_cast<std::size_t>(lanes));
      for (auto& lane : batch.lanes) lane.reserve(lane_capacity_, Raw ? 0 : Frontend::features);
    }
    for (auto& lane : batch.lanes) lane.clear();
    for (const int index : order_) {
      Crop const& crop = crops[static_cast<std::size_t>(index)];
      append(crop, cursor, purpose, batch.lanes[static_cast<std::size_t>(lane_of_[static_cast<std::size_t>(index)])]);
    }
    for (auto& lane : batch.lanes) {
      complete(lane);
      batch.masked += static_cast<std::int64_t>(lane.masked.size());
    }
  }

 private:
  SOTTO_COLD void append(Crop const& crop, std::uint32_t cursor, Purpose purpose, PackedLane& lane) {
    const int first = lane.rows();
    const std::uint64_t item =
        static_cast<std::uint64_t>(crop.utterance) << 32 | static_cast<std::uint32_t>(crop.first_frame);
    lane.offsets.push_back(first + crop.frames);
    lane.utterances.push_back(static_cast<int>(crop.utterance));
    lane.starts.push_back(crop.first_frame);
    masker_.draw(mask_, crop.frames, Random(seed_, purpose, cursor, item), first, lane.masked);
    const auto n = static_cast<std::size_t>(Frontend::samples_for(crop.frames));
    if constexpr (Raw) {
      const std::size_t before = lane.samples.size();
      lane.samples.resize(before + n);
      source_.read_sound(crop.utterance, crop.first_sample, std::span(lane.samples).subspan(before));
      lane.sample_offsets.push_back(static_cast<int>(before + n));
      return;
    }
    samples_.resize(n);
    source_.read_sound(crop.utterance, crop.first_sample, samples_);
    const auto needed = static_cast<std::size_t>(first + crop.frames) * Frontend::features;
    if (lane.features.size() < needed) lane.features.resize(needed);
    const Matrix<float> features{lane.features.data() + static_cast<std::size_t>(first) * Frontend::features,
                                 crop.frames, Frontend::features, Frontend::features};
    extractor_.compute(samples_, features);
    if constexpr (!Augmentation::empty) {
      if (purpose == Purpose::mask) {
        Random random(seed_, Purpose::augment, cursor, item);
        Augmentation::apply(augmentation_, random, features);
      }
    }
  }
  /// The unmasked rows, and labels in the order that a head reads them.
  SOTTO_COLD void complete(PackedLane& lane) {
    std::size_t next = 0;
    for (int row = 0; row < lane.rows(); ++row) {
      if (next < lane.masked.size() && lane.masked[next] == row)
        ++next;
      else
        lane.unmasked.push_back(row);
    }
    if constexpr (Targets::classes > 0) {
      labels_.resize(static_cast<std::size_t>(lane.rows()));
      for (int i = 0; i < lane.sequences(); ++i) {
        const auto s = static_cast<std::size_t>(i);
        targets_.read(static_cast<std::size_t>(lane.utterances[s]), lane.starts[s],
                      lane.offsets[s + 1] - lane.offsets[s], labels_.data() + lane.offsets[s]);
      }
      for (const int row : lane.masked) lane.targets.push_back(labels_[static_cast<std::size_t>(row)]);
      for (const int row : lane.unmasked) lane.targets.push_back(labels_[static_cast<std::size_t>(row)]);
    }
  }

  AnySource source_;
  Targets const& targets_;
  LanePacking packing_;
  MaskOptions mask_;
  typename Augmentation::Options augmentation_;
  std::uint64_t seed_;
  typename Frontend::Extractor extractor_{};
  SpanMasker masker_;
  std::vector<int> lengths_, order_, lane_of_, labels_;
  std::vector<float> samples_;
  int lane_capacity_ = 0;
};

}  // namespace sotto::inline SOTTO_ABI
