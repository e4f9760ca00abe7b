// Weight norm over taps: what is multiplied by is g v / |v|, tap by tap (fairseq's positional convolution).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <sotto/backend/cpu/workspace.hpp>
#include <sotto/config.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

// sums[k] = sum over rows of a[row, k] b[row, k], in double; a row at a time, since taps lie side by side.
inline SOTTO_NOINLINE void tap_products(int rows, int taps, float const* a, float const* b, double* sums) {
  std::fill_n(sums, static_cast<std::size_t>(taps), 0.);
  for (int j = 0; j < rows; ++j, a += taps, b += taps)
    for (int k = 0; k < taps; ++k) sums[k] += static_cast<double>(a[k]) * static_cast<double>(b[k]);
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// w = g v / |v| for v, w [rows, taps] and g [taps]; the norm of a tap is over all rows.
inline SOTTO_NOINLINE void weight_norm(int rows, int taps, float const* v, float const* g, float* w,
                                       Workspace& workspace) {
  const auto n = static_cast<std::size_t>(taps);
  double* const squares = workspace.take<double>(2 * n);
  auto* const factors = reinterpret_cast<float*>(squares + n);
  detail::tap_products(rows, taps, v, v, squares);
  for (int k = 0; k < taps; ++k) factors[k] = static_cast<float>(static_cast<double>(g[k]) / std::sqrt(squares[k]));
  for (int j = 0; j < rows; ++j, v += taps, w += taps)
    for (int k = 0; k < taps; ++k) w[k] = factors[k] * v[k];
}

/// dv: the gradient by w on entry, by v on return; the gradient by g is added to dg.
inline SOTTO_NOINLINE void weight_norm_back(int rows, int taps, float const* v, float const* g, float* dv, float* dg,
                                            Workspace& workspace) {
  const auto n = static_cast<std::size_t>(taps);
  double* const squares = workspace.take<double>(3 * n);
  double* const along = squares + n;
  auto* const factors = reinterpret_cast<float*>(along + n);
  float* const backs = factors + n;
  detail::tap_products(rows, taps, v, v, squares);
  detail::tap_products(rows, taps, dv, v, along);
  for (int k = 0; k < taps; ++k) {
    const double length = std::sqrt(squares[k]);
    dg[k] += static_cast<float>(along[k] / length);
    factors[k] = static_cast<float>(static_cast<double>(g[k]) / length);
    backs[k] = static_cast<float>(along[k] / squares[k]);
  }
  for (int j = 0; j < rows; ++j, v += taps, dv += taps)
    for (int k = 0; k < taps; ++k) dv[k] = factors[k] * (dv[k] - backs[k] * v[k]);
}

}  // namespace sotto::cpu::inline SOTTO_ABI
