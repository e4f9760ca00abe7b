#include <sotto/backend/cpu/pairs.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include <sotto/core/philox.hpp>

#include "kernels.hpp"

using namespace sotto;

namespace {

std::uint32_t pair_of(float low, float high) {
  return bf16::of(low).bits | static_cast<std::uint32_t>(bf16::of(high).bits) << 16;
}

}  // namespace

TEST_CASE("panels hold two numbers of a column in a unit, the upper one in the lower half, zeros beyond") {
  for (const int k : {1, 2, 7, 40, 65})
    for (const int n : {1, 3, cpu::lanes, cpu::lanes + 1, cpu::panel_columns, cpu::panel_columns + 5}) {
      CAPTURE(k);
      CAPTURE(n);
      Random random(1, Purpose::user);
      std::vector<float> b(static_cast<std::size_t>(k * n)), transposed(b.size());
      for (int p = 0; p < k; ++p)
        for (int j = 0; j < n; ++j)
          b[static_cast<std::size_t>(p * n + j)] = transposed[static_cast<std::size_t>(j * k + p)] =
              static_cast<float>(random.normal());
      const auto number = [&](int p, int j) { return p < k && j < n ? b[static_cast<std::size_t>(p * n + j)] : 0.f; };
      std::vector<std::uint32_t> panels(cpu::panels_size<cpu::Pairs>(k, n), 1), same(panels.size(), 1);
      cpu::pack<cpu::Pairs>(b.data(), k, n, n, 1, panels.data());
      cpu::pack<cpu::Pairs>(transposed.data(), k, n, 1, k, same.data());
      CHECK(panels == same);
      const int units = cpu::units_of<cpu::Pairs>(k);
      bool right = true;
      for (int j = 0; j < (n + cpu::panel_columns - 1) / cpu::panel_columns * cpu::panel_columns; ++j)
        for (int u = 0; u < units; ++u) {
          const auto at = static_cast<std::size_t>((j / cpu::panel_columns * units + u) * cpu::panel_columns +
                                                   j % cpu::panel_columns);
          right = right && panels[at] == pair_of(number(2 * u, j), number(2 * u + 1, j));
        }
      CHECK(right);
    }
}
