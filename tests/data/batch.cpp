#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include <sotto/core/philox.hpp>
#include <sotto/data/batch.hpp>

using namespace sotto;

TEST_CASE("lanes get whole crops, longest first, and none more than it may") {
  Random random(5, Purpose::user);
  for (int trial = 0; trial < 200; ++trial) {
    const int slots = 1 + static_cast<int>(random.below(4)), lane_rows = 100 + static_cast<int>(random.below(900)),
              longest = 20 + static_cast<int>(random.below(700));
    std::vector<int> lengths(1 + random.below(60)), order, lane_of;
    for (int& n : lengths) n = 2 + static_cast<int>(random.below(static_cast<std::uint32_t>(longest - 1)));
    const int rows = std::accumulate(lengths.begin(), lengths.end(), 0);
    LanePacking packing(lane_rows, slots);
    packing.deal(lengths, order, lane_of);
    const int lanes = packing.lanes(rows, lengths.size());
    REQUIRE(lanes >= 1);
    std::vector<int> filled(static_cast<std::size_t>(lanes), 0), crops(filled);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      REQUIRE(lane_of[i] >= 0);
      REQUIRE(lane_of[i] < lanes);
      filled[static_cast<std::size_t>(lane_of[i])] += lengths[i];
      ++crops[static_cast<std::size_t>(lane_of[i])];
    }
    CHECK(*std::min_element(crops.begin(), crops.end()) >= 1);  // a lane without a crop would be a slot without work
    CHECK(*std::max_element(filled.begin(), filled.end()) <= packing.most_rows(rows, longest));
    CHECK((lanes % slots == 0 || lanes == static_cast<int>(lengths.size())));
    for (std::size_t i = 1; i < order.size(); ++i) {
      const int before = lengths[static_cast<std::size_t>(order[i - 1])],
                here = lengths[static_cast<std::size_t>(order[i])];
      CHECK((before > here || (before == here && order[i - 1] < order[i])));
    }
  }
}

TEST_CASE("slots finish together: equal crops are dealt evenly") {
  LanePacking packing(1000, 2);
  std::vector<int> order, lane_of;
  const std::vector<int> lengths(24, 250);
  packing.deal(lengths, order, lane_of);
  std::vector<int> crops(static_cast<std::size_t>(packing.lanes(6000, 24)), 0);
  for (const int lane : lane_of) ++crops[static_cast<std::size_t>(lane)];
  CHECK(crops == std::vector<int>(6, 4));
}

TEST_CASE("a lane shows what it holds, and clearing it keeps its room") {
  PackedLane lane;
  lane.clear();
  lane.reserve(50, 3);
  lane.offsets = {0, 5, 12, 20};
  lane.masked = {1, 7};
  CHECK(lane.rows() == 20);
  CHECK(lane.sequences() == 3);
  CHECK(lane.longest() == 8);
  CHECK(lane.view().masked_rows == 2);
  const auto room = lane.masked.capacity();
  lane.clear();
  CHECK(lane.rows() == 0);
  CHECK(lane.longest() == 0);
  CHECK(lane.masked.capacity() == room);
  CHECK(lane.features.size() == 150);
}
