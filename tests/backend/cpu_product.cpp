#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

#include <sotto/backend/cpu/product.hpp>
#include <sotto/core/philox.hpp>

#include "kernels.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

constexpr float guard = -54321.f;
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

// [rows, columns] inside memory that is guarded before, between the rows and after.
template <class E> struct Table {
  int rows, columns, stride;
  std::vector<E> memory;
  Table(int rows_, int columns_, std::uint64_t seed, int gap = 3)
      : rows(rows_), columns(columns_), stride(columns_ + gap),
        memory(static_cast<std::size_t>(rows_ * (columns_ + gap) + 16), cpu::stored<E>(guard)) {
    Random random(seed, Purpose::user);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) view().row(i)[j] = cpu::stored<E>(static_cast<float>(random.normal()));
  }
  Matrix<E> view() { return {memory.data() + 8, rows, columns, stride}; }
  double operator()(int i, int j) const {
    return static_cast<double>(static_cast<float>(memory[static_cast<std::size_t>(8 + i * stride + j)]));
  }
  bool guarded() const {
    std::vector<char> inside(memory.size());
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) inside[static_cast<std::size_t>(8 + i * stride + j)] = 1;
    for (std::size_t i = 0; i < memory.size(); ++i)
      if (!inside[i] && static_cast<float>(memory[i]) != static_cast<float>(cpu::stored<E>(guard))) return false;
    return true;
  }
};

template <class Kernel> auto panels_of(Table<typename Kernel::Number>& b) {
  std::vector<typename Kernel::Unit> panels(cpu::panels_size<Kernel>(b.rows, b.columns), typename Kernel::Unit(-1));
  cpu::pack<Kernel>(b.view().begin, b.rows, b.columns, b.stride, 1, panels.data());
  return panels;
}

double gelu_of(double x) { return .5 * x * (1 + std::erf(x / std::sqrt(2.))); }
double slope_of(double x) {
  return .5 * (1 + std::erf(x / std::sqrt(2.))) + x * std::exp(-.5 * x * x) / std::sqrt(2 * 3.141592653589793);
}

// What rounding may cost in a sum of k terms of size 1; a term too many or too few costs about 1.
double rounding(int k) { return 2e-7 * (20 + k); }

// Every epilogue of one shape against plain loops.
template <class Kernel> void check_shape(int m, int n, int k) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  using E = typename Kernel::Number;
  Table<E> a(m, k, 1), b(k, n, 2), other(m, n, 3), start(m, n, 5);
  Table<float> bias(1, n, 4);
  cpu::Workspace workspace;
  const auto panels = panels_of<Kernel>(b);
  const cpu::Panels<Kernel> packed{panels.data(), k, n};
  std::vector<double> wanted(static_cast<std::size_t>(m) * static_cast<std::size_t>(n));
  for (int i = 0; i < m; ++i)
    for (int p = 0; p < k; ++p)
      for (int j = 0; j < n; ++j) wanted[static_cast<std::size_t>(i * n + j)] += a(i, p) * b(p, j);
  const double tolerance = rounding(k);

  using Kind = typename cpu::Epilogue<E>::Kind;
  for (const Kind kind : {Kind::store, Kind::gelu, Kind::add, Kind::gelu_slope, Kind::accumulate})
    for (const bool with_bias : {false, true}) {
      if (with_bias && (kind == Kind::gelu_slope || kind == Kind::accumulate)) continue;
      CAPTURE(static_cast<int>(kind));
      CAPTURE(with_bias);
      Table<E> c(m, n, 6), before(m, n, 7);
      if (kind != Kind::accumulate)
        for (int i = 0; i < m; ++i) std::fill_n(c.view().row(i), n, cpu::stored<E>(std::nanf("")));
      else
        c = start;
      cpu::product<Kernel>(a.view(), packed,
                           {kind, with_bias ? bias.view().begin : nullptr, other.view(), before.view()}, c.view(),
                           workspace);
      double worst = 0, worst_before = 0;
      for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
          double y = wanted[static_cast<std::size_t>(i * n + j)] + (with_bias ? bias(0, j) : 0);
          if (kind == Kind::gelu) {
            const double error = std::abs(before(i, j) - y) - precision<E> * std::abs(y);
            worst_before = error <= worst_before ? worst_before : error;
            y = gelu_of(y);
          }
          if (kind == Kind::add) y += other(i, j);
          if (kind == Kind::gelu_slope) y *= slope_of(other(i, j));
          if (kind == Kind::accumulate) y += start(i, j);
          const double error = std::abs(c(i, j) - y) - precision<E> * std::abs(y);
          worst = error <= worst ? worst : std::isnan(error) ? 1e30 : error;
        }
      CHECK(worst <= tolerance);
      CHECK(worst_before <= tolerance);
      CHECK(c.guarded());
      CHECK(before.guarded());
    }
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a product is right for every remainder of rows and columns", Kernel, remainders) {
  for (int m = 1; m <= 31; ++m)
    for (const int n : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 36, 48, 63, 64, 65, 70}) {
      check_shape<Kernel>(m, n, (m * 7 + n * 5) % 70 + 1);
    }
}

