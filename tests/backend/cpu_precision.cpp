#include <doctest/doctest.h>

#include <sotto/backend/cpu/precision.hpp>

using namespace sotto;

TEST_CASE("products are measured in both precisions, where both are possible, and run as fast as a core may") {
  const PrecisionRates rates = measure_precisions();
  CHECK(rates.fp32 > 1e-3);  // GFLOP/s; sanitizers are slow
  CHECK(rates.fp32 < 1e5);
  if (cpu::bf16_available()) {
    CHECK(rates.bf16 > 1e-3);
    CHECK(rates.bf16 < 1e5);
  } else {
    CHECK(rates.bf16 == 0);
    CHECK(rates.faster() == Precision::fp32);
  }
}

TEST_CASE("bf16 is chosen where it is faster by more than a quarter") {
  CHECK(PrecisionRates{100, 80}.faster() == Precision::fp32);
  CHECK(PrecisionRates{100, 100}.faster() == Precision::fp32);
  CHECK(PrecisionRates{100, 124}.faster() == Precision::fp32);
  CHECK(PrecisionRates{100, 125}.faster() == Precision::fp32);
  CHECK(PrecisionRates{100, 126}.faster() == Precision::bf16);
  CHECK(PrecisionRates{100, 400}.faster() == Precision::bf16);
}

TEST_CASE("where bf16 could not be measured, fp32 is chosen") {
  CHECK(PrecisionRates{100, 0}.faster() == Precision::fp32);
  CHECK(PrecisionRates{}.faster() == Precision::fp32);
}
