#include <doctest/doctest.h>

#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
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

TEST_CASE_TEMPLATE("a user's function is mapped over every number, and its slope agrees with the derivative", E, float,
                   bf16) {
  const E guard = cpu::stored<E>(7);
  const auto wide = [](E x) { return static_cast<double>(static_cast<float>(x)); };
  const auto nearest = [&](E kept, double exact, double tolerance) {
    return std::abs(wide(kept) - exact) <= tolerance + (sizeof(E) == 2 ? 0x1p-8 * std::abs(exact) : 0);
  };
  for (std::size_t n = 0; n <= 67; ++n) {
    Random random(n, Purpose::user);
    std::vector<E> x(n + 2, guard), y(n + 2, guard), dy(n + 2, guard), dx(n + 2, guard), cube(n + 2, guard);
    for (std::size_t i = 1; i <= n; ++i) {
      x[i] = cpu::stored<E>(static_cast<float>(random.normal()));
      dy[i] = cpu::stored<E>(static_cast<float>(random.normal()));
    }
    cpu::map<Swish, E>({x.data() + 1, n}, {y.data() + 1, n});
    cpu::map_back<Swish, E>({x.data() + 1, n}, {dy.data() + 1, n}, {dx.data() + 1, n});
    cpu::map_back<Cube, E>({x.data() + 1, n}, {dy.data() + 1, n}, {cube.data() + 1, n});
    bool right = true;
    for (auto const& memory : {y, dx, cube}) right &= wide(memory.front()) == 7 && wide(memory.back()) == 7;
    for (std::size_t i = 1; i <= n; ++i) {
      const double number = wide(x[i]), s = 1 / (1 + std::exp(-number));
      right &= nearest(y[i], number * s, 1e-6);
      right &= nearest(dx[i], wide(dy[i]) * (s + number * s * (1 - s)), 1e-5);
      right &= nearest(cube[i], wide(dy[i]) * 3 * number * number, 1e-4);
    }
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE_TEMPLATE("map and its backward may write over their input", E, float, bf16) {
  const auto kept = [](std::initializer_list<float> numbers) {
    std::vector<E> v;
    for (const float number : numbers) v.push_back(cpu::stored<E>(number));
    return v;
  };
  const auto same = [](std::vector<E> const& a, std::vector<E> const& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(E)) == 0;
  };
  auto x = kept({1, 2, 3}), d = kept({1, 10, 100});
  cpu::map_back<Cube, E>({x.data(), 3}, {d.data(), 3}, {d.data(), 3});
  cpu::map<Cube, E>({x.data(), 3}, {x.data(), 3});
  CHECK(same(x, kept({1, 8, 27})));
  CHECK(same(d, kept({3, 120, 2700})));
}

TEST_CASE_TEMPLATE("map keeps infinities and what is not a number, as the function has them", E, float, bf16) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<E> x, y(4), dx(4);
  for (const float number : {2.f, std::nanf(""), infinity, -infinity}) x.push_back(cpu::stored<E>(number));
  cpu::map<Cube, E>({x.data(), 4}, {y.data(), 4});
  cpu::map_back<Cube, E>({x.data(), 4}, {x.data(), 4}, {dx.data(), 4});
  CHECK(static_cast<float>(y[0]) == 8);
  CHECK(std::isnan(static_cast<float>(y[1])));
  CHECK(static_cast<float>(y[2]) == infinity);
  CHECK(static_cast<float>(y[3]) == -infinity);
  CHECK(static_cast<float>(dx[0]) == 24);
  CHECK(std::isnan(static_cast<float>(dx[1])));
  CHECK(static_cast<float>(dx[2]) == infinity);
  CHECK(static_cast<float>(dx[3]) == -infinity);
}