TEST_CASE_TEMPLATE_DEFINE("a product is right for every small depth", Kernel, depths) {
  for (int k = 1; k <= 40; ++k) check_shape<Kernel>(15, 37, k);
}

TEST_CASE_TEMPLATE_DEFINE("a product is right where its depth and its columns are cut into blocks", Kernel, blocks) {
  check_shape<Kernel>(45, 70, 511);
  check_shape<Kernel>(45, 70, 513);
  check_shape<Kernel>(30, 600, 1025);
  check_shape<Kernel>(17, 1100, 300);
  check_shape<Kernel>(29, 100, 3072);
}

TEST_CASE_TEMPLATE_DEFINE("nothing to multiply writes nothing", Kernel, nothing) {
  using E = typename Kernel::Number;
  cpu::Workspace workspace;
  Table<E> a(1, 5, 1), b(5, 9, 2), c(1, 9, 3);
  const Table<E> as_it_was = c;
  const auto panels = panels_of<Kernel>(b);
  cpu::product<Kernel>(a.view().slice_rows(0, 0), {panels.data(), 5, 9}, {}, c.view().slice_rows(0, 0), workspace);
  CHECK(std::memcmp(c.memory.data(), as_it_was.memory.data(), c.memory.size() * sizeof(E)) == 0);
}

TEST_CASE_TEMPLATE_DEFINE("rows that overlap multiply as if they were copied apart", Kernel, overlap) {
  using E = typename Kernel::Number;
  cpu::Workspace workspace;
  const int hop = 5, k = 23, m = 40, n = 19;
  Table<E> line(1, hop * (m - 1) + k, 1, 0), b(k, n, 2), c(m, n, 3);
  const auto panels = panels_of<Kernel>(b);
  cpu::product<Kernel>({line.view().begin, m, k, hop}, {panels.data(), k, n}, {}, c.view(), workspace);
  double worst = 0;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double y = 0;
      for (int p = 0; p < k; ++p) y += line(0, i * hop + p) * b(p, j);
      worst = std::max(worst, std::abs(y - c(i, j)) - precision<E> * std::abs(y));
    }
  CHECK(worst < 1e-5);
  CHECK(c.guarded());
}

TEST_CASE_TEMPLATE_DEFINE("a weight and its transpose pack into the same panels", Kernel, transposes) {
  using E = typename Kernel::Number;
  for (const int k : {1, 7, 8, 9, 40})
    for (const int n : {1, 15, 16, 33, 70}) {
      Table<E> b(k, n, 1), transposed(n, k, 2);
      for (int p = 0; p < k; ++p)
        for (int j = 0; j < n; ++j) transposed.view().row(j)[p] = b.view().row(p)[j];
      const auto one = panels_of<Kernel>(b);
      std::vector<typename Kernel::Unit> other(one.size());
      cpu::pack<Kernel>(transposed.view().begin, k, n, 1, transposed.stride, other.data());
      CHECK(one == other);
    }
}

