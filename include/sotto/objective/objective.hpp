// What an objective is: what is corrupted, what is predicted, and the loss. Everything else in a step is the trainer's.
#pragma once

#include <cstdint>
#include <span>

#include <sotto/core/views.hpp>

namespace sotto::inline SOTTO_API {

/// No batch statistics: each lane runs forward, loss and backward at once.
struct None {
  static constexpr int size = 0;
};
/// N numbers that each lane's observe() adds to, summed over the batch before any lane's forward reads them.
template <int N> struct Sums {
  static_assert(N >= 1, "sotto: Sums needs at least 1 number");
  static constexpr int size = N;
};

/// What a lane knows of its whole batch: loss denominators are complete before any forward. B: the backend, which
/// says what a count is: a number, or where a device finds it.
template <class B> struct BatchScope {
  typename B::Count masked;                     ///< masked rows of the batch
  typename B::Count rows;                       ///< all rows of the batch
  typename B::Sum const* statistics = nullptr;  ///< [Statistics::size], complete; nullptr without
};

/// What a lane adds up for the progress line; an objective's Head fills it. Sum: the backend's.
template <class Sum> struct Measures {
  Sum loss{};                   ///< this lane's part of the batch's loss: the sum over lanes is the loss
  double correct = 0;           ///< predictions that were right, at masked rows
  double predicted = 0;         ///< predictions made at masked rows
  double* histogram = nullptr;  ///< [classes] predictions of each class, for code perplexity; nullptr: not wanted
};

/// The same in a device's memory.
template <class Number> struct Measures<OnDevice<Number>> {
  OnDevice<Number>& loss;
  OnDevice<int>*correct, *predicted;
  OnDevice<int>* histogram;
};

/// Targets of an objective that has no labels: nothing is fitted, nothing is billed.
struct NoTargets {
  struct Options {};
  static constexpr int classes = 0;
  template <class... Unused> void fit(Unused const&...) {}
  template <class... Unused> void label(Unused const&...) {}
  std::uint64_t flops() const { return 0; }
  std::span<float const> state() const { return {}; }
  void restore(std::span<float const>) {}
};

}  // namespace sotto::inline SOTTO_API
