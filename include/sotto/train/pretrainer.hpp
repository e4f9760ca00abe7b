// Pretrains a spec on a source of speech until a budget is spent.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/budget/cost.hpp>
#include <sotto/encoder/describe.hpp>
#include <sotto/train/batcher.hpp>
#include <sotto/train/checkpoint.hpp>
#include <sotto/train/corpus_statistics.hpp>
#include <sotto/train/division.hpp>
#include <sotto/train/engine.hpp>
#include <sotto/train/history.hpp>
#include <sotto/train/options.hpp>
#include <sotto/train/prefetch.hpp>
#include <sotto/train/step_cost.hpp>

namespace sotto::detail::inline SOTTO_ABI {

template <class Model, class B> class PretrainerBody {
 public:
  using Options = PretrainerOptions<Model>;
  using Targets = typename Model::Objective::Targets;
  using Net = Network<Model, B>;
  using Clock = std::chrono::steady_clock;

  SOTTO_COLD PretrainerBody(AnySource source, Options options)
      : source_(std::move(source)), options_(std::move(options)) {
    if (options_.executor == nullptr) {
      own_pool_ = std::make_unique<ThreadPool>(options_.threads);
      options_.executor = own_pool_.get();
    }
    check();
    std::optional<Checkpoint> checkpoint;
    if (options_.checkpoint.resume) checkpoint = reopen();
    if (options_.slots == 0) options_.slots = options_.executor->concurrency();
    const int crop = Model::Frontend::frames(options_.batch.crop.count() * 16);
    division_ = Division::of(source_, options_.held_out, options_.exclude_test_split, options_.seed, crop,
                             [&](std::size_t i) { return Model::Frontend::frames(source_.samples(i)); });
    prepare_targets(checkpoint);
    int longest = 0;  // of the crops there will be
    for (const std::uint32_t i : division_.train)
      longest = std::max(longest, std::min(crop, Model::Frontend::frames(source_.samples(i))));
    make_sampler(longest);
    batcher_ = std::make_unique<Batcher<Model>>(source_, targets_, options_);
    for (Crop const& c : division_.evaluated) longest = std::max(longest, c.frames);
    const Capacity capacity{
        batcher_->packing().most_rows(std::max(options_.batch.rows, options_.held_out.rows), longest), longest};
    batcher_->reserve(capacity.rows, std::max(options_.batch.rows, options_.held_out.rows));
    engine_ = std::make_unique<Engine<Model, B>>(*options_.executor, capacity, options_.slots);
    if (checkpoint) {
      restore(*checkpoint);
    } else {
      initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine_->values().data(), options_.seed);
      if constexpr (Model::Frontend::needs_corpus)
        label_cost_ += measure_corpus<typename Model::Frontend>(
            source_, division_.train, *options_.executor,
            Net::template carve_parameters<float>(engine_->values().data()).frontend);
      spent_ = label_cost_;
    }
    batcher_->configure(Net::template carve_parameters<float const>(engine_->values().data()).frontend);
    if (!division_.evaluated.empty()) batcher_->make(division_.evaluated, 0, Purpose::held_out, held_out_);
    engine_->prepare();
    set_budget();
    began_ = saved_ = Clock::now();
    start_prefetch();
  }

