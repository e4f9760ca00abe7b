// What the optimiser works on: parameters, their moments and their gradients, as flat buffers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/core/views.hpp>
#include <sotto/nn/parameters.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/workers.hpp>

namespace sotto::inline SOTTO_ABI {

/// The numbers of a parameter table. Each slot has a gradient buffer of its own; slots are summed as a fixed tree, so
/// that the same slots give the same bits on any number of threads.
template <class B> class ParameterState {
 public:
  using R = typename B::Master;

  SOTTO_COLD ParameterState(Executor& executor, Workers<B>& workers, std::span<ParameterEntry const> table, int slots)
      : executor_(executor), workers_(workers), table_(table), size_(count(table)), values_(size_ * sizeof(R)),
        first_(size_ * sizeof(R)), second_(size_ * sizeof(R)), slots_(slots),
        gradients_(static_cast<std::size_t>(slots) * slot_bytes(size_)), partial_((size_ + chunk - 1) / chunk) {}
  /// Bytes that so many numbers take.
  static constexpr std::size_t bytes(std::size_t size, int slots) {
    return 3 * size * sizeof(R) + static_cast<std::size_t>(slots) * slot_bytes(size);
  }

  std::size_t size() const { return size_; }
  int slots() const { return slots_; }
  R* values() const { return values_.template as<R>(); }
  R* first_moments() const { return first_.template as<R>(); }
  R* second_moments() const { return second_.template as<R>(); }
  /// Slot 0 holds the gradient after reduce().
  R* gradients(int slot = 0) const {
    return reinterpret_cast<R*>(gradients_.begin() + static_cast<std::size_t>(slot) * slot_bytes(size_));
  }

  /// Sums the slots into the first, a piece at a time that stays in a cache, and measures the sum while it is there.
  SOTTO_NOINLINE void reduce() {
    each_chunk([&](B& backend, std::size_t begin, std::size_t size) {
      const auto at = [&](int slot) { return Array<R>{gradients(slot) + begin, size}; };
      for (int stride = 1; stride < slots(); stride *= 2)
        for (int slot = 0; slot + stride < slots(); slot += 2 * stride) backend.add(at(slot + stride), at(slot));
      partial_[begin / chunk] = backend.squared_norm(at(0));
    });
  }
  /// Norm of the gradient that reduce() left.
  double gradient_norm() const {
    double total = 0;
    for (const double part : partial_) total += part;
    return std::sqrt(total);
  }
  /// One step of AdamW, numbered from 1.
  SOTTO_NOINLINE void update(OptimizerOptions const& options, double rate, double gradient_norm, std::uint64_t step) {
    const double clip = options.clip > 0 && gradient_norm > options.clip ? options.clip / (gradient_norm + 1e-6) : 1;
    each_chunk([&](B& backend, std::size_t begin, std::size_t size) {
      for (auto const& entry : table_) {  // what of each parameter lies in this chunk
        const std::size_t from = std::max(begin, entry.offset), to = std::min(begin + size, entry.offset + entry.size);
        if (from >= to || !entry.info.trained) continue;
        const auto at = [&](R* buffer) { return Array<R>{buffer + from, to - from}; };
        backend.adamw(at(values()), at(gradients()), at(first_moments()), at(second_moments()), static_cast<R>(clip),
                      options.beta1, options.beta2, options.epsilon, entry.info.decay ? options.weight_decay : 0, rate,
                      static_cast<int>(step));
      }
    });
  }

 private:
  static constexpr std::size_t chunk = std::size_t{1} << 16;
  /// Slots begin at cache lines.
  static constexpr std::size_t slot_bytes(std::size_t size) { return (size * sizeof(R) + 63) / 64 * 64; }

  /// f(backend, begin, size), in parallel.
  SOTTO_NOINLINE void each_chunk(FunctionRef<void(B&, std::size_t, std::size_t)> f) {
    executor_.run(static_cast<int>(partial_.size()), [&](int i) {
      const typename Workers<B>::Lease worker(workers_);
      const std::size_t begin = static_cast<std::size_t>(i) * chunk;
      f(worker->backend, begin, std::min(chunk, size_ - begin));
    });
  }

  Executor& executor_;
  Workers<B>& workers_;
  std::span<ParameterEntry const> table_;
  std::size_t size_;
  Buffer values_, first_, second_;
  int slots_;
  Buffer gradients_;
  std::vector<double> partial_;
};

}  // namespace sotto::inline SOTTO_ABI
