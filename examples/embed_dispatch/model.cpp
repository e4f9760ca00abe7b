// Compiled once for each level of instruction sets, so that one program is fast on every machine.
#include "model.hpp"

#include <optional>
#include <sotto/dispatch.hpp>
#include <sotto/probe/encoder_features.hpp>
#include <sotto/sotto.hpp>

namespace {

struct Mine : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64, .depth = 2, .heads = 2, .feed_forward = 128};
  using Norm = sotto::norm::Pre;
  using Position = sotto::position::Convolution<16, 31>;
  using Objective = sotto::objective::Hubert<20>;
};

std::optional<sotto::probe::EncoderFeatures<Mine>> encoder;

}  // namespace

void pretrain(std::uint64_t updates, std::function<void(sotto::Step const&)> const& on_step) {
  sotto::Pretrainer<Mine> trainer(sotto::SyntheticSpeech({.speakers = 8, .utterances = 80}),
                                  {.budget = sotto::updates(updates),
                                   .seed = 1,
                                   .threads = 2,
                                   .slots = 2,
                                   .batch = {.rows = 600},
                                   .on_step = on_step});
  trainer.run();
  encoder.emplace(sotto::probe::EncoderFeatures<Mine>::of(trainer.engine().values()));
}

std::vector<float> encode(std::vector<float> const& samples) {
  if (!encoder) throw sotto::Error(sotto::ErrorCode::usage, "pretrain() comes before encode()");
  std::vector<std::vector<float>> layers;
  encoder->extract(samples, layers);
  return layers.back();
}

std::string_view level() { return sotto::compiled_level(); }
