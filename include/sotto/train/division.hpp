// Which utterances are trained on, and which are held out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/data/sampler.hpp>
#include <sotto/data/source.hpp>
#include <sotto/train/options.hpp>

namespace sotto::inline SOTTO_ABI {

/// The utterances of a source, divided by speaker: those of the `val` split and a keyed part of the others are held
/// out; where no speaker is known, that part of the utterances is.
struct Division {
  std::vector<std::uint32_t> train, held_out;
  std::vector<Crop> evaluated;  ///< fixed crops of held-out speech, at most options.rows frames

  /// frames(i): frames of utterance i; crop: most frames of one crop.
  SOTTO_COLD static Division of(AnySource const& source, HeldOutOptions const& options, bool exclude_test,
                                std::uint64_t seed, int crop, FunctionRef<int(std::size_t)> frames) {
    Division division;
    const auto drawn = [&](std::uint32_t cursor, std::uint64_t item) {
      return Random(seed, Purpose::held_out, cursor, item).uniform() < options.speakers;
    };
    for (std::size_t i = 0; i < source.size(); ++i) {
      const auto utterance = static_cast<std::uint32_t>(i);
      if (frames(i) < 2) continue;
      const std::string_view split = source.split(i), speaker = source.speaker(i);
      bool out = split == "val";
      if (!out && speaker.empty()) {
        out = drawn(0, i);
      } else if (!out) {
        Fingerprint hash;  // a function of the name, so that more data move nobody
        hash.add(speaker);
        out = drawn(1, hash.value());
      }
      if (out)
        division.held_out.push_back(utterance);
      else if (!(exclude_test && split == "test"))
        division.train.push_back(utterance);
    }
    if (division.train.empty())
      throw_error(ErrorCode::data, {"no utterance is left to train on: all ", source.size(),
                                    " are held out or too short; add speakers, or lower held_out.speakers"});
    // a sole speaker, or a few: hold out utterances instead, so that there is something to watch
    if (division.held_out.empty() && options.speakers > 0 && division.train.size() > 1) {
      const auto n = std::max<std::size_t>(
          1, static_cast<std::size_t>(options.speakers * static_cast<double>(division.train.size())));
      const Permutation order(division.train.size(), seed, Purpose::held_out);
      std::vector<int> out(division.train.size());
      for (std::size_t i = 0; i < n; ++i) out[order(i)] = 1;
      std::vector<std::uint32_t> train;
      for (std::size_t i = 0; i < division.train.size(); ++i)
        (out[i] != 0 ? division.held_out : train).push_back(division.train[i]);
      division.train = std::move(train);
    }
    if (!division.held_out.empty()) {
      const Permutation order(division.held_out.size(), seed, Purpose::held_out, 2);
      int rows = 0;
      for (std::uint64_t i = 0; i < order.size() && rows < options.rows; ++i) {
        const std::uint32_t utterance = division.held_out[order(i)];
        const int length = std::min(frames(utterance), crop);
        if (rows > 0 && rows + length > options.rows) continue;
        division.evaluated.push_back({utterance, 0, length, 0});
        rows += length;
      }
    }
    return division;
  }
};

}  // namespace sotto::inline SOTTO_ABI
