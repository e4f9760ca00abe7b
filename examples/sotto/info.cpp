// sotto info
#include <chrono>
#include <cmath>

#include <sotto/encoder/models.hpp>
#include <sotto/study/format.hpp>

#include "console.hpp"
#include "models.hpp"

namespace program {

namespace {

std::string as_json(ModelFacts const& model) {
  return JsonLine()
      .add("model", model.name)
      .add("width", model.shape.width)
      .add("depth", model.shape.depth)
      .add("heads", model.shape.heads)
      .add("feed_forward", model.shape.feed_forward)
      .add("norm", model.pre_norm ? "pre" : "post")
      .add("parameters", std::uint64_t{model.parameters})
      .add("flops_per_audio_second", model.flops_per_second)
      .add("paper_flops_per_audio_second", model.paper_flops_per_second)
      .add("batch_rows", model.batch_rows)
      .add("slots", model.slots)
      .add("threads", model.threads)
      .add("parameter_bytes", std::uint64_t{model.parameter_bytes})
      .add("activation_bytes", std::uint64_t{model.activation_bytes})
      .str();
}

void explain(ModelFacts const& model, sotto::BatchOptions const& batch) {
  using sotto::format_duration;
  const int lane_rows = batch.lane_rows;
  const double crop_seconds = std::chrono::duration<double>(batch.crop).count();
  print(text("%s: %d layers of width %d, %d heads, feed-forward %d, %s-norm", model.name.c_str(), model.shape.depth,
             model.shape.width, model.shape.heads, model.shape.feed_forward, model.pre_norm ? "pre" : "post"));
  print(text("parameters                  %s", count_text(static_cast<double>(model.parameters)).c_str()));
  print(text("training, a second of audio %s with log-mel, heads included (crops of 15.6 s)",
             sotto::format_flops(model.flops_per_second).c_str()));
  print(text("  as the paper counts       %s with the waveform stack, no heads",
             sotto::format_flops(model.paper_flops_per_second).c_str()));
  print(text("memory of a run             %s for parameters, moments and the gradients of %d slots",
             bytes_text(static_cast<double>(model.parameter_bytes)).c_str(), model.slots));
  print(text("                            %s for the activations of %d threads (lanes of %d frames, crops of %.3g s)",
             bytes_text(static_cast<double>(model.activation_bytes)).c_str(), model.threads, lane_rows, crop_seconds));
  print(text("batch                       %d frames of 20 ms: %s of audio, %s", model.batch_rows,
             format_duration(model.batch_rows * .02).c_str(),
             sotto::format_flops(model.batch_rows * .02 * model.flops_per_second).c_str()));
  print();
  print("what a budget buys            log-mel audio     steps   waveform audio (paper's count)");
  for (int exponent = 12; exponent <= 18; ++exponent) {
    const double budget = std::pow(10., exponent);
    print(text("  %-26s %14s %9.0f   %14s", text("1e%d FLOP", exponent).c_str(),
               format_duration(budget / model.flops_per_second).c_str(),
               budget / (model.batch_rows * .02 * model.flops_per_second),
               format_duration(budget / model.paper_flops_per_second).c_str()));
  }
}

/// Bounds of a step on a GPU, operation by operation.
void bound(ModelFacts const& model, sotto::DeviceSheet const& sheet, bool json) {
  double seconds = 0, flops = 0, bytes = 0;
  int launches = 0;
  if (!json) {
    print(
        text("%s on %s: bounds of a training step on %d frames, from data sheets (%.0f TFLOP/s bf16, %.0f TFLOP/s "
             "fp32, %.2f TB/s)",
             model.name.c_str(), std::string(sheet.title).c_str(), model.batch_rows, sheet.tensor_flops / 1e12,
             sheet.float_flops / 1e12, sheet.bandwidth / 1e12));
    print("This is what arithmetic and memory allow, no measurement: kernels take longer.");
    print();
    print(text("%-50s %8s %10s %9s %9s  %s", "operation", "launches", "GFLOP", "MB", "ms", "bound by"));
  }
  for (auto const& operation : model.operations) {
    const double least = operation.seconds(sheet);
    const bool memory = operation.bytes / sheet.bandwidth >= least;
    if (json)
      print(JsonLine()
                .add("model", model.name)
                .add("device", std::string(sheet.name))
                .add("operation", std::string(operation.name))
                .add("launches", operation.launches)
                .add("flops", operation.flops)
                .add("bytes", operation.bytes)
                .add("bound_ms", least * 1e3)
                .str());
    else
      print(text("%-50s %8s %10.1f %9.1f %9.3f  %s", std::string(operation.name).c_str(),
                 operation.launches > 0 ? std::to_string(operation.launches).c_str() : "", operation.flops / 1e9,
                 operation.bytes / 1e6, least * 1e3, memory ? "memory" : "arithmetic"));
    seconds += least;
    flops += operation.flops;
    bytes += operation.bytes;
    launches += operation.launches;
  }
  if (json)
    print(JsonLine()
              .add("model", model.name)
              .add("device", std::string(sheet.name))
              .add("rows", model.batch_rows)
              .add("bound_ms", seconds * 1e3)
              .add("bound_frames_per_second", model.batch_rows / seconds)
              .str());
  else
    print(text("%-50s %8d %10.1f %9.1f %9.3f  %.2f million frames/s at most, %s of audio a second",
               "a step (launches: of layers and optimiser)", launches, flops / 1e9, bytes / 1e6, seconds * 1e3,
               model.batch_rows / seconds / 1e6, sotto::format_duration(model.batch_rows / seconds * .02).c_str()));
}

}  // namespace

int info(InfoRequest const& request) {
  if (!request.device.empty()) {
    if (request.model.empty())
      throw sotto::Error(sotto::ErrorCode::usage, "--device needs the name of a model: sotto info slim --device h100");
    auto const& sheet = sotto::device_sheet(request.device);
    bound(sotto::presets::All::visit(request.model, [&]<class S>() { return facts<S>(request); }), sheet, request.json);
    return budget_spent;
  }
  if (!request.model.empty()) {
    const auto model = sotto::presets::All::visit(request.model, [&]<class S>() { return facts<S>(request); });
    if (request.json)
      print(as_json(model));
    else
      explain(model, request.batch);
    return budget_spent;
  }
  if (!request.json)
    print(
        "model        layers  width  heads  feed-forward  parameters   FLOP a second of audio   audio for 1e13 FLOP    "
        "memory\n"
        "                                                             log-mel   paper's count");
  for (auto const name : sotto::presets::All::names()) {
    const auto model = sotto::presets::All::visit(name, [&]<class S>() { return facts<S>(request); });
    if (request.json) {
      print(as_json(model));
      continue;
    }
    print(text("%-12s %6d %6d %6d %13d %9.2f M %9.2fe9 %13.2fe9 %21s %9s", model.name.c_str(), model.shape.depth,
               model.shape.width, model.shape.heads, model.shape.feed_forward,
               static_cast<double>(model.parameters) / 1e6, model.flops_per_second / 1e9,
               model.paper_flops_per_second / 1e9, sotto::format_duration(1e13 / model.flops_per_second).c_str(),
               bytes_text(static_cast<double>(model.parameter_bytes + model.activation_bytes)).c_str()));
  }
  return budget_spent;
}

}  // namespace program
