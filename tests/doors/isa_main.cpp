#include "isa.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <sotto/core/philox.hpp>

TEST_CASE("translation units built for different instruction sets live in one program") {
  std::vector<float> x(64 * 64);
  sotto::Random random(1, sotto::Purpose::user);
  for (auto& value : x) value = static_cast<float>(random.normal());
  const auto any = product_for_any_cpu(x, 33, 48);
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    MESSAGE("SKIPPED: this processor has no AVX2");
    return;
  }
  // had the linker merged the two, one of them would have run the other's kernels: the wide one with more digits of
  // rounding in common, or the plain one with instructions that its processor may lack
  const auto wide = product_for_wide_cpus(x, 33, 48);
  REQUIRE(any.size() == wide.size());
  double worst = 0;
  for (std::size_t i = 0; i < any.size(); ++i) worst = std::max(worst, static_cast<double>(std::abs(any[i] - wide[i])));
  CHECK(worst < 1e-4);
  CHECK(training_for_any_cpu() == doctest::Approx(training_for_wide_cpus()).epsilon(1e-4));
}
