// Everything of a run that is not a type: options with defaults. A checkpoint keeps those that change what is computed.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>

#include <sotto/budget/units.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/nn/noise.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/detail/option_text.hpp>
#include <sotto/train/step.hpp>

namespace sotto::inline SOTTO_ABI {

struct BatchOptions {
  int rows = 8000;       ///< 20 ms frames of an optimiser step: 160 s of audio
  int lane_rows = 1000;  ///< rows that go through the network together, on average at most; up to one crop more
  std::chrono::milliseconds crop{15600};  ///< longest piece of an utterance
};

/// Speech that is never trained on, by speaker: those of the `val` split and a part of the others.
struct HeldOutOptions {
  double every = .02;     ///< evaluate each time this part of the budget is spent; 0: only at the end
  double speakers = .02;  ///< part of the other speakers that is held out too
  int rows = 4000;        ///< frames evaluated at most: the same ones, under the same masks, each time
};

/// Of a backend that is a device. Not stored: who resumes with another tf32 or tune has other bits.
struct DeviceOptions {
  int number = 0;      ///< which, where there are several
  bool record = true;  ///< replay steps as one graph; else operations are enqueued one by one, with the same result
  bool tf32 = false;   ///< products of fp32 numbers by tensor cores, with 10 bits of mantissa
  bool tune = false;   ///< time cuBLASLt's proposals and take the fastest: runs then differ in their last bits
};

struct CheckpointOptions {
  std::filesystem::path directory;  ///< empty: nothing is written
  std::chrono::seconds every{300};  ///< wall clock between saves; a run also saves when it ends or is stopped
  bool resume = false;              ///< go on from the checkpoint in `directory`; it must have been of this run
};

/// What of a run's options is of no model.
struct RunOptions {
  Budget budget = Flops{0};
  std::uint64_t seed = 1;
  int threads = 0;
  int slots = 0;
  BatchOptions batch{};
  EncoderOptions encoder{};
  OptimizerOptions optimizer{};
  HeldOutOptions held_out{};
  bool exclude_test_split = false;
  CheckpointOptions checkpoint{};
  std::function<void(Step const&)> on_step{};
  std::function<void(Preparation const&)> on_preparation{};
  std::stop_token stop{};
  Executor* executor = nullptr;
  DeviceOptions device{};
};

/// Options of a Pretrainer<Model>: one flat aggregate, so that a program names only what it changes.
template <class Model> struct PretrainerOptions {
  Budget budget = Flops{0};
  std::uint64_t seed = 1;
  int threads = 0;  ///< 0: all cores
  int slots = 0;    ///< gradient buffers; 0: as many as threads. The same slots give the same bits on any threads
  BatchOptions batch{};
  EncoderOptions encoder{};
  typename Model::Objective::Options objective{};
  typename Model::Augmentation::Options augmentation{};
  OptimizerOptions optimizer{};
  HeldOutOptions held_out{};
  bool exclude_test_split = false;  ///< leave the audio of the `test` split out of training as well
  CheckpointOptions checkpoint{};
  std::function<void(Step const&)> on_step{};
  std::function<void(Preparation const&)> on_preparation{};
  std::stop_token stop{};
  Executor* executor = nullptr;  ///< the host's pool; nullptr: sotto's own, of `threads`
  DeviceOptions device{};

  SOTTO_COLD RunOptions run() const {
    return {.budget = budget,
            .seed = seed,
            .threads = threads,
            .slots = slots,
            .batch = batch,
            .encoder = encoder,
            .optimizer = optimizer,
            .held_out = held_out,
            .exclude_test_split = exclude_test_split,
            .checkpoint = checkpoint,
            .on_step = on_step,
            .on_preparation = on_preparation,
            .stop = stop,
            .executor = executor,
            .device = device};
  }
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// What a run must have in common with the one that it goes on from.
inline SOTTO_COLD void visit_options(RunOptions& o, OptionText& f) {
  f("budget", o.budget);
  f("seed", o.seed);
  f("slots", o.slots);
  f("batch.rows", o.batch.rows);
  f("batch.lane_rows", o.batch.lane_rows);
  f("batch.crop_ms", o.batch.crop);
  f("encoder.dropout", o.encoder.dropout);
  f("encoder.layer_drop", o.encoder.layer_drop);
  f("optimizer.learning_rate", o.optimizer.learning_rate);
  f("optimizer.beta1", o.optimizer.beta1);
  f("optimizer.beta2", o.optimizer.beta2);
  f("optimizer.epsilon", o.optimizer.epsilon);
  f("optimizer.weight_decay", o.optimizer.weight_decay);
  f("optimizer.clip", o.optimizer.clip);
  f("optimizer.warmup", o.optimizer.warmup);
  f("held_out.every", o.held_out.every);
  f("held_out.speakers", o.held_out.speakers);
  f("held_out.rows", o.held_out.rows);
  f("exclude_test_split", o.exclude_test_split);
}

}  // namespace sotto::detail::inline SOTTO_ABI
