// What crosses between a program and the levels of its model.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace dispatch_test {

/// One in the program, though every level defines it.
inline std::atomic<int> calls = 0;
inline std::vector<double> const weights{1, 2, 3, 4, 5, 6, 7, 8, 9};

struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct Layer {
  virtual ~Layer() = default;
  virtual double forward(std::vector<float> const& x) const = 0;
};

/// Whole vectors of numbers, in an instance that the program and every level have.
template <class T> T sum_of_squares(std::vector<T> const& x) {
  T sum{};
  for (T const value : x) sum += value * value;
  if (!(sum < T(1e6))) throw Refusal("too loud");
  return sum;
}

std::string_view level();
/// Arguments in registers of both kinds, in more than there are, and on the stack.
double arguments(int a, double b, long c, float d, std::string const& e, int f, int g, int h, int i, double j, double k,
                 double l, double m, double n, double o, double p, std::vector<float> const& q);
void each(std::vector<float>& x, std::function<float(float)> const& f);
/// Throws sotto::Error.
void open(std::string const& path);
/// Throws Refusal, by way of the other source.
float energy(std::vector<float> const& x);
float energy_of_half(std::vector<float> const& x);
Layer const& layer();
std::map<std::string, int>& registry();

}  // namespace dispatch_test
