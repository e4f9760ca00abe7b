// Compiled once a level.
#include "model.hpp"

#include <array>
#include <sotto/core/error.hpp>
#include <sotto/dispatch.hpp>

namespace dispatch_test {
namespace {

// Made when the level is entered, by code that another processor may not run.
std::map<std::string, int> names{{"log-mel", 80}, {"mfcc", 39}};
std::array<double, 64> const squares = [] {
  std::array<double, 64> s{};
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = static_cast<double>(i * i) * weights[i % weights.size()];
  return s;
}();
struct AtExit {
  ~AtExit() { names.clear(); }
} at_exit;

struct Sum final : Layer {
  double forward(std::vector<float> const& x) const override {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * squares[i % squares.size()];
    return sum;
  }
};

}  // namespace

std::string_view level() { return sotto::compiled_level(); }

double arguments(int a, double b, long c, float d, std::string const& e, int f, int g, int h, int i, double j, double k,
                 double l, double m, double n, double o, double p, std::vector<float> const& q) {
  ++calls;
  return a + b + static_cast<double>(c) + static_cast<double>(d) + static_cast<double>(e.size()) + f + g + h + i + j +
         k + l + m + n + o + p + static_cast<double>(sum_of_squares(q));
}

void each(std::vector<float>& x, std::function<float(float)> const& f) {
  for (float& value : x) value = f(value);
}

void open(std::string const& path) { throw sotto::Error(sotto::ErrorCode::file, "no such model", path); }

float energy(std::vector<float> const& x) {
  try {
    return energy_of_half(x) + sum_of_squares(x);
  } catch (Refusal const& refusal) {
    throw Refusal(std::string("energy: ") + refusal.what());
  }
}

Layer const& layer() {
  static const Sum sum;
  return sum;
}

std::map<std::string, int>& registry() { return names; }

}  // namespace dispatch_test
