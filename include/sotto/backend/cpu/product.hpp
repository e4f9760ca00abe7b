// Matrix products with prepacked weights: one micro-kernel in GNU vector extensions, and the blocking around it.
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
      memory_.reset(static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t{64})));
      size_ = n;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
  std::size_t size_ = 0;
};

/// Rows and columns of the micro-kernel's tile: what fits the registers beside two vectors of B and one number of A.
#if defined(__AVX512F__)
inline constexpr int panel_rows = 14;
#else
inline constexpr int panel_rows = 6;
#endif
inline constexpr int panel_columns = 2 * lanes;

/// B [k, n] in panels of panel_columns columns, zeros beyond n; panel j begins at begin + j * k * panel_columns.
struct Panels {
  float const* begin;
  int k, n;
  float const* panel(int j, int row) const {
    return begin + (static_cast<std::ptrdiff_t>(j) * k + row) * panel_columns;
  }
};
constexpr std::size_t panels_size(int k, int n) {
  return static_cast<std::size_t>((n + panel_columns - 1) / panel_columns) * static_cast<std::size_t>(k) * panel_columns;
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
      // a transposition: 8 rows of the panel at a time, so that each cache line of B is read once for them
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
  float const* bias = nullptr;       ///< [n] or none
  Matrix<float const> other{};       ///< residual, or pre-activation
  Matrix<float> before{};            ///< where the pre-activation goes
};

}  // namespace sotto::cpu::inline SOTTO_ABI

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// tile [M, panel_columns] = A [M, k] panel. Row i of A begins at a + i * row; element p at step p.
template <int M, int Step>
SOTTO_NOINLINE void micro(int k, float const* a, std::ptrdiff_t row, float const* panel, float* tile) {
  // one base pointer for three rows: [base], [base + row], [base + 2 row] are addressing modes, 14 pointers are spills
  constexpr int bases = (M + 2) / 3;
  float const* base[bases];
  for (int q = 0; q < bases; ++q) base[q] = a + 3 * q * row;
  Vec sum[M][2]{};
  for (int p = 0; p < k; ++p) {
    const Vec b0 = load(panel), b1 = load(panel + lanes);
    panel += panel_columns;
#pragma GCC unroll 14
    for (int i = 0; i < M; ++i) {
      const float x = Step == 1 ? base[i / 3][(i % 3) * row] : a[i];
      sum[i][0] += x * b0;
      sum[i][1] += x * b1;
    }
    if constexpr (Step == 1)
      for (int q = 0; q < bases; ++q) ++base[q];
    else
      a += Step;
  }
  for (int i = 0; i < M; ++i) {
    store(tile + i * panel_columns, sum[i][0]);
    store(tile + i * panel_columns + lanes, sum[i][1]);
  }
}

template <int Step>
inline void micro_rows(int rows, int k, float const* a, std::ptrdiff_t row, float const* panel, float* tile) {
  if (rows == panel_rows) return micro<panel_rows, Step>(k, a, row, panel, tile);
  // the rows that are left, by halves
  int done = 0;
  const auto step = [&]<int M>() {
    if (rows - done < M) return;
    micro<M, Step>(k, Step == 1 ? a + done * row : a + done, row, panel, tile + done * panel_columns);
    done += M;
  };
  if constexpr (panel_rows > 8) step.template operator()<8>();
  step.template operator()<4>();
  step.template operator()<2>();
  step.template operator()<1>();
}

/// Adds what earlier blocks of k left in `partial`, applies the epilogue if this block is the last, and stores.
inline SOTTO_NOINLINE void finish_tile(float const* tile, int i0, int rows, int j0, int columns, Epilogue const& e,
                                       Matrix<float> c, Matrix<float> partial, bool first, bool last) {
  using Kind = Epilogue::Kind;
  for (int part = 0; part < 2; ++part) {
    const int j = j0 + part * lanes, n = std::min(lanes, columns - part * lanes);
    if (n <= 0) return;
    const Vec bias = last && e.bias != nullptr ? load_part(e.bias + j, n) : Vec{};
    for (int i = 0; i < rows; ++i) {
      Vec v = load(tile + i * panel_columns + part * lanes) + bias;
      if (!first) v += load_part(partial.row(i0 + i) + j, n);
      if (!last) {
        store_part(partial.row(i0 + i) + j, v, n);
        continue;
      }
      switch (e.kind) {
        case Kind::gelu:
          store_part(e.before.row(i0 + i) + j, v, n);
          v = gelu(v);
          break;
        case Kind::add: v += load_part(e.other.row(i0 + i) + j, n); break;
        case Kind::gelu_slope: v *= gelu_slope(load_part(e.other.row(i0 + i) + j, n)); break;
        default: break;
      }
      store_part(c.row(i0 + i) + j, v, n);
    }
  }
}

