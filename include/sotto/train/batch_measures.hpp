// What a batch said of the model.
#pragma once

#include <cmath>
#include <span>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_ABI {

struct BatchMeasures {
  double loss = 0, masked_accuracy = 0, code_perplexity = 0, target_perplexity = 0;
};

/// What an optimiser step did.
struct StepResult {
  BatchMeasures measures;
  double gradient_norm = 0;  ///< before clipping
};

/// exp of the entropy of counts: how many classes are in use.
inline SOTTO_COLD double perplexity(std::span<double const> counts) {
  double total = 0, entropy = 0;
  for (const double n : counts) total += n;
  for (const double n : counts)
    if (n > 0) entropy -= n / total * std::log(n / total);
  return total > 0 ? std::exp(entropy) : 0;
}

}  // namespace sotto::inline SOTTO_ABI
