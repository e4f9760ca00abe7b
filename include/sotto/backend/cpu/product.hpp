// Matrix products with prepacked weights: the blocking around a kernel (fma.hpp, pairs.hpp, tiles.hpp), and what
// becomes of a product on its way to memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include <sotto/backend/cpu/fma.hpp>
#include <sotto/backend/cpu/pairs.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/backend/cpu/tiles.hpp>
#include <sotto/backend/cpu/workspace.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// What activations of E are multiplied by.
template <class E> using KernelFor = std::conditional_t<std::is_same_v<E, float>, Fma, BestPairs>;

/// Units that k numbers take.
template <class Kernel> constexpr int units_of(int k) {
  const int units = (k + Kernel::depth - 1) / Kernel::depth;
  return (units + Kernel::step - 1) / Kernel::step * Kernel::step;
}

/// B [k, n] in panels of panel_columns columns, zeros beyond n; panel j begins at begin + j * units * panel_columns.
template <class Kernel> struct Panels {
  typename Kernel::Unit const* begin;
  int k, n;
  int units() const { return units_of<Kernel>(k); }
  typename Kernel::Unit const* panel(int j, int unit) const {
    return begin + (static_cast<std::ptrdiff_t>(j) * units() + unit) * panel_columns;
  }
};
/// Units of all panels.
template <class Kernel> constexpr std::size_t panels_size(int k, int n) {
  return static_cast<std::size_t>((n + panel_columns - 1) / panel_columns) *
         static_cast<std::size_t>(units_of<Kernel>(k)) * panel_columns;
}
/// Packs B: element (p, j) at b[p * row + j * column]; one of row and column is 1.
template <class Kernel, class Source>
SOTTO_NOINLINE void pack(Source const* b, int k, int n, std::ptrdiff_t row, std::ptrdiff_t column,
                         typename Kernel::Unit* to) {
  const int units = units_of<Kernel>(k);
  for (int j = 0; j < n; j += panel_columns) {
    const int width = std::min(panel_columns, n - j);
    if (column == 1) {
      for (int u = 0; u < units; ++u, to += panel_columns) {
        const int p = u * Kernel::depth;
        for (int half = 0; half < panel_columns; half += lanes) {
          const auto row_of_units = Kernel::unit_row(b + p * row + j + half, row, k - p, width - half);
          std::memcpy(to + half, &row_of_units, sizeof row_of_units);
        }
      }
    } else {
      for (int u = 0; u < units; u += lanes, to += lanes * panel_columns)  // squares of lanes x lanes, transposed
        for (int half = 0; half < panel_columns; half += lanes) {
          const int p = u * Kernel::depth;
          VecBits square[lanes];
          for (int c = 0; c < lanes; ++c)
            square[c] = half + c < width ? Kernel::units(b + p * row + (j + half + c) * column, k - p) : VecBits{};
          transpose(square);
          for (int i = 0; i < std::min(lanes, units - u); ++i)
            std::memcpy(to + i * panel_columns + half, &square[i], sizeof square[i]);
        }
      to -= (units + lanes - 1) / lanes * lanes * panel_columns - units * panel_columns;
    }
  }
}

/// What becomes of A B on its way to memory of E.
template <class E> struct Epilogue {
  enum class Kind {
    store,       ///< c = ab (+ bias)
    gelu,        ///< before = ab + bias, c = gelu(before)
    add,         ///< c = ab + bias + other
    gelu_slope,  ///< c = ab gelu'(other)
    accumulate   ///< c += ab
  };
  Kind kind = Kind::store;
  float const* bias = nullptr;  ///< [n] or none
  Matrix<E const> other{};      ///< residual, or pre-activation
  Matrix<E> before{};           ///< where the pre-activation goes
};

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// Where a tile goes.
struct Place {
  int row, rows, column, columns;
};

