// The attention kernels, executed by a host thread by thread, against the reference in double.
#include <sotto/backend/cuda/attention.cuh>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <host_cuda/engine.hpp>
#include <limits>
#include <string>
#include <vector>

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/backend/reference/attention.hpp>
#include <sotto/core/philox.hpp>

#include "../doors/chunked_attention.hpp"

using sotto::bf16;
using sotto::cuda::Tile;
using namespace sotto::attention;

namespace {

using Doubles = std::vector<double>;

// Sequences of every kind of length: none, one row, a tile less one, a tile, one more, several tiles.
std::vector<int> const odd_lengths{1, 2, 63, 0, 64, 65, 130, 7};

/// A query in three sees nothing, a key in five is never seen.
struct PartlyBlind : Softmax {
  static SOTTO_HOST_DEVICE bool visible(Pair at) { return at.query % 3 != 1 && at.key % 5 != 0; }
};
/// Entries that share slots of a block's sums, two a score.
struct Scattered : Softmax {
  static constexpr int reads = 2, entries = 4096;
  static constexpr int parameters(int) { return entries; }
  static constexpr int table(int) { return entries; }
  template <class T, class Table> static SOTTO_HOST_DEVICE T score(T const& score, Pair at, Table const& table) {
    const T strength = table((at.key * 37 + at.query) * 128 % entries);
    return at.query % 2 == 0 ? T(score * strength) : T(score * strength + table(at.key % 8 * 512));
  }
};

template <class T> T rounded(double x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return bf16::of(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}
double number(float x) { return static_cast<double>(x); }
double number(bf16 x) { return static_cast<double>(static_cast<float>(x)); }

cudaStream_t stream() {
  static cudaStream_t made = [] {
    cudaStream_t s = nullptr;
    sotto::cuda::check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
    return s;
  }();
  return made;
}
/// Memory of the device: NaNs until something is written.
template <class T> class Buffer {
 public:
  explicit Buffer(std::size_t n) : size_(n) {
    if (n > 0) sotto::cuda::check(cudaMalloc(reinterpret_cast<void**>(&begin_), bytes()), "allocating");
  }
  explicit Buffer(std::vector<T> const& from) : Buffer(from.size()) {
    if (size_ > 0)
      sotto::cuda::check(cudaMemcpyAsync(begin_, from.data(), bytes(), cudaMemcpyHostToDevice, stream()), "copying");
  }
  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;
  ~Buffer() { cudaFree(begin_); }
  T* get() const { return begin_; }
  std::vector<T> read() const {
    std::vector<T> to(size_);
    if (size_ > 0)
      sotto::cuda::check(cudaMemcpyAsync(to.data(), begin_, bytes(), cudaMemcpyDeviceToHost, stream()), "copying");
    sotto::cuda::check(cudaStreamSynchronize(stream()), "waiting");
    return to;
  }

 private:
  std::size_t bytes() const { return size_ * sizeof(T); }
  T* begin_ = nullptr;
  std::size_t size_;
};

/// The largest difference, by the largest wanted number; huge if one is not a number. Numbers that nobody wants, those
/// of rows after the last sequence, must be 0.
template <class T> double distance(std::vector<T> const& got, Doubles const& wanted) {
  double apart = 0, largest = 1e-30;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double want = i < wanted.size() ? wanted[i] : 0, d = std::abs(number(got[i]) - want);
    apart = std::isfinite(d) ? std::max(apart, d) : 1e300;
    largest = std::max(largest, std::abs(want));
    if (i >= wanted.size() && !(number(got[i]) == 0)) apart = 1e300;
  }
  return apart / largest;
}

template <class T> struct Results {
  std::vector<T> out, d_query_key_value, d_gates;
  std::vector<float> log_sum, d_table;
  bool operator==(Results const& b) const {
    const auto same = [](auto const& x, auto const& y) {
      return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof x[0]) == 0);
    };
    return same(out, b.out) && same(d_query_key_value, b.d_query_key_value) && same(d_gates, b.d_gates) &&
           same(log_sum, b.log_sum) && same(d_table, b.d_table);
  }
};

