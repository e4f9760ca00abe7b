#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <sotto/backend/cpu/rows.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

constexpr float guard = -54321.0f;

// A matrix whose stride exceeds its width; what lies between must never change.
struct Table {
  int rows, columns, stride;
  std::vector<float> numbers;
  Table(int rows_, int columns_, std::uint64_t seed, float scale = 1, float shift = 0)
      : rows(rows_), columns(columns_), stride(columns_ + 5),
        numbers(static_cast<std::size_t>(rows_ * (columns_ + 5)), guard) {
    Random random(seed, Purpose::user);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) at(i, j) = shift + scale * static_cast<float>(random.normal());
  }
  float& at(int i, int j) { return numbers[static_cast<std::size_t>(i * stride + j)]; }
  double operator()(int i, int j) const {
    return static_cast<double>(numbers[static_cast<std::size_t>(i * stride + j)]);
  }
  Matrix<float> view() { return {numbers.data(), rows, columns, stride}; }
  bool guarded() const {
    for (int i = 0; i < rows; ++i)
      for (int j = columns; j < stride; ++j)
        if (numbers[static_cast<std::size_t>(i * stride + j)] != guard) return false;
    return true;
  }
};

bool near(double a, double b, double tolerance = 2e-5) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// Every width up to 67 and some of the sizes that models have; 0, 1 and odd numbers of rows.
template <class Body> void over_sizes(Body body) {
  for (int columns = 1; columns <= 67; ++columns)
    for (int rows : {0, 1, 3, 4, 9}) body(rows, columns);
  for (int columns : {192, 352, 384, 415, 768}) body(7, columns);
}

struct Normed {
  std::vector<double> y, mean, deviation;
};

Normed naive_norm(Table const& x, Table const& gain, Table const& bias, double eps) {
  Normed out;
  for (int i = 0; i < x.rows; ++i) {
    double mean = 0, variance = 0;
    for (int j = 0; j < x.columns; ++j) mean += x(i, j) / x.columns;
    for (int j = 0; j < x.columns; ++j) variance += (x(i, j) - mean) * (x(i, j) - mean) / x.columns;
    out.mean.push_back(mean);
    out.deviation.push_back(std::sqrt(variance + eps));
    for (int j = 0; j < x.columns; ++j)
      out.y.push_back((x(i, j) - mean) / out.deviation.back() * gain(0, j) + bias(0, j));
  }
  return out;
}

}  // namespace

