// What is random inside a training step.
#pragma once

#include <cstdint>

#include <sotto/core/philox.hpp>

namespace sotto::inline SOTTO_API {

/// Regularisation of an encoder while it trains. The paper's values are .1 and .05; a budget that never sees an
/// utterance twice gains nothing from either, so both are off unless asked for.
struct EncoderOptions {
  float dropout = 0;     ///< probability, on the encoder's input and on every residual branch
  float layer_drop = 0;  ///< probability that a training step skips a layer, whole
};

/// The noise of one step: a function of (seed, cursor), keyed further by site, utterance, frame and channel.
struct Noise {
  Philox key{0, Purpose::dropout};
  std::uint32_t cursor = 0;
  float dropout = 0;          ///< 0: none
  bool layer_drop = false;    ///< whether a step may skip layers
  std::uint64_t skipped = 0;  ///< bit l: layer l is skipped in this step

  SOTTO_HOST_DEVICE constexpr bool skips(int layer) const { return layer < 64 && ((skipped >> layer) & 1) != 0; }

  /// None: evaluation.
  static constexpr Noise off() { return {}; }
  SOTTO_ALWAYS_INLINE static Noise of(EncoderOptions const& options, int depth, std::uint64_t seed,
                                      std::uint32_t cursor) {
    Noise noise{Philox(seed, Purpose::dropout), cursor, options.dropout, options.layer_drop > 0, 0};
    if (options.layer_drop > 0) {
      Random random(seed, Purpose::layer_drop, cursor);
      for (int layer = 0; layer < depth && layer < 64; ++layer)
        if (random.uniform() < static_cast<double>(options.layer_drop)) noise.skipped |= std::uint64_t{1} << layer;
    }
    return noise;
  }
};

}  // namespace sotto::inline SOTTO_API
