// Every operation of the door on Cuda, but attention, convolutions and log-mel, which have tests of their own, against
// the Reference in double over odd sizes: dense and strided, with rows that are none.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include <sotto/backend/reference/reference.hpp>
#include <sotto/cuda.hpp>

#include "execution.hpp"
#include "functors.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

using Numbers = std::vector<double>;

template <class T> T as(double x) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16::of(static_cast<float>(x));
  else
    return static_cast<T>(x);
}
template <class T> double number(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return static_cast<double>(static_cast<float>(x));
  else
    return static_cast<double>(x);
}
/// Normal numbers that T can hold.
template <class T> Numbers noise(std::size_t n, std::uint64_t seed) {
  Random random(seed, Purpose::user);
  Numbers x(n);
  for (auto& v : x) v = number(as<T>(random.normal()));
  return x;
}

/// Numbers on the device.
template <class T> class Device {
 public:
  template <class S>
  Device(Cuda<S>& b, Numbers const& x) : n_(x.size()), memory_(std::max<std::size_t>(16, n_ * sizeof(T))) {
    std::vector<T> values(n_);
    for (std::size_t i = 0; i < n_; ++i) values[i] = as<T>(x[i]);
    if (n_ > 0) b.copy_to_device(memory_.begin(), values.data(), n_ * sizeof(T));
  }
  OnDevice<T>* begin() const { return memory_.template as<T>(); }
  Matrix<OnDevice<T>> matrix(int rows, int columns, int stride) const { return {begin(), rows, columns, stride}; }
  Array<OnDevice<T>> array() const { return {begin(), n_}; }
  template <class S> Numbers read(Cuda<S>& b) const {
    std::vector<T> values(n_);
    b.copy_to_host(values.data(), memory_.begin(), n_ * sizeof(T));
    Numbers x(n_);
    for (std::size_t i = 0; i < n_; ++i) x[i] = number(values[i]);
    return x;
  }

 private:
  std::size_t n_;
  cuda::DeviceMemory memory_;
};

/// got is wanted, to a part of the largest of wanted.
void check(char const* what, Numbers const& got, Numbers const& wanted, double tolerance) {
  double largest = 1e-3, worst = 0;
  for (const double w : wanted) largest = std::max(largest, std::abs(w));
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::isfinite(got[i]) ? std::max(worst, std::abs(got[i] - wanted[i])) : INFINITY;
  INFO(std::string(what));
  CHECK(worst <= tolerance * largest);
}

/// A backend in whose step counts stand.
template <class S> struct Fixture {
  using E = OnDevice<S>;
  using R = OnDevice<float>;
  static constexpr double tolerance = sizeof(S) == 2 ? 8e-3 : 2e-6;

  Cuda<S> b;
  Reference<double> reference;
  cuda::DeviceMemory input{sizeof(cuda::StepInput)}, output{sizeof(cuda::StepOutput)};
  int rows, columns, stride;

  Fixture(int n, int width, int pitch) : rows(n), columns(width), stride(pitch) {}
  std::size_t size() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(stride); }
  Numbers random(std::uint64_t seed) const { return noise<S>(size(), seed); }
  Matrix<double> host(Numbers& x) const { return {x.data(), rows, columns, stride}; }
  Matrix<double const> host(Numbers const& x) const { return {x.data(), rows, columns, stride}; }
  Matrix<E> on(Device<S> const& x) const { return x.matrix(rows, columns, stride); }
  void compare(char const* what, Device<S> const& got, Numbers const& wanted, double times = 1) {
    check(what, got.read(b), wanted, times * tolerance);
  }
};

