// What the training loop asks of a model: the loop is compiled once, whatever models are trained.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/budget/units.hpp>
#include <sotto/core/bf16.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/data/sampler.hpp>
#include <sotto/data/source.hpp>
#include <sotto/nn/parameters.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/batch_measures.hpp>
#include <sotto/train/detail/option_text.hpp>
#include <sotto/train/options.hpp>
#include <sotto/train/step.hpp>

namespace sotto::inline SOTTO_ABI {

/// A model on a backend, with its objective's targets and what makes its batches. The calls below come in this order:
/// fit_targets() or restore_targets(), label(), build(), then initialise() or values() and moments filled from a
/// checkpoint, then begin(), and then steps.
class Learner {
 public:
  virtual ~Learner() = default;

  /// Field and value of everything that makes two specs different models.
  virtual Texts spec_fields() const = 0;
  /// Options of the objective and the augmentation.
  virtual void visit_options(detail::OptionText& text) = 0;
  /// Of activations and products.
  virtual Precision precision() const = 0;
  /// Frames of an utterance of so many samples; samples from one frame to the next.
  virtual int frames(std::int64_t samples) const = 0;
  virtual int hop() const = 0;
  /// Classes that are predicted; 0: none.
  virtual int classes() const = 0;

  /// Learns what labels are made of.
  virtual void fit_targets(AnySource const& source, std::span<std::uint32_t const> train, std::uint64_t seed,
                           Executor& executor, FunctionRef<void(double done)> progress) = 0;
  virtual void restore_targets(std::span<float const> state) = 0;
  virtual void label(AnySource const& source, Executor& executor) = 0;
  /// What fitting and labelling cost.
  virtual Flops target_cost() const = 0;
  /// What a checkpoint keeps of them; empty: nothing.
  virtual std::span<float const> target_state() const = 0;

  /// Allocates for batches of at most batch_rows rows, whose sequences have at most `longest`.
  virtual void build(AnySource const& source, RunOptions const& options, int batch_rows, int longest) = 0;
  /// First parameters; returns what measuring the corpus cost, where a front-end needs that.
  virtual Flops initialise(AnySource const& source, std::span<std::uint32_t const> train, std::uint64_t seed,
                           Executor& executor) = 0;
  /// Parameters stand: makes the copy of them that products read.
  virtual void begin() = 0;

  virtual std::span<ParameterEntry const> table() const = 0;
  /// The numbers on the host: those of the last step once settle() was called.
  virtual std::span<float> values() = 0;
  virtual std::span<float> first_moments() = 0;
  virtual std::span<float> second_moments() = 0;

  /// Makes a batch: a function of (seed, cursor, crops). Once steps have begun, called on a thread of its own.
  virtual void make(std::span<Crop const> crops, std::uint32_t cursor, Purpose purpose, Batch& batch) = 0;
  /// What one optimiser step on the batch costs, exactly.
  virtual Flops cost(Batch const& batch) const = 0;
  /// Begins a step: the gradient of the batch, and the optimiser's step with it, numbered from 1, which is left out
  /// where loss or gradient is no number, like every one after it. The batch may be reused when this returns.
  virtual void submit(Batch const& batch, OptimizerOptions const& options, double rate, std::uint64_t step) = 0;
  /// What the oldest step under way did; waits for it.
  virtual StepResult collect() = 0;
  /// Steps that may be submitted before the one before them is collected.
  virtual int steps_ahead() const { return 0; }
  /// Makes the numbers on the host those of the last step. Nothing is under way.
  virtual void settle() = 0;
  /// Does the work of a step, and nothing with it: to find out how fast steps are.
  virtual void rehearse(Batch const& batch) = 0;
  /// Loss of a batch alone. spread: mean over lanes of the deviation of the encoder's output over frames.
  virtual BatchMeasures measure(Batch const& batch, double& spread) = 0;
};

}  // namespace sotto::inline SOTTO_ABI
