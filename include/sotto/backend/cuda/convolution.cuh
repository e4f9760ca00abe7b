// Grouped "same" convolutions of packed sequences on a GPU, as products: where the frames of a group's channels lie
// side by side, the window of an output frame is one contiguous row, and the next frame's begins one frame later.
#pragma once

#include <math.h>

#include <cstddef>
#include <type_traits>

#include <sotto/backend/cuda/device.cuh>
#include <sotto/backend/cuda/tile.cuh>
#include <sotto/backend/cuda/weight_norm.cuh>
#include <sotto/nn/position.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr int convolution_warps = 4, convolution_threads = 32 * convolution_warps;

/// Tiles of a block that convolves. Every block reads its group's whole panel (147 KB for 24 channels and 128 taps),
/// far more than its frames. By the data sheet of an H100, L2 delivers that in about the time in which tensor cores use
/// it for two tiles; with one tile a block it would take twice as long, with four too few blocks would be left of a
/// batch of some thousand rows.
inline constexpr int convolved_tiles = 2;

struct ConvolutionTiles {
  Tile const* begin;
  int count;
  __device__ __forceinline__ Tile at(int i) const { return i < count ? begin[i] : Tile{0, 0, 0, Tile::unused}; }
};
/// Rows of a tile, and those of them that are frames of a sequence.
__device__ __forceinline__ int rows_of(Tile const& tile) {
  const int left = tile.kind == Tile::unused ? 0 : tile.length - tile.begin;
  return left < tile_rows ? left : tile_rows;
}
__device__ __forceinline__ int frames_of(Tile const& tile) { return tile.kind == Tile::frames ? rows_of(tile) : 0; }

/// Columns [first, first + count) of a tail tile: zeros.
template <class T> __device__ __forceinline__ void zero_tail(Tile const& tile, T* y, int width, int first, int count) {
  if (tile.kind != Tile::tail) return;
  for (int i = static_cast<int>(threadIdx.x); i < rows_of(tile) * count; i += convolution_threads)
    y[static_cast<std::ptrdiff_t>(tile.first + tile.begin + i / count) * width + first + i % count] =
        from_float<T>(0.f);
}

// Tensor cores: bf16, channels a multiple of 8.

/// Numbers from one row in shared memory to the next: an odd multiple of 16 bytes, so that eight rows of a matrix lie
/// in different banks.
SOTTO_HOST_DEVICE constexpr int odd_pitch(int columns) { return columns / 8 % 2 == 0 ? columns + 8 : columns; }

inline constexpr int panel_stage = 128, panel_pitch = odd_pitch(panel_stage);
/// Rows of a window: those that 64 frames see and three more, since of the row [taps * channels] 32 numbers are
/// multiplied at a time.
SOTTO_HOST_DEVICE constexpr int window_rows(ConvolutionShape s) { return tile_rows + s.taps - 1 + 3; }
/// Most 8-column tiles of output channels of a block; the tiles of each where a group needs more than one block.
inline constexpr int most_columns = 6;
constexpr int column_blocks(ConvolutionShape s) { return (s.channels() / 8 + most_columns - 1) / most_columns; }
constexpr int columns_each(ConvolutionShape s) { return (s.channels() / 8 + column_blocks(s) - 1) / column_blocks(s); }
constexpr std::size_t convolution_bytes(ConvolutionShape s) {
  const int numbers =
      convolved_tiles * window_rows(s) * odd_pitch(s.channels()) + 2 * 8 * columns_each(s) * panel_pitch;
  return static_cast<std::size_t>(numbers) * sizeof(bf16);
}
/// What a block may have on any architecture since sm_80.
inline constexpr std::size_t most_shared_bytes = 99 * 1024;
template <class T> constexpr bool convolves_by_fragments(ConvolutionShape s) {
  return std::is_same_v<T, bf16> && s.channels() % 8 == 0 && convolution_bytes(s) <= most_shared_bytes;
}

/// Two numbers stored at once.
struct alignas(4) ConvolutionPair {
  bf16 first, second;
};

