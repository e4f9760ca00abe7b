// A backend that times its operations with events on its stream. The event after an operation is the one before the
// next, so that as few as possible stand between them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sotto/core/error.hpp>
#include <sotto/cuda.hpp>

namespace sotto::bench {

/// In stream.cu, which nvcc compiles.
cudaStream_t stream_of(cuda::Context& context);

inline void expect_success(cudaError_t error) {
  if (error != cudaSuccess) throw_error(ErrorCode::device, {"timing an operation: ", cudaGetErrorString(error)});
}

/// All calls of an operation; products with weights of different extents, in to out, are different operations.
struct OperationTime {
  std::string name;
  int calls = 0;
  double milliseconds = 0;
  double flops = 0;  ///< of products, in the extents that activations have
};

/// B, and the time of each of its operations between begin() and end(). They must not be recorded meanwhile.
template <class B> class Timed : public B {
 public:
  using E = typename B::Element;
  using R = typename B::Master;
  using Index = typename B::Index;

  using B::B;
  ~Timed() {
    for (auto const event : events_) cudaEventDestroy(event);
  }

  /// The device waits before what is enqueued from now on: else it would wait for the host between two operations, and
  /// that would be counted.
  void begin() {
    expect_success(cudaLaunchHostFunc(
        stream_of(this->context()), [](void*) { std::this_thread::sleep_for(std::chrono::milliseconds(50)); },
        nullptr));
    calls_.clear();
    timing_ = true;
  }
  /// Waits for everything since begin() and adds it to totals.
  void end(std::vector<OperationTime>& totals) {
    timing_ = false;
    if (calls_.empty()) return;
    expect_success(cudaEventSynchronize(events_[calls_.size()]));
    for (std::size_t i = 0; i < calls_.size(); ++i) {
      float milliseconds = 0;
      expect_success(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]));
      auto total = std::find_if(totals.begin(), totals.end(), [&](auto const& t) { return t.name == calls_[i].name; });
      if (total == totals.end()) total = totals.insert(total, {calls_[i].name});
      ++total->calls;
      total->milliseconds += static_cast<double>(milliseconds);
      total->flops += calls_[i].flops;
    }
  }
  /// What an event costs: an operation that does nothing.
  void nothing() {
    timed("nothing, between two events", [] {});
  }

  // What surrounds the door in a step.
  void copy_on_device(std::byte* to, std::byte const* from, std::size_t bytes) {
    timed("copy_on_device", [&] { B::copy_on_device(to, from, bytes); });
  }
  void convert(Array<R const> features, Array<E> x) {
    timed("convert", [&] { B::convert(features, x); });
  }
  void begin_step(Lane<Index> const& lane, cuda::StepInput const* input, cuda::StepOutput* output, std::byte* tiles) {
    timed("begin_step", [&] { B::begin_step(lane, input, output, tiles); });
  }
  void clear_counts(Array<Index> counts) {
    timed("clear_counts", [&] { B::clear_counts(counts); });
  }
  void update() {
    timed("update", [&] { B::update(); });
  }

  // The door, but for prepare_linear(), which enqueues nothing in a step.
#define SOTTO_TIMED(operation)                                                           \
  template <class... A> void operation(A&&... arguments) {                               \
    timed(                                                                               \
        #operation, [&] { B::operation(std::forward<A>(arguments)...); }, arguments...); \
  }
#define SOTTO_TIMED_FOR(operation)                                                          \
  template <class Kind, class... A> void operation(A&&... arguments) {                      \
    timed(#operation, [&] { B::template operation<Kind>(std::forward<A>(arguments)...); }); \
  }
#include "../operations.inc"
  SOTTO_TIMED(skip_forward)
  SOTTO_TIMED(skip_back)
#undef SOTTO_TIMED
#undef SOTTO_TIMED_FOR
  template <class Policy, int HeadWidth, class... A> void attention(A&&... arguments) {
    timed("attention", [&] { B::template attention<Policy, HeadWidth>(std::forward<A>(arguments)...); });
  }
  template <class Policy, int HeadWidth, class... A> void attention_back(A&&... arguments) {
    timed("attention_back", [&] { B::template attention_back<Policy, HeadWidth>(std::forward<A>(arguments)...); });
  }

 private:
  struct Call {
    std::string name;
    double flops;
  };

  void mark(std::size_t i) {
    if (i == events_.size()) {
      cudaEvent_t event = nullptr;
      expect_success(cudaEventCreate(&event));
      events_.push_back(event);
    }
    expect_success(cudaEventRecord(events_[i], stream_of(this->context())));
  }
  template <class F, class... A> void timed(std::string_view name, F&& call, A const&... arguments) {
    if (timing_ && calls_.empty()) mark(0);
    call();
    if (!timing_) return;
    calls_.push_back(called(name, arguments...));
    mark(calls_.size());
  }

  template <class... A> static Call called(std::string_view name, A const&...) { return {std::string(name), 0}; }
  /// A product: rows and a weight.
  template <class X, class... A>
  requires requires(X x) { x.rows; }
  static Call called(std::string_view name, X const& x, typename B::Prepared const& w, A const&...) {
    const int out = w.shape.padded_out(), in = w.shape.padded_in();
    return {joined({name, ", ", in, " to ", out}), 2. * x.rows * out * in};
  }
  /// The gradient of a weight: rows of both sides, and the weight.
  template <class X, class... A>
  requires requires(X x) { x.rows; }
  static Call called(std::string_view name, X const& dy, auto const&, typename B::Prepared const& w, A const&...) {
    return called(name, dy, w);
  }

  bool timing_ = false;
  std::vector<Call> calls_;
  std::vector<cudaEvent_t> events_;  ///< one more than calls
};

}  // namespace sotto::bench
