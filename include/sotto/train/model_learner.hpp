// A spec on a backend, as the training loop asks for it.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <sotto/budget/cost.hpp>
#include <sotto/encoder/describe.hpp>
#include <sotto/train/batcher.hpp>
#include <sotto/train/corpus_statistics.hpp>
#include <sotto/train/engine.hpp>
#include <sotto/train/learner.hpp>
#include <sotto/train/options.hpp>

namespace sotto::inline SOTTO_ABI {

template <class Model, class B> class ModelLearner final : public Learner {
 public:
  using Frontend = typename Model::Frontend;
  using Objective = typename Model::Objective;
  using Targets = typename Objective::Targets;

  SOTTO_COLD explicit ModelLearner(PretrainerOptions<Model> const& options)
      : objective_(options.objective), augmentation_(options.augmentation), encoder_(options.encoder),
        seed_(options.seed) {
    if (objective_.mask.length < 1 || objective_.mask.length > 10000)
      throw_error(ErrorCode::usage,
                  {"objective.mask.length is ", objective_.mask.length, " and must be from 1 to 10000"});
    if (!(objective_.mask.probability >= 1e-4f && objective_.mask.probability <= 1))
      throw_error(ErrorCode::usage, {"objective.mask.probability is ", static_cast<double>(objective_.mask.probability),
                                     " and must be from 0.0001 to 1"});
    const int crop = Frontend::frames(options.batch.crop.count() * 16);
    EngineOf<Model, B>::expect(options.run(), {std::max({options.batch.rows, options.held_out.rows, crop}), crop});
  }
  SOTTO_COLD ~ModelLearner() override = default;
  using EngineKind = typename EngineOf<Model, B>::type;
  EngineKind& engine() { return *engine_; }

  Texts spec_fields() const override { return sotto::spec_fields<Model>(); }
  SOTTO_COLD void visit_options(detail::OptionText& text) override {
    text.under("objective.");
    text("mask.probability", objective_.mask.probability);  // of every objective: the trainer draws them
    text("mask.length", objective_.mask.length);
    text("mask.minimum", objective_.mask.minimum);
    detail::visit_own(objective_, text);
    int link = 0;
    const auto visit_link = [&](auto& options) {
      text.under(joined({"augmentation.", link++, "."}));
      detail::visit_own(options, text);
    };
    std::apply([&](auto&... links) { (visit_link(links), ...); }, augmentation_);
  }
  Precision precision() const override {
    using Stored = typename detail::ValueOf<typename B::Element>::type;
    return std::is_same_v<Stored, bf16> ? Precision::bf16 : Precision::fp32;
  }
  int frames(std::int64_t samples) const override { return Frontend::frames(samples); }
  int hop() const override { return Frontend::hop; }
  int classes() const override { return Targets::classes; }

  void fit_targets(AnySource const& source, std::span<std::uint32_t const> train, std::uint64_t seed,
                   Executor& executor, FunctionRef<void(double)> progress) override {
    if constexpr (Targets::classes > 0) targets_.fit(source, train, objective_.targets, seed, executor, progress);
  }
  void restore_targets(std::span<float const> state) override { targets_.restore(state); }
  void label(AnySource const& source, Executor& executor) override { targets_.label(source, executor); }
  Flops target_cost() const override { return {targets_.flops()}; }
  std::span<float const> target_state() const override { return targets_.state(); }

  SOTTO_COLD void build(AnySource const& source, RunOptions const& options, int batch_rows, int longest) override {
    const LanePacking packing = EngineOf<Model, B>::packing(options, batch_rows);
    const Capacity capacity{packing.most_rows(batch_rows, longest), longest};
    batcher_ = std::make_unique<BatcherKind>(source, targets_, packing, objective_.mask, augmentation_, seed_);
    batcher_->reserve(capacity.rows, batch_rows);
    engine_ = EngineOf<Model, B>::make(options, capacity);
  }
  SOTTO_COLD Flops initialise(AnySource const& source, std::span<std::uint32_t const> train, std::uint64_t seed,
                              Executor& executor) override {
    sotto::initialise(table(), engine_->values().data(), seed);
    if constexpr (Frontend::needs_corpus)
      return measure_corpus<Frontend>(source, train, executor,
                                      Net::template carve_parameters<float>(engine_->values().data()).frontend);
    return {};
  }
  SOTTO_COLD void begin() override {
    batcher_->configure(Net::template carve_parameters<float const>(engine_->values().data()).frontend);
    engine_->prepare();
  }

  std::span<ParameterEntry const> table() const override { return parameter_table<Model>; }
  std::span<float> values() override { return engine_->values(); }
  std::span<float> first_moments() override { return engine_->first_moments(); }
  std::span<float> second_moments() override { return engine_->second_moments(); }

  void make(std::span<Crop const> crops, std::uint32_t cursor, Purpose purpose, Batch& batch) override {
    batcher_->make(crops, cursor, purpose, batch);
  }
  /// Front-end, encoder and heads, forward and backward. Layers that the step skips are not billed.
  SOTTO_COLD Flops cost(Batch const& batch) const override {
    const Noise noise = noise_of(batch);
    int layers = 0;
    for (int i = 0; i < Model::shape.depth; ++i) layers += noise.skips(i) ? 0 : 1;
    Flops cost = Cost<Model>::head(batch.masked, batch.rows - batch.masked, objective_);
    for (auto const& lane : batch.lanes)
      for (std::size_t i = 1; i < lane.offsets.size(); ++i)
        cost += Cost<Model>::train(lane.offsets[i] - lane.offsets[i - 1], layers);
    return cost;
  }
  void submit(Batch const& batch, OptimizerOptions const& options, double rate, std::uint64_t step) override {
    engine_->submit(batch, noise_of(batch), objective_, options, rate, step);
  }
  StepResult collect() override { return engine_->collect(); }
  int steps_ahead() const override { return EngineKind::steps_ahead; }
  void settle() override { engine_->settle(); }
  void rehearse(Batch const& batch) override { engine_->rehearse(batch, noise_of(batch), objective_); }
  BatchMeasures measure(Batch const& batch, double& spread) override {
    return engine_->measure(batch, objective_, &spread);
  }

 private:
  using Net = Network<Model, B>;
  using BatcherKind = Batcher<Frontend, typename Model::Augmentation, Targets, EngineOf<Model, B>::raw>;

  Noise noise_of(Batch const& batch) const { return Noise::of(encoder_, Model::shape.depth, seed_, batch.cursor); }

  typename Objective::Options objective_;
  typename Model::Augmentation::Options augmentation_;
  EncoderOptions encoder_;
  std::uint64_t seed_;
  Targets targets_;
  std::unique_ptr<BatcherKind> batcher_;
  std::unique_ptr<EngineKind> engine_;
};

}  // namespace sotto::inline SOTTO_ABI
