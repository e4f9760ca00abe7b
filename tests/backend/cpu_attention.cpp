#include <sotto/backend/cpu/attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include <sotto/attention/full.hpp>
#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/philox.hpp>

#include "kernels.hpp"
#include "memory.hpp"

using sotto::Array;
using sotto::Dual;
using sotto::Lane;
using sotto::Matrix;
using namespace sotto::attention;
using namespace sotto::test;

namespace {

// A user's attention: scores capped, a learned slope by distance, chunks of 32 frames seen two
// back.
struct ChunkedCapped : Softmax {
  static constexpr Span span{95, 31};
  static constexpr int reads = 2;
  static constexpr int parameters(int heads) { return 2 * heads; }
  static constexpr int table(int heads) { return 2 * heads; }
  static SOTTO_HOST_DEVICE bool visible(Pair at) {
    const int chunks = at.key / 32 - at.query / 32;
    return chunks <= 0 && chunks >= -2;
  }
  template <class T, class Table> static SOTTO_HOST_DEVICE T score(T const& score, Pair at, Table const& table) {
    const int d = at.key - at.query;
    return tanh(score) * table(2 * at.head) + table(2 * at.head + 1) * T(d < 0 ? d * 0.01f : -d * 0.01f);
  }
};
struct EveryThirdIsBlind : Softmax {
  static SOTTO_HOST_DEVICE bool visible(Pair at) { return at.query % 3 != 1 && at.key % 5 != 0; }
};

struct Shape {
  std::vector<int> offsets;
  int heads, width, padded;
  int rows() const { return offsets.back(); }
  int longest() const {
    int n = 0;
    for (std::size_t i = 1; i < offsets.size(); ++i) n = std::max(n, offsets[i] - offsets[i - 1]);
    return n;
  }
};

// The definition, over any scalar; visits every visible pair with its weight.
template <class Policy, class T> struct Naive {
  Shape const& shape;
  Numbers<T> const &qkv, &table, &gates;

  T const& at(int row, int part, int head, int c) const {
    return qkv[index(row, 3 * shape.heads * shape.padded, (part * shape.heads + head) * shape.padded + c)];
  }
  T raw(int query, int key, int head) const {
    T sum(0);
    for (int c = 0; c < shape.width; ++c) sum += at(query, 0, head, c) * at(key, 1, head, c);
    return sum / std::sqrt(static_cast<double>(shape.width));
  }
  T gate(int row, int head) const { return Policy::gates > 0 ? gates[index(row, shape.heads, head)] : T(1); }

  // f(row, head, first row of the sequence, keys, probabilities, log of the denominator) for each
  // query.
  template <class F> void each_query(F&& f) const {
    for (std::size_t s = 0; s + 1 < shape.offsets.size(); ++s)
      for (int head = 0; head < shape.heads; ++head)
        for (int q = 0; q < shape.offsets[s + 1] - shape.offsets[s]; ++q) {
          const int first = shape.offsets[s];
          std::vector<int> keys;
          Numbers<T> p;
          T sum(0);
          for (int k = 0; k < shape.offsets[s + 1] - first; ++k) {
            if (!seen<Policy>({head, q, k})) continue;
            keys.push_back(k);
            p.push_back(exp(scored<Policy>(raw(first + q, first + k, head), Pair{head, q, k}, table.data(),
                                           gate(first + q, head))));
            sum += p.back();
          }
          for (T& x : p) x /= sum;
          f(first + q, head, first, keys, p, keys.empty() ? T(0) : log(sum));
        }
  }
  Numbers<T> forward() const {
    Numbers<T> out(index(shape.rows(), shape.heads * shape.padded, 0), T(0));
    each_query([&](int row, int head, int first, std::vector<int> const& keys, Numbers<T> const& p, T const&) {
      for (std::size_t i = 0; i < keys.size(); ++i)
        for (int c = 0; c < shape.width; ++c)
          out[index(row, shape.heads * shape.padded, head * shape.padded + c)] +=
              p[i] * at(first + keys[i], 2, head, c);
    });
    return out;
  }
};

struct Gradients {
  Numbers<double> qkv, table, gates;
};

template <class Policy>
Gradients naive_back(Naive<Policy, double> const& naive, Numbers<double> const& out, Numbers<double> const& d_out) {
  Shape const& shape = naive.shape;
  Gradients d{Numbers<double>(naive.qkv.size()), Numbers<double>(naive.table.size()),
              Numbers<double>(naive.gates.size())};
  const int columns = shape.heads * shape.padded;
  const double scale = 1 / std::sqrt(static_cast<double>(shape.width));
  const auto to = [&](int row, int part, int head, int c) -> double& {
    return d.qkv[index(row, 3 * columns, (part * shape.heads + head) * shape.padded + c)];
  };
  naive.each_query([&](int row, int head, int first, std::vector<int> const& keys, Numbers<double> const& p, double) {
    double along = 0;
    for (int c = 0; c < shape.width; ++c)
      along += out[index(row, columns, head * shape.padded + c)] * d_out[index(row, columns, head * shape.padded + c)];
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const int key = first + keys[i];
      double dp = 0;
      for (int c = 0; c < shape.width; ++c) {
        const double g = d_out[index(row, columns, head * shape.padded + c)];
        dp += g * naive.at(key, 2, head, c);
        to(key, 2, head, c) += p[i] * g;
      }
      const double ds = p[i] * (dp - along);
      const auto slope = score_slope<Policy>(naive.raw(row, key, head), Pair{head, row - first, keys[i]},
                                             naive.table.data(), naive.gate(row, head));
      for (int e = 0; e < slope.used; ++e) d.table[static_cast<std::size_t>(slope.entry[e])] += ds * slope.by_entry[e];
      if (Policy::gates > 0) d.gates[index(row, shape.heads, head)] += ds * slope.by_gate;
      for (int c = 0; c < shape.width; ++c) {
        to(row, 0, head, c) += ds * slope.by_raw * scale * naive.at(key, 1, head, c);
        to(key, 1, head, c) += ds * slope.by_raw * scale * naive.at(row, 0, head, c);
      }
    }
  });
  return d;
}

