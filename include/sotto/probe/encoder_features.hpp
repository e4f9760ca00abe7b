// An encoder's hidden states as features for a probe: pretrained, or as it was before training.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/config.hpp>
#include <sotto/core/arena.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/encoder/describe.hpp>
#include <sotto/encoder/spec.hpp>
#include <sotto/probe/features.hpp>
#include <sotto/train/checkpoint.hpp>
#include <sotto/train/network.hpp>

namespace sotto::probe::inline SOTTO_ABI {

/// Every hidden state of an encoder, on clean input: layer 0 is the input of the first block, layer
/// depth the encoder's output (what Hugging Face calls hidden_states). Utterances of more than 30 s go
/// through the encoder in pieces of equal length.
template <class Model, class B = Cpu<float>> class EncoderFeatures final : public FeatureExtractor {
 public:
  /// The parameters of a checkpoint. Throws SpecMismatch if it is of another model.
  static EncoderFeatures pretrained(Checkpoint const& checkpoint) {
    checkpoint.expect(spec_fields<Model>());
    auto state = std::make_shared<State>();
    checkpoint.read(table(), state->values.template as<float>());
    return EncoderFeatures(std::move(state));
  }
  /// The parameters that training with this seed begins with.
  static EncoderFeatures untrained(std::uint64_t seed) {
    auto state = std::make_shared<State>();
    initialise(table(), state->values.template as<float>(), seed);
    return EncoderFeatures(std::move(state));
  }
  /// The parameters of a trainer now: values [numbers of parameter_table<Model>].
  static EncoderFeatures of(std::span<float const> values) {
    auto state = std::make_shared<State>();
    std::copy(values.begin(), values.end(), state->values.template as<float>());
    return EncoderFeatures(std::move(state));
  }

  int layers() const override { return Layer::depth + 1; }
  int width(int) const override { return Layer::width; }
  std::string layer_name(int layer) const override { return "layer " + std::to_string(layer); }

  void extract(std::span<float const> samples, std::vector<std::vector<float>>& layers) const override {
    const int frames = Frontend::frames(static_cast<std::int64_t>(samples.size()));
    layers.resize(static_cast<std::size_t>(this->layers()));
    for (auto& layer : layers) layer.resize(static_cast<std::size_t>(frames) * Layer::width);
    if (frames == 0) return;
    features_.resize(static_cast<std::size_t>(frames) * Frontend::features);
    extractor_.compute(samples.first(static_cast<std::size_t>(Frontend::samples_for(frames))),
                       {features_.data(), frames, Frontend::features, Frontend::features});
    const int pieces = (frames + longest - 1) / longest;
    for (int piece = 0; piece < pieces; ++piece) {
      const int first = static_cast<int>(std::int64_t{frames} * piece / pieces);
      encode(first, static_cast<int>(std::int64_t{frames} * (piece + 1) / pieces) - first, layers);
    }
  }

  std::unique_ptr<FeatureExtractor> clone() const override {
    return std::unique_ptr<FeatureExtractor>(new EncoderFeatures(state_));
  }

 private:
  using Net = Network<Model, B>;
  using Layer = typename Net::EncoderLayer;
  using Frontend = typename Model::Frontend;
  static_assert(std::is_same_v<typename B::Master, float> && std::is_same_v<typename B::Element, float>,
                "sotto: encoder features are computed on a backend of floats");
  static constexpr int longest = 1500;

  // What extractors share, and none changes: master values, and the copy that products read.
  struct State {
    Buffer values{count(parameter_table<Model>) * sizeof(float)};
    Buffer prepared{Net::weight_bytes()};
    typename Net::Weights weights{};
  };

  static std::span<ParameterEntry const> table() { return parameter_table<Model>; }

  explicit EncoderFeatures(std::shared_ptr<State> state) {
    Arena arena(state->prepared.begin());
    state->weights = Net::carve_weights(arena);
    const auto master = Net::template carve_parameters<float const>(state->values.template as<float const>());
    for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(backend_, master, state->weights, part);
    extractor_.configure(master.frontend);
    state_ = std::move(state);
  }
  explicit EncoderFeatures(std::shared_ptr<State const> state) : state_(std::move(state)) {
    extractor_.configure(
        Net::template carve_parameters<float const>(state_->values.template as<float const>()).frontend);
  }

  // Rows [first, first + rows) of features_, as one sequence, into the same rows of layers.
  void encode(int first, int rows, std::vector<std::vector<float>>& layers) const {
    Arena measure;
    static_cast<void>(Layer::carve(measure, rows, rows));
    if (arena_.size() < measure.used()) arena_ = Buffer(measure.used());
    Arena arena(arena_.begin());
    auto activations = Layer::carve(arena, rows, rows);
    const int offsets[2] = {0, rows}, utterance = 0;
    const Lane<int> lane{offsets, &utterance, &first, 1, rows, rows, nullptr, nullptr, 0, 0, nullptr};
    const std::size_t at = static_cast<std::size_t>(first);
    Net::encode(backend_, state_->weights, lane, {features_.data() + at * Frontend::features, rows}, activations);
    for (int i = 0; i <= Layer::depth; ++i) {
      const auto hidden = Layer::hidden(i, activations);
      std::copy_n(hidden.begin, static_cast<std::size_t>(rows) * Layer::width,
                  layers[static_cast<std::size_t>(i)].begin() + static_cast<std::ptrdiff_t>(at * Layer::width));
    }
  }

  std::shared_ptr<State const> state_;
  mutable B backend_{};
  mutable typename Frontend::Extractor extractor_{};
  mutable std::vector<float> features_;
  mutable Buffer arena_;
};

}  // namespace sotto::probe::inline SOTTO_ABI