  /// Does one optimiser step. nullopt: training has ended, and outcome() says how.
  std::optional<Step> step() {
    if (outcome_) return std::nullopt;
    if (options_.stop.stop_requested()) return end(Outcome::stopped, "asked to stop");
    if (options_.budget.kind() == Budget::Kind::wall && elapsed() >= options_.budget.amount())
      return end(Outcome::budget_spent, "the time is up");
    const auto start = Clock::now();
    Batch const& batch = prefetch_->front();
    const double waited = seconds_since(start);
    const Noise noise = Noise::of(options_.encoder, Model::shape.depth, options_.seed, batch.cursor);
    const Flops cost = cost_of(batch, noise);
    if (!affordable(cost, batch)) return end(Outcome::budget_spent, {});
    const BatchMeasures measures = engine_->accumulate(batch, noise, options_.objective);
    Step step;
    step.gradient_norm = engine_->gradient_norm();
    if (!std::isfinite(measures.loss) || !std::isfinite(step.gradient_norm))
      return end(Outcome::diverged, "the " + std::string(std::isfinite(measures.loss) ? "gradient" : "loss") +
                                        " of step " + std::to_string(steps_ + 1) +
                                        " is not a number: lower optimizer.learning_rate or optimizer.clip");
    smoothed_loss_ = steps_ == 0 ? measures.loss : .95 * smoothed_loss_ + .05 * measures.loss;
    lowest_loss_ = steps_ == 0 ? measures.loss : std::min(lowest_loss_, smoothed_loss_);
    if (smoothed_loss_ > 3 * lowest_loss_ + 1)
      return end(Outcome::diverged, "the loss has climbed from " + std::to_string(lowest_loss_) + " to " +
                                        std::to_string(smoothed_loss_) + " by step " + std::to_string(steps_ + 1) +
                                        ": lower optimizer.learning_rate or raise optimizer.warmup");
    const double before = fraction(spent_, steps_, audio_seconds_);
    spent_ += cost;
    ++steps_;
    audio_seconds_ += batch.audio_seconds;
    position_ = batch.next;
    step.fraction = fraction(spent_, steps_, audio_seconds_);
    step.learning_rate = learning_rate(options_.optimizer, (before + step.fraction) / 2);
    engine_->update(options_.optimizer, step.learning_rate, step.gradient_norm, steps_);
    prefetch_->release();
    describe(step, measures, batch_seconds_ = seconds_since(start), waited, cost);
    if (options_.held_out.every > 0 && step.fraction >= next_evaluation_) step.held_out = evaluate();
    step.warning = warning_of(step);
    history_.add(step);
    if (!options_.checkpoint.directory.empty() && Clock::now() - saved_ >= options_.checkpoint.every) save();
    if (options_.on_step) options_.on_step(step);
    return step;
  }

  /// Steps until training ends. Throws what a source, a file or a callback throws.
  Outcome run() {
    while (step()) {
    }
    return *outcome_;
  }

  /// How training ended; nullopt while it goes on.
  std::optional<Outcome> outcome() const { return outcome_; }
  /// Why, in a sentence; empty where the budget was spent.
  std::string const& reason() const { return reason_; }
  std::uint64_t steps() const { return steps_; }
  Flops spent() const { return spent_; }
  /// The budget in FLOPs, where it is counted in them.
  Flops budget() const { return budget_; }
  double audio_seconds() const { return audio_seconds_; }
  double seconds() const { return elapsed(); }
  History const& history() const { return history_; }
  Options const& options() const { return options_; }
  Division const& division() const { return division_; }
  /// FLOPs of the labels: part of spent().
  Flops label_cost() const { return label_cost_; }
  Engine<Model, B>& engine() { return *engine_; }
  /// The file of the last save; empty before it.
  std::filesystem::path const& checkpoint() const { return checkpoint_path_; }
  /// What the next step costs, exactly.
  Flops next_step_cost() {
    Batch const& batch = prefetch_->front();
    return cost_of(batch, Noise::of(options_.encoder, Model::shape.depth, options_.seed, batch.cursor));
  }

  /// Loss on the held-out speech now.
  HeldOut evaluate() {
    HeldOut held;
    const auto start = Clock::now();
    const BatchMeasures m = engine_->measure(held_out_, options_.objective, &held.spread);
    held.loss = m.loss;
    held.masked_accuracy = m.masked_accuracy;
    held.code_perplexity = m.code_perplexity;
    held.seconds = seconds_since(start);
    const double now = fraction(spent_, steps_, audio_seconds_);
    while (options_.held_out.every > 0 && next_evaluation_ <= now) next_evaluation_ += options_.held_out.every;
    return held;
  }
  bool has_held_out() const { return !held_out_.lanes.empty(); }

  /// Writes the checkpoint; what was there is replaced only when the new one is whole.
  SOTTO_COLD void save() {
    Checkpoint::Writer writer;
    for (auto const& [name, value] : spec_fields<Model>()) writer.text("spec." + name, value);
    Checkpoint::Texts texts;
    visit_options(options_, OptionText::writing(texts));
    writer.texts("options.", texts);
    auto run = OptionText::writing(texts = {});
    visit_state(run);
    writer.texts("run.", texts);
    auto const table = std::span<ParameterEntry const>(parameter_table<Model>);
    writer.parameters(table, engine_->values().data());
    writer.tensor("optimizer.first", engine_->first_moments());
    writer.tensor("optimizer.second", engine_->second_moments());
    if (!targets_.state().empty()) writer.tensor("targets.state", targets_.state());
    writer.tensor("history.steps", history_.step_numbers());
    writer.tensor("history.held_out", history_.held_out_numbers());
    checkpoint_path_ = writer.write(options_.checkpoint.directory);
    saved_ = Clock::now();
  }

