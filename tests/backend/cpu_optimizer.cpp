#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <sotto/backend/cpu/optimizer.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

std::vector<float> normals(std::size_t n, std::uint64_t seed) {
  Random random(seed, Purpose::user);
  std::vector<float> out(n);
  for (float& v : out) v = static_cast<float>(random.normal());
  return out;
}

}  // namespace

TEST_CASE("AdamW agrees with the textbook in double over several steps, at every size") {
  for (std::size_t n = 0; n <= 67; ++n) {
    auto p = normals(n + 1, 1), m = std::vector<float>(n + 1), v = m;
    const float outside = p[n];
    std::vector<double> dp(p.begin(), p.end()), dm(n), dv(n);
    for (int step = 1; step <= 6; ++step) {
      const auto g = normals(n + 1, static_cast<std::uint64_t>(10 + step));
      const cpu::AdamwStep settings{0.01, 0.9, 0.98, 1e-6, 0.1, step, 0.5};
      cpu::adamw({p.data(), n}, Array<float const>{g.data(), n}, {m.data(), n}, {v.data(), n}, settings);
      for (std::size_t i = 0; i < n; ++i) {
        const double d = 0.5 * static_cast<double>(g[i]);
        dm[i] = 0.9 * dm[i] + 0.1 * d;
        dv[i] = 0.98 * dv[i] + 0.02 * d * d;
        const double corrected = dm[i] / (1 - std::pow(0.9, step)), square = dv[i] / (1 - std::pow(0.98, step));
        dp[i] = dp[i] - 0.01 * 0.1 * dp[i] - 0.01 * corrected / (std::sqrt(square) + 1e-6);
      }
    }
    bool right = p[n] == outside && m[n] == 0 && v[n] == 0;
    for (std::size_t i = 0; i < n; ++i) right &= std::abs(static_cast<double>(p[i]) - dp[i]) < 1e-6;
    CHECK_MESSAGE(right, n);
  }
}

TEST_CASE("a gradient of zero only decays") {
  std::vector<float> p{2}, g{0}, m{0}, v{0};
  cpu::adamw({p.data(), 1}, Array<float const>{g.data(), 1}, {m.data(), 1}, {v.data(), 1},
             {0.1, 0.9, 0.98, 1e-6, 0.5, 1, 1});
  CHECK(p[0] == doctest::Approx(1.9));
}

TEST_CASE("the squared norm is exact to double rounding, at every size") {
  for (std::size_t n : {0u, 1u, 7u, 8u, 67u, 4095u, 4096u, 4097u, 10001u}) {
    const auto x = normals(n, n);
    long double expected = 0;
    for (float number : x) expected += static_cast<long double>(number) * static_cast<long double>(number);
    CHECK(cpu::squared_norm(Array<float const>{x.data(), n}) ==
          doctest::Approx(static_cast<double>(expected)).epsilon(1e-13));
  }
  const std::vector<float> large(3, 1e30f);
  CHECK(std::isfinite(cpu::squared_norm(Array<float const>{large.data(), 3})));
}
