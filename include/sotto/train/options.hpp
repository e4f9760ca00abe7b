// Everything of a run that is not a type: options with defaults, each of them stored in the checkpoint.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include <sotto/budget/units.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/nn/noise.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/step.hpp>

namespace sotto::inline SOTTO_ABI {

struct BatchOptions {
  int rows = 8000;                        ///< 20 ms frames of an optimiser step: 160 s of audio
  int lane_rows = 1000;                   ///< rows that go through the network together, at most (or the longest crop)
  std::chrono::milliseconds crop{15600};  ///< longest piece of an utterance
};

/// Speech that is never trained on, by speaker: those of the `val` split and a part of the others.
struct HeldOutOptions {
  double every = .02;     ///< evaluate each time this part of the budget is spent; 0: only at the end
  double speakers = .02;  ///< part of the other speakers that is held out too
  int rows = 4000;        ///< frames evaluated at most: the same ones, under the same masks, each time
};

struct CheckpointOptions {
  std::filesystem::path directory;  ///< empty: nothing is written
  std::chrono::seconds every{300};  ///< wall clock between saves; a run also saves when it ends or is stopped
  bool resume = false;              ///< go on from the checkpoint in `directory`; it must have been of this run
};

/// Options of a Pretrainer<Model>.
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
};

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// Writes numbers to and reads them from named texts.
class OptionText {
 public:
  using Texts = std::map<std::string, std::string>;

  static OptionText writing(Texts& to) { return OptionText(&to, nullptr); }
  static OptionText reading(Texts const& from) { return OptionText(nullptr, &from); }

  template <class T> void operator()(std::string const& name, T& value) {
    if (to_ != nullptr) {
      (*to_)[name] = text_of(value);
      return;
    }
    const auto at = from_->find(name);
    if (at == from_->end())
      throw Error(ErrorCode::checkpoint, "the checkpoint does not say '" + name + "': it is from another version");
    read(at->second, value);
  }

 private:
  OptionText(Texts* to, Texts const* from) : to_(to), from_(from) {}

  template <class T> static std::string text_of(T const& value) {
    if constexpr (std::is_same_v<T, Budget>) {
      return value.text();
    } else if constexpr (std::is_floating_point_v<T>) {
      char text[40];
      std::snprintf(text, sizeof text, "%.17g", static_cast<double>(value));
      return text;
    } else if constexpr (requires { value.count(); }) {
      return std::to_string(value.count());
    } else {
      return std::to_string(value);
    }
  }
  template <class T> static void read(std::string const& text, T& value) {
    if constexpr (std::is_same_v<T, Budget>)
      value = Budget::parse(text);
    else if constexpr (std::is_floating_point_v<T>)
      value = static_cast<T>(std::strtod(text.c_str(), nullptr));
    else if constexpr (requires { value.count(); })
      value = T(std::strtoll(text.c_str(), nullptr, 10));
    else if constexpr (std::is_unsigned_v<T>)
      value = static_cast<T>(std::strtoull(text.c_str(), nullptr, 10));
    else
      value = static_cast<T>(std::strtoll(text.c_str(), nullptr, 10));
  }

  Texts* to_;
  Texts const* from_;
};

/// Options of a user's own objective or augmentation are stored if they have `visit(f)`, which names each.
template <class Options, class F> void visit_own(Options& options, F&& f) {
  if constexpr (requires { options.visit(f); }) options.visit(f);
}

template <class Model, class F> void visit_options(PretrainerOptions<Model>& o, F&& f) {
  f("budget", o.budget);
  f("seed", o.seed);
  f("slots", o.slots);
  f("batch.rows", o.batch.rows);
  f("batch.lane_rows", o.batch.lane_rows);
  f("batch.crop_ms", o.batch.crop);
  f("encoder.dropout", o.encoder.dropout);
  f("encoder.layer_drop", o.encoder.layer_drop);
  visit_own(o.objective, f);
  std::apply([&](auto&... links) { (visit_own(links, f), ...); }, o.augmentation);
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