template <class Kernel, class Policy, int Width>
void check(char const* name, std::vector<int> const& lengths, int heads) {
  using E = typename Kernel::Number;
  constexpr int padded = (Width + 7) / 8 * 8;
  Shape shape{{0}, heads, Width, padded};
  for (const int n : lengths) shape.offsets.push_back(shape.offsets.back() + n);
  const int rows = shape.rows(), columns = heads * padded;
  INFO(std::string(name), ", head width ", Width);

  sotto::Random random(Width, sotto::Purpose::noise);
  const auto draw = [&](std::size_t n) {
    Numbers<double> x(n);
    for (double& v : x)
      v = static_cast<double>(static_cast<float>(sotto::cpu::stored<E>(static_cast<float>(random.normal()))));
    return x;
  };
  Numbers<double> qkv = draw(index(rows, 3 * columns, 0)), d_out = draw(index(rows, columns, 0)),
                  table = draw(static_cast<std::size_t>(Policy::table(heads))),
                  gates = draw(Policy::gates > 0 ? index(rows, heads, 0) : 0);
  for (int i = 0; i < rows; ++i)
    for (int h = 0; h < 3 * heads; ++h)
      for (int c = Width; c < padded; ++c) qkv[index(i, 3 * columns, h * padded + c)] = 0;
  for (int i = 0; i < rows; ++i)
    for (int h = 0; h < heads; ++h)
      for (int c = Width; c < padded; ++c) d_out[index(i, columns, h * padded + c)] = 0;

  const Naive<Policy, double> naive{shape, qkv, table, gates};
  const Numbers<double> wanted = naive.forward();
  Numbers<double> wanted_log(index(rows, heads, 0));
  naive.each_query([&](int row, int head, int, auto const&, auto const&, double log_sum) {
    wanted_log[index(row, heads, head)] = log_sum;
  });
  const Gradients wanted_back = naive_back(naive, wanted, d_out);

  // The plain backward itself against dual numbers, along a random direction of all inputs at once.
  if (rows < 100) {
    using D = Dual<double, 1>;
    const auto along = [&](Numbers<double> const& x, Numbers<double> const& gradient, double& expected) {
      Numbers<D> moved(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) {
        moved[i] = D(x[i]);
        moved[i].by[0] = random.normal();
        expected += moved[i].by[0] * gradient[i];
      }
      return moved;
    };
    for (int direction = 0; direction < 3; ++direction) {
      double expected = 0, actual = 0;
      const auto dual_qkv = along(qkv, wanted_back.qkv, expected),
                 dual_table = along(table, wanted_back.table, expected),
                 dual_gates = along(gates, wanted_back.gates, expected);
      const Numbers<D> out = Naive<Policy, D>{shape, dual_qkv, dual_table, dual_gates}.forward();
      for (std::size_t i = 0; i < out.size(); ++i) actual += out[i].by[0] * d_out[i];
      CHECK(actual == doctest::Approx(expected).epsilon(1e-11));
    }
  }

  const Lane<int> lane{shape.offsets.data(),
                       nullptr,
                       nullptr,
                       static_cast<int>(lengths.size()),
                       rows,
                       shape.longest(),
                       nullptr,
                       nullptr,
                       0,
                       0,
                       nullptr};
  const auto view = [&]<class T>(Memory<T>& a, int width) { return Matrix<T>{a.begin, rows, width, width}; };
  Memory<E> qkv_f(qkv), d_out_f(d_out), gates_f(gates), out(wanted.size()), d_qkv(qkv.size()), d_gates(gates.size());
  Floats table_f(table), log_sum(wanted_log.size()), d_table(table.size());
  const std::size_t needed = sotto::cpu::attention_scratch<Kernel, padded>(shape.longest()) / sizeof(float);
  Floats memory(needed);
  auto* const scratch = reinterpret_cast<std::byte*>(memory.begin);
  for (std::size_t i = 0; i < table.size(); ++i) d_table.begin[i] = 0;
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(Width)));
  const auto gate_view = [&](Memory<E>& a) { return Policy::gates > 0 ? view(a, heads) : Matrix<E>{}; };
  // Probabilities of bf16 are off by up to 1 in 512 each, and so are results.
  constexpr double precision = sizeof(E) == 2 ? 4e-3 : 2e-6;
  sotto::cpu::attention<Policy, padded, Kernel>(lane, heads, scale, view(qkv_f, 3 * columns), table_f.begin,
                                                gate_view(gates_f), view(out, columns), view(log_sum, heads), scratch);
  CHECK(distance(out, wanted) < precision);
  CHECK(distance(log_sum, wanted_log) < 2e-6);
  const auto back = [&](Memory<E>& to) {
    sotto::cpu::attention_back<Policy, padded, Kernel>(
        lane, heads, scale, view(qkv_f, 3 * columns), table_f.begin, gate_view(gates_f), view(out, columns),
        view(d_out_f, columns), view(log_sum, heads), view(to, 3 * columns),
        Policy::table(heads) > 0 ? d_table.begin : nullptr, gate_view(d_gates), scratch);
  };
  back(d_qkv);
  CHECK(distance(d_qkv, wanted_back.qkv) < 2 * precision);
  CHECK(distance(d_table, wanted_back.table) < 2 * precision);
  CHECK(distance(d_gates, wanted_back.gates) < 2 * precision);
  // Nothing is written behind the ends.
  CHECK(std::isnan(memory.begin[needed]));
  CHECK(std::isnan(static_cast<float>(out.begin[out.size])));
  CHECK(std::isnan(static_cast<float>(d_qkv.begin[d_qkv.size])));

  // Again, on a scratch that holds what the last call left: the same bits; d_table is added to.
  Memory<E> again(qkv.size());
  back(again);
  CHECK(std::memcmp(again.begin, d_qkv.begin, qkv.size() * sizeof(E)) == 0);
  for (double& x : const_cast<Numbers<double>&>(wanted_back.table)) x *= 2;
  CHECK(distance(d_table, wanted_back.table) < 2 * precision);
}