/// y[t, o] = bias[o] + panel[o, :] . x's window of t. Block (tile pair, group, 8 * Columns of its output channels), a
/// warp 32 frames. left: frames of the window before t.
template <int Columns>
__global__ void __launch_bounds__(convolution_threads)
    convolve_fragments(ConvolutionShape s, int left, ConvolutionTiles tiles, bf16 const* x, bf16 const* panel,
                       float const* bias, bf16* y) {
  const int c = s.channels(), packs = c / 8, size = s.taps * c, pitch = odd_pitch(c);
  const int rows = window_rows(s), thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int group_first = static_cast<int>(blockIdx.y) * c, out_first = static_cast<int>(blockIdx.z) * 8 * Columns;
  const int outs = c - out_first < 8 * Columns ? c - out_first : 8 * Columns;
  bf16* const windows = dynamic_shared<bf16>();
  bf16* const stages = windows + convolved_tiles * rows * pitch;
  int all_frames = 0;
  for (int i = 0; i < convolved_tiles; ++i) {
    const Tile tile = tiles.at(static_cast<int>(blockIdx.x) * convolved_tiles + i);
    zero_tail(tile, y, s.width, group_first + out_first, outs);
    const int frames = frames_of(tile);
    all_frames += frames;
    if (frames == 0) continue;
    for (int at = thread; at < rows * packs; at += convolution_threads) {
      const int row = at / packs, column = at % packs * 8, t = tile.begin - left + row;
      copy_16(windows + (i * rows + row) * pitch + column,
              x + static_cast<std::ptrdiff_t>(tile.first + t) * s.width + group_first + column,
              t >= 0 && t < tile.length && row < tile_rows + s.taps - 1);
    }
  }
  if (all_frames == 0) return;

  const auto fetch = [&](int stage) {
    bf16* const to = stages + stage % 2 * (8 * Columns * panel_pitch);
    for (int at = thread; at < 8 * Columns * (panel_stage / 8); at += convolution_threads) {
      const int o = at / (panel_stage / 8), column = at % (panel_stage / 8) * 8, k = stage * panel_stage + column;
      copy_16(to + o * panel_pitch + column,
              panel + static_cast<std::ptrdiff_t>(group_first + out_first + o) * size + k, o < outs && k < size);
    }
    commit_copies();
  };
  constexpr int warps_each = convolution_warps / convolved_tiles, mine = tile_rows / warps_each;
  static_assert(mine == 32);
  const Tile tile = tiles.at(static_cast<int>(blockIdx.x) * convolved_tiles + warp / warps_each);
  const int row_first = warp % warps_each * mine, frames = frames_of(tile) - row_first;
  float sum[2][Columns][4] = {};
  bf16 const* const window =
      windows + (warp / warps_each * rows + row_first + lane % 16) * pitch + lane / 16 * 8;  // this lane's rows
  const int stage_count = (size + panel_stage - 1) / panel_stage;
  // Number kk of a window's row is kk + kk / c * (pitch - c) numbers from its begin. Where pitch is not c, 16 divides
  // c, so that no step of 16 meets the gap.
  int place = 0, before_gap = c;
  fetch(0);
  for (int stage = 0; stage < stage_count; ++stage) {
    wait_for_copies<0>();
    __syncthreads();
    if (stage + 1 < stage_count) fetch(stage + 1);
    if (frames <= 0) continue;
    bf16 const* const weights =
        stages + (stage % 2 * 8 * Columns + lane % 8) * panel_pitch + lane / 8 * 8;  // this lane's
    const int left_over = size - stage * panel_stage, here = left_over < panel_stage ? left_over : panel_stage;
#pragma unroll 1
    for (int k = 0; k < here; k += 32) {
      std::uint32_t a[2][2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int m = 0; m < 2; ++m) load_matrices(a[half][m], window + m * 16 * pitch + place);
        place += 16;
        before_gap -= 16;
        if (before_gap <= 0) {
          before_gap += c;
          place += pitch - c;
        }
      }
#pragma unroll
      for (int n = 0; n < Columns; ++n) {
        std::uint32_t b[4];
        load_matrices(b, weights + n * 8 * panel_pitch + k);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t of_half[2] = {b[2 * half], b[2 * half + 1]};
#pragma unroll
          for (int m = 0; m < 2; ++m) mma_16816(sum[m][n], a[half][m], of_half);
        }
      }
    }
  }
