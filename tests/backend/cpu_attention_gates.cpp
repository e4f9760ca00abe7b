#include <sotto/backend/cpu/attention_gates.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include <sotto/attention/relative_bias.hpp>
#include <sotto/core/dual.hpp>
#include <sotto/core/philox.hpp>

#include "memory.hpp"

using sotto::Array;
using sotto::Dual;
using sotto::Matrix;
using namespace sotto::attention;
using namespace sotto::test;

TEST_CASE("gates are linear in a head's slice of the input, and so are their gradients") {
  constexpr int rows = 37, heads = 3, width = 20, gates = WavLmBias::gates;
  sotto::Random random(3, sotto::Purpose::noise);
  Numbers<double> x(rows * heads * width), weight(gates * width), bias(gates), constant(heads), d(rows * heads);
  for (auto* numbers : {&x, &weight, &bias, &constant, &d})
    for (double& v : *numbers) v = static_cast<double>(static_cast<float>(0.5 * random.normal()));
  const auto gate = [&]<class T>(Numbers<T> const& in, Numbers<T> const& w, Numbers<T> const& b, Numbers<T> const& c) {
    Numbers<T> out(rows * heads);
    for (int i = 0; i < rows; ++i)
      for (int h = 0; h < heads; ++h) {
        T raw[gates];
        for (int g = 0; g < gates; ++g) {
          raw[g] = b[static_cast<std::size_t>(g)];
          for (int k = 0; k < width; ++k) raw[g] += in[index(i, heads * width, h * width + k)] * w[index(g, width, k)];
        }
        out[index(i, heads, h)] = gated<WavLmBias>(raw, c[static_cast<std::size_t>(h)]);
      }
    return out;
  };
  Floats xf(x), wf(weight), bf(bias), cf(constant), df(d), out(d.size());
  const auto matrix = [](Floats& a, int r, int c) { return Matrix<float>{a.begin, r, c, c}; };
  const auto array = [](Floats& a) { return Array<float>{a.begin, a.size}; };
  sotto::cpu::attention_gates<WavLmBias, width>(matrix(xf, rows, heads * width), matrix(wf, gates, width), array(bf),
                                                array(cf), matrix(out, rows, heads));
  CHECK(distance(out, gate(x, weight, bias, constant)) < 1e-6);

  Floats dx(x), dw(weight), db(bias), dc(constant);  // added to: they begin as something
  sotto::cpu::attention_gates_back<WavLmBias, width>(
      matrix(xf, rows, heads * width), matrix(wf, gates, width), array(bf), array(cf), matrix(df, rows, heads),
      matrix(dx, rows, heads * width), matrix(dw, gates, width), array(db), array(dc));
  using D = Dual<double, 1>;
  Numbers<double> const* inputs[] = {&x, &weight, &bias, &constant};
  Floats* gradients[] = {&dx, &dw, &db, &dc};
  for (int which = 0; which < 4; ++which)
    for (int direction = 0; direction < 8; ++direction) {
      Numbers<D> moved[4];
      double expected = 0, actual = 0, size = 0;
      for (int k = 0; k < 4; ++k) moved[k] = Numbers<D>(inputs[k]->begin(), inputs[k]->end());
      for (std::size_t i = 0; i < moved[which].size(); ++i) {
        if (direction < 7 && (i * 2654435761u >> 7) % 7 != static_cast<std::size_t>(direction)) continue;
        moved[which][i].by[0] = random.normal();
        const double gradient = static_cast<double>(gradients[which]->begin[i]) - (*inputs[which])[i];
        expected += moved[which][i].by[0] * gradient;
        size += std::abs(moved[which][i].by[0] * gradient);
      }
      const Numbers<D> moved_gates = gate(moved[0], moved[1], moved[2], moved[3]);
      for (std::size_t i = 0; i < d.size(); ++i) actual += moved_gates[i].by[0] * d[i];
      CHECK(std::abs(actual - expected) < 1e-5 * size + 1e-9);
    }
}
