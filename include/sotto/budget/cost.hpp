// What training costs, in model FLOPs: 2 per multiply-add of the products that the mathematics needs on real rows.
// Forward, weight gradient, and input gradient where something trains below; no recomputation; a skipped layer is not
// billed. The Reference backend, which counts as it multiplies, must agree exactly.
#pragma once

#include <chrono>
#include <cstdint>

#include <sotto/budget/units.hpp>
#include <sotto/encoder/spec.hpp>

namespace sotto::inline SOTTO_ABI {

/// The waveform stack of wav2vec 2.0 and HuBERT: 512 channels, kernels 10 3 3 3 3 2 2, strides 5 2 2 2 2 2 2.
struct WaveformStack {
  static constexpr int channels = 512, layers = 7;
  static constexpr int kernels[layers] = {10, 3, 3, 3, 3, 2, 2};
  static constexpr int strides[layers] = {5, 2, 2, 2, 2, 2, 2};

  static constexpr int frames(std::int64_t samples) {
    for (int i = 0; i < layers; ++i) samples = (samples - kernels[i]) / strides[i] + 1;
    return static_cast<int>(samples);
  }
  /// Multiply-adds of one forward pass.
  static constexpr std::uint64_t multiply_adds(std::int64_t samples) {
    std::uint64_t total = 0, inputs = 1;
    for (int i = 0; i < layers; ++i) {
      samples = (samples - kernels[i]) / strides[i] + 1;
      total += static_cast<std::uint64_t>(samples) * channels * inputs * static_cast<std::uint64_t>(kernels[i]);
      inputs = channels;
    }
    return total;
  }
};

/// Pairs of (query, key) inside a span, in a sequence of `length`.
constexpr std::uint64_t attention_pairs(attention::Span span, int length) {
  const auto triangle = [](std::int64_t n) { return n > 0 ? n * (n + 1) / 2 : 0; };
  const std::int64_t n = length;
  return static_cast<std::uint64_t>(n * n - triangle(n - 1 - span.before) - triangle(n - 1 - span.after));
}

/// Prices of a spec, by sequence.
template <class Model> struct Cost {
  using Configuration = typename EncoderOf<Model>::BlockConfig;
  using Objective = typename Model::Objective;
  static constexpr std::uint64_t width = Model::shape.width;
  static constexpr std::uint64_t feed_forward = Model::shape.resolved().feed_forward;

  static constexpr std::uint64_t projection_row = width * Model::Frontend::features;
  static constexpr std::uint64_t position_row =
      PositionLayer<typename Model::Position, Model::shape.width>::multiply_adds_per_frame();
  /// Products of one layer that are linear in its rows.
  static constexpr std::uint64_t layer_row =
      4 * width * width + 2 * width * feed_forward + static_cast<std::uint64_t>(Configuration::gates) * width;
  /// Scores and weighted values.
  static constexpr std::uint64_t layer_pair = 2 * width;

  /// Encoder and front-end, forward only, of one sequence.
  static constexpr Flops encode(int frames) {
    const auto t = static_cast<std::uint64_t>(frames);
    return {Model::Frontend::flops(frames) +
            2 * (t * (projection_row + position_row) +
                 static_cast<std::uint64_t>(Model::shape.depth) *
                     (t * layer_row + attention_pairs(Model::Attention::span, frames) * layer_pair))};
  }
  /// Front-end and encoder of one sequence, forward and backward; `layers` of them ran.
  static constexpr Flops train(int frames, int layers = Model::shape.depth) {
    const auto t = static_cast<std::uint64_t>(frames);
    return {Model::Frontend::flops(frames) +
            2 * (t * (2 * projection_row + 3 * position_row) +
                 static_cast<std::uint64_t>(layers) *
                     (3 * t * layer_row + 3 * attention_pairs(Model::Attention::span, frames) * layer_pair))};
  }
  /// The objective's heads of a batch, forward and backward.
  static constexpr Flops head(std::int64_t masked, std::int64_t unmasked, typename Objective::Options const& options) {
    return {2 * Objective::template Head<Model, Pricing>::training_multiply_adds(masked, unmasked, options)};
  }

  struct Pricing {  ///< enough of a backend to name a Head
    using Element = float;
    using Master = float;
    using Index = int;
    using Sum = double;
    using Count = std::int64_t;
    struct Prepared {};
    struct PreparedConvolution {};
  };
};

/// What training_cost assumes of the corpus.
struct CostOptions {
  std::chrono::milliseconds crop{15600};  ///< every utterance is at least this long
};

/// Expected cost of training on `length` of audio, in crops of options.crop: a constant expression.
template <class Model, class Rep, class Period>
constexpr Flops training_cost(std::chrono::duration<Rep, Period> length, CostOptions options = {},
                              typename detail::sound<Model>::Objective::Options objective = {}) {
  [[maybe_unused]] detail::Door<Model, detail::broken_rule<Model>()> door{};
  using Sound = detail::sound<Model>;
  const double crop = std::chrono::duration<double>(options.crop).count();
  const double crops = std::chrono::duration<double>(length).count() / crop;
  const int frames = Sound::Frontend::frames(static_cast<std::int64_t>(crop * 16000));
  const double masked = expected_masked(objective.mask) * frames;
  const Flops each = Cost<Sound>::train(frames);
  const Flops heads = Cost<Sound>::head(static_cast<std::int64_t>(1000 * masked),
                                        static_cast<std::int64_t>(1000 * (frames - masked)), objective);
  return {
      static_cast<std::uint64_t>(crops * (static_cast<double>(each.count) + static_cast<double>(heads.count) / 1000))};
}

/// The paper's convention (arXiv 2409.16295, its constant-FLOP sweep): 6 x the forward multiply-adds of the waveform
/// stack, the projection unless the width is 512, a positional convolution of 128 taps in 16 groups, the layers'
/// products and 2 T^2 d of attention; no heads.
constexpr Flops paper_cost(EncoderShape shape, std::int64_t samples) {
  const EncoderShape s = shape.resolved();
  const auto t = static_cast<std::uint64_t>(WaveformStack::frames(samples));
  const auto width = static_cast<std::uint64_t>(s.width), hidden = static_cast<std::uint64_t>(s.feed_forward);
  std::uint64_t macs = WaveformStack::multiply_adds(samples);
  if (s.width != WaveformStack::channels) macs += t * WaveformStack::channels * width;
  macs += t * width * width / 16 * 128;
  macs += static_cast<std::uint64_t>(s.depth) * (t * (4 * width * width + 2 * width * hidden) + 2 * t * t * width);
  return {6 * macs};
}

}  // namespace sotto::inline SOTTO_ABI
