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
  /// Units of one group's panels, in one direction.
  template <class Kernel> constexpr std::size_t group_size() const {
    return cpu::panels_size<Kernel>(rows_of_panels(), together() * channels());
  }
  template <class Kernel> constexpr std::size_t panels_size() const {
    return 2 * static_cast<std::size_t>(groups) * group_size<Kernel>();
  }
};

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// Block Toeplitz weights of one group, [rows_of_panels, together * channels], into panels. tap(o,
/// i, k): the weight.
template <class Kernel, class Tap>
SOTTO_NOINLINE void pack_group(GroupedConvolution const& s, Tap&& tap, float* dense, typename Kernel::Unit* to) {
  const int c = s.channels(), together = s.together(), n = together * c;
  std::fill_n(dense, static_cast<std::size_t>(s.rows_of_panels()) * static_cast<std::size_t>(n), 0.f);
  for (int u = 0; u < together; ++u)
    for (int k = 0; k < s.taps; ++k)
      for (int i = 0; i < c; ++i)
        for (int o = 0; o < c; ++o) dense[((k + u) * c + i) * n + u * c + o] = tap(o, i, k);
  pack<Kernel>(dense, s.rows_of_panels(), n, n, 1, to);
}

/// One frame of c channels. Four at a time: for so few, a call of memcpy costs more than the copy.
template <class E> SOTTO_ALWAYS_INLINE void copy_channels(E const* from, int c, E* to) {
  int i = 0;
  for (; i + 4 <= c; i += 4) std::memcpy(to + i, from + i, 4 * sizeof(E));
  for (; i < c; ++i) to[i] = from[i];
}

/// One group's channels of one sequence, `left` zero frames before and zeros to `frames` in all.
template <class E> SOTTO_NOINLINE void pad_group(Matrix<E const> x, int channel, int c, int left, int frames, E* to) {
  std::fill_n(to, static_cast<std::size_t>(left) * static_cast<std::size_t>(c), E{});
  to += left * c;
  for (int t = 0; t < x.rows; ++t, to += c) copy_channels(x.row(t) + channel, c, to);
  std::fill_n(to, static_cast<std::size_t>(frames - left - x.rows) * static_cast<std::size_t>(c), E{});
}

