// Matrix products with prepacked weights: one micro-kernel in GNU vector extensions, and the
// blocking around it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// Memory that grows to what its user needs and stays: no allocation once it is big enough.
class Workspace {
 public:
  /// At least n floats at a multiple of 64 bytes; what they held is lost.
  float* take(std::size_t n) {
    if (n > size_) {
      memory_.reset();
      memory_.reset(static_cast<float*>(::operator new (n * sizeof(float), std::align_val_t{64})));
      size_ = n;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
  std::size_t size_ = 0;
};

/// Rows and columns of the micro-kernel's tile: what fits the registers beside two vectors of B and
/// one number of A.
#if defined(__AVX512F__)
inline constexpr int panel_rows = 12;  // divides every width that is used; 14 is no faster
#else
inline constexpr int panel_rows = 6;
#endif
inline constexpr int panel_columns = 2 * lanes;

/// B [k, n] in panels of panel_columns columns, zeros beyond n; panel j begins at begin + j * k *
/// panel_columns.
struct Panels {
  float const* begin;
  int k, n;
  float const* panel(int j, int row) const {
    return begin + (static_cast<std::ptrdiff_t>(j) * k + row) * panel_columns;
  }
};
constexpr std::size_t panels_size(int k, int n) {
  return static_cast<std::size_t>((n + panel_columns - 1) / panel_columns) * static_cast<std::size_t>(k) *
         panel_columns;
}
/// Packs B: element (p, j) at b[p * row + j * column].
inline SOTTO_NOINLINE void pack(float const* b, int k, int n, std::ptrdiff_t row, std::ptrdiff_t column, float* to) {
  for (int j = 0; j < n; j += panel_columns) {
    const int width = std::min(panel_columns, n - j);
    if (column == 1) {
      for (int p = 0; p < k; ++p, to += panel_columns) {
        float const* const from = b + p * row + j;
        store(to, load_part(from, std::min(width, lanes)));
        store(to + lanes, width > lanes ? load_part(from + lanes, width - lanes) : Vec{});
      }
    } else {
      // a transposition: 8 rows of the panel at a time, so that each cache line of B is read once
      // for them
      for (int p0 = 0; p0 < k; p0 += 8, to += 8 * panel_columns) {
        const int depth = std::min(8, k - p0);
        for (int c = 0; c < panel_columns; ++c)
          for (int p = 0; p < depth; ++p)
            to[p * panel_columns + c] = c < width ? b[(p0 + p) * row + (j + c) * column] : 0.f;
        if (depth < 8) to -= (8 - depth) * panel_columns;
      }
    }
  }
}

/// What becomes of A B on its way to memory.
struct Epilogue {
  enum class Kind {
    store,       ///< c = ab (+ bias)
    gelu,        ///< before = ab + bias, c = gelu(before)
    add,         ///< c = ab + bias + other
    gelu_slope,  ///< c = ab gelu'(other)
    accumulate   ///< c += ab
  };
  Kind kind = Kind::store;
  float const* bias = nullptr;  ///< [n] or none
  Matrix<float const> other{};  ///< residual, or pre-activation
  Matrix<float> before{};       ///< where the pre-activation goes
};

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// What a micro-kernel multiplies: k steps along A and B.
struct Strip {
  int k;
  float const* a;
  std::ptrdiff_t a_stride;  ///< from row to row of A; where A is transposed, from step to step
  float const* b;
  std::ptrdiff_t b_stride;  ///< from step to step
};

/// tile [M, panel_columns] = A [M, k] B [k, Vectors * lanes]. A transposed lies as [k, M].
template <int M, int Vectors, bool Transposed> SOTTO_NOINLINE void micro(Strip const& strip, float* tile) {
  float const *a = strip.a, *b = strip.b;
  const std::ptrdiff_t a_stride = strip.a_stride, b_stride = strip.b_stride;
  // one base pointer for three rows: [base], [base + stride], [base + 2 stride] are addressing
  // modes, 12 pointers spill
  constexpr int bases = (M + 2) / 3;
  float const* base[bases];
  for (int q = 0; q < bases; ++q) base[q] = a + 3 * q * a_stride;
  // every loop over the sums is unrolled, or they would live in memory
  Vec sum[M][Vectors];
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) sum[i][v] = Vec{};
  for (int p = strip.k; p > 0; --p) {
    Vec right[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) right[v] = load(b + v * lanes);
    b += b_stride;
#pragma GCC unroll 12
    for (int i = 0; i < M; ++i) {
      const float left = Transposed ? a[i] : base[i / 3][(i % 3) * a_stride];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[i][v] += left * right[v];
    }
    if constexpr (Transposed)
      a += a_stride;
    else
      for (int q = 0; q < bases; ++q) ++base[q];
  }
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) store(tile + i * panel_columns + v * lanes, sum[i][v]);
}

