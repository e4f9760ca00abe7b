// Softmax attention on a GPU: one fused forward and one fused backward, instantiated with the policy. A block owns 64
// rows of one head of one sequence, each of its four warps 16; keys (or queries) stream through shared memory. What
// multiplies is an argument: fp32 by the cores that do anything, bf16 by tensor cores.
#pragma once

#include <math.h>

#include <cstddef>
#include <type_traits>

#include <sotto/attention/policy.hpp>
#include <sotto/backend/cuda/attention_fma.cuh>
#include <sotto/backend/cuda/attention_mma.cuh>
#include <sotto/backend/cuda/attention_table.cuh>
#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/tile.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

struct AttentionShape {
  Tile const* tiles;  ///< [tile_count]
  int tile_count, rows, heads;
  int width;    ///< of a head as activations carry it: a multiple of 8, at most 128
  float scale;  ///< 1 / sqrt(head width)
};

// The score of a pair that is not seen: its power is 0 beside any score from least_top on.
inline constexpr float hidden_score = -1e30f, least_top = -1e29f;

template <int W, class T>
using AttentionProducts = std::conditional_t<std::is_same_v<T, float>, FusedMultiplyAdds<W>, TensorCores<W>>;

/// One head of one sequence in an array [rows, ...]: frame i at begin + i * stride.
template <class T> struct HeadRows {
  T* begin;
  std::ptrdiff_t stride;
  __device__ __forceinline__ T* row(int i) const { return begin + i * stride; }
};
/// Where a block works: its 64 rows of one head.
struct AttentionBlock {
  Tile tile;
  int head, heads, width;
  int count;  // of the tile's rows that are there

  __device__ __forceinline__ explicit AttentionBlock(AttentionShape const& shape)
      : tile(shape.tiles[blockIdx.x]), head(static_cast<int>(blockIdx.y)), heads(shape.heads), width(shape.width) {
    const int left = tile.length - tile.begin;
    count = left < tile_rows ? left : tile_rows;
  }
  /// part: 0, 1, 2 for q, k, v.
  template <class T> __device__ __forceinline__ HeadRows<T> of_three(T* query_key_value, int part) const {
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(3) * heads * width;
    return {query_key_value + tile.first * stride + (part * heads + head) * width, stride};
  }
  template <class T> __device__ __forceinline__ HeadRows<T> of_one(T* rows) const {
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(heads) * width;
    return {rows + tile.first * stride + head * width, stride};
  }
  /// Of an array [rows, heads].
  template <class T> __device__ __forceinline__ HeadRows<T> of_numbers(T* numbers) const {
    return {numbers + static_cast<std::ptrdiff_t>(tile.first) * heads + head, heads};
  }
  /// The warp's queries, or keys: [begin, end), empty if the sequence ends before them.
  __device__ __forceinline__ attention::Range warp_range() const {
    const int begin = tile.begin + static_cast<int>(threadIdx.x) / 32 * warp_rows, end = begin + warp_rows;
    return {begin, end < tile.length ? end : tile.length};
  }

  template <class T> __device__ __forceinline__ void zero(HeadRows<T> rows) const {
    constexpr int size = Pack<T>::size;
    const int packs = width / size;
    for (int i = static_cast<int>(threadIdx.x); i < count * packs; i += attention_threads)
      store_pack(rows.row(tile.begin + i / packs) + i % packs * size, Pack<T>{});
  }
  template <class T> __device__ __forceinline__ void zero_numbers(HeadRows<T> numbers) const {
    if (static_cast<int>(threadIdx.x) < count)
      *numbers.row(tile.begin + static_cast<int>(threadIdx.x)) = from_float<T>(0.0f);
  }
};