/// y = convolution of x with one direction's panels; bias [width] or none. Two workspaces: windows, and the product's.
template <class Kernel>
SOTTO_NOINLINE void convolve(GroupedConvolution const& s, Lane<int> const& lane,
                             Matrix<typename Kernel::Number const> x, typename Kernel::Unit const* panels, int left,
                             float const* bias, Matrix<typename Kernel::Number> y, Workspace& windows,
                             Workspace& workspace) {
  using Number = typename Kernel::Number;
  const int c = s.channels(), together = s.together(), n = together * c;
  const int most = (lane.longest + together - 1) / together;
  const auto whole = [](int numbers) { return static_cast<std::size_t>(numbers + 31) / 32 * 32; };
  const std::size_t padded = whole((most * together + s.taps) * c), outs = whole(most * n);
  Number* const window = windows.take<Number>(padded + outs + whole(n) * sizeof(float) / sizeof(Number));
  Number* const out = window + padded;
  auto* const biases = reinterpret_cast<float*>(out + outs);  // the group's, once for each frame computed together
  for (int g = 0; g < s.groups; ++g) {
    Epilogue<Number> epilogue;
    if (bias != nullptr) {
      for (int u = 0; u < together; ++u) copy_channels(bias + g * c, c, biases + u * c);
      epilogue.bias = biases;
    }
    const Panels<Kernel> packed{panels + static_cast<std::size_t>(g) * s.group_size<Kernel>(), s.rows_of_panels(), n};
    for (int sequence = 0; sequence < lane.sequences; ++sequence) {
      const int first = lane.offsets[sequence], length = lane.offsets[sequence + 1] - first;
      const int rows = (length + together - 1) / together;
      pad_group<Number>(x.slice_rows(first, length), g * c, c, left, rows * together + s.taps - 1, window);
      product<Kernel>({window, rows, s.rows_of_panels(), static_cast<std::ptrdiff_t>(n)}, packed, epilogue,
                      {out, rows, n, n}, workspace);
      for (int t = 0; t < length; ++t) copy_channels(out + t * c, c, y.row(first + t) + g * c);
    }
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Packs weights [width, channels, taps] for both directions: s.panels_size<Kernel>() units.
template <class Kernel>
SOTTO_NOINLINE void pack_convolution(GroupedConvolution const& s, float const* weight, typename Kernel::Unit* to,
                                     Workspace& workspace) {
  const int c = s.channels();
  float* const dense =
      workspace.take<float>(static_cast<std::size_t>(s.rows_of_panels()) * static_cast<std::size_t>(s.together() * c));
  const std::size_t size = s.group_size<Kernel>();
  for (int g = 0; g < s.groups; ++g) {
    float const* const w = weight + static_cast<std::ptrdiff_t>(g) * c * c * s.taps;
    const auto at = [&](int o, int i, int k) { return w[(o * c + i) * s.taps + k]; };
    detail::pack_group<Kernel>(s, at, dense, to + static_cast<std::size_t>(g) * size);
    const auto mirrored = [&](int o, int i, int k) { return at(i, o, s.taps - 1 - k); };
    detail::pack_group<Kernel>(s, mirrored, dense, to + static_cast<std::size_t>(s.groups + g) * size);
  }
}

/// y = convolution(x) + bias.
template <class Kernel>
void convolution(GroupedConvolution const& s, Lane<int> const& lane, Matrix<typename Kernel::Number const> x,
                 typename Kernel::Unit const* panels, float const* bias, Matrix<typename Kernel::Number> y,
                 Workspace& windows, Workspace& workspace) {
  detail::convolve<Kernel>(s, lane, x, panels, s.taps / 2, bias, y, windows, workspace);
}
/// dx = the gradient by x.
template <class Kernel>
void convolution_back(GroupedConvolution const& s, Lane<int> const& lane, Matrix<typename Kernel::Number const> dy,
                      typename Kernel::Unit const* panels, Matrix<typename Kernel::Number> dx, Workspace& windows,
                      Workspace& workspace) {
  detail::convolve<Kernel>(s, lane, dy, panels + static_cast<std::size_t>(s.groups) * s.group_size<Kernel>(),
                           s.taps - 1 - s.taps / 2, nullptr, dx, windows, workspace);
}
/// dw [width, channels, taps] += the gradient by the weights. Two workspaces: windows, and one
/// group's sums.
template <class Kernel>
SOTTO_NOINLINE void convolution_gradient(GroupedConvolution const& s, Lane<int> const& lane,
                                         Matrix<typename Kernel::Number const> dy,
                                         Matrix<typename Kernel::Number const> x, float* dw, Workspace& workspace,
                                         Workspace& sums) {
  // [channels, taps * channels] = dy^T times the windows of x, one a frame: a window begins c
  // numbers after the one before, and the micro-kernel reads it where it lies. One output channel is
  // a row; nothing is multiplied in vain.
  using Number = typename Kernel::Number;
  using Unit = typename Kernel::Unit;
  [[maybe_unused]] const typename Kernel::Session session;
  const int c = s.channels(), n = s.taps * c;
  const auto numbers = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
  // frames are rounded up to whole steps, and the last tile reads beyond the last window: zeros, which add nothing
  constexpr int most = Kernel::gradient_units * Kernel::depth, whole = Kernel::step * Kernel::depth;
  const auto padded = [&](int length) { return numbers((length + whole - 1) / whole * whole + s.taps + 1, c) + 64; };
  Unit* const units = workspace.take<Unit>((Kernel::depth == 1 ? 1 : 2) * padded(lane.longest));
  Number* const window =
      Kernel::depth == 1 ? reinterpret_cast<Number*>(units) : reinterpret_cast<Number*>(units + padded(lane.longest));
  float* const gradient = sums.take<float>(numbers(c, n));
  alignas(64) float tile[Kernel::rows * panel_columns];
  alignas(64) typename Kernel::Left left[Kernel::left_size];
  for (int g = 0; g < s.groups; ++g) {
    std::fill_n(gradient, numbers(c, n), 0.f);
    const Matrix<float> sum{gradient, c, n, n};
    for (int sequence = 0; sequence < lane.sequences; ++sequence) {
      const int first = lane.offsets[sequence], length = lane.offsets[sequence + 1] - first;
      const int frames = length + s.taps - 1;
      const std::size_t size = padded(length);
      detail::pad_group<Number>(x.slice_rows(first, length), g * c, c, s.taps / 2, frames, window);
      std::fill(window + numbers(frames, c), window + size, Number{});
      if constexpr (Kernel::depth > 1)  // each frame with the one after it
        for (std::size_t q = 0; q < size; q += lanes) {
          const int present = static_cast<int>(std::min<std::size_t>(lanes, size - q));
          const auto row = Kernel::unit_row(window + q, q + numbers(c, 1) + lanes <= size ? c : 0, 2, present);
          std::memcpy(units + q, &row, static_cast<std::size_t>(present) * sizeof(Unit));
        }
      for (int p = 0; p < length; p += most) {
        const int k = std::min(most, length - p);
        for (int i = 0; i < c; i += Kernel::rows) {
          const int rows = std::min(Kernel::rows, c - i), column = g * c + i;
          Kernel::copy_columns(dy.row(first + p) + column, dy.stride, k, rows, dy.columns - column, left);
          for (int j = 0; j < n; j += panel_columns) {
            const detail::Place at{i, rows, j, std::min(panel_columns, n - j)};
            const std::ptrdiff_t begin = static_cast<std::ptrdiff_t>(p) * c + j;
            Kernel::multiply_transposed(rows, at.columns,
                                        {units_of<Kernel>(k), left, Kernel::left_stride, units + begin,
                                         static_cast<std::ptrdiff_t>(Kernel::depth) * c},
                                        tile, panel_columns);
            detail::finish_tile<float>(tile, at, {.kind = Epilogue<float>::Kind::accumulate}, {}, sum);
          }
        }
      }
    }
    for (int o = 0; o < c; ++o)
      for (int i = 0; i < c; ++i) {
        float* const to = dw + (numbers(g * c + o, c) + static_cast<std::size_t>(i)) * static_cast<std::size_t>(s.taps);
        for (int tap = 0; tap < s.taps; ++tap) to[tap] += sum.row(o)[tap * c + i];
      }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
