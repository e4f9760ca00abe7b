// Which numbers dropout keeps: the definition that every backend shares.
#pragma once

#include <cstdint>

#include <sotto/config.hpp>
#include <sotto/core/philox.hpp>

namespace sotto::inline SOTTO_API {

/// Dropout keeps a number iff its 32 random bits are at least this: p * 2^32. 0 <= p < 1.
SOTTO_HOST_DEVICE constexpr std::uint32_t dropout_threshold(float p) {
  return static_cast<std::uint32_t>(static_cast<double>(p) * 4294967296.0);
}

/// What kept numbers are multiplied by, so that their expectation is unchanged: 1 / (1 - p).
SOTTO_HOST_DEVICE constexpr float dropout_scale(float p) { return 1.0f / (1.0f - p); }

/// The first word of the Philox counter: the dropout site (a place in the network, < 2^20) above
/// the index of the block of four channels (< 2^12, so a row has at most 16384 channels).
SOTTO_HOST_DEVICE constexpr std::uint32_t dropout_counter(std::uint32_t site, std::uint32_t block) {
  return site << 12 | block;
}

/// Whether dropout keeps channel `channel` of frame `frame` of utterance `utterance` at `site` in
/// step `cursor`; key is Philox(seed, Purpose::dropout). The mask belongs to the frame of the
/// utterance, not to the row it is packed in, so it does not depend on how a batch is cut into
/// lanes. Counter: (site and channel / 4, frame, utterance, cursor).
SOTTO_HOST_DEVICE constexpr bool dropout_kept(Philox const& key, std::uint32_t cursor, std::uint32_t site,
                                              std::uint32_t utterance, std::uint32_t frame, std::uint32_t channel,
                                              float p) {
  const auto block = key(dropout_counter(site, channel / 4), frame, utterance, cursor);
  return block.word[channel % 4] >= dropout_threshold(p);
}

}  // namespace sotto::inline SOTTO_API
