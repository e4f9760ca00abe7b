#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <sotto/core/philox.hpp>
#include <sotto/probe/word.hpp>

namespace {

using namespace sotto;

// Utterances of 16 "samples" a frame that already are features: a word is a path through them, a
// speaker an offset, so that a probe on the frames in order tells words apart and one on the mean
// and deviation cannot.
struct Toy {
  struct Utterance {
    std::string label, speaker, split;
    int frames = 30;
    bool broken = false;
  };
  std::vector<Utterance> utterances;

  std::size_t size() const { return utterances.size(); }
  std::int64_t samples(std::size_t i) const { return utterances[i].frames * 16; }
  void read(std::size_t i, std::int64_t first, std::span<float> out) const {
    auto const& u = utterances[i];
    Random random(3, Purpose::user, 0, i);
    const int word = u.label.empty() ? 0 : u.label.back() - 'a';
    for (std::size_t n = 0; n < out.size(); ++n) {
      const auto sample = static_cast<int>(n) + static_cast<int>(first);
      const double time = static_cast<double>(sample / 16) / u.frames;
      const double turn = 6.2831853 * (time + word / 6.0);
      out[n] = static_cast<float>(std::sin(turn + sample % 16) + .3 * random.normal() +
                                  .1 * static_cast<double>(u.speaker.size()));
    }
    if (u.broken) out[5] = std::numeric_limits<float>::quiet_NaN();
  }
  std::string const& label(std::size_t i) const { return utterances[i].label; }
  std::string const& speaker(std::size_t i) const { return utterances[i].speaker; }
  std::string const& split(std::size_t i) const { return utterances[i].split; }
};

// Layer 0 is noise, layer 1 the frames as they are, layer 2 the frames with much noise.
class ToyFeatures final : public probe::FeatureExtractor {
 public:
  int layers() const override { return 3; }
  int width(int) const override { return 16; }
  std::string layer_name(int layer) const override { return "layer " + std::to_string(layer); }
  void extract(std::span<float const> samples, std::vector<std::vector<float>>& layers) const override {
    layers.assign(3, {samples.begin(), samples.end()});
    Random random(5, Purpose::user, 1, samples.size());
    for (float& x : layers[0]) x = static_cast<float>(random.normal()) + 0 * x;
    for (float& x : layers[2]) x += 6 * static_cast<float>(random.normal());
  }
  std::unique_ptr<FeatureExtractor> clone() const override { return std::make_unique<ToyFeatures>(); }
};

Toy toy(int speakers, int words, int takes, bool splits) {
  Toy toy;
  for (int s = 0; s < speakers; ++s)
    for (int w = 0; w < words; ++w)
      for (int t = 0; t < takes; ++t)
        toy.utterances.push_back({std::string("word ") + static_cast<char>('a' + w),
                                  "speaker" + std::string(static_cast<std::size_t>(s), 'x'),
                                  !splits            ? ""
                                  : s < speakers - 4 ? "train"
                                  : s < speakers - 2 ? "val"
                                                     : "test",
                                  25 + (s * 7 + w * 3 + t) % 15});
  return toy;
}

std::string complaint(Toy toy) {
  try {
    probe::words(AnySource(std::move(toy)), ToyFeatures());
  } catch (Error const& error) {
    CHECK(error.code() == ErrorCode::data);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("the words probe finds the layer that holds the words and tests it on unheard speakers") {
  const auto result = probe::words(AnySource(toy(10, 6, 3, true)), ToyFeatures());
  CHECK(result.layer == 1);
  CHECK(result.layer_name == "layer 1");
  CHECK(result.pooling == probe::Pooling::frames20);
  CHECK(result.accuracy > .9);
  CHECK(result.low <= result.accuracy);
  CHECK(result.high >= result.accuracy);
  CHECK(result.mean_std.accuracy < .5);  // the words differ in order only
  CHECK(result.layers.size() == 6);
  CHECK(result.layers[0].test < .45);
  CHECK(result.chance == doctest::Approx(1.0 / 6));
  CHECK(result.classes == 6);
  CHECK(result.train_utterances == 108);
  CHECK(result.validation_utterances == 36);
  CHECK(result.test_utterances == 36);
  CHECK(result.test_speakers == 2);
  CHECK(result.notes.empty());
  CHECK(result.skipped.empty());
}

TEST_CASE("the words probe gives the same figures on one thread, on three, and in several passes") {
  ThreadPool one(1), three(3);
  const AnySource source(toy(10, 6, 2, false));
  const auto a = probe::words(source, ToyFeatures(), {.executor = &one, .seed = 4});
  const auto b = probe::words(source, ToyFeatures(), {.executor = &three, .seed = 4, .memory = 1});
  CHECK(a.accuracy == b.accuracy);
  CHECK(a.low == b.low);
  CHECK(a.high == b.high);
  CHECK(a.layer == b.layer);
  REQUIRE(a.layers.size() == b.layers.size());
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    CHECK(a.layers[i].test == b.layers[i].test);
    CHECK(a.layers[i].validation == b.layers[i].validation);
    CHECK(a.layers[i].layer == b.layers[i].layer);
  }
}

TEST_CASE("speakers without a split are dealt out by the seed, and the result says so") {
  const auto result = probe::words(AnySource(toy(20, 4, 1, false)), ToyFeatures(), {.seed = 1});
  CHECK(result.train_speakers == 14);
  CHECK(result.validation_speakers == 3);
  CHECK(result.test_speakers == 3);
  REQUIRE(result.notes.size() == 1);
  CHECK(result.notes[0].find("70/15/15") != std::string::npos);
}

TEST_CASE("a speaker whom the manifest puts in training and in test ends up on one side") {
  Toy mixed = toy(8, 4, 2, true);
  for (auto& u : mixed.utterances) u.split = u.split == "val" ? "train" : u.split;
  mixed.utterances[0].split = "test";
  std::map<std::string, unsigned, std::less<>> seen;
  for (auto const& u : mixed.utterances)
    seen[u.speaker] |= 1u << static_cast<unsigned>(probe::detail::part_of(std::string_view(u.split)));
  const auto split = probe::detail::split_speakers(seen, 0);
  CHECK(split.part.size() == 8);
  CHECK(split.notes.size() == 2);  // dealt out, and validation speakers taken from training
  const auto result = probe::words(AnySource(std::move(mixed)), ToyFeatures());
  CHECK(result.train_speakers + result.validation_speakers + result.test_speakers == 8);
  CHECK(result.train_utterances + result.validation_utterances + result.test_utterances == 64);
}

TEST_CASE("two speakers suffice, and the result admits how little that says") {
  const auto result = probe::words(AnySource(toy(2, 4, 10, false)), ToyFeatures());
  CHECK(result.test_speakers == 1);
  CHECK(result.validation_utterances == 8);
  CHECK(result.notes.size() >= 2);
}

TEST_CASE("utterances that cannot be used are left out and counted by reason") {
  Toy with_trouble = toy(10, 6, 3, true);
  with_trouble.utterances[3].broken = true;
  with_trouble.utterances[4].frames = 0;
  with_trouble.utterances[5].label = "";
  with_trouble.utterances[6].speaker = "";
  with_trouble.utterances.back().broken = true;
  const auto result = probe::words(AnySource(std::move(with_trouble)), ToyFeatures());
  CHECK(result.train_utterances == 104);
  CHECK(result.test_utterances == 35);
  int skipped = 0;
  for (auto const& entry : result.skipped) skipped += entry.utterances;
  CHECK(skipped == 5);
  CHECK(result.skipped.size() == 4);
  CHECK(result.accuracy > .9);
}

TEST_CASE("a manifest that cannot be probed is refused with what to do about it") {
  CHECK(complaint({}).find("no utterances") != std::string::npos);
  Toy unlabelled = toy(4, 3, 1, false);
  for (auto& u : unlabelled.utterances) u.label = "";
  CHECK(complaint(unlabelled).find("`label`") != std::string::npos);
  CHECK(complaint(toy(6, 1, 3, false)).find("at least two words") != std::string::npos);
  CHECK(complaint(toy(1, 3, 3, false)).find("at least two are needed") != std::string::npos);
  Toy rare = toy(8, 4, 1, true);
  rare.utterances.back().label = "word of its own, e";
  CHECK(complaint(rare).find("no training example") != std::string::npos);
  Toy only_test = toy(4, 3, 1, false);
  for (auto& u : only_test.utterances) u.split = "test";
  CHECK(complaint(only_test).find("split train") != std::string::npos);
}

TEST_CASE("pooling keeps both ends of an utterance and copes with a single frame") {
  const std::vector<float> frames{0, 10, 1, 20, 2, 30};  // three frames of two numbers
  std::vector<float> pooled(40);
  probe::pool(probe::Pooling::frames20, {frames.data(), 3, 2, 2}, pooled);
  CHECK(pooled[0] == 0);
  CHECK(pooled[1] == 10);
  CHECK(pooled[38] == 2);
  CHECK(pooled[39] == 30);
  CHECK(pooled[20] == doctest::Approx(2 * 10 / 19.));
  std::vector<float> moments(4);
  probe::pool(probe::Pooling::mean_std, {frames.data(), 3, 2, 2}, moments);
  CHECK(moments[0] == doctest::Approx(1));
  CHECK(moments[3] == doctest::Approx(std::sqrt(200. / 3)));
  probe::pool(probe::Pooling::frames20, {frames.data(), 1, 2, 2}, pooled);
  CHECK(pooled[39] == 10);
  probe::pool(probe::Pooling::mean_std, {frames.data(), 1, 2, 2}, moments);
  CHECK(moments[2] == 0);
}
