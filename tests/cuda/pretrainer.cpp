// Pretraining on Cuda, executed on the host, from a plain C++ file: the loop, checkpoints, and going on elsewhere.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include <sotto/cuda.hpp>
#include <sotto/sotto.hpp>

#include "execution.hpp"

using namespace sotto;
using namespace sotto::test;
using namespace sotto::literals;

namespace {

struct Toy : Spec {
  static constexpr EncoderShape shape{.width = 32, .depth = 2, .heads = 2, .feed_forward = 64};
  using Frontend = frontend::LogMel<20, 2>;
  using Position = position::Convolution<4, 5>;
  using Objective = objective::Hubert<8, objective::Cosine<16>>;
};

class Folder {
 public:
  explicit Folder(std::string const& name) : path(std::filesystem::temp_directory_path() / ("sotto-cuda-" + name)) {
    std::filesystem::remove_all(path);
  }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path const path;
};

PretrainerOptions<Toy> options(std::filesystem::path const& directory = {}) {
  PretrainerOptions<Toy> o;
  o.budget = updates(6);
  o.threads = 1;
  o.slots = 2;
  o.batch = {.rows = 100, .lane_rows = 60, .crop = 800ms};
  o.encoder = {.dropout = .1f, .layer_drop = .2f};
  o.objective.unmasked_weight = .1f;
  o.held_out = {.every = .5, .speakers = .2, .rows = 60};
  o.checkpoint.directory = directory;
  return o;
}
SyntheticSpeech speech() { return SyntheticSpeech({.speakers = 4, .utterances = 12, .seed = 3}); }

struct Run {
  std::vector<float> values;
  std::vector<double> losses;
};
/// Trains until `steps` are done, from the start or from where the directory's checkpoint stands.
template <class B> Run train(PretrainerOptions<Toy> o, std::uint64_t steps = 6) {
  std::stop_source stop;
  Run run;
  o.checkpoint.resume = std::filesystem::exists(o.checkpoint.directory / Checkpoint::file_name);
  o.stop = stop.get_token();
  o.on_step = [&](Step const& step) {
    run.losses.push_back(step.loss);
    if (step.step == steps) stop.request_stop();
  };
  Pretrainer<Toy, B> trainer(speech(), o);
  // A step may be under way when the stop is asked for: driven by hand, none is.
  while (trainer.step()) {
  }
  CHECK(trainer.steps() == steps);
  trainer.engine().settle();
  run.values.assign(trainer.engine().values().begin(), trainer.engine().values().end());
  return run;
}
double difference(std::vector<float> const& a, std::vector<float> const& b) {
  double squares = 0, of = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    squares += d * d;
    of += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  }
  return std::sqrt(squares / of);
}

}  // namespace

TEST_CASE("a run on Cuda is the run on the Cpu, and goes on on either from a checkpoint of either") {
  if (!has_device()) return;
  const Run cpu = train<Cpu<float>>(options());
  const Run gpu = train<Cuda<float>>(options());
  CHECK(difference(cpu.values, gpu.values) < 1e-3);
  for (std::size_t i = 0; i < 6; ++i) CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-4));
  {
    const Folder folder("there");
    train<Cpu<float>>(options(folder.path), 3);
    CHECK(difference(cpu.values, train<Cuda<float>>(options(folder.path)).values) < 1e-3);
  }
  {
    const Folder folder("back");
    train<Cuda<float>>(options(folder.path), 3);
    CHECK(difference(cpu.values, train<Cpu<float>>(options(folder.path)).values) < 1e-3);
  }
  {
    const Folder folder("narrow");
    train<Cuda<bf16>>(options(folder.path), 3);
    const Run rest = train<Cpu<float>>(options(folder.path));
    CHECK(rest.losses.size() == 3);
    CHECK(rest.losses.back() == doctest::Approx(cpu.losses.back()).epsilon(2e-2));
  }
}

TEST_CASE("a run on Cuda that stopped and goes on is the uninterrupted one, to the bit") {
  if (!has_device()) return;
  const Run whole = train<Cuda<bf16>>(options());
  const Folder folder("resumed");
  train<Cuda<bf16>>(options(folder.path), 2);
  CHECK(train<Cuda<bf16>>(options(folder.path)).values == whole.values);
}

TEST_CASE("run() keeps a step under way, saves and measures between steps, and gives the same model") {
  if (!has_device()) return;
  const Run whole = train<Cuda<bf16>>(options());
  const Folder folder("ahead");
  auto o = options(folder.path);
  o.checkpoint.every = 0s;
  Pretrainer<Toy, Cuda<bf16>> trainer(speech(), o);
  CHECK(trainer.run() == Outcome::budget_spent);
  CHECK(trainer.steps() == 6);
  CHECK(trainer.history().held_out().size() >= 2);
  trainer.engine().settle();
  CHECK(std::equal(whole.values.begin(), whole.values.end(), trainer.engine().values().begin()));
}

#ifdef HOST_CUDA_VARIANT
TEST_CASE("without a GPU a sentence says so, before the corpus is labelled") {
  const Execution none(Order::forward);
  Execution::limit_devices(0);
  bool labelled = false;
  auto o = options();
  o.on_preparation = [&](Preparation const&) { labelled = true; };
  CHECK_THROWS_WITH_AS((Pretrainer<Toy, Cuda<bf16>>(speech(), o)), doctest::Contains("train on the CPU"), Error);
  CHECK_FALSE(labelled);
}
#endif