template <class Policy, int HeadWidth, class T> struct Case {
  static constexpr int width = sotto::reference::padded(HeadWidth), tile_width = (width + 15) / 16 * 16;
  static constexpr int tail = 70;         // rows after the last sequence: two tiles
  static constexpr float before = 0.25f;  // what the table's gradient is added to

  std::vector<int> offsets{0};
  int heads, sequences, rows, columns, entries;
  Doubles query_key_value, table, gates, d_out;  // of the sequences' rows

  Case(std::vector<int> const& lengths, int heads_, double spread = 1)
      : heads(heads_), sequences(static_cast<int>(lengths.size())), columns(heads_ * width),
        entries(Policy::table(heads_)) {
    for (const int n : lengths) offsets.push_back(offsets.back() + n);
    rows = offsets.back();
    sotto::Random random(HeadWidth, sotto::Purpose::noise);
    const auto draw = [&](int n, auto round) {
      Doubles x(static_cast<std::size_t>(n));
      for (double& v : x) v = number(round(spread * random.normal()));
      return x;
    };
    const auto zero_padding = [&](Doubles& x) {
      for (std::size_t i = 0; i < x.size(); ++i)
        if (static_cast<int>(i % width) >= HeadWidth) x[i] = 0;
    };
    query_key_value = draw(rows * 3 * columns, rounded<T>);
    table = draw(entries, rounded<float>);
    gates = draw(Policy::gates > 0 ? rows * heads : 0, rounded<T>);
    d_out = draw(rows * columns, rounded<T>);
    zero_padding(query_key_value);
    zero_padding(d_out);
  }
  /// [rows + tail, n], rows after the last sequence filled with NaNs: nobody reads them. Empty if x is.
  std::vector<T> with_tail(Doubles const& x, int n) const {
    std::vector<T> to;
    if (x.empty()) return to;
    for (const double v : x) to.push_back(rounded<T>(v));
    to.resize(static_cast<std::size_t>((rows + tail) * n), rounded<T>(std::numeric_limits<double>::quiet_NaN()));
    return to;
  }
  Results<T> run() const {
    const auto area = [&](int n) { return static_cast<std::size_t>((rows + tail) * n); };
    const int tile_count = sotto::cuda::most_tiles(rows + tail, sequences);  // some are unused
    const Buffer<int> starts(offsets);
    const Buffer<Tile> tiles(static_cast<std::size_t>(tile_count));
    sotto::cuda::launch(sotto::cuda::plan_tiles<>, {dim3(1), dim3(static_cast<unsigned>(tile_count))}, stream(),
                        starts.get(), sequences, rows + tail, tiles.get(), tile_count);
    const Buffer<T> in(with_tail(query_key_value, 3 * columns)), gate(with_tail(gates, heads)),
        d(with_tail(d_out, columns)), out(area(columns)), d_in(area(3 * columns)),
        d_gate(gates.empty() ? 0 : area(heads));
    const Buffer<float> entry(std::vector<float>(table.begin(), table.end())), log_sum(area(heads)), delta(area(heads)),
        d_entry(std::vector<float>(table.size(), before));
    const Buffer<unsigned long long> sums(std::vector<unsigned long long>(table.size(), 0));
    const sotto::cuda::AttentionShape shape{
        tiles.get(), tile_count, rows + tail, heads, width, static_cast<float>(1 / std::sqrt(double(HeadWidth)))};
    using Kernels = sotto::cuda::AttentionKernels<Policy, tile_width, T>;
    Kernels::forward(shape, in.get(), entry.get(), gate.get(), out.get(), log_sum.get(), stream());
    Kernels::backward(shape, entries, in.get(), entry.get(), gate.get(), out.get(), d.get(), log_sum.get(), delta.get(),
                      d_in.get(), d_gate.get(), sums.get(), d_entry.get(), stream());
    return {out.read(), d_in.read(), d_gate.read(), log_sum.read(), d_entry.read()};
  }
  void check(char const* name, double tolerance) const {
    INFO(std::string(name), ", head width ", HeadWidth, ", bytes a number ", sizeof(T));
    using sotto::Array;
    using sotto::Matrix;
    const sotto::Lane<int> lane{offsets.data(), nullptr, nullptr, sequences, rows,   rows,
                                nullptr,        nullptr, 0,       0,         nullptr};
    const auto view = [&](auto& x, int n) {
      return Matrix<std::remove_reference_t<decltype(x[0])>>{x.data(), rows, n, n};
    };
    Doubles out(d_out.size()), log_sum(static_cast<std::size_t>(rows * heads)), d_in(query_key_value.size()),
        d_table(table.size()), d_gates(gates.size());
    const Array<double const> entry{table.data(), table.size()};
    const auto gate = Policy::gates > 0 ? view(gates, heads) : Matrix<double const>{};
    sotto::reference::attention<Policy, HeadWidth, double>(lane, heads, view(query_key_value, 3 * columns), entry, gate,
                                                           view(out, columns), view(log_sum, heads));
    sotto::reference::attention_back<Policy, HeadWidth, double>(
        lane, heads, view(query_key_value, 3 * columns), entry, gate, view(std::as_const(out), columns),
        view(d_out, columns), view(std::as_const(log_sum), heads), view(d_in, 3 * columns),
        Array<double>{d_table.data(), d_table.size()}, Policy::gates > 0 ? view(d_gates, heads) : Matrix<double>{});
    for (double& x : log_sum)
      if (std::isinf(x)) x = 0;  // of a query that sees no key: ours to choose

    const Results<T> got = run();
    std::vector<float> got_table = got.d_table;
    for (float& x : got_table) x -= before;
    CHECK(distance(got.out, out) < tolerance);
    CHECK(distance(got.log_sum, log_sum) < tolerance);
    CHECK(distance(got.d_query_key_value, d_in) < tolerance);
    CHECK(distance(got.d_gates, d_gates) < tolerance);
    CHECK(distance(got_table, d_table) < tolerance);
  }
  /// In any order of threads and blocks the same bits.
  void check_orders() const {
    INFO("head width ", HeadWidth, ", bytes a number ", sizeof(T));
    using host_cuda::Order;
    const Results<T> wanted = run();
    for (const Order threads : {Order::forward, Order::reverse, Order::random})
      for (const Order blocks : {Order::reverse, Order::random}) {
        host_cuda::options.threads = threads;
        host_cuda::options.blocks = blocks;
        CHECK(run() == wanted);
      }
    host_cuda::options = {};
  }
};

