// Losses over rows on the CPU: cross-entropy, a user's element-wise loss, and counts of what is
// predicted.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <sotto/backend/cpu/rows.hpp>
#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

SOTTO_ALWAYS_INLINE float greatest(float const* x, int columns) {
  float result = x[0];
  const int whole = columns - columns % lanes;
  if (whole > 0) {
    Vec most = load(x);
    for (int j = lanes; j < whole; j += lanes) {
      const Vec v = load(x + j);
      most = v > most ? v : most;
    }
    for (int l = 0; l < lanes; ++l) result = std::max(result, most[l]);
  }
  for (int j = whole; j < columns; ++j) result = std::max(result, x[j]);
  return result;
}

// By bits: neither a maximum nor a clamped exponential need show a NaN.
SOTTO_ALWAYS_INLINE bool all_finite(float const* x, int columns) {
  std::uint32_t found = 0;
  for (int j = 0; j < columns; ++j)
    found |= (std::bit_cast<std::uint32_t>(x[j]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  return found == 0;
}

SOTTO_ALWAYS_INLINE int first_equal(float const* x, float value, int columns) {
  int j = 0;
  while (j < columns && x[j] != value) ++j;
  return j;
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Softmax cross-entropy of scores [rows, classes] with one target class a row. *loss += the sum of
/// -log p(target) over the rows, *correct += the rows whose greatest score is the target's (the
/// first of equal ones counts), and scores become their gradient, scale * (p - onehot(target)).
/// Exact: the row's maximum is subtracted. A row with a score that is infinite or not a number
/// makes the loss NaN and its gradient too.
inline SOTTO_NOINLINE void cross_entropy(Matrix<float> scores, int const* targets, float scale, double* loss,
                                         std::int64_t* correct) {
  using namespace detail;
  const int columns = scores.columns;
  for (int i = 0; i < scores.rows; ++i) {
    float* row = scores.row(i);
    const int target = targets[i];
    if (!all_finite(row, columns)) {
      *loss += std::numeric_limits<double>::quiet_NaN();
      std::fill_n(row, columns, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const float most = greatest(row, columns), wanted = row[target];
    if (wanted == most && first_equal(row, most, target) == target) ++*correct;
    Vec sums{};
    const int whole = columns - columns % lanes;
    for (int j = 0; j < whole; j += lanes) {
      const Vec e = fast_exp(load(row + j) - most);
      store(row + j, e);
      sums += e;
    }
    float sum = sum_of(sums);
    if (whole < columns) {
      float part[lanes];
      store(part, fast_exp(load_part(row + whole, columns - whole) - most));
      for (int j = whole; j < columns; ++j) {
        sum += part[j - whole];
        row[j] = part[j - whole];
      }
    }
    *loss += std::log(static_cast<double>(sum)) + (static_cast<double>(most) - static_cast<double>(wanted));
    const float share = scale / sum;
    over_columns(columns, [&](int j, auto n) { put(row + j, get(row + j, n) * share, n); });
    row[target] -= scale;
  }
}

/// counts[c] += the rows of scores [rows, classes] whose greatest score, the first of equal ones,
/// is class c's: how many classes a model still predicts. Rows without a greatest number (NaN
/// first) count for class 0.
inline SOTTO_NOINLINE void count_predictions(Matrix<float const> scores, double* counts) {
  for (int i = 0; i < scores.rows; ++i) {
    float const* row = scores.row(i);
    const int best = detail::first_equal(row, detail::greatest(row, scores.columns), scores.columns);
    ++counts[best < scores.columns ? best : 0];
  }
}

/// A user's loss, element by element: *sum += Functor::term(predicted, wanted) over [rows, width],
/// in double, and predicted becomes scale times the derivative, which Dual finds. Functor is
/// stateless and has `template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T
/// const& wanted)`.
template <class Functor>
SOTTO_NOINLINE void row_loss(Matrix<float> predicted, Matrix<float const> wanted, float scale, double* sum) {
  using Number = Dual<float, 1>;
  constexpr int block = 64;
  for (int i = 0; i < predicted.rows; ++i) {
    float* row = predicted.row(i);
    float const* target = wanted.row(i);
    for (int from = 0; from < predicted.columns; from += block) {
      const int count = std::min(block, predicted.columns - from);
      float terms[block] = {};
      for (int j = 0; j < count; ++j) {
        Number number(row[from + j]);
        number.by[0] = 1;
        const Number term = Functor::template term<Number>(number, Number(target[from + j]));
        terms[j] = term.value;
        row[from + j] = scale * term.by[0];
      }
      double strands[8] = {};
      for (int j = 0; j < block; j += 8)
        for (int k = 0; k < 8; ++k) strands[k] += static_cast<double>(terms[j + k]);
      *sum += ((strands[0] + strands[1]) + (strands[2] + strands[3])) +
              ((strands[4] + strands[5]) + (strands[6] + strands[7]));
    }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
