// Norms of rows, and of a weight's rows, forward and backward.
#pragma once

#include <sotto/backend/cuda/rows.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

/// One warp a row.
template <class T>
__global__ void __launch_bounds__(32 * row_warps)
    layer_norm(Matrix<T const> x, float const* gain, float const* bias, float epsilon, Matrix<T> y, float* statistics,
               bool packed) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= x.rows) return;
  T const* const from = x.row(row);
  float sum = 0;
  each_of_row(from, x.columns, packed, lane, [&](int, float v) { sum += v; });
  const float mean = warp_sum(sum) / static_cast<float>(x.columns);
  float squares = 0;
  each_of_row(from, x.columns, packed, lane, [&](int, float v) { squares += (v - mean) * (v - mean); });
  const float inverse = 1.f / sqrtf(warp_sum(squares) / static_cast<float>(x.columns) + epsilon);
  map_row(from, y.row(row), x.columns, packed, lane,
          [&](int c, float v) { return (v - mean) * inverse * gain[c] + bias[c]; });
  if (lane == 0) {
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = inverse;
  }
}

/// dx, and sums of dy and of dy times normalised x over the block's rows: partial [2, blocks, columns]. The columns
/// come first, since dx may be dy.
template <class T>
__global__ void __launch_bounds__(32 * row_warps)
    layer_norm_back(Matrix<T const> dy, Matrix<T const> x, float const* gain, float const* statistics, Matrix<T> dx,
                    bool accumulate, float* partial, bool packed) {
  const int first = static_cast<int>(blockIdx.x) * partial_rows,
            last = first + partial_rows < x.rows ? first + partial_rows : x.rows;
  for (int c = static_cast<int>(threadIdx.x); c < x.columns; c += 32 * row_warps) {
    float bias = 0, slope = 0;
    for (int row = first; row < last; ++row) {
      const float d = to_float(dy.row(row)[c]);
      bias += d;
      slope += d * (to_float(x.row(row)[c]) - statistics[2 * row]) * statistics[2 * row + 1];
    }
    partial[static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(x.columns) + static_cast<std::size_t>(c)] =
        slope;
    partial[static_cast<std::size_t>(gridDim.x + blockIdx.x) * static_cast<std::size_t>(x.columns) +
            static_cast<std::size_t>(c)] = bias;
  }
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = first + static_cast<int>(threadIdx.x) / 32; row < last; row += row_warps) {
    T const *const d = dy.row(row), *const in = x.row(row);
    const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
    float sum = 0, along = 0;
    if (packed) {
      for (int c = lane * Pack<T>::size; c < x.columns; c += 32 * Pack<T>::size) {
        const Pack<T> a = load_pack(d + c), b = load_pack(in + c);
#pragma unroll
        for (int k = 0; k < Pack<T>::size; ++k) {
          const float g = to_float(a.value[k]) * gain[c + k];
          sum += g;
          along += g * (to_float(b.value[k]) - mean) * inverse;
        }
      }
    } else {
      for (int c = lane; c < x.columns; c += 32) {
        const float g = to_float(d[c]) * gain[c];
        sum += g;
        along += g * (to_float(in[c]) - mean) * inverse;
      }
    }
    sum = warp_sum(sum) / static_cast<float>(x.columns);
    along = warp_sum(along) / static_cast<float>(x.columns);
    const auto slope = [&](int c, float dy_c, float x_c) {
      return inverse * (dy_c * gain[c] - sum - (x_c - mean) * inverse * along);
    };
    T* const out = dx.row(row);
    if (packed) {
      for (int c = lane * Pack<T>::size; c < x.columns; c += 32 * Pack<T>::size) {
        const Pack<T> a = load_pack(d + c), b = load_pack(in + c);
        Pack<T> to = accumulate ? load_pack(out + c) : Pack<T>{};
#pragma unroll
        for (int k = 0; k < Pack<T>::size; ++k) {
          const float v = slope(c + k, to_float(a.value[k]), to_float(b.value[k]));
          to.value[k] = from_float<T>(accumulate ? to_float(to.value[k]) + v : v);
        }
        store_pack(out + c, to);
      }
    } else {
      for (int c = lane; c < x.columns; c += 32) {
        const float v = slope(c, to_float(d[c]), to_float(in[c]));
        out[c] = from_float<T>(accumulate ? to_float(out[c]) + v : v);
      }
    }
  }
}

/// y = x / max(|x|, 1e-8), one warp a row.
template <class T>
__global__ void __launch_bounds__(32 * row_warps)
    normalise_rows(Matrix<T const> x, Matrix<T> y, float* inverse_norms, bool packed) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= x.rows) return;
  float squares = 0;
  each_of_row(x.row(row), x.columns, packed, lane, [&](int, float v) { squares += v * v; });
  const float inverse = 1.f / fmaxf(sqrtf(warp_sum(squares)), 1e-8f);
  map_row(x.row(row), y.row(row), x.columns, packed, lane, [&](int, float v) { return v * inverse; });
  if (lane == 0) inverse_norms[row] = inverse;
}
/// dx = (dy - y (dy . y)) / |x|; dx may be dy.
template <class T>
__global__ void __launch_bounds__(32 * row_warps)
    normalise_rows_back(Matrix<T const> dy, Matrix<T const> y, float const* inverse_norms, Matrix<T> dx) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= dy.rows) return;
  float along = 0;
  for (int c = lane; c < dy.columns; c += 32) along += to_float(dy.row(row)[c]) * to_float(y.row(row)[c]);
  along = warp_sum(along);
  const float inverse = inverse_norms[row];
  for (int c = lane; c < dy.columns; c += 32)
    dx.row(row)[c] = from_float<T>((to_float(dy.row(row)[c]) - to_float(y.row(row)[c]) * along) * inverse);
}
/// Rows of unit length, from fp32 to what products read. One warp a row.
template <class T>
__global__ void __launch_bounds__(32 * row_warps) unit_rows(float const* weight, int rows, int columns, T* to) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= rows) return;
  float const* const w = weight + static_cast<std::size_t>(row) * static_cast<std::size_t>(columns);
  float squares = 0;
  for (int c = lane; c < columns; c += 32) squares += w[c] * w[c];
  const float inverse = 1.f / fmaxf(sqrtf(warp_sum(squares)), 1e-8f);
  T* const unit = to + static_cast<std::size_t>(row) * static_cast<std::size_t>(columns);
  for (int c = lane; c < columns; c += 32) unit[c] = from_float<T>(w[c] * inverse);
}
/// The gradient by unit rows becomes that by rows, in place.
template <class = void>
__global__ void __launch_bounds__(32 * row_warps) unit_rows_back(Matrix<float const> weight, Matrix<float> gradient) {
  const int row = static_cast<int>(blockIdx.x) * row_warps + static_cast<int>(threadIdx.x) / 32,
            lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= weight.rows) return;
  float const* const w = weight.row(row);
  float* const g = gradient.row(row);
  float squares = 0, along = 0;
  for (int c = lane; c < weight.columns; c += 32) {
    squares += w[c] * w[c];
    along += w[c] * g[c];
  }
  const float inverse = 1.f / fmaxf(sqrtf(warp_sum(squares)), 1e-8f);
  along = warp_sum(along) * inverse;
  for (int c = lane; c < weight.columns; c += 32) g[c] = (g[c] - w[c] * inverse * along) * inverse;
}

}  // namespace sotto::cuda::inline SOTTO_ABI