/// Fetches the lines of `m` below a tile while the tile is computed.
template <class E> SOTTO_ALWAYS_INLINE void prefetch(Matrix<E> m, Place at) {
  constexpr int line = 64 / sizeof(E);
  for (int i = 0; i < at.rows; ++i)
    for (int j = 0; j < panel_columns; j += line)
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
    float const* from = tile + part;
    for (int i = at.row; i < at.row + at.rows; ++i, from += panel_columns) {
      Vec v = load(from) + added;
      if (earlier.begin != nullptr) v += load_part(earlier.row(i) + j, n);
      each(i, j, n, v);
    }
  }
}

/// Stores a tile through an epilogue; `earlier` is what other blocks of k have made of the same
/// place, if any.
template <class E>
SOTTO_NOINLINE void finish_tile(float const* tile, Place at, Epilogue<E> const& e, Matrix<float const> earlier,
                                Matrix<E> c) {
  using Kind = typename Epilogue<E>::Kind;
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
    case Kind::accumulate:
      return for_vectors(tile, at, e.bias, earlier, [&](int i, int j, int n, Vec v) {
        store_part(c.row(i) + j, v + load_part(c.row(i) + j, n), n);
      });
    case Kind::store:
      return for_vectors(tile, at, e.bias, earlier,
                         [&](int i, int j, int n, Vec v) { store_part(c.row(i) + j, v, n); });
  }
}

/// Units of a block of panels, half of a level-2 cache: every processor with AVX-512 has 1 MiB or more.
inline constexpr int block_units = lanes == 16 ? 128 * 1024 : 64 * 1024;

/// Blocks of about the same depth, a multiple of the kernel's step.
template <class Kernel> inline int depth_of(int units, int most) {
  const int blocks = std::max(1, (units + most - 1) / most);
  return ((units + blocks - 1) / blocks + Kernel::step - 1) / Kernel::step * Kernel::step;
}
inline int width_of(int depth) { return std::max(1, block_units / std::max(1, depth) / panel_columns) * panel_columns; }

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// C [m, n] = A [m, k] B, through an epilogue. A's rows may overlap (stride < k): convolutions are
/// products.
template <class Kernel>
SOTTO_NOINLINE void product(Matrix<typename Kernel::Number const> a, Panels<Kernel> const& b,
                            Epilogue<typename Kernel::Number> const& e, Matrix<typename Kernel::Number> c,
                            Workspace& workspace) {
  using Number = typename Kernel::Number;
  using Left = typename Kernel::Left;
  using Kind = typename Epilogue<Number>::Kind;
  constexpr bool floats = std::is_same_v<Number, float>;
  [[maybe_unused]] const typename Kernel::Session session;
  alignas(64) float tile[Kernel::rows * panel_columns];
  // rows of A side by side, where they are read often enough: in A they may lie a multiple of 4 KiB
  // apart, and then compete for the same few cache lines
  constexpr int copied_stride = Kernel::most_units + 16;
  alignas(64) Left copied[Kernel::rows * copied_stride];
  const int units = b.units(), depth = detail::depth_of<Kernel>(units, Kernel::most_units),
            width = detail::width_of(depth);
  // what earlier blocks of k have summed: where the result goes, if that keeps a float's precision
  Matrix<float> partial{nullptr, a.rows, b.n, b.n};
  if constexpr (floats) partial = e.kind == Kind::gelu ? e.before : e.kind == Kind::accumulate ? partial : c;
  if (partial.begin == nullptr && depth < units)
    partial.begin = workspace.take<float>(static_cast<std::size_t>(a.rows) * static_cast<std::size_t>(b.n));
  for (int u = 0; u < units; u += depth) {
    const int count = std::min(depth, units - u), p = u * Kernel::depth, k = std::min(count * Kernel::depth, b.k - p);
    const bool last = u + count == units;
    const Matrix<float const> earlier = u == 0 ? Matrix<float const>{} : Matrix<float const>(partial);
    for (int n = 0; n < b.n; n += width) {
      const int columns = std::min(width, b.n - n);
      const bool copies = Kernel::copies || columns >= 4 * panel_columns;
      constexpr int fetched = (Kernel::rows + 3) / 4;  // rows a panel
      for (int i = 0; i < a.rows; i += Kernel::rows) {
        const int rows = std::min(Kernel::rows, a.rows - i);
        detail::Strip<Left, typename Kernel::Unit> strip{count, copied, copied_stride, nullptr, panel_columns};
        if (copies) {
          for (int r = 0; r < rows; ++r) Kernel::copy_row(a.row(i + r) + p, k, copied + r * copied_stride);
        } else if constexpr (!Kernel::copies) {
          strip.a = a.row(i) + p;
          strip.a_stride = a.stride;
        }
        int ahead = Kernel::rows;  // rows of A are fetched for the next round while this one computes
        for (int j = n; j < n + columns; j += panel_columns) {
          const detail::Place at{i, rows, j, std::min(panel_columns, b.n - j)};
          if (last) {
            detail::prefetch(c, at);
            if (e.other.begin != nullptr) detail::prefetch(e.other, at);
            if (e.kind == Kind::gelu) detail::prefetch(e.before, at);
          } else {
            detail::prefetch(partial, at);
          }
          if (copies)
            for (int r = 0; r < fetched && i + ahead < a.rows && ahead < 2 * Kernel::rows; ++r, ++ahead)
              for (int t = 0; t < k; t += 64 / static_cast<int>(sizeof(Number)))
                __builtin_prefetch(a.row(i + ahead) + p + t, 0, 2);
          strip.b = b.panel(j / panel_columns, u);
          Kernel::multiply(rows, at.columns, strip, tile, panel_columns);
          if (last)
            detail::finish_tile<Number>(tile, at, e, earlier, c);
          else
            detail::finish_tile<float>(tile, at, {}, earlier, partial);
        }
      }
    }
  }
}

