// What a step costs, exactly.
#pragma once

#include <sotto/budget/cost.hpp>
#include <sotto/data/batch.hpp>
#include <sotto/nn/noise.hpp>

namespace sotto::inline SOTTO_ABI {

/// Model FLOPs of one optimiser step on a batch: front-end, encoder and heads, forward and backward. Layers that the
/// step skips are not billed.
template <class Model>
Flops step_cost(Batch const& batch, Noise const& noise, typename Model::Objective::Options const& objective) {
  int layers = 0;
  for (int i = 0; i < Model::shape.depth; ++i) layers += noise.skips(i) ? 0 : 1;
  Flops cost = Cost<Model>::head(batch.masked, batch.rows - batch.masked, objective);
  for (auto const& lane : batch.lanes)
    for (std::size_t i = 1; i < lane.offsets.size(); ++i)
      cost += Cost<Model>::train(lane.offsets[i] - lane.offsets[i - 1], layers);
  return cost;
}

}  // namespace sotto::inline SOTTO_ABI
