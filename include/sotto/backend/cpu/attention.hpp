// Softmax attention on the CPU: one fused forward and one fused backward, instantiated with the
// policy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cpu/detail/attention_tiles.hpp>
#include <sotto/backend/cpu/rows.hpp>
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
  static AttentionHead of(Lane<int> const& lane, int sequence, int head, int heads, int width, float scale,
                          Matrix<E const> qkv, float const* table, Matrix<E const> gates) {
    const int first = lane.offsets[sequence];
    E const* const q = qkv.row(first) + head * width;
    return {lane.offsets[sequence + 1] - first,
            head,
            scale,
            q,
            q + heads * width,
            q + 2 * heads * width,
            table,
            gates.begin != nullptr ? gates.row(first) + head : nullptr,
            qkv.stride,
            gates.stride};
  }
  float gate(int query) const { return gates != nullptr ? static_cast<float>(gates[query * gate_stride]) : 1.0f; }
};

// Memory of a forward and of a backward pass, for sequences of up to `longest` rows. Panels lie as kernels read them.
template <class Kernel, int HeadWidth> struct AttentionMemory {
  using Number = typename Kernel::Number;
  using Unit = typename Kernel::Unit;
  static constexpr int queries = tile_queries<Kernel>, keys = tile_keys<Kernel>, width = ceil_to(HeadWidth, 16);
  static constexpr int left_units = ceil_to(units_of<Kernel>(HeadWidth), 16);
  // not a multiple of 4 KiB: rows would compete for the same cache lines
  static constexpr std::ptrdiff_t stride_for(int longest) { return ceil_to(longest, 64) + 16; }
  static constexpr std::ptrdiff_t key_stride = keys + 16;

  Unit *key_columns, *value_columns, *key_rows, *value_rows, *query_rows, *d_context_rows;
  Operand<Kernel> query, d_context, left;
  float *scores, *d_scores, *d_queries, *d_keys, *d_values;
  Number *probabilities, *d_probabilities;

  // What a product with p reads as A: p itself where Left is no more than that.
  static constexpr bool direct = sizeof(typename Kernel::Left) == Kernel::depth * sizeof(Number);

  static constexpr AttentionMemory carve(Arena& arena, int longest, bool backward) {
    AttentionMemory m{};
    const auto floats = [](int rows, std::ptrdiff_t columns) {
      return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    };
    const int rows = ceil_to(longest, keys);
    const std::ptrdiff_t stride = backward ? key_stride : stride_for(longest);
    m.key_columns = arena.take<Unit>(panels_size<Kernel>(HeadWidth, longest));
    m.query = {arena.take<typename Kernel::Left>(floats(queries, left_units)), left_units};
    m.scores = arena.take<float>(floats(queries, stride));
    m.probabilities = arena.take<Number>(floats(queries, stride));
    m.left = {arena.take<typename Kernel::Left>(direct ? 0 : floats(queries, stride / Kernel::depth)),
              stride / Kernel::depth};
    if (!backward) {
      m.value_rows = arena.take<Unit>(panels_size<Kernel>(longest, HeadWidth));
      return m;
    }
    m.value_columns = arena.take<Unit>(panels_size<Kernel>(HeadWidth, longest));
    m.key_rows = arena.take<Unit>(panels_size<Kernel>(longest, HeadWidth));
    m.query_rows = arena.take<Unit>(panels_size<Kernel>(queries, HeadWidth));
    m.d_context_rows = arena.take<Unit>(panels_size<Kernel>(queries, HeadWidth));
    m.d_context = {arena.take<typename Kernel::Left>(floats(queries, left_units)), left_units};
    m.d_scores = arena.take<float>(floats(queries, stride));
    m.d_probabilities = arena.take<Number>(floats(queries, stride));
    m.d_queries = arena.take<float>(floats(queries, width));
    m.d_keys = arena.take<float>(floats(rows, width));
    m.d_values = arena.take<float>(floats(rows, width));
    return m;
  }

  // p [count, columns] as A.
  Operand<Kernel> as_left(Number* p, std::ptrdiff_t stride, int count, int columns) const {
    if constexpr (direct) {
      return {reinterpret_cast<typename Kernel::Left*>(p), stride / Kernel::depth};
    } else {
      for (int i = 0; i < count; ++i) Kernel::copy_row(p + i * stride, columns, left.begin + i * left.stride);
      return left;
    }
  }
};