#pragma unroll
  for (int n = 0; n < Columns; ++n) {
    if (n * 8 >= outs) continue;
    const int o = group_first + out_first + n * 8 + lane % 4 * 2;
    const float bias_0 = bias != nullptr ? bias[o] : 0.f, bias_1 = bias != nullptr ? bias[o + 1] : 0.f;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = m * 16 + half * 8 + lane / 4;
        if (row >= frames) continue;
        bf16* const to = y + static_cast<std::ptrdiff_t>(tile.first + tile.begin + row_first + row) * s.width + o;
        *reinterpret_cast<ConvolutionPair*>(to) = {bf16::of(sum[m][n][2 * half] + bias_0),
                                                   bf16::of(sum[m][n][2 * half + 1] + bias_1)};
      }
  }
}

/// Numbers of a window's row that a block's weight gradient covers, and those of a warp of it.
inline constexpr int gradient_range = 256, gradient_warp = gradient_range / convolution_warps;
/// Rows of 64 frames' windows that so many neighbouring numbers of each are in.
SOTTO_HOST_DEVICE constexpr int gradient_rows(int channels) { return tile_rows + 1 + (gradient_range - 1) / channels; }
constexpr std::size_t gradient_bytes(ConvolutionShape s) {
  const int numbers =
      2 * (gradient_rows(s.channels()) * odd_pitch(s.channels()) + tile_rows * odd_pitch(8 * columns_each(s)));
  return static_cast<std::size_t>(numbers) * sizeof(bf16);
}

/// Whether tensor cores take a weight gradient.
template <class T> constexpr bool gradient_in_fragments(ConvolutionShape s) {
  return std::is_same_v<T, bf16> && s.channels() % 8 == 0 && gradient_bytes(s) <= most_shared_bytes;
}

/// A part of the weight gradient, [taps * channels, channels out] a group, from tiles chunk, chunk + chunks, ...; and
/// of the bias gradient [width]: windows^T dy. Block (256 numbers of a window and 8 * Columns output channels, group,
/// chunk), a warp 64 numbers. parts: [chunks, width * channels * taps], bias_parts: [chunks, width].
template <int Columns>
__global__ void __launch_bounds__(convolution_threads, 2)
    gradient_fragments(ConvolutionShape s, ConvolutionTiles tiles, bf16 const* dy, bf16 const* x, float* parts,
                       float* bias_parts) {
  constexpr int out_pitch = odd_pitch(8 * Columns), steps = gradient_warp / 16;
  const int c = s.channels(), packs = c / 8, size = s.taps * c, pitch = odd_pitch(c), rows = gradient_rows(c);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int ranges = (size + gradient_range - 1) / gradient_range;
  const int range_first = static_cast<int>(blockIdx.x) % ranges * gradient_range, tap_first = range_first / c;
  const int group = static_cast<int>(blockIdx.y), group_first = group * c;
  const int out_first = static_cast<int>(blockIdx.x) / ranges * 8 * Columns;
  const int outs = c - out_first < 8 * Columns ? c - out_first : 8 * Columns;
  const int chunk = static_cast<int>(blockIdx.z), chunks = static_cast<int>(gridDim.z);
  bf16* const storage = dynamic_shared<bf16>();
  const int stage_size = rows * pitch + tile_rows * out_pitch;

  const auto fetch = [&](int i, int stage) {
    const Tile tile = tiles.at(i);
    const int frames = frames_of(tile);
    bf16 *const window = storage + stage * stage_size, *const out = window + rows * pitch;
    if (frames > 0) {
      for (int at = thread; at < rows * packs; at += convolution_threads) {
        const int row = at / packs, column = at % packs * 8, t = tile.begin - s.taps / 2 + tap_first + row;
        copy_16(window + row * pitch + column,
                x + static_cast<std::ptrdiff_t>(tile.first + t) * s.width + group_first + column,
                t >= 0 && t < tile.length);
      }
      for (int at = thread; at < tile_rows * Columns; at += convolution_threads) {
        const int row = at / Columns, column = at % Columns * 8;
        copy_16(out + row * out_pitch + column,
                dy + static_cast<std::ptrdiff_t>(tile.first + tile.begin + row) * s.width + group_first + out_first +
                    column,
                row < frames && column < outs);
      }
    }
    commit_copies();
    return frames;
  };
  // Where this lane's rows of the windows begin: matrices 0 and 2 are 8 numbers of the window, 1 and 3 the next 8.
  int places[steps];
#pragma unroll
  for (int m = 0; m < steps; ++m) {
    const int pack = (range_first + warp * gradient_warp + m * 16) / 8 + lane / 8 % 2;
    places[m] = (pack / packs - tap_first + lane % 8 + lane / 16 * 8) * pitch + pack % packs * 8;
  }
  const bool sums_bias = range_first == 0 && thread < outs;
  float sum[steps][Columns][4] = {}, bias_sum = 0;
  int frames = fetch(chunk, 0), stage = 0;
  for (int i = chunk; i < tiles.count; i += chunks, stage ^= 1) {
    wait_for_copies<0>();
    __syncthreads();
    const int next = i + chunks < tiles.count ? fetch(i + chunks, stage ^ 1) : 0;
    bf16 const *const window = storage + stage * stage_size, *const out = window + rows * pitch;
#pragma unroll 1
    for (int t = 0; t < frames; t += 32) {
      std::uint32_t b[Columns][4];
#pragma unroll
      for (int n = 0; n < Columns; ++n) load_matrices_transposed(b[n], out + (t + lane) * out_pitch + n * 8);
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int m = 0; m < steps; ++m) {
          std::uint32_t a[4];
          load_matrices_transposed(a, window + (t + half * 16) * pitch + places[m]);
#pragma unroll
          for (int n = 0; n < Columns; ++n) {
            const std::uint32_t of_half[2] = {b[n][2 * half], b[n][2 * half + 1]};
            mma_16816(sum[m][n], a, of_half);
          }
        }
    }
    if (sums_bias)
      for (int t = 0; t < frames; ++t) bias_sum += to_float(out[t * out_pitch + thread]);
    frames = next;
  }
  if (sums_bias) bias_parts[static_cast<std::ptrdiff_t>(chunk) * s.width + group_first + out_first + thread] = bias_sum;
  float* const to = parts + (static_cast<std::ptrdiff_t>(chunk) * s.groups + group) * size * c + out_first;
