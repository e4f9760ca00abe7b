#include <sotto/backend/cpu/weight_norm.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <sotto/core/dual.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

std::vector<float> noise(int n, std::uint64_t seed) {
  Random random(seed, Purpose::user);
  std::vector<float> numbers(static_cast<std::size_t>(n));
  for (float& x : numbers) x = static_cast<float>(random.normal());
  return numbers;
}

/// g v / |v|, tap by tap, over any scalar.
template <class T> std::vector<T> definition(int rows, int taps, std::vector<T> const& v, std::vector<T> const& g) {
  std::vector<T> w(v.size());
  for (int k = 0; k < taps; ++k) {
    T squares(0);
    const auto at = [&](int j) { return static_cast<std::size_t>(j * taps + k); };
    for (int j = 0; j < rows; ++j) squares += v[at(j)] * v[at(j)];
    using std::sqrt;
    for (int j = 0; j < rows; ++j) w[at(j)] = g[static_cast<std::size_t>(k)] * v[at(j)] / sqrt(squares);
  }
  return w;
}

}  // namespace

TEST_CASE("weight norm and its backward are those of the definition, for any rows and taps") {
  cpu::Workspace workspace;
  for (const int rows : {1, 3, 40})
    for (const int taps : {1, 5, 16, 31, 128}) {
      CAPTURE(rows);
      CAPTURE(taps);
      const auto v = noise(rows * taps, 1), g = noise(taps, 2), dw = noise(rows * taps, 3), start = noise(taps, 4);
      std::vector<float> w(v.size()), dv = dw, dg = start;
      cpu::weight_norm(rows, taps, v.data(), g.data(), w.data(), workspace);
      cpu::weight_norm_back(rows, taps, v.data(), g.data(), dv.data(), dg.data(), workspace);
      const auto wanted = definition<double>(rows, taps, std::vector<double>(v.begin(), v.end()), {g.begin(), g.end()});
      for (std::size_t i = 0; i < w.size(); ++i)
        CHECK(static_cast<double>(w[i]) == doctest::Approx(wanted[i]).epsilon(1e-6));
      // along random directions of v and g, by dual numbers
      using D = Dual<double, 1>;
      Random random(5, Purpose::user);
      for (int direction = 0; direction < 4; ++direction) {
        std::vector<D> moved_v(v.begin(), v.end()), moved_g(g.begin(), g.end());
        double expected = 0, actual = 0, size = 0;
        const auto along = [&](D& x, double gradient) {
          x.by[0] = random.normal();
          expected += x.by[0] * gradient;
          size += std::abs(x.by[0] * gradient);
        };
        for (std::size_t i = 0; i < v.size(); ++i) along(moved_v[i], static_cast<double>(dv[i]));
        for (std::size_t k = 0; k < g.size(); ++k)
          along(moved_g[k], static_cast<double>(dg[k]) - static_cast<double>(start[k]));
        const auto out = definition<D>(rows, taps, moved_v, moved_g);
        for (std::size_t i = 0; i < out.size(); ++i) {
          actual += out[i].by[0] * static_cast<double>(dw[i]);
          size += std::abs(out[i].by[0] * static_cast<double>(dw[i]));
        }
        CHECK(std::abs(actual - expected) <= 1e-6 * size);
      }
    }
}
