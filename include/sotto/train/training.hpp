// The training loop: what is seen and held out, the budget, evaluations, checkpoints, and when to stop; of any model.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sotto/train/checkpoint.hpp>
#include <sotto/train/division.hpp>
#include <sotto/train/history.hpp>
#include <sotto/train/learner.hpp>
#include <sotto/train/options.hpp>
#include <sotto/train/prefetch.hpp>
#include <sotto/train/spending.hpp>

namespace sotto::inline SOTTO_ABI {

/// Trains a learner on a source. Construction reads the corpus, learns labels and allocates; step() or run() train.
/// Throws Error for options, data and files that cannot be; stopping, running out and diverging are Outcomes.
class Training {
 public:
  /// The learner must outlive this.
  SOTTO_COLD Training(Learner& learner, AnySource source, RunOptions options)
      : learner_(learner), source_(std::move(source)), options_(std::move(options)), spending_(options_.budget) {
    if (options_.executor == nullptr) {
      own_pool_ = std::make_unique<ThreadPool>(options_.threads);
      options_.executor = own_pool_.get();
    }
    check();
    std::optional<Checkpoint> checkpoint;
    if (options_.checkpoint.resume) checkpoint = reopen();
    if (options_.slots == 0) options_.slots = options_.executor->concurrency();
    const int crop = learner_.frames(options_.batch.crop.count() * 16);
    const auto frames = [&](std::size_t i) { return learner_.frames(source_.samples(i)); };
    division_ = Division::of(source_, options_.held_out, options_.exclude_test_split, options_.seed, crop, frames);
    prepare_targets(checkpoint);
    std::vector<std::int32_t> lengths;
    int longest = 0;  // of the crops there will be
    for (const std::uint32_t i : division_.train) {
      lengths.push_back(frames(i));
      longest = std::max(longest, std::min(crop, lengths.back()));
    }
    sampler_.emplace(division_.train, lengths,
                     SamplerOptions{.rows = options_.batch.rows, .crop = longest, .hop = learner_.hop()},
                     options_.seed);
    for (Crop const& c : division_.evaluated) longest = std::max(longest, c.frames);
    learner_.build(source_, options_, std::max(options_.batch.rows, options_.held_out.rows), longest);
    if (!options_.checkpoint.directory.empty())
      Checkpoint::expect_room(options_.checkpoint.directory, 3 * learner_.values().size_bytes());
    if (checkpoint)
      restore(*checkpoint);
    else
      spending_.bill_labels(learner_.initialise(source_, division_.train, options_.seed, *options_.executor));
    learner_.begin();
    if (!division_.evaluated.empty()) learner_.make(division_.evaluated, 0, Purpose::held_out, held_out_);
    if (options_.budget.kind() == Budget::Kind::wall && spending_.total().count == 0) calibrate();
    spending_.expect_something_left();
    saved_ = timed_from_ = Clock::now();
    timed_from_fraction_ = spending_.fraction();
    start_prefetch();
  }

  SOTTO_COLD ~Training() = default;

  /// Does one optimiser step. nullopt: training has ended, and outcome() says how.
  SOTTO_COLD std::optional<Step> step() { return step(false); }

  /// Steps until training ends. Throws what a source, a file or a callback throws.
  Outcome run() {
    while (step(true)) {
    }
    return *outcome_;
  }

  /// How training ended; nullopt while it goes on.
  std::optional<Outcome> outcome() const { return outcome_; }
  /// Why, in a sentence; empty where the budget was spent.
  std::string const& reason() const { return reason_; }
  std::uint64_t steps() const { return spending_.steps(); }
  Flops spent() const { return spending_.spent(); }
  /// The budget in FLOPs, where it is counted in them.
  Flops budget() const { return spending_.total(); }
  /// FLOPs of the labels: part of spent().
  Flops label_cost() const { return spending_.label_cost(); }
  double audio_seconds() const { return spending_.audio_seconds(); }
  double seconds() const { return earlier_seconds_ + seconds_since(began_); }
  int slots() const { return options_.slots; }
  Precision precision() const { return learner_.precision(); }
  History const& history() const { return history_; }
  Division const& division() const { return division_; }
  /// The file of the last save; empty before it.
  std::filesystem::path const& checkpoint() const { return checkpoint_path_; }
  /// Before the first step: what it costs, exactly, and the audio that it sees.
  Flops next_step_cost() { return learner_.cost(prefetch_->front()); }
  double next_step_audio_seconds() { return prefetch_->front().audio_seconds; }