// What becomes of one row of raw scores; scores are scaled where the policy says more than a dot product.
template <class Policy>
SOTTO_ALWAYS_INLINE void score_row(int head, int query, int first, attention::Range inside, float scale,
                                   float const* __restrict table, float gate, float* __restrict row) {
  for (int j = inside.begin; j < inside.end; ++j) {
    const attention::Pair at{head, query, first + j};
    if constexpr (attention::always_visible<Policy>) {
      row[j] = attention::scored<Policy>(row[j] * scale, at, table, gate);
    } else {
      row[j] = Policy::visible(at) ? attention::scored<Policy>(row[j] * scale, at, table, gate) : hidden_score;
    }
  }
}

template <class Policy>
inline constexpr bool plain = attention::plain_score<Policy>&& attention::always_visible<Policy>;

// Clears what a product reads of a row beyond its columns: whole units and steps.
template <class Kernel> SOTTO_ALWAYS_INLINE void clear_rest(typename Kernel::Number* row, int end) {
  constexpr int step = Kernel::step * Kernel::depth;
  if constexpr (step > lanes)
    for (int j = end; j < ceil_to(end, step); ++j) row[j] = {};
}

// C numbers of a row of floats times a factor.
template <int HeadWidth, class E> SOTTO_ALWAYS_INLINE void write_row(float const* from, float factor, E* to) {
  for (int c = 0; c < HeadWidth; c += lanes) store_part(to + c, load(from + c) * factor, HeadWidth - c);
}

template <class Policy, class Kernel, int HeadWidth>
SOTTO_NOINLINE void attention_head(AttentionHead<typename Kernel::Number> const& h,
                                   AttentionMemory<Kernel, HeadWidth> const& m, std::ptrdiff_t stride,
                                   typename Kernel::Number* out, std::ptrdiff_t out_stride, float* log_sum,
                                   std::ptrdiff_t log_stride) {
  using Number = typename Kernel::Number;
  using Memory = AttentionMemory<Kernel, HeadWidth>;
  constexpr std::ptrdiff_t width = Memory::width;
  pack<Kernel>(h.k, HeadWidth, h.length, 1, h.stride, m.key_columns);
  pack<Kernel>(h.v, h.length, HeadWidth, h.stride, 1, m.value_rows);
  constexpr std::ptrdiff_t key_panel = static_cast<std::ptrdiff_t>(units_of<Kernel>(HeadWidth)) * panel_columns;
  const std::ptrdiff_t value_panel = static_cast<std::ptrdiff_t>(units_of<Kernel>(h.length)) * panel_columns;
  alignas(64) float context[Memory::queries * width];

  for (int q0 = 0; q0 < h.length; q0 += Memory::queries) {
    const int count = std::min(Memory::queries, h.length - q0);
    copy_rows<Kernel, HeadWidth>(h.q + q0 * h.stride, h.stride, count, m.query);
    const auto keys = attention::keys_of(Policy::span, q0, q0 + count, h.length);
    const int first = keys.begin / panel_columns * panel_columns, columns = keys.end - first,
              end = ceil_to(columns, lanes);
    multiply_rows<Kernel>(count, columns, units_of<Kernel>(HeadWidth), m.query.begin, m.query.stride,
                          m.key_columns + first / panel_columns * key_panel, key_panel, m.scores, stride);
    const float factor = plain<Policy> ? h.scale : 1.f;
    float inverse[Memory::queries];
    for (int i = 0; i < count; ++i) {
      const int query = q0 + i;
      float* const row = m.scores + i * stride;
      Number* const p_row = m.probabilities + i * stride;
      const auto inside = columns_of<Policy>(query, first, columns);
      if constexpr (!plain<Policy>)
        score_row<Policy>(h.head, query, first, inside, h.scale, h.table, h.gate(query), row);
      fill_outside(row, inside, end, hidden_score);
      Vec tops = splat(least_top);
      for (int j = 0; j < end; j += lanes) tops = max(load(row + j), tops);
      const float top = max_of(tops) * factor;
      Vec sums{};
      for (int j = 0; j < end; j += lanes) {
        const Vec p = fast_exp(load(row + j) * factor - top);
        sums += p;
        store(p_row + j, p);
      }
      clear_rest<Kernel>(p_row, end);
      const float sum = sum_of(sums);
      inverse[i] = sum > 0 ? 1 / sum : 0.0f;
      log_sum[query * log_stride] = sum > 0 ? top + std::log(sum) : 0.0f;
    }
    const Operand<Kernel> p = m.as_left(m.probabilities, stride, count, columns);
    multiply_rows<Kernel>(count, HeadWidth, units_of<Kernel>(columns), p.begin, p.stride,
                          m.value_rows + first / Kernel::depth * panel_columns, value_panel, context, width);
    for (int i = 0; i < count; ++i) write_row<HeadWidth>(context + i * width, inverse[i], out + (q0 + i) * out_stride);
  }
}

