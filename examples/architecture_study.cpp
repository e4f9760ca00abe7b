// Width against depth, at the parameters and at the FLOPs of the paper's slim encoder (arXiv 2409.16295): a table that
// the compiler makes. Nothing is computed at run time; main prints constants.
#include <array>
#include <cstddef>
#include <cstdio>
#include <utility>

#include <sotto/budget/cost.hpp>
#include <sotto/encoder/presets.hpp>

namespace {

using namespace sotto::literals;

template <int Width, int Depth, int FeedForward> struct Point : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = Width, .depth = Depth, .feed_forward = FeedForward};
};

/// Trained parameters of a spec; FLOPs of training it on an hour of speech.
template <class Model> struct Parameters {
  static constexpr double value = static_cast<double>(sotto::parameter_count<Model>);
};
template <class Model> struct HourOfTraining {
  static constexpr double value = static_cast<double>(sotto::training_cost<Model>(1h).count);
};

/// The spec of a depth whose Measure is that of slim: the width is the multiple of 16 (the groups of the positional
/// convolution) that comes nearest with a feed-forward layer of 2 widths, as slim has; that layer makes up the rest.
template <template <class> class Measure, int Depth> struct Equal {
  static constexpr double target = Measure<sotto::presets::Slim>::value;

  // The measure is a polynomial of the second degree in the width, and linear in the feed-forward width.
  static constexpr double at(double a, double b, double c, double w) { return a + w * (b + w * c); }
  static constexpr int nearest_width() {
    constexpr double m1 = Measure<Point<128, Depth, 256>>::value, m2 = Measure<Point<256, Depth, 512>>::value,
                     m3 = Measure<Point<384, Depth, 768>>::value;
    constexpr double c = (m3 - 2 * m2 + m1) / (2 * 128. * 128), b = (m2 - m1) / 128 - c * 384,
                     a = m1 - 128 * b - 128. * 128 * c;
    int nearest = 16;
    while (at(a, b, c, nearest + 8) < target) nearest += 16;
    return nearest;
  }
  static constexpr int width = nearest_width();
  static constexpr double narrow = Measure<Point<width, Depth, width>>::value,
                          wide = Measure<Point<width, Depth, 2 * width>>::value;
  static constexpr int feed_forward = static_cast<int>(width + (target - narrow) / (wide - narrow) * width + .5);
  using Spec = Point<width, Depth, feed_forward>;
  static constexpr double share = Measure<Spec>::value / target;
  static_assert(share > .998 && share < 1.002, "equal is within 0.2 %");
};

struct Row {
  int depth, width, heads, feed_forward;
  double parameters, flops;  // millions; 1e12 an hour
};
template <template <class> class Measure, int Depth> constexpr Row row() {
  using Spec = typename Equal<Measure, Depth>::Spec;
  constexpr sotto::EncoderShape shape = Spec::shape.resolved();
  return {shape.depth,
          shape.width,
          shape.heads,
          shape.feed_forward,
          Parameters<Spec>::value * 1e-6,
          HourOfTraining<Spec>::value * 1e-12};
}
template <template <class> class Measure, int... Depths>
constexpr std::array<Row, sizeof...(Depths)> table(std::integer_sequence<int, Depths...>) {
  return {row<Measure, Depths>()...};
}

using Depths = std::integer_sequence<int, 2, 3, 4, 6, 8, 12, 16, 24>;
constexpr auto equal_parameters = table<Parameters>(Depths{});
constexpr auto equal_flops = table<HourOfTraining>(Depths{});

// What the table shows, as facts that the compiler checks. At equal parameters the deep and narrow encoder costs more,
// since every layer pays for attention over the whole utterance ...
static_assert(equal_parameters.front().width > 2 * equal_parameters.back().width);
static_assert(equal_parameters.front().flops < equal_parameters.back().flops);
// ... so that at equal FLOPs it has fewer parameters.
static_assert(equal_flops.front().parameters > equal_flops.back().parameters);

void print(char const* title, std::array<Row, 8> const& rows) {
  std::printf("%s\ndepth  width  heads  feed-forward  parameters (M)  TFLOP an hour of speech\n", title);
  for (Row const& r : rows)
    std::printf("%5d %6d %6d %13d %15.2f %24.2f\n", r.depth, r.width, r.heads, r.feed_forward, r.parameters, r.flops);
}

}  // namespace

int main() {
  print("At slim's parameters", equal_parameters);
  std::printf("\n");
  print("At slim's FLOPs", equal_flops);
}