 private:
  SOTTO_COLD void check() {
    const auto refuse = [](std::string const& sentence) { throw Error(ErrorCode::usage, sentence); };
    if (!(options_.budget.amount() > 0))
      refuse("there is no budget: set options.budget, for example to 1e13_flop or updates(200)");
    if (options_.batch.lane_rows < 1) refuse("batch.lane_rows must be at least 1");
    if (options_.encoder.dropout < 0 || options_.encoder.dropout >= 1) refuse("encoder.dropout must be in [0, 1)");
    if (options_.encoder.layer_drop < 0 || options_.encoder.layer_drop >= 1)
      refuse("encoder.layer_drop must be in [0, 1)");
    if (!(options_.optimizer.learning_rate > 0)) refuse("optimizer.learning_rate must be positive");
    if (options_.held_out.speakers < 0 || options_.held_out.speakers >= 1)
      refuse("held_out.speakers must be in [0, 1)");
    if (options_.objective.mask.length < 1 || !(options_.objective.mask.probability > 0))
      refuse("objective.mask needs a positive probability and a length of at least 1 frame");
    if (options_.checkpoint.resume && options_.checkpoint.directory.empty())
      refuse("checkpoint.resume needs checkpoint.directory: where the run was saved");
    if (source_.size() == 0) throw Error(ErrorCode::data, "the source has no utterances; add speech to it");
  }

  /// The checkpoint to go on from; its options must be the ones given.
  SOTTO_COLD Checkpoint reopen() {
    Checkpoint checkpoint = Checkpoint::open(options_.checkpoint.directory);
    checkpoint.expect(spec_fields<Model>());
    if (checkpoint.text("run.corpus") != std::to_string(source_.fingerprint()))
      throw Error(ErrorCode::checkpoint,
                  "the run was begun on other data; resume it with the same files, or begin another directory",
                  checkpoint.path());
    Checkpoint::Texts given;
    if (options_.slots == 0) options_.slots = std::stoi(checkpoint.text("options.slots"));
    visit_options(options_, OptionText::writing(given));
    const Checkpoint::Texts stored = checkpoint.section("options.");
    std::string differences;
    for (auto const& [name, value] : given) {
      const auto at = stored.find(name);
      if (at != stored.end() && at->second == value) continue;
      differences += (differences.empty() ? "" : ", ") + name + " was " +
                     (at == stored.end() ? "unknown" : at->second) + " and is " + value;
    }
    if (!differences.empty())
      throw Error(ErrorCode::checkpoint,
                  "the run was begun with other options: " + differences + "; resume it with the ones it began with",
                  checkpoint.path());
    return checkpoint;
  }
  template <class F> SOTTO_COLD void visit_state(F& f) {
    std::uint64_t corpus = source_.fingerprint(), budget = budget_.count;
    double seconds = elapsed();
    f("corpus", corpus);
    f("steps", steps_);
    f("position", position_);
    f("flops", spent_.count);
    f("label_flops", label_cost_.count);
    f("budget_flops", budget);
    f("audio_seconds", audio_seconds_);
    f("seconds", seconds);
    f("smoothed_loss", smoothed_loss_);
    f("lowest_loss", lowest_loss_);
    f("next_evaluation", next_evaluation_);
    budget_.count = budget;
    earlier_seconds_ = seconds;
    began_ = Clock::now();
  }
  SOTTO_COLD void restore(Checkpoint const& checkpoint) {
    auto const table = std::span<ParameterEntry const>(parameter_table<Model>);
    checkpoint.read(table, engine_->values().data());
    checkpoint.read("optimizer.first", engine_->size, engine_->first_moments().data());
    checkpoint.read("optimizer.second", engine_->size, engine_->second_moments().data());
    const Checkpoint::Texts texts = checkpoint.section("run.");
    auto run = OptionText::reading(texts);
    visit_state(run);
    history_.restore(checkpoint.doubles("history.steps"), checkpoint.doubles("history.held_out"));
    checkpoint_path_ = checkpoint.path();
  }