template <class S> void row_operations(int rows, int columns, int stride) {
  Fixture<S> f(rows, columns, stride);
  CAPTURE(rows);
  CAPTURE(columns);
  CAPTURE(stride);
  const auto n = static_cast<std::size_t>(columns);
  const Numbers x = f.random(1), dy = f.random(2), gain = noise<float>(n, 3), bias = noise<float>(n, 4);
  const Device<S> dx_(f.b, x), dy_(f.b, dy);
  const Device<float> gain_(f.b, gain), bias_(f.b, bias);
  {
    Numbers y = f.random(5), statistics(static_cast<std::size_t>(2 * rows)), d_gain = noise<float>(n, 6), d_bias = gain;
    const Device<S> y_(f.b, y);
    const Device<float> statistics_(f.b, statistics), d_gain_(f.b, d_gain), d_bias_(f.b, d_bias);
    const Matrix<double> host_statistics{statistics.data(), rows, 2, 2};
    f.reference.layer_norm(f.host(x), {gain.data(), n}, {bias.data(), n}, 1e-5f, f.host(y), host_statistics);
    f.b.layer_norm(f.on(dx_), gain_.array(), bias_.array(), 1e-5f, f.on(y_), statistics_.matrix(rows, 2, 2));
    f.compare("layer_norm", y_, y);
    check("statistics", statistics_.read(f.b), statistics, 1e-5);
    for (const bool accumulate : {true, false}) {
      Numbers d = f.random(7);
      const Device<S> d_(f.b, d);
      f.reference.layer_norm_back(f.host(dy), f.host(x), {gain.data(), n}, host_statistics, f.host(d), accumulate,
                                  {d_gain.data(), n}, {d_bias.data(), n});
      f.b.layer_norm_back(f.on(dy_), f.on(dx_), gain_.array(), statistics_.matrix(rows, 2, 2), f.on(d_), accumulate,
                          d_gain_.array(), d_bias_.array());
      f.compare("layer_norm_back", d_, d, 2);
    }
    check("d_gain", d_gain_.read(f.b), d_gain, 1e-5);
    check("d_bias", d_bias_.read(f.b), d_bias, 1e-5);
    const Device<S> in_place(f.b, dy);
    Numbers d = dy;
    f.reference.layer_norm_back(f.host(dy), f.host(x), {gain.data(), n}, host_statistics, f.host(d), false,
                                {d_gain.data(), n}, {d_bias.data(), n});
    f.b.layer_norm_back(f.on(in_place), f.on(dx_), gain_.array(), statistics_.matrix(rows, 2, 2), f.on(in_place), false,
                        d_gain_.array(), d_bias_.array());
    f.compare("layer_norm_back in place", in_place, d, 2);
  }
  {
    Numbers y = f.random(5), inverse(static_cast<std::size_t>(rows)), d = f.random(6);
    const Device<S> y_(f.b, y), d_(f.b, d);
    const Device<float> inverse_(f.b, inverse);
    f.reference.normalise_rows(f.host(x), f.host(y), {inverse.data(), inverse.size()});
    f.b.normalise_rows(f.on(dx_), f.on(y_), inverse_.array());
    f.compare("normalise_rows", y_, y);
    f.reference.normalise_rows_back(f.host(dy), f.host(y), {inverse.data(), inverse.size()}, f.host(d));
    f.b.normalise_rows_back(f.on(dy_), f.on(y_), inverse_.array(), f.on(d_));
    f.compare("normalise_rows_back", d_, d, 2);
  }
  {
    Numbers y = f.random(5);
    const Device<S> y_(f.b, y);
    f.reference.sum(f.host(x), f.host(dy), f.host(y));
    f.b.sum(f.on(dx_), f.on(dy_), f.on(y_));
    f.compare("sum", y_, y);
  }
  {  // rows by number, -1 for none
    std::vector<int> rows_of(static_cast<std::size_t>(rows)), real;
    for (int i = 0; i < rows; ++i) rows_of[static_cast<std::size_t>(i)] = i % 3 == 1 ? -1 : (i * 7) % rows;
    if (rows % 7 == 0)
      for (int i = 0; i < rows; ++i)
        if (rows_of[static_cast<std::size_t>(i)] >= 0) rows_of[static_cast<std::size_t>(i)] = rows - 1 - i;
    const Device<int> rows_(f.b, Numbers(rows_of.begin(), rows_of.end()));
    Numbers gathered = f.random(5), scattered = gathered, filled = gathered, emptied = gathered,
            d_value = noise<float>(n, 8);
    const Device<S> gathered_(f.b, gathered), scattered_(f.b, scattered), filled_(f.b, filled), emptied_(f.b, emptied);
    const Device<float> d_value_(f.b, d_value);
    for (int i = 0; i < rows; ++i) {
      const int row = rows_of[static_cast<std::size_t>(i)];
      for (int c = 0; c < columns; ++c) {
        f.host(gathered).row(i)[c] = row < 0 ? 0 : f.host(x).row(row)[c];
        if (row < 0) continue;
        f.host(scattered).row(row)[c] += f.host(x).row(i)[c];
        f.host(filled).row(row)[c] = number(as<S>(gain[static_cast<std::size_t>(c)]));
        d_value[static_cast<std::size_t>(c)] += f.host(emptied).row(row)[c];
        f.host(emptied).row(row)[c] = 0;
      }
    }
    f.b.gather(f.on(dx_), rows_.begin(), f.on(gathered_));
    f.b.scatter_add(f.on(dx_), rows_.begin(), f.on(scattered_));
    f.b.fill_rows(gain_.array(), rows_.begin(), rows, f.on(filled_));
    f.b.fill_rows_back(f.on(emptied_), rows_.begin(), rows, d_value_.array());
    f.compare("gather", gathered_, gathered);
    f.compare("scatter_add", scattered_, scattered);
    f.compare("fill_rows", filled_, filled);
    f.compare("fill_rows_back", emptied_, emptied);
    check("d_value", d_value_.read(f.b), d_value, 1e-5);
  }
  {
    std::vector<int> segments(static_cast<std::size_t>(rows));
    for (int i = 0; i < rows; ++i) segments[static_cast<std::size_t>(i)] = i * i % 5 % rows;
    const Device<int> segments_(f.b, Numbers(segments.begin(), segments.end()));
    Numbers y = f.random(5), sums = noise<float>(n, 9), scaled(n);
    const Device<S> y_(f.b, y);
    const Device<double> sums_(f.b, sums);
    const Device<float> scaled_(f.b, scaled);
    f.reference.segment_sums(f.host(x), segments.data(), f.host(y));
    f.b.segment_sums(f.on(dx_), segments_.begin(), f.on(y_));
    f.compare("segment_sums", y_, y);
    f.reference.column_sums(f.host(x), sums.data());
    f.b.column_sums(f.on(dx_), sums_.begin());
    check("column_sums", sums_.read(f.b), sums, 1e-5);
    f.reference.from_sums(sums.data(), .3, {scaled.data(), n});
    f.b.from_sums(sums_.begin(), .3, scaled_.array());
    check("from_sums", scaled_.read(f.b), scaled, 1e-5);
  }
}

