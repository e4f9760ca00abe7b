#include <doctest/doctest.h>

#include <string>

#include <sotto/budget/units.hpp>

using namespace sotto;
using namespace sotto::literals;

TEST_CASE("a budget's text is read back as the same budget") {
  for (Budget const& budget : {Budget(1e13_flop), Budget(18'000'000'000'000'000'000_flop), Budget(updates(200)),
                               Budget(audio(2h)), Budget(wall(10min)), Budget(wall(90s))})
    CHECK(Budget::parse(budget.text()) == budget);
}

TEST_CASE("budgets are read as people write them") {
  CHECK(Budget::parse("1e13flop") == Budget(1e13_flop));
  CHECK(Budget::parse("5e12flops") == Budget(5e12_flop));
  CHECK(Budget::parse("1update") == Budget(updates(1)));
  CHECK(Budget::parse("1.5h-audio") == Budget(audio(90min)));
  CHECK(Budget::parse("10min-wall") == Budget(wall(10min)));
  CHECK(Budget::parse("30s-wall") == Budget(wall(30s)));
}

TEST_CASE("anything else is refused with what to write") {
  for (char const* text : {"", "flop", "1e13", "1e13 flop", "-1updates", "0updates", "1.5updates", "nanflop", "infflop",
                           "1e19h", "2h", "2h-sun", "2d-wall", "1e20flop", "10minwall", "5flopx"}) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(Budget::parse(text), doctest::Contains("write 1e13flop, 200updates, 2h-audio or 10min-wall"),
                         Error);
  }
}

TEST_CASE("FLOPs add, compare and divide exactly") {
  static_assert(1e3_flop + 24_flop == Flops{1024});
  static_assert(3 * Flops{5} - Flops{1} == Flops{14});
  static_assert(Flops{1} < Flops{2} && Flops{3} / Flops{4} == .75);
  CHECK(Flops{(std::uint64_t{1} << 60) + 1} != Flops{std::uint64_t{1} << 60});
}