#pragma unroll
  for (int m = 0; m < steps; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int number = range_first + warp * gradient_warp + m * 16 + half * 8 + lane / 4;
      if (number >= size) continue;
#pragma unroll
      for (int n = 0; n < Columns; ++n) {
        if (n * 8 >= outs) continue;
        const int o = n * 8 + lane % 4 * 2;
        to[static_cast<std::ptrdiff_t>(number) * c + o] = sum[m][n][2 * half];
        to[static_cast<std::ptrdiff_t>(number) * c + o + 1] = sum[m][n][2 * half + 1];
      }
    }
}

// Fused multiply-adds: fp32, and bf16 where the above does not go. A thread keeps 16 successive frames of a channel in
// registers, which 8 frames meet 8 taps in: one number read for many multiplied.

inline constexpr int plain_frames = 8, plain_taps = 8, plain_channels = 8, plain_out_lanes = 8;
template <int Outs> inline constexpr int plain_outs = plain_out_lanes* Outs;
/// Floats from one channel's frames to the next's: channels written side by side meet different banks.
SOTTO_HOST_DEVICE constexpr int plain_pitch(int frames) { return (frames + 31) / 32 * 32 + 4; }
SOTTO_HOST_DEVICE constexpr int plain_window(int taps) {
  return plain_pitch(tile_rows + (taps + plain_taps - 1) / plain_taps * plain_taps);
}

/// at: a multiple of 16 bytes.
__device__ __forceinline__ void load_successive(float (&to)[16], float const* at) {
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    const Pack<float> pack = load_pack(at + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[i + j] = pack.value[j];
  }
}

