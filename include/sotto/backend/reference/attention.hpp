// Attention as its definition says: every pair of a sequence, one after another.
#pragma once

#include <math.h>

#include <cmath>
#include <vector>

#include <sotto/attention/policy.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/views.hpp>

namespace sotto::reference::inline SOTTO_ABI {

/// A head as activations carry it.
constexpr int padded(int head_width) { return (head_width + 7) / 8 * 8; }

/// One head of one sequence.
template <class Policy, class T> struct Head {
  int first, length, head, heads, width;
  T scale;
  Matrix<T const> query_key_value;
  T const* table;
  Matrix<T const> gates;

  T const* query(int i) const { return query_key_value.row(first + i) + head * width; }
  T const* key(int i) const { return query_key_value.row(first + i) + (heads + head) * width; }
  T const* value(int i) const { return query_key_value.row(first + i) + (2 * heads + head) * width; }
  template <class Out> auto out(Out m, int i) const { return m.row(first + i) + head * width; }
  T gate(int i) const {
    if constexpr (Policy::gates > 0) return gates.row(first + i)[head];
    return T(1);
  }
  T raw(int q, int k) const {
    T sum(0);
    for (int c = 0; c < width; ++c) sum += query(q)[c] * key(k)[c];
    return sum * scale;
  }
  T score(int q, int k) const {
    return attention::scored<Policy>(raw(q, k), attention::Pair{head, q, k}, table, gate(q));
  }
  std::vector<int> keys(int q) const {
    std::vector<int> seen;
    for (int k = 0; k < length; ++k)
      if (attention::seen<Policy>(attention::Pair{head, q, k})) seen.push_back(k);
    return seen;
  }
};
template <class Policy, int HeadWidth, class T, class F>
void each_head(Lane<int> const& lane, int heads, Matrix<T const> query_key_value, Array<T const> table,
               Matrix<T const> gates, F&& f) {
  for (int s = 0; s < lane.sequences; ++s)
    for (int h = 0; h < heads; ++h) {
      const int first = lane.offsets[s], length = lane.offsets[s + 1] - first;
      const Head<Policy, T> head{
          first,           length,      h,    heads, padded(HeadWidth), T(1 / ::sqrt(double(HeadWidth))),
          query_key_value, table.begin, gates};
      for (int q = 0; q < length; ++q) f(head, q);
    }
}
template <class Policy, class T, class Gate> void raw_gates(T const* slice, int head_width, Gate const& w, T* raw) {
  for (int i = 0; i < Policy::gates; ++i) {
    raw[i] = w.bias.begin[i];
    for (int c = 0; c < head_width; ++c) raw[i] += slice[c] * w.weight.begin[i * head_width + c];
  }
}
template <class Policy, int HeadWidth, class T>
void attention(Lane<int> const& lane, int heads, Matrix<T const> query_key_value, Array<T const> table,
               Matrix<T const> gates, Matrix<T> out, Matrix<T> log_sum) {
  using std::exp, std::log;
  each_head<Policy, HeadWidth, T>(lane, heads, query_key_value, table, gates, [&](Head<Policy, T> const& h, int query) {
    T top(0);
    bool any = false;
    for (int key : h.keys(query)) {
      const T score = h.score(query, key);
      if (!any || top < score) top = score;
      any = true;
    }
    T total(0);
    for (int c = 0; c < padded(HeadWidth); ++c) h.out(out, query)[c] = T(0);
    for (int key : h.keys(query)) {
      const T p = exp(h.score(query, key) - top);
      total += p;
      for (int c = 0; c < padded(HeadWidth); ++c) h.out(out, query)[c] += p * h.value(key)[c];
    }
    if (any)
      for (int c = 0; c < padded(HeadWidth); ++c) h.out(out, query)[c] /= total;
    log_sum.row(h.first + query)[h.head] = top + log(total);
  });
}
template <class Policy, int HeadWidth, class T>
void attention_back(Lane<int> const& lane, int heads, Matrix<T const> query_key_value, Array<T const> table,
                    Matrix<T const> gates, Matrix<T const> out, Matrix<T const> d_out, Matrix<T const> log_sum,
                    Matrix<T> d_query_key_value, Array<T> d_table, Matrix<T> d_gates) {
  using std::exp;
  constexpr int width = padded(HeadWidth);
  for (int t = 0; t < d_query_key_value.rows; ++t)
    for (int i = 0; i < d_query_key_value.columns; ++i) d_query_key_value.row(t)[i] = T(0);
  each_head<Policy, HeadWidth, T>(lane, heads, query_key_value, table, gates, [&](Head<Policy, T> const& h, int query) {
    T const* const d = h.out(d_out, query);
    T along(0);
    for (int c = 0; c < width; ++c) along += d[c] * h.out(out, query)[c];
    T* const dq = d_query_key_value.row(h.first + query) + h.head * width;
    if constexpr (Policy::gates > 0) d_gates.row(h.first + query)[h.head] = T(0);
    for (int key : h.keys(query)) {
      T* const dk = d_query_key_value.row(h.first + key) + (heads + h.head) * width;
      T* const dv = d_query_key_value.row(h.first + key) + (2 * heads + h.head) * width;
      const T p = exp(h.score(query, key) - log_sum.row(h.first + query)[h.head]);
      T dp(0);
      for (int c = 0; c < width; ++c) {
        dp += d[c] * h.value(key)[c];
        dv[c] += p * d[c];
      }
      const T ds = p * (dp - along);
      const auto slope = attention::score_slope<Policy>(h.raw(query, key), attention::Pair{h.head, query, key},
                                                        table.begin, h.gate(query));
      for (int i = 0; i < slope.used; ++i) d_table.begin[slope.entry[i]] += ds * slope.by_entry[i];
      if constexpr (Policy::gates > 0) d_gates.row(h.first + query)[h.head] += ds * slope.by_gate;
      for (int c = 0; c < width; ++c) {
        dq[c] += ds * slope.by_raw * h.scale * h.key(key)[c];
        dk[c] += ds * slope.by_raw * h.scale * h.query(query)[c];
      }
    }
  });
}
template <class Policy, class T, class Gate> void attention_gates(Matrix<T const> x, Gate const& w, Matrix<T> gates) {
  const int heads = gates.columns, head_width = x.columns / heads;
  for (int t = 0; t < x.rows; ++t)
    for (int h = 0; h < heads; ++h) {
      T raw[Policy::gates];
      raw_gates<Policy, T>(x.row(t) + h * head_width, head_width, w, raw);
      gates.row(t)[h] = Policy::gate(attention::Lookup<T>{raw}, w.constant.begin[h]);
    }
}
template <class Policy, class T, class Gate, class GateGradient>
void attention_gates_back(Matrix<T const> x, Gate const& w, Matrix<T const> d_gates, Matrix<T> dx,
                          GateGradient const& g) {
  constexpr int n = Policy::gates;
  const int heads = d_gates.columns, head_width = x.columns / heads;
  for (int t = 0; t < x.rows; ++t)
    for (int h = 0; h < heads; ++h) {
      T raw[n];
      T const* const slice = x.row(t) + h * head_width;
      raw_gates<Policy, T>(slice, head_width, w, raw);
      Dual<T, n + 1> dual[n], constant(w.constant.begin[h]);
      constant.by[n] = T(1);
      for (int i = 0; i < n; ++i) {
        dual[i] = Dual<T, n + 1>(raw[i]);
        dual[i].by[i] = T(1);
      }
      const auto gate = Policy::gate(attention::Lookup<Dual<T, n + 1>>{dual}, constant);
      const T d = d_gates.row(t)[h];
      g.constant.begin[h] += d * gate.by[n];
      for (int i = 0; i < n; ++i) {
        g.bias.begin[i] += d * gate.by[i];
        for (int c = 0; c < head_width; ++c) {
          g.weight.begin[i * head_width + c] += d * gate.by[i] * slice[c];
          dx.row(t)[h * head_width + c] += d * gate.by[i] * w.weight.begin[i * head_width + c];
        }
      }
    }
}

}  // namespace sotto::reference::inline SOTTO_ABI