constexpr double in_float = 1e-5, in_bf16 = 1e-2;
using Biased = RelativeBias<16, 20>;
using Gated = RelativeBias<16, 20, true, true>;

}  // namespace

TEST_CASE("full attention") {
  Case<Full, 64, bf16>(odd_lengths, 2).check("Full", in_bf16);
  Case<Full, 8, float>(odd_lengths, 3).check("Full", in_float);
  Case<Full, 128, bf16>({65, 3}, 1).check("Full", in_bf16);
}
TEST_CASE("a window narrower than a tile, and one that whole tiles just fit in, or just do not") {
  Case<Windowed<9>, 24, bf16>(odd_lengths, 2).check("Windowed<9>", in_bf16);
  Case<Windowed<62>, 128, float>({200, 3}, 1).check("Windowed<62>", in_float);
}
TEST_CASE("a window costs its width: twice the frames, twice the work") {
  const auto work = [](int length) {
    const auto before = host_cuda::statistics.collectives;
    Case<Windowed<9>, 24, bf16>({length}, 1).run();
    return static_cast<double>(host_cuda::statistics.collectives - before);
  };
  CHECK(work(512) < 2.2 * work(256));
}
TEST_CASE("a bias by distance, plain and gated") {
  Case<Biased, 48, bf16>(odd_lengths, 2).check("RelativeBias", in_bf16);
  Case<Gated, 13, bf16>(odd_lengths, 3).check("gated RelativeBias", in_bf16);
}
TEST_CASE("an attention that a user wrote") {
  Case<ChunkedCapped, 24, float>(odd_lengths, 2).check("ChunkedCapped", in_float);
}
TEST_CASE("a query that sees no key, a key that no query sees") {
  Case<PartlyBlind, 16, bf16>(odd_lengths, 1).check("PartlyBlind", in_bf16);
}
TEST_CASE("a table longer than a block's sums, and entries that collide there") {
  using Long = RelativeBias<32, 800, true, true>;
  Case<Long, 40, float>(odd_lengths, 2).check("long gated RelativeBias", in_float);
  Case<Long, 40, float>({300}, 1).check("long gated RelativeBias", in_float);
  Case<Scattered, 16, bf16>({256, 9}, 2).check("Scattered", in_bf16);
}
TEST_CASE("scores so large that only one key is left") {
  Case<Full, 8, float>({65}, 1, 30).check("Full", 1e-3);  // scores of +-5000, known to 1e-7 of that
}
TEST_CASE("the same bits whatever the order of threads and blocks") {
  const std::vector<int> lengths = {130, 2};
  Case<Gated, 13, bf16>(lengths, 2).check_orders();
  Case<Scattered, 16, bf16>(lengths, 1).check_orders();
  Case<ChunkedCapped, 24, float>(lengths, 1).check_orders();
}
