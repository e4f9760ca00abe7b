// The least a program needs to pretrain an encoder of its own, in memory, without files.
#include <cstdio>

#include <sotto/probe/encoder_features.hpp>
#include <sotto/sotto.hpp>

struct Mine : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 64, .depth = 2, .heads = 2, .feed_forward = 128};
  using Norm = sotto::norm::Pre;
  using Position = sotto::position::Convolution<16, 31>;
  using Objective = sotto::objective::Hubert<20>;
};
static_assert(sotto::parameter_count<Mine> < 200'000);

int main() try {
  const sotto::SyntheticSpeech speech({.speakers = 8, .utterances = 80});
  sotto::Pretrainer<Mine> trainer(
      speech, {.budget = sotto::updates(60), .seed = 1, .threads = 2, .slots = 2, .batch = {.rows = 600}});
  double loss = 0;
  while (const auto step = trainer.step()) loss = step->loss;

  std::vector<float> samples(16000);
  speech.read(0, 0, samples);
  const auto encoder = sotto::probe::EncoderFeatures<Mine>::of(trainer.engine().values());
  std::vector<std::vector<float>> hidden;  // of each layer, [frames, width]
  encoder.extract(samples, hidden);

  std::printf("final loss %.4f; one second became %zu frames of %d numbers in each of %d layers\n", loss,
              hidden[0].size() / Mine::shape.width, Mine::shape.width, encoder.layers());
} catch (sotto::Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