/// Begins to copy rows [begin, begin + Rows) of a head into shared memory [Rows, W]; zeros from row `end` and from
/// column `width` on.
template <class Products, int Rows, class T>
__device__ __forceinline__ void copy_rows(T* to, HeadRows<T const> from, int begin, int end, int width) {
  constexpr int size = Pack<T>::size, packs = Products::width / size;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < Rows * packs; i += attention_threads) {
    const int row = i / packs, column = i % packs * size;
    copy_16(to + row * Products::pitch + column, from.row(begin + row) + column, begin + row < end && column < width);
  }
}
/// The warp's rows from its part of shared memory [16, W] to rows [range.begin, range.end) of a head.
template <class Products, class T>
__device__ __forceinline__ void store_rows(HeadRows<T> to, attention::Range range, int width, T* own,
                                           typename Products::template Numbers<Products::width> const& numbers,
                                           float const (&factor)[Products::rows]) {
  constexpr int size = Pack<T>::size;
  __syncwarp();
  Products::put(own, numbers, factor);
  __syncwarp();
  const int packs = width / size;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < (range.end - range.begin) * packs; i += 32)
    store_pack(to.row(range.begin + i / packs) + i % packs * size,
               load_pack(own + i / packs * Products::pitch + i % packs * size));
}

/// Tiles 0 ... count - 1 one after another, each fetched while the one before is computed with (two stages) or after
/// (one). fetch(0) has been called; fetch ends with commit_copies().
template <int Stages, class Fetch, class Compute>
__device__ __forceinline__ void each_tile(int count, Fetch const& fetch, Compute const& compute) {
  for (int i = 0; i < count; ++i) {
    wait_for_copies<0>();
    __syncthreads();
    if constexpr (Stages > 1) {
      if (i + 1 < count) fetch(i + 1);
    }
    compute(i);
    if constexpr (Stages == 1) {
      __syncthreads();
      if (i + 1 < count) fetch(i + 1);
    }
  }
}

