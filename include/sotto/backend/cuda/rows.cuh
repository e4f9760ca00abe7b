// Row operations: gathers, sums over rows, noise. Each reads and writes a row by 16 bytes where it lies so.
#pragma once

#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/memory.hpp>
#include <sotto/core/views.hpp>
#include <sotto/nn/dropout_mask.hpp>
#include <sotto/nn/noise.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

/// Warps of a block that owns rows, one each.
inline constexpr int row_warps = 8;
/// Rows whose sums by column one block takes before they are added up in order.
inline constexpr int partial_rows = 32;

/// Whether rows can be read by 16 bytes.
template <class T> bool packed(Matrix<T> m) {
  constexpr auto size = static_cast<std::ptrdiff_t>(16 / sizeof(T));
  return reinterpret_cast<std::uintptr_t>(m.begin) % 16 == 0 && m.stride % size == 0 && m.columns % size == 0;
}

/// f(column, value) for the numbers of a row that this lane of a warp is to see.
template <class T, class F>
__device__ __forceinline__ void each_of_row(T const* row, int columns, bool packed, int lane, F f) {
  if (packed) {
    for (int c = lane * Pack<T>::size; c < columns; c += 32 * Pack<T>::size) {
      const Pack<T> x = load_pack(row + c);
#pragma unroll
      for (int k = 0; k < Pack<T>::size; ++k) f(c + k, to_float(x.value[k]));
    }
  } else {
    for (int c = lane; c < columns; c += 32) f(c, to_float(row[c]));
  }
}
/// row[column] = f(column), the same way.
template <class T, class F> __device__ __forceinline__ void write_row(T* row, int columns, bool packed, int lane, F f) {
  if (packed) {
    for (int c = lane * Pack<T>::size; c < columns; c += 32 * Pack<T>::size) {
      Pack<T> y;
#pragma unroll
      for (int k = 0; k < Pack<T>::size; ++k) y.value[k] = from_float<T>(f(c + k));
      store_pack(row + c, y);
    }
  } else {
    for (int c = lane; c < columns; c += 32) row[c] = from_float<T>(f(c));
  }
}
/// row[column] = f(column, x[column]).
template <class T, class F>
__device__ __forceinline__ void map_row(T const* x, T* y, int columns, bool packed, int lane, F f) {
  if (packed) {
    for (int c = lane * Pack<T>::size; c < columns; c += 32 * Pack<T>::size) {
      const Pack<T> from = load_pack(x + c);
      Pack<T> to;
#pragma unroll
      for (int k = 0; k < Pack<T>::size; ++k) to.value[k] = from_float<T>(f(c + k, to_float(from.value[k])));
      store_pack(y + c, to);
    }
  } else {
    for (int c = lane; c < columns; c += 32) y[c] = from_float<T>(f(c, to_float(x[c])));
  }
}

/// Sums over a block's rows: partial [blocks, columns]. With `rows`, of the rows that it names, which become zeros.
template <class T, bool Named>
__global__ void __launch_bounds__(256) sum_rows(Matrix<T> x, int const* rows, int n, float* partial) {
  const int first = static_cast<int>(blockIdx.x) * partial_rows,
            last = first + partial_rows < n ? first + partial_rows : n;
  for (int c = static_cast<int>(threadIdx.x); c < x.columns; c += 256) {
    float sum = 0;
    for (int i = first; i < last; ++i) {
      const int row = Named ? rows[i] : i;
      if (row < 0) continue;
      sum += to_float(x.row(row)[c]);
      if constexpr (Named) x.row(row)[c] = from_float<T>(0.f);
    }
    partial[static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(x.columns) + static_cast<std::size_t>(c)] =
        sum;
  }
}
/// sums[c] += the blocks' partial sums [blocks, columns], in order. blockIdx.y: which of two such sums. A block has 32
/// columns and eight parts of the blocks.
template <class Sum>
__global__ void __launch_bounds__(256)
    add_partials(float const* partial, int blocks, int columns, Sum* sums_a, Sum* sums_b) {
  struct Storage {
    Sum part[8][32];
  };
  Storage& s = shared<Storage>();
  const int c = static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.x) % 32,
            part = static_cast<int>(threadIdx.x) / 32;
  float const* const from = partial + static_cast<std::size_t>(blockIdx.y) * static_cast<std::size_t>(blocks) *
                                          static_cast<std::size_t>(columns);
  Sum sum{};
  if (c < columns)
    for (int b = part; b < blocks; b += 8)
      sum += static_cast<Sum>(
          from[static_cast<std::size_t>(b) * static_cast<std::size_t>(columns) + static_cast<std::size_t>(c)]);
  s.part[part][threadIdx.x % 32] = sum;
  __syncthreads();
  if (part != 0 || c >= columns) return;
  for (int p = 1; p < 8; ++p) sum += s.part[p][threadIdx.x % 32];
  (blockIdx.y == 0 ? sums_a : sums_b)[c] += sum;
}

enum class RowMove { gather, scatter_add, fill };

