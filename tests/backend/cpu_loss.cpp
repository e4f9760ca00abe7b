#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/backend/cpu/loss.hpp>
#include <sotto/core/philox.hpp>

using namespace sotto;

namespace {

constexpr float guard = -54321.0f;

template <class E> struct ScoresOf {
  int rows, columns, stride;
  std::vector<E> numbers;
  std::vector<int> targets;
  ScoresOf(int rows_, int columns_, std::uint64_t seed, double scale = 3)
      : rows(rows_), columns(columns_), stride(columns_ + 3),
        numbers(static_cast<std::size_t>(rows_ * (columns_ + 3) + 8), cpu::stored<E>(guard)) {
    Random random(seed, Purpose::user);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) at(i, j) = cpu::stored<E>(static_cast<float>(scale * random.normal()));
      targets.push_back(static_cast<int>(random.below(static_cast<std::uint32_t>(columns))));
    }
  }
  E& at(int i, int j) { return numbers[static_cast<std::size_t>(4 + i * stride + j)]; }
  double operator()(int i, int j) const {
    return static_cast<double>(static_cast<float>(numbers[static_cast<std::size_t>(4 + i * stride + j)]));
  }
  Matrix<E> view() { return {numbers.data() + 4, rows, columns, stride}; }
  bool guarded() const {
    std::vector<char> inside(numbers.size());
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) inside[static_cast<std::size_t>(4 + i * stride + j)] = 1;
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (!inside[i] && static_cast<float>(numbers[i]) != static_cast<float>(cpu::stored<E>(guard))) return false;
    return true;
  }
};
using Scores = ScoresOf<float>;

// What a number of E loses at most when it is rounded to the nearest.
template <class E> double rounding(double x) { return sizeof(E) == 2 ? 0x1p-8 * std::abs(x) : 0; }

// The numbers of rows that the backend's losses are tried with: it widens bf16 by blocks of 32.
constexpr int tried_rows[] = {0, 1, 31, 32, 33, 64, 70};

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

TEST_CASE_TEMPLATE("the backend's cross-entropy agrees with a naive softmax, whatever scores are kept in", E, float,
                   bf16) {
  Cpu<E> b;
  const double weight = .75, factor = 4;
  for (const int rows : tried_rows)
    for (const int columns : {1, 5, 16, 37, 100}) {
      ScoresOf<E> scores(rows, columns, static_cast<std::uint64_t>(rows + columns), 1), again = scores, quiet = scores;
      const ScoresOf<E> before = scores;
      const std::int64_t count = rows + 3;
      const double scale = weight / static_cast<double>(count);
      double loss = .5, same_loss = .5, quiet_loss = .5, expected = .5, hits = 2;
      std::vector<double> histogram(static_cast<std::size_t>(columns), 1), predictions = histogram;
      Measures<double> measures;
      measures.predicted = 1;
      measures.correct = 2;
      measures.histogram = histogram.data();
      b.cross_entropy(scores.view(), scores.targets.data(), static_cast<float>(factor), weight, count, loss, &measures);
      Measures<double> without;
      b.cross_entropy(again.view(), again.targets.data(), static_cast<float>(factor), weight, count, same_loss,
                      &without);
      b.cross_entropy(quiet.view(), quiet.targets.data(), static_cast<float>(factor), weight, count, quiet_loss,
                      nullptr);
      bool right = scores.guarded();
      for (int i = 0; i < rows; ++i) {
        const int target = before.targets[static_cast<std::size_t>(i)];
        int best = 0;
        for (int j = 1; j < columns; ++j)
          if (before(i, j) > before(i, best)) best = j;
        double sum = 0;
        for (int j = 0; j < columns; ++j) sum += std::exp(factor * (before(i, j) - before(i, best)));
        expected += scale * (std::log(sum) + factor * (before(i, best) - before(i, target)));
        hits += best == target;
        ++predictions[static_cast<std::size_t>(best)];
        for (int j = 0; j < columns; ++j) {
          const double p = std::exp(factor * (before(i, j) - before(i, best))) / sum,
                       slope = scale * factor * (p - (j == target));
          right &= std::abs(scores(i, j) - slope) <= 2e-6 * scale * factor + rounding<E>(slope);
          right &= again(i, j) == scores(i, j) && quiet(i, j) == scores(i, j);
        }
      }
      CHECK_MESSAGE(right, rows, " x ", columns);
      CHECK(loss == doctest::Approx(expected).epsilon(1e-6));
      CHECK(same_loss == loss);
      CHECK(quiet_loss == loss);
      CHECK(measures.predicted == 1 + rows);
      CHECK(measures.correct == hits);
      CHECK(without.predicted == rows);
      CHECK(without.correct == hits - 2);
      CHECK(histogram == predictions);
    }
}

