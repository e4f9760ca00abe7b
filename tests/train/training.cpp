// The loop by itself, on a learner whose losses are a script.
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <sotto/train/training.hpp>

using namespace sotto;

namespace {

/// One parameter; batches of crops without features; a step costs 1000 FLOPs.
class Scripted : public Learner {
 public:
  std::function<BatchMeasures(std::uint32_t step)> say = [](std::uint32_t) { return BatchMeasures{1, .5, 40, 60}; };
  std::function<double(std::uint32_t step)> norm = [](std::uint32_t) { return 2.; };
  double spread = 1, held_out_loss = 1;
  Precision computed_in = Precision::fp32;
  int n_classes = 100, evaluations = 0, ahead = 0;
  std::size_t most_under_way = 0;
  std::vector<double> rates;

  Texts spec_fields() const override {
    Texts fields;
    fields.set("kind", "scripted");
    return fields;
  }
  void visit_options(detail::OptionText&) override {}
  Precision precision() const override { return computed_in; }
  int frames(std::int64_t samples) const override { return static_cast<int>(samples / 320); }
  int hop() const override { return 320; }
  int classes() const override { return n_classes; }
  void fit_targets(AnySource const&, std::span<std::uint32_t const>, std::uint64_t, Executor&,
                   FunctionRef<void(double)> progress) override {
    progress(.5);
  }
  void restore_targets(std::span<float const>) override {}
  void label(AnySource const&, Executor&) override {}
  Flops target_cost() const override { return {500}; }
  std::span<float const> target_state() const override { return state_; }
  void build(AnySource const&, RunOptions const&, int, int) override {}
  Flops initialise(AnySource const&, std::span<std::uint32_t const>, std::uint64_t, Executor&) override { return {7}; }
  void begin() override {}
  std::span<ParameterEntry const> table() const override { return table_; }
  std::span<float> values() override { return numbers_[0]; }
  std::span<float> first_moments() override { return numbers_[1]; }
  std::span<float> second_moments() override { return numbers_[2]; }
  void make(std::span<Crop const> crops, std::uint32_t cursor, Purpose, Batch& batch) override {
    batch.cursor = cursor;
    batch.rows = 0;
    for (Crop const& crop : crops) batch.rows += crop.frames;
    batch.audio_seconds = static_cast<double>(batch.rows) / 50;
    batch.lanes.resize(crops.empty() ? 0 : 1);
  }
  Flops cost(Batch const&) const override { return {1000}; }
  void submit(Batch const& batch, OptimizerOptions const&, double rate, std::uint64_t step) override {
    CHECK(under_way_.size() <= static_cast<std::size_t>(ahead));
    const std::uint32_t number = batch.cursor + 1;
    const StepResult result{say(number), norm(number)};
    under_way_.push_back(result);
    halted_ = halted_ || !std::isfinite(result.measures.loss) || !std::isfinite(result.gradient_norm);
    if (halted_) return;
    CHECK(step == rates.size() + 1);
    rates.push_back(rate);
  }
  StepResult collect() override {
    most_under_way = std::max(most_under_way, under_way_.size());
    const StepResult result = under_way_.front();
    under_way_.erase(under_way_.begin());
    return result;
  }
  int steps_ahead() const override { return ahead; }
  void settle() override { CHECK(under_way_.empty()); }
  void rehearse(Batch const&) override {}
  BatchMeasures measure(Batch const&, double& spread_of_output) override {
    CHECK(under_way_.empty());
    ++evaluations;
    spread_of_output = spread;
    return {held_out_loss, .4, 30, 60};
  }

 private:
  std::vector<StepResult> under_way_;
  bool halted_ = false;
  std::vector<float> numbers_[3] = {{1}, {0}, {0}};
  std::vector<float> state_ = {3};
  ParameterEntry table_[1] = {{{"p", {1}, {}}, 0, 1}};
};

AnySource utterances(std::size_t n = 40) {
  return source(
      n, [](std::size_t) { return 16000; }, [](std::size_t, std::int64_t, std::span<float>) {});
}
RunOptions options(Budget budget) {
  RunOptions o;
  o.budget = budget;
  o.threads = 1;
  o.batch = {.rows = 200, .lane_rows = 200, .crop = std::chrono::seconds(1)};
  o.held_out = {.every = .25, .speakers = .1, .rows = 100};
  return o;
}

}  // namespace

