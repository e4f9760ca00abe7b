// A training step on a GPU, measured: replayed as training replays it, and operation by operation.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <sotto/budget/cost.hpp>
#include <sotto/budget/device_bound.hpp>
#include <sotto/cuda.hpp>
#include <sotto/encoder/spec.hpp>

#include "timed.hpp"

namespace sotto::bench {

/// Whole sequences of one length: as many as fit into `rows`.
struct BatchShape {
  int rows, length;
  constexpr int sequences() const { return rows / length; }
  constexpr int frames() const { return sequences() * length; }
  constexpr Capacity capacity() const { return {frames(), length}; }
};

/// Random features, labels and HuBERT's masks.
template <class Model> Batch batch_of(BatchShape shape) {
  Batch batch;
  PackedLane& lane = batch.lanes.emplace_back();
  lane.clear();
  SpanMasker masker;
  Random random(1, Purpose::user);
  for (int i = 0; i < shape.sequences(); ++i) {
    masker.draw({}, shape.length, Random(1, Purpose::mask, 0, static_cast<std::uint64_t>(i)), lane.rows(), lane.masked);
    lane.offsets.push_back(lane.rows() + shape.length);
    lane.utterances.push_back(i);
    lane.starts.push_back(0);
  }
  for (int row = 0; row < lane.rows(); ++row) {
    if (!std::binary_search(lane.masked.begin(), lane.masked.end(), row)) lane.unmasked.push_back(row);
    lane.targets.push_back(static_cast<int>(random.below(Model::Objective::classes)));
  }
  for (int i = 0; i < lane.rows() * Model::Frontend::features; ++i)
    lane.features.push_back(static_cast<float>(random.normal()));
  batch.rows = lane.rows();
  batch.masked = static_cast<std::int64_t>(lane.masked.size());
  return batch;
}

/// Of a step on features that are there already.
template <class Model> Flops step_cost(Batch const& batch, BatchShape shape) {
  Flops cost = Cost<Model>::head(batch.masked, batch.rows - batch.masked, {});
  for (int i = 0; i < shape.sequences(); ++i)
    cost += Cost<Model>::train(shape.length) - Flops{Model::Frontend::flops(shape.length)};
  return cost;
}

/// The sheet of a product by the name that its driver gives it: other boards of its chip have other rates.
inline DeviceSheet const* sheet_of(std::string_view device) {
  for (auto const& [driver_name, sheet] :
       {std::pair<std::string_view, std::string_view>{"NVIDIA H100 80GB HBM3", "h100"},
        {"NVIDIA A100-SXM4-80GB", "a100"},
        {"NVIDIA GeForce RTX 4090", "rtx4090"},
        {"NVIDIA L4", "l4"}})
    if (device == driver_name) return &device_sheet(sheet);
  return nullptr;
}

/// Seconds that no step of Cuda<bf16> can be faster than.
template <class Model> double bound(BatchShape shape, DeviceSheet const& sheet) {
  double seconds = 0;
  for (auto const& operation : device_operations<Model>(shape.frames(), shape.length))
    seconds += operation.seconds(sheet);
  return seconds;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// An engine with a fresh model, and the steps that it does on one batch.
template <class Model, class B> class Steps {
 public:
  Steps(BatchShape shape, DeviceOptions const& options)
      : batch_(batch_of<Model>(shape)), engine_(shape.capacity(), options) {
    initialise(std::span<ParameterEntry const>(parameter_table<Model>), engine_.values().data(), 1);
    engine_.prepare();
  }
  void submit() { engine_.submit(batch_, Noise::off(), {}, {}, 1e-4, ++submitted_); }
  double collect() {
    const double loss = engine_.collect().measures.loss;
    if (!std::isfinite(loss)) throw_error(ErrorCode::internal, {"the loss of a measured step is ", loss});
    return loss;
  }
  Batch const& batch() const { return batch_; }
  auto& engine() { return engine_; }

 private:
  Batch batch_;
  DeviceEngine<Model, B> engine_;
  std::uint64_t submitted_ = 0;
};

struct StepTime {
  double seconds;  ///< median, from one step's result to the next one's
  double loss;     ///< of the last step
  std::size_t launches;
  Flops cost;
};

/// One step ahead of the one whose result is waited for, as Training does.
template <class Model, class B> StepTime replayed(BatchShape shape, bool tf32, int warm_up = 5, int measured = 25) {
  using Clock = std::chrono::steady_clock;
  Steps<Model, B> steps(shape, {.tf32 = tf32});
  std::vector<double> seconds;
  double loss = 0;
  Clock::time_point last{};
  steps.submit();
  for (int i = 0; i < warm_up + measured; ++i) {
    steps.submit();
    loss = steps.collect();
    const auto now = Clock::now();
    if (i >= warm_up) seconds.push_back(std::chrono::duration<double>(now - last).count());
    last = now;
  }
  steps.collect();
  return {median(seconds), loss, steps.engine().nodes(), step_cost<Model>(steps.batch(), shape)};
}

/// Of one step, slowest first: means over `measured` steps whose operations are enqueued one by one.
template <class Model, class B> std::vector<OperationTime> breakdown(BatchShape shape, int measured = 10) {
  Steps<Model, Timed<B>> steps(shape, {.record = false});
  std::vector<OperationTime> totals;
  for (int i = -3; i < measured; ++i) {
    auto& backend = steps.engine().backend();
    if (i >= 0) backend.begin();
    steps.submit();
    if (i >= 0) backend.nothing();
    backend.end(totals);
    steps.collect();
  }
  for (auto& total : totals) {
    total.calls /= measured;
    total.milliseconds /= measured;
    total.flops /= measured;
  }
  std::sort(totals.begin(), totals.end(), [](auto const& a, auto const& b) { return a.milliseconds > b.milliseconds; });
  return totals;
}

}  // namespace sotto::bench
