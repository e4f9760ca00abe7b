// Lloyd's iterations against NumPy in double, k-means++ against scikit-learn's.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <sotto/io/safetensors.hpp>
#include <sotto/objective/kmeans.hpp>

#include <doctest/doctest.h>

using sotto::Matrix;

TEST_CASE("Lloyd's iterations are NumPy's, and k-means++ is as good as scikit-learn's") {
  char const* shared = std::getenv("SOTTO_SHARED");
  if (!shared) {
    MESSAGE("SKIPPED: SOTTO_SHARED does not say where the parity tensors are");
    return;
  }
  const auto file = sotto::Safetensors::open(std::filesystem::path(shared) / "parity" / "kmeans.safetensors");
  const auto frames = file.doubles("f64.frames"), centres = file.doubles("f64.centres"),
             inertia = file.doubles("f64.inertia");
  const auto labels = file.ints("labels");
  auto found = file.doubles("f64.start");
  const int rows = static_cast<int>(file.at("f64.frames").shape[0]),
            width = static_cast<int>(file.at("f64.frames").shape[1]);
  const int clusters = static_cast<int>(file.at("f64.start").shape[0]);
  sotto::ThreadPool pool(2);
  for (std::size_t i = 0; i < 5; ++i) {  // centres[i], labels[i], inertia[i]: before the i-th move
    double worst = 0;
    for (std::size_t j = 0; j < found.size(); ++j)
      worst = std::max(worst, std::abs(found[j] - centres[i * found.size() + j]));
    CHECK(worst < 1e-9);
    const double before = sotto::lloyd_iteration<double>({frames.data(), rows, width, width},
                                                         {found.data(), clusters, width, width}, pool);
    CHECK(before == doctest::Approx(inertia[i]).epsilon(1e-9));
  }

  std::vector<float> single(frames.begin(), frames.end());
  const Matrix<float const> view{single.data(), rows, width, width};
  for (std::size_t i = 0; i < 5; ++i) {
    const auto begin = centres.begin() + static_cast<std::ptrdiff_t>(i * found.size());
    const sotto::Kmeans kmeans{clusters, width, {begin, begin + static_cast<std::ptrdiff_t>(found.size())}, 0, 0};
    std::vector<std::uint16_t> assigned(static_cast<std::size_t>(rows));
    assign(view, kmeans, assigned.data());
    CHECK(std::equal(assigned.begin(), assigned.end(),
                     labels.begin() + static_cast<std::ptrdiff_t>(i * assigned.size())));
  }

  const auto theirs = file.doubles("f64.sklearn_inertia_10_seeds");
  double their_mean = 0, our_mean = 0, our_best = 0;
  for (const double value : theirs) their_mean += value / static_cast<double>(theirs.size());
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    our_mean += sotto::fit_kmeans(view, {.clusters = clusters, .restarts = 1}, seed, pool).inertia / 10;
    our_best += sotto::fit_kmeans(view, {.clusters = clusters}, seed, pool).inertia / 10;
  }
  MESSAGE("mean inertia: ours " << our_mean << ", best of five " << our_best << ", scikit-learn's " << their_mean);
  CHECK(std::abs(our_mean / their_mean - 1) < .01);
  CHECK(our_best < their_mean);
}