TEST_CASE("labels and corpus statistics are billed, and the last step is the last that can be paid") {
  Scripted learner;
  Training training(learner, utterances(), options(Flops{10'506}));  // 507 before the first step, 1000 each
  CHECK(training.label_cost() == Flops{507});
  CHECK(training.run() == Outcome::budget_spent);
  CHECK(training.steps() == 9);
  CHECK(training.spent() == Flops{9'507});
  CHECK(training.reason().empty());
}

TEST_CASE("a budget that labels have eaten is refused, and one that leaves no step too") {
  Scripted learner;
  CHECK_THROWS_WITH_AS(Training(learner, utterances(), options(Flops{507})),
                       doctest::Contains("spent by the labels, which cost 507"), Error);
  Training training(learner, utterances(), options(Flops{1506}));
  CHECK_THROWS_WITH_AS(training.step(), doctest::Contains("pays for no step"), Error);
}

TEST_CASE("the rate of a step is the schedule's at the middle of what the step costs") {
  Scripted learner;
  auto o = options(updates(4));
  o.optimizer.learning_rate = 1;
  o.optimizer.warmup = .5;
  Training(learner, utterances(), o).run();
  CHECK(learner.rates.size() == 4);
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(learner.rates[i] == doctest::Approx(learning_rate(o.optimizer, (static_cast<double>(i) + .5) / 4)));
}

TEST_CASE("held-out speech is measured each time its part of the budget is spent, and at the end once") {
  Scripted learner;
  Training training(learner, utterances(), options(updates(10)));
  std::vector<std::uint64_t> at;
  while (const auto step = training.step())
    if (step->held_out) at.push_back(step->step);
  CHECK(at == std::vector<std::uint64_t>{1, 3, 5, 8, 10});  // the first step is past 0
  CHECK(learner.evaluations == 5);
  CHECK(training.history().held_out().size() == 5);
}

TEST_CASE("a loss or a gradient that is no number stops the run before it is applied") {
  for (const bool in_loss : {true, false}) {
    Scripted learner;
    const double nan = std::numeric_limits<double>::quiet_NaN();
    if (in_loss)
      learner.say = [&](std::uint32_t step) { return BatchMeasures{step == 3 ? nan : 1, .5, 40, 60}; };
    else
      learner.norm = [&](std::uint32_t step) { return step == 3 ? std::numeric_limits<double>::infinity() : 1; };
    Training training(learner, utterances(), options(updates(10)));
    CHECK(training.run() == Outcome::diverged);
    CHECK(training.steps() == 2);
    CHECK(learner.rates.size() == 2);
    CHECK(training.reason().find(in_loss ? "the loss of step 3" : "the gradient of step 3") != std::string::npos);
    CHECK(training.reason().find("learning_rate") != std::string::npos);
    CHECK_FALSE(training.step().has_value());  // and it stays ended
  }
}

TEST_CASE("a learner that runs ahead gives the same run; nothing is under way when it is measured or saved") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto-training-ahead";
  std::vector<std::vector<double>> rates;
  for (const int ahead : {0, 1}) {
    std::filesystem::remove_all(folder);
    Scripted learner;
    learner.ahead = ahead;
    auto o = options(updates(10));
    o.checkpoint = {.directory = folder, .every = std::chrono::seconds(0)};
    if (ahead == 1) o.checkpoint.every = std::chrono::seconds(1000);
    std::vector<std::uint64_t> reported;
    o.on_step = [&](Step const& step) { reported.push_back(step.step); };
    Training training(learner, utterances(), o);
    CHECK(training.run() == Outcome::budget_spent);
    CHECK(reported == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    CHECK(learner.most_under_way == static_cast<std::size_t>(1 + ahead));
    CHECK(learner.evaluations == 5);
    rates.push_back(learner.rates);
  }
  CHECK(rates[0] == rates[1]);

  Scripted diverging;
  diverging.ahead = 1;
  diverging.say = [](std::uint32_t step) {  // the fourth of ten is followed by no evaluation: one is ahead
    return BatchMeasures{step == 4 ? std::numeric_limits<double>::quiet_NaN() : 1, .5, 40, 60};
  };
  Training training(diverging, utterances(), options(updates(10)));
  CHECK(training.run() == Outcome::diverged);
  CHECK(training.steps() == 3);
  CHECK(diverging.rates.size() == 3);
  CHECK(diverging.most_under_way == 2);
  diverging.settle();  // and nothing is left under way
  std::filesystem::remove_all(folder);
}

TEST_CASE("a program may measure and save while a step is ahead: it is finished first, and told of in its turn") {
  Scripted learner;
  learner.ahead = 1;
  auto o = options(updates(10));
  std::vector<std::uint64_t> reported;
  Training* running = nullptr;
  o.on_step = [&](Step const& step) {
    reported.push_back(step.step);
    if (step.step != 4) return;
    running->evaluate();
    CHECK(running->steps() == 5);
  };
  Training training(learner, utterances(), o);
  running = &training;
  CHECK(training.run() == Outcome::budget_spent);
  CHECK(reported == std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
}

TEST_CASE("what goes wrong with the step ahead takes nothing from the one before it") {
  Scripted learner;
  learner.ahead = 1;
  learner.say = [](std::uint32_t step) {
    if (step == 5) throw std::runtime_error("no more");
    return BatchMeasures{1, .5, 40, 60};
  };
  Training training(learner, utterances(), options(updates(10)));
  CHECK_THROWS_WITH(training.run(), "no more");
  CHECK(training.steps() == 4);
  training.evaluate();
}

TEST_CASE("a loss that climbs ends the run and says from where to where; one that wobbles does not") {
  Scripted learner;
  learner.say = [](std::uint32_t step) { return BatchMeasures{step < 20 ? 2. : 2 + (step - 20) * 5., .5, 40, 60}; };
  Training climbing(learner, utterances(), options(updates(200)));
  CHECK(climbing.run() == Outcome::diverged);
  CHECK(climbing.steps() > 20);
  CHECK(climbing.steps() < 60);
  CHECK(climbing.reason().find("the loss has climbed from 2 to ") != std::string::npos);

  Scripted wobbling;
  wobbling.say = [](std::uint32_t step) { return BatchMeasures{4 + 2 * std::sin(step), .5, 40, 60}; };
  CHECK(Training(wobbling, utterances(), options(updates(200))).run() == Outcome::budget_spent);
}

TEST_CASE("collapse is reported while it happens") {
  const auto warning = [](Scripted& learner, int steps) {
    Training training(learner, utterances(), options(updates(20)));
    std::string last;
    for (int i = 0; i < steps; ++i) last = training.step()->warning;
    return last;
  };
  {
    Scripted healthy;
    CHECK(warning(healthy, 10) == "");
  }
  {
    Scripted labels;
    labels.say = [](std::uint32_t) { return BatchMeasures{1, .9, 1, 1.2}; };
    CHECK(warning(labels, 1).find("labels have collapsed") != std::string::npos);
  }
  for (const int steps : {1, 9, 12}) {
    Scripted codes;
    codes.say = [](std::uint32_t) { return BatchMeasures{1, .1, 1.1, 60}; };
    const std::string said = warning(codes, steps);
    if (steps < 10)
      CHECK(said == "");  // everything is one code at first
    else
      CHECK(said.find("collapsed to one code") != std::string::npos);  // but not for half of the budget
  }
  for (const int steps : {5, 7}) {
    Scripted codes;
    codes.say = [](std::uint32_t step) { return BatchMeasures{1, .1, step < 5 ? 30. : 1.1, 60}; };
    CHECK((warning(codes, steps) != "") == (steps == 7));  // from many to one, three steps long
  }
  {
    Scripted constant;
    constant.spread = 1e-5;
    CHECK(warning(constant, 1).find("constant over time") != std::string::npos);
  }
  {
    Scripted unlabelled;  // without classes there is nothing to collapse to
    unlabelled.n_classes = 0;
    unlabelled.say = [](std::uint32_t) { return BatchMeasures{1, 0, 0, 0}; };
    CHECK(warning(unlabelled, 10) == "");
  }
}

TEST_CASE("where nothing is held out, no held-out loss is invented") {
  Scripted learner;
  auto o = options(updates(10));
  o.held_out.speakers = 0;
  Training training(learner, utterances(), o);
  CHECK_FALSE(training.has_held_out());
  while (const auto step = training.step()) CHECK_FALSE(step->held_out.has_value());
  CHECK(learner.evaluations == 0);
  CHECK(training.history().held_out().empty());
}

TEST_CASE("a save that fails is a warning, the run goes on, and the next save is tried") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto-training-unwritable";
  std::filesystem::remove_all(folder);
  Scripted learner;
  auto o = options(updates(4));
  o.checkpoint.directory = folder;
  o.checkpoint.every = std::chrono::seconds(0);
  Training training(learner, utterances(), o);
  std::filesystem::remove_all(folder);
  std::ofstream(folder) << "in the way";
  const auto failed = training.step();
  REQUIRE(failed);
  CHECK(std::string(failed->warning).find("could not be written") != std::string::npos);
  std::filesystem::remove(folder);
  CHECK(training.run() == Outcome::budget_spent);
  CHECK(std::filesystem::exists(training.checkpoint()));
  std::filesystem::remove_all(folder);
}

TEST_CASE("numbers that a checkpoint should not have are refused with its path") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto-training-damaged";
  const auto damaged = [&](char const* name, char const* value, std::vector<double> const& history) {
    std::filesystem::remove_all(folder);
    auto o = options(updates(6));
    o.checkpoint.directory = folder;
    {
      Scripted learner;
      Training training(learner, utterances(), o);
      training.step();
      training.save();
    }
    const Safetensors file = Safetensors::open(folder / Checkpoint::file_name);
    SafetensorsWriter writer;
    for (auto const& [key, text] : file.metadata()) writer.set_metadata(key, key == name ? value : text);
    for (auto const& tensor : file.tensors())
      if (tensor.name == "history.steps" && !history.empty())
        writer.add(tensor.name, {static_cast<std::int64_t>(history.size())}, std::span<double const>(history));
      else
        writer.add(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
    writer.write(folder / "damaged");
    std::filesystem::rename(folder / "damaged", folder / Checkpoint::file_name);
    o.checkpoint.resume = true;
    Scripted learner;
    learner.rates.assign(1, 0);
    Training(learner, utterances(), o).run();
  };
  damaged("", "", {});  // as it was: goes on
  for (auto const& [name, value] :
       {std::pair("run.steps", "x"), std::pair("run.flops", ""), std::pair("run.position", "7 "),
        std::pair("run.lowest_loss", "1e"), std::pair("options.seed", "2")}) {
    std::string said;
    try {
      damaged(name, value, {});
    } catch (Error const& error) {
      CHECK(error.code() == ErrorCode::checkpoint);
      said = error.what();
    }
    CHECK(said.find("sotto-training-damaged") != std::string::npos);
  }
  CHECK_THROWS_WITH_AS(damaged("", "", {1, 2, 3, 4, 5}), doctest::Contains("history"), Error);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a wall-clock budget becomes FLOPs, and the clock is a hard stop") {
  Scripted learner;
  Training training(learner, utterances(), options(wall(std::chrono::milliseconds(50))));
  CHECK(training.budget() > Flops{507});
  CHECK(training.run() == Outcome::budget_spent);
  CHECK(training.seconds() < 5);
  CHECK(training.steps() > 0);
}

TEST_CASE("a run goes on where it was saved, whatever its state") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto-training-resume";
  std::filesystem::remove_all(folder);
  const auto losses = [](std::uint32_t step) { return BatchMeasures{5. / step, .5, 40, 60}; };
  auto o = options(updates(12));
  Scripted whole;
  whole.say = losses;
  Training uninterrupted(whole, utterances(), o);
  uninterrupted.run();
  o.checkpoint.directory = folder;
  {
    Scripted first;
    first.say = losses;
    Training training(first, utterances(), o);
    for (int i = 0; i < 7; ++i) training.step();
    training.save();
  }
  o.checkpoint.resume = true;
  Scripted second;
  second.say = losses;
  second.rates.assign(7, 0);
  Training training(second, utterances(), o);
  CHECK(training.steps() == 7);
  CHECK(training.label_cost() == Flops{507});
  CHECK(training.run() == Outcome::budget_spent);
  CHECK(training.spent() == uninterrupted.spent());
  CHECK(training.audio_seconds() == uninterrupted.audio_seconds());
  REQUIRE(training.history().held_out().size() == uninterrupted.history().held_out().size());
  REQUIRE(training.history().training().size() == uninterrupted.history().training().size());
  for (std::size_t i = 0; i < training.history().training().size(); ++i)
    CHECK(training.history().training()[i].loss == uninterrupted.history().training()[i].loss);
  for (std::size_t i = 0; i < training.history().held_out().size(); ++i)
    CHECK(training.history().held_out()[i].flops == uninterrupted.history().held_out()[i].flops);
  for (std::size_t i = 7; i < 12; ++i) CHECK(second.rates[i] == whole.rates[i]);
  std::filesystem::remove_all(folder);
}

TEST_CASE("a checkpoint says what precision it was saved in, and a run goes on in the other") {
  const auto folder = std::filesystem::temp_directory_path() / "sotto-training-precision";
  for (const Precision first : {Precision::fp32, Precision::bf16}) {
    const Precision second = first == Precision::fp32 ? Precision::bf16 : Precision::fp32;
    std::filesystem::remove_all(folder);
    auto o = options(updates(6));
    o.checkpoint.directory = folder;
    {
      Scripted learner;
      learner.computed_in = first;
      Training training(learner, utterances(), o);
      CHECK(training.precision() == first);
      training.step();
      training.save();
      CHECK(Checkpoint::open(folder).text("run.precision") == name(first));
    }
    o.checkpoint.resume = true;
    Scripted learner;
    learner.computed_in = second;
    learner.rates.assign(1, 0);
    Training training(learner, utterances(), o);
    CHECK(training.precision() == second);
    CHECK(training.run() == Outcome::budget_spent);
    CHECK(training.steps() == 6);
    CHECK(Checkpoint::open(folder).text("run.precision") == name(second));
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("options that cannot be are refused, each with its name") {
  const auto refused = [](auto&& edit, char const* what) {
    Scripted learner;
    auto o = options(updates(3));
    edit(o);
    CHECK_THROWS_WITH_AS(Training(learner, utterances(), o), doctest::Contains(what), Error);
  };
  refused([](auto& o) { o.budget = Flops{0}; }, "budget");
  refused([](auto& o) { o.batch.lane_rows = 0; }, "lane_rows");
  refused([](auto& o) { o.batch.rows = 10; }, "rows");
  refused([](auto& o) { o.encoder.dropout = 1; }, "encoder.dropout");
  refused([](auto& o) { o.encoder.layer_drop = -1; }, "encoder.layer_drop");
  refused([](auto& o) { o.optimizer.learning_rate = 0; }, "learning_rate");
  refused([](auto& o) { o.held_out.speakers = 1; }, "held_out.speakers");
  refused([](auto& o) { o.slots = -1; }, "slots");
  refused([](auto& o) { o.held_out.every = 1e-300; }, "held_out.every");
  refused([](auto& o) { o.held_out.every = std::nan(""); }, "held_out.every");
  refused([](auto& o) { o.held_out.rows = 0; }, "held_out.rows");
  refused([](auto& o) { o.optimizer.warmup = 1.5; }, "optimizer.warmup");
  refused([](auto& o) { o.optimizer.weight_decay = -1; }, "optimizer.weight_decay");
  refused([](auto& o) { o.optimizer.clip = std::nan(""); }, "optimizer.clip");
  refused([](auto& o) { o.optimizer.beta2 = 1; }, "optimizer.beta2");
  refused([](auto& o) { o.checkpoint.resume = true; }, "checkpoint.directory");
  Scripted learner;
  CHECK_THROWS_WITH_AS(Training(learner, utterances(0), options(updates(3))), doctest::Contains("no utterances"),
                       Error);
}

TEST_CASE("a source that says what cannot be is told so") {
  const auto lying = [](std::int64_t length, float sample) {
    return AnySource(source(
        40, [=](std::size_t i) { return i == 5 ? length : 16000; },
        [=](std::size_t, std::int64_t, std::span<float> out) { std::fill(out.begin(), out.end(), sample); }));
  };
  std::vector<float> out(10);
  CHECK_THROWS_WITH_AS(static_cast<void>(lying(-5, 0).samples(5)), doctest::Contains("utterance 5 has -5"), Error);
  CHECK_THROWS_WITH_AS(lying(16000, std::nanf("")).read_sound(3, 0, out), doctest::Contains("not finite"), Error);
  CHECK_THROWS_WITH_AS(lying(16000, 32768).read_sound(3, 0, out), doctest::Contains("[-1, 1]"), Error);
  lying(16000, -1.5f).read_sound(3, 0, out);
}

TEST_CASE("what a source throws reaches the one who steps") {
  struct Failing : Scripted {
    void make(std::span<Crop const> crops, std::uint32_t cursor, Purpose purpose, Batch& batch) override {
      if (cursor == 2) throw Error(ErrorCode::data, "the disk is gone");
      Scripted::make(crops, cursor, purpose, batch);
    }
  } learner;
  Training training(learner, utterances(), options(updates(10)));
  CHECK(training.step());
  CHECK(training.step());
  CHECK_THROWS_WITH_AS(training.step(), "the disk is gone", Error);
}