/// Whether all pairs of these queries and keys are in the sequence and in the span.
template <class Policy>
__device__ __forceinline__ bool all_inside(attention::Range queries, attention::Range keys, int length) {
  return queries.end <= length && keys.end <= length && keys.begin >= queries.end - 1 - Policy::span.before &&
         keys.end - 1 <= queries.begin + Policy::span.after;
}
/// inside: all_inside of some ranges that the pair is of.
template <class Policy> __device__ __forceinline__ bool sees(attention::Pair at, int length, bool inside) {
  if (inside) return static_cast<bool>(Policy::visible(at));
  return at.query < length && at.key < length && attention::seen<Policy>(at);
}
template <class Policy>
inline constexpr bool plain_attention = attention::plain_score<Policy>&& attention::always_visible<Policy>;
/// Blocks that a multiprocessor holds at least: as many as their registers allow without spills. Said, since ptxas aims
/// higher by itself, and spills.
template <class Policy, int W, class T>
inline constexpr int attention_blocks = plain_attention<Policy> && !std::is_same_v<T, float> && W <= 64 ? 3 : 2;
// std::bool_constant's conversion is the host's.
template <bool Value> struct Known {
  __device__ __forceinline__ operator bool() const { return Value; }  // NOLINT
};
/// f(inside); where the policy has nothing to say about visibility, f is compiled for either.
template <class Policy, class F> __device__ __forceinline__ void by_inside(bool inside, F const& f) {
  if constexpr (attention::always_visible<Policy>) {
    if (inside) {
      f(Known<true>{});
    } else {
      f(Known<false>{});
    }
  } else {
    f(inside);
  }
}
/// The gate of a query; 1 without gates.
template <class Policy, class T> __device__ __forceinline__ float gate_of(HeadRows<T const> gates, int query) {
  if constexpr (Policy::gates > 0) {
    return to_float(*gates.row(query));
  } else {
    return 1.0f;
  }
}
/// Over the threads that share a row.
template <int Lanes> __device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int distance = 1; distance < Lanes; distance *= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}
template <int Lanes> __device__ __forceinline__ float row_max(float x) {
#pragma unroll
  for (int distance = 1; distance < Lanes; distance *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
  return x;
}

// Powers are of 2: a score's exponent is score * log2_e, and a plain score's raw product is not scaled before.
inline constexpr float log2_e = 1.44269504f;
template <class Policy> __device__ __forceinline__ float exponent_scale(float scale) {
  return attention::plain_score<Policy> ? scale * log2_e : log2_e;
}

/// The probability of a pair that is seen, and the gradient by its product, over the scale. product: q . k; log_sum:
/// times log2_e; d_probability: d_out . v; along: d_out . out. each_slope(gradient by the score, slope) is called where
/// the policy has a score of its own.
struct PairGradient {
  float probability, by_raw;
};
/// 2^x of what rounding may leave above 0 where scores are huge.
__device__ __forceinline__ float probability_of(float x) { return fast_exp2(fminf(x, 0.0f)); }
template <class Policy, class F>
__device__ __forceinline__ PairGradient pair_gradient(float product, float scale, attention::Pair at,
                                                      float const* table, float gate, float log_sum,
                                                      float d_probability, float along, F const& each_slope) {
  if constexpr (attention::plain_score<Policy>) {
    const float p = probability_of(product * exponent_scale<Policy>(scale) - log_sum);
    return {p, p * (d_probability - along)};
  } else {
    const auto slope = attention::score_slope<Policy>(product * scale, at, table, gate);
    const float p = probability_of(slope.score * log2_e - log_sum), d_score = p * (d_probability - along);
    each_slope(d_score, slope);
    return {p, d_score * slope.by_raw};
  }
}

/// Shared memory of a block, in bytes from its beginning: the rows that it owns (one array or two), the two arrays that
/// it streams, what the products need, and a kernel's own.
template <class Products, int Owned> struct AttentionMemory {
  static constexpr int row = Products::pitch * static_cast<int>(sizeof(typename Products::Number));
  static constexpr int streamed = Owned * tile_rows * row, stage = 2 * Products::streamed * row;
  static constexpr int scratch = streamed + Products::stages * stage;
  static constexpr int end = scratch + attention_warps * Products::scratch_size * static_cast<int>(sizeof(float));

  using T = typename Products::Number;
  unsigned char* const bytes;
  __device__ __forceinline__ AttentionMemory() : bytes(dynamic_shared<unsigned char>()) {}
  __device__ __forceinline__ T* own(int which) const { return reinterpret_cast<T*>(bytes + which * tile_rows * row); }
  __device__ __forceinline__ T* warp_own(int which) const {
    return own(which) + static_cast<int>(threadIdx.x) / 32 * warp_rows * Products::pitch;
  }
  __device__ __forceinline__ T* tile(int i, int which) const {
    return reinterpret_cast<T*>(bytes + streamed + i % Products::stages * stage + which * (stage / 2));
  }
  __device__ __forceinline__ float* warp_scratch() const {
    return reinterpret_cast<float*>(bytes + scratch) + static_cast<int>(threadIdx.x) / 32 * Products::scratch_size;
  }
  template <class U> __device__ __forceinline__ U* rest() const { return reinterpret_cast<U*>(bytes + end); }
};

template <class Policy, int W, class T>
__global__ void __launch_bounds__(attention_threads, attention_blocks<Policy, W, T>)
    attention_forward(AttentionShape shape, T const* query_key_value, float const* table, T const* all_gates,
                      T* all_out, float* all_log_sums) {
  using Products = AttentionProducts<W, T>;
  constexpr int keys = Products::streamed, rows = Products::rows;
  const AttentionBlock block(shape);
  const auto out = block.of_one(all_out);
  const auto log_sums = block.of_numbers(all_log_sums);
  if (block.tile.kind == Tile::unused) return;
  if (block.tile.kind == Tile::tail) {
    block.zero(out);
    block.zero_numbers(log_sums);
    return;
  }
  const AttentionMemory<Products, 1> memory;
  const int begin = block.tile.begin, length = block.tile.length;
  const auto seen = attention::keys_of(Policy::span, begin, begin + block.count, length);
  const int tiles = seen.end > seen.begin ? (seen.end - seen.begin + keys - 1) / keys : 0;
  const auto k = block.of_three(query_key_value, 1), v = block.of_three(query_key_value, 2);
  const auto fetch = [&](int i) {
    copy_rows<Products, keys>(memory.tile(i, 0), k, seen.begin + i * keys, seen.end, block.width);
    copy_rows<Products, keys>(memory.tile(i, 1), v, seen.begin + i * keys, seen.end, block.width);
    commit_copies();
  };
  copy_rows<Products, tile_rows>(memory.own(0), block.of_three(query_key_value, 0), begin, length, block.width);
  commit_copies();
  fetch(0);

  const auto queries = block.warp_range();
  const auto visible = attention::keys_of(Policy::span, queries.begin, queries.end, length);
  const auto gates = block.of_numbers(all_gates);
  const float exponent = exponent_scale<Policy>(shape.scale);
  float gate[rows], top[rows], sum[rows];
  typename Products::template Numbers<W> result;
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int query = queries.begin + Products::row_of(i);
    gate[i] = query < length ? gate_of<Policy>(gates, query) : 1.0f;
    top[i] = least_top;
    sum[i] = 0;
#pragma unroll
    for (int j = 0; j < result.columns; ++j) result.at(i, j) = 0;
  }
  wait_for_copies<1>();
  __syncthreads();
  const typename Products::template Own<true> own(memory.warp_own(0));

  each_tile<Products::stages>(tiles, fetch, [&](int t) {
    const attention::Range tile{seen.begin + t * keys, seen.begin + (t + 1) * keys};
    if (queries.end <= queries.begin || tile.begin >= visible.end || tile.end <= visible.begin) return;
    typename Products::template Numbers<keys> scores;
    Products::products(scores, own, memory.tile(t, 0));
    by_inside<Policy>(all_inside<Policy>({queries.begin, queries.begin + warp_rows}, tile, length), [&](auto inside) {
#pragma unroll
      for (int i = 0; i < rows; ++i)
#pragma unroll
        for (int j = 0; j < scores.columns; ++j) {
          const attention::Pair at{block.head, queries.begin + Products::row_of(i),
                                   tile.begin + Products::score_column_of(j)};
          float& score = scores.at(i, j);
          if (!sees<Policy>(at, length, inside)) {
            score = hidden_score;
          } else if constexpr (!attention::plain_score<Policy>) {
            score = attention::scored<Policy>(score * shape.scale, at, table, gate[i]);
          }
        }
    });
#pragma unroll
    for (int i = 0; i < rows; ++i) {
      float highest = top[i];
#pragma unroll
      for (int j = 0; j < scores.columns; ++j) highest = fmaxf(highest, scores.at(i, j));
      highest = row_max<Products::row_lanes>(highest);
      const float shrink = fast_exp2((top[i] - highest) * exponent);
      top[i] = highest;
      sum[i] *= shrink;
#pragma unroll
      for (int j = 0; j < scores.columns; ++j) {
        scores.at(i, j) = fast_exp2((scores.at(i, j) - highest) * exponent);  // exact where scores are huge
        sum[i] += scores.at(i, j);
      }
#pragma unroll
      for (int j = 0; j < result.columns; ++j) result.at(i, j) *= shrink;
    }
    Products::accumulate(result, scores, memory.tile(t, 1), memory.warp_scratch());
  });

  float factor[rows];
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const float total = row_sum<Products::row_lanes>(sum[i]);
    factor[i] = total > 0 ? 1 / total : 0.0f;
    const int query = queries.begin + Products::row_of(i);
    if (query < length && static_cast<int>(threadIdx.x) % Products::row_lanes == 0)
      *log_sums.row(query) = total > 0 ? top[i] * (exponent / log2_e) + logf(total) : 0.0f;
  }
  store_rows<Products>(out, queries, block.width, memory.warp_own(0), result, factor);
}

