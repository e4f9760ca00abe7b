// A backend of the host that times its operations. While it is off, an operation costs one test more.
#pragma once

#include <algorithm>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sotto/budget/cost.hpp>
#include <sotto/core/views.hpp>

namespace sotto::bench {

/// What an operation is: products stand apart from what only surrounds them, and attention's grow with T^2.
enum class Work { product, convolution, attention, other };

/// All calls of an operation; products with weights of different extents, in to out, are different operations.
struct OperationTime {
  std::string_view name;  ///< of the door
  Work work = Work::other;
  int in = 0, out = 0;  ///< extents of a weight; 0: it has none
  int calls = 0;
  double seconds = 0;
  double flops = 0;  ///< model FLOPs of products

  std::string title() const {
    std::string text(name);
    if (out > 0) text += ", " + std::to_string(in) + " to " + std::to_string(out);
    return text;
  }
};

/// The operations of one backend, and through all(), of every backend there is.
class OperationTimes {
 public:
  OperationTimes() {
    std::lock_guard lock(mutex());
    all().push_back(this);
  }
  OperationTimes(OperationTimes const&) = delete;
  OperationTimes& operator=(OperationTimes const&) = delete;
  ~OperationTimes() {
    std::lock_guard lock(mutex());
    std::erase(all(), this);
  }

  /// Between steps, when no backend works.
  static void begin() {
    for (auto* one : all()) one->totals_.clear();
    on_ = true;
  }
  static std::vector<OperationTime> end() {
    on_ = false;
    std::vector<OperationTime> sums;
    for (auto const* one : all())
      for (auto const& operation : one->totals_) {
        OperationTime& sum = find(sums, operation);
        sum.calls += operation.calls;
        sum.seconds += operation.seconds;
        sum.flops += operation.flops;
      }
    return sums;
  }
  static bool on() { return on_; }
  void add(OperationTime const& operation, double seconds) {
    OperationTime& total = find(totals_, operation);
    ++total.calls;
    total.seconds += seconds;
    total.flops += operation.flops;
  }

 private:
  static OperationTime& find(std::vector<OperationTime>& among, OperationTime const& wanted) {
    for (auto& one : among)  // names are literals of one place
      if (one.name.data() == wanted.name.data() && one.in == wanted.in && one.out == wanted.out) return one;
    among.push_back({wanted.name, wanted.work, wanted.in, wanted.out});
    return among.back();
  }
  static std::vector<OperationTimes*>& all() {
    static std::vector<OperationTimes*> instances;
    return instances;
  }
  static std::mutex& mutex() {
    static std::mutex guard;
    return guard;
  }

  inline static bool on_ = false;
  std::vector<OperationTime> totals_;
};

/// B, and the time of each operation of the door between OperationTimes::begin() and end().
template <class B> class Timed : public B {
 public:
#define SOTTO_TIMED(operation)                                                                    \
  template <class... A> decltype(auto) operation(A&&... arguments) {                              \
    return timed([&]() -> decltype(auto) { return B::operation(std::forward<A>(arguments)...); }, \
                 [&] { return described(#operation, arguments...); });                            \
  }
#define SOTTO_TIMED_FOR(operation)                                                                               \
  template <class Kind, class... A> decltype(auto) operation(A&&... arguments) {                                 \
    return timed([&]() -> decltype(auto) { return B::template operation<Kind>(std::forward<A>(arguments)...); }, \
                 [&] { return OperationTime{#operation}; });                                                     \
  }
  SOTTO_TIMED(prepare_linear)
#include "operations.inc"
  SOTTO_TIMED(adamw)
  SOTTO_TIMED(squared_norm)
  SOTTO_TIMED(add)
  SOTTO_TIMED(convert)
#undef SOTTO_TIMED
#undef SOTTO_TIMED_FOR
  template <class Policy, int HeadWidth, class LaneView, class... A>
  void attention(LaneView const& lane, int heads, A&&... arguments) {
    timed([&] { B::template attention<Policy, HeadWidth>(lane, heads, std::forward<A>(arguments)...); },
          [&] { return attended<Policy>("attention", lane, heads * HeadWidth, 1); });
  }
  template <class Policy, int HeadWidth, class LaneView, class... A>
  void attention_back(LaneView const& lane, int heads, A&&... arguments) {
    timed([&] { B::template attention_back<Policy, HeadWidth>(lane, heads, std::forward<A>(arguments)...); },
          [&] { return attended<Policy>("attention_back", lane, heads * HeadWidth, 2); });
  }

 private:
  template <class Call, class Describe> decltype(auto) timed(Call&& call, Describe&& describe) {
    if (!OperationTimes::on()) return call();
    struct Stopwatch {
      Timed& backend;
      OperationTime operation;
      std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
      ~Stopwatch() {
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        backend.times_.add(operation, taken.count());
      }
    } stopwatch{*this, describe()};
    return call();
  }

  static OperationTime described(std::string_view name, auto const&...) { return {name}; }
  /// A product: rows and a weight.
  template <class X>
  requires requires(X x) { x.rows; }
  static OperationTime described(std::string_view name, X const& x, typename B::Prepared const& w, auto const&...) {
    const int out = w.shape.padded_out(), in = w.shape.padded_in();
    return {name, Work::product, in, out, 0, 0, 2. * x.rows * out * in};
  }
  /// The gradient of a weight: rows of both sides, and the weight.
  template <class X>
  requires requires(X x) { x.rows; }
  static OperationTime described(std::string_view name, X const& dy, auto const&, typename B::Prepared const& w,
                                 auto const&...) {
    return described(name, dy, w);
  }
  /// A convolution of a lane, and the gradient of its weight.
  static OperationTime described(std::string_view name, auto const& lane, auto const&,
                                 typename B::PreparedConvolution const& w, auto const&...) {
    return convolved(name, lane.rows, w);
  }
  static OperationTime described(std::string_view name, auto const& lane, auto const&, auto const&,
                                 typename B::PreparedConvolution const& w, auto const&...) {
    return convolved(name, lane.rows, w);
  }
  static OperationTime convolved(std::string_view name, int rows, typename B::PreparedConvolution const& w) {
    const auto& s = w.shape;
    const double multiply_adds = static_cast<double>(rows) * s.width * (s.width / s.groups) * s.taps;
    return {name, Work::convolution, s.taps, s.width, 0, 0, 2 * multiply_adds};
  }
  /// products: of one pair of query and key, over those of a forward pass.
  template <class Policy>
  static OperationTime attended(std::string_view name, auto const& lane, int width, double products) {
    double pairs = 0;
    for (int i = 0; i < lane.sequences; ++i)
      pairs += static_cast<double>(attention_pairs(Policy::span, lane.offsets[i + 1] - lane.offsets[i]));
    return {name, Work::attention, 0, 0, 0, 0, 4 * products * pairs * width};
  }

  OperationTimes times_;
};

}  // namespace sotto::bench
