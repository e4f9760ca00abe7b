// Compiled twice, with different -m flags: a product, a GELU and a layer norm through the Cpu backend, and training.
#include "isa.hpp"

#include <sotto/backend/cpu/cpu.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/sotto.hpp>

namespace {
inline std::vector<float> body(std::vector<float> const& x, int rows, int width) {
  using B = sotto::Cpu<float>;
  B b;
  sotto::Arena measure;
  const sotto::LinearShape shape{width, width};
  static_cast<void>(B::carve_linear(measure, shape));
  sotto::Buffer buffer(measure.used());
  sotto::Arena arena(buffer.begin());
  B::Prepared w = B::carve_linear(arena, shape);
  b.prepare_linear(shape, x.data(), x.data(), w);
  const auto n = static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
  std::vector<float> before(n), y(n), statistics(2 * static_cast<std::size_t>(rows));
  const auto matrix = [&](std::vector<float>& v) { return sotto::Matrix<float>{v.data(), rows, width, width}; };
  b.product_gelu({x.data(), rows, width, width}, w, matrix(before), matrix(y));
  const sotto::Array<float const> gain{x.data(), static_cast<std::size_t>(width)};
  b.layer_norm(matrix(y), gain, gain, 1e-5f, matrix(before), {statistics.data(), rows, 2, 2});
  return before;
}
struct IsaToy : sotto::Spec {
  static constexpr sotto::EncoderShape shape{.width = 32, .depth = 1, .heads = 2, .feed_forward = 64};
  using Position = sotto::position::Convolution<8, 9>;
  using Objective = sotto::objective::Hubert<8>;
};
inline double loss_after_training() {
  const sotto::SyntheticSpeech speech({.speakers = 3, .utterances = 12});
  sotto::Pretrainer<IsaToy> trainer(speech,
                                    {.budget = sotto::updates(3), .threads = 2, .slots = 2, .batch = {.rows = 400}});
  double loss = 0;
  while (const auto step = trainer.step()) loss = step->loss;
  return loss;
}
}  // namespace
