// The bodies of models.hpp: everything that is compiled anew for each model.
#pragma once

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include <sotto/budget/cost.hpp>
#include <sotto/probe/encoder_features.hpp>
#include <sotto/train/pretrainer.hpp>

#include "models.hpp"
#include "train_body.hpp"

// Everything that the program needs of a preset.
#define PROGRAM_MODEL(Model)                                                                                  \
  template program::ModelFacts program::facts<Model>(program::InfoRequest const&);                            \
  template program::RunEnd program::train<Model>(program::PretrainRequest const&, sotto::AnySource,           \
                                                 program::RunWatch const&);                                   \
  template std::unique_ptr<sotto::probe::FeatureExtractor> program::untrained_features<Model>(std::uint64_t); \
  template std::unique_ptr<sotto::probe::FeatureExtractor> program::checkpoint_features<Model>(               \
      sotto::Checkpoint const&);                                                                              \
  template bool program::is_model_of<Model>(sotto::Checkpoint const&)

namespace program {

template <class Model> ModelFacts facts(InfoRequest const& request) {
  using namespace std::chrono_literals;
  using Engine = sotto::Engine<Model, sotto::Cpu<float>>;
  ModelFacts facts;
  facts.name = Model::name;
  facts.shape = Model::shape.resolved();
  facts.pre_norm = std::is_same_v<typename Model::Norm, sotto::norm::Pre>;
  facts.parameters = sotto::parameter_count<Model>;
  facts.flops_per_second = static_cast<double>(sotto::training_cost<Model>(1h).count) / 3600;
  facts.paper_flops_per_second = static_cast<double>(sotto::paper_cost(Model::shape, 249'600).count) / 15.6;
  facts.batch_rows = request.batch.rows > 0 ? request.batch.rows : default_rows<Model>;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  facts.threads = request.threads > 0 ? request.threads : cores;
  facts.slots = request.slots > 0 ? request.slots : facts.threads;
  const int longest = Model::Frontend::frames(request.batch.crop.count() * 16);
  const sotto::LanePacking packing(request.batch.lane_rows, facts.slots);
  const sotto::Capacity capacity{packing.most_rows(facts.batch_rows, longest), longest};
  const int workers = std::min(facts.slots, facts.threads);
  facts.activation_bytes = static_cast<std::size_t>(workers) * Engine::Net::activation_bytes(capacity);
  facts.parameter_bytes = Engine::bytes(capacity, facts.slots, workers) - facts.activation_bytes;
  if (!request.device.empty()) facts.operations = sotto::device_operations<Model>(facts.batch_rows, longest);
  return facts;
}

template <class Model> RunEnd train(PretrainRequest const& request, sotto::AnySource source, RunWatch const& watch) {
  return request.precision == sotto::Precision::bf16
             ? train_on<Model, sotto::Cpu<sotto::bf16>>(request, std::move(source), watch)
             : train_on<Model, sotto::Cpu<float>>(request, std::move(source), watch);
}

template <class Model> std::unique_ptr<sotto::probe::FeatureExtractor> untrained_features(std::uint64_t seed) {
  return std::make_unique<sotto::probe::EncoderFeatures<Model>>(sotto::probe::EncoderFeatures<Model>::untrained(seed));
}

template <class Model>
std::unique_ptr<sotto::probe::FeatureExtractor> checkpoint_features(sotto::Checkpoint const& checkpoint) {
  return std::make_unique<sotto::probe::EncoderFeatures<Model>>(
      sotto::probe::EncoderFeatures<Model>::pretrained(checkpoint));
}

template <class Model> bool is_model_of(sotto::Checkpoint const& checkpoint) {
  return checkpoint.matches(sotto::spec_fields<Model>());
}

}  // namespace program
