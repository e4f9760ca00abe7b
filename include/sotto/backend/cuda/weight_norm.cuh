// Weight norm of a convolution over its taps: effective weights as panels, and the way back for their gradient.
#pragma once

#include <math.h>

#include <cstddef>

#include <sotto/backend/cuda/device.cuh>
#include <sotto/nn/position.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr int weight_norm_threads = 128;

// Squares of 32 x 32 numbers are turned over in shared memory by blocks of (32, 8) threads.

inline constexpr int turned = 32, turned_step = 8, turned_threads = turned * turned_step;
constexpr int turned_blocks(int n) { return (n + turned - 1) / turned; }
struct TurnedSquare {
  float value[turned][turned + 1];
};

/// Of one tap, over output channels and channels: v . v, and dv . v.
struct TapSums {
  double square, along;
};
inline constexpr int tap_parts = 64;

/// parts: [64, taps], each the sums of every 64th row of v and, unless null, dv, [rows, taps]. Block (32 taps, part) of
/// (32, 8) threads.
template <class = void>
__global__ void __launch_bounds__(turned_threads)
    sum_taps(float const* v, float const* dv, int rows, int taps, TapSums* parts) {
  struct Storage {
    TapSums of[turned_step][turned];
  };
  Storage& storage = shared<Storage>();
  const int column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int tap = static_cast<int>(blockIdx.x) * turned + column, part = static_cast<int>(blockIdx.y);
  TapSums sums{0, 0};
  if (tap < taps)
    for (int i = row * tap_parts + part; i < rows; i += turned_step * tap_parts) {
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(i) * taps + tap;
      const auto value = static_cast<double>(v[at]);
      sums.square += value * value;
      if (dv != nullptr) sums.along += static_cast<double>(dv[at]) * value;
    }
  storage.of[row][column] = sums;
  __syncthreads();
  if (row != 0 || tap >= taps) return;
  for (int i = 1; i < turned_step; ++i) {
    sums.square += storage.of[i][column].square;
    sums.along += storage.of[i][column].along;
  }
  parts[part * taps + tap] = sums;
}
__device__ __forceinline__ TapSums sum_of_parts(TapSums const* parts, int taps, int tap) {
  TapSums sums{0, 0};
  for (int part = 0; part < tap_parts; ++part) {
    sums.square += parts[part * taps + tap].square;
    sums.along += parts[part * taps + tap].along;
  }
  return sums;
}
/// factors [taps]: g / |v|. A copy of the bias [width] beside.
template <class = void>
__global__ void __launch_bounds__(weight_norm_threads)
    make_factors(ConvolutionShape s, TapSums const* parts, float const* g, float const* bias, float* factors,
                 float* prepared_bias) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < s.taps)
    factors[i] = static_cast<float>(static_cast<double>(g[i]) / sqrt(sum_of_parts(parts, s.taps, i).square));
  if (i < s.width) prepared_bias[i] = bias[i];
}
/// factors and shares [taps]: g / |v|, and what of v to take from dv. dg += dv . v / |v|.
template <class = void>
__global__ void __launch_bounds__(weight_norm_threads)
    finish_magnitudes(int taps, TapSums const* parts, float const* g, float* dg, float* factors, float* shares) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= taps) return;
  const TapSums sums = sum_of_parts(parts, taps, i);
  const double length = sqrt(sums.square);
  dg[i] += static_cast<float>(sums.along / length);
  factors[i] = static_cast<float>(static_cast<double>(g[i]) / length);
  shares[i] = static_cast<float>(sums.along / sums.square);
}
/// dv [rows, taps] = factor (dv - share v).
template <class = void>
__global__ void __launch_bounds__(weight_norm_threads)
    finish_directions(float const* v, float const* factors, float const* shares, int rows, int taps, float* dv) {
  const std::ptrdiff_t i = static_cast<std::ptrdiff_t>(blockIdx.x) * weight_norm_threads + threadIdx.x;
  if (i >= static_cast<std::ptrdiff_t>(rows) * taps) return;
  const int tap = static_cast<int>(i % taps);
  dv[i] = factors[tap] * (dv[i] - shares[tap] * v[i]);
}

