// What the words probe is asked and what it answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/probe/pooling.hpp>

namespace sotto::probe::inline SOTTO_ABI {

/// What may be chosen about a words probe.
struct WordOptions {
  Pooling pooling = Pooling::frames20;  ///< which pooling the headline figure is of
  Executor* executor = nullptr;         ///< where it runs; null: a pool of the probe's own
  std::uint64_t seed = 0;               ///< deals out speakers without a split; draws the bootstrap
  /// Strengths to choose from, as fractions of the Gram matrix's mean eigenvalue.
  std::vector<double> ridges{1e-3, 1e-2, 3e-2, .1, .3, 1, 3, 10, 30};
  int resamples = 2000;             ///< of the bootstrap
  std::size_t memory = 2ull << 30;  ///< bytes of pooled features held at once; more passes if short
};

/// One layer under one pooling; its ridge was chosen on the validation speakers.
struct LayerScore {
  int layer = 0;
  std::string layer_name;
  Pooling pooling = Pooling::frames20;
  double ridge = 0;
  double validation = 0;  ///< accuracy, 0..1
  double test = 0;        ///< accuracy, 0..1
};

/// Test accuracy of the layer and ridge that did best on validation, with its 95 % interval.
struct WordScore : LayerScore {
  double accuracy = 0;       ///< equals test
  double low = 0, high = 0;  ///< bootstrap that resamples test speakers, percentiles 2.5 and 97.5
};

/// What the probe found. The base is the headline: the pooling that was asked for.
struct ProbeResult : WordScore {
  WordScore frames20, mean_std;    ///< both poolings, whatever was asked for
  std::vector<LayerScore> layers;  ///< every layer, first with frames20, then with mean_std
  double chance = 0;               ///< test accuracy of always answering the commonest training word
  int classes = 0;
  int train_utterances = 0, validation_utterances = 0, test_utterances = 0;
  int train_speakers = 0, validation_speakers = 0, test_speakers = 0;
  struct Skipped {
    std::string why;
    int utterances;
  };
  std::vector<Skipped> skipped;
  std::vector<std::string> notes;  ///< decisions that a reader of the figure should know
};

}  // namespace sotto::probe::inline SOTTO_ABI
