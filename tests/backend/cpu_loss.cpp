#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <sotto/backend/cpu/loss.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

constexpr float guard = -54321.0f;

struct Scores {
  int rows, columns, stride;
  std::vector<float> numbers;
  std::vector<int> targets;
  Scores(int rows_, int columns_, std::uint64_t seed, double scale = 3)
      : rows(rows_), columns(columns_), stride(columns_ + 3),
        numbers(static_cast<std::size_t>(rows_ * (columns_ + 3)), guard) {
    Random random(seed, Purpose::user);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) at(i, j) = static_cast<float>(scale * random.normal());
      targets.push_back(static_cast<int>(random.below(static_cast<std::uint32_t>(columns))));
    }
  }
  float& at(int i, int j) { return numbers[static_cast<std::size_t>(i * stride + j)]; }
  double operator()(int i, int j) const {
    return static_cast<double>(numbers[static_cast<std::size_t>(i * stride + j)]);
  }
  Matrix<float> view() { return {numbers.data(), rows, columns, stride}; }
  bool guarded() const {
    for (int i = 0; i < rows; ++i)
      for (int j = columns; j < stride; ++j)
        if (numbers[static_cast<std::size_t>(i * stride + j)] != guard) return false;
    return true;
  }
};

struct AbsoluteError {
  template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) {
    return predicted < wanted ? wanted - predicted : predicted - wanted;
  }
};
struct SquaredError {
  template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) {
    const T difference = predicted - wanted;
    return difference * difference;
  }
};

}  // namespace

TEST_CASE("cross-entropy, its gradient and its accuracy agree with a naive softmax in double") {
  for (int columns = 1; columns <= 131; columns += columns < 67 ? 1 : 16)
    for (int rows : {0, 1, 5})
      for (double spread : {1.0, 30.0}) {
        Scores scores(rows, columns, static_cast<std::uint64_t>(columns), spread);
        const Scores before = scores;
        double loss = 0.5, expected = 0;
        std::int64_t correct = 3, hits = 0;
        cpu::cross_entropy(scores.view(), scores.targets.data(), 0.25f, &loss, &correct);
        bool right = scores.guarded();
        for (int i = 0; i < rows; ++i) {
          const int target = before.targets[static_cast<std::size_t>(i)];
          double most = -1e300, sum = 0;
          int best = 0;
          for (int j = 0; j < columns; ++j)
            if (before(i, j) > most) most = before(i, best = j);
          for (int j = 0; j < columns; ++j) sum += std::exp(before(i, j) - most);
          expected += std::log(sum) + most - before(i, target);
          hits += best == target;
          for (int j = 0; j < columns; ++j) {
            const double p = std::exp(before(i, j) - most) / sum;
            right &= std::abs(scores(i, j) - 0.25 * (p - (j == target))) < 1e-6;
          }
        }
        CHECK_MESSAGE(right, rows, " x ", columns);
        CHECK(std::abs(loss - 0.5 - expected) <= 1e-6 * (1 + expected));
        CHECK(correct == 3 + hits);
      }
}

TEST_CASE("huge scores do not overflow the softmax") {
  Scores scores(2, 20, 1);
  for (int j = 0; j < 20; ++j) {
    scores.at(0, j) = 1e30f;
    scores.at(1, j) = j == 4 ? 3e38f : -3e38f;
  }
  scores.targets = {7, 4};
  double loss = 0;
  std::int64_t correct = 0;
  cpu::cross_entropy(scores.view(), scores.targets.data(), 1, &loss, &correct);
  CHECK(loss == doctest::Approx(std::log(20.0)).epsilon(1e-6));
  CHECK(scores(0, 7) == doctest::Approx(0.05 - 1));
  CHECK(std::abs(scores(1, 4)) < 1e-6);
}

TEST_CASE("of equal greatest scores the first counts as the prediction") {
  Scores scores(3, 37, 1);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 37; ++j) scores.at(i, j) = j == 5 || j == 35 ? 9.0f : 1.0f;
  scores.targets = {5, 35, 6};
  double loss = 0;
  std::int64_t correct = 0;
  std::vector<double> counts(37);
  cpu::count_predictions(scores.view(), counts.data());
  cpu::cross_entropy(scores.view(), scores.targets.data(), 1, &loss, &correct);
  CHECK(correct == 1);
  CHECK(counts[5] == 3);
  CHECK(std::accumulate(counts.begin(), counts.end(), 0.0) == 3);
}

TEST_CASE("one bad score anywhere makes the loss NaN, and its row's gradient, but no other row's") {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (int columns : {1, 5, 16, 50})
      for (int place = 0; place < columns; ++place) {
        Scores scores(2, columns, 1);
        scores.at(1, place) = bad;
        double loss = 0;
        std::int64_t correct = 0;
        std::vector<double> counts(static_cast<std::size_t>(columns));
        cpu::count_predictions(scores.view(), counts.data());
        CHECK(std::accumulate(counts.begin(), counts.end(), 0.0) == 2);
        cpu::cross_entropy(scores.view(), scores.targets.data(), 1, &loss, &correct);
        CHECK(std::isnan(loss));
        CHECK(std::isnan(scores(1, 0)));
        CHECK(std::isfinite(scores(0, 0)));
        CHECK(scores.guarded());
      }
}

TEST_CASE("predictions are counted by class, over what was counted before") {
  for (int columns = 1; columns <= 67; ++columns) {
    Scores scores(9, columns, 3);
    std::vector<double> counts(static_cast<std::size_t>(columns), 1), expected = counts;
    for (int i = 0; i < 9; ++i) {
      int best = 0;
      for (int j = 1; j < columns; ++j)
        if (scores(i, j) > scores(i, best)) best = j;
      ++expected[static_cast<std::size_t>(best)];
    }
    cpu::count_predictions(scores.view(), counts.data());
    CHECK(counts == expected);
  }
}

TEST_CASE("a user's loss is summed in double and its derivative needs no writing") {
  for (int columns = 1; columns <= 200; columns += columns < 67 ? 1 : 33)
    for (int rows : {0, 1, 3}) {
      Scores absolute(rows, columns, 1), squared = absolute, wanted(rows, columns, 2);
      const Scores before = absolute;
      double absolute_sum = 1, squared_sum = 0, expected_absolute = 1, expected_squared = 0;
      cpu::row_loss<AbsoluteError>(absolute.view(), wanted.view(), 0.5f, &absolute_sum);
      cpu::row_loss<SquaredError>(squared.view(), wanted.view(), 0.5f, &squared_sum);
      bool right = absolute.guarded() && squared.guarded();
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
          const double d = before(i, j) - wanted(i, j);
          expected_absolute += std::abs(d);
          expected_squared += d * d;
          right &= absolute(i, j) == (d < 0 ? -0.5 : 0.5);
          right &= std::abs(squared(i, j) - d) < 1e-5;
        }
      CHECK_MESSAGE(right, rows, " x ", columns);
      CHECK(absolute_sum == doctest::Approx(expected_absolute).epsilon(1e-6));
      CHECK(squared_sum == doctest::Approx(expected_squared).epsilon(1e-6));
    }
}

TEST_CASE("a NaN prediction makes a user's loss NaN") {
  Scores predicted(1, 70, 1), wanted(1, 70, 2);
  predicted.at(0, 66) = std::numeric_limits<float>::quiet_NaN();
  double sum = 0;
  cpu::row_loss<SquaredError>(predicted.view(), wanted.view(), 1, &sum);
  CHECK(std::isnan(sum));
}