TEST_CASE_TEMPLATE_DEFINE("rows are bitwise the same wherever the tile begins", Kernel, anywhere) {
  using E = typename Kernel::Number;
  cpu::Workspace workspace;
  // a packed lane puts the same sequence at any row: resume and threads rely on equal bits
  const int k = 600, n = 50, m = 60;
  Table<E> a(m, k, 1), b(k, n, 2), whole(m, n, 3);
  const auto panels = panels_of<Kernel>(b);
  const cpu::Epilogue<E> gelu{cpu::Epilogue<E>::Kind::gelu, nullptr, {}, {}};
  Table<E> before(m, n, 4), other_before(m, n, 4);
  cpu::Epilogue<E> e = gelu;
  e.before = before.view();
  cpu::product<Kernel>(a.view(), {panels.data(), k, n}, e, whole.view(), workspace);
  for (int first = 0; first < 20; ++first) {
    Table<E> part(m, n, 5);
    e.before = other_before.view();
    cpu::product<Kernel>(a.view().slice_rows(first, m - first), {panels.data(), k, n}, e, part.view(), workspace);
    bool same = true;
    for (int i = first; i < m; ++i)
      for (int j = 0; j < n; ++j) same = same && whole(i, j) == part(i - first, j);
    CHECK(same);
  }
}

TEST_CASE_TEMPLATE_DEFINE("the weight gradient adds dy^T x for any shape", Kernel, gradients) {
  using E = typename Kernel::Number;
  cpu::Workspace workspace;
  const auto check = [&](int rows, int out, int in, int hop) {
    CAPTURE(rows);
    CAPTURE(out);
    CAPTURE(in);
    CAPTURE(hop);
    Table<E> dy(rows, out, 1), line(1, std::max(0, rows - 1) * hop + in, 2, 0);
    Table<float> dw(out, in, 3);
    const Table<float> start = dw;
    cpu::weight_gradient<Kernel>(dy.view(), {line.view().begin, rows, in, hop}, dw.view(), workspace);
    double worst = 0;
    for (int o = 0; o < out; ++o)
      for (int i = 0; i < in; ++i) {
        double sum = start(o, i);
        for (int t = 0; t < rows; ++t) sum += dy(t, o) * line(0, t * hop + i);
        const double error = std::abs(sum - dw(o, i));
        worst = error <= worst ? worst : std::isnan(error) ? 1e30 : error;
      }
    CHECK(worst <= rounding(rows));
    CHECK(dw.guarded());
  };
  for (int out = 1; out <= 30; ++out)
    for (const int in : {1, 5, 16, 17, 31, 33, 64, 70}) check((out * 11 + in) % 50 + 1, out, in, in + out % 3);
  check(511, 45, 70, 70);
  check(1025, 29, 300, 300);
  check(300, 20, 1100, 1100);
  check(300, 48, 408, 48);  // a convolution's windows
}

TEST_CASE_TEMPLATE_DEFINE("what is not a number stays visible in a product and its GELU", Kernel, not_numbers) {
  using E = typename Kernel::Number;
  cpu::Workspace workspace;
  Table<E> a(3, 4, 1), b(4, 5, 2), c(3, 5, 3), before(3, 5, 4);
  a.view().row(1)[2] = cpu::stored<E>(static_cast<float>(not_a_number));
  const auto panels = panels_of<Kernel>(b);
  cpu::product<Kernel>(a.view(), {panels.data(), 4, 5}, {cpu::Epilogue<E>::Kind::gelu, nullptr, {}, before.view()},
                       c.view(), workspace);
  for (int j = 0; j < 5; ++j) {
    CHECK(std::isnan(c(1, j)));
    CHECK_FALSE(std::isnan(c(0, j)));
  }
}

TEST_CASE_TEMPLATE_APPLY(remainders, Kernels);
TEST_CASE_TEMPLATE_APPLY(depths, Kernels);
TEST_CASE_TEMPLATE_APPLY(blocks, Kernels);
TEST_CASE_TEMPLATE_APPLY(nothing, Kernels);
TEST_CASE_TEMPLATE_APPLY(overlap, Kernels);
TEST_CASE_TEMPLATE_APPLY(transposes, Kernels);
TEST_CASE_TEMPLATE_APPLY(anywhere, Kernels);
TEST_CASE_TEMPLATE_APPLY(gradients, Kernels);
TEST_CASE_TEMPLATE_APPLY(not_numbers, Kernels);