/// gather: row i of y = row rows[i] of x, or zeros. scatter_add: row rows[i] of y += row i of x. fill: row rows[i] of y
/// = value. Entries below 0 are passed over. One warp a row.
template <RowMove Move, class T>
__global__ void __launch_bounds__(32 * row_warps)
    move_rows(Matrix<T const> x, float const* value, int const* rows, int n, Matrix<T> y, bool packed) {
  const int i = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (i >= n) return;
  const int row = rows[i];
  if constexpr (Move == RowMove::gather) {
    if (row < 0)
      write_row(y.row(i), y.columns, packed, lane, [](int) { return 0.f; });
    else
      map_row(x.row(row), y.row(i), y.columns, packed, lane, [](int, float v) { return v; });
  } else if (row >= 0) {
    T* const to = y.row(row);
    if constexpr (Move == RowMove::scatter_add)
      map_row(static_cast<T const*>(to), to, y.columns, packed, lane,
              [&](int c, float v) { return v + to_float(x.row(i)[c]); });
    else
      write_row(to, y.columns, packed, lane, [&](int c) { return value[c]; });
  }
}
/// Row s of y += the rows of x whose segment is s, in order: a block has a row of y.
template <class T>
__global__ void __launch_bounds__(256) segment_sums(Matrix<T const> x, int const* segments, Matrix<T> y) {
  const int segment = static_cast<int>(blockIdx.x);
  for (int c = static_cast<int>(threadIdx.x); c < y.columns; c += 256) {
    float sum = to_float(y.row(segment)[c]);
    for (int i = 0; i < x.rows; ++i)
      if (segments[i] == segment) sum += to_float(x.row(i)[c]);
    y.row(segment)[c] = from_float<T>(sum);
  }
}
template <class = void>
__global__ void __launch_bounds__(256) scale_sums(double const* sums, double factor, float* to, std::size_t n) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) to[i] = static_cast<float>(factor * sums[i]);
}

/// The sequence that a row belongs to; `sequences` where none does.
__device__ __forceinline__ int sequence_of(int const* offsets, int sequences, int row) {
  int low = 0, high = sequences;  // the first whose end lies past the row
  while (low < high) {
    const int middle = (low + high) / 2;
    if (offsets[middle + 1] > row)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}
/// y = x + the sinusoid of the row's place in its sequence. A block has a row.
template <class T>
__global__ void __launch_bounds__(128)
    add_sinusoids(int const* offsets, int sequences, Matrix<T const> x, Matrix<T> y) {
  const int row = static_cast<int>(blockIdx.x), sequence = sequence_of(offsets, sequences, row);
  const bool real = sequence < sequences;
  const double place = real ? static_cast<double>(row - offsets[sequence]) : 0.;
  for (int c = static_cast<int>(threadIdx.x); c < x.columns; c += 128) {
    const float speed = powf(10000.f, -2.f * static_cast<float>(c / 2) / static_cast<float>(x.columns));
    // Half turns, reduced before they become a float: sinf would reduce far angles in slow local memory.
    double turns = place * static_cast<double>(speed) * .31830988618379067;
    turns -= 2 * floor(turns / 2);
    const float wave = c % 2 == 0 ? sinpif(static_cast<float>(turns)) : cospif(static_cast<float>(turns));
    y.row(row)[c] = from_float<T>(real ? to_float(x.row(row)[c]) + wave : 0.f);
  }
}
/// Dropout in place, to the bit as on a host: four channels share a block of Philox. A block has a row.
template <class T>
__global__ void __launch_bounds__(128)
    dropout(int const* offsets, int const* utterances, int const* starts, int sequences, Philox key,
            StepInput const* input, std::uint32_t site, float p, Matrix<T> x) {
  const int row = static_cast<int>(blockIdx.x), sequence = sequence_of(offsets, sequences, row);
  if (sequence == sequences) return;
  const auto utterance = static_cast<std::uint32_t>(utterances[sequence]),
             frame = static_cast<std::uint32_t>(starts[sequence] + row - offsets[sequence]);
  const std::uint32_t threshold = dropout_threshold(p), cursor = input->cursor;
  const float scale = dropout_scale(p);
  for (int block = static_cast<int>(threadIdx.x); block * 4 < x.columns; block += 128) {
    const auto random = key(dropout_counter(site, static_cast<std::uint32_t>(block)), frame, utterance, cursor);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int c = block * 4 + k;
      if (c < x.columns)
        x.row(row)[c] = from_float<T>(random.word[k] >= threshold ? to_float(x.row(row)[c]) * scale : 0.f);
    }
  }
}
/// Mean over channels of the deviation over the batch's rows. One block.
template <class T>
__global__ void __launch_bounds__(256) spread(Matrix<T const> x, StepInput const* input, double* measure) {
  const int rows = input->rows;
  double total = 0;
  for (int c = static_cast<int>(threadIdx.x); c < x.columns; c += 256) {
    float mean = 0, squares = 0;
    for (int row = 0; row < rows; ++row) mean += to_float(x.row(row)[c]);
    mean /= static_cast<float>(rows);
    for (int row = 0; row < rows; ++row) {
      const float d = to_float(x.row(row)[c]) - mean;
      squares += d * d;
    }
    total += static_cast<double>(sqrtf(squares / static_cast<float>(rows)));
  }
  total = block_sum(total);
  if (threadIdx.x != 0) return;
  *measure = total / x.columns;
}

/// Where the step skips the layer: y = x.
template <class T>
__global__ void __launch_bounds__(256)
    skip_forward(StepInput const* input, int layer, T const* x, T* y, std::size_t n) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n && (input->skipped >> layer & 1) != 0) y[i] = x[i];
}
/// Where the step skips the layer: bypass = d, d = 0.
template <class T>
__global__ void __launch_bounds__(256) skip_back(StepInput const* input, int layer, T* d, T* bypass, std::size_t n) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n || (input->skipped >> layer & 1) == 0) return;
  bypass[i] = d[i];
  d[i] = from_float<T>(0.f);
}

/// What a step adds to begins at zero.
template <class = void> __global__ void __launch_bounds__(32) clear_output(StepOutput* output) {
  if (threadIdx.x != 0) return;
  const int halted = output->halted;
  *output = StepOutput{};
  output->halted = halted;
}

}  // namespace sotto::cuda::inline SOTTO_ABI
