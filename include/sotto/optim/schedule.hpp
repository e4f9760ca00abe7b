// The learning rate as a function of how much of the budget is spent, whatever the budget is counted in.
#pragma once

#include <algorithm>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_ABI {

/// AdamW and its schedule. Defaults: the recipe behind sotto's baselines; the paper's rate is 5e-4 and its clip 10.
struct OptimizerOptions {
  double learning_rate = 1e-3;  ///< the highest
  double beta1 = .9, beta2 = .98, epsilon = 1e-6;
  double weight_decay = .01;  ///< decoupled; on weights, not on biases and norms
  double clip = 1;            ///< largest norm of the gradient; 0: unclipped
  double warmup = .08;        ///< part of the budget during which the rate rises from 0
};

/// Linear warmup, then linear decay to 0. fraction: of the budget, in [0, 1]; a step is at the middle of what it costs.
inline double learning_rate(OptimizerOptions const& options, double fraction) {
  const double left = (1 - fraction) / (1 - std::min(options.warmup, .999999));
  const double risen = options.warmup > 0 ? fraction / options.warmup : 1;
  return options.learning_rate * std::clamp(std::min(risen, left), 0., 1.);
}

}  // namespace sotto::inline SOTTO_ABI