template <class S> void flat_operations(std::size_t n) {
  Fixture<S> f(1, static_cast<int>(n), static_cast<int>(n));
  const Numbers x = f.random(1), dy = f.random(2);
  const Device<S> x_(f.b, x), dy_(f.b, dy);
  const auto forward = [&](char const* what, auto&& on_host, auto&& on_device) {
    Numbers y = f.random(3);
    const Device<S> y_(f.b, y);
    on_host(Array<double>{y.data(), n});
    on_device(y_.array());
    f.compare(what, y_, y);
  };
  const Array<double const> hx{x.data(), n}, hdy{dy.data(), n};
  const Array<OnDevice<S> const> gx = x_.array(), gdy = dy_.array();
  forward(
      "gelu", [&](auto y) { f.reference.gelu(hx, y); }, [&](auto y) { f.b.gelu(gx, y); });
  forward(
      "gelu_back", [&](auto y) { f.reference.gelu_back(hx, hdy, y); }, [&](auto y) { f.b.gelu_back(gx, gdy, y); });
  forward(
      "map", [&](auto y) { f.reference.template map<SoftSign>(hx, y); },
      [&](auto y) { f.b.template map<SoftSign>(gx, y); });
  forward(
      "map_back", [&](auto y) { f.reference.template map_back<SoftSign>(hx, hdy, y); },
      [&](auto y) { f.b.template map_back<SoftSign>(gx, gdy, y); });
  forward(
      "copy", [&](auto y) { f.reference.copy(hx, y); }, [&](auto y) { f.b.copy(gx, y); });
  forward(
      "clear", [&](auto y) { f.reference.clear(y); }, [&](auto y) { f.b.clear(y); });
  const Device<float> wide(f.b, x);
  forward(
      "convert", [&](auto y) { f.reference.copy(hx, y); }, [&](auto y) { f.b.convert(wide.array(), y); });
}