/// One direction's panel, see prepare_convolution. Block (taps, the panel's channels, its row).
template <class T, bool Back>
__global__ void __launch_bounds__(turned_threads)
    pack_panel(ConvolutionShape s, float const* v, float const* factors, T* panel) {
  TurnedSquare& square = shared<TurnedSquare>();
  const int c = s.channels(), column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int tap_first = static_cast<int>(blockIdx.x) * turned, channel_first = static_cast<int>(blockIdx.y) * turned;
  const int panel_row = static_cast<int>(blockIdx.z), group_first = panel_row / c * c;
  for (int i = row; i < turned; i += turned_step) {
    const int tap = tap_first + column, channel = channel_first + i;
    if (tap >= s.taps || channel >= c) continue;
    const int out = Back ? group_first + channel : panel_row, in = Back ? panel_row - group_first : channel;
    square.value[i][column] = factors[tap] * v[(static_cast<std::ptrdiff_t>(out) * c + in) * s.taps + tap];
  }
  __syncthreads();
  for (int i = row; i < turned; i += turned_step) {
    const int tap = tap_first + i, channel = channel_first + column;
    if (tap >= s.taps || channel >= c) continue;
    const int place = Back ? s.taps - 1 - tap : tap;
    panel[(static_cast<std::ptrdiff_t>(panel_row) * s.taps + place) * c + channel] =
        from_float<T>(square.value[column][i]);
  }
}

/// Floats that prepare_convolution and finish_convolution need.
constexpr std::size_t prepare_scratch(ConvolutionShape s) {
  return static_cast<std::size_t>(s.taps) * (tap_parts * sizeof(TapSums) / sizeof(float) + 2);
}

/// Effective weights g v / |v|, the norm a tap's over all channels, as panels. v: [width, channels, taps], g: [taps],
/// bias: [width]. forward_panel: [width, taps, channels]; back_panel: [width of x, taps, channels out], taps in reverse
/// order. prepared_bias: [width], a copy: sums are fp32 whatever T. scratch: [prepare_scratch], at a multiple of 16
/// bytes.
template <class T>
void prepare_convolution(ConvolutionShape s, float const* v, float const* g, float const* bias, T* forward_panel,
                         T* back_panel, float* prepared_bias, float* scratch, cudaStream_t stream) {
  auto* const parts = reinterpret_cast<TapSums*>(scratch);
  float* const factors = reinterpret_cast<float*>(parts + tap_parts * s.taps);
  const auto taps = static_cast<unsigned>(turned_blocks(s.taps));
  const auto channels = static_cast<unsigned>(turned_blocks(s.channels()));
  const auto width = static_cast<unsigned>(s.width);
  const int longer = s.taps > s.width ? s.taps : s.width;
  launch(sum_taps<>, {{taps, tap_parts}, {turned, turned_step}}, stream, v, nullptr, s.width * s.channels(), s.taps,
         parts);
  launch(make_factors<>,
         {static_cast<unsigned>((longer + weight_norm_threads - 1) / weight_norm_threads), weight_norm_threads}, stream,
         s, parts, g, bias, factors, prepared_bias);
  launch(pack_panel<T, false>, {{taps, channels, width}, {turned, turned_step}}, stream, s, v, factors, forward_panel);
  launch(pack_panel<T, true>, {{taps, channels, width}, {turned, turned_step}}, stream, s, v, factors, back_panel);
}

/// dv [width, channels, taps]: the gradient by the effective weight on entry, by v on return. dg [taps] += the gradient
/// by g. scratch: [prepare_scratch], at a multiple of 16 bytes.
inline void finish_convolution(ConvolutionShape s, float const* v, float const* g, float* dv, float* dg, float* scratch,
                               cudaStream_t stream) {
  auto* const parts = reinterpret_cast<TapSums*>(scratch);
  float *const factors = reinterpret_cast<float*>(parts + tap_parts * s.taps), *const shares = factors + s.taps;
  const int rows = s.width * s.channels();
  const auto blocks = [](std::ptrdiff_t n) {
    return static_cast<unsigned>((n + weight_norm_threads - 1) / weight_norm_threads);
  };
  launch(sum_taps<>, {{static_cast<unsigned>(turned_blocks(s.taps)), tap_parts}, {turned, turned_step}}, stream, v, dv,
         rows, s.taps, parts);
  launch(finish_magnitudes<>, {blocks(s.taps), weight_norm_threads}, stream, s.taps, parts, g, dg, factors, shares);
  launch(finish_directions<>, {blocks(static_cast<std::ptrdiff_t>(rows) * s.taps), weight_norm_threads}, stream, v,
         factors, shares, rows, s.taps, dv);
}

}  // namespace sotto::cuda::inline SOTTO_ABI
