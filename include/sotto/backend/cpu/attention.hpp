// Softmax attention on the CPU: one fused forward and one fused backward, instantiated with the
// policy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cpu/detail/attention_tiles.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

// The score of a pair that is not seen: fast_exp(hidden_score - x) is 0 for every x from least_top
// on.
inline constexpr float hidden_score = -1e30f, least_top = -1e29f;

// Columns [begin, end) of a tile that begins at key `first` are inside the query's span.
template <class Policy> SOTTO_ALWAYS_INLINE attention::Range columns_of(int query, int first, int columns) {
  const int begin = query - Policy::span.before - first, end = query + Policy::span.after + 1 - first;
  return {std::clamp(begin, 0, columns), std::clamp(end, 0, columns)};
}

SOTTO_ALWAYS_INLINE void fill_outside(float* row, attention::Range inside, int end, float value) {
  for (int j = 0; j < inside.begin; ++j) row[j] = value;
  for (int j = std::max(inside.begin, inside.end); j < end; ++j) row[j] = value;
}

// One sequence and one head of it. Views begin at the sequence's first row and the head's first
// column.
template <class E> struct AttentionHead {
  int length, head;
  float scale;
  E const *q, *k, *v;
  float const* table;
  E const* gates;
  std::ptrdiff_t stride, gate_stride;
  float* scratch;
  float gate(int query) const { return gates != nullptr ? static_cast<float>(gates[query * gate_stride]) : 1.0f; }
};

// What becomes of one row of raw scores.
template <class Policy>
SOTTO_ALWAYS_INLINE void score_row(int head, int query, int first, attention::Range inside,
                                   float const* __restrict table, float gate, float* __restrict row) {
  for (int j = inside.begin; j < inside.end; ++j) {
    const attention::Pair at{head, query, first + j};
    if constexpr (attention::always_visible<Policy>) {
      row[j] = attention::scored<Policy>(row[j], at, table, gate);
    } else {
      row[j] = Policy::visible(at) ? attention::scored<Policy>(row[j], at, table, gate) : hidden_score;
    }
  }
}

template <class Policy, int HeadWidth, class E>
SOTTO_NOINLINE void attention_head(AttentionHead<E> const& h, E* out, std::ptrdiff_t out_stride, float* log_sum,
                                   std::ptrdiff_t log_stride) {
  constexpr int padded = ceil_to(HeadWidth, lanes), tile = tile_queries * tile_keys;
  const int rows = ceil_to(h.length, panel_keys);
  float* const values = h.scratch;
  float* const panels = values + rows * padded;
  float* const queries = panels + rows * HeadWidth;
  float* const context = queries + tile_queries * padded;
  float* const scores = context + tile_queries * padded;

  pack_rows<HeadWidth, padded>(h.k, h.stride, h.length, 1, rows, values);
  pack_panels<HeadWidth, padded>(values, h.length, panels);
  pack_rows<HeadWidth, padded>(h.v, h.stride, h.length, 1, rows, values);

  for (int q0 = 0; q0 < h.length; q0 += tile_queries) {
    const int count = std::min(tile_queries, h.length - q0);
    pack_rows<HeadWidth, padded>(h.q + q0 * h.stride, h.stride, count, h.scale, tile_queries, queries);
    const auto keys = attention::keys_of(Policy::span, q0, q0 + count, h.length);
    const int begin = keys.begin / panel_keys * panel_keys;
    for (int first = begin, t = 0; first < keys.end; first += tile_keys, ++t)
      tile_scores<HeadWidth, padded>(count, std::min(tile_keys, keys.end - first), queries, panels + first * HeadWidth,
                                     scores + t * tile);

    float inverse[tile_queries];
    for (int i = 0; i < count; ++i) {
      const int query = q0 + i;
      Vec tops = splat(least_top);
      for (int first = begin, t = 0; first < keys.end; first += tile_keys, ++t) {
        float* const row = scores + t * tile + i * tile_keys;
        const int columns = std::min(tile_keys, keys.end - first), end = ceil_to(columns, lanes);
        const auto inside = columns_of<Policy>(query, first, columns);
        if constexpr (!attention::plain_score<Policy> || !attention::always_visible<Policy>)
          score_row<Policy>(h.head, query, first, inside, h.table, h.gate(query), row);
        fill_outside(row, inside, end, hidden_score);
        for (int j = 0; j < end; j += lanes) tops = max(load(row + j), tops);
      }
      const float top = max_of(tops);
      Vec sums{};
      for (int first = begin, t = 0; first < keys.end; first += tile_keys, ++t) {
        float* const row = scores + t * tile + i * tile_keys;
        const int columns = std::min(tile_keys, keys.end - first);
        for (int j = 0; j < columns; j += lanes) {
          const Vec p = fast_exp(load(row + j) - top);
          sums += p;
          store(row + j, p);
        }
      }
      const float sum = sum_of(sums);
      inverse[i] = sum > 0 ? 1 / sum : 0.0f;
      log_sum[query * log_stride] = sum > 0 ? top + std::log(sum) : 0.0f;
    }

    for (int c = 0; c < tile_queries * padded; ++c) context[c] = 0;
    for (int first = begin, t = 0; first < keys.end; first += tile_keys, ++t)
      tile_times_rows<tile_keys, 1, padded>(count, std::min(tile_keys, keys.end - first), scores + t * tile,
                                            values + first * padded, context);
    for (int i = 0; i < count; ++i)
      for (int c = 0; c < HeadWidth; ++c)
        out[(q0 + i) * out_stride + c] = stored<E>(context[i * padded + c] * inverse[i]);
  }
}