template <class Kernel, class Policy> void check_widths(char const* name) {
  check<Kernel, Policy, 8>(name, {1, 5, 33}, 2);
  check<Kernel, Policy, 24>(name, {1, 5, 33, 100}, 3);
  check<Kernel, Policy, 40>(name, {33, 5}, 2);
  check<Kernel, Policy, 48>(name, {100, 1, 257}, 2);
  check<Kernel, Policy, 64>(name, {257, 33, 5, 1}, 2);
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("full attention is the softmax of its definition, forward and backward, at any head width",
                          Kernel, full) {
  check_widths<Kernel, Full>("Full");
  check<Kernel, Full, 31>("Full", {33, 7}, 2);
  check<Kernel, Full, 44>("Full", {50, 97}, 2);
  check<Kernel, Full, 52>("Full", {33, 7}, 2);
  check<Kernel, Full, 56>("Full", {5, 192}, 2);
  check<Kernel, Full, 72>("Full", {96, 3}, 2);
  check<Kernel, Full, 128>("Full", {48, 5, 100}, 1);
}

TEST_CASE_TEMPLATE_DEFINE("windowed attention sees its window only", Kernel, windowed) {
  check_widths<Kernel, Windowed<16>>("Windowed<16>");
  check<Kernel, Windowed<0>, 64>("Windowed<0>", {1, 5, 33, 100, 257}, 2);
  check<Kernel, Windowed<7, 0>, 64>("Windowed<7, 0>", {1, 5, 33, 100, 257}, 2);
  check<Kernel, Windowed<0, 130>, 24>("Windowed<0, 130>", {5, 257}, 2);
}

TEST_CASE_TEMPLATE_DEFINE("a relative bias is learned, plain or gated", Kernel, relative) {
  check_widths<Kernel, RelativeBias<>>("RelativeBias");
  check_widths<Kernel, RelativeBias<32, 64>>("RelativeBias<32, 64>");
  check_widths<Kernel, WavLmBias>("WavLmBias");
}

TEST_CASE_TEMPLATE_DEFINE("an attention that a user wrote gets its gradients from its formula", Kernel, users) {
  check_widths<Kernel, ChunkedCapped>("ChunkedCapped");
}

TEST_CASE_TEMPLATE_DEFINE("a query that sees no key gives zeros and no gradient", Kernel, blind) {
  check_widths<Kernel, EveryThirdIsBlind>("EveryThirdIsBlind");
}

TEST_CASE_TEMPLATE_APPLY(full, Kernels);
TEST_CASE_TEMPLATE_APPLY(windowed, Kernels);
TEST_CASE_TEMPLATE_APPLY(relative, Kernels);
TEST_CASE_TEMPLATE_APPLY(users, Kernels);
TEST_CASE_TEMPLATE_APPLY(blind, Kernels);

TEST_CASE("large scores neither overflow nor lose the largest") {
  const int length = 40;
  const std::vector<int> offsets{0, length};
  Floats qkv(static_cast<std::size_t>(length) * 24), out(static_cast<std::size_t>(length) * 8),
      log_sum(static_cast<std::size_t>(length));
  using Kernel = sotto::cpu::Fma;
  Floats memory(sotto::cpu::attention_scratch<Kernel, 8>(length) / sizeof(float));
  auto* const scratch = reinterpret_cast<std::byte*>(memory.begin);
  for (int i = 0; i < length; ++i)
    for (int c = 0; c < 8; ++c) {
      qkv.begin[index(i, 24, c)] = 100;
      qkv.begin[index(i, 24, 8 + c)] = static_cast<float>(i);
      qkv.begin[index(i, 24, 16 + c)] = static_cast<float>(i);
    }
  const Lane<int> lane{offsets.data(), nullptr, nullptr, 1, length, length, nullptr, nullptr, 0, 0, nullptr};
  sotto::cpu::attention<Full, 8, Kernel>(lane, 1, 1, Matrix<float const>{qkv.begin, length, 24, 24}, nullptr, {},
                                         {out.begin, length, 8, 8}, {log_sum.begin, length, 1, 1}, scratch);
  for (std::size_t i = 0; i < out.size; ++i) CHECK(out.begin[i] == doctest::Approx(length - 1));
  CHECK(log_sum.begin[0] == doctest::Approx(800.0 * (length - 1)));
}
