// Whole models on Cuda, executed on the host: a program that is plain C++, linked to kernels.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/cuda.hpp>
#include <sotto/sotto.hpp>

#include "../backend/odd_models.hpp"
#include "../encoder/gradients.hpp"
#include "execution.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

Batch batch_of(PackedLane const& lane, std::uint32_t cursor = 0) {
  Batch batch;
  batch.cursor = cursor;
  batch.rows = lane.rows();
  batch.masked = static_cast<std::int64_t>(lane.masked.size());
  batch.lanes.push_back(lane);
  return batch;
}

template <class Model> auto all_rows() {
  typename Model::Objective::Options options;
  options.unmasked_weight = .2f;
  return options;
}

template <class Model, class B> struct Trial {
  DeviceEngine<Model, B> engine;
  explicit Trial(std::uint64_t seed, Capacity capacity = {140, 71}, bool record = true, double spread = .2)
      : engine(capacity, {.record = record}) {
    const auto exact = random_parameters<Model>(seed, spread);
    std::copy(exact.begin(), exact.end(), engine.values().begin());
    engine.prepare();
  }
};

/// The largest difference of a parameter's gradient, by the largest of its numbers, or by .01 of the largest of all: a
/// key's bias shifts all scores of a query alike, and its exact gradient is 0.
template <class Model> double worst_difference(std::vector<float> const& got, std::vector<double> const& exact) {
  double largest = 0, worst = 0;
  for (const double g : exact) largest = std::max(largest, std::abs(g));
  for (auto const& entry : parameter_table<Model>) {
    double scale = .01 * largest, difference = 0;
    for (std::size_t i = entry.offset; i < entry.offset + entry.size; ++i) {
      scale = std::max(scale, std::abs(exact[i]));
      difference = std::max(difference, std::isfinite(got[i]) ? std::abs(static_cast<double>(got[i]) - exact[i])
                                                              : std::numeric_limits<double>::infinity());
    }
    INFO(entry.name() << ": " << difference / scale);
    CHECK(difference / scale < .2);
    worst = std::max(worst, difference / scale);
  }
  return worst;
}

struct Small : Spec {  // the issue's: two layers of width 64
  static constexpr EncoderShape shape{.width = 64, .depth = 2, .heads = 2, .feed_forward = 128};
  using Frontend = frontend::LogMel<20, 2>;
  using Position = position::Convolution<8, 9>;
  using Objective = objective::Hubert<16, objective::Cosine<32>>;
};

}  // namespace

TEST_CASE_TEMPLATE(
    "losses and gradients on Cuda are the Reference's, and the same in every order of threads and blocks", Model, Odd,
    OddPre, OddBias, OddSines, Regular) {
  if (!has_device()) return;
  const auto options = all_rows<Model>();
  for (const bool drops : {false, true}) {
    const Noise noise = drops ? Noise::of({.dropout = .2f}, 2, 3, 9) : Noise::off();
    const PackedLane lane = random_lane({71, 1, 13, 40, 2}, Model::Frontend::features, Model::Objective::classes, 21);
    LossOf<Model, double> reference(lane);
    const auto values = random_parameters<Model>(8);
    std::vector<double> exact(values.size(), 0.);
    const double loss = reference.loss(values.data(), lane, noise, options, exact.data());

    std::vector<float> first;
    std::vector<Order> orders{Order::forward};  // a checker need not see all: it finds what no order shows
    if (variant == "plain") orders = {Order::forward, Order::reverse, Order::random};
    for (const auto order : orders) {
      const Execution execution(order);
      Trial<Model, Cuda<float>> trial(8);
      const StepResult result = trial.engine.rehearse(batch_of(lane), noise, options);
      CHECK(result.measures.loss == doctest::Approx(loss).epsilon(1e-5));
      const auto gradients = trial.engine.gradients();
      if (first.empty()) {
        first = gradients;
        CHECK(worst_difference<Model>(gradients, exact) < 2e-4);
      }
      CHECK(first == gradients);
    }
    // Eight bits, on weights as large as training makes them: with larger ones a softmax is nearly a step.
    const auto moderate = random_parameters<Model>(8, .05);
    std::fill(exact.begin(), exact.end(), 0.);
    const double moderate_loss = reference.loss(moderate.data(), lane, noise, options, exact.data());
    Trial<Model, Cuda<bf16>> narrow(8, {140, 71}, true, .05);
    CHECK(narrow.engine.rehearse(batch_of(lane), noise, options).measures.loss ==
          doctest::Approx(moderate_loss).epsilon(.01));
    const auto rough = narrow.engine.gradients();
    worst_difference<Model>(rough, exact);  // within .2 each
    double squares = 0, of = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const double d = static_cast<double>(rough[i]) - exact[i];
      squares += d * d;
      of += exact[i] * exact[i];
    }
    CAPTURE(std::sqrt(squares / of));
    CHECK(squares < .02 * .02 * of);
  }
}