  SOTTO_COLD void prepare_targets([[maybe_unused]] std::optional<Checkpoint> const& checkpoint) {
    [[maybe_unused]] const auto tell = [&](Preparation::Phase phase, double done) {
      if (options_.on_preparation) options_.on_preparation({phase, done});
    };
    if constexpr (Targets::classes > 0) {
      if (checkpoint) {
        targets_.restore(checkpoint->floats("targets.state"));
      } else {
        tell(Preparation::Phase::clusters, 0);
        targets_.fit(source_, division_.train, options_.objective.targets, options_.seed, *options_.executor);
      }
      tell(Preparation::Phase::labels, 0);
      targets_.label(source_, *options_.executor);
      tell(Preparation::Phase::labels, 1);
      if (!checkpoint) label_cost_ = {targets_.flops()};
    }
  }
  SOTTO_COLD void make_sampler(int crop) {
    std::vector<std::int32_t> frames;
    for (const std::uint32_t i : division_.train) frames.push_back(Model::Frontend::frames(source_.samples(i)));
    sampler_ = std::make_unique<Sampler>(
        division_.train, frames, SamplerOptions{.rows = options_.batch.rows, .crop = crop, .hop = Model::Frontend::hop},
        options_.seed);
  }
  SOTTO_COLD void start_prefetch() {
    Sampler::Plan plan;
    plan.crops.reserve(static_cast<std::size_t>(options_.batch.rows));
    const auto make = [this, cursor = static_cast<std::uint32_t>(steps_), position = position_,
                       plan = std::move(plan)](Batch& batch) mutable {
      sampler_->plan(position, plan);
      batch.position = position;
      batch.next = position = plan.next;
      batcher_->make(plan.crops, cursor++, Purpose::mask, batch);
    };
    prefetch_ = std::make_unique<Prefetch<std::function<void(Batch&)>>>(make);
  }

