// The arithmetic of training: parameters, gradients and moments of a spec on a backend, and what a step does to them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include <sotto/core/buffer.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/network.hpp>

namespace sotto::inline SOTTO_ABI {

/// What a batch said.
struct BatchMeasures {
  double loss = 0, masked_accuracy = 0, code_perplexity = 0, target_perplexity = 0;
};

/// exp of the entropy of counts: how many classes are in use.
inline double perplexity(std::span<double const> counts) {
  double total = 0, entropy = 0;
  for (const double n : counts) total += n;
  for (const double n : counts)
    if (n > 0) entropy -= n / total * std::log(n / total);
  return total > 0 ? std::exp(entropy) : 0;
}

/// Lane i runs in slot i mod slots; a slot adds to a gradient buffer of its own, and slots are summed as a fixed tree,
/// so that the same slots give the same bits on any number of threads.
template <class Model, class B> class Engine {
 public:
  using Net = Network<Model, B>;
  using Encoder = typename Net::EncoderLayer;
  using R = typename B::Master;
  using E = typename B::Element;
  using Sum = typename B::Sum;
  static constexpr auto const& table = parameter_table<Model>;
  static constexpr std::size_t size = count(table);
  static constexpr int classes = Model::Objective::classes;
  static constexpr int statistics = Model::Objective::Statistics::size;

  /// Bytes that an engine holds.
  static constexpr std::size_t bytes(Capacity capacity, int slots, int workers) {
    return (3 + static_cast<std::size_t>(slots)) * size * sizeof(R) + Net::weight_bytes() +
           static_cast<std::size_t>(workers) * Net::activation_bytes(capacity);
  }

  SOTTO_COLD Engine(Executor& executor, Capacity capacity, int slots)
      : executor_(executor), capacity_(capacity), values_(size * sizeof(R)), first_(size * sizeof(R)),
        second_(size * sizeof(R)), prepared_(Net::weight_bytes()), lane_results_(256) {
    for (int i = 0; i < slots; ++i) gradients_.emplace_back(size * sizeof(R));
    for (int i = 0; i < std::min(slots, executor.concurrency()); ++i) {
      workers_.push_back(std::make_unique<Worker>(Net::activation_bytes(capacity)));
      idle_.push_back(i);
    }
    Arena arena(prepared_.begin());
    weights_ = Net::carve_weights(arena);
    master_ = Net::template carve_parameters<R const>(values_.template as<R const>());
    chunks_.resize((size + chunk - 1) / chunk);
  }

  std::span<R> values() { return {values_.template as<R>(), size}; }
  std::span<R> first_moments() { return {first_.template as<R>(), size}; }
  std::span<R> second_moments() { return {second_.template as<R>(), size}; }
  /// Of the last accumulate(), finished, not clipped.
  std::span<R const> gradients() const { return {gradients_[0].template as<R const>(), size}; }
  typename Net::Weights const& weights() const { return weights_; }
  int slots() const { return static_cast<int>(gradients_.size()); }
  /// Times that weights were prepared: once a load and once an update.
  std::uint64_t preparations() const { return preparations_; }

  /// Makes the working copy that products read. After values() changed.
  void prepare() {
    if (preparations_ == 0)  // every worker's scratch grows to what the parts that use it need
      for (auto const& worker : workers_)
        for (const int part : {0, Net::prepare_parts - 1}) Net::prepare(worker->backend, master_, weights_, part);
    executor_.run(Net::prepare_parts, [&](int part) {
      const Lease lease(*this);
      Net::prepare(lease.worker().backend, master_, weights_, part);
    });
    ++preparations_;
  }

  /// Loss of a batch and, in gradients(), its gradient.
  BatchMeasures accumulate(Batch const& batch, Noise const& noise, typename Model::Objective::Options const& options) {
    return run(batch, noise, options, true, nullptr);
  }
  /// Loss of a batch alone. spread: mean over lanes of the deviation of the encoder's output over frames.
  BatchMeasures measure(Batch const& batch, typename Model::Objective::Options const& options, double* spread) {
    return run(batch, Noise::off(), options, false, spread);
  }

  /// Norm of gradients().
  double gradient_norm() {
    executor_.run(static_cast<int>(chunks_.size()), [&](int i) {
      const Lease lease(*this);
      const Chunk part = chunk_at(i);
      chunks_[static_cast<std::size_t>(i)] =
          lease.worker().backend.squared_norm(Array<R const>{gradients_[0].template as<R>() + part.begin, part.size});
    });
    double total = 0;
    for (const double part : chunks_) total += part;
    return std::sqrt(total);
  }
  /// One step of AdamW, and the working copy made anew. step: from 1.
  void update(OptimizerOptions const& options, double rate, double gradient_norm, std::uint64_t step) {
    const double clip = options.clip > 0 && gradient_norm > options.clip ? options.clip / (gradient_norm + 1e-6) : 1;
    executor_.run(static_cast<int>(chunks_.size()), [&](int i) {
      const Lease lease(*this);
      const Chunk part = chunk_at(i);
      for (auto const& entry : table) {  // what of each parameter lies in this chunk
        const std::size_t from = std::max(part.begin, entry.offset),
                          to = std::min(part.begin + part.size, entry.offset + entry.size);
        if (from >= to || !entry.info.trained) continue;
        const auto at = [&](Buffer const& buffer) { return Array<R>{buffer.template as<R>() + from, to - from}; };
        lease.worker().backend.adamw(at(values_), at(gradients_[0]), at(first_), at(second_), static_cast<R>(clip),
                                     options.beta1, options.beta2, options.epsilon,
                                     entry.info.decay ? options.weight_decay : 0, rate, static_cast<int>(step));
      }
    });
    prepare();
  }

 private:
  static constexpr std::size_t chunk = std::size_t{1} << 16;

  struct Worker {
    explicit Worker(std::size_t bytes) : arena(bytes), histogram(static_cast<std::size_t>(classes)) {}
    B backend;
    Buffer arena;
    std::vector<double> histogram;
  };
  /// A worker that nobody else uses now.
  class Lease {
   public:
    explicit Lease(Engine& engine, int preferred = 0) : engine_(engine) {
      std::unique_lock lock(engine_.mutex_);
      engine_.returned_.wait(lock, [&] { return !engine_.idle_.empty(); });
      const auto wanted = std::find(engine_.idle_.begin(), engine_.idle_.end(), preferred);
      if (wanted != engine_.idle_.end()) std::iter_swap(wanted, engine_.idle_.end() - 1);
      index_ = engine_.idle_.back();
      engine_.idle_.pop_back();
    }
    ~Lease() {
      {
        std::lock_guard lock(engine_.mutex_);
        engine_.idle_.push_back(index_);
      }
      engine_.returned_.notify_one();
    }
    Lease(Lease const&) = delete;
    Lease& operator=(Lease const&) = delete;
    Worker& worker() const { return *engine_.workers_[static_cast<std::size_t>(index_)]; }

   private:
    Engine& engine_;
    int index_;
  };
  struct LaneResult {
    Measures<Sum> measures;
    Sum spread;
  };

  struct Chunk {
    std::size_t begin, size;
  };
  Chunk chunk_at(int i) const {
    const std::size_t begin = static_cast<std::size_t>(i) * chunk;
    return {begin, std::min(chunk, size - begin)};
  }

  BatchMeasures run(Batch const& batch, Noise const& noise, typename Model::Objective::Options const& options,
                    bool with_gradients, double* spread) {
    const int lanes = static_cast<int>(batch.lanes.size()), slots = this->slots();
    if (lane_results_.size() < batch.lanes.size()) lane_results_.resize(batch.lanes.size());
    BatchScope<Sum> scope{batch.masked, batch.rows, nullptr};
    LaneSums sums{};
    if constexpr (statistics > 0) {
      observe(batch, sums);
      scope.statistics = sums.data();
    }
    std::array<double, static_cast<std::size_t>(std::max(classes, 1))> histogram{};
    executor_.run(std::min(slots, std::max(lanes, with_gradients ? slots : 0)), [&](int slot) {
      const Lease lease(*this, slot);  // its own, where there are enough: buffers then grow in the first step
      Worker& worker = lease.worker();
      const auto gradients =
          Net::template carve_parameters<R>(gradients_[static_cast<std::size_t>(slot)].template as<R>());
      if (with_gradients)
        worker.backend.fill(Array<R>{gradients_[static_cast<std::size_t>(slot)].template as<R>(), size}, R(0));
      std::fill(worker.histogram.begin(), worker.histogram.end(), 0.);
      for (int i = slot; i < lanes; i += slots) {
        PackedLane const& packed = batch.lanes[static_cast<std::size_t>(i)];
        Lane<int> lane = packed.view();
        lane.longest = capacity_.longest;  // scratch is sized by it: once, for all lanes
        const Rows<E const, Net::features> x{features_of(packed), lane.rows};
        auto activations = Net::resized(worker.arena.begin(), {lane.rows, lane.longest});
        LaneResult& result = lane_results_[static_cast<std::size_t>(i)];
        result = {};
        if (lane.rows == 0) continue;
        if constexpr (classes > 0) result.measures.histogram = worker.histogram.data();
        Net::forward(worker.backend, weights_, lane, noise, options, scope, x, activations, result.measures);
        if (spread != nullptr) worker.backend.spread(activations.encoder.output, result.spread);
        if (with_gradients)
          Net::backward(worker.backend, weights_, gradients, lane, noise, options, scope, x, activations);
      }
      std::lock_guard lock(mutex_);  // counts: exact in any order
      for (std::size_t c = 0; c < worker.histogram.size(); ++c) histogram[c] += worker.histogram[c];
    });
    if (with_gradients) reduce();
    BatchMeasures out;
    double correct = 0, predicted = 0, widths = 0, weights = 0;
    for (int i = 0; i < lanes; ++i) {
      LaneResult const& result = lane_results_[static_cast<std::size_t>(i)];
      out.loss += static_cast<double>(result.measures.loss);
      correct += result.measures.correct;
      predicted += result.measures.predicted;
      const auto rows = static_cast<double>(batch.lanes[static_cast<std::size_t>(i)].rows());
      widths += rows * static_cast<double>(result.spread);
      weights += rows;
    }
    if (spread != nullptr) *spread = weights > 0 ? widths / weights : 0;
    out.masked_accuracy = predicted > 0 ? correct / predicted : 0;
    if constexpr (classes > 0) {
      out.code_perplexity = perplexity(histogram);
      histogram.fill(0);
      for (auto const& lane : batch.lanes)
        for (std::size_t i = 0; i < lane.masked.size(); ++i) ++histogram[static_cast<std::size_t>(lane.targets[i])];
      out.target_perplexity = perplexity(histogram);
    }
    return out;
  }

  /// Features stand in the backend's own memory.
  static E const* features_of(PackedLane const& lane) {
    static_assert(std::is_same_v<E, float>, "sotto: this backend keeps features elsewhere than on the host");
    return lane.features.data();
  }

  using LaneSums = std::array<Sum, static_cast<std::size_t>(std::max(statistics, 1))>;
  void observe(Batch const& batch, LaneSums& sums) {
    auto& lanes = lane_sums_;
    if (lanes.size() < batch.lanes.size()) lanes.resize(batch.lanes.size());
    executor_.run(static_cast<int>(batch.lanes.size()), [&](int i) {
      const Lease lease(*this);
      PackedLane const& packed = batch.lanes[static_cast<std::size_t>(i)];
      lanes[static_cast<std::size_t>(i)] = {};
      Net::observe(lease.worker().backend, weights_, packed.view(), {features_of(packed), packed.rows()},
                   lanes[static_cast<std::size_t>(i)].data());
    });
    for (std::size_t i = 0; i < batch.lanes.size(); ++i)
      for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += lanes[i][k];
  }

  /// Sums the slots as a tree, then turns gradients of working weights into those of masters.
  void reduce() {
    const int slots = this->slots();
    for (int stride = 1; stride < slots; stride *= 2)
      executor_.run(static_cast<int>(chunks_.size()), [&](int i) {
        const Lease lease(*this);
        const Chunk part = chunk_at(i);
        for (int slot = 0; slot + stride < slots; slot += 2 * stride) {
          const auto at = [&](int s) {
            return Matrix<R>{gradients_[static_cast<std::size_t>(s)].template as<R>() + part.begin, 1,
                             static_cast<int>(part.size), static_cast<std::ptrdiff_t>(part.size)};
          };
          lease.worker().backend.sum(at(slot), at(slot + stride), at(slot));
        }
      });
    const Lease lease(*this);
    Net::finish(lease.worker().backend, master_, Net::template carve_parameters<R>(gradients_[0].template as<R>()));
  }

  Executor& executor_;
  Capacity capacity_;
  Buffer values_, first_, second_, prepared_;
  std::vector<Buffer> gradients_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<int> idle_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<LaneResult> lane_results_;
  std::vector<LaneSums> lane_sums_;
  std::vector<double> chunks_;
  typename Net::Weights weights_{};
  typename Net::Master master_{};
  std::uint64_t preparations_ = 0;
};

}  // namespace sotto::inline SOTTO_ABI
