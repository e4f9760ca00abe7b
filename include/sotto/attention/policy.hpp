// What an attention says about itself: which keys a query sees and what becomes of a score. No
// backend, no loops: the same text is compiled for hosts and GPUs. After PyTorch's FlexAttention
// (score modifier + mask as functions).
#pragma once

#include <assert.h>

#include <concepts>

#include <sotto/config.hpp>
#include <sotto/core/dual.hpp>

namespace sotto::attention::inline SOTTO_API {

/// Farther than any key.
inline constexpr int unbounded = 1 << 28;

/// The keys that a query may see: [query - before, query + after]. A kernel walks no others, hence
/// its cost.
struct Span {
  int before = unbounded, after = unbounded;
};

/// One score. Query and key are positions inside their own sequence, from 0.
struct Pair {
  int head, query, key;
};

/// [begin, end).
struct Range {
  int begin, end;
};

}  // namespace sotto::attention::inline SOTTO_API

namespace sotto::attention::detail::inline SOTTO_API {
// What the defaults return, so that a kernel knows at compile time that nothing was overridden.
struct Always {
  SOTTO_HOST_DEVICE constexpr operator bool() const { return true; }  // NOLINT
};
template <class T> struct Unchanged {
  T value;
  SOTTO_HOST_DEVICE constexpr operator T const&() const { return value; }  // NOLINT
};
}  // namespace sotto::attention::detail::inline SOTTO_API

namespace sotto::attention::inline SOTTO_API {

/// What every attention may say; all static. Derive from a family (Softmax) and hide what differs:
/// a default folds away.
struct Policy {
  /// Learned numbers in a block, given its heads.
  static constexpr int parameters(int /*heads*/) { return 0; }
  /// Entries of the table that score() reads; entry e is a copy of parameter source(e, heads), made
  /// once a step.
  static constexpr int table(int /*heads*/) { return 0; }
  static SOTTO_HOST_DEVICE int source(int entry, int /*heads*/) { return entry; }
  /// The most table entries that one score() reads.
  static constexpr int reads = 0;
  /// Standard deviation of the normal distribution that the learned numbers are drawn from; 0: they
  /// begin at zero.
  static constexpr float deviation(int /*heads*/) { return 0; }
  /// Whether all blocks share the first one's learned numbers.
  static constexpr bool shared = false;
  /// Raw gate values a (row, head), each linear in the head's slice of the block's input. If any,
  /// the block owns a gate weight [gates, head_width], a gate bias [gates] and a gate constant
  /// [heads], and the policy has
  ///     template <class T, class Raw> static SOTTO_HOST_DEVICE T gate(Raw const& raw, T const&
  ///     constant);
  /// (raw(i) is the i-th value), called once a (row, head); its result is score()'s fourth
  /// argument.
  static constexpr int gates = 0;
};

/// The family out(q) = sum over the visible k of softmax(score(q, k)) v(k). A query that sees no
/// key gives zeros.
struct Softmax : Policy {
  static constexpr Span span{};
  /// Asked inside the span only. `static SOTTO_HOST_DEVICE bool visible(Pair)`.
  static SOTTO_HOST_DEVICE constexpr detail::Always visible(Pair) { return {}; }
  /// What becomes of q·k / sqrt(head_width). Written for any scalar T (float, double, Dual);
  /// table(i) is a T; the gate may be left out. Its derivative is never written.
  ///     template <class T, class Table>
  ///     static SOTTO_HOST_DEVICE T score(T const& score, Pair at, Table const& table, T const&
  ///     gate);
  template <class T, class Table>
  static SOTTO_HOST_DEVICE constexpr detail::Unchanged<T> score(T const& score, Pair, Table const&) {
    return {score};
  }
};

/// Keys that some query of [q0, q1) may see, in a sequence of `length`.
SOTTO_HOST_DEVICE constexpr Range keys_of(Span span, int q0, int q1, int length) {
  const int begin = q0 - span.before, end = q1 + span.after;
  return {begin > 0 ? begin : 0, end < length ? end : length};
}
/// Queries that may see some key of [k0, k1).
SOTTO_HOST_DEVICE constexpr Range queries_of(Span span, int k0, int k1, int length) {
  return keys_of({span.after, span.before}, k0, k1, length);
}

/// Whether the query sees the key.
template <class P> SOTTO_HOST_DEVICE constexpr bool seen(Pair at) {
  if (at.key < at.query - P::span.before || at.key > at.query + P::span.after) return false;
  return static_cast<bool>(P::visible(at));
}

/// The table as score() reads it: table(i).
template <class T> struct Lookup {
  T const* values;
  SOTTO_HOST_DEVICE T operator()(int i) const { return values[i]; }
};

}  // namespace sotto::attention::inline SOTTO_API