/// d_out . out of each row, and the gradients by queries, gates and table.
template <class Policy, int W, class T>
__global__ void __launch_bounds__(attention_threads, attention_blocks<Policy, W, T>)
    attention_backward_queries(AttentionShape shape, T const* query_key_value, float const* table, T const* all_gates,
                               T const* all_out, T const* all_d_out, float const* all_log_sums, float* all_along,
                               T* d_query_key_value, T* all_d_gates, unsigned long long* d_table_sums) {
  using Products = AttentionProducts<W, T>;
  constexpr int keys = Products::streamed, rows = Products::rows, chunk = 32;
  constexpr int reads = Policy::reads;
  const AttentionBlock block(shape);
  const auto dq = block.of_three(d_query_key_value, 0);
  const auto d_gates = block.of_numbers(all_d_gates);
  if (block.tile.kind == Tile::unused) return;
  if (block.tile.kind == Tile::tail) {
    block.zero(dq);
    if constexpr (Policy::gates > 0) block.zero_numbers(d_gates);
    return;
  }
  const AttentionMemory<Products, 2> memory;
  const int begin = block.tile.begin, length = block.tile.length;
  const auto seen = attention::keys_of(Policy::span, begin, begin + block.count, length);
  const int tiles = seen.end > seen.begin ? (seen.end - seen.begin + keys - 1) / keys : 0;
  const auto k = block.of_three(query_key_value, 1), v = block.of_three(query_key_value, 2);
  const auto out = block.of_one(all_out), d_out = block.of_one(all_d_out);
  const auto fetch = [&](int i) {
    copy_rows<Products, keys>(memory.tile(i, 0), k, seen.begin + i * keys, seen.end, block.width);
    copy_rows<Products, keys>(memory.tile(i, 1), v, seen.begin + i * keys, seen.end, block.width);
    commit_copies();
  };
  copy_rows<Products, tile_rows>(memory.own(0), block.of_three(query_key_value, 0), begin, length, block.width);
  copy_rows<Products, tile_rows>(memory.own(1), d_out, begin, length, block.width);
  commit_copies();
  fetch(0);

  const auto queries = block.warp_range();
  const auto visible = attention::keys_of(Policy::span, queries.begin, queries.end, length);
  const auto gates = block.of_numbers(all_gates);
  const auto log_sums = block.of_numbers(all_log_sums);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float dot = 0;  // two lanes a row
  if (const int query = queries.begin + lane / 2; query < length) {
    for (int c = lane % 2 * Pack<T>::size; c < block.width; c += 2 * Pack<T>::size) {
      const auto a = load_pack(out.row(query) + c), b = load_pack(d_out.row(query) + c);
#pragma unroll
      for (int i = 0; i < Pack<T>::size; ++i) dot += to_float(a.value[i]) * to_float(b.value[i]);
    }
  }
  dot = row_sum<2>(dot);
  if (queries.begin + lane / 2 < length && lane % 2 == 0)
    *block.of_numbers(all_along).row(queries.begin + lane / 2) = dot;

  float gate[rows], d_gate[rows], log_sum[rows], along[rows];
  typename Products::template Numbers<W> result;
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    const int query = queries.begin + Products::row_of(i);
    along[i] = __shfl_sync(0xffffffffu, dot, 2 * Products::row_of(i));
    gate[i] = query < length ? gate_of<Policy>(gates, query) : 1.0f;
    log_sum[i] = query < length ? *log_sums.row(query) * log2_e : 0.0f;
    d_gate[i] = 0;
#pragma unroll
    for (int j = 0; j < result.columns; ++j) result.at(i, j) = 0;
  }
  [[maybe_unused]] auto* const sums = memory.template rest<TableSums<Policy>>();
  [[maybe_unused]] typename TableSums<Policy>::Run runs[TableSums<Policy>::reads];
  if constexpr (reads > 0) sums->clear();
  wait_for_copies<1>();
  __syncthreads();
  constexpr bool kept = W <= 96;  // what leaves registers for a policy
  const typename Products::template Own<kept> q(memory.warp_own(0)), d(memory.warp_own(1));

  each_tile<Products::stages>(tiles, fetch, [&](int t) {
#pragma unroll 1
    for (int part = 0; part < keys; part += chunk) {
      const int first = seen.begin + t * keys + part;
      if (queries.end <= queries.begin || first >= visible.end || first + chunk <= visible.begin) continue;
      typename Products::template Numbers<chunk> scores, slopes;
      Products::products(scores, q, memory.tile(t, 0) + part * Products::pitch);
      Products::products(slopes, d, memory.tile(t, 1) + part * Products::pitch);
      const bool whole = all_inside<Policy>({queries.begin, queries.begin + warp_rows}, {first, first + chunk}, length);
      by_inside<Policy>(whole, [&](auto inside) {
#pragma unroll
        for (int i = 0; i < rows; ++i)
#pragma unroll
          for (int j = 0; j < scores.columns; ++j) {
            const int row = Products::row_of(i), column = Products::score_column_of(j);
            const attention::Pair at{block.head, queries.begin + row, first + column};
            const auto note = [&](float d_score, auto const& slope) {
              if constexpr (Policy::gates > 0) d_gate[i] += d_score * slope.by_gate;
#pragma unroll
              for (int e = 0; e < reads; ++e)
                sums->put(e, row, column, e < slope.used ? slope.entry[e] : -1, d_score * slope.by_entry[e]);
            };
            if (sees<Policy>(at, length, inside)) {
              slopes.at(i, j) = pair_gradient<Policy>(scores.at(i, j), shape.scale, at, table, gate[i], log_sum[i],
                                                      slopes.at(i, j), along[i], note)
                                    .by_raw;
            } else {
              slopes.at(i, j) = 0;
#pragma unroll
              for (int e = 0; e < reads; ++e) sums->put(e, row, column, -1, 0);
            }
          }
      });
      if constexpr (reads > 0) sums->walk(runs, d_table_sums);
      Products::accumulate(result, slopes, memory.tile(t, 0) + part * Products::pitch, memory.warp_scratch());
    }
    if constexpr (reads > 0) {
      constexpr int tiles_a_flush = TableSums<Policy>::keys_a_flush / keys;
      if (t % tiles_a_flush == tiles_a_flush - 1 && t + 1 < tiles) sums->flush(d_table_sums);
    }
  });
  if constexpr (reads > 0) {
#pragma unroll
    for (int e = 0; e < reads; ++e) sums->add(runs[e].entry, runs[e].sum, d_table_sums);
    sums->flush(d_table_sums);
  }

  float factor[rows];
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    factor[i] = shape.scale;
    if constexpr (Policy::gates > 0) {
      const float total = row_sum<Products::row_lanes>(d_gate[i]);
      const int query = queries.begin + Products::row_of(i);
      if (query < length && lane % Products::row_lanes == 0) *d_gates.row(query) = from_float<T>(total);
    }
  }
  store_rows<Products>(dq, queries, block.width, memory.warp_own(0), result, factor);
}

