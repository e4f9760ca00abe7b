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

}  // namespace

int info(InfoRequest const& request) {
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