/// Products of a layer [out, in] over `rows` rows; heads are padded where the shape says so.
template <class S> void products(int rows, LinearShape shape) {
  CAPTURE(rows);
  CAPTURE(shape.out);
  CAPTURE(shape.in);
  const int out = shape.padded_out(), in = shape.padded_in();
  Fixture<S> f(rows, out, out);
  const auto n = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
  const Numbers weight = noise<S>(n(shape.out, shape.in), 1), bias = noise<S>(n(shape.out, 1), 2);
  Numbers packed = weight;
  packed.insert(packed.end(), bias.begin(), bias.end());
  const Device<float> values(f.b, packed);
  Arena measure;
  static_cast<void>(Cuda<S>::carve_linear(measure, shape));
  cuda::DeviceMemory memory(measure.used());
  Arena arena(memory.begin());
  auto w = Cuda<S>::carve_linear(arena, shape);
  f.b.prepare_linear(shape, values.begin(), values.begin() + weight.size(), w);
  const ParameterEntry table[] = {{{"w", {shape.out, shape.in}, {}}, 0, weight.size()},
                                  {{"b", {shape.out}, {}}, weight.size(), bias.size()}};
  f.b.plan_update(table, values.begin(), values.begin(), values.begin(), values.begin());
  f.b.copy_weights();
  Reference<double>::Prepared r{};
  Numbers padded_weight(n(out, in)), padded_bias(n(out, 1));
  r.weight = padded_weight.data();
  r.bias = padded_bias.data();
  r.shape = shape;
  f.reference.prepare_linear(shape, weight.data(), bias.data(), r);

  const Numbers x = noise<S>(n(rows, in), 3), dy = noise<S>(n(rows, out), 4), residual = noise<S>(n(rows, out), 5),
                input = noise<S>(n(rows, in), 6);
  const Device<S> x_(f.b, x), dy_(f.b, dy), residual_(f.b, residual), input_(f.b, input);
  const Matrix<double const> hx{x.data(), rows, in, in}, hdy{dy.data(), rows, out, out},
      hresidual{residual.data(), rows, out, out}, hinput{input.data(), rows, in, in};
  const auto gx = x_.matrix(rows, in, in), gdy = dy_.matrix(rows, out, out);
  const auto run = [&](char const* what, int columns, auto&& on_host, auto&& on_device, double times = 1) {
    Numbers y = noise<S>(n(rows, columns), 7);
    const Device<S> y_(f.b, y);
    on_host(Matrix<double>{y.data(), rows, columns, columns});
    on_device(y_.matrix(rows, columns, columns));
    f.compare(what, y_, y, times);
  };
  run(
      "product", out, [&](auto y) { f.reference.product(hx, r, y); }, [&](auto y) { f.b.product(gx, w, y); });
  run(
      "product_add", out, [&](auto y) { f.reference.product_add(hx, r, hresidual, y); },
      [&](auto y) { f.b.product_add(gx, w, residual_.matrix(rows, out, out), y); });
  run(
      "product_back", in, [&](auto y) { f.reference.product_back(hdy, r, y); },
      [&](auto y) { f.b.product_back(gdy, w, y); });
  run(
      "product_back_add", in, [&](auto y) { f.reference.product_back_add(hdy, r, y); },
      [&](auto y) { f.b.product_back_add(gdy, w, y); });
  {
    Numbers before = noise<S>(n(rows, out), 8), y = before, d = noise<S>(n(rows, in), 9);
    const Device<S> before_(f.b, before), y_(f.b, y);
    f.reference.product_gelu(hx, r, {before.data(), rows, out, out}, {y.data(), rows, out, out});
    f.b.product_gelu(gx, w, before_.matrix(rows, out, out), y_.matrix(rows, out, out));
    f.compare("before", before_, before);
    f.compare("product_gelu", y_, y);
    run(
        "product_back_gelu", in, [&](auto dx) { f.reference.product_back_gelu(hdy, r, hinput, dx); },
        [&](auto dx) { f.b.product_back_gelu(gdy, w, input_.matrix(rows, in, in), dx); }, 2);
  }
  Numbers dw = noise<float>(weight.size(), 10), db = noise<float>(bias.size(), 11);
  // A gradient stands anywhere in the flat buffer, not only where 16 bytes begin.
  for (const std::size_t offset : {std::size_t{0}, std::size_t{1}}) {
    Numbers flat(offset, 0.);
    flat.insert(flat.end(), dw.begin(), dw.end());
    flat.insert(flat.end(), bias.size(), 0.);
    const Device<float> flat_(f.b, flat);
    Numbers wanted_w = dw, wanted_b(bias.size(), 0.);
    for (int repeat = 0; repeat < 2; ++repeat) {  // the second adds to the first
      f.reference.weight_gradient(hdy, hx, r, {wanted_w.data(), shape.out, shape.in, shape.in},
                                  {wanted_b.data(), wanted_b.size()});
      f.b.weight_gradient(gdy, gx, w, {flat_.begin() + offset, shape.out, shape.in, shape.in},
                          {flat_.begin() + offset + weight.size(), bias.size()});
    }
    const Numbers got = flat_.read(f.b);
    const auto begin = got.begin() + static_cast<std::ptrdiff_t>(offset),
               middle = begin + static_cast<std::ptrdiff_t>(weight.size());
    check("weight_gradient", Numbers(begin, middle), wanted_w, 1e-5);
    check("bias gradient", Numbers(middle, got.end()), wanted_b, 1e-5);
  }
}

