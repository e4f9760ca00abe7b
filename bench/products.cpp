// Products on one core: GF/s of the multiply-adds that the mathematics needs, and their fraction of
// a register-only FMA loop run just before and after. Eigen's product is the peer, in the same
// rounds. A sample whose loop was slow, because somebody else had the core, is dropped.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <Eigen/Core>

#include <sotto/backend/cpu/convolution.hpp>
#include <sotto/backend/cpu/product.hpp>
#include <sotto/core/philox.hpp>

#include "fma.hpp"

namespace {

using namespace sotto;
struct Free {
  void operator()(float* p) const { ::operator delete (p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<float, Free>;

Buffer buffer(std::size_t n) {
  Buffer b(static_cast<float*>(::operator new (n * sizeof(float), std::align_val_t{64})));
  Random random(n, Purpose::user);
  for (std::size_t i = 0; i < n; ++i) b.get()[i] = static_cast<float>(2 * random.uniform() - 1);
  return b;
}

std::size_t area(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

// Processor time, not the wall's: other programs' turns do not count.
double seconds_of(std::function<void()> const& f, int times) {
  const std::clock_t start = std::clock();
  for (int i = 0; i < times; ++i) f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / times;
}
double fma_rate() {
  constexpr int rounds = 100'000;
  return 24. * cpu::lanes * rounds * 1e-9 / seconds_of([] { bench::fma_seconds(rounds); }, 1);
}

struct Rate {
  double rate = 0, fraction = 0;
};

// Medians over the rounds in which the core's speed held, of each competitor in turn.
std::vector<Rate> measure(double flops, std::vector<std::function<void()>> const& competitors) {
  std::vector<std::vector<double>> rates(competitors.size()), fractions(competitors.size());
  std::vector<int> times;
  for (auto const& f : competitors) {
    f();
    times.push_back(std::max(1, static_cast<int>(.004 / seconds_of(f, 1))));
  }
  for (int round = 0; round < 60 && rates.back().size() < 15; ++round)
    for (std::size_t i = 0; i < competitors.size(); ++i) {
      const double before = fma_rate();
      const double rate = flops / seconds_of(competitors[i], times[i]) * 1e-9;
      const double after = fma_rate();
      if (std::min(before, after) < .95 * std::max(before, after)) continue;
      rates[i].push_back(rate);
      fractions[i].push_back(2 * rate / (before + after));
    }
  std::vector<Rate> medians;
  for (std::size_t i = 0; i < competitors.size(); ++i)
    medians.push_back({bench::median(rates[i]), bench::median(fractions[i])});
  return medians;
}

void print(std::string const& name, std::vector<Rate> const& rates) {
  std::printf("%-44s", name.c_str());
  for (Rate const& r : rates) std::printf("  %7.1f  %.2f", r.rate, r.fraction);
  std::printf("\n");
  std::fflush(stdout);
}

using Plain = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Map = Eigen::Map<Plain, Eigen::Aligned64>;

void products(int rows, int in, int out) {
  const Buffer x = buffer(area(rows, in)), w = buffer(area(out, in)), y = buffer(area(rows, out)),
               before = buffer(area(rows, out)), residual = buffer(area(rows, out)), bias = buffer(area(out, 1)),
               panels = buffer(cpu::panels_size(in, out)), dw = buffer(area(out, in));
  cpu::pack(w.get(), in, out, 1, in, panels.get());
  const cpu::Panels packed{panels.get(), in, out};
  const Matrix<float> to{y.get(), rows, out, out}, pre{before.get(), rows, out, out};
  const Matrix<float const> from{x.get(), rows, in, in}, other{residual.get(), rows, out, out};
  const Map eigen_x(x.get(), rows, in), eigen_w(w.get(), out, in);
  Map eigen_y(y.get(), rows, out), eigen_dw(dw.get(), out, in);
  const double flops = 2. * rows * in * out;
  const std::string shape = std::to_string(rows) + " x " + std::to_string(in) + " -> " + std::to_string(out);
  using Kind = cpu::Epilogue::Kind;
  print(shape, measure(flops, {[&] {
                                 cpu::product(from, packed, {Kind::store, bias.get(), {}, {}}, to);
                               },
                               [&] { eigen_y.noalias() = eigen_x * eigen_w.transpose(); }}));
  if (out > in)
    print(shape + " gelu", measure(flops, {[&] {
                                     cpu::product(from, packed, {Kind::gelu, bias.get(), {}, pre}, to);
                                   }}));
  if (out > in)
    print(shape + " gelu slope", measure(flops, {[&] {
                                           cpu::product(from, packed, {Kind::gelu_slope, nullptr, other, {}}, to);
                                         }}));
  if (out <= in)
    print(shape + " residual", measure(flops, {[&] {
                                         cpu::product(from, packed, {Kind::add, bias.get(), other, {}}, to);
                                       }}));
  cpu::Workspace workspace;
  const Matrix<float const> dy{residual.get(), rows, out, out};
  const Map eigen_dy(residual.get(), rows, out);
  print(shape + " weight gradient",
        measure(flops, {[&] {
                          cpu::weight_gradient(dy, from, {dw.get(), out, in, in}, workspace);
                        },
                        [&] { eigen_dw.noalias() += eigen_dy.transpose() * eigen_x; }}));
}

void convolutions(int width, int groups, int taps, int sequences, int frames) {
  const cpu::GroupedConvolution shape{width, groups, taps};
  const int rows = sequences * frames, c = shape.channels();
  std::vector<int> offsets;
  for (int i = 0; i <= sequences; ++i) offsets.push_back(i * frames);
  const Lane<int> lane{offsets.data(), nullptr, nullptr, sequences, rows, frames, nullptr, nullptr, 0, 0, nullptr};
  const Buffer x = buffer(area(rows, width)), y = buffer(area(rows, width)), weight = buffer(area(width, c * taps)),
               bias = buffer(area(width, 1)), dw = buffer(area(width, c * taps)),
               panels = buffer(shape.panels_floats());
  cpu::Workspace workspace, window;
  cpu::pack_convolution(shape, weight.get(), panels.get(), workspace);
  const Matrix<float const> from{x.get(), rows, width, width};
  const Matrix<float> to{y.get(), rows, width, width};
  // every tap of every frame, those that fall on the zeros around a sequence too
  const double flops = 2. * rows * width * c * taps;
  const std::string name = std::to_string(width) + " / " + std::to_string(groups) + " groups, " + std::to_string(taps) +
                           " taps, " + std::to_string(sequences) + " x " + std::to_string(frames);
  print(name, measure(flops, {[&] { cpu::convolution(shape, lane, from, panels.get(), bias.get(), to, workspace); }}));
  print(name + " gradient",
        measure(flops, {[&] { cpu::convolution_gradient(shape, lane, from, to, dw.get(), workspace, window); }}));
}

}  // namespace

int main() {
  double nominal = 0;
  for (int i = 0; i < 20; ++i) nominal = std::max(nominal, fma_rate());
  std::printf("FMA loop: %.1f GF/s a core\n%-44s  %-13s  %s\n", nominal, "shape", "GF/s, of peak", "Eigen");
  products(2000, 192, 192);
  products(2000, 192, 768);
  products(2000, 768, 192);
  products(2000, 384, 384);
  products(2000, 384, 1152);
  products(2000, 384, 1536);
  products(2000, 768, 768);
  products(2000, 768, 3072);
  products(2000, 3072, 768);
  products(250, 192, 192);
  convolutions(192, 16, 31, 8, 250);
  convolutions(192, 16, 65, 8, 250);
  convolutions(384, 16, 128, 8, 250);
}
