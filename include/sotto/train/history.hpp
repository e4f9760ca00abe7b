// How a run went: losses against what was spent, thinned as the run grows.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include <sotto/core/error.hpp>
#include <sotto/train/step.hpp>

namespace sotto::inline SOTTO_ABI {

/// Training points are means over equal parts of the budget, over single steps where a step costs more; held-out points
/// are all kept.
class History {
 public:
  struct Point {
    double flops, step, loss, masked_accuracy;
  };

  History() {
    points_.reserve(parts + 1);
    held_out_.reserve(1024);
  }
  std::vector<Point> const& training() const { return points_; }
  std::vector<Point> const& held_out() const { return held_out_; }

  SOTTO_COLD void add(Step const& step) {
    sum_.loss += step.loss;
    sum_.masked_accuracy += step.masked_accuracy;
    ++summed_;
    const double part = std::floor(step.fraction * parts);
    if (part > part_) close(step.spent, step.step);
    part_ = part;
    if (step.held_out) add(*step.held_out, step.spent, step.step);
  }
  /// Ends the mean under way, if there is one.
  SOTTO_COLD void close(Flops spent, std::uint64_t step) {
    if (summed_ == 0) return;
    points_.push_back({static_cast<double>(spent.count), static_cast<double>(step), sum_.loss / summed_,
                       sum_.masked_accuracy / summed_});
    sum_ = {};
    summed_ = 0;
  }
  void add(HeldOut const& held, Flops spent, std::uint64_t step) {
    held_out_.push_back({static_cast<double>(spent.count), static_cast<double>(step), held.loss, held.masked_accuracy});
  }

  /// As tensors of a checkpoint: points of four numbers, then the mean under way. Each lives until it is asked for
  /// again.
  SOTTO_COLD std::vector<double> const& step_numbers() {
    flat_ = flattened(points_, 4);
    double* const rest = flat_.data() + flat_.size() - 4;
    rest[0] = sum_.loss;
    rest[1] = sum_.masked_accuracy;
    rest[2] = summed_;
    rest[3] = part_;
    return flat_;
  }
  SOTTO_COLD std::vector<double> const& held_out_numbers() {
    flat_held_out_ = flattened(held_out_, 0);
    return flat_held_out_;
  }
  SOTTO_COLD void restore(std::span<double const> steps, std::span<double const> held_out) {
    if (steps.size() < 4 || steps.size() % 4 != 0 || held_out.size() % 4 != 0)
      throw_error(ErrorCode::checkpoint, {"the history of the checkpoint has the wrong size: it is damaged"});
    unflatten(steps.first(steps.size() - 4), points_);
    const auto rest = steps.last(4);
    sum_.loss = rest[0];
    sum_.masked_accuracy = rest[1];
    summed_ = static_cast<int>(rest[2]);
    part_ = rest[3];
    unflatten(held_out, held_out_);
  }

 private:
  static constexpr int parts = 400;

  /// The numbers of points, and room for some more.
  SOTTO_COLD static std::vector<double> flattened(std::vector<Point> const& points, std::size_t more) {
    std::vector<double> numbers(4 * points.size() + more);
    double* to = numbers.data();
    for (auto const& p : points)
      for (const double n : {p.flops, p.step, p.loss, p.masked_accuracy}) *to++ = n;
    return numbers;
  }
  SOTTO_COLD static void unflatten(std::span<double const> numbers, std::vector<Point>& points) {
    points.clear();
    for (std::size_t i = 0; i + 3 < numbers.size(); i += 4)
      points.push_back({numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]});
  }

  std::vector<Point> points_, held_out_;
  std::vector<double> flat_, flat_held_out_;
  Point sum_{};
  int summed_ = 0;
  double part_ = 0;  // of the budget, in which the last step was
};

}  // namespace sotto::inline SOTTO_ABI
