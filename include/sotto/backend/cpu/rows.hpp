// Operations on rows on the CPU: norms, the slope of GELU, gathers and sums.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

// Calls body(j, count) over a row: whole vectors first, then what is left of it (count < lanes).
template <class Body> SOTTO_ALWAYS_INLINE void over_columns(int columns, Body body) {
  const int whole = columns - columns % lanes;
  for (int j = 0; j < whole; j += lanes) body(j, std::integral_constant<int, lanes>{});
  if (whole < columns) body(whole, columns - whole);
}
template <class E> SOTTO_ALWAYS_INLINE Vec get(E const* p, std::integral_constant<int, lanes>) { return load(p); }
template <class E> SOTTO_ALWAYS_INLINE Vec get(E const* p, int count) { return load_part(p, count); }  // zeros beyond
template <class E> SOTTO_ALWAYS_INLINE void put(E* p, Vec v, std::integral_constant<int, lanes>) { store(p, v); }
template <class E> SOTTO_ALWAYS_INLINE void put(E* p, Vec v, int count) { store_part(p, v, count); }

template <class From, class To> SOTTO_ALWAYS_INLINE void add_row(From const* from, To* to, int columns) {
  over_columns(columns, [&](int j, auto n) { put(to + j, get(to + j, n) + get(from + j, n), n); });
}

template <class E> SOTTO_ALWAYS_INLINE float dot_row(E const* a, E const* b, int columns) {
  Vec sum{};
  over_columns(columns, [&](int j, auto n) { sum += get(a + j, n) * get(b + j, n); });
  return sum_of(sum);
}

inline constexpr float smallest_norm = 1e-8f;  // PyTorch's cosine_similarity

