#include <sotto/attention/policy.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>

using namespace sotto::attention;

namespace {

struct Capped : Softmax {
  static constexpr int reads = 2;
  static constexpr int table(int heads) { return 2 * heads; }
  static constexpr int parameters(int heads) { return 2 * heads; }
  template <class T, class Table> static SOTTO_HOST_DEVICE T score(T const& score, Pair at, Table const& table) {
    return tanh(score) * table(2 * at.head) + table(2 * at.head + 1) * T(at.key - at.query);
  }
};
struct Chunked : Softmax {
  static SOTTO_HOST_DEVICE bool visible(Pair at) { return at.key / 4 == at.query / 4; }
};
struct ScoresInFloat : Softmax {  // a user's slip: works for float only
  template <class T, class Table> static SOTTO_HOST_DEVICE float score(T const& score, Pair, Table const&) {
    return static_cast<float>(sotto::real(score));
  }
};
struct GateForgotten : Softmax {
  static constexpr int gates = 2;
};
struct NotDerived {};

static_assert(AttentionPolicy<Full> && AttentionPolicy<Windowed<3, 0>> && AttentionPolicy<RelativeBias<>>);
static_assert(AttentionPolicy<WavLmBias> && AttentionPolicy<Capped> && AttentionPolicy<Chunked>);
static_assert(!AttentionPolicy<ScoresInFloat> && !AttentionPolicy<GateForgotten> && !AttentionPolicy<NotDerived>);
static_assert(plain_score<Full> && always_visible<Full> && plain_score<Windowed<3>> && always_visible<Windowed<3>>);
static_assert(!plain_score<Capped> && always_visible<Capped> && plain_score<Chunked> && !always_visible<Chunked>);
static_assert(WavLmBias::shared && WavLmBias::gates == 8 && !RelativeBias<>::shared && RelativeBias<>::gates == 0);

}  // namespace

TEST_CASE(
    "a tile's neighbours are exactly the keys that one of its queries may see, and the other way "
    "round") {
  constexpr Span span{3, 1};
  const int length = 20;
  for (int begin = 0; begin < length; ++begin)
    for (int end = begin + 1; end <= length; ++end) {
      int first = length, last = -1, first_query = length, last_query = -1;
      for (int a = begin; a < end; ++a)
        for (int b = 0; b < length; ++b) {
          if (b >= a - 3 && b <= a + 1) first = b < first ? b : first, last = b > last ? b : last;
          if (a >= b - 3 && a <= b + 1)
            first_query = b < first_query ? b : first_query, last_query = b > last_query ? b : last_query;
        }
      const Range keys = keys_of(span, begin, end, length), queries = queries_of(span, begin, end, length);
      CHECK(keys.begin == first);
      CHECK(keys.end == last + 1);
      CHECK(queries.begin == first_query);
      CHECK(queries.end == last_query + 1);
    }
  const Range all = keys_of(Full::span, 5, 6, length);
  CHECK(all.begin == 0);
  CHECK(all.end == length);
}

TEST_CASE("a pair is seen if it lies in the span and is visible") {
  CHECK(seen<Windowed<2>>({0, 5, 3}));
  CHECK(!seen<Windowed<2>>({0, 5, 2}));
  CHECK(seen<Windowed<2, 0>>({0, 5, 5}));
  CHECK(!seen<Windowed<2, 0>>({0, 5, 6}));
  CHECK(seen<Chunked>({0, 5, 7}));
  CHECK(!seen<Chunked>({0, 5, 8}));
}

TEST_CASE("the slopes of a score come from its formula alone") {
  double table[] = {9, 9, 0.7, -0.3};
  const Pair at{1, 4, 6};
  const double raw = 0.4, step = 1e-6;
  const auto slope = score_slope<Capped>(raw, at, table);
  CHECK(slope.score == doctest::Approx(scored<Capped>(raw, at, table)));
  CHECK(slope.by_raw == doctest::Approx((1 - std::tanh(raw) * std::tanh(raw)) * 0.7));
  REQUIRE(slope.used == 2);
  for (int e = 0; e < 2; ++e) {
    double& entry = table[slope.entry[e]];
    const double value = entry;
    entry = value + step;
    const double above = scored<Capped>(raw, at, table);
    entry = value - step;
    const double below = scored<Capped>(raw, at, table);
    entry = value;
    CHECK(slope.by_entry[e] == doctest::Approx((above - below) / (2 * step)).epsilon(1e-8));
  }
  const auto unchanged = score_slope<Full>(raw, at, static_cast<double const*>(nullptr));
  CHECK(unchanged.by_raw == 1);
  CHECK(unchanged.used == 0);
}

TEST_CASE("a gated score has a slope by its gate") {
  std::vector<double> table(static_cast<std::size_t>(WavLmBias::table(2)), 0.25);
  const auto slope = score_slope<WavLmBias>(0.5, {1, 3, 2}, table.data(), 1.5);
  CHECK(slope.score == doctest::Approx(0.5 + 1.5 * 0.25));
  CHECK(slope.by_gate == doctest::Approx(0.25));
  CHECK(slope.by_entry[0] == doctest::Approx(1.5));
}