TEST_CASE("twenty steps on Cuda are those of the Cpu") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const Capacity capacity{48, 30};
  ThreadPool executor(1);
  Engine<Small, Cpu<float>> cpu(executor, capacity, 1);
  const auto exact = random_parameters<Small>(4);
  std::copy(exact.begin(), exact.end(), cpu.values().begin());
  cpu.prepare();
  Trial<Small, Cuda<float>> wide(4, capacity);
  Trial<Small, Cuda<bf16>> narrow(4, capacity);
  double first = 0, last = 0;
  for (std::uint32_t step = 0; step < 20; ++step) {
    const Batch batch = batch_of(random_lane({30, 10}, Small::Frontend::features, 16, 50 + step), step);
    const Noise noise = Noise::of({.dropout = .1f}, 2, 3, step);
    OptimizerOptions optimizer;
    const double rate = 2e-3 * (step + 1) / 20;
    cpu.submit(batch, noise, options, optimizer, rate, step + 1);
    wide.engine.submit(batch, noise, options, optimizer, rate, step + 1);
    narrow.engine.submit(batch, noise, options, optimizer, rate, step + 1);
    const StepResult wanted = cpu.collect(), got = wide.engine.collect(), rough = narrow.engine.collect();
    CHECK(got.measures.loss == doctest::Approx(wanted.measures.loss).epsilon(1e-4));
    CHECK(got.gradient_norm == doctest::Approx(wanted.gradient_norm).epsilon(1e-3));
    CHECK(got.measures.masked_accuracy == doctest::Approx(wanted.measures.masked_accuracy));
    CHECK(got.measures.code_perplexity == doctest::Approx(wanted.measures.code_perplexity));
    CHECK(got.measures.target_perplexity == doctest::Approx(wanted.measures.target_perplexity));
    CHECK(rough.measures.loss == doctest::Approx(wanted.measures.loss).epsilon(2e-2));
    if (step == 0) first = wanted.measures.loss;
    last = wanted.measures.loss;
  }
  CHECK(last < first);
}

TEST_CASE("a recorded step, replayed on other boundaries, masks, noise and rates, is the step enqueued one by one") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  std::vector<std::vector<float>> values;
  for (const bool record : {false, true}) {
    const Execution execution(record ? Order::random : Order::forward);
    Trial<Small, Cuda<bf16>> trial(4, {48, 30}, record);
    CHECK(trial.engine.nodes() == 0);
    std::uint32_t step = 0;
    for (auto const& lengths : {std::vector<int>{30, 10}, {5, 30, 12, 1}, {20, 20}, {48}}) {
      const Noise noise = Noise::of({.dropout = .1f, .layer_drop = .5f}, 2, 3, step);
      trial.engine.submit(batch_of(random_lane(lengths, Small::Frontend::features, 16, 50 + step), step), noise,
                          options, {}, 1e-3 * (step + 1), step + 1);
      CHECK(std::isfinite(trial.engine.collect().measures.loss));
      ++step;
    }
    CHECK((trial.engine.nodes() > 0) == record);
    trial.engine.settle();
    values.emplace_back(trial.engine.values().begin(), trial.engine.values().end());
  }
  CHECK(values[0] == values[1]);
}

