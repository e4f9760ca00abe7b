// The products of a training step on one core: forward, by the input, by the weight. GF/s of the multiply-adds that the
// mathematics needs, and their part of what a register-only FMA loop of fp32 does just before and after, in processor
// time: other programs' turns do not count, and a sample beside a slow loop is dropped. Peers take turns with us in
// each round: Eigen's product, and OpenBLAS's and oneDNN's where CMake found them, on one thread. Our weights are
// packed beforehand, as a step packs them once for all its rows; gradients of weights pack as they go.
//   products [fp32|bf16]...
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <Eigen/Core>
#ifdef SOTTO_BENCH_OPENBLAS
#include <cblas.h>
#endif
#ifdef SOTTO_BENCH_ONEDNN
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#endif

#include <sotto/backend/cpu/convolution.hpp>
#include <sotto/backend/cpu/product.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/core/philox.hpp>

#include "fma.hpp"

namespace {

using namespace sotto;

std::size_t area(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

/// Numbers in [-1, 1), or zeros.
template <class E> class Numbers {
 public:
  Numbers(int rows, int columns) : rows_(rows), columns_(columns), memory_(area(rows, columns) * sizeof(E)) {}
  static Numbers random(int rows, int columns) {
    Numbers numbers(rows, columns);
    Random random(area(rows, columns), Purpose::user);
    for (std::size_t i = 0; i < area(rows, columns); ++i)
      numbers.begin()[i] = cpu::stored<E>(static_cast<float>(2 * random.uniform() - 1));
    return numbers;
  }
  E* begin() const { return memory_.as<E>(); }
  Matrix<E> view() const { return {begin(), rows_, columns_, columns_}; }

 private:
  int rows_, columns_;
  Buffer memory_;
};

// Measuring.

double seconds_of(std::function<void()> const& f, int times) {
  const std::clock_t start = std::clock();
  for (int i = 0; i < times; ++i) f();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / times;
}

/// The FMA loop over about a millisecond, and whether the core had its usual speed: that of the fastest fifth so far.
/// The very fastest is no measure: a clock of processor time, too, is sometimes wrong.
class Core {
 public:
  Core() {
    for (int i = 0; i < 50; ++i) rate();
  }
  double rate() {
    constexpr int rounds = 40'000;
    rates_.push_back(24. * cpu::lanes * rounds * 1e-9 / seconds_of([] { bench::fma_seconds(rounds); }, 1));
    return rates_.back();
  }
  bool usual(double rate) { return std::abs(rate / nominal() - 1) <= .07; }
  double nominal() {
    const auto fifth = rates_.begin() + static_cast<std::ptrdiff_t>(rates_.size() * 4 / 5);
    std::nth_element(rates_.begin(), fifth, rates_.end());
    return *fifth;
  }

 private:
  std::vector<double> rates_;
};

struct Rate {
  double gflops = 0, part = 0;  ///< medians; 0: not measured
};

/// Of each contender, one that is empty left out.
std::vector<Rate> measure(Core& core, double flops, std::vector<std::function<void()>> const& contenders) {
  constexpr int wanted = 15, most = 60;
  const std::size_t n = contenders.size();
  std::vector<std::vector<double>> gflops(n), parts(n);
  std::vector<int> times(n);
  for (std::size_t i = 0; i < n; ++i)
    if (contenders[i]) {
      contenders[i]();
      times[i] = std::max(1, static_cast<int>(.004 / std::max(1e-6, seconds_of(contenders[i], 1))));
    }
  for (int round = 0; round < most; ++round) {
    bool enough = true;
    for (std::size_t i = 0; i < n; ++i) {
      if (!contenders[i] || gflops[i].size() >= wanted) continue;
      enough = false;
      const double before = core.rate(), rate = flops / seconds_of(contenders[i], times[i]) * 1e-9, after = core.rate();
      if (!core.usual(before) || !core.usual(after)) continue;
      gflops[i].push_back(rate);
      parts[i].push_back(2 * rate / (before + after));
    }
    if (enough) break;
  }
  std::vector<Rate> rates;
  for (std::size_t i = 0; i < n; ++i) rates.push_back({bench::median(gflops[i]), bench::median(parts[i])});
  return rates;
}

void print(std::string const& name, std::vector<Rate> const& rates) {
  std::printf("%-42s", name.c_str());
  for (Rate const& r : rates)
    if (r.gflops > 0)
      std::printf("  %7.1f %.2f", r.gflops, r.part);
    else
      std::printf("  %12s", "-");
  std::printf("\n");
  std::fflush(stdout);
}

// Peers: C [m, n] = A [m, k] B + beta C, row by row; A and B may be given transposed.

struct Gemm {
  bool a_transposed, b_transposed;
  int m, n, k;
  float beta;
  int a_stride() const { return a_transposed ? m : k; }
  int b_stride() const { return b_transposed ? k : n; }
};
struct Peer {
  char const* name;
  void (*run)(Gemm const& g, float const* a, float const* b, float* c);
};

void run_eigen(Gemm const& g, float const* a, float const* b, float* c) {
  using Plain = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using From = Eigen::Map<Plain const, Eigen::Aligned64>;
  const From left(a, g.a_transposed ? g.k : g.m, g.a_stride()), right(b, g.b_transposed ? g.n : g.k, g.b_stride());
  Eigen::Map<Plain, Eigen::Aligned64> to(c, g.m, g.n);
  if (g.a_transposed)
    to.noalias() += left.transpose() * right;
  else if (g.b_transposed)
    to.noalias() = left * right.transpose();
  else
    to.noalias() = left * right;
}
#ifdef SOTTO_BENCH_OPENBLAS
void run_openblas(Gemm const& g, float const* a, float const* b, float* c) {
  cblas_sgemm(CblasRowMajor, g.a_transposed ? CblasTrans : CblasNoTrans, g.b_transposed ? CblasTrans : CblasNoTrans,
              g.m, g.n, g.k, 1, a, g.a_stride(), b, g.b_stride(), g.beta, c, g.n);
}
#endif
#ifdef SOTTO_BENCH_ONEDNN
void run_onednn(Gemm const& g, float const* a, float const* b, float* c) {
  dnnl_sgemm(g.a_transposed ? 'T' : 'N', g.b_transposed ? 'T' : 'N', g.m, g.n, g.k, 1, a, g.a_stride(), b, g.b_stride(),
             g.beta, c, g.n);
}
#endif

/// Whom numbers of E are multiplied by.
template <class E> std::vector<Peer> const& peers() {
  static const std::vector<Peer> none;
  return none;
}
template <> std::vector<Peer> const& peers<float>() {
  static const std::vector<Peer> all{
      {"Eigen", run_eigen},
#ifdef SOTTO_BENCH_OPENBLAS
      {"OpenBLAS", run_openblas},
#endif
#ifdef SOTTO_BENCH_ONEDNN
      {"oneDNN", run_onednn},
#endif
  };
  return all;
}

/// Stops the program if a peer multiplies something else than we do.
void compare(char const* name, Matrix<float const> ours, Matrix<float const> theirs) {
  double error = 0, size = 0;
  for (int i = 0; i < ours.rows; ++i)
    for (int j = 0; j < ours.columns; ++j) {
      error += std::pow(static_cast<double>(ours.row(i)[j] - theirs.row(i)[j]), 2);
      size += std::pow(static_cast<double>(ours.row(i)[j]), 2);
    }
  if (error <= 1e-8 * size) return;
  std::fprintf(stderr, "%s and sotto disagree\n", name);
  std::exit(1);
}

// Ours.

/// A linear layer and rows to send through it.
template <class E> struct Layer {
  using Kernel = cpu::KernelFor<E>;
  using Unit = typename Kernel::Unit;
  int rows, in, out;
  Numbers<E> x = Numbers<E>::random(rows, in), dy = Numbers<E>::random(rows, out), y{rows, out}, before{rows, out},
             dx{rows, in}, slope = Numbers<E>::random(rows, in);
  Numbers<float> w = Numbers<float>::random(out, in), bias = Numbers<float>::random(1, out), dw{out, in};
  Buffer forward_panels{cpu::panels_size<Kernel>(in, out) * sizeof(Unit)},
      backward_panels{cpu::panels_size<Kernel>(out, in) * sizeof(Unit)};
  cpu::Workspace workspace{};

  Layer(int n, int from, int to) : rows(n), in(from), out(to) {
    cpu::pack<Kernel>(w.begin(), in, out, 1, in, forward_panels.as<Unit>());
    cpu::pack<Kernel>(w.begin(), out, in, in, 1, backward_panels.as<Unit>());
  }
  using Kind = typename cpu::Epilogue<E>::Kind;
  void forward(cpu::Epilogue<E> const& e) {
    cpu::product<Kernel>(x.view(), {forward_panels.as<Unit>(), in, out}, e, y.view(), workspace);
  }
  void backward(cpu::Epilogue<E> const& e) {
    cpu::product<Kernel>(dy.view(), {backward_panels.as<Unit>(), out, in}, e, dx.view(), workspace);
  }
  void gradient() { cpu::weight_gradient<Kernel>(dy.view(), x.view(), dw.view(), workspace); }
};

/// The rates of every contender: sotto, then the peers.
struct LayerRates {
  std::vector<Rate> forward, backward, gradient;
};

template <class E> class Products {
 public:
  explicit Products(Core& core) : core_(core) {}

  LayerRates const& layer(int rows, int in, int out) {
    const auto [entry, fresh] = known_.try_emplace(std::tuple(rows, in, out));
    if (fresh) entry->second = measure_layer(rows, in, out);
    return entry->second;
  }

  /// The linear layers of a whole step together; a shape that several models have is measured once.
  void step(char const* name, int rows, int width, int depth, int feed_forward) {
    struct Kind {
      int in, out, layers;
      bool backward;  // nothing trains below the first
    };
    const Kind kinds[] = {{160, width, 1, false},
                          {width, 3 * width, depth, true},
                          {width, width, depth, true},
                          {width, feed_forward, depth, true},
                          {feed_forward, width, depth, true},
                          {width, 256, 1, true},
                          {256, 100, 1, true}};
    std::vector<Rate> totals(1 + peers<E>().size());
    for (std::size_t i = 0; i < totals.size(); ++i) {
      double flops = 0, seconds = 0, at_peak = 0;
      for (Kind const& kind : kinds) {
        const LayerRates& rates = layer(rows, kind.in, kind.out);
        const double each = 2e-9 * rows * kind.in * kind.out * kind.layers;
        const auto add = [&](Rate const& rate) {
          flops += each;
          seconds += each / rate.gflops;
          at_peak += each / rate.gflops * rate.part;
        };
        add(rates.forward[i]);
        if (kind.backward) add(rates.backward[i]);
        add(rates.gradient[i]);
      }
      totals[i] = {flops / seconds, at_peak / seconds};
    }
    summaries_.push_back({std::string(name) + ", " + std::to_string(rows) + " rows", totals});
  }

  /// What becomes of a product on its way to memory.
  void epilogues(int rows, int width, int feed_forward) {
    using Kind = typename Layer<E>::Kind;
    const double flops = 2. * rows * width * feed_forward;
    Layer<E> up(rows, width, feed_forward), down(rows, feed_forward, width);
    const std::string shape = title(rows, width, feed_forward), back = title(rows, feed_forward, width);
    print(shape + " GELU", measure(core_, flops, {[&] {
                                     up.forward({Kind::gelu, up.bias.begin(), {}, up.before.view()});
                                   }}));
    print(back + " residual", measure(core_, flops, {[&] {
                                        down.forward({Kind::add, down.bias.begin(), down.dy.view(), {}});
                                      }}));
    print(back + " by input, GELU's slope", measure(core_, flops, {[&] {
                                                      down.backward({Kind::gelu_slope, nullptr, down.slope.view(), {}});
                                                    }}));
  }

  void convolution(int width, int groups, int taps, int sequences, int frames) {
    using Kernel = cpu::KernelFor<E>;
    const cpu::GroupedConvolution shape{width, groups, taps};
    const int rows = sequences * frames, c = shape.channels();
    std::vector<int> offsets;
    for (int i = 0; i <= sequences; ++i) offsets.push_back(i * frames);
    const Lane<int> lane{offsets.data(), nullptr, nullptr, sequences, rows, frames, nullptr, nullptr, 0, 0, nullptr};
    auto x = Numbers<E>::random(rows, width);
    Numbers<E> y(rows, width);
    auto weight = Numbers<float>::random(width, c * taps), bias = Numbers<float>::random(1, width);
    Numbers<float> dw(width, c * taps);
    const Buffer memory(shape.panels_size<Kernel>() * sizeof(typename Kernel::Unit));
    auto* const panels = memory.as<typename Kernel::Unit>();
    cpu::Workspace workspace, other;
    cpu::pack_convolution<Kernel>(shape, weight.begin(), panels, workspace);
    // every tap of every frame, those that fall on the zeros around a sequence too
    const double flops = 2. * rows * width * c * taps;
    const std::string name = std::to_string(width) + " / " + std::to_string(groups) + " groups, " +
                             std::to_string(taps) + " taps, " + std::to_string(sequences) + " x " +
                             std::to_string(frames);
    print(name, measure(core_, flops, {[&] {
                          cpu::convolution<Kernel>(shape, lane, x.view(), panels, bias.begin(), y.view(), workspace,
                                                   other);
                        }}));
    print(name + " by input",
          measure(core_, flops,
                  {[&] { cpu::convolution_back<Kernel>(shape, lane, x.view(), panels, y.view(), workspace, other); }}));
    print(name + " by weight", measure(core_, flops, {[&] {
                                         cpu::convolution_gradient<Kernel>(shape, lane, y.view(), x.view(), dw.begin(),
                                                                           workspace, other);
                                       }}));
  }

  void print_summaries() const {
    for (auto const& [name, rates] : summaries_) print(name, rates);
  }

 private:
  static std::string title(int rows, int in, int out) {
    return std::to_string(rows) + " x " + std::to_string(in) + " -> " + std::to_string(out);
  }

  LayerRates measure_layer(int rows, int in, int out) {
    using Kind = typename Layer<E>::Kind;
    Layer<E> layer(rows, in, out);
    std::vector<std::function<void()>> forward{[&] {
      layer.forward({Kind::store, layer.bias.begin(), {}, {}});
    }},
        backward{[&] { layer.backward({}); }}, gradient{[&] { layer.gradient(); }};
    Numbers<float> y(rows, out), dx(rows, in), dw(out, in);
    if constexpr (std::is_same_v<E, float>) {
      layer.forward({});
      layer.backward({});
      layer.gradient();
      for (Peer const& peer : peers<E>()) {
        const Gemm by_rows{false, true, rows, out, in, 0}, by_input{false, false, rows, in, out, 0},
            by_weight{true, false, out, in, rows, 1};
        forward.push_back([&, by_rows] { peer.run(by_rows, layer.x.begin(), layer.w.begin(), y.begin()); });
        backward.push_back([&, by_input] { peer.run(by_input, layer.dy.begin(), layer.w.begin(), dx.begin()); });
        gradient.push_back([&, by_weight] { peer.run(by_weight, layer.dy.begin(), layer.x.begin(), dw.begin()); });
        forward.back()();
        backward.back()();
        dw = Numbers<float>(out, in);
        gradient.back()();
        compare(peer.name, layer.y.view(), y.view());
        compare(peer.name, layer.dx.view(), dx.view());
        compare(peer.name, layer.dw.view(), dw.view());
      }
    }
    const double flops = 2. * rows * in * out;
    LayerRates rates{measure(core_, flops, forward), measure(core_, flops, backward), measure(core_, flops, gradient)};
    print(title(rows, in, out), rates.forward);
    print(title(rows, in, out) + " by input", rates.backward);
    print(title(rows, in, out) + " by weight", rates.gradient);
    return rates;
  }

  Core& core_;
  std::map<std::tuple<int, int, int>, LayerRates> known_;
  std::vector<std::pair<std::string, std::vector<Rate>>> summaries_;
};

template <class E> void run(Core& core, char const* precision) {
  std::printf("%s: GF/s and part of the FMA loop's %.1f\n%-42s  %12s", precision, core.nominal(), "", "sotto");
  for (Peer const& peer : peers<E>()) std::printf("  %12s", peer.name);
  std::printf("\n");
  Products<E> products(core);
  struct Model {
    char const* name;
    int width, depth, feed_forward;
  };
  constexpr Model models[] = {{"12x384x1536", 384, 12, 1536}, {"3x768x3072", 768, 3, 3072},
                              {"12x384x768", 384, 12, 768},   {"3x640x2048", 640, 3, 2048},
                              {"12x256", 256, 12, 1024},      {"12x192", 192, 12, 768},
                              {"4x192", 192, 4, 768}};
  for (const int rows : {2000, 250})
    for (Model const& m : models) products.step(m.name, rows, m.width, m.depth, m.feed_forward);
  std::set<std::pair<int, int>> shapes;
  for (Model const& m : models)
    if (shapes.emplace(m.width, m.feed_forward).second) products.epilogues(2000, m.width, m.feed_forward);
  products.convolution(192, 16, 31, 8, 250);
  products.convolution(192, 16, 65, 8, 250);
  products.convolution(384, 16, 128, 8, 250);
  std::printf("the linear layers of a step, together\n");
  products.print_summaries();
}

}  // namespace

int main(int argc, char** argv) {
#ifdef SOTTO_BENCH_OPENBLAS
  openblas_set_num_threads(1);
#endif
#ifdef SOTTO_BENCH_ONEDNN
  omp_set_num_threads(1);
#endif
  std::vector<std::string_view> precisions(argv + 1, argv + argc);
  if (precisions.empty()) precisions = {"fp32"};
  Core core;
  for (const std::string_view precision : precisions) {
    if (precision == "fp32") {
      run<float>(core, "fp32");
    } else if (precision == "bf16" && cpu::bf16_available()) {
      run<bf16>(core, "bf16");
    } else {
      std::fprintf(stderr, "usage: products [fp32|bf16]...; bf16 needs a processor for which this was built\n");
      return 2;
    }
  }
}
