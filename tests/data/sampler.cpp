#include <doctest/doctest.h>

#include <map>
#include <numeric>
#include <set>
#include <sotto/core/philox.hpp>
#include <sotto/data/sampler.hpp>

using sotto::Crop;
using sotto::Sampler;

namespace {

std::vector<std::int32_t> lengths(std::size_t n) {
  sotto::Random random(3, sotto::Purpose::user);
  std::vector<std::int32_t> frames(n);
  for (auto& f : frames) f = 2 + static_cast<std::int32_t>(random.below(400));
  return frames;
}
std::vector<std::uint32_t> indices(std::size_t n, std::uint32_t first = 0) {
  std::vector<std::uint32_t> i(n);
  std::iota(i.begin(), i.end(), first);
  return i;
}

}  // namespace

TEST_CASE("each epoch takes every utterance once, in another order") {
  std::size_t const n = 1237;
  Sampler const sampler(indices(n, 50), lengths(n), {.rows = 1500, .crop = 300}, 7);
  Sampler::Plan plan;
  std::vector<std::uint32_t> drawn;
  for (std::uint64_t p = 0; p < 3 * n; p = plan.next) {
    sampler.plan(p, plan);
    REQUIRE(plan.next == p + plan.crops.size());
    for (auto const& crop : plan.crops) drawn.push_back(crop.utterance);
  }
  std::vector<std::vector<std::uint32_t>> epochs;
  for (std::size_t e = 0; e < 3; ++e) {
    auto const from = drawn.begin() + static_cast<std::ptrdiff_t>(e * n);
    epochs.emplace_back(from, from + static_cast<std::ptrdiff_t>(n));
    std::set<std::uint32_t> const distinct(epochs[e].begin(), epochs[e].end());
    CHECK(distinct.size() == n);
    CHECK(*distinct.begin() == 50);
    CHECK(*distinct.rbegin() == 50 + n - 1);
  }
  CHECK(epochs[0] != epochs[1]);
  CHECK(epochs[1] != epochs[2]);
}

TEST_CASE("a batch depends on seed and position alone") {
  auto const frames = lengths(200);
  Sampler const one(indices(200), frames, {.rows = 2000, .crop = 200}, 7);
  Sampler const other(indices(200), frames, {.rows = 2000, .crop = 200}, 7);
  Sampler const seeded(indices(200), frames, {.rows = 2000, .crop = 200}, 8);
  Sampler::Plan a, b, c;
  for (std::uint64_t p : {900u, 3u, 199u, 200u, 0u, 900u}) {
    one.plan(p, a);
    other.plan(p, b);
    seeded.plan(p, c);
    CHECK(a.crops == b.crops);
    CHECK(a.next == b.next);
    CHECK(a.crops != c.crops);
  }
}

TEST_CASE("a batch is filled, never over, and holds at least one crop") {
  auto const frames = lengths(300);
  for (int rows : {300, 777, 4000}) {
    Sampler const sampler(indices(300), frames, {.rows = rows, .crop = 300}, 1);
    Sampler::Plan plan, next;
    for (std::uint64_t p = 0; p < 900; p = plan.next) {
      sampler.plan(p, plan);
      int sum = 0;
      for (auto const& crop : plan.crops) sum += crop.frames;
      REQUIRE(plan.crops.size() >= 1);
      REQUIRE(sum == plan.rows);
      REQUIRE(sum <= rows);
      sampler.plan(plan.next, next);
      REQUIRE(sum + next.crops.front().frames > rows);
    }
  }
}

TEST_CASE("a long utterance is cut anywhere inside it, at a frame, and elsewhere each epoch") {
  std::vector<std::int32_t> const frames{103, 60};
  Sampler const sampler({4, 9}, frames, {.rows = 200, .crop = 100, .hop = 160}, 5);
  Sampler::Plan plan;
  std::map<int, int> cuts;
  for (std::uint64_t p = 0; p < 8000; p = plan.next) {
    sampler.plan(p, plan);
    for (Crop const& crop : plan.crops) {
      REQUIRE(crop.first_sample == crop.first_frame * 160);
      if (crop.utterance == 9) {
        REQUIRE(crop.first_frame == 0);
        REQUIRE(crop.frames == 60);
      } else {
        REQUIRE(crop.frames == 100);
        ++cuts[crop.first_frame];
      }
    }
  }
  REQUIRE(cuts.size() == 4);  // 0 … 3, the last included, about equally often
  for (auto const& [first, times] : cuts) {
    CHECK(first <= 3);
    CHECK(times > 850);
    CHECK(times < 1150);
  }
}

TEST_CASE("the cut of an utterance does not depend on the batch it falls in") {
  auto const frames = lengths(100);
  Sampler const small(indices(100), frames, {.rows = 100, .crop = 50}, 2),
      large(indices(100), frames, {.rows = 2000, .crop = 50}, 2);
  Sampler::Plan plan;
  std::vector<Crop> a, b;
  for (std::uint64_t p = 0; p < 300; p = plan.next) {
    small.plan(p, plan);
    a.insert(a.end(), plan.crops.begin(), plan.crops.end());
  }
  for (std::uint64_t p = 0; p < 300; p = plan.next) {
    large.plan(p, plan);
    b.insert(b.end(), plan.crops.begin(), plan.crops.end());
  }
  a.resize(300);
  b.resize(300);
  CHECK(a == b);
}

TEST_CASE("utterances below the minimum are never drawn, and none left is an error") {
  std::vector<std::int32_t> const frames{1, 40, 0, 30};
  Sampler const sampler({10, 11, 12, 13}, frames, {.rows = 100, .crop = 40}, 5);
  CHECK(sampler.size() == 2);
  Sampler::Plan plan;
  for (std::uint64_t p = 0; p < 20; p = plan.next) {
    sampler.plan(p, plan);
    for (auto const& crop : plan.crops) CHECK((crop.utterance == 11 || crop.utterance == 13));
  }
  std::vector<std::int32_t> const tiny{1, 1};
  CHECK_THROWS_AS(Sampler({0, 1}, tiny, {}, 0), sotto::Error);
  CHECK_THROWS_AS(Sampler({0, 1, 3, 4}, frames, {.rows = 30, .crop = 40}, 0), sotto::Error);
  CHECK_THROWS_AS(Sampler({0, 1, 3, 4}, frames, {.rows = 30, .crop = 1}, 0), sotto::Error);
}
