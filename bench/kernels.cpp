// Nanoseconds per element of the CPU's row operations, losses, optimiser and dropout. Every sample
// lies between two runs of a register-only FMA loop; samples whose loop is below 93 % of the best
// seen are dropped (another program was on the core).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <sotto/backend/cpu/dropout.hpp>
#include <sotto/backend/cpu/loss.hpp>
#include <sotto/backend/cpu/map.hpp>
#include <sotto/backend/cpu/optimizer.hpp>
#include <sotto/backend/cpu/rows.hpp>
#include <sotto/core/philox.hpp>

#include "fma.hpp"

using namespace sotto;

namespace {

void time(char const* name, double elements, std::function<void()> const& body) {
  static bench::Gate gate(1);
  body();
  const double once_start = bench::now();
  body();
  const int repeats = std::max(1, static_cast<int>(1e-3 / (bench::now() - once_start)));
  std::vector<double> samples;
  for (int attempt = 0; attempt < 400 && samples.size() < 15; ++attempt) {
    const double before = gate.rate(), start = bench::now();
    for (int i = 0; i < repeats; ++i) body();
    const double taken = bench::now() - start, after = gate.rate();
    if (gate.passes(before, after)) samples.push_back(taken / repeats);
  }
  if (samples.empty()) {
    std::printf("%-28s no sample on a free core\n", name);
    return;
  }
  std::printf("%-28s %7.3f ns/element  (%zu samples)\n", name, 1e9 * bench::median(samples) / elements, samples.size());
}

struct AbsoluteError {
  template <class T> static SOTTO_HOST_DEVICE T term(T const& predicted, T const& wanted) {
    return predicted < wanted ? wanted - predicted : predicted - wanted;
  }
};
struct Square {
  template <class T> static SOTTO_HOST_DEVICE T apply(T const& x) { return x * x; }
};

}  // namespace

int main() {
  std::printf("register-only FMA: %.1f GFLOP/s, %d lanes\n", bench::fma_peak(1), cpu::lanes);
  constexpr int rows = 32, width = 384;  // three such matrices lie in L2
  constexpr double elements = static_cast<double>(rows) * width;
  const auto n = static_cast<std::size_t>(rows * width);
  Random random(1, Purpose::user);
  auto normals = [&](std::size_t count) {
    std::vector<float> out(count);
    for (float& v : out) v = static_cast<float>(random.normal());
    return out;
  };
  auto a = normals(n), b = normals(n), c = normals(n);
  auto gain = normals(width), bias = normals(width), d_gain = normals(width), d_bias = normals(width);
  std::vector<float> statistics(2 * rows), inverse(rows);
  const Matrix<float> x{a.data(), rows, width, width}, y{b.data(), rows, width, width}, z{c.data(), rows, width, width},
      stats{statistics.data(), rows, 2, 2};
  const Array<float> g{gain.data(), width}, h{bias.data(), width}, dg{d_gain.data(), width}, dh{d_bias.data(), width};
  std::vector<int> order(rows), targets(rows);
  std::vector<double> counts(width);
  std::iota(order.begin(), order.end(), 0);
  for (int& t : targets) t = static_cast<int>(random.below(width));
  const std::vector<int> offsets{0, rows}, zero{0};
  const Lane<int> lane{offsets.data(), zero.data(), zero.data(), 1, rows, rows, nullptr, nullptr, 0, 0, nullptr};
  const Philox key(1, Purpose::dropout);
  double sum = 0;
  std::int64_t correct = 0;

  time("layer_norm", elements, [&] { cpu::layer_norm(x, g, h, 1e-5f, y, stats); });
  time("layer_norm_back", elements, [&] { cpu::layer_norm_back(y, x, g, stats, z, dg, dh, false); });
  time("normalise_rows", elements, [&] { cpu::normalise_rows(x, y, {inverse.data(), rows}); });
  time("normalise_rows_back", elements, [&] { cpu::normalise_rows_back(x, y, {inverse.data(), rows}, z); });
  const Array<float> flat{a.data(), n}, out{b.data(), n};
  time("gelu_forward", elements, [&] { cpu::gelu_forward(flat, out); });
  time("gelu_back", elements, [&] { cpu::gelu_back(flat, {c.data(), n}, out); });
  time("sum", elements, [&] { cpu::sum(x, z, y); });
  time("spread", elements, [&] { sum += cpu::spread(x); });
  time("gather", elements, [&] { cpu::gather(x, order.data(), y); });
  time("scatter_add", elements, [&] { cpu::scatter_add(x, order.data(), y); });
  time("column_sums", elements, [&] { cpu::column_sums(x, dh); });
  time("copy of scores", elements, [&] { std::copy(a.begin(), a.end(), c.begin()); });
  time("that and cross_entropy", elements,
       [&] {  // scores become gradients: start from scores each time
         std::copy(a.begin(), a.end(), c.begin());
         cpu::cross_entropy(z, targets.data(), 1, &sum, &correct);
       });
  time("count_predictions", elements, [&] { cpu::count_predictions(x, counts.data()); });
  time("row_loss, absolute", elements, [&] { cpu::row_loss<AbsoluteError>(z, x, 1, &sum); });
  time("map_back, square", elements, [&] { cpu::map_back<Square>({a.data(), n}, {c.data(), n}, out); });
  time("dropout", elements, [&] { cpu::dropout(lane, key, 1, 1, 0.1f, y); });
  time("squared_norm", elements, [&] { sum += cpu::squared_norm({a.data(), n}); });
  auto optimise = [&](char const* name, std::size_t size) {
    auto p = normals(size), gradients = normals(size);
    std::vector<float> m(size), v(size);
    int step = 0;
    time(name, static_cast<double>(size), [&] {
      cpu::adamw({p.data(), size}, {gradients.data(), size}, {m.data(), size}, {v.data(), size},
                 {1e-3, .9, .98, 1e-6, .01, ++step});
    });
  };
  optimise("adamw, in L2", 30000);
  optimise("adamw, 20 M numbers", 20000000);
  std::printf("%s", std::isnan(sum) ? "a sum became NaN\n" : "");
}
