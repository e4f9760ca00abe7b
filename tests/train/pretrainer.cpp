#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>

#include <sotto/backend/reference/reference.hpp>
#include <sotto/sotto.hpp>

#include "../doors/balanced_reconstruction.hpp"
#include "../doors/chunked_attention.hpp"

using namespace sotto;
using namespace sotto::literals;

namespace {

struct Toy : Spec {
  static constexpr EncoderShape shape{.width = 48, .depth = 2, .heads = 2, .feed_forward = 96};
  using Norm = norm::Pre;
  using Position = position::Convolution<8, 9>;
  using Objective = objective::Hubert<16, objective::Cosine<24>>;
};
struct ToyCorpusNorm : Toy {
  using Frontend = frontend::LogMel<40, 2, frontend::Normalisation::corpus>;
};
struct ToyAugmented : Toy {
  using Augmentation = augment::Chain<augment::SpecAugment<>>;
};
struct ToyUser : Toy {
  using Attention = ChunkedCapped;
  using Objective = BalancedReconstruction;
};

SyntheticSpeech speech() { return SyntheticSpeech({.speakers = 6, .utterances = 60, .seed = 3}); }

template <class Model = Toy> PretrainerOptions<Model> options(Budget budget) {
  PretrainerOptions<Model> o;
  o.budget = budget;
  o.threads = 1;
  o.slots = 2;
  o.batch = {.rows = 400, .lane_rows = 150, .crop = 3000ms};
  o.held_out = {.every = .25, .speakers = .2, .rows = 300};
  return o;
}
template <class Model> std::vector<float> values_of(Pretrainer<Model>& trainer) {
  const auto v = trainer.engine().values();
  return {v.begin(), v.end()};
}
template <class Model, class Edit> std::vector<float> trained(Edit&& edit) {
  auto o = options<Model>(updates(6));
  edit(o);
  Pretrainer<Model> trainer(speech(), o);
  CHECK(trainer.run() == Outcome::budget_spent);
  return values_of(trainer);
}
template <class Model> std::vector<float> trained(int threads) {
  return trained<Model>([&](auto& o) { o.threads = threads; });
}

struct Folder {
  std::filesystem::path path;
  explicit Folder(char const* name) : path(std::filesystem::temp_directory_path() / (std::string("sotto-") + name)) {
    std::filesystem::remove_all(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("the loss of a small model falls on synthetic speech") {
  auto o = options(updates(60));
  double first = 0, last = 0;
  o.on_step = [&](Step const& s) {
    if (s.step <= 5) first += s.loss / 5;
    if (s.step > 55) last += s.loss / 5;
  };
  Pretrainer<Toy> trainer(speech(), o);
  CHECK(trainer.run() == Outcome::budget_spent);
  CHECK(last < first - .1);
  CHECK(trainer.history().held_out().size() >= 4);
}

TEST_CASE("a FLOP budget is spent to the last step that it pays for, and never beyond") {
  auto o = options(Flops{1'500'000'000});
  o.objective.targets.fit_frames = 3000;
  o.objective.targets.restarts = 1;
  o.objective.targets.iterations = 4;
  Flops counted{};
  Pretrainer<Toy> trainer(speech(), o);
  counted = trainer.label_cost();
  while (true) {
    const Flops next = trainer.next_step_cost();
    if (!trainer.step()) break;
    counted += next;
    CHECK(trainer.spent() == counted);
  }
  CHECK(trainer.steps() > 2);
  CHECK(trainer.spent() <= Flops{1'500'000'000});
  CHECK(trainer.spent() + trainer.next_step_cost() > Flops{1'500'000'000});
}

TEST_CASE("budgets of updates and audio stop where they say") {
  {
    Pretrainer<Toy> trainer(speech(), options(updates(3)));
    CHECK(trainer.run() == Outcome::budget_spent);
    CHECK(trainer.steps() == 3);
  }
  Pretrainer<Toy> trainer(speech(), options(audio(30s)));
  CHECK(trainer.run() == Outcome::budget_spent);
  CHECK(trainer.audio_seconds() <= 30);
  CHECK(trainer.audio_seconds() > 30 - 8);
}

TEST_CASE("a budget that cannot pay for one step is refused with the price of one") {
  auto o = options(Flops{50'000'000});
  o.objective.targets.fit_frames = 3000;
  o.objective.targets.restarts = 1;
  o.objective.targets.iterations = 1;
  const auto attempt = [&] {
    Pretrainer<Toy> trainer(speech(), o);
    trainer.run();
  };
  CHECK_THROWS_AS(attempt(), Error);
}

TEST_CASE_TEMPLATE("the same slots give the same bits on one thread and on two, and again", Model, Toy, ToyCorpusNorm,
                   ToyAugmented, ToyUser) {
  const auto one = trained<Model>(1), two = trained<Model>(2), again = trained<Model>(2);
  CHECK(one == two);
  CHECK(two == again);
}

TEST_CASE("another seed gives another model, and augmentation another than none") {
  const auto first = trained<Toy>(1);
  CHECK(first != trained<Toy>([](auto& o) { o.seed = 2; }));
  CHECK(trained<ToyAugmented>(1) != trained<ToyAugmented>([](auto& o) { std::get<0>(o.augmentation).time_masks = 2; }));
}

TEST_CASE("weights are prepared once a load and once an update") {
  Pretrainer<Toy> trainer(speech(), options(updates(5)));
  CHECK(trainer.engine().preparations() == 1);
  trainer.run();
  CHECK(trainer.engine().preparations() == 6);
}

TEST_CASE_TEMPLATE("a resumed run ends with the bits of the uninterrupted one", Model, Toy, ToyCorpusNorm, ToyUser) {
  Folder folder("resume");
  const auto whole = trained<Model>(2);
  auto o = options<Model>(updates(6));
  o.encoder.dropout = 0;
  o.checkpoint.directory = folder.path;
  {
    Pretrainer<Model> trainer(speech(), o);
    for (int i = 0; i < 3; ++i) trainer.step();
    trainer.save();
  }
  o.checkpoint.resume = true;
  Pretrainer<Model> trainer(speech(), o);
  CHECK(trainer.steps() == 3);
  trainer.run();
  CHECK(values_of(trainer) == whole);
}

TEST_CASE("a stop finishes the step, saves, and is an outcome") {
  Folder folder("stop");
  auto o = options(updates(50));
  std::stop_source stop;
  o.stop = stop.get_token();
  o.checkpoint.directory = folder.path;
  o.on_step = [&](Step const& s) {
    if (s.step == 2) stop.request_stop();
  };
  Pretrainer<Toy> trainer(speech(), o);
  CHECK(trainer.run() == Outcome::stopped);
  CHECK(trainer.steps() == 2);
  CHECK(std::filesystem::exists(folder.path / Checkpoint::file_name));
}

TEST_CASE("a rate that is far too high ends as divergence, with the last good checkpoint kept") {
  Folder folder("diverge");
  auto o = options(updates(200));
  o.checkpoint.directory = folder.path;
  o.optimizer.learning_rate = 1e20;
  o.optimizer.warmup = .01;
  o.optimizer.clip = 0;
  Pretrainer<Toy> trainer(speech(), o);
  trainer.save();
  CHECK(trainer.run() == Outcome::diverged);
  CHECK(trainer.reason().find("learning_rate") != std::string::npos);
  CHECK(Checkpoint::open(folder.path).text("run.steps") == "0");
}

TEST_CASE("a checkpoint of another spec or other options is refused, and says what differs") {
  Folder folder("mismatch");
  auto o = options(updates(2));
  o.checkpoint.directory = folder.path;
  {
    Pretrainer<Toy> trainer(speech(), o);
    trainer.run();
  }
  {
    auto other = options<ToyCorpusNorm>(updates(2));
    other.checkpoint = {.directory = folder.path, .resume = true};
    try {
      Pretrainer<ToyCorpusNorm> trainer(speech(), other);
      FAIL("must not open");
    } catch (SpecMismatch const& mismatch) {
      CHECK(mismatch.fields().size() >= 1);
      CHECK(std::string(mismatch.what()).find("frontend") != std::string::npos);
    }
  }
  o.checkpoint.resume = true;
  o.seed = 77;
  try {
    Pretrainer<Toy> trainer(speech(), o);
    FAIL("must not open");
  } catch (Error const& error) {
    CHECK(std::string(error.what()).find("seed was 1 and is 77") != std::string::npos);
  }
  o.seed = 1;
  CHECK_THROWS_AS(Pretrainer<Toy>(SyntheticSpeech({.speakers = 6, .utterances = 61, .seed = 3}), o), Error);
}

TEST_CASE("the Cpu backend and the Reference train alike") {
  auto o = options(updates(2));
  o.batch = {.rows = 160, .lane_rows = 160, .crop = 3000ms};
  Pretrainer<Toy> fast(speech(), o);
  Pretrainer<Toy, Reference<float>> plain(speech(), o);
  while (true) {
    const auto a = fast.step(), b = plain.step();
    CHECK(a.has_value() == b.has_value());
    if (!a || !b) break;
    CHECK(a->loss == doctest::Approx(b->loss).epsilon(1e-4));
    CHECK(a->gradient_norm == doctest::Approx(b->gradient_norm).epsilon(1e-3));
  }
}
