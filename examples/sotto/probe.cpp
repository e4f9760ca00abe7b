// sotto probe
#include <algorithm>
#include <filesystem>
#include <string_view>

#include <sotto/core/error.hpp>
#include <sotto/probe/log_mel_features.hpp>
#include <sotto/probe/word.hpp>

#include "features.hpp"
#include "run.hpp"

namespace program {

using sotto::Error;
using sotto::ErrorCode;

std::unique_ptr<sotto::probe::FeatureExtractor> features_of(std::string const& name, std::uint64_t seed) {
  constexpr std::string_view untrained = "untrained:";
  if (name == "logmel") return std::make_unique<sotto::probe::LogMelFeatures>();
  if (name.starts_with(untrained))
    return sotto::presets::All::visit(name.substr(untrained.size()),
                                      [&]<class S>() { return untrained_features<S>(seed); });
  std::error_code error;
  if (!std::filesystem::exists(name, error))
    throw Error(ErrorCode::file, "there is no such checkpoint; --features takes a checkpoint, logmel or untrained:NAME",
                name);
  const auto checkpoint = sotto::Checkpoint::open(name);
  return sotto::presets::All::visit_if([&]<class S>() { return is_model_of<S>(checkpoint); },
                                       [&]<class S>() { return checkpoint_features<S>(checkpoint); },
                                       [&] {
                                         throw Error(ErrorCode::checkpoint,
                                                     "the checkpoint is of no model that this program knows; probe it "
                                                     "from the program that made it",
                                                     checkpoint.path());
                                       });
}

sotto::probe::ProbeResult probe_words(sotto::AnySource const& source, sotto::probe::FeatureExtractor const& features,
                                      sotto::Executor& executor, std::uint64_t seed) {
  sotto::probe::WordOptions options;
  options.executor = &executor;
  options.seed = seed;
  return sotto::probe::words(source, features, options);
}

int probe(ProbeRequest const& request) {
  SignalWatch signals(false);
  if (request.task != "words") throw Error(ErrorCode::usage, "there is no task '" + request.task + "'; there is words");
  const auto extractor = features_of(request.features, request.seed);
  const auto corpus = sotto::Corpus::open(request.data);
  sotto::ThreadPool threads(request.threads);
  if (!request.json) {
    describe_corpus(corpus);
    decode(corpus, threads, false, signals.token());
  }
  const auto result = probe_words(sotto::AnySource(corpus), *extractor, threads, request.seed);
  if (request.json) {
    JsonLine line;
    line.add("task", request.task).add("features", request.features);
    line.add("accuracy", result.accuracy).add("low", result.low).add("high", result.high);
    line.add("layer", result.layer).add("layer_name", result.layer_name).add("ridge", result.ridge);
    line.add("validation_accuracy", result.validation).add("pooling", pooling_name(result.pooling));
    line.add("mean_std_accuracy", result.mean_std.accuracy).add("mean_std_low", result.mean_std.low);
    line.add("mean_std_high", result.mean_std.high).add("mean_std_layer", result.mean_std.layer);
    line.add("chance", result.chance).add("classes", result.classes);
    line.add("train_utterances", result.train_utterances).add("test_utterances", result.test_utterances);
    line.add("train_speakers", result.train_speakers).add("validation_speakers", result.validation_speakers);
    line.add("test_speakers", result.test_speakers);
    std::string layers;
    for (auto const& layer : result.layers) {
      JsonLine of_layer;
      of_layer.add("layer", layer.layer).add("pooling", pooling_name(layer.pooling)).add("ridge", layer.ridge);
      of_layer.add("validation_accuracy", layer.validation).add("accuracy", layer.test);
      layers += (layers.empty() ? "" : ", ") + of_layer.str();
    }
    print(line.raw("layers", "[" + layers + "]").str());
    return budget_spent;
  }
  print(text("words    %d words; training on %d speakers (%d utterances), choosing on %d (%d), testing on %d (%d)",
             result.classes, result.train_speakers, result.train_utterances, result.validation_speakers,
             result.validation_utterances, result.test_speakers, result.test_utterances));
  for (auto const& skipped : result.skipped)
    print(text("         left out %d utterances: ", skipped.utterances) + skipped.why);
  for (auto const& note : result.notes) print("note     " + note);
  print();
  print("accuracy on the test speakers    20 resampled frames   mean and deviation");
  const std::size_t layers = result.layers.size() / 2;
  for (std::size_t i = 0; i < layers; ++i)
    print(text("  %-30s %19.1f %% %18.1f %%", result.layers[i].layer_name.c_str(), 100 * result.layers[i].test,
               100 * result.layers[layers + i].test));
  print(text("  %-30s %19s   %18s", "chosen on validation speakers", result.frames20.layer_name.c_str(),
             result.mean_std.layer_name.c_str()));
  print();
  print(text("%s: %.1f %% of words (95 %% interval over speakers: %.1f to %.1f; chance %.1f)", request.features.c_str(),
             100 * result.accuracy, 100 * result.low, 100 * result.high, 100 * result.chance));
  return budget_spent;
}

}  // namespace program