/// The gradients by keys and values.
template <class Policy, int W, class T>
__global__ void __launch_bounds__(attention_threads, attention_blocks<Policy, W, T>)
    attention_backward_keys(AttentionShape shape, T const* query_key_value, float const* table, T const* all_gates,
                            T const* all_d_out, float const* all_log_sums, float const* all_along,
                            T* d_query_key_value) {
  using Products = AttentionProducts<W, T>;
  constexpr int streamed = Products::streamed, rows = Products::rows, chunk = 32;
  const AttentionBlock block(shape);
  const auto dk = block.of_three(d_query_key_value, 1), dv = block.of_three(d_query_key_value, 2);
  if (block.tile.kind == Tile::unused) return;
  if (block.tile.kind == Tile::tail) {
    block.zero(dk);
    block.zero(dv);
    return;
  }
  const AttentionMemory<Products, 2> memory;
  const int begin = block.tile.begin, length = block.tile.length;
  const auto seen = attention::queries_of(Policy::span, begin, begin + block.count, length);
  const int tiles = seen.end > seen.begin ? (seen.end - seen.begin + streamed - 1) / streamed : 0;
  const auto queries = block.of_three(query_key_value, 0);
  const auto d_out = block.of_one(all_d_out);
  const auto gates = block.of_numbers(all_gates);
  const auto log_sums = block.of_numbers(all_log_sums), alongs = block.of_numbers(all_along);
  struct QueryNumbers {
    float log_sum[streamed], along[streamed], gate[streamed];
  };
  QueryNumbers* const numbers = memory.template rest<QueryNumbers>();  // [stages]
  const auto fetch = [&](int t) {
    const int first = seen.begin + t * streamed;
    copy_rows<Products, streamed>(memory.tile(t, 0), queries, first, seen.end, block.width);
    copy_rows<Products, streamed>(memory.tile(t, 1), d_out, first, seen.end, block.width);
    commit_copies();
    if (const int i = static_cast<int>(threadIdx.x); i < streamed) {
      const bool real = first + i < seen.end;
      QueryNumbers& to = numbers[t % Products::stages];
      to.log_sum[i] = real ? *log_sums.row(first + i) * log2_e : 0.0f;
      to.along[i] = real ? *alongs.row(first + i) : 0.0f;
      to.gate[i] = real ? gate_of<Policy>(gates, first + i) : 1.0f;
    }
  };
  copy_rows<Products, tile_rows>(memory.own(0), block.of_three(query_key_value, 1), begin, length, block.width);
  copy_rows<Products, tile_rows>(memory.own(1), block.of_three(query_key_value, 2), begin, length, block.width);
  commit_copies();
  fetch(0);

  const auto keys = block.warp_range();
  const auto visible = attention::queries_of(Policy::span, keys.begin, keys.end, length);
  typename Products::template Numbers<W> by_key, by_value;
#pragma unroll
  for (int i = 0; i < rows; ++i)
#pragma unroll
    for (int j = 0; j < by_key.columns; ++j) by_key.at(i, j) = by_value.at(i, j) = 0;
  wait_for_copies<1>();
  __syncthreads();
  constexpr bool kept = W < 64;  // two sums [16, W] leave no registers for more
  const typename Products::template Own<kept> k(memory.warp_own(0)), v(memory.warp_own(1));

  each_tile<Products::stages>(tiles, fetch, [&](int t) {
#pragma unroll 1
    for (int part = 0; part < streamed; part += chunk) {
      const int first = seen.begin + t * streamed + part;
      if (keys.end <= keys.begin || first >= visible.end || first + chunk <= visible.begin) continue;
      QueryNumbers const& of = numbers[t % Products::stages];
      typename Products::template Numbers<chunk> scores, slopes;
      Products::products(scores, k, memory.tile(t, 0) + part * Products::pitch);
      Products::products(slopes, v, memory.tile(t, 1) + part * Products::pitch);
      const bool whole = all_inside<Policy>({first, first + chunk}, {keys.begin, keys.begin + warp_rows}, length);
      by_inside<Policy>(whole, [&](auto inside) {
#pragma unroll
        for (int j = 0; j < scores.columns; ++j) {
          const int column = Products::score_column_of(j);
          const float gate = of.gate[part + column], log_sum = of.log_sum[part + column],
                      along = of.along[part + column];
#pragma unroll
          for (int i = 0; i < rows; ++i) {
            const attention::Pair at{block.head, first + column, keys.begin + Products::row_of(i)};
            PairGradient pair{0, 0};
            if (sees<Policy>(at, length, inside))
              pair = pair_gradient<Policy>(scores.at(i, j), shape.scale, at, table, gate, log_sum, slopes.at(i, j),
                                           along, [](float, auto const&) {});
            scores.at(i, j) = pair.probability;
            slopes.at(i, j) = pair.by_raw;
          }
        }
      });
      Products::accumulate(by_value, scores, memory.tile(t, 1) + part * Products::pitch, memory.warp_scratch());
      Products::accumulate(by_key, slopes, memory.tile(t, 0) + part * Products::pitch, memory.warp_scratch());
    }
  });

  float scaled[rows], as_is[rows];
#pragma unroll
  for (int i = 0; i < rows; ++i) {
    scaled[i] = shape.scale;
    as_is[i] = 1;
  }
  store_rows<Products>(dk, keys, block.width, memory.warp_own(0), by_key, scaled);
  store_rows<Products>(dv, keys, block.width, memory.warp_own(1), by_value, as_is);
}