/// dw [out, in] += dy^T x, for dy [rows, out] and x [rows, in], whose rows may overlap.
template <class Kernel>
SOTTO_NOINLINE void weight_gradient(Matrix<typename Kernel::Number const> dy, Matrix<typename Kernel::Number const> x,
                                    Matrix<float> dw, Workspace& workspace) {
  using Unit = typename Kernel::Unit;
  [[maybe_unused]] const typename Kernel::Session session;
  alignas(64) float tile[Kernel::rows * panel_columns];
  // dy^T, so that the micro-kernel reads it in a line; whole vectors are copied, so a few more than
  // rows
  alignas(64) typename Kernel::Left left[Kernel::left_size];
  const int depth = detail::depth_of<Kernel>(units_of<Kernel>(dy.rows), Kernel::gradient_units) * Kernel::depth;
  const int width = detail::width_of(depth / Kernel::depth);
  // what any number of rows needs, so that a later, longer lane allocates nothing
  constexpr int most = Kernel::gradient_units * Kernel::depth;
  Unit* const right = workspace.take<Unit>(
      std::min(panels_size<Kernel>(most, x.columns),
               static_cast<std::size_t>(detail::block_units + Kernel::gradient_units * panel_columns)));
  for (int p = 0; p < dy.rows; p += depth) {
    const int k = std::min(depth, dy.rows - p);
    for (int n = 0; n < x.columns; n += width) {
      const int columns = std::min(width, x.columns - n);
      pack<Kernel>(x.row(p) + n, k, columns, x.stride, 1, right);
      const Panels<Kernel> panels{right, k, columns};
      for (int i = 0; i < dy.columns; i += Kernel::rows) {
        const int rows = std::min(Kernel::rows, dy.columns - i);
        Kernel::copy_columns(dy.row(p) + i, dy.stride, k, rows, dy.columns - i, left);
        for (int j = 0; j < columns; j += panel_columns) {
          const detail::Place at{i, rows, n + j, std::min(panel_columns, columns - j)};
          detail::prefetch(dw, at);
          Kernel::multiply_transposed(
              rows, at.columns,
              {panels.units(), left, Kernel::left_stride, panels.panel(j / panel_columns, 0), panel_columns}, tile,
              panel_columns);
          detail::finish_tile<float>(tile, at, {.kind = Epilogue<float>::Kind::accumulate}, {}, dw);
        }
      }
    }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
