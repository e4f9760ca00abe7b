#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

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

/// A spec and what its activations are kept in.
template <class M, class Storage> struct In {
  using Model = M;
  using Trainer = Pretrainer<M, Cpu<Storage>>;
};
template <class Model> using InFloats = In<Model, float>;
template <class Model> using InBf16 = In<Model, bf16>;

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
std::vector<float> values_of(auto& trainer) {
  const auto v = trainer.engine().values();
  return {v.begin(), v.end()};
}
template <class Case, class Edit> std::vector<float> trained(Edit&& edit) {
  auto o = options<typename Case::Model>(updates(6));
  edit(o);
  typename Case::Trainer trainer(speech(), o);
  CHECK(trainer.run() == Outcome::budget_spent);
  return values_of(trainer);
}
template <class Case> std::vector<float> trained(int threads) {
  return trained<Case>([&](auto& o) { o.threads = threads; });
}
/// Means of the first and of the last five losses, and the loss on held-out speech in the end.
struct LossesOfRun {
  double first = 0, last = 0, held_out = 0;
};
template <class Case> LossesOfRun losses_after(int steps) {
  auto o = options<typename Case::Model>(updates(steps));
  LossesOfRun losses;
  o.on_step = [&](Step const& s) {
    if (s.step <= 5) losses.first += s.loss / 5;
    if (s.step + 5 > static_cast<std::uint64_t>(steps)) losses.last += s.loss / 5;
  };
  typename Case::Trainer trainer(speech(), o);
  CHECK(trainer.run() == Outcome::budget_spent);
  losses.held_out = trainer.evaluate().loss;
  return losses;
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

TEST_CASE_TEMPLATE("the same slots give the same bits on one thread and on two, and again", Case, InFloats<Toy>,
                   InFloats<ToyCorpusNorm>, InFloats<ToyAugmented>, InFloats<ToyUser>, InBf16<Toy>, InBf16<ToyUser>) {
  const auto one = trained<Case>(1), two = trained<Case>(2), again = trained<Case>(2);
  CHECK(one == two);
  CHECK(two == again);
}

TEST_CASE("another seed gives another model, and augmentation another than none") {
  const auto first = trained<InFloats<Toy>>(1);
  CHECK(first != trained<InFloats<Toy>>([](auto& o) { o.seed = 2; }));
  CHECK(trained<InFloats<ToyAugmented>>(1) !=
        trained<InFloats<ToyAugmented>>([](auto& o) { std::get<0>(o.augmentation).time_masks = 2; }));
}

TEST_CASE("weights are prepared once a load and once an update") {
  Pretrainer<Toy> trainer(speech(), options(updates(5)));
  CHECK(trainer.engine().preparations() == 1);
  trainer.run();
  CHECK(trainer.engine().preparations() == 6);
}

TEST_CASE_TEMPLATE("a resumed run ends with the bits of the uninterrupted one", Case, InFloats<Toy>,
                   InFloats<ToyCorpusNorm>, InFloats<ToyUser>, InBf16<Toy>, InBf16<ToyUser>) {
  Folder folder("resume");
  const auto whole = trained<Case>(2);
  auto o = options<typename Case::Model>(updates(6));
  o.encoder.dropout = 0;
  o.checkpoint.directory = folder.path;
  {
    typename Case::Trainer trainer(speech(), o);
    for (int i = 0; i < 3; ++i) trainer.step();
    trainer.save();
  }
  o.checkpoint.resume = true;
  typename Case::Trainer trainer(speech(), o);
  CHECK(trainer.steps() == 3);
  trainer.run();
  CHECK(values_of(trainer) == whole);
}

TEST_CASE("in bf16 a small model learns what it learns in fp32, by other bits") {
  const LossesOfRun wide = losses_after<InFloats<Toy>>(30), narrow = losses_after<InBf16<Toy>>(30);
  CHECK(narrow.first == doctest::Approx(wide.first).epsilon(.01));
  CHECK(narrow.last == doctest::Approx(wide.last).epsilon(.01));
  CHECK(narrow.held_out == doctest::Approx(wide.held_out).epsilon(.01));
  CHECK(narrow.last < narrow.first - .05);
  CHECK(narrow.last != wide.last);
}

TEST_CASE_TEMPLATE("a run saved in one precision goes on in the other, with every bit of what was saved", Storage,
                   float, bf16) {
  constexpr bool from_floats = std::is_same_v<Storage, float>;
  using First = In<Toy, Storage>;
  using Second = std::conditional_t<from_floats, InBf16<Toy>, InFloats<Toy>>;
  Folder folder("precisions");
  auto o = options(updates(6));
  o.checkpoint.directory = folder.path;
  std::vector<float> saved, first_moments, second_moments;
  const auto moments_of = [](auto& trainer) {
    const auto first = trainer.engine().first_moments(), second = trainer.engine().second_moments();
    return std::pair(std::vector<float>(first.begin(), first.end()), std::vector<float>(second.begin(), second.end()));
  };
  {
    typename First::Trainer trainer(speech(), o);
    for (int i = 0; i < 3; ++i) trainer.step();
    trainer.save();
    saved = values_of(trainer);
    std::tie(first_moments, second_moments) = moments_of(trainer);
    CHECK(trainer.precision() == (from_floats ? Precision::fp32 : Precision::bf16));
    CHECK(Checkpoint::open(folder.path).text("run.precision") == (from_floats ? "fp32" : "bf16"));
  }
  o.checkpoint.resume = true;
  typename Second::Trainer trainer(speech(), o);
  CHECK(trainer.steps() == 3);
  CHECK(values_of(trainer) == saved);
  CHECK(moments_of(trainer) == std::pair(first_moments, second_moments));
  CHECK(trainer.run() == Outcome::budget_spent);
  CHECK(trainer.steps() == 6);
  CHECK(Checkpoint::open(folder.path).text("run.precision") == (from_floats ? "bf16" : "fp32"));
  typename First::Trainer whole(speech(), options(updates(6)));
  whole.run();
  CHECK(trainer.evaluate().loss == doctest::Approx(whole.evaluate().loss).epsilon(.01));
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