/// Depth of a block of k, and columns of a block of n: together the panels in use are 256 KiB, so that they stay in a level-2 cache.
inline constexpr int block_depth = 512, block_floats = 64 * 1024;

inline int depth_of(int k) {
  const int blocks = (k + block_depth - 1) / block_depth;
  return blocks == 0 ? 1 : (k + blocks - 1) / blocks;
}
inline int columns_of(int depth) { return std::max(1, block_floats / depth / panel_columns) * panel_columns; }

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// C [m, n] = A [m, k] B, through an epilogue. A's rows may overlap (stride < k): convolutions are products.
inline SOTTO_NOINLINE void product(Matrix<float const> a, Panels const& b, Epilogue const& e, Matrix<float> c) {
  alignas(64) float tile[panel_rows * panel_columns];
  const int depth = detail::depth_of(b.k), width = detail::columns_of(depth);
  const bool adds = e.kind == Epilogue::Kind::accumulate;
  const Matrix<float> partial = e.kind == Epilogue::Kind::gelu ? e.before : c;
  for (int p = 0; p < b.k; p += depth) {
    const int k = std::min(depth, b.k - p);
    const bool first = p == 0 && !adds, last = p + k == b.k;
    for (int n = 0; n < b.n; n += width)
      for (int i = 0; i < a.rows; i += panel_rows) {
        const int rows = std::min(panel_rows, a.rows - i);
        for (int j = n; j < std::min(n + width, b.n); j += panel_columns) {
          detail::micro_rows<1>(rows, k, a.row(i) + p, a.stride, b.panel(j / panel_columns, p), tile);
          detail::finish_tile(tile, i, rows, j, std::min(panel_columns, b.n - j), e, c, partial, first, last);
        }
      }
  }
}

/// dw [out, in] += dy^T x, for dy [rows, out] and x [rows, in], whose rows may overlap.
inline SOTTO_NOINLINE void weight_gradient(Matrix<float const> dy, Matrix<float const> x, Matrix<float> dw,
                                           Workspace& workspace) {
  alignas(64) float tile[panel_rows * panel_columns];
  const int depth = detail::depth_of(dy.rows), width = detail::columns_of(depth);
  const int out = dy.columns, in = x.columns;
  float* const left = workspace.take(static_cast<std::size_t>(depth) * panel_rows + panels_size(depth, std::min(width, in)) + 16);
  float* const right = left + static_cast<std::ptrdiff_t>((depth * panel_rows + 15) / 16 * 16);
  for (int p = 0; p < dy.rows; p += depth) {
    const int k = std::min(depth, dy.rows - p);
    for (int n = 0; n < in; n += width) {
      const int columns = std::min(width, in - n);
      pack(x.row(p) + n, k, columns, x.stride, 1, right);
      const Panels panels{right, k, columns};
      for (int i = 0; i < out; i += panel_rows) {
        const int rows = std::min(panel_rows, out - i);
        for (int t = 0; t < k; ++t) {  // dy^T, so that the micro-kernel reads it in a line
          float const* const from = dy.row(p + t) + i;
          for (int r = 0; r < rows; ++r) left[t * panel_rows + r] = from[r];
        }
        for (int j = 0; j < columns; j += panel_columns) {
          detail::micro_rows<panel_rows>(rows, k, left, 0, panels.panel(j / panel_columns, 0), tile);
          const Epilogue accumulate{Epilogue::Kind::accumulate};
          const Matrix<float> to = dw.slice_columns(n, columns);
          detail::finish_tile(tile, i, rows, j, std::min(panel_columns, columns - j), accumulate, to, to, false, true);
        }
      }
    }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
