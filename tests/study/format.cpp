#include <doctest/doctest.h>

#include <limits>

#include <sotto/study/format.hpp>

TEST_CASE("compute is written with an SI prefix and three digits") {
  CHECK(sotto::format_flops(1e13) == "10 TFLOP");
  CHECK(sotto::format_flops(1.25e13) == "12.5 TFLOP");
  CHECK(sotto::format_flops(9.999e14) == "1 PFLOP");
  CHECK(sotto::format_flops(123) == "123 FLOP");
  CHECK(sotto::format_flops(0) == "0 FLOP");
  CHECK(sotto::format_flops(4.2e24) == "4200 ZFLOP");
  CHECK(sotto::format_flops(std::numeric_limits<double>::infinity()) == "n/a");
}

TEST_CASE("durations are written in the two units that matter") {
  CHECK(sotto::format_duration(0) == "0 s");
  CHECK(sotto::format_duration(.0421) == "0.042 s");
  CHECK(sotto::format_duration(43.4) == "43 s");
  CHECK(sotto::format_duration(59.7) == "1 min 00 s");
  CHECK(sotto::format_duration(125) == "2 min 05 s");
  CHECK(sotto::format_duration(3599.8) == "1 h 00 min");
  CHECK(sotto::format_duration(4320) == "1 h 12 min");
  CHECK(sotto::format_duration(3 * 86400 + 4 * 3600) == "3 d 04 h");
  CHECK(sotto::format_duration(std::numeric_limits<double>::quiet_NaN()) == "n/a");
}

TEST_CASE("percentages and plain numbers are rounded, and never minus zero") {
  CHECK(sotto::format_percent(.5486) == "54.9 %");
  CHECK(sotto::format_percent(-.0001) == "0.0 %");
  CHECK(sotto::format_fixed(-0.0, 2) == "0.00");
  CHECK(sotto::format_significant(3.4049, 3) == "3.4");
  CHECK(sotto::format_significant(1250, 3) == "1250");
  CHECK(sotto::format_significant(-0.00123, 2) == "-0.0012");
}
