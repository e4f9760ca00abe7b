// Grouped convolutions of the CUDA backend, executed by a host, against the oracle.
#include <doctest/doctest.h>
#include <host_cuda/engine.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <sotto/backend/cuda/convolution.cuh>
#include <sotto/backend/reference/reference.hpp>

#include "on_gpu.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

template <class T> T from_double(double x) {
  if constexpr (std::is_same_v<T, float>)
    return static_cast<float>(x);
  else
    return bf16::of(static_cast<float>(x));
}
double to_double(float x) { return static_cast<double>(x); }
double to_double(bf16 x) { return static_cast<double>(static_cast<float>(x)); }

std::vector<double> random_numbers(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::vector<double> numbers(n);
  for (double& x : numbers) x = normal(generator);
  return numbers;
}
template <class T> std::vector<T> rounded(std::vector<double>& numbers) {
  std::vector<T> to;
  for (double& x : numbers) {
    to.push_back(from_double<T>(x));
    x = to_double(to.back());
  }
  return to;
}
std::size_t product(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

/// The largest difference, relative to the largest number expected.
template <class T> double distance(std::vector<T> const& found, std::vector<double> const& expected) {
  REQUIRE(found.size() == expected.size());
  double scale = 0, worst = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double apart = std::abs(to_double(found[i]) - expected[i]);
    if (std::isnan(apart)) return apart;
    worst = std::max(worst, apart);
    scale = std::max(scale, std::abs(expected[i]));
  }
  return worst / scale;
}
template <class T> bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Sequences, and rows after the last of them.
struct Packed {
  std::vector<int> offsets{0};
  int rows, sequences, longest = 0;

  Packed(std::vector<int> const& lengths, int tail) : sequences(static_cast<int>(lengths.size())) {
    for (int length : lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max(longest, length);
    }
    rows = offsets.back() + tail;
  }
  int real() const { return offsets.back(); }
  Lane<int> lane() const {
    return {offsets.data(), nullptr, nullptr, sequences, real(), longest, nullptr, nullptr, 0, 0, nullptr};
  }
};

template <class T> struct Results {
  std::vector<T> y, dx, forward_panel, back_panel;
  std::vector<float> bias, dw, db, dv, dg;

  bool operator==(Results const& o) const {
    return same_bits(y, o.y) && same_bits(dx, o.dx) && same_bits(forward_panel, o.forward_panel) &&
           same_bits(back_panel, o.back_panel) && same_bits(bias, o.bias) && same_bits(dw, o.dw) &&
           same_bits(db, o.db) && same_bits(dv, o.dv) && same_bits(dg, o.dg);
  }
};

