// What a run has spent of its budget, and whether the rest pays for a step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include <sotto/budget/units.hpp>
#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/data/batch.hpp>

namespace sotto::inline SOTTO_ABI {

/// Steps, audio and FLOPs so far against a budget of either; one of wall clock becomes FLOPs by set_total().
class Spending {
 public:
  explicit Spending(Budget const& budget) : budget_(budget) {
    if (budget.kind() == Budget::Kind::flops) total_ = {static_cast<std::uint64_t>(budget.amount())};
  }

  std::uint64_t steps() const { return steps_; }
  double audio_seconds() const { return audio_seconds_; }
  /// With labels.
  Flops spent() const { return spent_; }
  Flops label_cost() const { return label_cost_; }
  /// The budget in FLOPs, where it is counted in them.
  Flops total() const { return total_; }
  void set_total(Flops total) { total_ = total; }
  /// Part of the budget that is spent.
  double fraction() const {
    switch (budget_.kind()) {
      case Budget::Kind::updates:
        return static_cast<double>(steps_) / budget_.amount();
      case Budget::Kind::audio:
        return audio_seconds_ / budget_.amount();
      default:
        return std::min(1., spent_ / total_);
    }
  }

  void bill_labels(Flops cost) {
    label_cost_ += cost;
    spent_ += cost;
  }
  void bill_step(Flops cost, double audio_seconds) {
    spent_ += cost;
    audio_seconds_ += audio_seconds;
    ++steps_;
  }
  /// Error(usage) where labels have left nothing.
  SOTTO_COLD void expect_something_left() const {
    if (steps_ > 0 || total_.count == 0 || spent_ < total_) return;
    if (budget_.kind() == Budget::Kind::wall)
      throw_error(ErrorCode::usage,
                  {"the budget of ", budget_.amount(), " s of wall clock was over before the first step; raise it"});
    throw_error(ErrorCode::usage, {"the budget of ", total_.count, " FLOPs is spent by the labels, which cost ",
                                   label_cost_.count, "; raise it, or lower objective.targets"});
  }
  /// Whether the budget still pays for a step on the batch. Error(usage) if it does not pay for the first.
  SOTTO_COLD bool pays_for(Flops cost, Batch const& batch) const {
    bool pays = true;
    if (budget_.kind() == Budget::Kind::updates)
      pays = static_cast<double>(steps_ + 1) <= budget_.amount();
    else if (budget_.kind() == Budget::Kind::audio)
      pays = audio_seconds_ + batch.audio_seconds <= budget_.amount();
    else
      pays = spent_ + cost <= total_;
    if (!pays && steps_ == 0)
      throw_error(ErrorCode::usage, {"the budget pays for no step: labels cost ", label_cost_.count,
                                     " FLOPs, and a step of ", batch.rows, " rows (", batch.audio_seconds,
                                     " s of audio) costs ", cost.count, "; raise the budget or lower batch.rows"});
    return pays;
  }

  template <class F> void visit(F& f) {
    f("steps", steps_);
    f("flops", spent_.count);
    f("label_flops", label_cost_.count);
    f("budget_flops", total_.count);
    f("audio_seconds", audio_seconds_);
  }

 private:
  Budget budget_;
  Flops label_cost_{}, spent_{}, total_{};
  std::uint64_t steps_ = 0;
  double audio_seconds_ = 0;
};

}  // namespace sotto::inline SOTTO_ABI
