#include <sotto/core/dual.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>

using sotto::Dual;
using sotto::real;

namespace {

// A formula as a user would write one: unqualified functions, constants of any arithmetic type.
template <class T> T everything(T const& x, T const& y) {
  T z = exp(-x * x) + log(y + 3) * sqrt(y) / (1.5f + x * x) - tanh(x * y) * 2;
  z += erf(x - 0.25) + pow(y, 1.5) - sin(x) * cos(y) + 1 / y;
  z *= T(0.5);
  z -= abs(x - y) + fabs(x) + fmax(x, y) * fmin(x, T(0.1f));
  z /= y + 2;
  return 3 - (x > y ? z : -z) - (2 * x);
}

}  // namespace

TEST_CASE("a dual number carries the derivatives of a formula by each of its variables") {
  using D = Dual<double, 2>;
  for (const double x : {-0.8, 0.3, 1.7})
    for (const double y : {0.5, 2.2}) {
      const D z = everything(D::variable(x, 0), D::variable(y, 1));
      const double step = 1e-6;
      CHECK(z.value == doctest::Approx(everything(x, y)).epsilon(1e-14));
      CHECK(z.by[0] == doctest::Approx((everything(x + step, y) - everything(x - step, y)) / (2 * step)).epsilon(1e-7));
      CHECK(z.by[1] == doctest::Approx((everything(x, y + step) - everything(x, y - step)) / (2 * step)).epsilon(1e-7));
    }
}

TEST_CASE("dual numbers nest, which gives second derivatives") {
  using D = Dual<double, 1>;
  using E = Dual<D, 1>;
  const double x = 0.7, y = 1.9, step = 1e-5;
  const E z = everything(E::variable(D::variable(x, 0), 0), E(y));
  const auto slope = [&](double at) { return everything(D::variable(at, 0), D(y)).by[0]; };
  CHECK(real(z) == doctest::Approx(everything(x, y)).epsilon(1e-14));
  CHECK(z.by[0].value == doctest::Approx(slope(x)).epsilon(1e-13));
  CHECK(z.by[0].by[0] == doctest::Approx((slope(x + step) - slope(x - step)) / (2 * step)).epsilon(1e-7));
}

TEST_CASE("dual numbers compare by value, and convert from constants") {
  using D = Dual<float, 3>;
  const D a = D::variable(2, 0), b = D::variable(2, 1);
  CHECK(a == b);
  CHECK(a != 3);
  CHECK(a < 2.5);
  CHECK(a >= b);
  CHECK(D(0.5f) + 1 == 1.5f);
  CHECK(max(a, D(3)).by[0] == 0);
  CHECK(min(a, D(3)).by[0] == 1);
  CHECK(real(a) == 2.0f);
}

TEST_CASE("a dual number without variables is a number") {
  using D = Dual<float, 0>;
  CHECK(real(exp(D(0)) * 2 + D(1)) == 3.0f);
}
