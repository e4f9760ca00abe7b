#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <sotto/backend/cpu/rows.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

constexpr float guard = -54321.0f;

// A matrix inside memory that must never change: before it, after it, and between its rows, where gaps of 0 to 5
// numbers lie.
template <class E> struct Table {
  int rows, columns, stride;
  std::vector<E> memory;
  Table(int rows_, int columns_, std::uint64_t seed, float scale = 1, float shift = 0)
      : rows(rows_), columns(columns_), stride(columns_ + (columns_ + static_cast<int>(seed)) % 6),
        memory(static_cast<std::size_t>(rows_ * stride + 16), cpu::stored<E>(guard)) {
    Random random(seed, Purpose::user);
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) set(i, j, shift + scale * static_cast<float>(random.normal()));
  }
  E& at(int i, int j) { return memory[static_cast<std::size_t>(8 + i * stride + j)]; }
  E const& at(int i, int j) const { return memory[static_cast<std::size_t>(8 + i * stride + j)]; }
  void set(int i, int j, float x) { at(i, j) = cpu::stored<E>(x); }
  float number(int i, int j) const { return static_cast<float>(at(i, j)); }
  double operator()(int i, int j) const { return static_cast<double>(number(i, j)); }
  Matrix<E> view() { return {memory.data() + 8, rows, columns, stride}; }
  // The first row.
  Array<E> array() { return {memory.data() + 8, static_cast<std::size_t>(columns)}; }
  bool guarded() const {
    for (int k = 0; k < static_cast<int>(memory.size()); ++k) {
      const int place = k - 8;
      const bool inside = place >= 0 && place < rows * stride && place % stride < columns;
      const float found = static_cast<float>(memory[static_cast<std::size_t>(k)]);
      if (!inside && found != static_cast<float>(cpu::stored<E>(guard))) return false;
    }
    return true;
  }
};

// The same bits, in whatever memory.
template <class E> bool same(Table<E> const& a, Table<E> const& b) {
  for (int i = 0; i < a.rows; ++i)
    for (int j = 0; j < a.columns; ++j)
      if (std::memcmp(&a.at(i, j), &b.at(i, j), sizeof(E)) != 0) return false;
  return true;
}

bool near(double a, double b, double tolerance = 2e-5) { return std::abs(a - b) <= tolerance * (1 + std::abs(b)); }

// The same, where a was rounded to E after it was computed: to the nearest one, which the tolerance covers for floats.
template <class E> bool nearest(double a, double b, double tolerance = 2e-5) {
  const double rounding = sizeof(E) == 2 ? 0x1p-8 * std::abs(b) : 0;
  return std::abs(a - b) <= tolerance * (1 + std::abs(b)) + rounding;
}

// Every width up to 67 and some of the sizes that models have; 0, 1 and odd numbers of rows.
template <class Body> void over_sizes(Body body) {
  for (int columns = 1; columns <= 67; ++columns)
    for (int rows : {0, 1, 3, 4, 9}) body(rows, columns);
  for (int columns : {192, 352, 384, 415, 768}) body(7, columns);
}

// Numbers in double, that a finite difference can move as it likes.
struct Numbers {
  int rows, columns;
  std::vector<double> values;
  template <class E>
  explicit Numbers(Table<E> const& table)
      : rows(table.rows), columns(table.columns),
        values(static_cast<std::size_t>(table.rows) * static_cast<std::size_t>(table.columns)) {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) (*this)(i, j) = table(i, j);
  }
  double& operator()(int i, int j) { return values[static_cast<std::size_t>(i * columns + j)]; }
  double operator()(int i, int j) const { return values[static_cast<std::size_t>(i * columns + j)]; }
};

struct Normed {
  Numbers y;
  std::vector<double> mean, deviation;
};

