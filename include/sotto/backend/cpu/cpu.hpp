// The fast backend for processors: the door's operations over sotto's own kernels. One object a thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <sotto/backend/backend.hpp>
#include <sotto/backend/cpu/attention.hpp>
#include <sotto/backend/cpu/attention_gates.hpp>
#include <sotto/backend/cpu/convolution.hpp>
#include <sotto/backend/cpu/dropout.hpp>
#include <sotto/backend/cpu/loss.hpp>
#include <sotto/backend/cpu/map.hpp>
#include <sotto/backend/cpu/optimizer.hpp>
#include <sotto/backend/cpu/product.hpp>
#include <sotto/backend/cpu/rows.hpp>
#include <sotto/backend/cpu/weight_norm.hpp>
#include <sotto/backend/cpu/workspace.hpp>
#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// Storage: what activations are kept in, float or bf16. Masters, gradients and statistics are fp32 and every sum is;
/// with bf16, products multiply numbers of 8 bits of precision.
template <class Storage> class Cpu {
  using Kernel = cpu::KernelFor<Storage>;
  using Unit = typename Kernel::Unit;
  using Epilogue = cpu::Epilogue<Storage>;

 public:
  Cpu() {
    if (!std::is_same_v<Storage, float> && !cpu::bf16_available())
      throw_error(ErrorCode::device,
                  {"this program was built for AMX tiles, and the operating system does not lend them to it: train in "
                   "fp32, or build it without -mamx-bf16"});
  }
  using Element = Storage;
  using Master = float;
  using Index = int;
  using Sum = double;
  using Count = std::int64_t;
  static constexpr bool replays = false;

  /// Panels of w^T and of w, and the bias; padded where heads are.
  struct Prepared {
    Unit* forward;
    Unit* back;
    float* bias;
    float* dense;  ///< the padded weight, only where the shape is padded
    LinearShape shape;
    bool biased;
    cpu::Panels<Kernel> panels() const { return {forward, shape.padded_in(), shape.padded_out()}; }
    cpu::Panels<Kernel> back_panels() const { return {back, shape.padded_out(), shape.padded_in()}; }
    float const* bias_or_none() const { return biased ? bias : nullptr; }
  };
  struct PreparedConvolution {
    Unit* panels;
    float* weight;  ///< g v / |v|
    float* bias;
    cpu::GroupedConvolution shape;
  };

  static constexpr Prepared carve_linear(Arena& arena, LinearShape s) {
    Prepared p{};
    const int out = s.padded_out(), in = s.padded_in();
    p.forward = arena.take<Unit>(cpu::panels_size<Kernel>(in, out));
    p.back = arena.take<Unit>(cpu::panels_size<Kernel>(out, in));
    p.bias = arena.take<float>(static_cast<std::size_t>(out));
    if (s.padded()) p.dense = arena.take<float>(size(out) * size(in));
    p.shape = s;
    return p;
  }
  static constexpr PreparedConvolution carve_convolution(Arena& arena, ConvolutionShape s) {
    PreparedConvolution p{};
    p.shape = {s.width, s.groups, s.taps};
    p.panels = arena.take<Unit>(p.shape.template panels_size<Kernel>());
    p.weight = arena.take<float>(size(s.width) * size(s.channels()) * size(s.taps));
    p.bias = arena.take<float>(size(s.width));
    return p;
  }
  static constexpr Array<float const> carve_table(Arena& arena, int entries) {
    return {arena.take<float>(size(entries)), size(entries)};
  }

  void prepare_linear(LinearShape s, float const* weight, float const* bias, Prepared& to) {
    const int out = s.padded_out(), in = s.padded_in();
    if (s.padded()) {
      std::fill_n(to.dense, size(out) * size(in), 0.f);
      std::fill_n(to.bias, size(out), 0.f);
      for (int o = 0; o < s.out; ++o) {
        float* const row = to.dense + size(out_at(s, o)) * size(in);
        const int block = s.in_block > 0 ? s.in_block : s.in, padded = s.in_block > 0 ? s.in_padded_block : s.in;
        for (int b = 0; b * block < s.in; ++b)
          std::copy_n(weight + size(o) * size(s.in) + b * block, block, row + b * padded);
        to.bias[out_at(s, o)] = bias[o];
      }
      weight = to.dense;
    } else if (bias != nullptr) {
      std::copy_n(bias, out, to.bias);
    }
    to.biased = bias != nullptr;
    cpu::pack<Kernel>(weight, in, out, 1, in, to.forward);
    cpu::pack<Kernel>(weight, out, in, in, 1, to.back);
  }
  void prepare_directions(LinearShape s, float const* weight, Prepared& to) {
    float* const unit = scratch_.template take<float>(size(s.out) * size(s.in + 1));
    cpu::normalise_rows<float>({weight, s.out, s.in, s.in}, {unit, s.out, s.in, s.in},
                               {unit + size(s.out) * size(s.in), size(s.out)});
    prepare_linear(s, unit, nullptr, to);
  }
  void finish_directions(Matrix<float const> weight, Matrix<float> gradient) {
    const int n = weight.rows, width = weight.columns;
    float* const unit = scratch_.template take<float>(size(n) * size(width + 1));
    const Array<float> inverse{unit + size(n) * size(width), size(n)};
    cpu::normalise_rows<float>(weight, {unit, n, width, width}, inverse);
    cpu::normalise_rows_back<float>(gradient, Matrix<float const>{unit, n, width, width}, inverse, gradient);
  }
  void prepare_convolution(ConvolutionShape s, float const* v, float const* g, float const* bias,
                           PreparedConvolution& to) {
    cpu::weight_norm(s.width * s.channels(), s.taps, v, g, to.weight, scratch_);
    std::copy_n(bias, s.width, to.bias);
    cpu::pack_convolution<Kernel>(to.shape, to.weight, to.panels, scratch_);
  }
  void finish_convolution(ConvolutionShape s, float const* v, float const* g, float* dv, float* dg) {
    cpu::weight_norm_back(s.width * s.channels(), s.taps, v, g, dv, dg, scratch_);
  }
  template <class Policy> void prepare_table(int heads, Array<float const> parameters, Array<float const> table) {
    float* const to = const_cast<float*>(table.begin);  // carve_table made it ours
    for (int i = 0; i < Policy::table(heads); ++i) to[i] = parameters.begin[Policy::source(i, heads)];
  }
  template <class Policy> void collect_table(int heads, Array<float const> d_table, Array<float> d_parameters) {
    for (int i = 0; i < Policy::table(heads); ++i) d_parameters.begin[Policy::source(i, heads)] += d_table.begin[i];
  }

  void product(Matrix<Storage const> x, Prepared const& w, Matrix<Storage> y) {
    cpu::product<Kernel>(x, w.panels(), Epilogue{Epilogue::Kind::store, w.bias_or_none(), {}, {}}, y, workspace_);
  }
  void product_gelu(Matrix<Storage const> x, Prepared const& w, Matrix<Storage> before, Matrix<Storage> y) {
    cpu::product<Kernel>(x, w.panels(), Epilogue{Epilogue::Kind::gelu, w.bias_or_none(), {}, before}, y, workspace_);
  }
  void product_add(Matrix<Storage const> x, Prepared const& w, Matrix<Storage const> residual, Matrix<Storage> y) {
    cpu::product<Kernel>(x, w.panels(), Epilogue{Epilogue::Kind::add, w.bias_or_none(), residual, {}}, y, workspace_);
  }
  void product_back(Matrix<Storage const> dy, Prepared const& w, Matrix<Storage> dx) {
    cpu::product<Kernel>(dy, w.back_panels(), Epilogue{Epilogue::Kind::store, nullptr, {}, {}}, dx, workspace_);
  }
  void product_back_add(Matrix<Storage const> dy, Prepared const& w, Matrix<Storage> dx) {
    cpu::product<Kernel>(dy, w.back_panels(), Epilogue{Epilogue::Kind::accumulate, nullptr, {}, {}}, dx, workspace_);
  }
  void product_back_gelu(Matrix<Storage const> dy, Prepared const& w, Matrix<Storage const> before,
                         Matrix<Storage> dx) {
    cpu::product<Kernel>(dy, w.back_panels(), Epilogue{Epilogue::Kind::gelu_slope, nullptr, before, {}}, dx,
                         workspace_);
  }
  void weight_gradient(Matrix<Storage const> dy, Matrix<Storage const> x, Prepared const& w, Matrix<float> dw,
                       Array<float> db) {
    LinearShape const& s = w.shape;
    const int out_block = s.padded() && s.out_block > 0 ? s.out_block : s.out,
              in_block = s.padded() && s.in_block > 0 ? s.in_block : s.in;
    const int out_padded = out_block == s.out ? s.out : s.out_padded_block,
              in_padded = in_block == s.in ? s.in : s.in_padded_block;
    for (int o = 0; o * out_block < s.out; ++o) {
      const auto d = dy.slice_columns(o * out_padded, out_block);
      for (int i = 0; i * in_block < s.in; ++i)
        cpu::weight_gradient<Kernel>(d, x.slice_columns(i * in_padded, in_block),
                                     dw.slice_rows(o * out_block, out_block).slice_columns(i * in_block, in_block),
                                     workspace_);
      if (db.begin != nullptr) cpu::column_sums(d, {db.begin + o * out_block, size(out_block)});
    }
  }

  void convolution(Lane<int> const& lane, Matrix<Storage const> x, PreparedConvolution const& w, Matrix<Storage> y) {
    cpu::convolution<Kernel>(w.shape, lane, x, w.panels, w.bias, y, scratch_, workspace_);
  }
  void convolution_back(Lane<int> const& lane, Matrix<Storage const> dy, PreparedConvolution const& w,
                        Matrix<Storage> dx) {
    cpu::convolution_back<Kernel>(w.shape, lane, dy, w.panels, dx, scratch_, workspace_);
  }
  void convolution_gradient(Lane<int> const& lane, Matrix<Storage const> dy, Matrix<Storage const> x,
                            PreparedConvolution const& w, float* dw, float* db) {
    cpu::convolution_gradient<Kernel>(w.shape, lane, dy, x, dw, scratch_, workspace_);
    cpu::column_sums(dy, {db, size(w.shape.width)});
  }

  void layer_norm(Matrix<Storage const> x, Array<float const> gain, Array<float const> bias, float epsilon,
                  Matrix<Storage> y, Matrix<float> statistics) {
    cpu::layer_norm<Storage>(x, gain, bias, epsilon, y, statistics);
  }
  void layer_norm_back(Matrix<Storage const> dy, Matrix<Storage const> x, Array<float const> gain,
                       Matrix<float const> statistics, Matrix<Storage> dx, bool accumulate, Array<float> d_gain,
                       Array<float> d_bias) {
    cpu::layer_norm_back<Storage>(dy, x, gain, statistics, dx, d_gain, d_bias, accumulate);
  }
  void normalise_rows(Matrix<Storage const> x, Matrix<Storage> y, Array<float> inverse_norms) {
    cpu::normalise_rows<Storage>(x, y, inverse_norms);
  }
  void normalise_rows_back(Matrix<Storage const> dy, Matrix<Storage const> y, Array<float const> inverse_norms,
                           Matrix<Storage> dx) {
    cpu::normalise_rows_back<Storage>(dy, y, inverse_norms, dx);
  }
  void gelu(Array<Storage const> x, Array<Storage> y) { cpu::gelu_forward<Storage>(x, y); }
  void gelu_back(Array<Storage const> before, Array<Storage const> dy, Array<Storage> dx) {
    cpu::gelu_back<Storage>(before, dy, dx);
  }
  template <class Functor> void map(Array<Storage const> x, Array<Storage> y) { cpu::map<Functor, Storage>(x, y); }
  template <class Functor> void map_back(Array<Storage const> x, Array<Storage const> dy, Array<Storage> dx) {
    cpu::map_back<Functor, Storage>(x, dy, dx);
  }
  void sum(Matrix<Storage const> a, Matrix<Storage const> b, Matrix<Storage> y) { cpu::sum<Storage>(a, b, y); }
  /// What a batch brings, as activations are kept.
  void convert(Array<float const> from, Array<Storage> to) {
    const auto n = static_cast<int>(to.size);
    cpu::convert(Matrix<float const>{from.begin, 1, n, n}, Matrix<Storage>{to.begin, 1, n, n});
  }
  void copy(Array<Storage const> from, Array<Storage> to) { std::copy_n(from.begin, to.size, to.begin); }
  template <class T> void clear(Array<T> to) { std::fill_n(to.begin, to.size, T{}); }
  void gather(Matrix<Storage const> x, int const* rows, Matrix<Storage> y) { cpu::gather<Storage>(x, rows, y); }
  void scatter_add(Matrix<Storage const> x, int const* rows, Matrix<Storage> y) {
    cpu::scatter_add<Storage>(x, rows, y);
  }
  void segment_sums(Matrix<Storage const> x, int const* segments, Matrix<Storage> y) {
    cpu::segment_sums<Storage>(x, segments, y);
  }
  void fill_rows(Array<float const> value, int const* rows, int n, Matrix<Storage> x) {
    cpu::fill_rows<Storage>(value, rows, n, x);
  }
  void fill_rows_back(Matrix<Storage> d, int const* rows, int n, Array<float> d_value) {
    cpu::fill_rows_back<Storage>(d, rows, n, d_value);
  }
  void column_sums(Matrix<Storage const> x, double* sums) {
    for (int t = 0; t < x.rows; ++t)
      for (int i = 0; i < x.columns; ++i) sums[i] += static_cast<double>(static_cast<float>(x.row(t)[i]));
  }
  void from_sums(double const* sums, double factor, Array<float> to) {
    for (std::size_t i = 0; i < to.size; ++i) to.begin[i] = static_cast<float>(factor * sums[i]);
  }
  void add_sinusoids(Lane<int> const& lane, Matrix<Storage const> x, Matrix<Storage> y) {
    sinusoids_.extend(lane.longest, x.columns);
    for (int s = 0; s < lane.sequences; ++s) {
      const int first = lane.offsets[s], n = lane.offsets[s + 1] - first;
      cpu::sum<Storage>(x.slice_rows(first, n), sinusoids_.rows(n), y.slice_rows(first, n));
    }
  }
  void dropout(Lane<int> const& lane, Noise const& noise, int site, Matrix<Storage> x) {
    cpu::dropout(lane, noise.key, noise.cursor, static_cast<std::uint32_t>(site), noise.dropout, x);
  }
  void spread(Matrix<Storage const> x, double& measure) { measure = cpu::spread(x); }

  template <class Policy, int HeadWidth>
  void attention(Lane<int> const& lane, int heads, Matrix<Storage const> query_key_value, Array<float const> table,
                 Matrix<Storage const> gates, Matrix<Storage> out, Matrix<float> log_sum) {
    cpu::attention<Policy, padded(HeadWidth), Kernel>(lane, heads, scale(HeadWidth), query_key_value, table.begin,
                                                      gates, out, log_sum, attention_scratch<HeadWidth>(lane));
  }
  template <class Policy, int HeadWidth>
  void attention_back(Lane<int> const& lane, int heads, Matrix<Storage const> query_key_value, Array<float const> table,
                      Matrix<Storage const> gates, Matrix<Storage const> out, Matrix<Storage const> d_out,
                      Matrix<float const> log_sum, Matrix<Storage> d_query_key_value, Array<float> d_table,
                      Matrix<Storage> d_gates) {
    cpu::attention_back<Policy, padded(HeadWidth), Kernel>(lane, heads, scale(HeadWidth), query_key_value, table.begin,
                                                           gates, out, d_out, log_sum, d_query_key_value, d_table.begin,
                                                           d_gates, attention_scratch<HeadWidth>(lane));
  }
  template <class Policy, class Gate>
  void attention_gates(Matrix<Storage const> x, Gate const& w, Matrix<Storage> gates) {
    cpu::attention_gates<Policy, decltype(w.weight)::in, Storage>(x, w.weight, w.bias, w.constant, gates);
  }
  template <class Policy, class Gate, class Gradient>
  void attention_gates_back(Matrix<Storage const> x, Gate const& w, Matrix<Storage const> d_gates, Matrix<Storage> dx,
                            Gradient const& g) {
    cpu::attention_gates_back<Policy, decltype(w.weight)::in, Storage>(x, w.weight, w.bias, w.constant, d_gates, dx,
                                                                       g.weight, g.bias, g.constant);
  }

  void cross_entropy(Matrix<Storage> scores, int const* targets, float factor, double weight, Count count, double& loss,
                     Measures<double>* measures) {
    const double scale = weight / static_cast<double>(count);
    double sum = 0;
    std::int64_t correct = 0;
    in_floats(scores, [&](Matrix<float> part, int first) {
      cpu::multiply(part, factor);
      if (measures != nullptr && measures->histogram != nullptr) cpu::count_predictions(part, measures->histogram);
      cpu::cross_entropy(part, targets + first, static_cast<float>(scale * static_cast<double>(factor)), &sum,
                         &correct);
    });
    loss += scale * sum;
    if (measures == nullptr) return;
    measures->predicted += scores.rows;
    measures->correct += static_cast<double>(correct);
  }
  template <class Functor>
  void row_loss(Matrix<Storage> predicted, Matrix<Storage const> wanted, int const* /*rows: all are real*/,
                double weight, Count count, double& loss) {
    const double scale = weight / static_cast<double>(count);
    double sum = 0;
    in_floats(predicted, [&](Matrix<float> part, int first) {
      Matrix<float const> target{};
      if constexpr (std::is_same_v<Storage, float>) {
        target = wanted;
      } else {
        const Matrix<float> wide{workspace_.template take<float>(size(part.rows) * size(part.columns)), part.rows,
                                 part.columns, part.columns};
        cpu::convert(wanted.slice_rows(first, part.rows), wide);
        target = wide;
      }
      cpu::row_loss<Functor>(part, target, static_cast<float>(scale), &sum);
    });
    loss += scale * sum;
  }

  void adamw(Array<float> p, Array<float const> g, Array<float> first, Array<float> second, float clip, double beta1,
             double beta2, double epsilon, double decay, double rate, int step) {
    cpu::adamw(p, g, first, second, {rate, beta1, beta2, epsilon, decay, step, static_cast<double>(clip)});
  }
  double squared_norm(Array<float const> x) { return cpu::squared_norm(x); }
  /// to += from.
  void add(Array<float const> from, Array<float> to) { cpu::add(from, to); }

 private:
  /// f(part, first row of it) on rows of x as floats, in place: losses are sums of small differences.
  template <class F> void in_floats(Matrix<Storage> x, F&& f) {
    if constexpr (std::is_same_v<Storage, float>) {
      f(x, 0);
    } else {
      constexpr int rows = 32;
      float* const wide = scratch_.template take<float>(rows * size(x.columns));
      for (int i = 0; i < x.rows; i += rows) {
        const Matrix<Storage> narrow = x.slice_rows(i, std::min(rows, x.rows - i));
        const Matrix<float> part{wide, narrow.rows, x.columns, x.columns};
        cpu::convert(narrow, part);
        f(part, i);
        cpu::convert(part, narrow);
      }
    }
  }
  static constexpr std::size_t size(int n) { return static_cast<std::size_t>(n); }
  static constexpr int padded(int head_width) { return (head_width + 7) / 8 * 8; }
  static float scale(int head_width) { return 1 / std::sqrt(static_cast<float>(head_width)); }
  static int out_at(LinearShape const& s, int o) {
    return s.out_block == 0 ? o : o / s.out_block * s.out_padded_block + o % s.out_block;
  }
  template <int HeadWidth> std::byte* attention_scratch(Lane<int> const& lane) {
    return scratch_.template take<std::byte>(cpu::attention_scratch<Kernel, padded(HeadWidth)>(lane.longest));
  }
  /// sin and cos by frame and channel, made as far as they were needed.
  class Sinusoids {
   public:
    void extend(int frames, int width) {
      if (width == width_ && frames <= frames_) return;
      width_ = width;
      frames_ = frames;
      values_.resize(size(frames) * size(width));
      for (int i = 0; i < width; ++i) {
        const double speed = std::pow(10000., -2. * (i / 2) / width);
        for (int t = 0; t < frames; ++t)
          values_[size(t) * size(width) + size(i)] =
              static_cast<float>(i % 2 == 0 ? std::sin(t * speed) : std::cos(t * speed));
      }
    }
    Matrix<float const> rows(int n) const { return {values_.data(), n, width_, width_}; }

   private:
    std::vector<float> values_;
    int frames_ = 0, width_ = 0;
  };

  cpu::Workspace workspace_, scratch_;
  Sinusoids sinusoids_;
};

}  // namespace sotto::inline SOTTO_ABI
