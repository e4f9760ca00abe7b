// What the program can be asked, and the functions that do it. main.cpp fills these in from the command line.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <sotto/core/bf16.hpp>
#include <sotto/nn/noise.hpp>
#include <sotto/objective/masking.hpp>
#include <sotto/optim/schedule.hpp>
#include <sotto/train/options.hpp>

namespace program {

/// Scripts rely on these.
enum ExitCode {
  budget_spent = 0,
  internal_error = 1,
  usage_error = 2,
  stopped_by_signal = 3,
  data_or_file_error = 4,
  diverged = 5,
  no_device = 6
};

struct PretrainRequest {
  std::string model;
  std::filesystem::path data, out;
  std::string budget;
  std::string command;  ///< as it was typed, to say how to go on
  std::uint64_t seed = 1;
  int threads = 0, slots = 0;
  bool resume = false, json = false, exclude_test_split = false;
  double memory_gib = 2;                 ///< of decoded audio
  sotto::BatchOptions batch{.rows = 0};  ///< rows 0: the model's own default
  sotto::EncoderOptions encoder{};
  sotto::MaskOptions mask{};
  sotto::OptimizerOptions optimizer{};
  sotto::HeldOutOptions held_out{};
  std::chrono::seconds save_every{300};
  std::optional<int> gpu;                     ///< which GPU trains; none: the processor
  std::optional<sotto::Precision> precision;  ///< none: the faster one, or that of the run which is resumed
};

struct ProbeRequest {
  std::string task = "words", features;
  std::filesystem::path data;
  std::uint64_t seed = 1;
  int threads = 0;
  bool json = false;
};

struct InfoRequest {
  std::string model;   ///< empty: a table of all
  std::string device;  ///< whose bounds are shown; empty: none
  bool json = false;
  int slots = 0, threads = 0;
  sotto::BatchOptions batch{.rows = 0};
};

struct DemoRequest {
  std::filesystem::path data, out;  ///< empty: the bundled speech, demo-run
  std::string budget;               ///< empty: the demo's own
  std::uint64_t seed = 1;
  int threads = 0;
};

int pretrain(PretrainRequest const& request);
int probe(ProbeRequest const& request);
int info(InfoRequest const& request);
int demo(DemoRequest const& request);

}  // namespace program