TEST_CASE("a skipped layer passes its input on, and gets no gradient") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  Noise noise;  // layer 1 skipped
  noise.layer_drop = true;
  noise.skipped = 2;
  LossOf<Small, double> reference(lane);
  const auto values = random_parameters<Small>(8);
  std::vector<double> exact(values.size(), 0.);
  const double loss = reference.loss(values.data(), lane, noise, options, exact.data());
  Trial<Small, Cuda<float>> trial(8, {48, 30});
  CHECK(trial.engine.rehearse(batch_of(lane), noise, options).measures.loss == doctest::Approx(loss).epsilon(1e-5));
  CHECK(worst_difference<Small>(trial.engine.gradients(), exact) < 2e-4);
}

TEST_CASE("a step ahead of the one before it gives the same numbers") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  std::vector<std::vector<double>> losses;
  for (const bool ahead : {false, true}) {
    Trial<Small, Cuda<float>> trial(4, {48, 30});
    std::vector<double> said;
    std::uint32_t submitted = 0;
    const auto submit = [&] {
      trial.engine.submit(batch_of(random_lane({30, 10}, Small::Frontend::features, 16, 50 + submitted), submitted),
                          Noise::off(), options, {}, 1e-3, submitted + 1);
      ++submitted;
    };
    for (std::uint32_t step = 0; step < 5; ++step) {
      if (submitted == step) submit();
      if (ahead && submitted < 5) submit();
      said.push_back(trial.engine.collect().measures.loss);
    }
    losses.push_back(said);
  }
  CHECK(losses[0] == losses[1]);
}

TEST_CASE("a loss that is no number leaves the model as it was") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  Trial<Small, Cuda<bf16>> trial(4, {48, 30});
  const std::vector<float> before(trial.engine.values().begin(), trial.engine.values().end());
  PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  const auto seen = static_cast<std::size_t>(lane.unmasked[3] * Small::Frontend::features);
  lane.features[seen] = std::numeric_limits<float>::quiet_NaN();
  trial.engine.submit(batch_of(lane), Noise::off(), options, {}, 1e-3, 1);
  lane.features[seen] = 0;
  trial.engine.submit(batch_of(lane), Noise::off(), options, {}, 1e-3, 2);  // ahead of what is known
  CHECK(std::isnan(trial.engine.collect().measures.loss));
  CHECK(std::isfinite(trial.engine.collect().measures.loss));
  trial.engine.settle();
  CHECK(std::equal(before.begin(), before.end(), trial.engine.values().begin()));
  trial.engine.prepare();
  trial.engine.submit(batch_of(lane), Noise::off(), options, {}, 1e-3, 1);
  CHECK(std::isfinite(trial.engine.collect().measures.loss));
  trial.engine.settle();
  CHECK_FALSE(std::equal(before.begin(), before.end(), trial.engine.values().begin()));
}

TEST_CASE("a batch of more sequences than any before makes room for them") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const PackedLane few = random_lane({24, 24}, Small::Frontend::features, 16, 5),
                   many = random_lane(std::vector<int>(40, 1), Small::Frontend::features, 16, 6);
  Trial<Small, Cuda<float>> grown(4, {48, 48}), fresh(4, {48, 48});
  grown.engine.rehearse(batch_of(few), Noise::off(), options);
  const double loss = grown.engine.rehearse(batch_of(many), Noise::off(), options).measures.loss;
  CHECK(loss == fresh.engine.rehearse(batch_of(many), Noise::off(), options).measures.loss);
  CHECK(grown.engine.rehearse(batch_of(few), Noise::off(), options).measures.loss ==
        fresh.engine.rehearse(batch_of(few), Noise::off(), options).measures.loss);
}