namespace sotto::attention::detail::inline SOTTO_API {
template <class P> inline constexpr int gate_slots = P::gates > 0 ? 1 : 0;
// Derivatives of a score: by the raw score, by the gate if there is one, by each entry read.
template <class T, class P> using ScoreDual = Dual<T, 1 + gate_slots<P> + P::reads>;

// Gives variables, and notes which entry each stands for.
template <class T, class P> struct Tracked {
  T const* values;
  int* entry;
  int* used;
  SOTTO_HOST_DEVICE ScoreDual<T, P> operator()(int i) const {
    assert(*used < P::reads && "sotto: score() reads more entries than the policy's `reads`");
    entry[*used] = i;
    return ScoreDual<T, P>::variable(values[i], 1 + gate_slots<P> + (*used)++);
  }
};

// A policy that leaves the gate out has score(score, at, table).
template <class P, class T, class Table>
concept TakesGate = requires(T const& x, Pair at, Table const& table) {
  P::score(x, at, table, x);
};

template <class P, class T, class Table>
SOTTO_HOST_DEVICE T call_score(T const& raw, Pair at, Table const& table, T const& gate) {
  if constexpr (TakesGate<P, T, Table>) {
    return P::score(raw, at, table, gate);
  } else {
    return P::score(raw, at, table);
  }
}

template <class P, class T, class Table>
concept Scores = requires(T const& x, Pair at, Table const& table) {
  { P::score(x, at, table, x) } -> std::same_as<T>;
}
|| requires(T const& x, Pair at, Table const& table) {
  { P::score(x, at, table) } -> std::same_as<T>;
}
|| requires(T const& x, Pair at, Table const& table) {
  { P::score(x, at, table) } -> std::same_as<Unchanged<T>>;
};

template <class P, class T>
concept Gates = P::gates == 0 || requires(T const& x, Lookup<T> raw) {
  { P::gate(raw, x) } -> std::same_as<T>;
};
}  // namespace sotto::attention::detail::inline SOTTO_API

namespace sotto::attention::inline SOTTO_API {

/// The score of a pair. raw: q·k / sqrt(head_width). gate: 1 for a policy without gates.
template <class P, class T> SOTTO_HOST_DEVICE T scored(T const& raw, Pair at, T const* table, T const& gate = T(1)) {
  return detail::call_score<P>(raw, at, Lookup<T>{table}, gate);
}

/// A score and its slopes: by the raw score, by the gate, and by each of the `used` table entries
/// that were read (an entry read twice is listed twice).
template <class T, int Reads> struct ScoreSlope {
  T score, by_raw, by_gate;
  int used;
  int entry[Reads > 0 ? Reads : 1];
  T by_entry[Reads > 0 ? Reads : 1];
};

template <class P, class T>
SOTTO_HOST_DEVICE ScoreSlope<T, P::reads> score_slope(T const& raw, Pair at, T const* table, T const& gate = T(1)) {
  using D = detail::ScoreDual<T, P>;
  ScoreSlope<T, P::reads> slope{};
  D gate_dual(gate);
  if constexpr (P::gates > 0) gate_dual.by[1] = T(1);
  const D y =
      detail::call_score<P>(D::variable(raw, 0), at, detail::Tracked<T, P>{table, slope.entry, &slope.used}, gate_dual);
  slope.score = y.value;
  slope.by_raw = y.by[0];
  if constexpr (P::gates > 0) slope.by_gate = y.by[1];
  for (int i = 0; i < P::reads; ++i) slope.by_entry[i] = y.by[1 + detail::gate_slots<P> + i];
  return slope;
}

/// The gate of a (row, head) from its raw values [gates].
template <class P, class T> SOTTO_HOST_DEVICE T gated(T const* raw, T const& constant) {
  return P::gate(Lookup<T>{raw}, constant);
}

template <class T, int Gates> struct GateSlope {
  T gate, by_constant;
  T by_raw[Gates];
};

template <class P, class T> SOTTO_HOST_DEVICE GateSlope<T, P::gates> gate_slope(T const* raw, T const& constant) {
  using D = Dual<T, P::gates + 1>;
  D variables[P::gates];
  for (int i = 0; i < P::gates; ++i) variables[i] = D::variable(raw[i], i);
  const D y = P::gate(Lookup<D>{variables}, D::variable(constant, P::gates));
  GateSlope<T, P::gates> slope{};
  slope.gate = y.value;
  slope.by_constant = y.by[P::gates];
  for (int i = 0; i < P::gates; ++i) slope.by_raw[i] = y.by[i];
  return slope;
}

/// Whether every pair inside the span is visible: the policy has no visible() of its own.
template <class P> inline constexpr bool always_visible = std::same_as<decltype(P::visible(Pair{})), detail::Always>;
}  // namespace sotto::attention::inline SOTTO_API

namespace sotto::attention::detail::inline SOTTO_API {
template <class P, class = void> inline constexpr bool keeps_score = false;
template <class P>
requires requires(float x, Pair at, Lookup<float> t) {
  { P::score(x, at, t) } -> std::same_as<Unchanged<float>>;
}
inline constexpr bool keeps_score<P, void> = true;
}  // namespace sotto::attention::detail::inline SOTTO_API

namespace sotto::attention::inline SOTTO_API {
/// Whether scores pass unchanged: the policy has no score() of its own.
template <class P> inline constexpr bool plain_score = detail::keeps_score<P>;

/// A policy of the softmax family, complete and well-typed for every scalar that the backends use.
template <class P>
concept SoftmaxPolicy = std::derived_from<P, Softmax> && std::same_as<decltype(P::span), Span const> && P::reads >= 0 &&
                        P::gates >= 0 && requires(Pair at, int i) {
  { P::visible(at) } -> std::convertible_to<bool>;
  { P::parameters(i) } -> std::same_as<int>;
  { P::table(i) } -> std::same_as<int>;
  { P::source(i, i) } -> std::same_as<int>;
  { P::deviation(i) } -> std::convertible_to<float>;
  { P::shared } -> std::convertible_to<bool>;
}
&&detail::Scores<P, float, Lookup<float>>&& detail::Scores<P, double, Lookup<double>>&&
    detail::Scores<P, detail::ScoreDual<float, P>, detail::Tracked<float, P>>&&
        detail::Scores<P, detail::ScoreDual<Dual<double, 1>, P>, detail::Tracked<Dual<double, 1>, P>>&&
            detail::Gates<P, float>&& detail::Gates<P, double>&& detail::Gates<P, Dual<float, P::gates + 1>>;

/// What a spec's Attention may be.
template <class P>
concept AttentionPolicy = SoftmaxPolicy<P>;

}  // namespace sotto::attention::inline SOTTO_API
