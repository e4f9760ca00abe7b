// Grouped "same" convolutions over packed sequences, as products: a window of frames is a row of an
// overlapping view.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include <sotto/backend/cpu/product.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// A grouped convolution: y[t, o] = bias[o] + sum over taps k and channels i of the group of w[o,
/// i, k] x[t + k - taps / 2, i]. For an even number of taps the last output is dropped, so that
/// there are as many frames after as before.
///
/// Groups are narrow (12 or 24 channels), vectors are wide: `together` frames are computed by one
/// row of the product. Its weights are w shifted by one frame for each (a block Toeplitz matrix),
/// so taps + together - 1 taps are multiplied.
struct GroupedConvolution {
  int width, groups, taps;
  constexpr int channels() const { return width / groups; }
  /// Frames computed together: what fills tiles best for the multiplications it adds.
  constexpr int together() const {
    int best = 1;
    double most = 0;
    for (int s = 1; s <= 8; ++s) {
      const int columns = s * channels(), tiles = (columns + lanes - 1) / lanes * lanes;
      const double useful = static_cast<double>(columns) / tiles * taps / (taps + s - 1);
      if (useful > most) {
        most = useful;
        best = s;
      }
    }
    return best;
  }
  constexpr int rows_of_panels() const { return (taps + together() - 1) * channels(); }
  /// Floats of one group's panels, in one direction.
  constexpr std::size_t group_size() const { return panels_size(rows_of_panels(), together() * channels()); }
  constexpr std::size_t panels_floats() const { return 2 * static_cast<std::size_t>(groups) * group_size(); }
};

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// Block Toeplitz weights of one group, [rows_of_panels, together * channels], into panels. tap(o,
/// i, k): the weight.
template <class Tap> SOTTO_NOINLINE void pack_group(GroupedConvolution const& s, Tap&& tap, float* dense, float* to) {
  const int c = s.channels(), together = s.together(), n = together * c;
  std::fill_n(dense, static_cast<std::size_t>(s.rows_of_panels()) * static_cast<std::size_t>(n), 0.f);
  for (int u = 0; u < together; ++u)
    for (int k = 0; k < s.taps; ++k)
      for (int i = 0; i < c; ++i)
        for (int o = 0; o < c; ++o) dense[((k + u) * c + i) * n + u * c + o] = tap(o, i, k);
  pack(dense, s.rows_of_panels(), n, n, 1, to);
}

/// One frame of c channels. Four at a time: for so few, a call of memcpy costs more than the copy.
SOTTO_ALWAYS_INLINE void copy_channels(float const* from, int c, float* to) {
  int i = 0;
  for (; i + 4 <= c; i += 4) std::memcpy(to + i, from + i, 4 * sizeof(float));
  for (; i < c; ++i) to[i] = from[i];
}

/// One group's channels of one sequence, `left` zero frames before and zeros to `frames` in all.
inline SOTTO_NOINLINE void pad_group(Matrix<float const> x, int channel, int c, int left, int frames, float* to) {
  std::fill_n(to, static_cast<std::size_t>(left) * static_cast<std::size_t>(c), 0.f);
  to += left * c;
  for (int t = 0; t < x.rows; ++t, to += c) copy_channels(x.row(t) + channel, c, to);
  std::fill_n(to, static_cast<std::size_t>(frames - left - x.rows) * static_cast<std::size_t>(c), 0.f);
}