template <int Vectors, bool Transposed> inline void micro_rows(int rows, Strip strip, float* tile) {
  const auto step = [&]<int M>() {
    micro<M, Vectors, Transposed>(strip, tile);
    rows -= M;
    strip.a += Transposed ? M : M * strip.a_stride;
    tile += M * panel_columns;
  };
  if (rows == panel_rows) return step.template operator()<panel_rows>();
  while (rows >= 4) step.template operator()<4>();
  if (rows >= 2) step.template operator()<2>();
  if (rows >= 1) step.template operator()<1>();
}

/// A tile of at most panel_rows rows and panel_columns columns; the tile's columns beyond are
/// undefined.
template <bool Transposed> inline void multiply(int rows, int columns, Strip const& strip, float* tile) {
  if (columns > lanes)
    micro_rows<2, Transposed>(rows, strip, tile);
  else
    micro_rows<1, Transposed>(rows, strip, tile);
}

/// Where a tile goes.
struct Place {
  int row, rows, column, columns;
};

/// Fetches the lines of `m` below a tile while the tile is computed.
SOTTO_ALWAYS_INLINE void prefetch(Matrix<float const> m, Place at) {
  for (int i = 0; i < at.rows; ++i)
    for (int j = 0; j < panel_columns; j += 16)
      __builtin_prefetch(m.row(at.row + i) + at.column + std::min(j, at.columns - 1), 1);
}

/// each(i, j, n, v): the first n of the numbers v belong to row i from column j. v = tile + bias +
/// earlier, where given.
template <class Each>
SOTTO_ALWAYS_INLINE void for_vectors(float const* tile, Place at, float const* bias, Matrix<float const> earlier,
                                     Each&& each) {
  for (int part = 0; part < at.columns; part += lanes) {
    const int j = at.column + part, n = at.columns - part;
    const Vec added = bias == nullptr ? Vec{} : load_part(bias + j, n);
    for (int i = at.row; i < at.row + at.rows; ++i, tile += panel_columns) {
      Vec v = load(tile) + added;
      if (earlier.begin != nullptr) v += load_part(earlier.row(i) + j, n);
      each(i, j, n, v);
    }
    tile += lanes - at.rows * panel_columns;
  }
}

/// Stores a tile through an epilogue; `earlier` is what other blocks of k have made of the same
/// place, if any.
inline SOTTO_NOINLINE void finish_tile(float const* tile, Place at, Epilogue const& e, Matrix<float const> earlier,
                                       Matrix<float> c) {
  using Kind = Epilogue::Kind;
  switch (e.kind) {
    case Kind::gelu:
      return for_vectors(tile, at, e.bias, earlier, [&](int i, int j, int n, Vec v) {
        store_part(e.before.row(i) + j, v, n);
        store_part(c.row(i) + j, gelu(v), n);
      });
    case Kind::add:
      return for_vectors(tile, at, e.bias, earlier, [&](int i, int j, int n, Vec v) {
        store_part(c.row(i) + j, v + load_part(e.other.row(i) + j, n), n);
      });
    case Kind::gelu_slope:
      return for_vectors(tile, at, e.bias, earlier, [&](int i, int j, int n, Vec v) {
        store_part(c.row(i) + j, v * gelu_slope(load_part(e.other.row(i) + j, n)), n);
      });
    case Kind::store:
    case Kind::accumulate:
      return for_vectors(tile, at, e.bias, earlier,
                         [&](int i, int j, int n, Vec v) { store_part(c.row(i) + j, v, n); });
  }
}

/// Depths of a block of k and of a block of a gradient's rows; floats of a block of panels, half of
/// a level-2 cache: every processor with AVX-512 has 1 MiB or more.
inline constexpr int block_depth = 512, gradient_depth = 384, block_floats = lanes == 16 ? 128 * 1024 : 64 * 1024;

