#include <doctest/doctest.h>

#include <math.h>

#include <cmath>
#include <vector>

#include <sotto/backend/cpu/map.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

struct Swish {
  template <class T> static SOTTO_HOST_DEVICE T apply(T const& x) { return x / (T(1) + exp(-x)); }
};
struct Cube {
  template <class T> static SOTTO_HOST_DEVICE T apply(T const& x) { return x * x * x; }
};

}  // namespace

TEST_CASE("a user's function is mapped over every number, and its slope agrees with the derivative") {
  for (std::size_t n = 0; n <= 67; ++n) {
    Random random(n, Purpose::user);
    std::vector<float> x(n + 1, 7.0f), y(n + 1, 7.0f), dy(n + 1, 7.0f), dx(n + 1, 7.0f), cube(n + 1, 7.0f);
    for (std::size_t i = 0; i < n; ++i) {
      x[i] = static_cast<float>(random.normal());
      dy[i] = static_cast<float>(random.normal());
    }
    cpu::map<Swish, float>({x.data(), n}, {y.data(), n});
    cpu::map_back<Swish, float>({x.data(), n}, {dy.data(), n}, {dx.data(), n});
    cpu::map_back<Cube, float>({x.data(), n}, {dy.data(), n}, {cube.data(), n});
    bool right = y[n] == 7.0f && dx[n] == 7.0f && cube[n] == 7.0f;
    for (std::size_t i = 0; i < n; ++i) {
      const double number = static_cast<double>(x[i]), s = 1 / (1 + std::exp(-number));
      right &= std::abs(static_cast<double>(y[i]) - number * s) < 1e-6;
      right &= std::abs(static_cast<double>(dx[i]) - static_cast<double>(dy[i]) * (s + number * s * (1 - s))) < 1e-5;
      right &= std::abs(static_cast<double>(cube[i]) - static_cast<double>(dy[i]) * 3 * number * number) < 1e-4;
    }
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE("map and its backward may write over their input") {
  std::vector<float> x{1, 2, 3}, d{1, 10, 100};
  cpu::map_back<Cube, float>({x.data(), 3}, {d.data(), 3}, {d.data(), 3});
  cpu::map<Cube, float>({x.data(), 3}, {x.data(), 3});
  CHECK(x == std::vector<float>{1, 8, 27});
  CHECK(d == std::vector<float>{3, 120, 2700});
}