Normed naive_norm(Numbers const& x, Numbers const& gain, Numbers const& bias, double eps) {
  Normed out{x, {}, {}};
  for (int i = 0; i < x.rows; ++i) {
    double mean = 0, variance = 0;
    for (int j = 0; j < x.columns; ++j) mean += x(i, j) / x.columns;
    for (int j = 0; j < x.columns; ++j) variance += (x(i, j) - mean) * (x(i, j) - mean) / x.columns;
    out.mean.push_back(mean);
    out.deviation.push_back(std::sqrt(variance + eps));
    for (int j = 0; j < x.columns; ++j) out.y(i, j) = (x(i, j) - mean) / out.deviation.back() * gain(0, j) + bias(0, j);
  }
  return out;
}

double gelu_of(double x) { return .5 * x * std::erfc(-x / std::sqrt(2.)); }
double gelu_slope_of(double x) {
  return .5 * std::erfc(-x / std::sqrt(2.)) + x * std::exp(-x * x / 2) / std::sqrt(2 * 3.141592653589793);
}

// What a number that is none may be, and the widths at which it is tried: inside whole vectors and after them.
constexpr float no_numbers[] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity()};
constexpr int tried_widths[] = {1, 7, 16, 21, 35};

// As IEEE has it: the same number, the same infinity, or both are none.
bool alike(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

}  // namespace

