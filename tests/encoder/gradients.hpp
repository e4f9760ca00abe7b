// Proves a spec's backward: every parameter in turn is given the tangent 1 in Reference<Dual<double, 1>>, whose forward
// pass then carries the exact derivative of the loss; Reference<double>'s backward must agree.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <sotto/backend/reference/reference.hpp>
#include <sotto/core/buffer.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/train/network.hpp>

namespace sotto::test {

/// A lane with random features, masks and labels: sequences of these lengths.
inline PackedLane random_lane(std::vector<int> const& lengths, int features, int classes, std::uint64_t seed) {
  PackedLane lane;
  lane.clear();
  Random random(seed, Purpose::user);
  SpanMasker masker;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    lane.utterances.push_back(static_cast<int>(7 + 3 * i));
    lane.starts.push_back(static_cast<int>(5 * i));
    masker.draw({.probability = .6f, .length = 2}, lengths[i], Random(seed, Purpose::mask, 0, i), lane.rows(),
                lane.masked);
    lane.offsets.push_back(lane.rows() + lengths[i]);
  }
  for (int row = 0; row < lane.rows(); ++row)
    if (!std::binary_search(lane.masked.begin(), lane.masked.end(), row)) lane.unmasked.push_back(row);
  for (int row = 0; row < lane.rows(); ++row)
    lane.targets.push_back(static_cast<int>(random.below(static_cast<std::uint32_t>(std::max(classes, 1)))));
  for (int i = 0; i < lane.rows() * features; ++i) lane.features.push_back(static_cast<float>(random.normal()));
  return lane;
}

/// Parameters that hide nothing: no zeros, no ones.
template <class Model> std::vector<double> random_parameters(std::uint64_t seed, double spread = .2) {
  std::vector<double> values(count(parameter_table<Model>));
  initialise(std::span<ParameterEntry const>(parameter_table<Model>), values.data(), seed);
  Random random(seed, Purpose::user, 1);
  for (auto& value : values) value += spread * random.normal();
  return values;
}

template <class Model, class T> struct LossOf {
  using B = Reference<T>;
  using Net = Network<Model, B>;
  B backend;
  Buffer weights{Net::weight_bytes()}, arena;
  typename Net::Weights working;
  std::vector<T> features;

  LossOf(PackedLane const& lane)
      : arena(Net::activation_bytes({lane.rows(), lane.longest()})),
        features(lane.features.begin(), lane.features.end()) {
    Arena carve(weights.begin());
    working = Net::carve_weights(carve);
  }
  T loss(T const* values, PackedLane const& packed, Noise const& noise,
         typename Model::Objective::Options const& options, T* gradients = nullptr) {
    const auto master = Net::template carve_parameters<T const>(values);
    for (int part = 0; part < Net::prepare_parts; ++part) Net::prepare(backend, master, working, part);
    const Lane<int> lane = packed.view();
    const Rows<T const, Net::features> x{features.data(), lane.rows};
    constexpr int n = Model::Objective::Statistics::size;
    std::vector<T> sums(static_cast<std::size_t>(n) + 1, T(0));
    if constexpr (n > 0) Net::observe(backend, working, lane, x, sums.data());
    const BatchScope<B> scope{lane.masked_rows, lane.rows, sums.data()};
    auto activations = Net::resized(arena.begin(), {lane.rows, lane.longest});
    Measures<T> measures;
    Net::forward(backend, working, lane, noise, options, scope, x, activations, measures);
    if (gradients != nullptr) {
      const auto g = Net::template carve_parameters<T>(gradients);
      Net::backward(backend, working, g, lane, noise, options, scope, x, activations);
      Net::finish(backend, master, g);
    }
    return measures.loss;
  }
};

/// Checks all gradients of a model of at most 5,000 parameters; returns the worst error relative to 1e-3 + |gradient|.
template <class Model>
double check_gradients(typename Model::Objective::Options const& options = {}, Noise noise = Noise::off(),
                       std::vector<int> const& lengths = {7, 1, 4}) {
  static_assert(count(parameter_table<Model>) <= 5000, "each parameter costs a forward pass");
  const PackedLane lane = random_lane(lengths, Model::Frontend::features, Model::Objective::classes, 3);
  const std::vector<double> values = random_parameters<Model>(5);
  std::vector<double> gradients(values.size(), 0);
  LossOf<Model, double> backward(lane);
  // poison what backward must write before it reads
  for (std::size_t i = 0; i < backward.arena.size() / sizeof(double); ++i)
    backward.arena.template as<double>()[i] = std::numeric_limits<double>::quiet_NaN();
  const double loss = backward.loss(values.data(), lane, noise, options, gradients.data());
  CHECK(std::isfinite(loss));
  using D = Dual<double, 1>;
  LossOf<Model, D> forward(lane);
  std::vector<D> dual(values.begin(), values.end());
  double worst = 0;
  std::size_t live = 0;
  for (auto const& entry : parameter_table<Model>)
    for (std::size_t i = entry.offset; i < entry.offset + entry.size; ++i) {
      dual[i].by[0] = 1;
      const double exact = forward.loss(dual.data(), lane, noise, options).by[0];
      dual[i].by[0] = 0;
      const double error = std::abs(gradients[i] - exact) / (1e-3 + std::abs(exact));
      if (!(error < 1e-9)) {
        CAPTURE(entry.name());
        CAPTURE(i - entry.offset);
        CAPTURE(exact);
        CAPTURE(gradients[i]);
        CHECK(error < 1e-9);
        return error;
      }
      worst = std::max(worst, error);
      live += exact != 0 ? 1 : 0;
    }
  CHECK(live > values.size() / 2);  // a loss that depends on nothing proves nothing
  return worst;
}

}  // namespace sotto::test
