// The kernels themselves: what they write for every remainder of rows and columns, and nothing besides.
#include <sotto/backend/cpu/fma.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <sotto/core/philox.hpp>

#include "kernels.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

/// Columns that a kernel writes: whole vectors, or whole tiles.
template <class Kernel> int written_columns(int n) {
  const int step = Kernel::rows == 32 ? 16 : cpu::lanes;
  return (n + step - 1) / step * step;
}
template <class Kernel> int written_rows(int m) { return Kernel::rows == 32 ? (m + 15) / 16 * 16 : m; }

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a kernel multiplies rows and columns of A, and writes nowhere else", Kernel, kernels_alone) {
  using Number = typename Kernel::Number;
  using Left = typename Kernel::Left;
  const typename Kernel::Session session{};
  static_cast<void>(session);
  constexpr int k = 37, stride = cpu::panel_columns + 5;
  constexpr int units = cpu::units_of<Kernel>(k), left_stride = units + 3;
  Random random(1, Purpose::user);
  std::vector<Number> a(32 * k), transposed(k * 32), b(k * cpu::panel_columns);
  for (int i = 0; i < 32; ++i)
    for (int p = 0; p < k; ++p)
      a[static_cast<std::size_t>(i * k + p)] = transposed[static_cast<std::size_t>(p * 32 + i)] =
          cpu::stored<Number>(static_cast<float>(random.normal()));
  for (Number& x : b) x = cpu::stored<Number>(static_cast<float>(random.normal()));
  std::vector<typename Kernel::Unit> panel(cpu::panels_size<Kernel>(k, cpu::panel_columns));
  cpu::pack<Kernel>(b.data(), k, cpu::panel_columns, cpu::panel_columns, 1, panel.data());
  std::vector<Left> rows(32 * left_stride), columns(static_cast<std::size_t>(Kernel::left_size));
  for (int i = 0; i < 32; ++i) Kernel::copy_row(a.data() + i * k, k, rows.data() + i * left_stride);

  for (int m = 1; m <= Kernel::rows; ++m) {
    Kernel::copy_columns(transposed.data(), 32, k, m, 32, columns.data());
    for (int n = 1; n <= cpu::panel_columns; ++n)
      for (const bool from_columns : {false, true}) {
        std::vector<float> c(32 * stride, -1e9f);
        if (from_columns)
          Kernel::multiply_transposed(
              m, n, {units, columns.data(), Kernel::left_stride, panel.data(), cpu::panel_columns}, c.data(), stride);
        else
          Kernel::multiply(m, n, {units, rows.data(), left_stride, panel.data(), cpu::panel_columns}, c.data(), stride);
        double worst = 0;
        bool untouched = true;
        for (int i = 0; i < 32; ++i)
          for (int j = 0; j < stride; ++j) {
            const float got = c[static_cast<std::size_t>(i * stride + j)];
            if (i < m && j < n) {
              double wanted = 0;
              for (int p = 0; p < k; ++p)
                wanted +=
                    static_cast<double>(static_cast<float>(a[static_cast<std::size_t>(i * k + p)])) *
                    static_cast<double>(static_cast<float>(b[static_cast<std::size_t>(p * cpu::panel_columns + j)]));
              worst = std::max(worst, std::abs(static_cast<double>(got) - wanted));
            } else if (i >= written_rows<Kernel>(m) || j >= written_columns<Kernel>(n)) {
              untouched = untouched && got == -1e9f;
            }
          }
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(from_columns);
        CHECK(worst < 1e-5);
        CHECK(untouched);
      }
  }
}
TEST_CASE_TEMPLATE_APPLY(kernels_alone, Kernels);
