// What a run tells of itself while it goes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <sotto/budget/units.hpp>

namespace sotto::inline SOTTO_API {

/// How training ended.
enum class Outcome {
  budget_spent,  ///< the next step would cost more than is left
  stopped,       ///< the stop token asked for it
  diverged       ///< the loss or the gradient is no number any more, or the loss exploded
};

/// Loss on speech that is never trained on.
struct HeldOut {
  double loss = 0;
  double masked_accuracy = 0;
  double code_perplexity = 0;  ///< of the predictions
  double spread = 0;           ///< mean deviation of an output channel over frames: 0 when features are constant
  double seconds = 0;          ///< what the evaluation took; not billed
};

/// One optimiser step, done.
struct Step {
  std::uint64_t step = 0;  ///< steps done
  Flops spent{};           ///< with labels
  double fraction = 0;     ///< of the budget spent
  double loss = 0;
  double masked_accuracy = 0;
  double code_perplexity = 0;    ///< of the predictions at masked rows: 1 when all frames get one code
  double target_perplexity = 0;  ///< of their labels
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  double audio_seconds = 0;  ///< seen so far
  double seconds = 0;        ///< of training so far, resumed runs included
  double step_seconds = 0;
  double waited_seconds = 0;  ///< of this step, for data
  double gflops = 0;          ///< model GFLOP/s of this step
  double times_real_time = 0;
  double left_seconds = 0;  ///< estimate
  std::optional<HeldOut> held_out;
  std::string_view warning;  ///< what looks wrong, while it happens; empty: nothing
};

/// What happens before the first step.
struct Preparation {
  enum class Phase { clusters, labels, calibration };
  Phase phase;
  double fraction;  ///< done, of this phase
};

}  // namespace sotto::inline SOTTO_API