  /// Loss on the held-out speech now.
  SOTTO_COLD HeldOut evaluate() {
    finish_ahead();
    HeldOut held;
    const auto start = Clock::now();
    const BatchMeasures m = learner_.measure(held_out_, held.spread);
    held.loss = m.loss;
    held.masked_accuracy = m.masked_accuracy;
    held.code_perplexity = m.code_perplexity;
    held.seconds = seconds_since(start);
    const double every = options_.held_out.every;
    if (every > 0) next_evaluation_ = (std::floor(spending_.fraction() / every) + 1) * every;
    return held;
  }
  bool has_held_out() const { return !held_out_.lanes.empty(); }

  /// Writes the checkpoint; what was there is replaced only when the new one is whole.
  SOTTO_COLD void save() {
    finish_ahead();
    learner_.settle();
    Checkpoint::Writer writer;
    writer.texts("spec.", learner_.spec_fields());
    writer.texts("options.", option_texts());
    Texts texts;
    auto run = detail::OptionText::writing(texts);
    visit_state(run);
    texts.set("precision", name(learner_.precision()));  // for whoever goes on: other precisions have other bits
    writer.texts("run.", texts);
    writer.parameters(learner_.table(), learner_.values().data());
    writer.tensor("optimizer.first", learner_.first_moments());
    writer.tensor("optimizer.second", learner_.second_moments());
    if (!learner_.target_state().empty()) writer.tensor("targets.state", learner_.target_state());
    writer.tensor("history.steps", history_.step_numbers());
    writer.tensor("history.held_out", history_.held_out_numbers());
    checkpoint_path_ = writer.write(options_.checkpoint.directory);
    saved_ = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  /// A step that was submitted and is not yet collected.
  struct StepUnderWay {
    Flops cost;
    double audio_seconds, fraction, rate, waited;  ///< fraction: of the budget, spent when it is done
    std::uint64_t next;                            ///< where the batch after it begins
  };

  SOTTO_COLD std::optional<Step> step(bool may_run_ahead) {
    if (outcome_ && !finished_) return std::nullopt;
    const auto start = Clock::now();
    if (!finished_ && begun_ == 0 && !submit()) return end(end_outcome_, std::string(end_reason_));
    // What follows this step and reads the model allows no step ahead of it.
    const double fraction = finished_ ? finished_->fraction : under_way_[0].fraction;
    const bool evaluates = has_held_out() && options_.held_out.every > 0 && fraction >= next_evaluation_;
    const bool saves = !options_.checkpoint.directory.empty() && Clock::now() - saved_ >= options_.checkpoint.every;
    if (may_run_ahead && !finished_ && !evaluates && !saves && learner_.steps_ahead() > 0) {
      try {
        submit();
      } catch (...) {  // this step is still good, and the next call will meet what is wrong again
      }
    }
    const std::optional<Step> done = finished_ ? std::exchange(finished_, std::nullopt) : finish(start);
    if (!done) return std::nullopt;
    Step step = *done;
    if (evaluates) step.held_out = evaluate();
    step.warning = warning_of(step);
    history_.add(step);
    if (saves) {
      try {
        save();
      } catch (Error const& error) {  // what is in memory is worth more: go on, and try again
        saved_ = Clock::now();
        save_failure_ = joined({"the checkpoint could not be written, and will be tried again: ", error.what()});
        step.warning = save_failure_;
      }
    }
    if (options_.on_step) options_.on_step(step);
    return step;
  }
  /// Waits for the oldest step under way. nullopt: it diverged, which ends the training.
  SOTTO_COLD std::optional<Step> finish(Clock::time_point start) {
    const StepUnderWay done = std::exchange(under_way_[0], under_way_[1]);
    --begun_;
    const auto [measures, norm] = learner_.collect();
    if (std::string why = divergence(measures.loss, norm); !why.empty()) {
      for (; begun_ > 0; --begun_) learner_.collect();
      return end(Outcome::diverged, std::move(why));
    }
    spending_.bill_step(done.cost, done.audio_seconds);
    position_ = done.next;
    Step step;
    step.gradient_norm = norm;
    step.learning_rate = done.rate;
    step.waited_seconds = done.waited;
    step.step_seconds = seconds_since(start);
    step.gflops = static_cast<double>(done.cost.count) / step.step_seconds * 1e-9;
    step.times_real_time = done.audio_seconds / step.step_seconds;
    describe(step, measures);
    return step;
  }
  /// What a program measures or saves itself is the model after all steps that were begun: the one ahead is finished,
  /// and step() tells of it next.
  void finish_ahead() {
    if (begun_ > 0) finished_ = finish(Clock::now());
  }
  /// Begins the next step; false where there is none, and why stands in end_outcome_ and end_reason_.
  SOTTO_COLD bool submit() {
    const auto refuse = [&](Outcome outcome, std::string_view why) {
      end_outcome_ = outcome;
      end_reason_ = why;
      return false;
    };
    if (options_.stop.stop_requested()) return refuse(Outcome::stopped, "asked to stop");
    if (options_.budget.kind() == Budget::Kind::wall && seconds() >= options_.budget.amount())
      return refuse(Outcome::budget_spent, "the time is up");
    const auto start = Clock::now();
    Batch const& batch = prefetch_->front();
    StepUnderWay step{};
    step.waited = seconds_since(start);
    step.cost = learner_.cost(batch);
    Spending planned = spending_;  // as it will be when the steps under way are done
    for (int i = 0; i < begun_; ++i) planned.bill_step(under_way_[i].cost, under_way_[i].audio_seconds);
    if (!planned.pays_for(step.cost, batch)) return refuse(Outcome::budget_spent, {});
    const double before = planned.fraction();
    step.audio_seconds = batch.audio_seconds;
    planned.bill_step(step.cost, step.audio_seconds);
    step.fraction = planned.fraction();
    step.next = batch.next;
    step.rate = learning_rate(options_.optimizer, (before + step.fraction) / 2);
    learner_.submit(batch, options_.optimizer, step.rate, planned.steps());
    prefetch_->release();
    under_way_[begun_++] = step;
    return true;
  }
  SOTTO_COLD void check() const {
    const auto within = [](char const* name, double value, double least, double most) {
      if (!(value >= least && value <= most))  // a NaN is nowhere
        throw_error(ErrorCode::usage, {name, " is ", value, " and must be from ", least, " to ", most});
    };
    if (!(options_.budget.amount() > 0))
      throw_error(ErrorCode::usage,
                  {"there is no budget: set options.budget, for example to 1e13_flop or updates(200)"});
    within("slots", options_.slots, 0, 1 << 20);
    within("batch.rows", options_.batch.rows, 1, 1 << 28);
    within("batch.lane_rows", options_.batch.lane_rows, 1, 1 << 28);
    within("encoder.dropout", static_cast<double>(options_.encoder.dropout), 0, .99);
    within("encoder.layer_drop", static_cast<double>(options_.encoder.layer_drop), 0, .99);
    within("optimizer.learning_rate", options_.optimizer.learning_rate, 1e-30, 1e30);
    within("optimizer.beta1", options_.optimizer.beta1, 0, 1 - 1e-9);
    within("optimizer.beta2", options_.optimizer.beta2, 0, 1 - 1e-9);
    within("optimizer.epsilon", options_.optimizer.epsilon, 1e-30, 1);
    within("optimizer.weight_decay", options_.optimizer.weight_decay, 0, 1e3);
    within("optimizer.clip", options_.optimizer.clip, 0, 1e30);
    within("optimizer.warmup", options_.optimizer.warmup, 0, 1);
    within("held_out.speakers", options_.held_out.speakers, 0, .99);
    within("held_out.rows", options_.held_out.rows, 1, 1 << 28);
    if (options_.held_out.every != 0)
      within("held_out.every, where it is not 0 for never,", options_.held_out.every, 1e-4, 1);
    if (options_.checkpoint.resume && options_.checkpoint.directory.empty())
      throw_error(ErrorCode::usage, {"checkpoint.resume needs checkpoint.directory: where the run was saved"});
    if (source_.size() == 0) throw_error(ErrorCode::data, {"the source has no utterances; add speech to it"});
  }

  SOTTO_COLD Texts option_texts() {
    Texts texts;
    auto text = detail::OptionText::writing(texts);
    detail::visit_options(options_, text);
    learner_.visit_options(text);
    return texts;
  }
  /// The checkpoint to go on from; its options must be the ones given.
  SOTTO_COLD Checkpoint reopen() {
    Checkpoint checkpoint = Checkpoint::open(options_.checkpoint.directory);
    checkpoint.expect(learner_.spec_fields());
    if (checkpoint.text("run.corpus") != joined({source_.fingerprint()}))
      throw_error(ErrorCode::checkpoint,
                  {"the run was begun on other data; resume it with the same files, or begin another directory"},
                  checkpoint.path());
    if (options_.slots == 0)
      detail::OptionText::reading(checkpoint.section("options."), checkpoint.path())("slots", options_.slots);
    const Texts given = option_texts(), stored = checkpoint.section("options.");
    std::string differences;
    for (auto const& [name, value] : given) {
      std::string const* const before = stored.find(name);
      if (before != nullptr && *before == value) continue;
      differences += joined(
          {differences.empty() ? "" : ", ", name, " was ", before != nullptr ? *before : "unknown", " and is ", value});
    }
    if (!differences.empty())
      throw_error(ErrorCode::checkpoint,
                  {"the run was begun with other options: ", differences, "; resume it with the ones it began with"},
                  checkpoint.path());
    return checkpoint;
  }
  SOTTO_COLD void visit_state(detail::OptionText& f) {
    std::uint64_t corpus = source_.fingerprint();
    double seconds = this->seconds();
    f("corpus", corpus);
    spending_.visit(f);
    f("position", position_);
    f("seconds", seconds);
    f("smoothed_loss", smoothed_loss_);
    f("lowest_loss", lowest_loss_);
    f("next_evaluation", next_evaluation_);
    earlier_seconds_ = seconds;
    began_ = Clock::now();
  }
  SOTTO_COLD void restore(Checkpoint const& checkpoint) {
    checkpoint.read(learner_.table(), learner_.values().data());
    checkpoint.read("optimizer.first", learner_.first_moments());
    checkpoint.read("optimizer.second", learner_.second_moments());
    const Texts texts = checkpoint.section("run.");
    auto run = detail::OptionText::reading(texts, checkpoint.path());
    visit_state(run);
    history_.restore(checkpoint.doubles("history.steps"), checkpoint.doubles("history.held_out"));
    checkpoint_path_ = checkpoint.path();
  }

  SOTTO_COLD void prepare_targets(std::optional<Checkpoint> const& checkpoint) {
    if (learner_.classes() == 0) return;
    if (checkpoint) {
      learner_.restore_targets(checkpoint->floats("targets.state"));
    } else {
      tell(Preparation::Phase::clusters, 0);
      learner_.fit_targets(source_, division_.train, options_.seed, *options_.executor,
                           [&](double done) { tell(Preparation::Phase::clusters, done); });
      tell(Preparation::Phase::clusters, 1);
    }
    tell(Preparation::Phase::labels, 0);
    learner_.label(source_, *options_.executor);
    tell(Preparation::Phase::labels, 1);
    if (!checkpoint) spending_.bill_labels(learner_.target_cost());
  }
  void tell(Preparation::Phase phase, double done) const {
    if (options_.on_preparation) options_.on_preparation({phase, done});
  }
  SOTTO_COLD void start_prefetch() {
    plan_.crops.reserve(static_cast<std::size_t>(options_.batch.rows));
    plan_.next = position_;
    cursor_ = static_cast<std::uint32_t>(steps());
    prefetch_.emplace([this](Batch& batch) { make_next(batch); });
  }
  /// On prefetch_'s thread.
  SOTTO_COLD void make_next(Batch& batch) {
    batch.position = plan_.next;
    sampler_->plan(batch.position, plan_);
    batch.next = plan_.next;
    learner_.make(plan_.crops, cursor_++, Purpose::mask, batch);
  }
  /// A wall-clock budget becomes FLOPs: the speed of a few batches, not applied, times what labels and evaluations
  /// leave of it.
  SOTTO_COLD void calibrate() {
    tell(Preparation::Phase::calibration, 0);
    Sampler::Plan plan;
    sampler_->plan(0, plan);
    Batch batch;
    learner_.make(plan.crops, 0, Purpose::mask, batch);
    learner_.rehearse(batch);  // the first touches memory
    const auto start = Clock::now();
    int n = 0;
    do {
      learner_.rehearse(batch);
      ++n;
    } while (seconds_since(start) < std::min(2., .02 * options_.budget.amount()));
    const double rate = n * static_cast<double>(learner_.cost(batch).count) / seconds_since(start);
    double evaluations = 0;  // seconds
    if (has_held_out() && options_.held_out.every > 0) {
      double spread;
      const auto first = Clock::now();
      learner_.measure(held_out_, spread);
      evaluations = seconds_since(first) * std::ceil(1 / options_.held_out.every);
    }
    const double left = std::max(0., options_.budget.amount() - seconds());
    const double training = std::max(left - evaluations, .1 * left);
    spending_.set_total(spent() + Flops{static_cast<std::uint64_t>(.97 * rate * training)});
    tell(Preparation::Phase::calibration, 1);
  }

  /// Why the step at hand ends the run; empty: it does not. One whose loss or gradient is no number was not applied;
  /// one with which the loss has climbed too far was.
  SOTTO_COLD std::string divergence(double loss, double norm) {
    const std::uint64_t step = steps() + 1;
    if (!std::isfinite(loss) || !std::isfinite(norm))
      return joined({"the ", std::isfinite(loss) ? "gradient" : "loss", " of step ", step,
                     " is not a number: lower optimizer.learning_rate or optimizer.clip"});
    smoothed_loss_ = steps() == 0 ? loss : .95 * smoothed_loss_ + .05 * loss;
    lowest_loss_ = steps() == 0 ? loss : std::min(lowest_loss_, smoothed_loss_);
    if (smoothed_loss_ > 3 * lowest_loss_ + 1)
      return joined({"the loss has climbed from ", lowest_loss_, " to ", smoothed_loss_, " by step ", step,
                     ": lower optimizer.learning_rate or raise optimizer.warmup"});
    return {};
  }
  SOTTO_COLD std::optional<Step> end(Outcome outcome, std::string reason) {
    outcome_ = outcome;
    reason_ = std::move(reason);
    // a run that goes on must not tell it apart from one that never stopped, so only the end is measured, and once
    const bool measured =
        !history_.held_out().empty() && history_.held_out().back().step == static_cast<double>(steps());
    if (outcome == Outcome::budget_spent) {
      history_.close(spent(), steps());
      if (has_held_out() && !measured) history_.add(evaluate(), spent(), steps());
    }
    if (outcome != Outcome::diverged && !options_.checkpoint.directory.empty()) save();
    return std::nullopt;
  }
  SOTTO_COLD void describe(Step& step, BatchMeasures const& m) {
    step.step = steps();
    step.spent = spent();
    step.fraction = spending_.fraction();
    step.loss = m.loss;
    step.masked_accuracy = m.masked_accuracy;
    step.code_perplexity = m.code_perplexity;
    step.target_perplexity = m.target_perplexity;
    step.audio_seconds = audio_seconds();
    step.seconds = seconds();
    step.left_seconds =
        seconds_since(timed_from_) * (1 - step.fraction) / std::max(step.fraction - timed_from_fraction_, 1e-9);
    if (!first_step_done_) {  // it touches memory for the first time: no measure for the rest
      first_step_done_ = true;
      timed_from_ = Clock::now();
      timed_from_fraction_ = step.fraction;
    }
  }
  SOTTO_COLD std::string_view warning_of(Step const& step) {
    if (learner_.classes() > 0) {
      if (step.target_perplexity < 2) return "the labels have collapsed: nearly all frames have one cluster";
      // At first every frame gets the most frequent code: that is no collapse before half of the budget is spent.
      widest_ = std::max(widest_, step.code_perplexity);
      narrow_steps_ = step.code_perplexity < 2 && step.target_perplexity > 4 ? narrow_steps_ + 1 : 0;
      if (narrow_steps_ >= 3 && (widest_ > 4 || step.fraction > .5))
        return "the predictions have collapsed to one code: lower the learning rate";
    }
    if (step.held_out && step.held_out->spread < 1e-3)
      return "the features are constant over time: the encoder has collapsed";
    return {};
  }
  static double seconds_since(Clock::time_point then) {
    return std::chrono::duration<double>(Clock::now() - then).count();
  }

  Learner& learner_;
  AnySource source_;
  RunOptions options_;
  std::unique_ptr<ThreadPool> own_pool_;
  Division division_;
  Spending spending_;
  std::optional<Sampler> sampler_;
  Batch held_out_;
  History history_;
  std::uint64_t position_ = 0;  // of the next batch, in the endless sequence of utterances
  double smoothed_loss_ = 0, lowest_loss_ = 0, next_evaluation_ = 0, earlier_seconds_ = 0;
  Clock::time_point began_ = Clock::now(), saved_ = began_;
  Clock::time_point timed_from_ = began_;  // what the estimate of the time left is made of
  double timed_from_fraction_ = 0;
  bool first_step_done_ = false;
  double widest_ = 0;  // perplexity of the codes so far
  int narrow_steps_ = 0;
  std::optional<Outcome> outcome_;
  std::string reason_, save_failure_;
  StepUnderWay under_way_[2]{};  // in order; the first begun_
  int begun_ = 0;
  std::optional<Step> finished_;  // ahead of its turn
  Outcome end_outcome_{};
  std::string_view end_reason_;
  std::filesystem::path checkpoint_path_;
  Sampler::Plan plan_;  // what prefetch_ makes, and for which step: its thread's own
  std::uint32_t cursor_ = 0;
  std::optional<Prefetch> prefetch_;  // last: it uses the others
};

}  // namespace sotto::inline SOTTO_ABI