TEST_CASE_TEMPLATE("the backend's loss is NaN where one score is none or infinite, and no other row's gradient", E,
                   float, bf16) {
  Cpu<E> b;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()})
    for (const int place : {0, 31, 32, 69})
      for (const int column : {0, 15, 16, 20}) {
        ScoresOf<E> scores(70, 21, 1);
        scores.at(place, column) = cpu::stored<E>(bad);
        double loss = 0;
        std::vector<double> histogram(21);
        Measures<double> measures;
        measures.histogram = histogram.data();
        b.cross_entropy(scores.view(), scores.targets.data(), 1, 1, 70, loss, &measures);
        CHECK(std::isnan(loss));
        CHECK(std::accumulate(histogram.begin(), histogram.end(), 0.) == 70);
        bool right = scores.guarded();
        for (int i = 0; i < 70; ++i)
          for (int j = 0; j < 21; ++j) right &= std::isnan(scores(i, j)) == (i == place);
        CHECK_MESSAGE(right, bad, " in row ", place);
      }
}

TEST_CASE_TEMPLATE("a user's loss on the backend agrees with plain loops, whatever numbers are kept in", E, float,
                   bf16) {
  Cpu<E> b;
  const double weight = .75;
  for (const int rows : tried_rows)
    for (const int columns : {1, 5, 64, 67, 130}) {
      ScoresOf<E> absolute(rows, columns, 1), squared = absolute, wanted(rows, columns, 2);
      const ScoresOf<E> before = absolute, wanted_before = wanted;
      const std::int64_t count = 3 * rows + 1;
      const double scale = weight / static_cast<double>(count);
      double absolute_loss = .5, squared_loss = .25, expected_absolute = .5, expected_squared = .25;
      b.template row_loss<AbsoluteError>(absolute.view(), wanted.view(), nullptr, weight, count, absolute_loss);
      b.template row_loss<SquaredError>(squared.view(), wanted.view(), nullptr, weight, count, squared_loss);
      bool right = absolute.guarded() && squared.guarded() && wanted.guarded();
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
          const double d = before(i, j) - wanted_before(i, j), slope = d < 0 ? -scale : scale;
          expected_absolute += scale * std::abs(d);
          expected_squared += scale * d * d;
          right &= std::abs(absolute(i, j) - slope) <= 1e-6 * scale + rounding<E>(slope);
          right &= std::abs(squared(i, j) - 2 * scale * d) <= 1e-5 * scale + rounding<E>(2 * scale * d);
          right &= wanted(i, j) == wanted_before(i, j);
        }
      CHECK_MESSAGE(right, rows, " x ", columns);
      CHECK(absolute_loss == doctest::Approx(expected_absolute).epsilon(1e-6));
      CHECK(squared_loss == doctest::Approx(expected_squared).epsilon(1e-6));
    }
}

TEST_CASE_TEMPLATE("a NaN prediction or target makes a user's loss on the backend NaN, and no other gradient", E, float,
                   bf16) {
  Cpu<E> b;
  for (const bool in_target : {false, true})
    for (const int place : {0, 31, 32, 69}) {
      ScoresOf<E> predicted(70, 70, 1), wanted(70, 70, 2);
      (in_target ? wanted : predicted).at(place, 66) = cpu::stored<E>(std::nanf(""));
      double loss = 0;
      b.template row_loss<SquaredError>(predicted.view(), wanted.view(), nullptr, 1, 70, loss);
      CHECK(std::isnan(loss));
      bool right = predicted.guarded();
      for (int i = 0; i < 70; ++i)
        for (int j = 0; j < 70; ++j) right &= std::isnan(predicted(i, j)) == (i == place && j == 66);
      CHECK_MESSAGE(right, "row ", place);
    }
}