template <class S> void losses() {
  constexpr int rows = 37, columns = 19, counted = 50;
  Fixture<S> f(rows, columns, columns);
  const Numbers scores = f.random(1), wanted = f.random(2);
  std::vector<int> targets(rows), real;
  for (int i = 0; i < rows; ++i) targets[static_cast<std::size_t>(i)] = i % 4 == 2 ? -1 : (i * 5) % columns;
  const Device<int> targets_(f.b, Numbers(targets.begin(), targets.end())), count_(f.b, {counted});
  const Device<double> loss_(f.b, {.25});
  {
    Numbers histogram(columns), exact_histogram(columns);
    const Device<S> scores_(f.b, scores);
    const Device<int> counts(f.b, {0, 0}), histogram_(f.b, histogram);
    Measures<OnDevice<double>> measures{*loss_.begin(), counts.begin(), counts.begin() + 1, histogram_.begin()};
    f.b.cross_entropy(f.on(scores_), targets_.begin(), 3.f, .7, count_.begin(), *loss_.begin(), &measures);
    Numbers exact = scores;
    double loss = .25;
    Measures<double> wanted_measures;
    wanted_measures.histogram = exact_histogram.data();
    for (int i = 0; i < rows; ++i) {
      const Matrix<double> row = f.host(exact).slice_rows(i, 1);
      if (targets[static_cast<std::size_t>(i)] < 0)
        std::fill_n(row.begin, columns, 0.);
      else
        f.reference.cross_entropy(row, &targets[static_cast<std::size_t>(i)], 3.f, .7, counted, loss, &wanted_measures);
    }
    f.compare("cross_entropy", scores_, exact);
    check("its loss", loss_.read(f.b), {loss}, 1e-5);
    check("its counts", counts.read(f.b), {wanted_measures.correct, wanted_measures.predicted}, 0);
    check("its histogram", histogram_.read(f.b), exact_histogram, 0);
  }
  for (const bool named : {true, false}) {  // the count is the denominator, whatever rows there are
    const Device<S> predicted_(f.b, scores), wanted_(f.b, wanted);
    const Device<double> sum_(f.b, {0.});
    f.b.template row_loss<SmoothDistance>(f.on(predicted_), f.on(wanted_), named ? targets_.begin() : nullptr, .7,
                                          count_.begin(), *sum_.begin());
    Numbers exact = scores;
    double loss = 0;
    f.reference.template row_loss<SmoothDistance>(f.host(exact), f.host(wanted), named ? targets.data() : nullptr, .7,
                                                  counted, loss);
    f.compare("row_loss", predicted_, exact);
    check("its loss", sum_.read(f.b), {loss}, 1e-5);
  }
}

