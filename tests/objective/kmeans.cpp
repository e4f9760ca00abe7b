#include <sotto/objective/kmeans.hpp>

#include <set>

#include <doctest/doctest.h>

namespace {

using sotto::fit_kmeans;
using sotto::Kmeans;
using sotto::KmeansOptions;
using sotto::Matrix;
using sotto::ThreadPool;

/// Frames around `centres` points, far apart on a lattice.
std::vector<float> clouds(int frames, int dimensions, int centres, double spread = .5) {
  sotto::Random random(11, sotto::Purpose::user);
  std::vector<float> x(static_cast<std::size_t>(frames * dimensions));
  for (int i = 0; i < frames; ++i)
    for (int d = 0; d < dimensions; ++d)
      x[static_cast<std::size_t>(i * dimensions + d)] =
          static_cast<float>(20. * (((i % centres) >> d % 6) & 1) + spread * random.normal());
  return x;
}
Matrix<float const> view(std::vector<float> const& x, int dimensions) {
  return {x.data(), static_cast<int>(x.size()) / dimensions, dimensions, dimensions};
}
std::set<std::uint16_t> used(std::vector<float> const& x, Kmeans const& kmeans) {
  std::vector<std::uint16_t> labels(x.size() / static_cast<std::size_t>(kmeans.dimensions));
  assign(view(x, kmeans.dimensions), kmeans, labels.data());
  return {labels.begin(), labels.end()};
}

}  // namespace

TEST_CASE("every frame gets the nearest centroid, whatever the sizes") {
  sotto::Random random(2, sotto::Purpose::user);
  for (const int clusters : {1, 7, 32, 33, 100})
    for (const int dimensions : {1, 8, 39})
      for (const int frames : {1, 5, 48, 131}) {
        Kmeans kmeans{clusters, dimensions, {}, 0, 0};
        for (int i = 0; i < clusters * dimensions; ++i) kmeans.centroids.push_back(static_cast<float>(random.normal()));
        std::vector<float> x(static_cast<std::size_t>(frames * dimensions));
        for (float& v : x) v = static_cast<float>(random.normal());
        std::vector<std::uint16_t> labels(static_cast<std::size_t>(frames), 65535);
        double inertia = -1, expected = 0;
        assign(view(x, dimensions), kmeans, labels.data(), &inertia);
        for (int i = 0; i < frames; ++i) {
          const auto distance = [&](int k) {
            double sum = 0;
            for (int d = 0; d < dimensions; ++d) {
              const double apart = double{x[static_cast<std::size_t>(i * dimensions + d)]} -
                                   double{kmeans.centroids[static_cast<std::size_t>(k * dimensions + d)]};
              sum += apart * apart;
            }
            return sum;
          };
          double least = distance(0);
          for (int k = 1; k < clusters; ++k) least = std::min(least, distance(k));
          REQUIRE(labels[static_cast<std::size_t>(i)] < clusters);
          CHECK(distance(labels[static_cast<std::size_t>(i)]) <= least + 1e-5);
          expected += least;
        }
        CHECK(inertia == doctest::Approx(expected).epsilon(1e-5));
      }
}

TEST_CASE("of equally near centroids the first wins") {
  const Kmeans kmeans{40, 2, std::vector<float>(80, 1.f), 0, 0};
  const std::vector<float> x(2 * 50, 3.f);
  CHECK(used(x, kmeans) == std::set<std::uint16_t>{0});
}

TEST_CASE("clouds that lie apart are found, one cluster each, from few frames and from many") {
  ThreadPool pool(2);
  for (const int frames : {500, 20000}) {
    const auto x = clouds(frames, 6, 50);
    KmeansOptions options;
    options.clusters = 50;
    options.batch = 1000;
    const auto kmeans = fit_kmeans(view(x, 6), options, 1, pool);
    CHECK(kmeans.inertia / frames == doctest::Approx(6 * .25).epsilon(.15));
    CHECK(used(x, kmeans).size() == 50);
    double inertia = 0;
    std::vector<std::uint16_t> labels(static_cast<std::size_t>(frames));
    assign(view(x, 6), kmeans, labels.data(), &inertia);
    CHECK(kmeans.inertia == doctest::Approx(inertia).epsilon(1e-6));
  }
}

TEST_CASE("a fit is the same to the bit on one thread and on three, and another for another seed") {
  const auto x = clouds(30000, 13, 64, 8);
  KmeansOptions options;
  options.clusters = 40;
  options.batch = 2000;
  options.restarts = 2;
  options.iterations = 20;
  ThreadPool one(1), three(3);
  const auto a = fit_kmeans(view(x, 13), options, 5, one), b = fit_kmeans(view(x, 13), options, 5, three);
  CHECK(a.centroids == b.centroids);
  CHECK(a.inertia == b.inertia);
  CHECK(a.flops == b.flops);
  CHECK(fit_kmeans(view(x, 13), options, 6, one).centroids != a.centroids);
}

TEST_CASE("an iteration over doubles is the same to the bit on any number of threads") {
  sotto::Random random(4, sotto::Purpose::user);
  std::vector<double> x(5 * 20000);
  for (double& v : x) v = random.normal();
  const std::vector<double> start(x.begin(), x.begin() + 5 * 30);
  ThreadPool one(1), three(3);
  auto a = start, b = start;
  const double first = sotto::lloyd_iteration<double>({x.data(), 20000, 5, 5}, {a.data(), 30, 5, 5}, one);
  const double second = sotto::lloyd_iteration<double>({x.data(), 20000, 5, 5}, {b.data(), 30, 5, 5}, three);
  CHECK(first == second);
  CHECK(a == b);
  CHECK(a != start);
}

