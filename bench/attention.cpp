// Attention on one core: GFLOP/s of the products (2 per multiply-add, forward 4 and backward 10 per
// visible pair and channel) and their fraction of a register-only FMA loop run in the same seconds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <new>
#include <vector>

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/backend/cpu/attention.hpp>
#include <sotto/core/philox.hpp>

namespace {

using sotto::Matrix;

// Processor time, not the wall's: other programs' turns do not count.
double now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double fma_peak() {
  sotto::cpu::Vec sum[12]{}, x{}, y{};
  x += 0.5f;
  y += 1e-9f;
  for (auto& s : sum) __asm__ volatile("" : "+x"(s));  // so that the compiler takes no two for equal
  constexpr int rounds = 400000;
  const double start = now();
  for (int i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+x"(x), "+x"(y));  // so that the compiler keeps every round
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) sum[k] = sum[k] * x + y;
  }
  const double seconds = now() - start;
  for (int k = 1; k < 12; ++k) sum[0] += sum[k];
  __asm__ volatile("" : : "x"(sum[0]));
  return rounds * 12.0 * 2 * sotto::cpu::lanes / seconds * 1e-9;
}

struct Aligned {
  float* begin;
  explicit Aligned(std::size_t n)
      : begin(static_cast<float*>(::operator new (n * sizeof(float), std::align_val_t{64}))) {
    sotto::Random random(n, sotto::Purpose::noise);
    for (std::size_t i = 0; i < n; ++i) begin[i] = static_cast<float>(2 * random.uniform() - 1);
  }
  Aligned(Aligned const&) = delete;
  Aligned& operator=(Aligned const&) = delete;
  ~Aligned() { ::operator delete (begin, std::align_val_t{64}); }
};

template <class Policy, int HeadWidth> void measure(char const* name, int length, int heads) {
  const int sequences = 2, rows = sequences * length, width = heads * HeadWidth;
  std::vector<int> offsets(static_cast<std::size_t>(sequences) + 1);
  for (int i = 0; i <= sequences; ++i) offsets[static_cast<std::size_t>(i)] = i * length;
  const sotto::Lane<int> lane{offsets.data(), nullptr, nullptr, sequences, rows,   length,
                              nullptr,        nullptr, 0,       0,         nullptr};
  const auto size = [&](int columns) { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns); };
  Aligned qkv(size(3 * width)), out(size(width)), d_out(size(width)), d_qkv(size(3 * width)), log_sum(size(heads)),
      gates(size(heads)), d_gates(size(heads)), table(static_cast<std::size_t>(Policy::table(heads)) + 1),
      d_table(static_cast<std::size_t>(Policy::table(heads)) + 1);
  using Kernel = sotto::cpu::Fma;
  Aligned scratch(sotto::cpu::attention_scratch<Kernel, HeadWidth>(length) / sizeof(float));
  auto* const bytes = reinterpret_cast<std::byte*>(bytes);
  const auto view = [&](Aligned const& a, int columns) { return Matrix<float>{a.begin, rows, columns, columns}; };
  double pairs = 0;
  for (int q = 0; q < length; ++q) {
    const auto keys = sotto::attention::keys_of(Policy::span, q, q + 1, length);
    pairs += keys.end - keys.begin;
  }
  const double work = 2.0 * pairs * HeadWidth * heads * sequences, scale = 0.125;
  std::vector<double> forward, backward;
  for (int round = 0; round < 15; ++round) {
    const double before = fma_peak(), t0 = now();
    sotto::cpu::attention<Policy, HeadWidth, Kernel>(lane, heads, static_cast<float>(scale), view(qkv, 3 * width),
                                                     table.begin, view(gates, heads), view(out, width),
                                                     view(log_sum, heads), bytes);
    const double t1 = now(), between = fma_peak(), t2 = now();
    sotto::cpu::attention_back<Policy, HeadWidth, Kernel>(
        lane, heads, static_cast<float>(scale), view(qkv, 3 * width), table.begin, view(gates, heads), view(out, width),
        view(d_out, width), view(log_sum, heads), view(d_qkv, 3 * width), d_table.begin, view(d_gates, heads), bytes);
    const double t3 = now(), after = fma_peak();
    forward.push_back(2e-9 * work / (t1 - t0) / std::max(before, between));
    backward.push_back(5e-9 * work / (t3 - t2) / std::max(between, after));
  }
  const auto median = [](std::vector<double>& v) {
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
  };
  const double peak = fma_peak(), f = median(forward), b = median(backward);
  std::printf(
      "%-14s length %4d, head width %3d: forward %6.1f GF/s (%.2f of peak), backward %6.1f GF/s "
      "(%.2f)\n",
      name, length, HeadWidth, f * peak, f, b * peak, b);
}

}  // namespace

int main() {
  using namespace sotto::attention;
  std::printf("FMA loop: %.1f GF/s\n", fma_peak());
  for (int length : {250, 500, 750}) {
    measure<Full, 64>("Full", length, 6);
    measure<Full, 48>("Full", length, 8);
    measure<Windowed<64>, 64>("Windowed<64>", length, 6);
    measure<RelativeBias<>, 64>("RelativeBias", length, 6);
    measure<WavLmBias, 64>("WavLmBias", length, 6);
  }
  measure<Full, 40>("Full", 500, 8);
  measure<Full, 32>("Full", 500, 8);
  measure<Full, 128>("Full", 500, 4);
  measure<Windowed<64>, 64>("Windowed<64>", 1500, 6);
  measure<Full, 64>("Full", 1500, 6);
}