// Backward of layer norm over `Count` rows at once, so that the sums over rows are read and written
// once for them all.
template <int Count, class E>
SOTTO_ALWAYS_INLINE void layer_norm_back_rows(int i, Matrix<E const> dy, Matrix<E const> x, float const* gain,
                                              Matrix<float const> statistics, Matrix<E> dx, float* d_gain,
                                              float* d_bias, bool accumulate) {
  Vec along[Count]{}, across[Count]{};  // sums of gain * dy and of gain * dy * normalised x
  float mean[Count], inverse[Count];
  for (int r = 0; r < Count; ++r) {
    mean[r] = statistics.row(i + r)[0];
    inverse[r] = statistics.row(i + r)[1];
  }
  over_columns(x.columns, [&](int j, auto n) {
    Vec gains = get(gain + j, n), sum = get(d_bias + j, n), product = get(d_gain + j, n);
    for (int r = 0; r < Count; ++r) {
      const Vec d = get(dy.row(i + r) + j, n), normal = (get(x.row(i + r) + j, n) - mean[r]) * inverse[r];
      sum += d;
      product += d * normal;
      along[r] += d * gains;
      across[r] += d * gains * normal;
    }
    put(d_bias + j, sum, n);
    put(d_gain + j, product, n);
  });
  for (int r = 0; r < Count; ++r) {
    const float a = sum_of(along[r]) / static_cast<float>(x.columns),
                b = sum_of(across[r]) / static_cast<float>(x.columns);
    E const *d = dy.row(i + r), *in = x.row(i + r);
    E* out = dx.row(i + r);
    auto slope = [&](int j, auto n) {
      const Vec normal = (get(in + j, n) - mean[r]) * inverse[r];
      return (get(d + j, n) * get(gain + j, n) - a - normal * b) * inverse[r];
    };
    over_columns(x.columns,
                 [&](int j, auto n) { put(out + j, accumulate ? get(out + j, n) + slope(j, n) : slope(j, n), n); });
  }
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// y = (x - mean) / deviation * gain + bias, row by row, deviation = sqrt(variance + eps). x, y:
/// [rows, width], y may be x; gain, bias: [width]; statistics: [rows, 2], mean and 1 / deviation,
/// for layer_norm_back().
template <class E>
SOTTO_NOINLINE void layer_norm(In<E> x, Array<float const> gain, Array<float const> bias, float eps, Matrix<E> y,
                               Matrix<float> statistics) {
  using namespace detail;
  const float share = 1.0f / static_cast<float>(x.columns);
  for (int i = 0; i < x.rows; ++i) {
    E const* in = x.row(i);
    E* out = y.row(i);
    Vec sum{};
    over_columns(x.columns, [&](int j, auto n) { sum += get(in + j, n); });
    const float mean = sum_of(sum) * share;
    // Squares of the differences, in a second pass: sum(x^2) - mean^2 would lose rows far from
    // zero.
    Vec square{};
    const int whole = x.columns - x.columns % lanes;
    for (int j = 0; j < whole; j += lanes) {
      const Vec d = load(in + j) - mean;
      square += d * d;
    }
    float squares = sum_of(square);
    for (int j = whole; j < x.columns; ++j) {
      const float d = static_cast<float>(in[j]) - mean;
      squares += d * d;
    }
    const float inverse = 1.0f / std::sqrt(squares * share + eps);
    over_columns(x.columns, [&](int j, auto n) {
      put(out + j, (get(in + j, n) - mean) * inverse * get(gain.begin + j, n) + get(bias.begin + j, n), n);
    });
    statistics.row(i)[0] = mean;
    statistics.row(i)[1] = inverse;
  }
}

/// Backward of layer_norm(): d_gain and d_bias [width] are added to, dx [rows, width] is added to
/// or (accumulate false) overwritten. dx may be dy unless it accumulates; x is the input of the
/// forward pass, statistics its [rows, 2].
template <class E>
SOTTO_NOINLINE void layer_norm_back(In<E> dy, In<E> x, Array<float const> gain, Matrix<float const> statistics,
                                    Matrix<E> dx, Array<float> d_gain, Array<float> d_bias, bool accumulate) {
  int i = 0;
  for (; i + 4 <= x.rows; i += 4)
    detail::layer_norm_back_rows<4, E>(i, dy, x, gain.begin, statistics, dx, d_gain.begin, d_bias.begin, accumulate);
  for (; i < x.rows; ++i)
    detail::layer_norm_back_rows<1, E>(i, dy, x, gain.begin, statistics, dx, d_gain.begin, d_bias.begin, accumulate);
}

/// y = x / max(|x|, 1e-8), row by row (PyTorch's cosine_similarity). x, y: [rows, width], y may be
/// x; inverse_norms: [rows], for normalise_rows_back().
template <class E> SOTTO_NOINLINE void normalise_rows(In<E> x, Matrix<E> y, Array<float> inverse_norms) {
  using namespace detail;
  for (int i = 0; i < x.rows; ++i) {
    E const* in = x.row(i);
    E* out = y.row(i);
    const float inverse = 1.0f / std::max(std::sqrt(dot_row(in, in, x.columns)), smallest_norm);
    over_columns(x.columns, [&](int j, auto n) { put(out + j, get(in + j, n) * inverse, n); });
    inverse_norms.begin[i] = inverse;
  }
}

/// Backward of normalise_rows(): dx = (dy - y (y . dy)) / |x|. A row shorter than 1e-8 was divided
/// by a constant, so that nothing is subtracted there. y is what the forward pass gave; dx may be
/// dy.
template <class E>
SOTTO_NOINLINE void normalise_rows_back(In<E> dy, In<E> y, Array<float const> inverse_norms, Matrix<E> dx) {
  using namespace detail;
  for (int i = 0; i < y.rows; ++i) {
    E const *d = dy.row(i), *unit = y.row(i);
    E* out = dx.row(i);
    const float inverse = inverse_norms.begin[i];
    const float along = inverse < 1.0f / smallest_norm ? dot_row(d, unit, y.columns) : 0.0f;
    over_columns(y.columns,
                 [&](int j, auto n) { put(out + j, (get(d + j, n) - get(unit + j, n) * along) * inverse, n); });
  }
}

/// y = gelu(x).
template <class E> SOTTO_NOINLINE void gelu_forward(Array<std::type_identity_t<E> const> x, Array<E> y) {
  for (std::size_t i = 0; i < x.size; i += lanes) {
    const int n = static_cast<int>(std::min<std::size_t>(lanes, x.size - i));
    store_part(y.begin + i, gelu(load_part(x.begin + i, n)), n);
  }
}
/// dx = dy gelu'(before); dx may be dy.
template <class E>
SOTTO_NOINLINE void gelu_back(Array<std::type_identity_t<E> const> before, Array<std::type_identity_t<E> const> dy,
                              Array<E> dx) {
  for (std::size_t i = 0; i < dy.size; i += lanes) {
    const int n = static_cast<int>(std::min<std::size_t>(lanes, dy.size - i));
    store_part(dx.begin + i, load_part(dy.begin + i, n) * gelu_slope(load_part(before.begin + i, n)), n);
  }
}

/// y = a + b; y may be either.
template <class E, class B> SOTTO_NOINLINE void sum(In<E> a, Matrix<B> b, Matrix<E> y) {
  for (int i = 0; i < y.rows; ++i) {
    E const* const from_a = a.row(i);
    B const* const from_b = b.row(i);
    E* const to = y.row(i);
    detail::over_columns(y.columns, [&](int c, auto n) {
      detail::put(to + c, detail::get(from_a + c, n) + detail::get(from_b + c, n), n);
    });
  }
}
/// y = x, where one of them may keep numbers otherwise.
template <class From, class To> SOTTO_NOINLINE void convert(Matrix<From> x, Matrix<To> y) {
  for (int i = 0; i < y.rows; ++i)
    detail::over_columns(y.columns, [&](int c, auto n) { detail::put(y.row(i) + c, detail::get(x.row(i) + c, n), n); });
}
/// x *= factor.
template <class E> SOTTO_NOINLINE void multiply(Matrix<E> x, float factor) {
  for (int i = 0; i < x.rows; ++i) {
    E* const row = x.row(i);
    detail::over_columns(x.columns, [&](int c, auto n) { detail::put(row + c, detail::get(row + c, n) * factor, n); });
  }
}
/// Mean over columns of the standard deviation over rows: 0 when all rows are the same.
template <class E> SOTTO_COLD double spread(Matrix<E> x) {
  constexpr int block = 16;  // columns at once: their rows lie in one cache line
  double total = 0;
  for (int c = 0; c < x.columns; c += block) {
    const int count = std::min(block, x.columns - c);
    double mean[block] = {}, squares[block] = {};
    for (int i = 0; i < x.rows; ++i)
      for (int j = 0; j < count; ++j) mean[j] += static_cast<double>(static_cast<float>(x.row(i)[c + j]));
    for (double& m : mean) m /= x.rows;
    for (int i = 0; i < x.rows; ++i)
      for (int j = 0; j < count; ++j) {
        const double d = static_cast<double>(static_cast<float>(x.row(i)[c + j])) - mean[j];
        squares[j] += d * d;
      }
    for (int j = 0; j < count; ++j) total += std::sqrt(squares[j] / x.rows);
  }
  return total / x.columns;
}

/// Row i of y becomes row rows[i] of x. rows: [y.rows].
template <class E> SOTTO_NOINLINE void gather(In<E> x, int const* rows, Matrix<E> y) {
  const auto bytes = static_cast<std::size_t>(y.columns) * sizeof(E);
  for (int i = 0; i < y.rows; ++i) std::memcpy(y.row(i), x.row(rows[i]), bytes);
}

/// Row rows[i] of x += row i of y, in order of i: the backward of gather(). rows: [y.rows]; repeats
/// are summed.
template <class E> SOTTO_NOINLINE void scatter_add(In<E> y, int const* rows, Matrix<E> x) {
  for (int i = 0; i < y.rows; ++i) detail::add_row(y.row(i), x.row(rows[i]), y.columns);
}

/// The `count` rows of x that `rows` lists become vector [width].
template <class E> SOTTO_NOINLINE void fill_rows(Array<float const> vector, int const* rows, int count, Matrix<E> x) {
  for (int i = 0; i < count; ++i) {
    E* const row = x.row(rows[i]);
    detail::over_columns(x.columns, [&](int j, auto n) { detail::put(row + j, detail::get(vector.begin + j, n), n); });
  }
}

/// Backward of fill_rows(): d_vector [width] += the listed rows of dx, which then become 0, since
/// what they held before the fill has no influence.
template <class E> SOTTO_NOINLINE void fill_rows_back(Matrix<E> dx, int const* rows, int count, Array<float> d_vector) {
  for (int i = 0; i < count; ++i) {
    detail::add_row(dx.row(rows[i]), d_vector.begin, dx.columns);
    std::fill_n(dx.row(rows[i]), dx.columns, E{});
  }
}

/// Row segments[i] of y += row i of x, in order of i. x: [rows, width]; segments: [rows]; y:
/// [segments, width].
template <class E> SOTTO_NOINLINE void segment_sums(In<E> x, int const* segments, Matrix<E> y) {
  scatter_add(x, segments, y);
}

/// sums [width] += the rows of x: the gradient of a bias.
template <class E> SOTTO_NOINLINE void column_sums(Matrix<E> x, Array<float> sums) {
  using namespace detail;
  int i = 0;
  for (; i + 4 <= x.rows; i += 4)  // four rows at once: the sums are read and written once for them
    over_columns(x.columns, [&](int j, auto n) {
      put(sums.begin + j,
          get(sums.begin + j, n) + ((get(x.row(i) + j, n) + get(x.row(i + 1) + j, n)) +
                                    (get(x.row(i + 2) + j, n) + get(x.row(i + 3) + j, n))),
          n);
    });
  for (; i < x.rows; ++i) add_row(x.row(i), sums.begin, x.columns);
}

}  // namespace sotto::cpu::inline SOTTO_ABI