template <class Policy, int HeadWidth, class E>
SOTTO_NOINLINE void attention_head_back(AttentionHead<E> const& h, E const* out, E const* d_out,
                                        std::ptrdiff_t out_stride, float const* log_sum, std::ptrdiff_t log_stride,
                                        E* dq, E* dk, E* dv, std::ptrdiff_t d_stride, float* d_table, E* d_gates,
                                        std::ptrdiff_t d_gate_stride) {
  constexpr int padded = ceil_to(HeadWidth, lanes), tile = tile_queries * tile_keys;
  constexpr bool plain = attention::plain_score<Policy> && attention::always_visible<Policy>;
  const int rows = ceil_to(h.length, panel_keys), rows_of_sums = rows + tile_keys;
  float* const keys = h.scratch;
  float* const key_panels = keys + rows * padded;
  float* const value_panels = key_panels + rows * HeadWidth;
  float* const d_keys = value_panels + rows * HeadWidth;
  float* const d_values = d_keys + rows_of_sums * padded;
  float* const queries = d_values + rows_of_sums * padded;
  float* const d_context = queries + tile_queries * padded;
  float* const d_queries = d_context + tile_queries * padded;
  float* const p = d_queries + tile_queries * padded;
  float* const ds = p + tile;

  pack_rows<HeadWidth, padded>(h.v, h.stride, h.length, 1, rows, keys);
  pack_panels<HeadWidth, padded>(keys, h.length, value_panels);
  pack_rows<HeadWidth, padded>(h.k, h.stride, h.length, 1, rows, keys);
  pack_panels<HeadWidth, padded>(keys, h.length, key_panels);
  for (int i = 0; i < 2 * rows_of_sums * padded; ++i) d_keys[i] = 0;

  for (int q0 = 0; q0 < h.length; q0 += tile_queries) {
    const int count = std::min(tile_queries, h.length - q0);
    pack_rows<HeadWidth, padded>(h.q + q0 * h.stride, h.stride, count, h.scale, tile_queries, queries);
    pack_rows<HeadWidth, padded>(d_out + q0 * out_stride, out_stride, count, 1, tile_queries, d_context);
    for (int c = 0; c < tile_queries * padded; ++c) d_queries[c] = 0;
    float along[tile_queries], d_gate[tile_queries]{};  // along: sum over keys of p dp, which is d_out . out
    for (int i = 0; i < count; ++i) {
      E const* const row = out + (q0 + i) * out_stride;
      float sum = 0;
      for (int c = 0; c < HeadWidth; ++c) sum += static_cast<float>(row[c]) * d_context[i * padded + c];
      along[i] = sum;
    }
    const auto range = attention::keys_of(Policy::span, q0, q0 + count, h.length);
    for (int first = range.begin / panel_keys * panel_keys; first < range.end; first += tile_keys) {
      const int columns = std::min(tile_keys, range.end - first), end = ceil_to(columns, lanes);
      tile_scores<HeadWidth, padded>(count, columns, queries, key_panels + first * HeadWidth, p);
      tile_scores<HeadWidth, padded>(count, columns, d_context, value_panels + first * HeadWidth, ds);
      for (int i = 0; i < count; ++i) {
        const int query = q0 + i;
        float* const __restrict p_row = p + i * tile_keys;
        float* const __restrict ds_row = ds + i * tile_keys;
        const auto inside = columns_of<Policy>(query, first, columns);
        const float log_total = log_sum[query * log_stride], mean = along[i];
        if constexpr (plain) {
          for (int j = 0; j < end; j += lanes) {
            const Vec probability = fast_exp(load(p_row + j) - log_total);
            store(p_row + j, probability);
            store(ds_row + j, probability * (load(ds_row + j) - mean));
          }
        } else {
          alignas(64) float by_raw[tile_keys], by_gate[tile_keys];
          constexpr int reads = Policy::reads > 0 ? Policy::reads : 1;
          float by_entry[reads][tile_keys];
          int entry[reads][tile_keys];
          const float gate = h.gate(query);
          for (int j = inside.begin; j < inside.end; ++j) {
            const attention::Pair at{h.head, query, first + j};
            if (!attention::always_visible<Policy> && !Policy::visible(at)) {
              p_row[j] = hidden_score;
              by_raw[j] = by_gate[j] = 0;
              for (int e = 0; e < Policy::reads; ++e) by_entry[e][j] = 0, entry[e][j] = 0;
              continue;
            }
            const auto slope = attention::score_slope<Policy>(p_row[j], at, h.table, gate);
            p_row[j] = slope.score;
            by_raw[j] = slope.by_raw;
            by_gate[j] = slope.by_gate;
            for (int e = 0; e < Policy::reads; ++e) {
              by_entry[e][j] = slope.by_entry[e];
              entry[e][j] = slope.entry[e];
            }
          }
          fill_outside(p_row, inside, end, hidden_score);
          fill_outside(by_raw, inside, end, 0);
          for (int j = 0; j < end; j += lanes) {
            const Vec probability = fast_exp(load(p_row + j) - log_total);
            store(p_row + j, probability);
            store(ds_row + j, probability * (load(ds_row + j) - mean));
          }
          if (Policy::gates > 0)
            for (int j = inside.begin; j < inside.end; ++j) d_gate[i] += ds_row[j] * by_gate[j];
          if (d_table != nullptr)
            for (int e = 0; e < Policy::reads; ++e)
              for (int j = inside.begin; j < inside.end; ++j) d_table[entry[e][j]] += ds_row[j] * by_entry[e][j];
          for (int j = 0; j < end; j += lanes) store(ds_row + j, load(ds_row + j) * load(by_raw + j));
        }
        // Rows of dk and dv are computed in the micro-kernel's step: what it reads beyond the keys
        // must add nothing.
        const int cleared = std::min(tile_keys, end + kernel_rows<1>);
        fill_outside(p_row, inside, cleared, 0);
        fill_outside(ds_row, inside, cleared, 0);
      }
      tile_times_rows<tile_keys, 1, padded>(count, columns, ds, keys + first * padded, d_queries);
      tile_times_rows<1, tile_keys, padded>(columns, count, ds, queries, d_keys + first * padded);
      tile_times_rows<1, tile_keys, padded>(columns, count, p, d_context, d_values + first * padded);
    }
    for (int i = 0; i < count; ++i) {
      for (int c = 0; c < HeadWidth; ++c) dq[(q0 + i) * d_stride + c] = stored<E>(d_queries[i * padded + c] * h.scale);
      if constexpr (Policy::gates > 0) d_gates[(q0 + i) * d_gate_stride] = stored<E>(d_gate[i]);
    }
  }
  for (int i = 0; i < h.length; ++i)
    for (int c = 0; c < HeadWidth; ++c) {
      dk[i * d_stride + c] = stored<E>(d_keys[i * padded + c]);
      dv[i * d_stride + c] = stored<E>(d_values[i * padded + c]);
    }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Floats that attention() and attention_back() need as scratch for sequences of up to
/// `longest` rows.
template <int HeadWidth> constexpr std::size_t attention_scratch(int longest) {
  const std::size_t padded = detail::ceil_to(HeadWidth, lanes),
                    rows = static_cast<std::size_t>(detail::ceil_to(longest, detail::tile_keys) + detail::tile_keys),
                    block = detail::tile_queries;
  const std::size_t forward = rows * (padded + HeadWidth) + block * (2 * padded + rows);
  const std::size_t backward = rows * (3 * padded + 2 * HeadWidth) + block * (3 * padded + 2 * detail::tile_keys);
  return std::max(forward, backward);
}

/// out = softmax attention of each sequence of the lane to itself, head by head, as Policy says.
/// HeadWidth: columns of a head, zeros beyond its true width included; a multiple of 8, at most
/// 128. qkv: [rows, 3 heads HeadWidth], all heads of q, then of k, then of v. scale: what q·k is
/// multiplied by, 1/sqrt(true head width). table: [Policy::table(heads)], or null. gates: [rows,
/// heads], or {} if Policy has none. out: [rows, heads HeadWidth]. log_sum: [rows, heads], the
/// logarithm of the softmax's denominator (0 where a query sees no key). scratch:
/// [attention_scratch<HeadWidth>(lane.longest)], at a multiple of 64 bytes.
template <class Policy, int HeadWidth, class E>
void attention(Lane<int> const& lane, int heads, float scale, In<E> qkv, float const* table, In<E> gates, Matrix<E> out,
               Matrix<float> log_sum, float* scratch) {
  static_assert(HeadWidth % 8 == 0 && HeadWidth > 0 && HeadWidth <= 128);
  for (int s = 0; s < lane.sequences; ++s)
    for (int h = 0; h < heads; ++h) {
      const int first = lane.offsets[s];
      E const* const q = qkv.row(first) + h * HeadWidth;
      const detail::AttentionHead<E> one{lane.offsets[s + 1] - first,
                                         h,
                                         scale,
                                         q,
                                         q + heads * HeadWidth,
                                         q + 2 * heads * HeadWidth,
                                         table,
                                         Policy::gates > 0 ? gates.row(first) + h : nullptr,
                                         qkv.stride,
                                         gates.stride,
                                         scratch};
      detail::attention_head<Policy, HeadWidth>(one, out.row(first) + h * HeadWidth, out.stride, log_sum.row(first) + h,
                                                log_sum.stride);
    }
}

/// Backward of attention(), whose arguments and results it is given. d_qkv is overwritten. d_table:
/// [Policy::table(heads)], added to, or null. d_gates: [rows, heads], overwritten, or {} if Policy
/// has none. Sums run in a fixed order.
template <class Policy, int HeadWidth, class E>
void attention_back(Lane<int> const& lane, int heads, float scale, In<E> qkv, float const* table, In<E> gates,
                    In<E> out, In<E> d_out, Matrix<float const> log_sum, Matrix<E> d_qkv, float* d_table,
                    Matrix<std::type_identity_t<E>> d_gates, float* scratch) {
  static_assert(HeadWidth % 8 == 0 && HeadWidth > 0 && HeadWidth <= 128);
  for (int s = 0; s < lane.sequences; ++s)
    for (int h = 0; h < heads; ++h) {
      const int first = lane.offsets[s];
      E const* const q = qkv.row(first) + h * HeadWidth;
      E* const dq = d_qkv.row(first) + h * HeadWidth;
      const detail::AttentionHead<E> one{lane.offsets[s + 1] - first,
                                         h,
                                         scale,
                                         q,
                                         q + heads * HeadWidth,
                                         q + 2 * heads * HeadWidth,
                                         table,
                                         Policy::gates > 0 ? gates.row(first) + h : nullptr,
                                         qkv.stride,
                                         gates.stride,
                                         scratch};
      detail::attention_head_back<Policy, HeadWidth>(
          one, out.row(first) + h * HeadWidth, d_out.row(first) + h * HeadWidth, out.stride, log_sum.row(first) + h,
          log_sum.stride, dq, dq + heads * HeadWidth, dq + 2 * heads * HeadWidth, d_qkv.stride, d_table,
          Policy::gates > 0 ? d_gates.row(first) + h : nullptr, d_gates.stride);
    }
}

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {
template <class Policy, int HeadWidth, class E>
SOTTO_ALWAYS_INLINE void raw_gates(E const* x, Matrix<float const> weight, Array<float const> bias, float* raw) {
  for (int g = 0; g < Policy::gates; ++g) {
    float sum = bias.begin[g];
    for (int c = 0; c < HeadWidth; ++c) sum += static_cast<float>(x[c]) * weight.row(g)[c];
    raw[g] = sum;
  }
}
}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// gates [rows, heads]: Policy::gate() of the raw values x_h weight^T + bias, where x_h is head h's
/// slice of the block's input x [rows, heads HeadWidth]. HeadWidth: the true one. weight:
/// [Policy::gates, HeadWidth]; bias: [Policy::gates]; constant: [heads].
template <class Policy, int HeadWidth, class E>
void attention_gates(In<E> x, Matrix<float const> weight, Array<float const> bias, Array<float const> constant,
                     Matrix<E> gates) {
  for (int i = 0; i < x.rows; ++i)
    for (int h = 0; h < gates.columns; ++h) {
      float raw[Policy::gates];
      detail::raw_gates<Policy, HeadWidth>(x.row(i) + h * HeadWidth, weight, bias, raw);
      gates.row(i)[h] = stored<E>(attention::gated<Policy>(raw, constant.begin[h]));
    }
}

/// Backward of attention_gates(); everything is added to: dx, d_weight, d_bias, d_constant.
template <class Policy, int HeadWidth, class E>
void attention_gates_back(In<E> x, Matrix<float const> weight, Array<float const> bias, Array<float const> constant,
                          In<E> d_gates, Matrix<E> dx, Matrix<float> d_weight, Array<float> d_bias,
                          Array<float> d_constant) {
  for (int i = 0; i < x.rows; ++i)
    for (int h = 0; h < d_gates.columns; ++h) {
      E const* const slice = x.row(i) + h * HeadWidth;
      E* const d_slice = dx.row(i) + h * HeadWidth;
      float raw[Policy::gates];
      detail::raw_gates<Policy, HeadWidth>(slice, weight, bias, raw);
      const auto slope = attention::gate_slope<Policy>(raw, constant.begin[h]);
      const auto d = static_cast<float>(d_gates.row(i)[h]);
      d_constant.begin[h] += d * slope.by_constant;
      float along[HeadWidth] = {};
      for (int g = 0; g < Policy::gates; ++g) {
        const float by_raw = d * slope.by_raw[g];
        float const* const w = weight.row(g);
        float* const dw = d_weight.row(g);
        d_bias.begin[g] += by_raw;
        for (int c = 0; c < HeadWidth; ++c) {
          along[c] += by_raw * w[c];
          dw[c] += by_raw * static_cast<float>(slice[c]);
        }
      }
      for (int c = 0; c < HeadWidth; ++c) d_slice[c] = stored<E>(static_cast<float>(d_slice[c]) + along[c]);
    }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
