#include <sotto/probe/encoder_features.hpp>

#include <doctest/doctest.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <vector>

#include <sotto/data/synthetic.hpp>
#include <sotto/train/pretrainer.hpp>

using namespace sotto;

namespace {

struct Small : Spec {
  static constexpr EncoderShape shape{.width = 32, .depth = 2, .heads = 2, .feed_forward = 64};
  using Norm = norm::Pre;
  using Position = position::Convolution<4, 9>;
  using Objective = objective::Hubert<10>;
};
struct Wider : Small {
  static constexpr EncoderShape shape{.width = 48, .depth = 2, .heads = 2, .feed_forward = 64};
};
using Features = probe::EncoderFeatures<Small>;
using Layers = std::vector<std::vector<float>>;

std::vector<float> speech(double seconds) {
  const SyntheticSpeech synthetic({.speakers = 1, .utterances = 1, .shortest = 3, .longest = 3});
  std::vector<float> once(static_cast<std::size_t>(synthetic.samples(0)));
  synthetic.read(0, 0, once);
  std::vector<float> samples(static_cast<std::size_t>(seconds * 16000));
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = once[i % once.size()];
  return samples;
}
Layers layers_of(probe::FeatureExtractor const& extractor, std::vector<float> const& samples) {
  Layers layers;
  extractor.extract(samples, layers);
  return layers;
}

}  // namespace

TEST_CASE("features are every hidden state, a row each 20 ms") {
  const auto features = Features::untrained(1);
  REQUIRE(features.layers() == 3);
  CHECK(features.width(2) == 32);
  const Layers layers = layers_of(features, speech(1));
  REQUIRE(layers.size() == 3);
  for (auto const& layer : layers) {
    CHECK(layer.size() == static_cast<std::size_t>(Small::Frontend::frames(16000)) * 32);
    for (const float x : layer) CHECK_MESSAGE(std::isfinite(x), "a feature is not finite");
  }
  CHECK(layers[0] != layers[1]);
  // a pre-norm encoder ends with a norm: rows of mean 0 and deviation 1, before training
  double sum = 0, square = 0;
  for (std::size_t j = 0; j < 32; ++j) {
    sum += layers[2][j];
    square += layers[2][j] * layers[2][j];
  }
  CHECK(sum == doctest::Approx(0).epsilon(1e-3));
  CHECK(square / 32 == doctest::Approx(1).epsilon(1e-2));
}

TEST_CASE("an utterance too short for a frame has no features") {
  for (auto const& layer : layers_of(Features::untrained(1), std::vector<float>(100, .1f))) CHECK(layer.empty());
}

TEST_CASE("the seed decides what an untrained encoder says, and a clone says the same") {
  const auto samples = speech(.7);
  const auto one = Features::untrained(1), two = Features::untrained(2);
  const Layers said = layers_of(one, samples);
  CHECK(layers_of(*one.clone(), samples) == said);
  CHECK(layers_of(Features::untrained(1), samples) == said);
  CHECK(layers_of(two, samples) != said);
}

TEST_CASE("an extractor that has seen other utterances says what a fresh one says") {
  const auto used = Features::untrained(1);
  layers_of(used, speech(3));
  CHECK(layers_of(used, speech(.7)) == layers_of(Features::untrained(1), speech(.7)));
}

TEST_CASE("long utterances are encoded whole up to 30 s and in equal pieces beyond") {
  const auto features = Features::untrained(1);
  const Layers layers = layers_of(features, speech(65));
  const auto frames = static_cast<std::size_t>(Small::Frontend::frames(65 * 16000));
  for (auto const& layer : layers) {
    REQUIRE(layer.size() == frames * 32);
    for (std::size_t t = 0; t < frames; ++t) {  // every row was written
      bool silent = true;
      for (std::size_t j = 0; j < 32; ++j) silent = silent && layer[t * 32 + j] == 0;
      CHECK_FALSE_MESSAGE(silent, "row " << t << " is empty");
    }
  }
}

TEST_CASE("a checkpoint gives the features of the trainer that wrote it, and only its own model opens it") {
  const auto directory = std::filesystem::temp_directory_path() / ("sotto-features-" + std::to_string(getpid()));
  const SyntheticSpeech synthetic({.speakers = 4, .utterances = 12});
  Pretrainer<Small> trainer(
      synthetic, {.budget = updates(3), .threads = 1, .batch = {.rows = 200}, .checkpoint = {.directory = directory}});
  trainer.run();
  const auto samples = speech(1);
  const auto checkpoint = Checkpoint::open(directory);
  const Layers said = layers_of(Features::pretrained(checkpoint), samples);
  CHECK(said == layers_of(Features::of(trainer.engine().values()), samples));
  CHECK(said != layers_of(Features::untrained(1), samples));
  CHECK_THROWS_AS(probe::EncoderFeatures<Wider>::pretrained(checkpoint), SpecMismatch);
  std::filesystem::remove_all(directory);
}
