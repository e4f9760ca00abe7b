// Calls a model that is compiled for several levels; prints the level, and a number that is the same at all.
#include <cstdio>
#include <cstdlib>
#include <future>
#include <sotto/core/error.hpp>

#include "model.hpp"

namespace {

void expect(bool condition, char const* what) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::exit(2);
}

}  // namespace

int main() try {
  using namespace dispatch_test;
  // the first call, from two threads at once, with every register in use
  const std::vector<float> x(64, .5f);
  const auto call = [&] { return arguments(1, 2, 3, 4, "fives", 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, x); };
  auto one = std::async(std::launch::async, call), two = std::async(std::launch::async, call);
  const double first = one.get(), second = two.get();
  expect(first == 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10 + 11 + 12 + 13 + 14 + 15 + 16 + 16, "arguments arrive");
  expect(first == second, "in both threads");

  std::vector<float> y(1000, 1.f);
  float factor = 1;
  each(y, [&](float value) { return value * (factor += .001f); });
  const float loud = sum_of_squares(y);
  expect(energy(y) > loud, "templates are called on both sides");

  calls = 0;
  static_cast<void>(call());
  expect(calls == 1, "a variable is one in the program");
  expect(registry().at("mfcc") == 39, "static objects are made");

  try {
    static_cast<void>(energy(std::vector<float>(64, 1e4f)));
    expect(false, "an exception passes");
  } catch (Refusal const& refusal) {
    expect(refusal.what() == std::string("energy: too loud"), "an exception keeps its words");
  }
  try {
    open("no/model");
    expect(false, "an Error passes");
  } catch (sotto::Error const& error) {
    expect(error.code() == sotto::ErrorCode::file && error.path() == "no/model", "an Error is whole");
  }

  const std::string_view name = level();
  std::printf("%.*s: final loss %.4f\n", static_cast<int>(name.size()), name.data(), layer().forward(y) * 1e-4);
} catch (sotto::Error const& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
