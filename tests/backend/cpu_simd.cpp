#include <sotto/backend/cpu/simd.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

using namespace sotto;

namespace {

constexpr float guard = -54321.f;
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

double gelu_of(double x) { return .5 * x * (1 + std::erf(x / std::sqrt(2.))); }
double slope_of(double x) {
  return .5 * (1 + std::erf(x / std::sqrt(2.))) + x * std::exp(-.5 * x * x) / std::sqrt(2 * 3.141592653589793);
}

}  // namespace

namespace {
// f over [low, high]: the worst of |got - wanted| / scale(wanted, x).
template <class F, class Wanted, class Scale>
double worst_of(double low, double high, F&& f, Wanted&& wanted, Scale&& scale) {
  double worst = 0;
  constexpr int points = 400000;
  for (int i = 0; i < points; i += cpu::lanes) {
    float x[cpu::lanes], y[cpu::lanes];
    for (int l = 0; l < cpu::lanes; ++l) x[l] = static_cast<float>(low + (high - low) * (i + l) / points);
    cpu::store(y, f(cpu::load(x)));
    for (int l = 0; l < cpu::lanes; ++l) {
      const double at = static_cast<double>(x[l]), w = wanted(at);
      const double error = std::abs(static_cast<double>(y[l]) - w) / scale(w, at);
      worst = error <= worst ? worst : std::isnan(error) ? 1e30 : error;
    }
  }
  return worst;
}
float first_of(cpu::Vec v) {
  float part[cpu::lanes];
  cpu::store(part, v);
  return part[0];
}
}  // namespace

TEST_CASE("the vector functions are as exact as promised") {
  const auto relative = [](double w, double) { return std::abs(w); };
  const auto absolute = [](double, double) { return 1.; };
  const auto by_size = [](double, double x) { return std::max(1., std::abs(x)); };
  // without fused multiply-adds each product is rounded too; a sanitizer keeps the compiler from making them
  const cpu::Vec odd = cpu::splat(1 + 0x1p-12f), square = cpu::splat(1 + 0x1p-11f);
  const double of_gelu = first_of(odd * odd - square) != 0 ? 2e-7 : 2.5e-7;
  CHECK(worst_of(
            -86.9, 88.6, [](cpu::Vec x) { return cpu::fast_exp(x); }, [](double x) { return std::exp(x); }, relative) <
        1.5e-7);
  CHECK(worst_of(
            -12, 12, [](cpu::Vec x) { return cpu::gelu(x); }, gelu_of, by_size) < of_gelu);
  CHECK(worst_of(
            -12, 12, [](cpu::Vec x) { return cpu::gelu_slope(x); }, slope_of, absolute) < 4e-7);
}

TEST_CASE("the vector functions know their limits") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(first_of(cpu::fast_exp(cpu::splat(0))) == 1);
  CHECK(first_of(cpu::fast_exp(cpu::splat(-infinity))) == 0);
  CHECK(first_of(cpu::fast_exp(cpu::splat(-1000))) == 0);
  CHECK(first_of(cpu::fast_exp(cpu::splat(infinity))) == infinity);
  CHECK(first_of(cpu::fast_exp(cpu::splat(89))) == infinity);
  CHECK(std::isnan(first_of(cpu::fast_exp(cpu::splat(static_cast<float>(not_a_number))))));
  CHECK(first_of(cpu::gelu(cpu::splat(0))) == 0);
  CHECK(first_of(cpu::gelu(cpu::splat(50))) == 50);
  CHECK(first_of(cpu::gelu(cpu::splat(-50))) == 0);
  CHECK(first_of(cpu::gelu_slope(cpu::splat(1e20f))) == 1);
  CHECK(first_of(cpu::gelu_slope(cpu::splat(-1e20f))) == 0);
}

TEST_CASE("parts of a vector touch nothing beyond") {
  std::vector<float> from(cpu::lanes + 2), to(cpu::lanes + 2, guard);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i + 1);
  for (int n = 0; n <= cpu::lanes; ++n) {
    // exactly n floats, so that a sanitizer sees one more
    const std::vector<float> exact(from.begin(), from.begin() + n);
    const cpu::Vec v = cpu::load_part(exact.data(), n);
    float all[cpu::lanes];
    cpu::store(all, v);
    for (int i = 0; i < cpu::lanes; ++i) CHECK(all[i] == (i < n ? static_cast<float>(i + 1) : 0));
    std::fill(to.begin(), to.end(), guard);
    cpu::store_part(to.data() + 1, v, n);
    CHECK(to[0] == guard);
    for (int i = 0; i < n; ++i) CHECK(to[static_cast<std::size_t>(i + 1)] == static_cast<float>(i + 1));
    CHECK(to[static_cast<std::size_t>(n + 1)] == guard);
  }
}

TEST_CASE("a square of vectors is transposed") {
  std::uint32_t numbers[cpu::lanes][cpu::lanes], transposed[cpu::lanes][cpu::lanes];
  for (int i = 0; i < cpu::lanes; ++i)
    for (int j = 0; j < cpu::lanes; ++j) numbers[i][j] = static_cast<std::uint32_t>(100 * i + j);
  cpu::VecBits rows[cpu::lanes];
  std::memcpy(rows, numbers, sizeof rows);
  cpu::transpose(rows);
  std::memcpy(transposed, rows, sizeof rows);
  for (int i = 0; i < cpu::lanes; ++i)
    for (int j = 0; j < cpu::lanes; ++j) CHECK(transposed[i][j] == numbers[j][i]);
}
