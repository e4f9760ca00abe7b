#include <doctest/doctest.h>

#include <vector>

#include <sotto/augment/chain.hpp>
#include <sotto/augment/spec_augment.hpp>

using namespace sotto;

namespace {

constexpr int rows = 60, bands = 20, width = 2 * bands;

struct Masked {
  std::vector<float> numbers = std::vector<float>(rows * width, 1.f);
  explicit Masked(augment::SpecAugment<2>::Options const& options, std::uint64_t key) {
    Random random(7, Purpose::augment, 0, key);
    augment::SpecAugment<2>::apply(options, random, {numbers.data(), rows, width, width});
  }
  bool hidden(int t, int c) const { return numbers[static_cast<std::size_t>(t * width + c)] == 0; }
  int hidden_rows() const {
    int n = 0;
    for (int t = 0; t < rows; ++t) {
      bool all = true;
      for (int c = 0; c < width; ++c) all &= hidden(t, c);
      n += all;
    }
    return n;
  }
  int hidden_bands() const {
    int n = 0;
    for (int c = 0; c < bands; ++c) {
      bool all = true;
      for (int t = 0; t < rows; ++t) all &= hidden(t, c) && hidden(t, bands + c);  // the same band in both sub-frames
      n += all;
    }
    return n;
  }
  int hidden_in_all() const {
    int n = 0;
    for (int t = 0; t < rows; ++t)
      for (int c = 0; c < width; ++c) n += hidden(t, c);
    return n;
  }
};

}  // namespace

TEST_CASE("off, nothing changes") { CHECK(Masked({}, 1).hidden_in_all() == 0); }

TEST_CASE("a time mask hides one span of whole frames, at most a fifth of the crop, and every width comes up") {
  std::vector<int> seen(rows, 0);
  for (std::uint64_t key = 0; key < 2000; ++key) {
    const Masked masked({.time_masks = 1, .time_width = 100}, key);
    const int n = masked.hidden_rows();
    REQUIRE(masked.hidden_in_all() == n * width);
    REQUIRE(n <= rows / 5);
    ++seen[static_cast<std::size_t>(n)];
    int edges = 0;
    for (int t = 1; t < rows; ++t) edges += masked.hidden(t, 0) != masked.hidden(t - 1, 0);
    REQUIRE(edges <= 2);
  }
  for (int n = 0; n <= rows / 5; ++n) {  // uniform in 0 ... 12: 154 each, deviation 12
    CHECK(seen[static_cast<std::size_t>(n)] > 100);
    CHECK(seen[static_cast<std::size_t>(n)] < 210);
  }
}

TEST_CASE("a frequency mask hides the same bands in each stacked frame") {
  std::vector<int> seen(bands + 1, 0);
  for (std::uint64_t key = 0; key < 500; ++key) {
    const Masked masked({.frequency_masks = 1, .frequency_width = 4}, key);
    const int n = masked.hidden_bands();
    REQUIRE(n <= 4);
    REQUIRE(masked.hidden_in_all() == 2 * n * rows);
    ++seen[static_cast<std::size_t>(n)];
  }
  for (int n = 0; n <= 4; ++n) CHECK(seen[static_cast<std::size_t>(n)] > 60);
}

TEST_CASE("masks are a function of the random stream, and a crop of one frame survives") {
  const augment::SpecAugment<2>::Options options{.time_masks = 2, .time_width = 9, .frequency_masks = 2};
  CHECK(Masked(options, 3).numbers == Masked(options, 3).numbers);
  CHECK(Masked(options, 3).numbers != Masked(options, 4).numbers);
  std::vector<float> one(width, 1.f);
  Random random(1, Purpose::augment);
  augment::SpecAugment<2>::apply({.time_masks = 5, .time_width = 50, .frequency_masks = 1, .frequency_width = 99},
                                 random, {one.data(), 1, width, width});
}

TEST_CASE("a chain applies its links in order, each with its own options") {
  struct Add {
    struct Options {
      float value = 1;
    };
    static void apply(Options const& o, Random&, Matrix<float> x) { x.row(0)[0] += o.value; }
  };
  struct Double {
    struct Options {};
    static void apply(Options const&, Random&, Matrix<float> x) { x.row(0)[0] *= 2; }
  };
  Random random(1, Purpose::augment);
  float x = 1;
  augment::Chain<Add, Double>::apply({{3}, {}}, random, {&x, 1, 1, 1});
  CHECK(x == 8);
  augment::Chain<Double, Add>::apply({{}, {3}}, random, {&x, 1, 1, 1});
  CHECK(x == 19);
  static_assert(augment::Chain<>::empty && !augment::Chain<Add>::empty);
}