template <class Policy, class Kernel, int HeadWidth>
SOTTO_NOINLINE void attention_head_back(AttentionHead<typename Kernel::Number> const& h,
                                        AttentionMemory<Kernel, HeadWidth> const& m, typename Kernel::Number const* out,
                                        typename Kernel::Number const* d_out, std::ptrdiff_t out_stride,
                                        float const* log_sum, std::ptrdiff_t log_stride, typename Kernel::Number* dq,
                                        typename Kernel::Number* dk, typename Kernel::Number* dv,
                                        std::ptrdiff_t d_stride, float* d_table, typename Kernel::Number* d_gates,
                                        std::ptrdiff_t d_gate_stride) {
  using Number = typename Kernel::Number;
  using Memory = AttentionMemory<Kernel, HeadWidth>;
  constexpr int tile = Memory::keys, step = Kernel::step * Kernel::depth;
  constexpr std::ptrdiff_t width = Memory::width, stride = Memory::key_stride;
  pack<Kernel>(h.k, HeadWidth, h.length, 1, h.stride, m.key_columns);
  pack<Kernel>(h.v, HeadWidth, h.length, 1, h.stride, m.value_columns);
  pack<Kernel>(h.k, h.length, HeadWidth, h.stride, 1, m.key_rows);
  constexpr int head_units = units_of<Kernel>(HeadWidth);
  constexpr std::ptrdiff_t column_panel = static_cast<std::ptrdiff_t>(head_units) * panel_columns;
  const std::ptrdiff_t row_panel = static_cast<std::ptrdiff_t>(units_of<Kernel>(h.length)) * panel_columns;
  std::fill_n(m.d_keys, static_cast<std::size_t>(h.length * width), 0.f);
  std::fill_n(m.d_values, static_cast<std::size_t>(h.length * width), 0.f);
  const float factor = plain<Policy> ? h.scale : 1.f;

  for (int q0 = 0; q0 < h.length; q0 += Memory::queries) {
    const int count = std::min(Memory::queries, h.length - q0);
    copy_rows<Kernel, HeadWidth>(h.q + q0 * h.stride, h.stride, count, m.query);
    copy_rows<Kernel, HeadWidth>(d_out + q0 * out_stride, out_stride, count, m.d_context);
    pack<Kernel>(h.q + q0 * h.stride, count, HeadWidth, h.stride, 1, m.query_rows);
    pack<Kernel>(d_out + q0 * out_stride, count, HeadWidth, out_stride, 1, m.d_context_rows);
    const std::ptrdiff_t query_panel = static_cast<std::ptrdiff_t>(units_of<Kernel>(count)) * panel_columns;
    std::fill_n(m.d_queries, static_cast<std::size_t>(count * width), 0.f);
    float along[Memory::queries], d_gate[Memory::queries]{};  // along: sum over keys of p dp, which is d_out . out
    for (int i = 0; i < count; ++i)
      along[i] = dot_row(out + (q0 + i) * out_stride, d_out + (q0 + i) * out_stride, HeadWidth);
    const auto range = attention::keys_of(Policy::span, q0, q0 + count, h.length);
    for (int first = range.begin / panel_columns * panel_columns; first < range.end; first += tile) {
      const int columns = std::min(tile, range.end - first), end = ceil_to(columns, lanes);
      const std::ptrdiff_t from = first / panel_columns * column_panel;
      multiply_rows<Kernel>(count, columns, head_units, m.query.begin, m.query.stride, m.key_columns + from,
                            column_panel, m.scores, stride);
      multiply_rows<Kernel>(count, columns, head_units, m.d_context.begin, m.d_context.stride, m.value_columns + from,
                            column_panel, m.d_scores, stride);
      for (int i = 0; i < count; ++i) {
        const int query = q0 + i;
        float* const __restrict row = m.scores + i * stride;
        float* const __restrict d_row = m.d_scores + i * stride;
        Number* const p_row = m.probabilities + i * stride;
        Number* const ds_row = m.d_probabilities + i * stride;
        const auto inside = columns_of<Policy>(query, first, columns);
        const float log_total = log_sum[query * log_stride], mean = along[i];
        if constexpr (plain<Policy>) {
          fill_outside(row, inside, end, hidden_score);
          for (int j = 0; j < end; j += lanes) {
            const Vec probability = fast_exp(load(row + j) * factor - log_total);
            store(p_row + j, probability);
            store(ds_row + j, probability * (load(d_row + j) - mean));
          }
        } else {
          alignas(64) float by_raw[tile], by_gate[tile];
          constexpr int reads = Policy::reads > 0 ? Policy::reads : 1;
          float by_entry[reads][tile];
          int entry[reads][tile];
          const float gate = h.gate(query);
          for (int j = inside.begin; j < inside.end; ++j) {
            const attention::Pair at{h.head, query, first + j};
            if (!attention::always_visible<Policy> && !Policy::visible(at)) {
              row[j] = hidden_score;
              by_raw[j] = by_gate[j] = 0;
              for (int e = 0; e < Policy::reads; ++e) by_entry[e][j] = 0, entry[e][j] = 0;
              continue;
            }
            const auto slope = attention::score_slope<Policy>(row[j] * h.scale, at, h.table, gate);
            row[j] = slope.score;
            by_raw[j] = slope.by_raw;
            by_gate[j] = slope.by_gate;
            for (int e = 0; e < Policy::reads; ++e) {
              by_entry[e][j] = slope.by_entry[e];
              entry[e][j] = slope.entry[e];
            }
          }
          fill_outside(row, inside, end, hidden_score);
          fill_outside(by_raw, inside, end, 0);
          for (int j = 0; j < end; j += lanes) {
            const Vec probability = fast_exp(load(row + j) - log_total);
            store(p_row + j, probability);
            store(d_row + j, probability * (load(d_row + j) - mean));
          }
          if (Policy::gates > 0)
            for (int j = inside.begin; j < inside.end; ++j) d_gate[i] += d_row[j] * by_gate[j];
          if (d_table != nullptr)
            for (int e = 0; e < Policy::reads; ++e)
              for (int j = inside.begin; j < inside.end; ++j) d_table[entry[e][j]] += d_row[j] * by_entry[e][j];
          for (int j = 0; j < end; j += lanes) store(ds_row + j, load(d_row + j) * load(by_raw + j));
        }
        clear_rest<Kernel>(ds_row, end);
      }
      const Operand<Kernel> ds = m.as_left(m.d_probabilities, stride, count, columns);
      static_assert(panel_columns % step == 0, "a tile of keys begins at a step");
      auto const* const keys = m.key_rows + first / Kernel::depth * panel_columns;
      add_rows<Kernel>(count, HeadWidth, units_of<Kernel>(columns), ds.begin, ds.stride, keys, row_panel,
                       {m.d_queries, count, HeadWidth, width});
      add_transposed<Kernel>(columns, HeadWidth, count, m.d_probabilities, stride, m.query_rows, query_panel,
                             {m.d_keys + first * width, columns, HeadWidth, width});
      add_transposed<Kernel>(columns, HeadWidth, count, m.probabilities, stride, m.d_context_rows, query_panel,
                             {m.d_values + first * width, columns, HeadWidth, width});
    }
    for (int i = 0; i < count; ++i) {
      write_row<HeadWidth>(m.d_queries + i * width, h.scale, dq + (q0 + i) * d_stride);
      if constexpr (Policy::gates > 0) d_gates[(q0 + i) * d_gate_stride] = stored<Number>(d_gate[i]);
    }
  }
  for (int i = 0; i < h.length; ++i) {
    write_row<HeadWidth>(m.d_keys + i * width, h.scale, dk + i * d_stride);
    write_row<HeadWidth>(m.d_values + i * width, 1, dv + i * d_stride);
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Bytes that attention() and attention_back() need as scratch for sequences of up to `longest` rows.
template <class Kernel, int HeadWidth> constexpr std::size_t attention_scratch(int longest) {
  using Memory = detail::AttentionMemory<Kernel, HeadWidth>;
  Arena forward, backward;
  static_cast<void>(Memory::carve(forward, longest, false));
  static_cast<void>(Memory::carve(backward, longest, true));
  return std::max(forward.used(), backward.used());
}

/// out = softmax attention of each sequence of the lane to itself, head by head, as Policy says.
/// HeadWidth: columns of a head, zeros beyond its true width included; a multiple of 8, at most
/// 128. qkv: [rows, 3 heads HeadWidth], all heads of q, then of k, then of v. scale: what q·k is
/// multiplied by, 1/sqrt(true head width). table: [Policy::table(heads)], or null. gates: [rows,
/// heads], or {} if Policy has none. out: [rows, heads HeadWidth]. log_sum: [rows, heads], the
/// logarithm of the softmax's denominator (0 where a query sees no key). scratch:
/// attention_scratch<Kernel, HeadWidth>(lane.longest) bytes, at a multiple of 64.
template <class Policy, int HeadWidth, class Kernel>
void attention(Lane<int> const& lane, int heads, float scale, Matrix<typename Kernel::Number const> qkv,
               float const* table, Matrix<typename Kernel::Number const> gates, Matrix<typename Kernel::Number> out,
               Matrix<float> log_sum, std::byte* scratch) {
  static_assert(HeadWidth % 8 == 0 && HeadWidth > 0 && HeadWidth <= 128);
  using E = typename Kernel::Number;
  using Memory = detail::AttentionMemory<Kernel, HeadWidth>;
  [[maybe_unused]] const typename Kernel::Session session;
  Arena arena(scratch);
  const Memory memory = Memory::carve(arena, lane.longest, false);
  for (int s = 0; s < lane.sequences; ++s)
    for (int h = 0; h < heads; ++h) {
      const int first = lane.offsets[s];
      const auto one = detail::AttentionHead<E>::of(lane, s, h, heads, HeadWidth, scale, qkv, table, gates);
      detail::attention_head<Policy, Kernel, HeadWidth>(one, memory, Memory::stride_for(lane.longest),
                                                        out.row(first) + h * HeadWidth, out.stride,
                                                        log_sum.row(first) + h, log_sum.stride);
    }
}

/// Backward of attention(), whose arguments and results it is given. d_qkv is overwritten. d_table:
/// [Policy::table(heads)], added to, or null. d_gates: [rows, heads], overwritten, or {} if Policy
/// has none. Sums run in a fixed order.
template <class Policy, int HeadWidth, class Kernel>
void attention_back(Lane<int> const& lane, int heads, float scale, Matrix<typename Kernel::Number const> qkv,
                    float const* table, Matrix<typename Kernel::Number const> gates,
                    Matrix<typename Kernel::Number const> out, Matrix<typename Kernel::Number const> d_out,
                    Matrix<float const> log_sum, Matrix<typename Kernel::Number> d_qkv, float* d_table,
                    Matrix<typename Kernel::Number> d_gates, std::byte* scratch) {
  static_assert(HeadWidth % 8 == 0 && HeadWidth > 0 && HeadWidth <= 128);
  using E = typename Kernel::Number;
  using Memory = detail::AttentionMemory<Kernel, HeadWidth>;
  [[maybe_unused]] const typename Kernel::Session session;
  Arena arena(scratch);
  const Memory memory = Memory::carve(arena, lane.longest, true);
  for (int s = 0; s < lane.sequences; ++s)
    for (int h = 0; h < heads; ++h) {
      const int first = lane.offsets[s];
      E* const dq = d_qkv.row(first) + h * HeadWidth;
      const auto one = detail::AttentionHead<E>::of(lane, s, h, heads, HeadWidth, scale, qkv, table, gates);
      detail::attention_head_back<Policy, Kernel, HeadWidth>(
          one, memory, out.row(first) + h * HeadWidth, d_out.row(first) + h * HeadWidth, out.stride,
          log_sum.row(first) + h, log_sum.stride, dq, dq + heads * HeadWidth, dq + 2 * heads * HeadWidth, d_qkv.stride,
          d_table, Policy::gates > 0 ? d_gates.row(first) + h : nullptr, d_gates.stride);
    }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
