#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <sotto/backend/cpu/convolution.hpp>
#include <sotto/core/philox.hpp>

#include "kernels.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

constexpr float guard = -54321.f;

std::vector<float> noise(std::size_t n, std::uint64_t seed) {
  Random random(seed, Purpose::user);
  std::vector<float> numbers(n);
  for (float& x : numbers) x = static_cast<float>(random.normal());
  return numbers;
}

// Rows that lie apart, with guards between them and around.
template <class E> struct Table {
  int rows, width, stride;
  std::vector<E> memory;
  Table(int rows_, int width_, std::uint64_t seed)
      : rows(rows_), width(width_), stride(width_ + 5),
        memory(static_cast<std::size_t>(rows_ * (width_ + 5) + 8), cpu::stored<E>(guard)) {
    const std::vector<float> numbers = noise(static_cast<std::size_t>(rows * width), seed);
    for (int t = 0; t < rows; ++t)
      std::transform(numbers.data() + t * width, numbers.data() + (t + 1) * width, view().row(t), cpu::stored<E>);
  }
  Matrix<E> view() { return {memory.data() + 4, rows, width, stride}; }
  double operator()(int t, int i) const {
    return static_cast<double>(static_cast<float>(memory[static_cast<std::size_t>(4 + t * stride + i)]));
  }
  bool guarded() const {
    for (std::size_t i = 0; i < memory.size(); ++i) {
      const int at = static_cast<int>(i) - 4;
      const bool inside = at >= 0 && at < rows * stride && at % stride < width;
      if (!inside && static_cast<float>(memory[i]) != static_cast<float>(cpu::stored<E>(guard))) return false;
    }
    return true;
  }
};

// What rounding may cost in a sum of k terms of size 1; a term too many or too few costs about 1.
double rounding(int k) { return 2e-7 * (20 + k); }