/// Attention of packed sequences. query_key_value: [rows, 3 * heads * width], q | k | v, head h at h * width; out,
/// d_out: [rows, heads * width]; table: as the policy reads it; gates: [rows, heads], nullptr for a policy without;
/// log_sum, delta: [rows, heads]. Rows, hence width, begin at multiples of 16 bytes. W: the width, rounded up to a
/// multiple of 16. The same bits whatever the order of threads and blocks.
template <class Policy, int W, class T> struct AttentionKernels {
  static_assert(W % 16 == 0 && W >= 16 && W <= 128, "sotto: attention is compiled for head widths up to 128");

  static void forward(AttentionShape const& shape, T const* query_key_value, float const* table, T const* gates, T* out,
                      float* log_sum, cudaStream_t stream) {
    if (shape.tile_count == 0) return;
    launch(attention_forward<Policy, W, T>, grid(shape, AttentionMemory<Products, 1>::end), stream, shape,
           query_key_value, table, gates, out, log_sum);
  }
  /// delta: scratch. d_query_key_value and d_gates are assigned. d_table_sums [table_entries]: scratch, zero; d_table
  /// [table_entries] is added to; both nullptr for a policy that reads nothing.
  static void backward(AttentionShape const& shape, int table_entries, T const* query_key_value, float const* table,
                       T const* gates, T const* out, T const* d_out, float const* log_sum, float* delta,
                       T* d_query_key_value, T* d_gates, unsigned long long* d_table_sums, float* d_table,
                       cudaStream_t stream) {
    if (shape.tile_count == 0) return;
    constexpr unsigned memory = AttentionMemory<Products, 2>::end;
    launch(attention_backward_queries<Policy, W, T>, grid(shape, memory + table_bytes<Policy>()), stream, shape,
           query_key_value, table, gates, out, d_out, log_sum, delta, d_query_key_value, d_gates, d_table_sums);
    launch(attention_backward_keys<Policy, W, T>,
           grid(shape, memory + Products::stages * Products::streamed * 3 * sizeof(float)), stream, shape,
           query_key_value, table, gates, d_out, log_sum, delta, d_query_key_value);
    if constexpr (Policy::reads > 0) {
      const auto blocks = static_cast<unsigned>((table_entries + 255) / 256);
      launch(add_fixed_sums<>, {dim3(blocks), dim3(256)}, stream, d_table_sums, table_entries, d_table);
    }
  }

 private:
  using Products = AttentionProducts<W, T>;
  static Grid grid(AttentionShape const& shape, unsigned bytes) {
    return {dim3(static_cast<unsigned>(shape.tile_count), static_cast<unsigned>(shape.heads)), dim3(attention_threads),
            bytes};
  }
};

}  // namespace sotto::cuda::inline SOTTO_ABI