/// y = convolution of x with one direction's panels; bias [width] or none.
inline SOTTO_NOINLINE void convolve(GroupedConvolution const& s, Lane<int> const& lane, Matrix<float const> x,
                                    float const* panels, int left, float const* bias, Matrix<float> y,
                                    Workspace& workspace) {
  const int c = s.channels(), together = s.together(), n = together * c;
  const int most = (lane.longest + together - 1) / together;
  const auto padded = static_cast<std::size_t>(most * together + s.taps) * static_cast<std::size_t>(c);
  const auto outs = static_cast<std::size_t>(most) * static_cast<std::size_t>(n);
  float* const window = workspace.take(padded + outs + static_cast<std::size_t>(n));
  float* const out = window + padded;
  float* const biases = out + outs;  // the group's, once for each frame that is computed together
  for (int g = 0; g < s.groups; ++g) {
    Epilogue epilogue;
    if (bias != nullptr) {
      for (int u = 0; u < together; ++u) copy_channels(bias + g * c, c, biases + u * c);
      epilogue.bias = biases;
    }
    const Panels packed{panels + static_cast<std::size_t>(g) * s.group_size(), s.rows_of_panels(), n};
    for (int sequence = 0; sequence < lane.sequences; ++sequence) {
      const int first = lane.offsets[sequence], length = lane.offsets[sequence + 1] - first;
      const int rows = (length + together - 1) / together;
      pad_group(x.slice_rows(first, length), g * c, c, left, rows * together + s.taps - 1, window);
      product({window, rows, s.rows_of_panels(), static_cast<std::ptrdiff_t>(n)}, packed, epilogue, {out, rows, n, n});
      for (int t = 0; t < length; ++t) copy_channels(out + t * c, c, y.row(first + t) + g * c);
    }
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Packs weights [width, channels, taps] for both directions: panels_floats() floats.
inline SOTTO_NOINLINE void pack_convolution(GroupedConvolution const& s, float const* weight, float* to,
                                            Workspace& workspace) {
  const int c = s.channels();
  float* const dense =
      workspace.take(static_cast<std::size_t>(s.rows_of_panels()) * static_cast<std::size_t>(s.together() * c));
  for (int g = 0; g < s.groups; ++g) {
    float const* const w = weight + static_cast<std::ptrdiff_t>(g) * c * c * s.taps;
    const auto at = [&](int o, int i, int k) { return w[(o * c + i) * s.taps + k]; };
    detail::pack_group(s, at, dense, to + static_cast<std::size_t>(g) * s.group_size());
    const auto mirrored = [&](int o, int i, int k) { return at(i, o, s.taps - 1 - k); };
    detail::pack_group(s, mirrored, dense, to + static_cast<std::size_t>(s.groups + g) * s.group_size());
  }
}

/// y = convolution(x) + bias.
inline SOTTO_NOINLINE void convolution(GroupedConvolution const& s, Lane<int> const& lane, Matrix<float const> x,
                                       float const* panels, float const* bias, Matrix<float> y, Workspace& workspace) {
  detail::convolve(s, lane, x, panels, s.taps / 2, bias, y, workspace);
}
/// dx = the gradient by x.
inline SOTTO_NOINLINE void convolution_back(GroupedConvolution const& s, Lane<int> const& lane, Matrix<float const> dy,
                                            float const* panels, Matrix<float> dx, Workspace& workspace) {
  detail::convolve(s, lane, dy, panels + static_cast<std::size_t>(s.groups) * s.group_size(), s.taps - 1 - s.taps / 2,
                   nullptr, dx, workspace);
}
/// dw [width, channels, taps] += the gradient by the weights. Two workspaces: windows, and one
/// group's sums.
inline SOTTO_NOINLINE void convolution_gradient(GroupedConvolution const& s, Lane<int> const& lane,
                                                Matrix<float const> dy, Matrix<float const> x, float* dw,
                                                Workspace& workspace, Workspace& sums) {
  // [channels, taps * channels] = dy^T times the windows of x, one a frame: a window begins c
  // floats after the one before, and the micro-kernel reads it where it lies. One output channel is
  // a row; nothing is multiplied in vain.
  const int c = s.channels(), n = s.taps * c;
  const auto floats = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
  const std::size_t windows = floats(lane.longest + s.taps, c) + panel_columns, outs = floats(lane.longest, c);
  float* const window = workspace.take(windows + outs);
  float* const out = window + windows;
  float* const gradient = sums.take(floats(c, n));
  alignas(64) float tile[panel_rows * panel_columns];
  for (int g = 0; g < s.groups; ++g) {
    std::fill_n(gradient, floats(c, n), 0.f);
    const Matrix<float> sum{gradient, c, n, n};
    for (int sequence = 0; sequence < lane.sequences; ++sequence) {
      const int first = lane.offsets[sequence], length = lane.offsets[sequence + 1] - first;
      // the last tile reads beyond the last window: finite numbers, which it drops
      const int frames = length + s.taps - 1;
      detail::pad_group(x.slice_rows(first, length), g * c, c, s.taps / 2, frames, window);
      std::fill_n(window + floats(frames, c), panel_columns, 0.f);
      detail::pad_group(dy.slice_rows(first, length), g * c, c, 0, length, out);
      for (int j = 0; j < n; j += panel_columns)
        for (int i = 0; i < c; i += panel_rows) {
          const detail::Place at{i, std::min(panel_rows, c - i), j, std::min(panel_columns, n - j)};
          detail::multiply<true>(at.rows, at.columns, {length, out + i, c, window + j, c}, tile);
          detail::finish_tile(tile, at, {}, sum, sum);
        }
    }
    for (int o = 0; o < c; ++o)
      for (int i = 0; i < c; ++i) {
        float* const to = dw + (floats(g * c + o, c) + static_cast<std::size_t>(i)) * static_cast<std::size_t>(s.taps);
        for (int tap = 0; tap < s.taps; ++tap) to[tap] += sum.row(o)[tap * c + i];
      }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
