// What a product of the fake cuBLASLt computes: D = epilogue(alpha op(A) op(B) + beta C), in fp32, each sum in the
// order of k. Matrices lie column after column, as cuBLASLt sees them.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <sotto/core/bf16.hpp>

namespace host_cuda {

/// Numbers in device memory: bf16 or fp32.
struct Numbers {
  char* begin = nullptr;
  bool narrow = false;

  std::size_t size_of_one() const { return narrow ? 2 : 4; }
  float get(std::int64_t i) const {
    if (!narrow) return reinterpret_cast<float const*>(begin)[i];
    return static_cast<float>(reinterpret_cast<sotto::bf16 const*>(begin)[i]);
  }
  void set(std::int64_t i, float x) const {
    if (narrow)
      reinterpret_cast<sotto::bf16*>(begin)[i] = sotto::bf16::of(x);
    else
      reinterpret_cast<float*>(begin)[i] = x;
  }
  Numbers from(std::int64_t i) const { return {begin + i * static_cast<std::int64_t>(size_of_one()), narrow}; }
};

/// The matrices of a batch, `step` numbers apart.
struct Matrices {
  Numbers numbers{};
  std::int64_t rows = 0, columns = 0, leading = 0, step = 0;

  Numbers of(std::int64_t batch) const { return numbers.from(batch * step); }
  /// From the first byte to the end of the last.
  std::size_t extent(std::int64_t batches) const {
    return static_cast<std::size_t>((batches - 1) * step + (columns - 1) * leading + rows) * numbers.size_of_one();
  }
  std::uint64_t bytes(std::int64_t batches) const {
    return static_cast<std::uint64_t>(batches * rows * columns) * numbers.size_of_one();
  }
};

struct Product {
  enum class Activation { none, gelu, gelu_slope };
  enum class Gradient { none, rows_of_d, rows_of_a, columns_of_b };

