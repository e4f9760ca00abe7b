// The arithmetic of training: a spec's parameters on a backend, and what a batch does to them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <vector>

#include <sotto/core/buffer.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/batch_measures.hpp>
#include <sotto/train/network.hpp>
#include <sotto/train/options.hpp>
#include <sotto/train/parameter_state.hpp>
#include <sotto/train/workers.hpp>

namespace sotto::detail::inline SOTTO_ABI {

template <class Sum> struct LaneResult {
  Measures<Sum> measures;
  Sum spread;
};

/// Measures of a batch from its lanes', summed in order.
template <class Sum>
SOTTO_COLD BatchMeasures summed(Batch const& batch, std::span<LaneResult<Sum> const> lanes, std::span<double> histogram,
                                double* spread) {
  BatchMeasures out;
  double correct = 0, predicted = 0, widths = 0, weights = 0;
  for (std::size_t i = 0; i < batch.lanes.size(); ++i) {
    out.loss += static_cast<double>(lanes[i].measures.loss);
    correct += lanes[i].measures.correct;
    predicted += lanes[i].measures.predicted;
    const auto rows = static_cast<double>(batch.lanes[i].rows());
    widths += rows * static_cast<double>(lanes[i].spread);
    weights += rows;
  }
  if (spread != nullptr) *spread = weights > 0 ? widths / weights : 0;
  out.masked_accuracy = predicted > 0 ? correct / predicted : 0;
  if (histogram.empty()) return out;
  out.code_perplexity = perplexity(histogram);
  std::fill(histogram.begin(), histogram.end(), 0.);
  for (auto const& lane : batch.lanes)
    for (std::size_t i = 0; i < lane.masked.size(); ++i) ++histogram[static_cast<std::size_t>(lane.targets[i])];
  out.target_perplexity = perplexity(histogram);
  return out;
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// Lane i runs in slot i mod slots.
template <class Model, HostBackend B> class Engine {
 public:
  using Net = Network<Model, B>;
  using Encoder = typename Net::EncoderLayer;
  using R = typename B::Master;
  using E = typename B::Element;
  using Sum = typename B::Sum;
  using ObjectiveOptions = typename Model::Objective::Options;
  static constexpr auto const& table = parameter_table<Model>;
  static constexpr std::size_t size = count(table);
  static constexpr int classes = Model::Objective::classes;
  static constexpr int statistics = Model::Objective::Statistics::size;

  /// Bytes of a worker's arena.
  static constexpr std::size_t worker_bytes(Capacity capacity) {
    return Net::activation_bytes(capacity) + feature_bytes(capacity);
  }
  /// Bytes that an engine holds.
  static constexpr std::size_t bytes(Capacity capacity, int slots, int workers) {
    return ParameterState<B>::bytes(size, slots) + Net::weight_bytes() +
           static_cast<std::size_t>(workers) * worker_bytes(capacity);
  }

  SOTTO_COLD Engine(Executor& executor, Capacity capacity, int slots)
      : executor_(executor), capacity_(capacity),
        workers_(std::min(slots, executor.concurrency()), worker_bytes(capacity), classes),
        state_(executor, workers_, table, slots), prepared_(Net::weight_bytes()), lane_results_(256),
        histogram_(static_cast<std::size_t>(classes)) {
    Arena arena(prepared_.begin());
    weights_ = Net::carve_weights(arena);
    master_ = Net::template carve_parameters<R const>(state_.values());
  }

  std::span<R> values() { return {state_.values(), size}; }
  std::span<R> first_moments() { return {state_.first_moments(), size}; }
  std::span<R> second_moments() { return {state_.second_moments(), size}; }
  /// Of the last accumulate(), finished, not clipped.
  std::span<R const> gradients() const { return {state_.gradients(), size}; }
  typename Net::Weights const& weights() const { return weights_; }
  int slots() const { return state_.slots(); }
  /// Times that weights were prepared: once a load and once an update.
  std::uint64_t preparations() const { return preparations_; }

  /// Makes the working copy that products read. After values() changed.
  SOTTO_COLD void prepare() {
    if (preparations_ == 0)  // every worker's scratch grows to what the parts that use it need
      for (int i = 0; i < workers_.size(); ++i)
        for (const int part : {0, Net::prepare_parts - 1}) Net::prepare(workers_[i].backend, master_, weights_, part);
    executor_.run(Net::prepare_parts, [&](int part) {
      const Lease worker(workers_);
      Net::prepare(worker->backend, master_, weights_, part);
    });
    ++preparations_;
  }

  /// Loss of a batch and, in gradients(), its gradient.
  BatchMeasures accumulate(Batch const& batch, Noise const& noise, ObjectiveOptions const& options) {
    return run(batch, noise, options, true, nullptr);
  }
  /// Loss of a batch alone. spread: mean over lanes of the deviation of the encoder's output over frames.
  BatchMeasures measure(Batch const& batch, ObjectiveOptions const& options, double* spread) {
    return run(batch, Noise::off(), options, false, spread);
  }
  /// Norm of gradients().
  double gradient_norm() { return state_.gradient_norm(); }

  /// As Learner has them: on a host a step is done when submit() returns.
  static constexpr int steps_ahead = 0;
  SOTTO_COLD void submit(Batch const& batch, Noise const& noise, ObjectiveOptions const& options,
                         OptimizerOptions const& optimizer, double rate, std::uint64_t step) {
    result_.measures = accumulate(batch, noise, options);
    result_.gradient_norm = gradient_norm();
    if (std::isfinite(result_.measures.loss) && std::isfinite(result_.gradient_norm))
      update(optimizer, rate, result_.gradient_norm, step);
  }
  StepResult collect() const { return result_; }
  void settle() const {}
  void rehearse(Batch const& batch, Noise const& noise, ObjectiveOptions const& options) {
    accumulate(batch, noise, options);
  }
  /// One step of AdamW, and the working copy made anew. step: from 1.
  void update(OptimizerOptions const& options, double rate, double gradient_norm, std::uint64_t step) {
    state_.update(options, rate, gradient_norm, step);
    prepare();
  }

 private:
  using Lease = typename Workers<B>::Lease;
  using LaneSums = std::array<Sum, static_cast<std::size_t>(std::max(statistics, 1))>;

  SOTTO_COLD BatchMeasures run(Batch const& batch, Noise const& noise, ObjectiveOptions const& options,
                               bool with_gradients, double* spread) {
    const int lanes = static_cast<int>(batch.lanes.size()), slots = this->slots();
    if (lane_results_.size() < batch.lanes.size()) lane_results_.resize(batch.lanes.size());
    BatchScope<B> scope{batch.masked, batch.rows, nullptr};
    LaneSums sums{};
    if constexpr (statistics > 0) {
      observe(batch, sums);
      scope.statistics = sums.data();
    }
    std::fill(histogram_.begin(), histogram_.end(), 0.);
    executor_.run(std::min(slots, std::max(lanes, with_gradients ? slots : 0)), [&](int slot) {
      const Lease worker(workers_, slot);
      R* const flat = state_.gradients(slot);
      const auto gradients = Net::template carve_parameters<R>(flat);
      if (with_gradients) worker->backend.clear(Array<R>{flat, size});
      std::fill(worker->histogram.begin(), worker->histogram.end(), 0.);
      for (int i = slot; i < lanes; i += slots) {
        PackedLane const& packed = batch.lanes[static_cast<std::size_t>(i)];
        Lane<int> lane = packed.view();
        lane.longest = capacity_.longest;  // scratch is sized by it: once, for all lanes
        const Rows<E const, Net::features> x = features_of(packed, *worker);
        auto activations = Net::resized(worker->arena.begin(), {lane.rows, lane.longest});
        auto& result = lane_results_[static_cast<std::size_t>(i)];
        result = {};
        if (lane.rows == 0) continue;
        if constexpr (classes > 0) result.measures.histogram = worker->histogram.data();
        Net::forward(worker->backend, weights_, lane, noise, options, scope, x, activations, result.measures);
        if (spread != nullptr) worker->backend.spread(activations.encoder.output, result.spread);
        if (with_gradients)
          Net::backward(worker->backend, weights_, gradients, lane, noise, options, scope, x, activations);
      }
      // gradients of working weights become those of masters: linear, so that each slot may do it before they are summed
      if (with_gradients) Net::finish(worker->backend, master_, gradients);
      std::lock_guard lock(mutex_);  // counts: exact in any order
      for (std::size_t c = 0; c < histogram_.size(); ++c) histogram_[c] += worker->histogram[c];
    });
    if (with_gradients) state_.reduce();
    return detail::summed<Sum>(batch, lane_results_, histogram_, spread);
  }

  /// Room for a lane's features, where they are kept otherwise than batches bring them.
  static constexpr std::size_t feature_bytes(Capacity capacity) {
    return std::is_same_v<E, float> ? 0 : static_cast<std::size_t>(capacity.rows) * Net::features * sizeof(E);
  }
  Rows<E const, Net::features> features_of(PackedLane const& lane, typename Workers<B>::Worker& worker) const {
    if constexpr (std::is_same_v<E, float>) {
      return {lane.features.data(), lane.rows()};
    } else {
      const Rows<E, Net::features> x{reinterpret_cast<E*>(worker.arena.begin() + Net::activation_bytes(capacity_)),
                                     lane.rows()};
      worker.backend.convert(Array<float const>{lane.features.data(), x.flat().size}, x.flat());
      return x;
    }
  }

  void observe(Batch const& batch, LaneSums& sums) {
    auto& lanes = lane_sums_;
    if (lanes.size() < batch.lanes.size()) lanes.resize(batch.lanes.size());
    executor_.run(static_cast<int>(batch.lanes.size()), [&](int i) {
      const Lease worker(workers_);
      PackedLane const& packed = batch.lanes[static_cast<std::size_t>(i)];
      lanes[static_cast<std::size_t>(i)] = {};
      Net::observe(worker->backend, weights_, packed.view(), features_of(packed, *worker),
                   lanes[static_cast<std::size_t>(i)].data());
    });
    for (std::size_t i = 0; i < batch.lanes.size(); ++i)
      for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += lanes[i][k];
  }

  Executor& executor_;
  Capacity capacity_;
  Workers<B> workers_;
  ParameterState<B> state_;
  Buffer prepared_;
  std::mutex mutex_;
  std::vector<detail::LaneResult<Sum>> lane_results_;
  std::vector<LaneSums> lane_sums_;
  std::vector<double> histogram_;
  typename Net::Weights weights_{};
  typename Net::Master master_{};
  std::uint64_t preparations_ = 0;
  StepResult result_;
};

/// The engine of a backend, how its batches are cut into lanes, and how it is made.
template <class Model, class B> struct EngineOf {
  using type = Engine<Model, B>;
  static constexpr bool raw = false;  ///< batches carry features, not samples
  static LanePacking packing(RunOptions const& options, int /*batch_rows*/) {
    return {options.batch.lane_rows, options.slots};
  }
  /// Throws where the machine cannot do it: before a corpus is read and labelled.
  static void expect(RunOptions const&, Capacity) {}
  static std::unique_ptr<type> make(RunOptions const& options, Capacity capacity) {
    return std::make_unique<type>(*options.executor, capacity, options.slots);
  }
};

}  // namespace sotto::inline SOTTO_ABI