TEST_CASE_TEMPLATE("layer norm agrees with a naive one in double, at every width", E, float, bf16) {
  over_sizes([](int rows, int columns) {
    Table<E> x(rows, columns, 1, 2, 5), y(rows, columns, 4);
    Table<float> gain(1, columns, 2), bias(1, columns, 3), statistics(rows, 2, 5);
    cpu::layer_norm<E>(x.view(), gain.array(), bias.array(), 1e-5f, y.view(), statistics.view());
    const Normed naive = naive_norm(Numbers(x), Numbers(gain), Numbers(bias), 1e-5);
    bool right = y.guarded() && statistics.guarded();
    for (int i = 0; i < rows; ++i) {
      const auto row = static_cast<std::size_t>(i);
      right &= near(statistics(i, 0), naive.mean[row], 1e-6);
      right &= near(statistics(i, 1), 1 / naive.deviation[row], 1e-4);
      for (int j = 0; j < columns; ++j) right &= nearest<E>(y(i, j), naive.y(i, j), columns < 4 ? 2e-3 : 1e-4);
    }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE_TEMPLATE("layer norm may write over its input", E, float, bf16) {
  for (int columns : {1, 16, 33}) {
    Table<E> x(5, columns, 1), y(5, columns, 2);
    Table<float> gain(1, columns, 3), bias(1, columns, 4), statistics(5, 2, 5);
    cpu::layer_norm<E>(x.view(), gain.array(), bias.array(), 1e-5f, y.view(), statistics.view());
    cpu::layer_norm<E>(x.view(), gain.array(), bias.array(), 1e-5f, x.view(), statistics.view());
    CHECK(same(x, y));
    CHECK(x.guarded());
  }
}

TEST_CASE_TEMPLATE("layer norm's gradients agree with finite differences of a naive one", E, float, bf16) {
  for (int columns : {1, 2, 3, 7, 16, 17, 33, 48, 67})
    for (int rows : {0, 1, 3, 5}) {
      Table<E> x(rows, columns, 1, 2, 1), y(rows, columns, 4), dy(rows, columns, 5), dx(rows, columns, 6);
      Table<float> gain(1, columns, 2), bias(1, columns, 3), d_gain(1, columns, 7), d_bias(1, columns, 8);
      Table<float> statistics(rows, 2, 9);
      const double eps = 0.5;  // large: it must be in the derivative too
      Numbers exact_x(x), exact_gain(gain), exact_bias(bias);
      auto loss = [&] {
        double sum = 0;
        const Normed naive = naive_norm(exact_x, exact_gain, exact_bias, eps);
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < columns; ++j) sum += dy(i, j) * naive.y(i, j);
        return sum;
      };
      auto slope = [&](double& number) {
        const double kept = number, h = 1e-3;
        number = kept + h;
        const double up = loss();
        number = kept - h;
        const double down = loss();
        number = kept;
        return (up - down) / (2 * h);
      };
      cpu::layer_norm<E>(x.view(), gain.array(), bias.array(), static_cast<float>(eps), y.view(), statistics.view());
      const Table<E> dx_before = dx, dy_before = dy;
      const Table<float> gain_before = d_gain, bias_before = d_bias;
      const auto back = [&](Table<E>& to, bool accumulate, Table<float>& to_gain, Table<float>& to_bias) {
        cpu::layer_norm_back<E>(dy.view(), x.view(), gain.array(), statistics.view(), to.view(), to_gain.array(),
                                to_bias.array(), accumulate);
      };
      back(dx, true, d_gain, d_bias);
      Table<E> fresh(rows, columns, 10);
      Table<float> fresh_gain = gain_before, fresh_bias = bias_before;
      back(fresh, false, fresh_gain, fresh_bias);
      bool right = dx.guarded() && d_gain.guarded() && d_bias.guarded() && fresh.guarded() && same(dy, dy_before);
      for (int j = 0; j < columns; ++j) {
        right &= near(d_gain(0, j) - gain_before(0, j), slope(exact_gain(0, j)), 1e-4);
        right &= near(d_bias(0, j) - bias_before(0, j), slope(exact_bias(0, j)), 1e-4);
        for (int i = 0; i < rows; ++i) {
          const double exact = slope(exact_x(i, j));
          right &= nearest<E>(fresh(i, j), exact, 1e-4);
          right &= nearest<E>(dx(i, j), dx_before(i, j) + exact, 1e-4);
        }
      }
      CHECK_MESSAGE(right, rows, " x ", columns);
      Table<float> own_gain = gain_before, own_bias = bias_before;
      back(dy, false, own_gain, own_bias);  // in place
      CHECK(same(dy, fresh));
      CHECK(same(own_gain, d_gain));
      CHECK(same(own_bias, d_bias));
    }
}

TEST_CASE_TEMPLATE("normalised rows have length 1, and a row of zeros stays zero", E, float, bf16) {
  over_sizes([](int rows, int columns) {
    Table<E> x(rows, columns, 1, 3), y(rows, columns, 2);
    Table<float> inverse(1, rows, 3);
    if (rows > 1)
      for (int j = 0; j < columns; ++j) x.set(1, j, 0);
    cpu::normalise_rows<E>(x.view(), y.view(), inverse.array());
    bool right = y.guarded() && inverse.guarded();
    for (int i = 0; i < rows; ++i) {
      double square = 0;
      for (int j = 0; j < columns; ++j) square += x(i, j) * x(i, j);
      const double norm = std::max(std::sqrt(square), 1e-8);
      right &= near(inverse(0, i) * norm, 1);
      for (int j = 0; j < columns; ++j) right &= nearest<E>(y(i, j), x(i, j) / norm, 1e-6);
    }
    cpu::normalise_rows<E>(x.view(), x.view(), inverse.array());  // in place
    CHECK_MESSAGE((right && same(x, y)), rows, " x ", columns);
  });
}

TEST_CASE_TEMPLATE(
    "the gradient of normalised rows agrees with finite differences, also below the smallest "
    "norm",
    E, float, bf16) {
  for (int columns : {1, 5, 16, 35, 67}) {
    Table<E> x(3, columns, 1), y(3, columns, 2), dy(3, columns, 3), dx(3, columns, 4);
    double square = 0;  // row 1 gets half the smallest norm: a projection would show there
    for (int j = 0; j < columns; ++j) square += x(1, j) * x(1, j);
    for (int j = 0; j < columns; ++j) x.set(1, j, x.number(1, j) * static_cast<float>(5e-9 / std::sqrt(square)));
    Table<float> inverse(1, 3, 5);
    cpu::normalise_rows<E>(x.view(), y.view(), inverse.array());
    const Table<E> before = dy;
    cpu::normalise_rows_back<E>(dy.view(), y.view(), inverse.array(), dx.view());
    bool right = dx.guarded() && same(dy, before);
    for (int i = 0; i < 3; ++i) {
      double along = 0;  // of y as it is kept
      for (int j = 0; j < columns; ++j) along += i == 1 ? 0 : y(i, j) * dy(i, j);
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
        right &= near(dx(i, j), slope, sizeof(E) == 2 ? 2e-2 : 1e-4);
        right &= nearest<E>(dx(i, j), (dy(i, j) - y(i, j) * along) * inverse(0, i), 1e-5);
      }
    }
    CHECK_MESSAGE(right, columns);
    cpu::normalise_rows_back<E>(dy.view(), y.view(), inverse.array(), dy.view());  // in place
    CHECK(same(dy, dx));
  }
}

TEST_CASE_TEMPLATE("GELU and its gradient are those of the erf form", E, float, bf16) {
  for (int n = 0; n <= 67; ++n) {
    Table<E> x(1, n, 1, 2), dy(1, n, 2), y(1, n, 3), dx(1, n, 4);
    cpu::gelu_forward<E>(x.array(), y.array());
    cpu::gelu_back<E>(x.array(), dy.array(), dx.array());
    bool right = y.guarded() && dx.guarded();
    for (int j = 0; j < n; ++j) {
      right &= nearest<E>(y(0, j), gelu_of(x(0, j)), 2e-6);
      right &= nearest<E>(dx(0, j), dy(0, j) * gelu_slope_of(x(0, j)), 2e-6);
    }
    cpu::gelu_back<E>(x.array(), dy.array(), dy.array());  // in place
    cpu::gelu_forward<E>(x.array(), x.array());
    right &= same(dy, dx) && same(x, y) && x.guarded() && dy.guarded();
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE_TEMPLATE("rows are gathered, scattered and filled by index, and nothing else moves", E, float, bf16) {
  over_sizes([](int rows, int columns) {
    std::vector<int> chosen;
    for (int i = 0; i < rows; i += 2) chosen.push_back(i);
    const int n = static_cast<int>(chosen.size());
    Table<E> x(rows, columns, 1), y(n, columns, 2), sum(rows, columns, 3), filled = x, d(rows, columns, 4);
    Table<float> vector(1, columns, 5), d_vector(1, columns, 6);
    const Table<E> sum_before = sum, d_before = d;
    const Table<float> d_vector_before = d_vector;
    cpu::gather<E>(x.view(), chosen.data(), y.view());
    cpu::scatter_add<E>(y.view(), chosen.data(), sum.view());
    cpu::fill_rows<E>(vector.array(), chosen.data(), n, filled.view());
    cpu::fill_rows_back<E>(d.view(), chosen.data(), n, d_vector.array());
    bool right = y.guarded() && sum.guarded() && filled.guarded() && d.guarded() && d_vector.guarded();
    for (int j = 0; j < columns; ++j) {
      double total = d_vector_before(0, j);
      for (int i = 0; i < rows; ++i) {
        const bool hit = i % 2 == 0;
        right &= !hit || y(i / 2, j) == x(i, j);
        right &= nearest<E>(sum(i, j), sum_before(i, j) + (hit ? x(i, j) : 0), 1e-6);
        right &=
            filled.number(i, j) == (hit ? static_cast<float>(cpu::stored<E>(vector.number(0, j))) : x.number(i, j));
        right &= d(i, j) == (hit ? 0 : d_before(i, j));
        if (hit) total += d_before(i, j);
      }
      right &= near(d_vector(0, j), total);
    }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE_TEMPLATE("rows that are chosen twice are summed twice, in their order", E, float, bf16) {
  for (int columns : {9, 16, 50}) {
    Table<E> y(3, columns, 1), x(2, columns, 2);
    const Table<E> before = x;
    const std::vector<int> chosen{1, 0, 1};
    cpu::scatter_add<E>(y.view(), chosen.data(), x.view());
    const auto plus = [](float a, float b) { return static_cast<float>(cpu::stored<E>(a + b)); };
    bool right = x.guarded();
    for (int j = 0; j < columns; ++j) {
      right &= x.number(1, j) == plus(plus(before.number(1, j), y.number(0, j)), y.number(2, j));
      right &= x.number(0, j) == plus(before.number(0, j), y.number(1, j));
    }
    CHECK_MESSAGE(right, columns);
  }
}

TEST_CASE_TEMPLATE("sums, multiples, column sums and segment sums agree with naive ones", E, float, bf16) {
  over_sizes([](int rows, int columns) {
    Table<E> x(rows, columns, 1), y(rows, columns, 2), total(rows, columns, 3), multiple = x;
    Table<E> segments(3, columns, 5), mixed(rows, columns, 6);
    Table<float> sums(1, columns, 4), addend(rows, columns, 7);
    const Table<float> sums_before = sums;
    Table<E> naive = segments;
    std::vector<int> segment;
    for (int i = 0; i < rows; ++i) segment.push_back(i * 7 % 3);
    cpu::sum<E>(x.view(), y.view(), total.view());
    cpu::sum<E>(x.view(), addend.view(), mixed.view());
    cpu::multiply(multiple.view(), -3.0f);
    cpu::column_sums(x.view(), sums.array());
    cpu::segment_sums<E>(x.view(), segment.data(), segments.view());
    bool right = total.guarded() && multiple.guarded() && sums.guarded() && segments.guarded() && mixed.guarded();
    for (int j = 0; j < columns; ++j) {
      double column = sums_before(0, j);
      for (int i = 0; i < rows; ++i) {
        right &= nearest<E>(total(i, j), x(i, j) + y(i, j), 1e-6);
        right &= nearest<E>(mixed(i, j), x(i, j) + addend(i, j), 1e-6);
        right &= nearest<E>(multiple(i, j), -3 * x(i, j), 1e-6);
        column += x(i, j);
        const int s = segment[static_cast<std::size_t>(i)];
        naive.set(s, j, naive.number(s, j) + x.number(i, j));  // rounded each time, as memory is
      }
      right &= near(sums(0, j), column);
      for (int s = 0; s < 3; ++s) right &= segments(s, j) == naive(s, j);
    }
    cpu::sum<E>(x.view(), y.view(), y.view());
    cpu::sum<E>(x.view(), addend.view(), x.view());
    right &= same(y, total) && y.guarded() && same(x, mixed) && x.guarded();
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE_TEMPLATE("numbers are kept in another way, and widened again", E, float, bf16) {
  over_sizes([](int rows, int columns) {
    Table<float> x(rows, columns, 1, 100), wide(rows, columns, 2);
    Table<E> kept(rows, columns, 3);
    cpu::convert(x.view(), kept.view());
    cpu::convert(kept.view(), wide.view());
    bool right = kept.guarded() && wide.guarded();
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) {
        right &= kept.number(i, j) == static_cast<float>(cpu::stored<E>(x.number(i, j)));
        right &= wide.number(i, j) == kept.number(i, j);
      }
    CHECK_MESSAGE(right, rows, " x ", columns);
  });
}

TEST_CASE_TEMPLATE("the spread is the mean deviation of the columns, and 0 when all rows are the same", E, float,
                   bf16) {
  for (int columns : {1, 15, 16, 17, 40})
    for (int rows : {1, 2, 9}) {
      Table<E> x(rows, columns, 1, 2, 7);
      double expected = 0;
      for (int j = 0; j < columns; ++j) {
        double mean = 0, square = 0;
        for (int i = 0; i < rows; ++i) mean += x(i, j) / rows;
        for (int i = 0; i < rows; ++i) square += (x(i, j) - mean) * (x(i, j) - mean) / rows;
        expected += std::sqrt(square) / columns;
      }
      CHECK(near(cpu::spread(x.view()), expected, 1e-12));
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) x.set(i, j, 0.1f * static_cast<float>(j));
      CHECK(cpu::spread(x.view()) < 1e-12);
      x.set(rows - 1, columns - 1, std::nanf(""));
      CHECK(std::isnan(cpu::spread(x.view())));
    }
}

TEST_CASE_TEMPLATE("one number that is none, or infinite, goes where arithmetic takes it and no further", E, float,
                   bf16) {
  for (const float bad : no_numbers)
    for (const int columns : tried_widths)
      for (int place = 0; place < columns; ++place) {
        Table<E> x(2, columns, 1), y(2, columns, 2), total(2, columns, 3), multiple(2, columns, 4), taken = total;
        Table<E> scattered(2, columns, 5), back(2, columns, 6), activated(2, columns, 7);
        Table<float> sums(1, columns, 8), wide(2, columns, 9);
        const Table<float> sums_before = sums;
        x.set(1, place, bad);
        multiple = x;
        const Table<E> scattered_before = scattered;
        const int both[] = {0, 1};
        cpu::sum<E>(x.view(), y.view(), total.view());
        cpu::multiply(multiple.view(), 2.0f);
        cpu::gather<E>(x.view(), both, taken.view());
        cpu::scatter_add<E>(x.view(), both, scattered.view());
        cpu::column_sums(x.view(), sums.array());
        cpu::convert(x.view(), wide.view());
        for (int i = 0; i < 2; ++i) {
          const Array<E const> row{x.view().row(i), x.array().size};
          cpu::gelu_forward<E>(row, {activated.view().row(i), row.size});
          cpu::gelu_back<E>({y.view().row(i), row.size}, row, {back.view().row(i), row.size});
        }
        bool right = true;
        const auto kept = [](float number) { return static_cast<float>(cpu::stored<E>(number)); };
        for (int j = 0; j < columns; ++j) {
          for (int i = 0; i < 2; ++i) {
            right &= alike(total.number(i, j), kept(x.number(i, j) + y.number(i, j)));
            right &= alike(multiple.number(i, j), kept(2 * x.number(i, j)));
            right &= alike(taken.number(i, j), x.number(i, j));
            right &= alike(scattered.number(i, j), kept(scattered_before.number(i, j) + x.number(i, j)));
            right &= alike(wide.number(i, j), x.number(i, j));
            right &= std::isfinite(activated.number(i, j)) == std::isfinite(x.number(i, j));
            right &= std::isfinite(back.number(i, j)) == std::isfinite(x.number(i, j));
          }
          right &=
              j == place ? !std::isfinite(sums.number(0, j)) : near(sums(0, j), sums_before(0, j) + x(0, j) + x(1, j));
        }
        CHECK_MESSAGE(right, bad, " at ", place, " of ", columns);
      }
}

TEST_CASE_TEMPLATE("a row with a number that is none or infinite has no norm, and no other row suffers", E, float,
                   bf16) {
  for (const float bad : no_numbers)
    for (const int columns : tried_widths)
      for (int place = 0; place < columns; ++place) {
        Table<E> x(5, columns, 1), y(5, columns, 2), unit(5, columns, 3), dx(5, columns, 4), d_unit(5, columns, 5);
        Table<float> gain(1, columns, 6), bias(1, columns, 7), statistics(5, 2, 8), inverse(1, 5, 9);
        Table<float> d_gain(1, columns, 10), d_bias(1, columns, 11);
        Table<E> dy = x;
        dy.set(2, place, bad);
        cpu::layer_norm<E>(x.view(), gain.array(), bias.array(), 1e-5f, y.view(), statistics.view());
        cpu::layer_norm_back<E>(dy.view(), x.view(), gain.array(), statistics.view(), dx.view(), d_gain.array(),
                                d_bias.array(), false);
        cpu::normalise_rows<E>(x.view(), unit.view(), inverse.array());
        cpu::normalise_rows_back<E>(dy.view(), unit.view(), inverse.array(), d_unit.view());
        cpu::layer_norm<E>(dy.view(), gain.array(), bias.array(), 1e-5f, y.view(), statistics.view());
        cpu::normalise_rows<E>(dy.view(), unit.view(), inverse.array());
        bool right = true;
        for (int i = 0; i < 5; ++i) {
          right &= std::isfinite(unit.number(i, place)) == (i != 2);
          for (int j = 0; j < columns; ++j) {
            right &= std::isfinite(y.number(i, j)) == (i != 2);
            right &= std::isfinite(dx.number(i, j)) == (i != 2);
            right &= std::isfinite(d_unit.number(i, j)) == (i != 2);
          }
        }
        for (int j = 0; j < columns; ++j) right &= std::isfinite(d_bias.number(0, j)) == (j != place);
        CHECK_MESSAGE(right, bad, " at ", place, " of ", columns);
      }
}