  Matrices a{}, b{}, c{}, d{}, before{};
  bool transpose_a = false, transpose_b = false, tf32 = false;
  float alpha = 1, beta = 0;
  std::int64_t batches = 1, inner = 0;
  bool adds_bias = false, keeps_before = false;
  Numbers vector{};  ///< the bias, or where its gradient goes
  Activation activation = Activation::none;
  Gradient gradient = Gradient::none;
};

/// GELU in the tanh form, which is cuBLASLt's, and its derivative.
inline constexpr float gelu_scale = .7978845608028654f, gelu_cube = .044715f;  // sqrt(2 / pi)
inline float gelu(float x) { return .5f * x * (1 + std::tanh(gelu_scale * (x + gelu_cube * x * x * x))); }
inline float gelu_slope(float x) {
  const float t = std::tanh(gelu_scale * (x + gelu_cube * x * x * x));
  return .5f * (1 + t) + .5f * x * (1 - t * t) * gelu_scale * (1 + 3 * gelu_cube * x * x);
}

/// To ten bits of mantissa, as tensor cores read fp32.
inline float to_tf32(float x) {
  std::uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  if ((u & 0x7f800000u) != 0x7f800000u) u = (u + 0xfffu + (u >> 13 & 1u)) & ~0x1fffu;
  std::memcpy(&x, &u, sizeof x);
  return x;
}

/// A matrix cut into panels of Width rows (of its transpose: columns), zeros past the last; in a panel, k by k.
template <int Width> class Panels {
 public:
  /// across: what panels cut; (i, k) lies at i * across_step + k * inner_step.
  Panels(Numbers from, std::int64_t across, std::int64_t inner, std::int64_t across_step, std::int64_t inner_step,
         bool tf32)
      : inner_(inner), values_(static_cast<std::size_t>((across + Width - 1) / Width * Width * inner)) {
    for (std::int64_t i = 0; i < across; ++i)
      for (std::int64_t k = 0; k < inner; ++k) {
        const float x = from.get(i * across_step + k * inner_step);
        values_[place(i, k)] = tf32 ? to_tf32(x) : x;
      }
  }
  float const* panel(std::int64_t first) const { return values_.data() + first * inner_; }
  float sum_over_inner(std::int64_t i) const {
    float sum = 0;
    for (std::int64_t k = 0; k < inner_; ++k) sum += values_[place(i, k)];
    return sum;
  }

 private:
  std::size_t place(std::int64_t i, std::int64_t k) const {
    return static_cast<std::size_t>(i / Width * Width * inner_ + k * Width + i % Width);
  }
  std::int64_t inner_;
  std::vector<float> values_;
};

inline constexpr int tile_rows = 16, tile_columns = 8;
using Lanes = float __attribute__((vector_size(4 * tile_rows)));

/// tile [columns][rows] = a panel of A times a panel of B. Private memory only: no checker need see it.
__attribute__((no_sanitize("thread"), no_sanitize("address"), noinline)) inline void multiply_panels(
    float const* a, float const* b, std::int64_t inner, float (&tile)[tile_columns][tile_rows]) {
  Lanes sums[tile_columns] = {};
  for (std::int64_t k = 0; k < inner; ++k) {
    Lanes row;
    std::memcpy(&row, a + k * tile_rows, sizeof row);  // not at a multiple of its size
    for (int j = 0; j < tile_columns; ++j) sums[j] += row * b[k * tile_columns + j];
  }
  for (int j = 0; j < tile_columns; ++j)
    for (int i = 0; i < tile_rows; ++i) tile[j][i] = sums[j][i];
}

/// What becomes of the sum for (row, column) of one matrix of the batch; the result before it is rounded.
inline float finish(Product const& p, std::int64_t batch, std::int64_t row, std::int64_t column, float sum) {
  float x = p.alpha * sum;
  if (p.beta != 0) x += p.beta * p.c.of(batch).get(column * p.c.leading + row);
  if (p.adds_bias) x += p.vector.get(row);
  const std::int64_t at = column * p.before.leading + row;
  if (p.keeps_before) p.before.of(batch).set(at, x);
  if (p.activation == Product::Activation::gelu) x = gelu(x);
  if (p.activation == Product::Activation::gelu_slope) x *= gelu_slope(p.before.of(batch).get(at));
  p.d.of(batch).set(column * p.d.leading + row, x);
  return x;
}

inline void multiply(Product const& p) {
  const std::int64_t rows = p.d.rows, columns = p.d.columns;
  for (std::int64_t batch = 0; batch < p.batches; ++batch) {
    const Panels<tile_rows> a(p.a.of(batch), rows, p.inner, p.transpose_a ? p.a.leading : 1,
                              p.transpose_a ? 1 : p.a.leading, p.tf32);
    const Panels<tile_columns> b(p.b.of(batch), columns, p.inner, p.transpose_b ? 1 : p.b.leading,
                                 p.transpose_b ? p.b.leading : 1, p.tf32);
    std::vector<float> row_sums(static_cast<std::size_t>(rows));
    float tile[tile_columns][tile_rows];
    for (std::int64_t j0 = 0; j0 < columns; j0 += tile_columns)
      for (std::int64_t i0 = 0; i0 < rows; i0 += tile_rows) {
        multiply_panels(a.panel(i0), b.panel(j0), p.inner, tile);
        for (int j = 0; j < tile_columns && j0 + j < columns; ++j)
          for (int i = 0; i < tile_rows && i0 + i < rows; ++i)
            row_sums[static_cast<std::size_t>(i0 + i)] += finish(p, batch, i0 + i, j0 + j, tile[j][i]);
      }
    if (p.gradient == Product::Gradient::rows_of_d)
      for (std::int64_t i = 0; i < rows; ++i) p.vector.set(i, row_sums[static_cast<std::size_t>(i)]);
    if (p.gradient == Product::Gradient::rows_of_a)
      for (std::int64_t i = 0; i < rows; ++i) p.vector.set(i, a.sum_over_inner(i));
    if (p.gradient == Product::Gradient::columns_of_b)
      for (std::int64_t j = 0; j < columns; ++j) p.vector.set(j, b.sum_over_inner(j));
  }
}

}  // namespace host_cuda
