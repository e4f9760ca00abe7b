#include <doctest/doctest.h>

#include <Eigen/Dense>
#include <cmath>
#include <limits>
#include <vector>

#include <sotto/core/philox.hpp>
#include <sotto/probe/ridge.hpp>

namespace {

using namespace sotto;

struct Blobs {
  std::vector<float> inputs;
  std::vector<int> labels;
  int rows, width;
  Matrix<float const> matrix() const { return {inputs.data(), rows, width, width}; }
};

// Classes around random centres; inputs of very different size and offset, as features have.
Blobs blobs(int rows, int width, int classes, double noise, std::uint64_t seed) {
  Random centres(7, Purpose::user), random(seed, Purpose::user, 1);
  std::vector<double> centre(static_cast<std::size_t>(classes * width));
  for (double& c : centre) c = centres.normal();
  Blobs blobs{{}, {}, rows, width};
  for (int i = 0; i < rows; ++i) {
    blobs.labels.push_back(i % classes);
    for (int j = 0; j < width; ++j) {
      const double value = centre[static_cast<std::size_t>(i % classes * width + j)] + noise * random.normal();
      blobs.inputs.push_back(static_cast<float>(value * (1 + j % 5) * 10 + 30 * (j % 3)));
    }
  }
  return blobs;
}

// The textbook formula, all in double, on standardised inputs with a bias.
std::vector<int> textbook(Blobs const& train, Blobs const& test, int classes, double ridge) {
  using Rowwise = Eigen::Matrix<float, -1, -1, Eigen::RowMajor>;
  const Eigen::MatrixXd x = Eigen::Map<Rowwise const>(train.inputs.data(), train.rows, train.width).cast<double>();
  const Eigen::MatrixXd z = Eigen::Map<Rowwise const>(test.inputs.data(), test.rows, test.width).cast<double>();
  const Eigen::RowVectorXd mean = x.colwise().mean();
  const Eigen::RowVectorXd deviation = ((x.rowwise() - mean).array().square().colwise().mean()).sqrt();
  const Eigen::MatrixXd xs = (x.rowwise() - mean).array().rowwise() / deviation.array();
  const Eigen::MatrixXd zs = (z.rowwise() - mean).array().rowwise() / deviation.array();
  Eigen::MatrixXd y = Eigen::MatrixXd::Zero(train.rows, classes);
  for (int i = 0; i < train.rows; ++i) y(i, train.labels[static_cast<std::size_t>(i)]) = 1;
  const Eigen::RowVectorXd prior = y.colwise().mean();
  Eigen::MatrixXd normal = xs.transpose() * xs;
  const double size = std::min(train.rows, train.width);
  normal.diagonal().array() += ridge * normal.trace() / size;
  const Eigen::MatrixXd weights = normal.ldlt().solve(xs.transpose() * (y.rowwise() - prior));
  const Eigen::MatrixXd scores = (zs * weights).rowwise() + prior;
  std::vector<int> best;
  for (int i = 0; i < test.rows; ++i) {
    Eigen::Index k = 0;
    scores.row(i).maxCoeff(&k);
    best.push_back(static_cast<int>(k));
  }
  return best;
}

}  // namespace

TEST_CASE("ridge answers as the textbook formula does, with more rows than inputs and with fewer") {
  ThreadPool pool(2);
  for (const int width : {30, 500}) {
    CAPTURE(width);
    const Blobs train = blobs(300, width, 5, 3, 1), test = blobs(700, width, 5, 3, 2);
    const probe::Ridge ridge(train.matrix(), train.labels, 5, pool);
    CHECK(ridge.dual() == (width > 300));
    for (const double strength : {1e-3, .1, 10.}) {
      std::vector<int> answers(700);
      ridge.solve(strength).predict(test.matrix(), answers);
      const auto expected = textbook(train, test, 5, strength);
      int differ = 0, right = 0;
      for (std::size_t i = 0; i < 700; ++i) {
        differ += answers[i] != expected[i];
        right += answers[i] == test.labels[i];
      }
      CHECK(differ <= 1);  // a tie that float breaks the other way
      CHECK(right > 350);
    }
  }
}

TEST_CASE("ridge gives the same classifier on one thread and on three") {
  const Blobs train = blobs(700, 900, 4, 20, 1), test = blobs(500, 900, 4, 20, 2);
  std::vector<std::vector<int>> answers;
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    answers.emplace_back(500);
    probe::Ridge(train.matrix(), train.labels, 4, pool).solve(.01).predict(test.matrix(), answers.back());
  }
  CHECK(answers[0] == answers[1]);
}

TEST_CASE("an input that never changes in training has no say, whatever it is later") {
  Blobs train = blobs(200, 20, 3, .5, 1), test = blobs(90, 20, 3, .5, 2);
  for (int i = 0; i < 200; ++i) train.inputs[static_cast<std::size_t>(i * 20 + 4)] = .1f;
  for (int i = 0; i < 90; ++i) test.inputs[static_cast<std::size_t>(i * 20 + 4)] = 1e6f;
  ThreadPool pool(1);
  std::vector<int> answers(90);
  probe::Ridge(train.matrix(), train.labels, 3, pool).solve(.1).predict(test.matrix(), answers);
  CHECK(answers == test.labels);
}

TEST_CASE("ridge says what it cannot fit") {
  ThreadPool pool(1);
  Blobs train = blobs(40, 6, 2, 1, 1);
  CHECK_THROWS_AS(probe::Ridge(train.matrix(), train.labels, 3, pool), Error);  // class 2: no rows
  const probe::Ridge good(train.matrix(), train.labels, 2, pool);
  CHECK_THROWS_AS(good.solve(0), Error);
  std::vector<int> few(3);
  CHECK_THROWS_AS(good.solve(1).predict(train.matrix(), few), Error);
  train.inputs[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(probe::Ridge(train.matrix(), train.labels, 2, pool), Error);
}