TEST_CASE("mini-batches end where Lloyd's iterations over everything do, within a few percent") {
  const auto x = clouds(30000, 13, 64, 8);
  KmeansOptions mini, full;
  mini.clusters = full.clusters = 40;
  mini.batch = 2000;
  full.batch = 30000;
  ThreadPool pool(2);
  const double found = fit_kmeans(view(x, 13), mini, 5, pool).inertia,
               wanted = fit_kmeans(view(x, 13), full, 5, pool).inertia;
  CHECK(found < 1.02 * wanted);
  mini.passes = 0;
  CHECK(fit_kmeans(view(x, 13), mini, 5, pool).inertia < 1.04 * wanted);
}

TEST_CASE("no cluster is left empty, even where almost all frames are one silence") {
  std::vector<float> x(2 * 20000, 0.f);
  for (std::size_t i = 0; i < 30; ++i) x[2 * 600 * i] = static_cast<float>(i + 1);
  KmeansOptions options;
  options.clusters = 31;
  options.batch = 100;
  options.restarts = 1;
  ThreadPool pool(1);
  const auto kmeans = fit_kmeans(view(x, 2), options, 3, pool);
  for (const float c : kmeans.centroids) CHECK(std::isfinite(c));
  CHECK(kmeans.inertia >= 0);

  options.batch = 20000;  // with all frames in sight the distinct ones are the clusters
  const auto exact = fit_kmeans(view(x, 2), options, 3, pool);
  CHECK(exact.inertia == doctest::Approx(0));
  CHECK(used(x, exact).size() == 31);
}

TEST_CASE("a centroid that lost its last frame goes where frames are farthest from all others") {
  const std::vector<float> x{0, 1, 10, 11, 50, 0};
  std::vector<float const*> rows;
  for (float const& v : x) rows.push_back(&v);
  const sotto::detail::FrameBlocks blocks(rows, 1);
  std::vector<float> centroids{.5f, -1000, 10.5f, -1000};
  const Matrix<float> places{centroids.data(), 4, 1, 1};
  CHECK(sotto::detail::place_idle(blocks, rows, places, {3, 0, 2, 0}) == 4);
  CHECK(centroids[1] == 50);  // then the rest lie half a unit from a centroid: the first of them
  CHECK(centroids[3] == 0);
  CHECK(sotto::detail::place_idle(blocks, rows, places, {3, 1, 2, 1}) == 0);

  std::vector<float> all{0, 1, 10, 11, 50, -7};
  sotto::detail::place_idle(blocks, rows, {all.data(), 6, 1, 1}, {2, 1, 1, 1, 1, 0});
  CHECK(all[5] == -7);  // no frame is left that is no centroid
}

TEST_CASE("what cannot be clustered is refused in a sentence") {
  ThreadPool pool(1);
  const auto x = clouds(300, 4, 10, 0);
  KmeansOptions options;
  CHECK_THROWS_WITH_AS(fit_kmeans(view(x, 4), options, 1, pool),
                       "100 clusters need as many distinct frames, but the 300 frames given hold 10; give more speech "
                       "(silence is one frame over and over) or ask for fewer clusters",
                       sotto::Error);
  CHECK_THROWS_AS(fit_kmeans({nullptr, 0, 4, 4}, options, 1, pool), sotto::Error);
  options.clusters = 0;
  CHECK_THROWS_AS(fit_kmeans(view(x, 4), options, 1, pool), sotto::Error);
  options.clusters = 65537;
  CHECK_THROWS_AS(fit_kmeans(view(x, 4), options, 1, pool), sotto::Error);
  options.clusters = 5;
  auto bad = x;
  bad[4 * 17 + 2] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(fit_kmeans(view(bad, 4), options, 1, pool), doctest::Contains("not finite in dimension 2"),
                       sotto::Error);
  const auto kmeans = fit_kmeans(view(x, 4), options, 1, pool);
  std::vector<std::uint16_t> labels(400);
  CHECK_THROWS_AS(assign(view(x, 3), kmeans, labels.data()), sotto::Error);
}

TEST_CASE("the price is 2 · dimensions · clusters a frame scored, and progress sees every step") {
  const auto x = clouds(5000, 6, 50, 5);
  KmeansOptions options;
  options.clusters = 20;
  options.batch = 1000;
  options.restarts = 2;
  options.iterations = 4;
  options.passes = 1;
  ThreadPool pool(1);
  int steps = 0;
  std::uint64_t scored = 2 * 3000;  // the sample, once a restart
  const auto kmeans = fit_kmeans(view(x, 6), options, 1, pool, [&](sotto::KmeansProgress const& progress) {
    ++steps;
    scored += progress.restart < 2 ? 1000 : 5000;
    CHECK(progress.frame_inertia > 0);
  });
  CHECK(steps == 2 * 4 + 2);
  // greedy k-means++: the first centre, then 2 + ln 20 = 4 candidates for each of the others
  const std::uint64_t plus_plus = 2 * 2 * 3000 * 6 * (1 + 19 * 4);
  CHECK(kmeans.flops == 2 * 6 * 20 * scored + plus_plus);
}
