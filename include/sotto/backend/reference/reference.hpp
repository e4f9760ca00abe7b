// The oracle: every operation of the door as plain loops over any scalar (float, double, Dual<double, 1>), in the order
// of the mathematics. Shares no loop with another backend, and counts the multiply-adds of its products.
#pragma once

#include <math.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include <sotto/backend/backend.hpp>
#include <sotto/backend/reference/attention.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/nn/dropout_mask.hpp>

namespace sotto::inline SOTTO_ABI {

template <class Scalar> class Reference {
 public:
  using T = Scalar;
  using Element = T;
  using Master = T;
  using Index = int;
  using Sum = T;
  using Count = std::int64_t;
  static constexpr bool replays = false;
  struct Prepared {  ///< [padded out, padded in], and the bias, padded too
    T* weight;
    T* bias;
    LinearShape shape;
  };
  struct PreparedConvolution {  ///< effective weight [width, channels, taps]
    T* weight;
    T* bias;
    ConvolutionShape shape;
  };

  /// Multiply-adds of products done so far, padding not counted: the mathematics' own, so model FLOPs are twice this.
  std::uint64_t multiply_adds = 0;

  static constexpr Prepared carve_linear(Arena& arena, LinearShape s) {
    const auto out = static_cast<std::size_t>(s.padded_out()), in = static_cast<std::size_t>(s.padded_in());
    T* const weight = arena.take<T>(out * in);
    return {weight, arena.take<T>(out), s};
  }
  static constexpr PreparedConvolution carve_convolution(Arena& arena, ConvolutionShape s) {
    T* const weight = arena.take<T>(size(s.width) * size(s.channels()) * size(s.taps));
    return {weight, arena.take<T>(size(s.width)), s};
  }
  static constexpr Array<T const> carve_table(Arena& arena, int entries) {
    return {arena.take<T>(size(entries)), size(entries)};
  }

  void prepare_linear(LinearShape s, T const* weight, T const* bias, Prepared& to) {
    for (int i = 0; i < s.padded_out() * s.padded_in(); ++i) to.weight[i] = T(0);
    for (int i = 0; i < s.padded_out(); ++i) to.bias[i] = T(0);
    for (int o = 0; o < s.out; ++o) {
      if (bias != nullptr) to.bias[out_at(s, o)] = bias[o];
      for (int i = 0; i < s.in; ++i) to.weight[out_at(s, o) * s.padded_in() + in_at(s, i)] = weight[o * s.in + i];
    }
  }
  void prepare_directions(LinearShape s, T const* weight, Prepared& to) {
    std::vector<T> unit(size(s.out) * size(s.in));
    for (int o = 0; o < s.out; ++o) {
      const T length = norm_of(weight + o * s.in, s.in);
      for (int i = 0; i < s.in; ++i) unit[size(o * s.in + i)] = weight[o * s.in + i] / length;
    }
    prepare_linear(s, unit.data(), nullptr, to);
  }
  void finish_directions(Matrix<T const> weight, Matrix<T> gradient) {
    for (int o = 0; o < weight.rows; ++o) {
      T const* const w = weight.row(o);
      T* const g = gradient.row(o);
      const T length = norm_of(w, weight.columns);
      T along(0);
      for (int i = 0; i < weight.columns; ++i) along += g[i] * w[i] / length;
      for (int i = 0; i < weight.columns; ++i) g[i] = (g[i] - w[i] / length * along) / length;
    }
  }
  void prepare_convolution(ConvolutionShape s, T const* v, T const* g, T const* bias, PreparedConvolution& to) {
    using std::sqrt;
    const int rows = s.width * s.channels();
    for (int k = 0; k < s.taps; ++k) {
      T sum(0);
      for (int j = 0; j < rows; ++j) sum += v[j * s.taps + k] * v[j * s.taps + k];
      const T factor = g[k] / sqrt(sum);
      for (int j = 0; j < rows; ++j) to.weight[j * s.taps + k] = factor * v[j * s.taps + k];
    }
    for (int o = 0; o < s.width; ++o) to.bias[o] = bias[o];
  }
  void finish_convolution(ConvolutionShape s, T const* v, T const* g, T* dv, T* dg) {
    using std::sqrt;
    const int rows = s.width * s.channels();
    for (int k = 0; k < s.taps; ++k) {
      T sum(0), along(0);
      for (int j = 0; j < rows; ++j) {
        sum += v[j * s.taps + k] * v[j * s.taps + k];
        along += dv[j * s.taps + k] * v[j * s.taps + k];
      }
      const T length = sqrt(sum);
      dg[k] += along / length;
      for (int j = 0; j < rows; ++j)
        dv[j * s.taps + k] = g[k] / length * (dv[j * s.taps + k] - v[j * s.taps + k] * along / sum);
    }
  }
  template <class Policy> void prepare_table(int heads, Array<T const> parameters, Array<T const> table) {
    T* const to = const_cast<T*>(table.begin);  // carve_table made it ours
    for (int i = 0; i < Policy::table(heads); ++i) to[i] = parameters.begin[Policy::source(i, heads)];
  }
  template <class Policy> void collect_table(int heads, Array<T const> d_table, Array<T> d_parameters) {
    for (int i = 0; i < Policy::table(heads); ++i) d_parameters.begin[Policy::source(i, heads)] += d_table.begin[i];
  }

  void product(Matrix<T const> x, Prepared const& w, Matrix<T> y) {
    const int out = w.shape.padded_out(), in = w.shape.padded_in();
    for (int t = 0; t < x.rows; ++t)
      for (int o = 0; o < out; ++o) {
        T sum = w.bias[o];
        for (int i = 0; i < in; ++i) sum += x.row(t)[i] * w.weight[o * in + i];
        y.row(t)[o] = sum;
      }
    count(x.rows, w.shape);
  }
  void product_gelu(Matrix<T const> x, Prepared const& w, Matrix<T> before, Matrix<T> y) {
    product(x, w, before);
    for (int t = 0; t < y.rows; ++t)
      for (int o = 0; o < y.columns; ++o) y.row(t)[o] = gelu_of(before.row(t)[o]);
  }
  void product_add(Matrix<T const> x, Prepared const& w, Matrix<T const> residual, Matrix<T> y) {
    product(x, w, y);
    for (int t = 0; t < y.rows; ++t)
      for (int o = 0; o < y.columns; ++o) y.row(t)[o] += residual.row(t)[o];
  }
  void product_back(Matrix<T const> dy, Prepared const& w, Matrix<T> dx) {
    const int out = w.shape.padded_out(), in = w.shape.padded_in();
    for (int t = 0; t < dy.rows; ++t)
      for (int i = 0; i < in; ++i) {
        T sum(0);
        for (int o = 0; o < out; ++o) sum += dy.row(t)[o] * w.weight[o * in + i];
        dx.row(t)[i] = sum;
      }
    count(dy.rows, w.shape);
  }
  void product_back_add(Matrix<T const> dy, Prepared const& w, Matrix<T> dx) {
    const int out = w.shape.padded_out(), in = w.shape.padded_in();
    for (int t = 0; t < dy.rows; ++t)
      for (int i = 0; i < in; ++i)
        for (int o = 0; o < out; ++o) dx.row(t)[i] += dy.row(t)[o] * w.weight[o * in + i];
    count(dy.rows, w.shape);
  }
  void product_back_gelu(Matrix<T const> dy, Prepared const& w, Matrix<T const> before, Matrix<T> dx) {
    product_back(dy, w, dx);
    for (int t = 0; t < dx.rows; ++t)
      for (int i = 0; i < dx.columns; ++i) dx.row(t)[i] *= gelu_slope_of(before.row(t)[i]);
  }
  void weight_gradient(Matrix<T const> dy, Matrix<T const> x, Prepared const& w, Matrix<T> dw, Array<T> db) {
    LinearShape const& s = w.shape;
    for (int o = 0; o < s.out; ++o) {
      for (int i = 0; i < s.in; ++i)
        for (int t = 0; t < dy.rows; ++t) dw.row(o)[i] += dy.row(t)[out_at(s, o)] * x.row(t)[in_at(s, i)];
      if (db.begin != nullptr)
        for (int t = 0; t < dy.rows; ++t) db.begin[o] += dy.row(t)[out_at(s, o)];
    }
    count(dy.rows, s);
  }

  void convolution(Lane<int> const& lane, Matrix<T const> x, PreparedConvolution const& w, Matrix<T> y) {
    each_tap(lane, w.shape, [&](int to, int from, int o, int i, int at) {
      if (at < 0)
        y.row(to)[o] = w.bias[o];
      else
        y.row(to)[o] += w.weight[at] * x.row(from)[i];
    });
    count(lane, w.shape);
  }
  void convolution_back(Lane<int> const& lane, Matrix<T const> dy, PreparedConvolution const& w, Matrix<T> dx) {
    for (int t = 0; t < dx.rows; ++t)
      for (int i = 0; i < dx.columns; ++i) dx.row(t)[i] = T(0);
    each_tap(lane, w.shape, [&](int to, int from, int o, int i, int at) {
      if (at >= 0) dx.row(from)[i] += w.weight[at] * dy.row(to)[o];
    });
    count(lane, w.shape);
  }
  void convolution_gradient(Lane<int> const& lane, Matrix<T const> dy, Matrix<T const> x, PreparedConvolution const& w,
                            T* dw, T* db) {
    each_tap(lane, w.shape, [&](int to, int from, int o, int i, int at) {
      if (at < 0)
        db[o] += dy.row(to)[o];
      else
        dw[at] += dy.row(to)[o] * x.row(from)[i];
    });
    count(lane, w.shape);
  }

  void layer_norm(Matrix<T const> x, Array<T const> gain, Array<T const> bias, float epsilon, Matrix<T> y,
                  Matrix<T> statistics) {
    using std::sqrt;
    for (int t = 0; t < x.rows; ++t) {
      T mean(0), variance(0);
      for (int i = 0; i < x.columns; ++i) mean += x.row(t)[i];
      mean /= T(x.columns);
      for (int i = 0; i < x.columns; ++i) variance += (x.row(t)[i] - mean) * (x.row(t)[i] - mean);
      const T inverse = T(1) / sqrt(variance / T(x.columns) + T(epsilon));
      statistics.row(t)[0] = mean;
      statistics.row(t)[1] = inverse;
      for (int i = 0; i < x.columns; ++i) y.row(t)[i] = (x.row(t)[i] - mean) * inverse * gain.begin[i] + bias.begin[i];
    }
  }
  void layer_norm_back(Matrix<T const> dy, Matrix<T const> x, Array<T const> gain, Matrix<T const> statistics,
                       Matrix<T> dx, bool accumulate, Array<T> d_gain, Array<T> d_bias) {
    for (int t = 0; t < x.rows; ++t) {
      const T mean = statistics.row(t)[0], inverse = statistics.row(t)[1];
      T sum(0), along(0);
      for (int i = 0; i < x.columns; ++i) {
        const T unit = (x.row(t)[i] - mean) * inverse, d = dy.row(t)[i] * gain.begin[i];
        sum += d;
        along += d * unit;
        d_gain.begin[i] += dy.row(t)[i] * unit;
        d_bias.begin[i] += dy.row(t)[i];
      }
      for (int i = 0; i < x.columns; ++i) {
        const T unit = (x.row(t)[i] - mean) * inverse, d = dy.row(t)[i] * gain.begin[i];
        const T slope = inverse * (d - (sum + unit * along) / T(x.columns));
        dx.row(t)[i] = accumulate ? dx.row(t)[i] + slope : slope;
      }
    }
  }
  void normalise_rows(Matrix<T const> x, Matrix<T> y, Array<T> inverse_norms) {
    for (int t = 0; t < x.rows; ++t) {
      const T length = norm_of(x.row(t), x.columns);
      inverse_norms.begin[t] = T(1) / length;
      for (int i = 0; i < x.columns; ++i) y.row(t)[i] = x.row(t)[i] / length;
    }
  }
  void normalise_rows_back(Matrix<T const> dy, Matrix<T const> y, Array<T const> inverse_norms, Matrix<T> dx) {
    for (int t = 0; t < dy.rows; ++t) {
      T along(0);
      for (int i = 0; i < dy.columns; ++i) along += dy.row(t)[i] * y.row(t)[i];
      for (int i = 0; i < dy.columns; ++i) dx.row(t)[i] = (dy.row(t)[i] - y.row(t)[i] * along) * inverse_norms.begin[t];
    }
  }
  void gelu(Array<T const> x, Array<T> y) {
    for (std::size_t i = 0; i < x.size; ++i) y.begin[i] = gelu_of(x.begin[i]);
  }
  void gelu_back(Array<T const> before, Array<T const> dy, Array<T> dx) {
    for (std::size_t i = 0; i < dy.size; ++i) dx.begin[i] = dy.begin[i] * gelu_slope_of(before.begin[i]);
  }
  template <class Functor> void map(Array<T const> x, Array<T> y) {
    for (std::size_t i = 0; i < x.size; ++i) y.begin[i] = Functor::apply(x.begin[i]);
  }
  template <class Functor> void map_back(Array<T const> x, Array<T const> dy, Array<T> dx) {
    for (std::size_t i = 0; i < x.size; ++i) {
      Dual<T, 1> at(x.begin[i]);
      at.by[0] = T(1);
      dx.begin[i] = dy.begin[i] * Functor::apply(at).by[0];
    }
  }
  void sum(Matrix<T const> a, Matrix<T const> b, Matrix<T> y) {
    for (int t = 0; t < y.rows; ++t)
      for (int i = 0; i < y.columns; ++i) y.row(t)[i] = a.row(t)[i] + b.row(t)[i];
  }
  void copy(Array<T const> from, Array<T> to) {
    for (std::size_t i = 0; i < to.size; ++i) to.begin[i] = from.begin[i];
  }
  void clear(Array<T> to) {
    for (std::size_t i = 0; i < to.size; ++i) to.begin[i] = T(0);
  }
  void gather(Matrix<T const> x, int const* rows, Matrix<T> y) {
    for (int t = 0; t < y.rows; ++t)
      for (int i = 0; i < y.columns; ++i) y.row(t)[i] = x.row(rows[t])[i];
  }
  void scatter_add(Matrix<T const> x, int const* rows, Matrix<T> y) {
    for (int t = 0; t < x.rows; ++t)
      for (int i = 0; i < x.columns; ++i) y.row(rows[t])[i] += x.row(t)[i];
  }
  void segment_sums(Matrix<T const> x, int const* segments, Matrix<T> y) { scatter_add(x, segments, y); }
  void fill_rows(Array<T const> value, int const* rows, int n, Matrix<T> x) {
    for (int t = 0; t < n; ++t)
      for (int i = 0; i < x.columns; ++i) x.row(rows[t])[i] = value.begin[i];
  }
  void fill_rows_back(Matrix<T> d, int const* rows, int n, Array<T> d_value) {
    for (int t = 0; t < n; ++t)
      for (int i = 0; i < d.columns; ++i) {
        d_value.begin[i] += d.row(rows[t])[i];
        d.row(rows[t])[i] = T(0);
      }
  }
  void column_sums(Matrix<T const> x, T* sums) {
    for (int t = 0; t < x.rows; ++t)
      for (int i = 0; i < x.columns; ++i) sums[i] += x.row(t)[i];
  }
  void from_sums(T const* sums, double factor, Array<T> to) {
    for (std::size_t i = 0; i < to.size; ++i) to.begin[i] = T(factor) * sums[i];
  }
  void add_sinusoids(Lane<int> const& lane, Matrix<T const> x, Matrix<T> y) {
    for (int s = 0; s < lane.sequences; ++s)
      for (int row = lane.offsets[s]; row < lane.offsets[s + 1]; ++row)
        for (int i = 0; i < x.columns; ++i) {
          const double angle = (row - lane.offsets[s]) * ::pow(10000., -2. * (i / 2) / x.columns);
          y.row(row)[i] = x.row(row)[i] + T(i % 2 == 0 ? ::sin(angle) : ::cos(angle));
        }
  }
  void dropout(Lane<int> const& lane, Noise const& noise, int site, Matrix<T> x) {
    for (int s = 0; s < lane.sequences; ++s)
      for (int row = lane.offsets[s]; row < lane.offsets[s + 1]; ++row)
        for (int i = 0; i < x.columns; ++i) {
          const bool kept = dropout_kept(noise.key, noise.cursor, static_cast<std::uint32_t>(site),
                                         static_cast<std::uint32_t>(lane.utterances[s]),
                                         static_cast<std::uint32_t>(lane.starts[s] + row - lane.offsets[s]),
                                         static_cast<std::uint32_t>(i), noise.dropout);
          x.row(row)[i] = kept ? x.row(row)[i] * T(1 / (1 - noise.dropout)) : T(0);
        }
  }
  void spread(Matrix<T const> x, T& measure) {
    using std::sqrt;
    T total(0);
    for (int i = 0; i < x.columns; ++i) {
      T mean(0), variance(0);
      for (int t = 0; t < x.rows; ++t) mean += x.row(t)[i] / T(x.rows);
      for (int t = 0; t < x.rows; ++t) variance += (x.row(t)[i] - mean) * (x.row(t)[i] - mean) / T(x.rows);
      total += sqrt(variance);
    }
    measure = total / T(x.columns);
  }

  template <class Policy, int HeadWidth>
  void attention(Lane<int> const& lane, int heads, Matrix<T const> query_key_value, Array<T const> table,
                 Matrix<T const> gates, Matrix<T> out, Matrix<T> log_sum) {
    reference::attention<Policy, HeadWidth, T>(lane, heads, query_key_value, table, gates, out, log_sum);
    count_attention<Policy, HeadWidth>(lane, heads, 2);
  }
  template <class Policy, int HeadWidth>
  void attention_back(Lane<int> const& lane, int heads, Matrix<T const> query_key_value, Array<T const> table,
                      Matrix<T const> gates, Matrix<T const> out, Matrix<T const> d_out, Matrix<T const> log_sum,
                      Matrix<T> d_query_key_value, Array<T> d_table, Matrix<T> d_gates) {
    reference::attention_back<Policy, HeadWidth, T>(lane, heads, query_key_value, table, gates, out, d_out, log_sum,
                                                    d_query_key_value, d_table, d_gates);
    count_attention<Policy, HeadWidth>(lane, heads, 4);
  }
  template <class Policy, class Gate> void attention_gates(Matrix<T const> x, Gate const& w, Matrix<T> gates) {
    reference::attention_gates<Policy, T>(x, w, gates);
    multiply_adds += size(x.rows) * size(x.columns) * size(Policy::gates);
  }
  template <class Policy, class Gate, class GateGradient>
  void attention_gates_back(Matrix<T const> x, Gate const& w, Matrix<T const> d_gates, Matrix<T> dx,
                            GateGradient const& g) {
    reference::attention_gates_back<Policy, T>(x, w, d_gates, dx, g);
    multiply_adds += 2 * size(x.rows) * size(x.columns) * size(Policy::gates);
  }

  void cross_entropy(Matrix<T> scores, int const* targets, float factor, double weight, Count count, T& loss,
                     Measures<T>* measures) {
    using std::exp, std::log;
    const double scale = weight / static_cast<double>(count);
    for (int t = 0; t < scores.rows; ++t) {
      T* const row = scores.row(t);
      int best = 0;
      for (int c = 0; c < scores.columns; ++c) {
        row[c] = row[c] * T(factor);
        if (row[best] < row[c]) best = c;
      }
      const T top = row[best];
      T total(0);
      for (int c = 0; c < scores.columns; ++c) total += exp(row[c] - top);
      loss += T(scale) * (top + log(total) - row[targets[t]]);
      for (int c = 0; c < scores.columns; ++c)
        row[c] = T(scale * static_cast<double>(factor)) * (exp(row[c] - top) / total - T(c == targets[t] ? 1 : 0));
      if (measures == nullptr) continue;
      measures->predicted += 1;
      measures->correct += best == targets[t] ? 1 : 0;
      if (measures->histogram != nullptr) measures->histogram[best] += 1;
    }
  }
  template <class Functor>
  void row_loss(Matrix<T> predicted, Matrix<T const> wanted, int const* rows, double weight, Count count, T& loss) {
    const double scale = weight / static_cast<double>(count);
    for (int t = 0; t < predicted.rows; ++t)
      for (int c = 0; c < predicted.columns; ++c) {
        if (rows != nullptr && rows[t] < 0) {
          predicted.row(t)[c] = T(0);
          continue;
        }
        Dual<T, 1> at(predicted.row(t)[c]);
        at.by[0] = T(1);
        const auto term = Functor::term(at, Dual<T, 1>(wanted.row(t)[c]));
        loss += T(scale) * term.value;
        predicted.row(t)[c] = T(scale) * term.by[0];
      }
  }

  void adamw(Array<T> p, Array<T const> g, Array<T> first, Array<T> second, T clip, double beta1, double beta2,
             double epsilon, double decay, double rate, int step) {
    using std::sqrt;
    const double correction1 = 1 - ::pow(beta1, step), correction2 = 1 - ::pow(beta2, step);
    for (std::size_t i = 0; i < p.size; ++i) {
      const T d = clip * g.begin[i];
      first.begin[i] = T(beta1) * first.begin[i] + T(1 - beta1) * d;
      second.begin[i] = T(beta2) * second.begin[i] + T(1 - beta2) * d * d;
      p.begin[i] -= T(rate * decay) * p.begin[i];
      p.begin[i] -= T(rate / correction1) * first.begin[i] / (sqrt(second.begin[i] / T(correction2)) + T(epsilon));
    }
  }
  double squared_norm(Array<T const> x) {
    double total = 0;
    for (std::size_t i = 0; i < x.size; ++i) total += static_cast<double>(real(x.begin[i]) * real(x.begin[i]));
    return total;
  }
  void add(Array<T const> from, Array<T> to) {
    for (std::size_t i = 0; i < to.size; ++i) to.begin[i] += from.begin[i];
  }

 private:
  static constexpr std::size_t size(int n) { return static_cast<std::size_t>(n); }
  static int out_at(LinearShape const& s, int o) {
    return s.out_block == 0 ? o : o / s.out_block * s.out_padded_block + o % s.out_block;
  }
  static int in_at(LinearShape const& s, int i) {
    return s.in_block == 0 ? i : i / s.in_block * s.in_padded_block + i % s.in_block;
  }
  static T norm_of(T const* x, int n) {
    using std::sqrt;
    T sum(0);
    for (int i = 0; i < n; ++i) sum += x[i] * x[i];
    const T length = sqrt(sum);
    return real(length) > 1e-8 ? length : T(1e-8);
  }
  static T gelu_of(T const& x) {
    using std::erf;
    return T(.5) * x * (T(1) + erf(x * T(0.70710678118654752)));
  }
  static T gelu_slope_of(T const& x) {
    using std::erf, std::exp;
    return T(.5) * (T(1) + erf(x * T(0.70710678118654752))) + x * T(0.39894228040143268) * exp(T(-.5) * x * x);
  }
  void count(int rows, LinearShape const& s) { multiply_adds += size(rows) * size(s.out) * size(s.in); }
  /// Taps that fall beyond a sequence's end count too: a "same" convolution is priced by its outputs.
  void count(Lane<int> const& lane, ConvolutionShape const& s) {
    multiply_adds += size(lane.rows) * size(s.width) * size(s.channels()) * size(s.taps);
  }
  /// at < 0: output o of row `to` begins; else weight[at] joins input i of row `from` to it.
  template <class F> static void each_tap(Lane<int> const& lane, ConvolutionShape const& s, F&& f) {
    const int channels = s.channels();
    for (int sequence = 0; sequence < lane.sequences; ++sequence)
      for (int to = lane.offsets[sequence]; to < lane.offsets[sequence + 1]; ++to)
        for (int o = 0; o < s.width; ++o) {
          f(to, to, o, 0, -1);
          for (int k = 0; k < s.taps; ++k) {
            const int from = to + k - s.taps / 2;
            if (from < lane.offsets[sequence] || from >= lane.offsets[sequence + 1]) continue;
            for (int c = 0; c < channels; ++c)
              f(to, from, o, o / channels * channels + c, (o * channels + c) * s.taps + k);
          }
        }
  }

  /// A product a pair inside the span: scores and values forward; both and their mirrors backward.
  template <class Policy, int HeadWidth> void count_attention(Lane<int> const& lane, int heads, int products) {
    for (int s = 0; s < lane.sequences; ++s) {
      const int length = lane.offsets[s + 1] - lane.offsets[s];
      for (int q = 0; q < length; ++q) {
        const auto keys = attention::keys_of(Policy::span, q, q + 1, length);
        multiply_adds += size(products) * size(heads) * size(HeadWidth) * size(keys.end - keys.begin);
      }
    }
  }
};

}  // namespace sotto::inline SOTTO_ABI