/// Rows of unit length.
template <class S> void directions() {
  const LinearShape shape{13, 21};
  Fixture<S> f(shape.out, shape.in, shape.in);
  const Numbers weight = noise<float>(f.size(), 1);
  Numbers gradient = noise<float>(f.size(), 2), unit(f.size()), bias(static_cast<std::size_t>(shape.out));
  const Device<float> weight_(f.b, weight), gradient_(f.b, gradient);
  const Device<S> unit_(f.b, unit);
  typename Cuda<S>::Prepared w{unit_.begin(), nullptr, shape, false};
  Reference<double>::Prepared r{};
  r.weight = unit.data();
  r.bias = bias.data();
  r.shape = shape;
  f.reference.prepare_directions(shape, weight.data(), r);
  f.b.prepare_directions(shape, weight_.begin(), w);
  f.compare("prepare_directions", unit_, unit);
  f.reference.finish_directions(f.host(weight), f.host(gradient));
  f.b.finish_directions(weight_.matrix(shape.out, shape.in, shape.in), gradient_.matrix(shape.out, shape.in, shape.in));
  check("finish_directions", gradient_.read(f.b), gradient, 1e-5);
}

}  // namespace

TEST_CASE_TEMPLATE("operations on Cuda are the Reference's over odd sizes, in every order of threads and blocks", S,
                   float, bf16) {
  if (!has_device()) return;
  Order order = Order::forward;
  SUBCASE("forward") {}
  if (variant == "plain") {
    SUBCASE("reverse") { order = Order::reverse; }
    SUBCASE("random") { order = Order::random; }
  }
  const Execution execution(order);
  row_operations<S>(37, 39, 39);
  row_operations<S>(70, 64, 64);
  row_operations<S>(33, 24, 40);
  row_operations<S>(1, 7, 9);
  if (variant == "plain" || variant == "device") row_operations<S>(300, 1030, 1030);
  for (const std::size_t n : {std::size_t{1}, std::size_t{7}, std::size_t{1000}, std::size_t{4096}})
    flat_operations<S>(n);
  losses<S>();
  directions<S>();
  products<S>(37, {40, 24});
  products<S>(65, {39, 53});
  products<S>(1, {8, 8});
  products<S>(20, {3 * 39, 39, 13, 16});    // queries, keys and values of heads 13 wide, carried 16 wide
  products<S>(20, {39, 39, 0, 0, 13, 16});  // and what joins them
}