TEST_CASE("layer norm agrees with a naive one in double, at every width") {
  over_sizes([](int rows, int columns) {
    Table x(rows, columns, 1, 2, 5), gain(1, columns, 2), bias(1, columns, 3), y(rows, columns, 4);
    Table statistics(rows, 2, 5);
    cpu::layer_norm(x.view(), {gain.numbers.data(), static_cast<std::size_t>(columns)},
                    {bias.numbers.data(), static_cast<std::size_t>(columns)}, 1e-5f, y.view(), statistics.view());
    const Normed naive = naive_norm(x, gain, bias, 1e-5);
    bool right = y.guarded() && statistics.guarded();
    for (int i = 0; i < rows; ++i) {
      const auto row = static_cast<std::size_t>(i);
      right &= near(statistics(i, 0), naive.mean[row], 1e-6);
      right &= near(statistics(i, 1), 1 / naive.deviation[row], 1e-4);
      for (int j = 0; j < columns; ++j)
        right &= near(y(i, j), naive.y[row * static_cast<std::size_t>(columns) + static_cast<std::size_t>(j)],
                      columns < 4 ? 2e-3 : 1e-4);
    }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE("layer norm may write over its input") {
  Table x(5, 33, 1), y(5, 33, 2), gain(1, 33, 3), bias(1, 33, 4), statistics(5, 2, 5);
  const Array<float const> g{gain.numbers.data(), 33}, b{bias.numbers.data(), 33};
  cpu::layer_norm(x.view(), g, b, 1e-5f, y.view(), statistics.view());
  cpu::layer_norm(x.view(), g, b, 1e-5f, x.view(), statistics.view());
  CHECK(x.numbers == y.numbers);
}

TEST_CASE("layer norm's gradients agree with finite differences of a naive one") {
  for (int columns : {1, 2, 3, 7, 16, 17, 33, 48, 67})
    for (int rows : {0, 1, 3, 5}) {
      Table x(rows, columns, 1, 2, 1), gain(1, columns, 2), bias(1, columns, 3), y(rows, columns, 4);
      Table dy(rows, columns, 5), dx(rows, columns, 6), d_gain(1, columns, 7), d_bias(1, columns, 8);
      Table statistics(rows, 2, 9);
      const auto n = static_cast<std::size_t>(columns);
      const Array<float const> g{gain.numbers.data(), n}, b{bias.numbers.data(), n};
      const double eps = 0.5;  // large: it must be in the derivative too
      auto loss = [&] {
        double sum = 0;
        const Normed naive = naive_norm(x, gain, bias, eps);
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < columns; ++j)
            sum += dy(i, j) * naive.y[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)];
        return sum;
      };
      auto slope = [&](float& number) {
        const float kept = number, h = 1e-2f;
        number = kept + h;
        const double up = loss(), above = static_cast<double>(number);
        number = kept - h;
        const double down = loss(), below = static_cast<double>(number);
        number = kept;
        return (up - down) / (above - below);
      };
      cpu::layer_norm(x.view(), g, b, static_cast<float>(eps), y.view(), statistics.view());
      const Table dx_before = dx, gain_before = d_gain, bias_before = d_bias;
      cpu::layer_norm_back(dy.view(), x.view(), g, statistics.view(), dx.view(), {d_gain.numbers.data(), n},
                           {d_bias.numbers.data(), n}, true);
      Table fresh(rows, columns, 10), unused_gain(1, columns, 11), unused_bias(1, columns, 12);
      cpu::layer_norm_back(dy.view(), x.view(), g, statistics.view(), fresh.view(), {unused_gain.numbers.data(), n},
                           {unused_bias.numbers.data(), n}, false);
      bool right = dx.guarded() && d_gain.guarded() && d_bias.guarded() && fresh.guarded();
      for (int j = 0; j < columns; ++j) {
        right &= near(d_gain(0, j) - gain_before(0, j), slope(gain.at(0, j)), 1e-3);
        right &= near(d_bias(0, j) - bias_before(0, j), slope(bias.at(0, j)), 1e-3);
        for (int i = 0; i < rows; ++i) {
          right &= near(fresh(i, j), slope(x.at(i, j)), 1e-3);
          right &= near(dx(i, j) - dx_before(i, j), fresh(i, j), 1e-5);
        }
      }
      CHECK_MESSAGE(right, rows, " x ", columns);
    }
}

TEST_CASE("normalised rows have length 1, and a row of zeros stays zero") {
  over_sizes([](int rows, int columns) {
    Table x(rows, columns, 1, 3), y(rows, columns, 2);
    std::vector<float> inverse(static_cast<std::size_t>(rows));
    if (rows > 1)
      for (int j = 0; j < columns; ++j) x.at(1, j) = 0;
    cpu::normalise_rows(x.view(), y.view(), {inverse.data(), inverse.size()});
    bool right = y.guarded();
    for (int i = 0; i < rows; ++i) {
      double square = 0;
      for (int j = 0; j < columns; ++j) square += x(i, j) * x(i, j);
      const double norm = std::max(std::sqrt(square), 1e-8);
      right &= near(static_cast<double>(inverse[static_cast<std::size_t>(i)]) * norm, 1);
      for (int j = 0; j < columns; ++j) right &= near(y(i, j), x(i, j) / norm, 1e-6);
    }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE(
    "the gradient of normalised rows agrees with finite differences, also below the smallest "
    "norm") {
  for (int columns : {1, 5, 16, 35, 67}) {
    Table x(3, columns, 1), y(3, columns, 2), dy(3, columns, 3), dx(3, columns, 4);
    double square = 0;  // row 1 gets half the smallest norm: a projection would show there
    for (int j = 0; j < columns; ++j) square += x(1, j) * x(1, j);
    for (int j = 0; j < columns; ++j) x.at(1, j) *= static_cast<float>(5e-9 / std::sqrt(square));
    std::vector<float> inverse(3);
    cpu::normalise_rows(x.view(), y.view(), {inverse.data(), 3});
    cpu::normalise_rows_back(dy.view(), y.view(), {inverse.data(), 3}, dx.view());
    bool right = dx.guarded();
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < columns; ++j) {
        auto loss = [&](double h) {
          double sum = 0, dot = 0;
          for (int k = 0; k < columns; ++k) {
            const double number = x(i, k) + (k == j ? h : 0);
            sum += number * number;
            dot += number * dy(i, k);
          }
          return dot / std::max(std::sqrt(sum), 1e-8);
        };
        const double h = i == 1 ? 1e-13 : 1e-5;
        const double slope = (loss(h) - loss(-h)) / (2 * h);
        right &= near(dx(i, j), slope, 1e-4);
      }
    CHECK_MESSAGE(right, columns);
    cpu::normalise_rows_back(dy.view(), y.view(), {inverse.data(), 3}, dy.view());  // in place
    CHECK(dy.numbers == dx.numbers);
  }
}

TEST_CASE("GELU and its gradient are those of the erf form") {
  for (std::size_t n = 0; n <= 67; ++n) {
    Table table(1, static_cast<int>(n) + 1, n, 2), d(1, static_cast<int>(n) + 1, n + 1);
    const auto &x = table.numbers, &dy = d.numbers;
    std::vector<float> y(n + 1, guard), dx(n + 1, guard);
    cpu::gelu_forward<float>(Array<float const>{x.data(), n}, {y.data(), n});
    cpu::gelu_back<float>(Array<float const>{x.data(), n}, Array<float const>{dy.data(), n}, {dx.data(), n});
    bool right = y[n] == guard && dx[n] == guard;
    for (std::size_t i = 0; i < n; ++i) {
      const double number = static_cast<double>(x[i]);
      const double phi = 0.5 * std::erfc(-number / std::sqrt(2.0));
      const double slope = phi + number * std::exp(-number * number / 2) / std::sqrt(2 * M_PI);
      right &= near(static_cast<double>(y[i]), number * phi, 2e-6);
      right &= near(static_cast<double>(dx[i]), static_cast<double>(dy[i]) * slope, 2e-6);
    }
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE("rows are gathered, scattered and filled by index, and nothing else moves") {
  over_sizes([](int rows, int columns) {
    std::vector<int> chosen;
    for (int i = 0; i < rows; i += 2) chosen.push_back(i);
    const int n = static_cast<int>(chosen.size());
    Table x(rows, columns, 1), y(n, columns, 2), sum(rows, columns, 3), filled = x, d(rows, columns, 4);
    Table vector(1, columns, 5), d_vector(1, columns, 6);
    const Table sum_before = sum, d_before = d, d_vector_before = d_vector;
    const auto width = static_cast<std::size_t>(columns);
    cpu::gather(x.view(), chosen.data(), y.view());
    cpu::scatter_add(y.view(), chosen.data(), sum.view());
    cpu::fill_rows({vector.numbers.data(), width}, chosen.data(), n, filled.view());
    cpu::fill_rows_back(d.view(), chosen.data(), n, {d_vector.numbers.data(), width});
    bool right = y.guarded() && sum.guarded() && filled.guarded() && d.guarded() && d_vector.guarded();
    for (int j = 0; j < columns; ++j) {
      double total = d_vector_before(0, j);
      for (int i = 0; i < rows; ++i) {
        const bool hit = i % 2 == 0;
        right &= !hit || y(i / 2, j) == x(i, j);
        right &= near(sum(i, j), sum_before(i, j) + (hit ? x(i, j) : 0));
        right &= filled(i, j) == (hit ? vector(0, j) : x(i, j));
        right &= d(i, j) == (hit ? 0 : d_before(i, j));
        if (hit) total += d_before(i, j);
      }
      right &= near(d_vector(0, j), total);
    }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE("rows that are chosen twice are summed twice") {
  Table y(3, 9, 1), x(2, 9, 2);
  const Table before = x;
  const std::vector<int> chosen{1, 0, 1};
  cpu::scatter_add(y.view(), chosen.data(), x.view());
  for (int j = 0; j < 9; ++j) {
    CHECK(near(x(1, j), before(1, j) + y(0, j) + y(2, j)));
    CHECK(near(x(0, j), before(0, j) + y(1, j)));
  }
}

TEST_CASE("sums, multiples, column sums and segment sums agree with naive ones") {
  over_sizes([](int rows, int columns) {
    Table x(rows, columns, 1), y(rows, columns, 2), total(rows, columns, 3), multiple = x;
    Table sums(1, columns, 4), segments(3, columns, 5);
    const Table sums_before = sums, segments_before = segments;
    std::vector<int> segment;
    for (int i = 0; i < rows; ++i) segment.push_back(i * 7 % 3);
    cpu::sum(x.view(), y.view(), total.view());
    cpu::multiply(multiple.view(), -3.0f);
    cpu::column_sums(x.view(), {sums.numbers.data(), static_cast<std::size_t>(columns)});
    cpu::segment_sums(x.view(), segment.data(), segments.view());
    bool right = total.guarded() && multiple.guarded() && sums.guarded() && segments.guarded();
    for (int j = 0; j < columns; ++j) {
      double column = sums_before(0, j), parts[3] = {};
      for (int i = 0; i < rows; ++i) {
        right &= near(total(i, j), x(i, j) + y(i, j), 1e-6) && near(multiple(i, j), -3 * x(i, j), 1e-6);
        column += x(i, j);
        parts[segment[static_cast<std::size_t>(i)]] += x(i, j);
      }
      right &= near(sums(0, j), column);
      for (int s = 0; s < 3; ++s) right &= near(segments(s, j), segments_before(s, j) + parts[s]);
    }
    const Table y_before = y;
    cpu::sum(x.view(), y.view(), y.view());
    right &= y.numbers == total.numbers && y_before.guarded();
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE("the spread is the mean deviation of the columns, and 0 when all rows are the same") {
  for (int columns : {1, 15, 16, 17, 40})
    for (int rows : {1, 2, 9}) {
      Table x(rows, columns, 1, 2, 7);
      double expected = 0;
      for (int j = 0; j < columns; ++j) {
        double mean = 0, square = 0;
        for (int i = 0; i < rows; ++i) mean += x(i, j) / rows;
        for (int i = 0; i < rows; ++i) square += (x(i, j) - mean) * (x(i, j) - mean) / rows;
        expected += std::sqrt(square) / columns;
      }
      CHECK(near(cpu::spread(x.view()), expected, 1e-12));
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) x.at(i, j) = 0.1f * static_cast<float>(j);
      CHECK(cpu::spread(x.view()) < 1e-12);
    }
}