template <class Kernel> void check(int width, int groups, int taps, std::vector<int> const& lengths) {
  using E = typename Kernel::Number;
  CAPTURE(width);
  CAPTURE(groups);
  CAPTURE(taps);
  std::vector<int> offsets{0};
  for (const int length : lengths) offsets.push_back(offsets.back() + length);
  const int rows = offsets.back(), c = width / groups, sequences = static_cast<int>(lengths.size());
  const Lane<int> lane{
      offsets.data(), nullptr, nullptr, sequences, rows,   *std::max_element(lengths.begin(), lengths.end()),
      nullptr,        nullptr, 0,       0,         nullptr};
  const cpu::GroupedConvolution shape{width, groups, taps};
  std::vector<float> weight = noise(static_cast<std::size_t>(width * c * taps), 1);
  for (float& w : weight) w = static_cast<float>(cpu::stored<E>(w));
  const std::vector<float> bias = noise(static_cast<std::size_t>(width), 2);
  Table<E> x(rows, width, 3), dy(rows, width, 4), y(rows, width, 5), dx(rows, width, 6), plain(rows, width, 7);
  std::vector<float> dw = noise(weight.size(), 8);
  const std::vector<float> start = dw;

  // PyTorch's Conv1d(padding = taps / 2) with the last output dropped for an even number of taps
  std::vector<double> want_y(static_cast<std::size_t>(rows * width)), want_dx(want_y.size());
  std::vector<double> want_dw(start.begin(), start.end());
  for (int s = 0; s < sequences; ++s) {
    const int first = offsets[static_cast<std::size_t>(s)], length = lengths[static_cast<std::size_t>(s)];
    for (int t = 0; t < length; ++t)
      for (int o = 0; o < width; ++o) {
        double sum = 0;
        for (int k = 0; k < taps; ++k) {
          const int from = t + k - taps / 2;
          if (from < 0 || from >= length) continue;
          for (int i = 0; i < c; ++i) {
            const int channel = o / c * c + i;
            const auto w = static_cast<std::size_t>((o * c + i) * taps + k);
            sum += static_cast<double>(weight[w]) * x(first + from, channel);
            want_dx[static_cast<std::size_t>((first + from) * width + channel)] +=
                static_cast<double>(weight[w]) * dy(first + t, o);
            want_dw[w] += dy(first + t, o) * x(first + from, channel);
          }
        }
        want_y[static_cast<std::size_t>((first + t) * width + o)] = sum;
      }
  }

  cpu::Workspace workspace, products;
  std::vector<typename Kernel::Unit> panels(shape.template panels_size<Kernel>(), typename Kernel::Unit(-1));
  cpu::pack_convolution<Kernel>(shape, weight.data(), panels.data(), workspace);
  for (Table<E>* out : {&y, &dx, &plain})
    for (int t = 0; t < rows; ++t) std::fill_n(out->view().row(t), width, cpu::stored<E>(std::nanf("")));
  cpu::convolution<Kernel>(shape, lane, x.view(), panels.data(), bias.data(), y.view(), workspace, products);
  cpu::convolution<Kernel>(shape, lane, x.view(), panels.data(), nullptr, plain.view(), workspace, products);
  cpu::convolution_back<Kernel>(shape, lane, dy.view(), panels.data(), dx.view(), workspace, products);
  cpu::convolution_gradient<Kernel>(shape, lane, dy.view(), x.view(), dw.data(), workspace, products);

  const auto worse = [](double worst, double error) {
    return error <= worst ? worst : std::isnan(error) ? 1e30 : error;
  };
  double of_y = 0, of_plain = 0, of_dx = 0, of_dw = 0;
  for (int t = 0; t < rows; ++t)
    for (int o = 0; o < width; ++o) {
      const auto at = static_cast<std::size_t>(t * width + o);
      const auto error = [](double got, double wanted) {
        return std::abs(got - wanted) - precision<E> * std::abs(wanted);
      };
      of_plain = worse(of_plain, error(plain(t, o), want_y[at]));
      of_y = worse(of_y, error(y(t, o), want_y[at] + static_cast<double>(bias[static_cast<std::size_t>(o)])));
      of_dx = worse(of_dx, error(dx(t, o), want_dx[at]));
    }
  for (std::size_t i = 0; i < dw.size(); ++i) of_dw = worse(of_dw, std::abs(static_cast<double>(dw[i]) - want_dw[i]));
  const double terms = rounding(c * taps);
  CHECK(of_y <= terms);
  CHECK(of_plain <= terms);
  CHECK(of_dx <= terms);
  CHECK(of_dw <= rounding(rows));
  CHECK(y.guarded());
  CHECK(dx.guarded());
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a grouped convolution and both its gradients are those of the plain loops", Kernel,
                          plain_loops) {
  check<Kernel>(24, 2, 5, {20, 13, 7});
  check<Kernel>(48, 2, 31, {70, 33});
  check<Kernel>(36, 3, 4, {17, 9});
  check<Kernel>(192, 16, 31, {45, 20});
  check<Kernel>(384, 16, 128, {40, 25});
}

TEST_CASE_TEMPLATE_DEFINE("a convolution may have one group, one channel a group, or one tap", Kernel, extremes) {
  check<Kernel>(40, 1, 9, {30, 11});
  check<Kernel>(9, 9, 7, {25, 10});
  check<Kernel>(1, 1, 3, {12});
  check<Kernel>(12, 4, 1, {9, 3});
  check<Kernel>(70, 1, 2, {19});
}

TEST_CASE_TEMPLATE_DEFINE("sequences shorter than the taps, down to one frame, see zeros around", Kernel,
                          short_sequences) {
  check<Kernel>(24, 2, 31, {1, 2, 3, 14, 15, 16, 30});
  check<Kernel>(24, 2, 16, {1, 2, 7, 8, 9, 15});
  check<Kernel>(12, 1, 65, {1, 1, 1});
}

TEST_CASE_TEMPLATE_DEFINE("a convolution is right for every number of channels a group", Kernel, channels) {
  for (int c = 1; c <= 35; ++c) check<Kernel>(2 * c, 2, 6 + c % 2, {11 + c % 5, 5});
}

TEST_CASE_TEMPLATE_APPLY(plain_loops, Kernels);
TEST_CASE_TEMPLATE_APPLY(extremes, Kernels);
TEST_CASE_TEMPLATE_APPLY(short_sequences, Kernels);
TEST_CASE_TEMPLATE_APPLY(channels, Kernels);