  Flops cost_of(Batch const& batch, Noise const& noise) const {
    return step_cost<Model>(batch, noise, options_.objective);
  }
  /// A wall-clock budget becomes FLOPs: the speed of a few batches, not applied, times the time that is left.
  SOTTO_COLD void set_budget() {
    if (options_.budget.kind() == Budget::Kind::flops) budget_ = {static_cast<std::uint64_t>(options_.budget.amount())};
    if (options_.budget.kind() == Budget::Kind::wall && budget_.count == 0) {
      if (options_.on_preparation) options_.on_preparation({Preparation::Phase::calibration, 0});
      Sampler::Plan plan;
      sampler_->plan(0, plan);
      Batch batch;
      batcher_->make(plan.crops, 0, Purpose::mask, batch);
      const Noise noise = Noise::of(options_.encoder, Model::shape.depth, options_.seed, 0);
      engine_->accumulate(batch, noise, options_.objective);  // the first touches memory
      const auto start = Clock::now();
      int n = 0;
      do {
        engine_->accumulate(batch, noise, options_.objective);
        ++n;
      } while (seconds_since(start) < std::min(2., .02 * options_.budget.amount()));
      const double rate = n * static_cast<double>(cost_of(batch, noise).count) / seconds_since(start);
      budget_ = spent_ + Flops{static_cast<std::uint64_t>(.97 * rate * options_.budget.amount())};
      if (options_.on_preparation) options_.on_preparation({Preparation::Phase::calibration, 1});
    }
    if (steps_ == 0 && budget_.count > 0 && spent_ >= budget_)
      throw Error(ErrorCode::usage, "the budget of " + std::to_string(budget_.count) +
                                        " FLOPs is spent by the labels, which cost " +
                                        std::to_string(label_cost_.count) + "; raise it, or lower objective.targets");
  }
  double fraction(Flops spent, std::uint64_t steps, double audio_seconds) const {
    switch (options_.budget.kind()) {
      case Budget::Kind::updates:
        return static_cast<double>(steps) / options_.budget.amount();
      case Budget::Kind::audio:
        return audio_seconds / options_.budget.amount();
      default:
        return std::min(1., spent / budget_);
    }
  }
  /// Whether the budget still pays for a step. A run that cannot pay for its first says so.
  bool affordable(Flops cost, Batch const& batch) const {
    bool pays = true;
    if (options_.budget.kind() == Budget::Kind::updates)
      pays = static_cast<double>(steps_ + 1) <= options_.budget.amount();
    else if (options_.budget.kind() == Budget::Kind::audio)
      pays = audio_seconds_ + batch.audio_seconds <= options_.budget.amount();
    else
      pays = spent_ + cost <= budget_;
    if (!pays && steps_ == 0)
      throw Error(ErrorCode::usage, "the budget pays for no step: labels cost " + std::to_string(label_cost_.count) +
                                        " FLOPs, and a step of " + std::to_string(batch.rows) + " rows (" +
                                        std::to_string(batch.audio_seconds) + " s of audio) costs " +
                                        std::to_string(cost.count) + "; raise the budget or lower batch.rows");
    return pays;
  }
  SOTTO_COLD std::optional<Step> end(Outcome outcome, std::string reason) {
    outcome_ = outcome;
    reason_ = std::move(reason);
    // a run that goes on must not tell it apart from one that never stopped, so only the end is measured, and once
    const bool measured =
        !history_.held_out().empty() && history_.held_out().back().step == static_cast<double>(steps_);
    if (outcome == Outcome::budget_spent && has_held_out() && !measured) history_.add(evaluate(), spent_, steps_);
    if (outcome != Outcome::diverged && !options_.checkpoint.directory.empty()) save();
    return std::nullopt;
  }
  void describe(Step& step, BatchMeasures const& m, double seconds, double waited, Flops cost) {
    step.step = steps_;
    step.spent = spent_;
    step.loss = m.loss;
    step.masked_accuracy = m.masked_accuracy;
    step.code_perplexity = m.code_perplexity;
    step.target_perplexity = m.target_perplexity;
    step.audio_seconds = audio_seconds_;
    step.seconds = elapsed();
    step.step_seconds = seconds;
    step.waited_seconds = waited;
    step.gflops = static_cast<double>(cost.count) / seconds * 1e-9;
    step.times_real_time = (audio_seconds_ - audio_before_) / seconds;
    audio_before_ = audio_seconds_;
    const double here = seconds_since(began_), done = step.fraction - first_fraction_;
    if (!first_step_done_) {
      first_fraction_ = step.fraction;
      first_step_done_ = true;
      first_step_at_ = Clock::now();
      step.left_seconds = here * (1 - step.fraction) / std::max(step.fraction, 1e-9);
    } else {
      step.left_seconds = seconds_since(first_step_at_) * (1 - step.fraction) / std::max(done, 1e-9);
    }
  }
  std::string_view warning_of(Step const& step) const {
    if constexpr (Targets::classes > 0) {
      if (step.target_perplexity < 2) return "the labels have collapsed: nearly all frames have one cluster";
      if (step.fraction > .1 && step.code_perplexity < 2 && step.target_perplexity > 4)
        return "the predictions have collapsed to one code: lower the learning rate";
    }
    if (step.held_out && step.held_out->spread < 1e-3)
      return "the features are constant over time: the encoder has collapsed";
    return {};
  }
  static double seconds_since(Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
  }
  double elapsed() const { return earlier_seconds_ + seconds_since(began_); }

  AnySource source_;
  Options options_;
  std::unique_ptr<ThreadPool> own_pool_;
  Division division_;
  Targets targets_;
  Flops label_cost_{}, spent_{}, budget_{};
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Batcher<Model>> batcher_;
  std::unique_ptr<Engine<Model, B>> engine_;
  Batch held_out_;
  History history_;
  std::uint64_t steps_ = 0, position_ = 0;
  double audio_seconds_ = 0, audio_before_ = 0, smoothed_loss_ = 0, lowest_loss_ = 0, batch_seconds_ = 0;
  double next_evaluation_ = 0, first_fraction_ = 0, earlier_seconds_ = 0;
  bool first_step_done_ = false;
  Clock::time_point began_ = Clock::now(), saved_ = began_, first_step_at_ = began_;
  std::optional<Outcome> outcome_;
  std::string reason_;
  std::filesystem::path checkpoint_path_;
  std::unique_ptr<Prefetch<std::function<void(Batch&)>>> prefetch_;  // last: it uses the others
};

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Pretrains Model on a backend. Construction reads the corpus, learns labels and allocates; step() or run() train.
/// Throws Error for options, data and files that cannot be; stopping, running out and diverging are Outcomes.
template <class Model, class BackendKind = Cpu<float>>
class Pretrainer : public detail::PretrainerBody<detail::sound<Model>, BackendKind> {
 public:
  using detail::PretrainerBody<detail::sound<Model>, BackendKind>::PretrainerBody;

 private:
  [[no_unique_address]] detail::Door<Model, detail::broken_rule<Model>()> door_;
};

}  // namespace sotto::inline SOTTO_ABI