TEST_CASE("a measure recorded before any step is right after steps have asked for more memory") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  Trial<Small, Cuda<bf16>> trial(4, {48, 30});
  const double before = trial.engine.measure(batch_of(lane), options, nullptr).loss;
  trial.engine.rehearse(batch_of(lane), Noise::off(), options);
  trial.engine.rehearse(batch_of(lane), Noise::off(), options);
  CHECK(trial.engine.measure(batch_of(lane), options, nullptr).loss == before);
}

TEST_CASE("products may be chosen by time") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  Trial<Small, Cuda<bf16>> plain(4, {48, 30});
  DeviceEngine<Small, Cuda<bf16>> tuned({48, 30}, {.tune = true});
  std::copy(plain.engine.values().begin(), plain.engine.values().end(), tuned.values().begin());
  tuned.prepare();
  const double loss = plain.engine.rehearse(batch_of(lane), Noise::off(), options).measures.loss;
  CHECK(tuned.rehearse(batch_of(lane), Noise::off(), options).measures.loss == doctest::Approx(loss).epsilon(1e-3));
  // What was tried has added nothing to the gradient.
  const auto wanted = plain.engine.gradients(), got = tuned.gradients();
  double squares = 0, of = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double d = static_cast<double>(wanted[i]) - static_cast<double>(got[i]);
    squares += d * d;
    of += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
  }
  CHECK(squares < 1e-4 * of);
}

TEST_CASE("held-out loss is measured without noise and changes nothing") {
  if (!has_device()) return;
  const auto options = all_rows<Small>();
  const PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  ThreadPool executor(1);
  Engine<Small, Cpu<float>> cpu(executor, {48, 30}, 1);
  const auto exact = random_parameters<Small>(4);
  std::copy(exact.begin(), exact.end(), cpu.values().begin());
  cpu.prepare();
  Trial<Small, Cuda<float>> trial(4, {48, 30});
  double spread = 0, wanted_spread = 0;
  const BatchMeasures wanted = cpu.measure(batch_of(lane), options, &wanted_spread);
  for (int repeat = 0; repeat < 2; ++repeat) {
    const BatchMeasures got = trial.engine.measure(batch_of(lane), options, &spread);
    CHECK(got.loss == doctest::Approx(wanted.loss).epsilon(1e-5));
    CHECK(got.masked_accuracy == doctest::Approx(wanted.masked_accuracy));
    CHECK(spread == doctest::Approx(wanted_spread).epsilon(1e-4));
  }
}

#ifdef HOST_CUDA_VARIANT
TEST_CASE("an engine works on its own device from any thread") {
  const Execution two(Order::forward);
  Execution::limit_devices(2);
  const auto options = all_rows<Small>();
  const PackedLane lane = random_lane({30, 10}, Small::Frontend::features, 16, 5);
  double loss = 0, elsewhere = 0;
  std::thread([&] {
    Trial<Small, Cuda<bf16>> first(4, {48, 30});
    DeviceEngine<Small, Cuda<bf16>> second({48, 30}, {.number = 1});
    std::copy(first.engine.values().begin(), first.engine.values().end(), second.values().begin());
    std::thread([&] { second.prepare(); }).join();
    loss = first.engine.rehearse(batch_of(lane), Noise::off(), options).measures.loss;
    std::thread([&] { elsewhere = second.rehearse(batch_of(lane), Noise::off(), options).measures.loss; }).join();
    CHECK(first.engine.measure(batch_of(lane), options, nullptr).loss ==
          second.measure(batch_of(lane), options, nullptr).loss);
  }).join();
  CHECK(loss == elsewhere);
}

TEST_CASE("what a machine lacks is said before anything is computed") {
  {
    const Execution poor(Order::forward);
    Execution::limit_memory(std::size_t{64} << 20);
    CHECK_THROWS_WITH_AS((Trial<Small, Cuda<float>>(4, {4000, 1000})), doctest::Contains("GiB of GPU memory"), Error);
  }
  const Execution none(Order::forward);
  Execution::limit_devices(0);
  CHECK_THROWS_WITH_AS((Trial<Small, Cuda<float>>(4, {48, 30})), doctest::Contains("no usable NVIDIA GPU"), Error);
}
#endif
