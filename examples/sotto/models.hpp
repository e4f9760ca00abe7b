// What the program needs of a model. The bodies are in model_bodies.hpp and are instantiated for every preset in
// models_*.cpp, so that sixteen models compile in parts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include <sotto/budget/device_bound.hpp>
#include <sotto/budget/units.hpp>
#include <sotto/core/parallel.hpp>
#include <sotto/data/source.hpp>
#include <sotto/encoder/models.hpp>
#include <sotto/probe/features.hpp>
#include <sotto/train/checkpoint.hpp>
#include <sotto/train/history.hpp>
#include <sotto/train/step.hpp>

#include "commands.hpp"

namespace program {

/// What is known of a model without data.
struct ModelFacts {
  std::string name;
  sotto::EncoderShape shape;
  bool pre_norm = false;
  std::size_t parameters = 0;
  double flops_per_second = 0;        ///< of audio, to train on it with log-mel, in crops of 15.6 s
  double paper_flops_per_second = 0;  ///< with the waveform stack, in the paper's convention
  int batch_rows = 0;                 ///< 20 ms frames a step
  int slots = 0, threads = 0;
  std::size_t parameter_bytes = 0;                 ///< values, moments, gradients of each slot, working copies
  std::size_t activation_bytes = 0;                ///< of the lanes that are computed at once
  std::vector<sotto::DeviceOperation> operations;  ///< of a training step on a GPU, where they were asked for
};

/// What a run tells before its first step.
struct RunStart {
  std::size_t train = 0, held_out = 0;  ///< utterances
  double held_out_seconds = 0;          ///< of audio, evaluated
  sotto::Flops labels{}, budget{};      ///< budget 0: not counted in FLOPs
  std::uint64_t step = 0;               ///< done by the run that is resumed
  sotto::Flops next_step{};
  double next_step_seconds = 0;  ///< of audio
  int slots = 0;
  sotto::Precision precision{};
};

/// Who watches a run.
struct RunWatch {
  std::function<void(sotto::Preparation const&)> on_preparation;
  std::function<void(RunStart const&)> on_start;
  std::function<void(sotto::Step const&)> on_step;
  std::stop_token stop;
  sotto::Executor* executor = nullptr;
};

/// How a run ended.
struct RunEnd {
  sotto::Outcome outcome{};
  std::string reason;
  std::uint64_t step = 0;
  sotto::Flops spent{};
  double seconds = 0, audio_seconds = 0;
  std::optional<sotto::History::Point> training, held_out;  ///< the last of each
  sotto::History history;
  std::filesystem::path checkpoint;
};

template <class Model> ModelFacts facts(InfoRequest const& request);
template <class Model> RunEnd train(PretrainRequest const& request, sotto::AnySource source, RunWatch const& watch);
template <class Model> std::unique_ptr<sotto::probe::FeatureExtractor> untrained_features(std::uint64_t seed);
template <class Model>
std::unique_ptr<sotto::probe::FeatureExtractor> checkpoint_features(sotto::Checkpoint const& checkpoint);
/// Trains on request.gpu. Error(device) in a program that was built without CUDA, or on a machine without a GPU.
RunEnd train_on_gpu(PretrainRequest const& request, sotto::AnySource source, RunWatch const& watch);
/// The same errors, before anything is read; else its name.
std::string expect_gpu(int number);
template <class Model> bool is_model_of(sotto::Checkpoint const& checkpoint);

}  // namespace program