template <class T> struct Case {
  ConvolutionShape shape;
  Packed packed;
  std::vector<double> v, g, bias, x, dy, dw0, db0, dg0;  // of x and dy, rows after the last sequence too
  std::vector<float> v_float, g_float, bias_float, dw0_float, db0_float, dg0_float;
  std::vector<T> x_rounded, dy_rounded;

  Case(ConvolutionShape s, Packed const& p) : shape(s), packed(p) {
    const auto weights = product(s.width, s.channels() * s.taps), numbers = product(p.rows, s.width);
    const auto fill = [](std::vector<double>& exact, std::vector<float>& to, std::size_t n, unsigned seed) {
      exact = random_numbers(n, seed);
      to = rounded<float>(exact);
    };
    fill(v, v_float, weights, 1);
    fill(g, g_float, static_cast<std::size_t>(s.taps), 2);
    fill(bias, bias_float, static_cast<std::size_t>(s.width), 3);
    fill(dw0, dw0_float, weights, 4);
    fill(db0, db0_float, static_cast<std::size_t>(s.width), 5);
    fill(dg0, dg0_float, static_cast<std::size_t>(s.taps), 6);
    x = random_numbers(numbers, 7);
    x_rounded = rounded<T>(x);
    dy = random_numbers(numbers, 8);
    dy_rounded = rounded<T>(dy);
    // whatever stands in rows of no sequence must count for nothing
    for (std::size_t i = product(p.real(), s.width); i < numbers; ++i)
      x_rounded[i] = dy_rounded[i] = from_double<T>(std::numeric_limits<double>::quiet_NaN());
  }

  Results<T> on_gpu() const {
    const auto weights = v.size(), numbers = x.size();
    const int count = cuda::most_tiles(packed.rows, packed.sequences) + 1;
    const OnGpu<int> offsets(packed.offsets);
    const OnGpu<cuda::Tile> tiles(static_cast<std::size_t>(count));
    const OnGpu<float> v_(v_float), g_(g_float), bias_(bias_float), dw(dw0_float), db(db0_float), dg(dg0_float),
        prepared_bias(bias.size()), dv(dw0_float),
        scratch(std::max(cuda::prepare_scratch(shape), cuda::gradient_scratch<T>(shape, packed.rows)));
    const OnGpu<T> x_(x_rounded), dy_(dy_rounded), y(numbers), dx(numbers), forward_panel(weights), back_panel(weights);
    cuda::launch(cuda::plan_tiles<>, {static_cast<unsigned>((count + 31) / 32), 32}, stream(), offsets,
                 packed.sequences, packed.rows, tiles, count);
    cuda::prepare_convolution<T>(shape, v_, g_, bias_, forward_panel, back_panel, prepared_bias, scratch, stream());
    cuda::convolution<T>(shape, tiles, count, packed.rows, x_, forward_panel, prepared_bias, y, stream());
    cuda::convolution_back<T>(shape, tiles, count, packed.rows, dy_, back_panel, dx, stream());
    cuda::convolution_gradient<T>(shape, tiles, count, packed.rows, dy_, x_, dw, db, scratch, stream());
    cuda::finish_convolution(shape, v_, g_, dv, dg, scratch, stream());
    return {y.numbers(),
            dx.numbers(),
            forward_panel.numbers(),
            back_panel.numbers(),
            prepared_bias.numbers(),
            dw.numbers(),
            db.numbers(),
            dv.numbers(),
            dg.numbers()};
  }

  /// The largest distance of each from the oracle.
  void check(Results<T> const& found, double tolerance) const {
    Reference<double> oracle;
    const int width = shape.width, c = shape.channels(), taps = shape.taps;
    std::vector<double> weight(v.size()), biases(bias.size());
    typename Reference<double>::PreparedConvolution prepared{weight.data(), biases.data(), shape};
    oracle.prepare_convolution(shape, v.data(), g.data(), bias.data(), prepared);
    std::vector<double> forward(v.size()), back(v.size());
    for (int o = 0; o < width; ++o)
      for (int i = 0; i < c; ++i)
        for (int k = 0; k < taps; ++k) {
          const double w = weight[static_cast<std::size_t>((o * c + i) * taps + k)];
          const int group = o / c, in = group * c + i;
          forward[static_cast<std::size_t>((o * taps + k) * c + i)] = w;
          back[static_cast<std::size_t>((in * taps + taps - 1 - k) * c + o % c)] = w;
        }
    const double panel_tolerance = std::is_same_v<T, float> ? 1e-6 : 4e-3;
    CHECK(distance(found.forward_panel, forward) < panel_tolerance);
    CHECK(distance(found.back_panel, back) < panel_tolerance);
    CHECK(same_bits(found.bias, bias_float));

    const Lane<int> lane = packed.lane();
    const auto matrix = [&](std::vector<double>& of) { return Matrix<double>{of.data(), packed.real(), width, width}; };
    const auto whole = [&](std::vector<double> const& of) {
      return Matrix<double const>{of.data(), packed.real(), width, width};
    };
    std::vector<double> y(x.size()), dx(x.size()), dw = dw0, db = db0;
    oracle.convolution(lane, whole(x), prepared, matrix(y));
    oracle.convolution_back(lane, whole(dy), prepared, matrix(dx));
    oracle.convolution_gradient(lane, whole(dy), whole(x), prepared, dw.data(), db.data());
    CHECK(distance(found.y, y) < tolerance);
    CHECK(distance(found.dx, dx) < tolerance);
    CHECK(distance(found.dw, dw) < tolerance);
    CHECK(distance(found.db, db) < tolerance);
    for (std::size_t i = product(packed.real(), width); i < y.size(); ++i) {
      REQUIRE(to_double(found.y[i]) == 0);
      REQUIRE(to_double(found.dx[i]) == 0);
    }

    std::vector<double> dv = dw0, dg = dg0;
    oracle.finish_convolution(shape, v.data(), g.data(), dv.data(), dg.data());
    CHECK(distance(found.dv, dv) < 1e-6);
    CHECK(distance(found.dg, dg) < 1e-6);
  }
};

/// In three orders of threads and blocks: the oracle's numbers, and the same bits.
template <class T> void agrees(ConvolutionShape shape, Packed const& packed) {
  const Case<T> test(shape, packed);
  const auto before = host_cuda::options;
  std::vector<Results<T>> all;
  for (const auto order : {host_cuda::Order::forward, host_cuda::Order::reverse, host_cuda::Order::random}) {
    host_cuda::options.threads = host_cuda::options.blocks = order;
    all.push_back(test.on_gpu());
  }
  host_cuda::options = before;
  test.check(all[0], std::is_same_v<T, float> ? 1e-5 : 1e-2);
  CHECK(all[1] == all[0]);
  CHECK(all[2] == all[0]);
}

const Packed odd({1, 2, 63, 64, 65, 130, 7}, 9);
const Packed few({3, 70, 1}, 5);

}  // namespace

TEST_CASE("odd grouped convolutions on a GPU are the oracle's, in fp32 and bf16") {
  for (int taps : {6, 5}) {
    agrees<float>({39, 13, taps}, odd);
    agrees<bf16>({39, 13, taps}, odd);
  }
}
TEST_CASE("regular grouped convolutions on a GPU are the oracle's, in fp32 and bf16") {
  agrees<float>({96, 8, 31}, few);
  agrees<bf16>({96, 8, 31}, few);
  agrees<float>({32, 4, 65}, odd);
  agrees<bf16>({32, 4, 65}, odd);
}
TEST_CASE("the papers' convolution of 24 channels and 128 taps on a GPU is the oracle's") {
  agrees<float>({48, 2, 128}, few);
  agrees<bf16>({48, 2, 128}, few);
}
TEST_CASE("convolutions of more channels than one block computes are the oracle's") {
  agrees<bf16>({112, 2, 3}, few);  // 56 channels
  agrees<float>({56, 1, 3}, few);
  agrees<bf16>({32, 1, 9}, few);
}
TEST_CASE("a convolution of a batch without sequences writes zeros and adds nothing") {
  const Packed none({0, 0}, 70);
  const Case<bf16> test({32, 4, 5}, none);
  const Results<bf16> found = test.on_gpu();
  for (std::size_t i = 0; i < found.y.size(); ++i) {
    REQUIRE(to_double(found.y[i]) == 0);
    REQUIRE(to_double(found.dx[i]) == 0);
  }
  CHECK(same_bits(found.dw, test.dw0_float));
  CHECK(same_bits(found.db, test.db0_float));
}
