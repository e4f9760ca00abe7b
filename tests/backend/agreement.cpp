// Every operation of a fast backend against the Reference, over odd sizes; then whole models, loss and every gradient.
#include <sotto/backend/cpu/cpu.hpp>

#include "../encoder/gradients.hpp"
#include "odd_models.hpp"

using namespace sotto;
using namespace sotto::test;

namespace {

/// Loss and gradients of one lane on backend B.
template <class Model, class B>
std::pair<double, std::vector<float>> run(PackedLane const& packed, Noise const& noise,
                                          typename Model::Objective::Options const& options, std::uint64_t seed,
                                          double spread = .2) {
  using Net = Network<Model, B>;
  using E = typename B::Element;
  const std::vector<double> exact = test::random_parameters<Model>(seed, spread);
  std::vector<float> values(exact.begin(), exact.end()), gradients(values.size(), 0.f);
  B b;
  Buffer weights(Net::weight_bytes());
  Arena carve(weights.begin());
  auto working = Net::carve_weights(carve);
  const auto master = Net::template carve_parameters<float const>(values.data());
  for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(b, master, working, part);
  const Lane<int> lane = packed.view();
  Buffer arena(Net::activation_bytes({lane.rows, lane.longest}));
  auto a = Net::resized(arena.begin(), {lane.rows, lane.longest});
  using Sum = typename B::Sum;
  const BatchScope<B> scope{lane.masked_rows, lane.rows, nullptr};
  Measures<Sum> measures;
  std::vector<E> features;
  for (const float f : packed.features) features.push_back(cpu::stored<E>(f));
  const Rows<E const, Net::features> x{features.data(), lane.rows};
  const auto g = Net::template carve_parameters<float>(gradients.data());
  Net::forward(b, working, lane, noise, options, scope, x, a, measures);
  Net::backward(b, working, g, lane, noise, options, scope, x, a);
  Net::finish(b, master, g);
  return {static_cast<double>(measures.loss), gradients};
}

}  // namespace

TEST_CASE_TEMPLATE("the Cpu backend computes the losses and gradients of the Reference", Model, Odd, OddPre, OddBias,
                   OddSines, Regular) {
  typename Model::Objective::Options options;
  options.unmasked_weight = .2f;
  for (const auto& noise : {Noise::off(), Noise::of({.dropout = .2f}, 2, 3, 9)}) {
    const PackedLane lane =
        test::random_lane({71, 1, 13, 40, 2}, Model::Frontend::features, Model::Objective::classes, 21);
    const auto [loss, gradients] = run<Model, Cpu<float>>(lane, noise, options, 8);
    const auto [exact_loss, exact] = run<Model, Reference<float>>(lane, noise, options, 8);
    CHECK(loss == doctest::Approx(exact_loss).epsilon(1e-5));
    for (auto const& entry : parameter_table<Model>) {
      double scale = 0, worst = 0;
      for (std::size_t i = entry.offset; i < entry.offset + entry.size; ++i) {
        scale = std::max(scale, static_cast<double>(std::abs(exact[i])));
        worst = std::max(worst, static_cast<double>(std::abs(gradients[i] - exact[i])));
      }
      CAPTURE(entry.name());
      CAPTURE(scale);
      // a key's bias shifts all scores of a query alike: its exact gradient is 0, and both are rounding
      CHECK(worst < 2e-4 * scale + 1e-6);
    }
  }
}

TEST_CASE_TEMPLATE("in bf16 they are within what eight bits can say", Model, Odd, OddPre, OddBias, OddSines, Regular) {
  typename Model::Objective::Options options;
  options.unmasked_weight = .2f;
  for (const auto& noise : {Noise::off(), Noise::of({.dropout = .2f}, 2, 3, 9)}) {
    const PackedLane lane =
        test::random_lane({71, 1, 13, 40, 2}, Model::Frontend::features, Model::Objective::classes, 21);
    // weights as large as training makes them: with larger ones a softmax is nearly a step
    const auto [loss, gradients] = run<Model, Cpu<bf16>>(lane, noise, options, 8, .05);
    const auto [exact_loss, exact] = run<Model, Reference<float>>(lane, noise, options, 8, .05);
    CHECK(loss == doctest::Approx(exact_loss).epsilon(.005));
    double squares = 0, of = 0;
    for (auto const& entry : parameter_table<Model>) {
      double difference = 0, size = 0;
      for (std::size_t i = entry.offset; i < entry.offset + entry.size; ++i) {
        const double d = static_cast<double>(gradients[i]) - static_cast<double>(exact[i]);
        difference += d * d;
        size += static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
      }
      squares += difference;
      of += size;
      INFO(entry.name() << ": " << std::sqrt(difference / size));
      CHECK(difference <= .1 * .1 * size + 1e-6 * of);  // a key's bias: its exact gradient is 0
    }
    CAPTURE(std::sqrt(squares / of));
    CHECK(squares < .02 * .02 * of);
  }
}
