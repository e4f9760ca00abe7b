#include <sotto/backend/cpu/tiles.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "kernels.hpp"

using namespace sotto;
using namespace sotto::test;

TEST_CASE("bf16 is available wherever its kernel is not AMX's") {
#ifdef __AMX_BF16__
  CHECK(cpu::bf16_available() == cpu::TileRegisters::available());
#else
  CHECK(cpu::bf16_available());
#endif
}

#ifdef __AVX512F__
TEST_CASE("rows and columns become whole steps of tiles, zeros beyond, whatever stood there") {
  using Kernel = cpu::Tiles<TilesInLoops>;
  for (const int k : {1, 2, 31, 32, 33, 70, 767, 768}) {
    CAPTURE(k);
    const int units = cpu::units_of<Kernel>(k), n = 32;
    CHECK(units % 16 == 0);
    std::vector<bf16> dy(static_cast<std::size_t>(k * n)), column(static_cast<std::size_t>(k));
    for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = {static_cast<std::uint16_t>(i + 1)};
    std::vector<std::uint32_t> left(static_cast<std::size_t>(Kernel::left_size), 0xffffffffu),
        row(static_cast<std::size_t>(units) + 1, 0xffffffffu);
    Kernel::copy_columns(dy.data(), n, k, n, n, left.data());
    bool right = true;
    for (int i = 0; i < n; ++i) {
      for (int t = 0; t < k; ++t) column[static_cast<std::size_t>(t)] = dy[static_cast<std::size_t>(t * n + i)];
      Kernel::copy_row(column.data(), k, row.data());
      for (int u = 0; u < units; ++u) {
        const auto at = [&](int t) {
          return t < k ? static_cast<std::uint32_t>(column[static_cast<std::size_t>(t)].bits) : 0u;
        };
        const std::uint32_t wanted = at(2 * u) | at(2 * u + 1) << 16;
        right = right && row[static_cast<std::size_t>(u)] == wanted &&
                left[static_cast<std::size_t>(i * Kernel::left_stride + u)] == wanted;
      }
    }
    CHECK(right);
    CHECK(row.back() == 0xffffffffu);
  }
}
#endif