/// As convolve_fragments. Block (tile pair, group, 8 * Outs of its output channels); a thread computes 8 frames of Outs
/// channels.
template <class T, int Outs>
__global__ void __launch_bounds__(convolution_threads, 4)
    convolve_plain(ConvolutionShape s, int left, ConvolutionTiles tiles, T const* x, T const* panel, float const* bias,
                   T* y) {
  constexpr int weight_pitch = plain_outs<Outs> + 1, threads_each = convolution_threads / convolved_tiles;
  static_assert(threads_each == tile_rows / plain_frames * plain_out_lanes);
  const int c = s.channels(), size = s.taps * c, pitch = plain_window(s.taps);
  const int thread = static_cast<int>(threadIdx.x), out_lane = thread % plain_out_lanes;
  const int row_first = thread % threads_each / plain_out_lanes * plain_frames;
  const int group_first = static_cast<int>(blockIdx.y) * c;
  const int out_first = static_cast<int>(blockIdx.z) * plain_outs<Outs>;
  const int outs = c - out_first < plain_outs<Outs> ? c - out_first : plain_outs<Outs>;
  float* const windows = dynamic_shared<float>();                             // [tiles, 8 channels, pitch]
  float* const weights = windows + convolved_tiles * plain_channels * pitch;  // [8 taps, 8 channels, weight_pitch]
  int all_frames = 0;
  for (int i = 0; i < convolved_tiles; ++i) {
    const Tile tile = tiles.at(static_cast<int>(blockIdx.x) * convolved_tiles + i);
    zero_tail(tile, y, s.width, group_first + out_first, outs);
    all_frames += frames_of(tile);
  }
  if (all_frames == 0) return;
  const Tile tile = tiles.at(static_cast<int>(blockIdx.x) * convolved_tiles + thread / threads_each);
  const int frames = frames_of(tile) - row_first;

  float sum[plain_frames][Outs] = {};
  for (int channel = 0; channel < c; channel += plain_channels) {
    const int channels = c - channel < plain_channels ? c - channel : plain_channels;
    for (int tap = 0; tap < s.taps; tap += plain_taps) {
      __syncthreads();
      if (tap == 0)
        for (int which = 0; which < convolved_tiles; ++which) {
          const Tile from = tiles.at(static_cast<int>(blockIdx.x) * convolved_tiles + which);
          const bool any = from.kind == Tile::frames;
          for (int i = thread; i < plain_channels * pitch; i += convolution_threads) {
            const int column = i % plain_channels, row = i / plain_channels, t = from.begin - left + row;
            const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(from.first + t) * s.width + group_first + channel;
            windows[(which * plain_channels + column) * pitch + row] =
                any && column < channels && t >= 0 && t < from.length ? to_float(x[at + column]) : 0.f;
          }
        }
      for (int i = thread; i < plain_outs<Outs> * plain_taps * plain_channels; i += convolution_threads) {
        const int column = i % plain_channels, k = i / plain_channels % plain_taps,
                  o = i / (plain_channels * plain_taps);
        const bool real = column < channels && tap + k < s.taps && o < outs;
        weights[(k * plain_channels + column) * weight_pitch + o] =
            real ? to_float(panel[static_cast<std::ptrdiff_t>(group_first + out_first + o) * size + (tap + k) * c +
                                  channel + column])
                 : 0.f;
      }
      __syncthreads();
      if (frames <= 0) continue;
#pragma unroll 1
      for (int i = 0; i < channels; ++i) {
        float seen[16];
        load_successive(seen, windows + (thread / threads_each * plain_channels + i) * pitch + row_first + tap);
#pragma unroll
        for (int k = 0; k < plain_taps; ++k)
#pragma unroll
          for (int o = 0; o < Outs; ++o) {
            const float weight = weights[(k * plain_channels + i) * weight_pitch + o * plain_out_lanes + out_lane];
#pragma unroll
            for (int t = 0; t < plain_frames; ++t) sum[t][o] += weight * seen[t + k];
          }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < plain_frames; ++t) {
    if (t >= frames) continue;
    T* const to =
        y + static_cast<std::ptrdiff_t>(tile.first + tile.begin + row_first + t) * s.width + group_first + out_first;
#pragma unroll
    for (int o = 0; o < Outs; ++o) {
      const int column = o * plain_out_lanes + out_lane;
      if (column < outs)
        to[column] = from_float<T>(sum[t][o] + (bias != nullptr ? bias[group_first + out_first + column] : 0.f));
    }
  }
}

inline constexpr int plain_gradient_channels = 4, plain_gradient_taps = 32;

/// As gradient_fragments. Block (32 taps, 4 channels and 8 * Outs output channels, group, chunk); a thread sums 8 taps
/// of one channel and Outs output channels.
template <class T, int Outs>
__global__ void __launch_bounds__(convolution_threads, 4)
    gradient_plain(ConvolutionShape s, ConvolutionTiles tiles, T const* dy, T const* x, float* parts,
                   float* bias_parts) {
  constexpr int window = tile_rows + plain_gradient_taps, pitch = plain_pitch(window), most_outs = plain_outs<Outs>;
  struct Storage {
    alignas(16) float window[plain_gradient_channels][pitch];
    float out[tile_rows][most_outs];
  };
  Storage& storage = shared<Storage>();
  const int c = s.channels(), thread = static_cast<int>(threadIdx.x), out_lane = thread % plain_out_lanes;
  const int tap_lane = thread / plain_out_lanes % (plain_gradient_taps / plain_taps) * plain_taps, mine = thread / 32;
  const int tap_blocks = (s.taps + plain_gradient_taps - 1) / plain_gradient_taps;
  const int channel_blocks = (c + plain_gradient_channels - 1) / plain_gradient_channels;
  const int at = static_cast<int>(blockIdx.x), tap_first = at % tap_blocks * plain_gradient_taps;
  const int channel_first = at / tap_blocks % channel_blocks * plain_gradient_channels;
  const int out_first = at / (tap_blocks * channel_blocks) * most_outs;
  const int outs = c - out_first < most_outs ? c - out_first : most_outs;
  const int group = static_cast<int>(blockIdx.y), group_first = group * c;
  const int chunk = static_cast<int>(blockIdx.z), chunks = static_cast<int>(gridDim.z);
  const bool sums_bias = tap_first == 0 && channel_first == 0 && thread < outs;

  float sum[plain_taps][Outs] = {}, bias_sum = 0;
  for (int i = chunk; i < tiles.count; i += chunks) {
    const Tile tile = tiles.at(i);
    const int frames = frames_of(tile);
    if (frames == 0) continue;
    __syncthreads();
    for (int j = thread; j < plain_gradient_channels * window; j += convolution_threads) {
      const int column = j % plain_gradient_channels, row = j / plain_gradient_channels;
      const int t = tile.begin - s.taps / 2 + tap_first + row;
      const bool real = channel_first + column < c && t >= 0 && t < tile.length;
      storage.window[column][row] =
          real ? to_float(
                     x[static_cast<std::ptrdiff_t>(tile.first + t) * s.width + group_first + channel_first + column])
               : 0.f;
    }
    for (int j = thread; j < tile_rows * most_outs; j += convolution_threads) {
      const int column = j % most_outs, row = j / most_outs;
      storage.out[row][column] =
          row < frames && column < outs
              ? to_float(dy[static_cast<std::ptrdiff_t>(tile.first + tile.begin + row) * s.width + group_first +
                            out_first + column])
              : 0.f;
    }
    __syncthreads();
#pragma unroll 1
    for (int t = 0; t < frames; t += 8) {
      float seen[16];
      load_successive(seen, storage.window[mine] + t + tap_lane);
#pragma unroll
      for (int u = 0; u < 8; ++u)
#pragma unroll
        for (int o = 0; o < Outs; ++o) {
          const float d = storage.out[t + u][o * plain_out_lanes + out_lane];
#pragma unroll
          for (int k = 0; k < plain_taps; ++k) sum[k][o] += d * seen[u + k];
        }
    }
    if (sums_bias)
      for (int t = 0; t < frames; ++t) bias_sum += storage.out[t][thread];
  }
  if (sums_bias) bias_parts[static_cast<std::ptrdiff_t>(chunk) * s.width + group_first + out_first + thread] = bias_sum;
  const int channel = channel_first + mine;
  if (channel >= c) return;
  float* const to = parts + (static_cast<std::ptrdiff_t>(chunk) * s.groups + group) * s.taps * c * c;
#pragma unroll
  for (int k = 0; k < plain_taps; ++k) {
    const int tap = tap_first + tap_lane + k;
    if (tap >= s.taps) continue;
#pragma unroll
    for (int o = 0; o < Outs; ++o) {
      const int column = o * plain_out_lanes + out_lane;
      if (column < outs) to[static_cast<std::ptrdiff_t>(tap * c + channel) * c + out_first + column] = sum[k][o];
    }
  }
}

/// dw [width, channels, taps] += the sum over chunks of parts [chunks, groups, taps, channels, channels out]. Block
/// (taps, output channels, group and channel).
template <class = void>
__global__ void __launch_bounds__(turned_threads)
    add_weight_gradient(ConvolutionShape s, float const* parts, int chunks, float* dw) {
  TurnedSquare& square = shared<TurnedSquare>();
  const int c = s.channels(), column = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int tap_first = static_cast<int>(blockIdx.x) * turned, out_first = static_cast<int>(blockIdx.y) * turned;
  const int group = static_cast<int>(blockIdx.z) / c, channel = static_cast<int>(blockIdx.z) % c;
  const std::ptrdiff_t whole = static_cast<std::ptrdiff_t>(s.width) * c * s.taps;
  for (int i = row; i < turned; i += turned_step) {
    const int tap = tap_first + i, o = out_first + column;
    if (tap >= s.taps || o >= c) continue;
    float const* const from = parts + ((static_cast<std::ptrdiff_t>(group) * s.taps + tap) * c + channel) * c + o;
    float sum = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += from[chunk * whole];
    square.value[i][column] = sum;
  }
  __syncthreads();
  for (int i = row; i < turned; i += turned_step) {
    const int tap = tap_first + column, o = out_first + i;
    if (tap < s.taps && o < c)
      dw[(static_cast<std::ptrdiff_t>(group * c + o) * c + channel) * s.taps + tap] += square.value[column][i];
  }
}
/// db [width] += the sum over chunks of parts [chunks, width].
template <class = void>
__global__ void __launch_bounds__(convolution_threads)
    add_bias_gradient(int width, float const* parts, int chunks, float* db) {
  const int o = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (o >= width) return;
  float sum = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) sum += parts[static_cast<std::ptrdiff_t>(chunk) * width + o];
  db[o] += sum;
}

/// f(std::integral_constant<int, i>) for i = n, 1 <= n <= Most.
template <int Most, class F> void with_constant(int n, F const& f) {
  if constexpr (Most > 1) {
    if (n < Most) return with_constant<Most - 1>(n, f);
  }
  f(std::integral_constant<int, Most>{});
}
/// f(std::integral_constant<int, Outs>): output channels of a thread, one where a group has no more than its lanes.
template <class F> void with_outs(ConvolutionShape s, F const& f) {
  if (s.channels() <= plain_out_lanes) {
    f(std::integral_constant<int, 1>{});
  } else {
    f(std::integral_constant<int, 3>{});
  }
}
constexpr int plain_out_blocks(ConvolutionShape s) {
  return s.channels() <= plain_out_lanes ? 1 : (s.channels() + plain_outs<3> - 1) / plain_outs<3>;
}

/// Either direction; bias may be null.
template <class T>
void convolve(ConvolutionShape s, int left, ConvolutionTiles tiles, T const* x, T const* panel, float const* bias, T* y,
              cudaStream_t stream) {
  const auto pairs = static_cast<unsigned>((tiles.count + convolved_tiles - 1) / convolved_tiles);
  const auto groups = static_cast<unsigned>(s.groups);
  if constexpr (std::is_same_v<T, bf16>) {
    if (convolves_by_fragments<T>(s)) {
      const auto blocks = static_cast<unsigned>(column_blocks(s));
      return with_constant<most_columns>(columns_each(s), [&](auto columns) {
        launch(convolve_fragments<decltype(columns)::value>,
               {{pairs, groups, blocks}, convolution_threads, static_cast<unsigned>(convolution_bytes(s))}, stream, s,
               left, tiles, x, panel, bias, y);
      });
    }
  }
  with_outs(s, [&](auto outs) {
    constexpr int each = decltype(outs)::value;
    const int floats =
        convolved_tiles * plain_channels * plain_window(s.taps) + plain_taps * plain_channels * (plain_outs<each> + 1);
    launch(convolve_plain<T, each>,
           {{pairs, groups, static_cast<unsigned>(plain_out_blocks(s))},
            convolution_threads,
            static_cast<unsigned>(floats) * 4u},
           stream, s, left, tiles, x, panel, bias, y);
  });
}

/// Blocks of a weight gradient that each see all rows.
template <class T> constexpr int gradient_blocks(ConvolutionShape s) {
  if (gradient_in_fragments<T>(s))
    return (s.taps * s.channels() + gradient_range - 1) / gradient_range * column_blocks(s);
  return (s.taps + plain_gradient_taps - 1) / plain_gradient_taps *
         ((s.channels() + plain_gradient_channels - 1) / plain_gradient_channels) * plain_out_blocks(s);
}
/// Shares of the rows that are summed side by side: as many as give four blocks to each of some 132 multiprocessors,
/// but four tiles at least to each share. A function of capacities, so that the bits are the same on every device.
template <class T> constexpr int gradient_chunks(ConvolutionShape s, int rows) {
  const int blocks = gradient_blocks<T>(s) * s.groups, wanted = (4 * 132 + blocks - 1) / blocks;
  const int most = (rows + 4 * tile_rows - 1) / (4 * tile_rows), chunks = wanted < most ? wanted : most;
  return chunks < 1 ? 1 : chunks < 8 ? chunks : 8;
}

/// Floats that convolution_gradient<T> needs for so many rows.
template <class T> constexpr std::size_t gradient_scratch(ConvolutionShape s, int rows) {
  return static_cast<std::size_t>(gradient_chunks<T>(s, rows)) * static_cast<std::size_t>(s.width) *
         (static_cast<std::size_t>(s.channels()) * static_cast<std::size_t>(s.taps) + 1);
}
/// y = convolution of x, + bias [width]; x, y: [rows, width]. Where T is bf16 and channels a multiple of 8, rows and
/// panels begin at multiples of 16 bytes. Rows after the last sequence are zeros in y; what x holds there is not read.
template <class T>
void convolution(ConvolutionShape s, Tile const* tiles, int tile_count, int /*rows*/, T const* x,
                 T const* forward_panel, float const* bias, T* y, cudaStream_t stream) {
  convolve(s, s.taps / 2, {tiles, tile_count}, x, forward_panel, bias, y, stream);
}
/// dx = the gradient by x; dy, dx: [rows, width], as x and y above.
template <class T>
void convolution_back(ConvolutionShape s, Tile const* tiles, int tile_count, int /*rows*/, T const* dy,
                      T const* back_panel, T* dx, cudaStream_t stream) {
  convolve(s, s.taps - 1 - s.taps / 2, {tiles, tile_count}, dy, back_panel, nullptr, dx, stream);
}
/// dw [width, channels, taps] += the gradient by the effective weight, db [width] += that by the bias. rows: the
/// capacity. scratch: [gradient_scratch<T>].
template <class T>
void convolution_gradient(ConvolutionShape s, Tile const* tiles, int tile_count, int rows, T const* dy, T const* x,
                          float* dw, float* db, float* scratch, cudaStream_t stream) {
  const int chunks = gradient_chunks<T>(s, rows);
  float* const bias_parts = scratch + static_cast<std::ptrdiff_t>(chunks) * s.width * s.channels() * s.taps;
  const ConvolutionTiles all{tiles, tile_count};
  const dim3 blocks(static_cast<unsigned>(gradient_blocks<T>(s)), static_cast<unsigned>(s.groups),
                    static_cast<unsigned>(chunks));
  const auto plain = [&] {
    with_outs(s, [&](auto outs) {
      launch(gradient_plain<T, decltype(outs)::value>, {blocks, convolution_threads}, stream, s, all, dy, x, scratch,
             bias_parts);
    });
  };
  if constexpr (std::is_same_v<T, bf16>) {
    if (gradient_in_fragments<T>(s)) {
      with_constant<most_columns>(columns_each(s), [&](auto columns) {
        launch(gradient_fragments<decltype(columns)::value>,
               {blocks, convolution_threads, static_cast<unsigned>(gradient_bytes(s))}, stream, s, all, dy, x, scratch,
               bias_parts);
      });
    } else {
      plain();
    }
  } else {
    plain();
  }
  launch(add_weight_gradient<>,
         {{static_cast<unsigned>(turned_blocks(s.taps)), static_cast<unsigned>(turned_blocks(s.channels())),
           static_cast<unsigned>(s.width)},
          {turned, turned_step}},
         stream, s, scratch, chunks, dw);
  launch(add_bias_gradient<>,
         {static_cast<unsigned>((s.width + convolution_threads - 1) / convolution_threads), convolution_threads},
         stream, s.width, bias_parts, chunks, db);
}

}  // namespace sotto::cuda::inline SOTTO_ABI