/// Blocks of about the same depth.
inline int depth_of(int k, int most) {
  const int blocks = std::max(1, (k + most - 1) / most);
  return (k + blocks - 1) / blocks;
}
inline int width_of(int depth) {
  return std::max(1, block_floats / std::max(1, depth) / panel_columns) * panel_columns;
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// C [m, n] = A [m, k] B, through an epilogue. A's rows may overlap (stride < k): convolutions are
/// products.
inline SOTTO_NOINLINE void product(Matrix<float const> a, Panels const& b, Epilogue const& e, Matrix<float> c) {
  using Kind = Epilogue::Kind;
  alignas(64) float tile[panel_rows * panel_columns];
  // rows of A side by side, where they are read often enough: in A they may lie a multiple of 4 KiB
  // apart, and then compete for the same few cache lines
  constexpr int copied_stride = detail::block_depth + 16;
  alignas(64) float copied[panel_rows * copied_stride];
  const int depth = detail::depth_of(b.k, detail::block_depth), width = detail::width_of(depth);
  const Matrix<float> partial = e.kind == Kind::gelu ? e.before : c;
  for (int p = 0; p < b.k; p += depth) {
    const int k = std::min(depth, b.k - p);
    const bool first = p == 0 && e.kind != Kind::accumulate, last = p + k == b.k;
    const Matrix<float const> earlier = first ? Matrix<float const>{} : Matrix<float const>(partial);
    for (int n = 0; n < b.n; n += width) {
      const int columns = std::min(width, b.n - n);
      const bool copies = columns >= 4 * panel_columns;
      constexpr int fetched = (panel_rows + 3) / 4;  // rows a panel
      for (int i = 0; i < a.rows; i += panel_rows) {
        const int rows = std::min(panel_rows, a.rows - i);
        detail::Strip strip{k, a.row(i) + p, a.stride, nullptr, panel_columns};
        if (copies) {
          for (int r = 0; r < rows; ++r)
            std::memcpy(copied + r * copied_stride, a.row(i + r) + p, static_cast<std::size_t>(k) * sizeof(float));
          strip.a = copied;
          strip.a_stride = copied_stride;
        }
        int ahead = panel_rows;  // rows of A are fetched for the next round while this one computes
        for (int j = n; j < n + columns; j += panel_columns) {
          const detail::Place at{i, rows, j, std::min(panel_columns, b.n - j)};
          detail::prefetch(last ? c : partial, at);
          if (last && e.other.begin != nullptr) detail::prefetch(e.other, at);
          if (last && e.kind == Kind::gelu) detail::prefetch(e.before, at);
          if (copies)
            for (int r = 0; r < fetched && i + ahead < a.rows && ahead < 2 * panel_rows; ++r, ++ahead)
              for (int t = 0; t < k; t += 16) __builtin_prefetch(a.row(i + ahead) + p + t, 0, 2);
          strip.b = b.panel(j / panel_columns, p);
          detail::multiply<false>(rows, at.columns, strip, tile);
          if (last)
            detail::finish_tile(tile, at, e, earlier, c);
          else
            detail::finish_tile(tile, at, {}, earlier, partial);
        }
      }
    }
  }
}

/// dw [out, in] += dy^T x, for dy [rows, out] and x [rows, in], whose rows may overlap.
inline SOTTO_NOINLINE void weight_gradient(Matrix<float const> dy, Matrix<float const> x, Matrix<float> dw,
                                           Workspace& workspace) {
  alignas(64) float tile[panel_rows * panel_columns];
  // dy^T, so that the micro-kernel reads it in a line; whole vectors are copied, so a few more than
  // panel_rows
  constexpr int vectors = (panel_rows + lanes - 1) / lanes;
  alignas(64) float left[detail::gradient_depth * panel_rows + vectors * lanes];
  const int depth = detail::depth_of(dy.rows, detail::gradient_depth), width = detail::width_of(depth);
  // what any number of rows needs, so that a later, longer lane allocates nothing
  float* const right =
      workspace.take(std::min(panels_size(detail::gradient_depth, x.columns),
                              static_cast<std::size_t>(detail::block_floats + detail::gradient_depth * panel_columns)));
  for (int p = 0; p < dy.rows; p += depth) {
    const int k = std::min(depth, dy.rows - p);
    for (int n = 0; n < x.columns; n += width) {
      const int columns = std::min(width, x.columns - n);
      pack(x.row(p) + n, k, columns, x.stride, 1, right);
      const Panels panels{right, k, columns};
      for (int i = 0; i < dy.columns; i += panel_rows) {
        const int rows = std::min(panel_rows, dy.columns - i);
        for (int t = 0; t < k; ++t)
          for (int v = 0; v < vectors * lanes; v += lanes)
            if (v < rows) store(left + t * panel_rows + v, load_part(dy.row(p + t) + i + v, dy.columns - i - v));
        for (int j = 0; j < columns; j += panel_columns) {
          const detail::Place at{i, rows, n + j, std::min(panel_columns, columns - j)};
          detail::prefetch(dw, at);
          detail::multiply<true>(rows, at.columns,
                                 {k, left, panel_rows, panels.panel(j / panel_columns, 0), panel_columns}, tile);
          detail::finish_tile(tile, at, {}, dw, dw);
        }
      }
    }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
