#include <doctest/doctest.h>

#include <sotto/optim/schedule.hpp>

using sotto::learning_rate;

TEST_CASE("the rate rises linearly through the warmup and falls linearly to 0") {
  const sotto::OptimizerOptions o{.learning_rate = 2, .warmup = .25};
  CHECK(learning_rate(o, 0) == 0);
  CHECK(learning_rate(o, .125) == doctest::Approx(1));
  CHECK(learning_rate(o, .25) == doctest::Approx(2));
  CHECK(learning_rate(o, .625) == doctest::Approx(1));
  CHECK(learning_rate(o, 1) == 0);
}

TEST_CASE("no warmup begins at the top, a whole one never falls, and nothing is negative") {
  CHECK(learning_rate({.learning_rate = 3, .warmup = 0}, 0) == doctest::Approx(3));
  CHECK(learning_rate({.learning_rate = 3, .warmup = 1}, .5) == doctest::Approx(1.5));
  CHECK(learning_rate({.learning_rate = 3, .warmup = .1}, 1.2) == 0);
  CHECK(learning_rate({.learning_rate = 3, .warmup = .1}, -.2) == 0);
}
