// Which precision trains faster on this processor: found out, not assumed.
#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <sotto/backend/cpu/product.hpp>
#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/core/texts.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

/// Seconds of the fastest of some products of a slim encoder's size; all in level-2 cache.
template <class Kernel> SOTTO_COLD double product_seconds(int rounds) {
  constexpr int rows = 192, width = 384;
  using Number = typename Kernel::Number;
  const std::vector<float> weight(width * width, .5f);
  std::vector<Number> x(rows * width, stored<Number>(.5f)), y(rows * width);
  std::vector<typename Kernel::Unit> panels(panels_size<Kernel>(width, width));
  pack<Kernel>(weight.data(), width, width, 1, width, panels.data());
  Workspace workspace;
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    product<Kernel>({x.data(), rows, width, width}, {panels.data(), width, width}, {}, {y.data(), rows, width, width},
                    workspace);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// What products run at here, in GFLOP/s of one core.
struct PrecisionRates {
  double fp32 = 0, bf16 = 0;
  /// bf16 where it is faster by more than its smaller precision is worth.
  Precision faster() const { return bf16 > 1.25 * fp32 ? Precision::bf16 : Precision::fp32; }
};

/// Measures them, in some 20 ms. bf16 is 0 where the operating system does not lend the tiles that this build uses.
inline SOTTO_COLD PrecisionRates measure_precisions() {
  constexpr double gigaflops = 2. * 192 * 384 * 384 * 1e-9;
  double wide = 1e9, narrow = 1e9;
  const bool possible = cpu::bf16_available();
  for (int i = 0; i < 4; ++i) {  // in turns: whoever else uses the core slows both
    wide = std::min(wide, cpu::detail::product_seconds<cpu::Fma>(5));
    if (possible) narrow = std::min(narrow, cpu::detail::product_seconds<cpu::BestPairs>(5));
  }
  return {gigaflops / wide, possible ? gigaflops / narrow : 0};
}

}  // namespace sotto::inline SOTTO_ABI
