// sotto: pretrains speech encoders within a budget, and shows what they have learnt. This file reads the command
// line and nothing else: parsing it takes longer to compile than a model.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include <sotto/version.hpp>

#include "commands.hpp"
#include "console.hpp"

namespace {

char const* const exit_codes =
    "Exit codes: 0 the budget is spent (or there was nothing to train), 1 internal error, 2 usage,\n"
    "3 stopped by a signal, 4 data or file error, 5 diverged, 6 no usable device or memory.";

// As it can be pasted into a shell.
std::string command_line(int argc, char** argv) {
  std::string line;
  for (int i = 0; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789_-./=:,+@%") == std::string::npos;
    std::string quoted = word;
    if (!plain) {
      quoted = "'";
      for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      quoted += "'";
    }
    line += (i == 0 ? "" : " ") + quoted;
  }
  return line;
}

int run(int argc, char** argv) {
  CLI::App app{
      "sotto pretrains self-supervised speech encoders within a compute budget.\n"
      "Begin with `sotto demo`: three minutes, no data of your own needed.",
      "sotto"};
  app.set_version_flag("--version", std::to_string(SOTTO_VERSION_MAJOR) + "." + std::to_string(SOTTO_VERSION_MINOR) +
                                        "." + std::to_string(SOTTO_VERSION_PATCH));
  app.footer(std::string("Examples:\n"
                         "  sotto demo\n"
                         "  sotto info tiny\n"
                         "  sotto pretrain --model tiny --data speech/ --budget 1e13flop --out run\n"
                         "  sotto probe --task words --data speech/manifest.tsv --features run\n\n"
                         "`sotto COMMAND --help` explains a command and all of its options.\n") +
             exit_codes);
  app.require_subcommand(1);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // as scripts expect

  constexpr int most = std::numeric_limits<int>::max();
  const CLI::Range natural(0, most, "0 or more"), positive(1, most, "1 or more");

  const CLI::Validator seed(
      [](std::string& text) {
        std::uint64_t number = 0;
        const auto end = text.data() + text.size();
        const auto read = std::from_chars(text.data(), end, number);
        return read.ec == std::errc{} && read.ptr == end ? std::string() : "a seed is a whole number below 2^64";
      },
      "SEED");

  program::PretrainRequest pretrain;
  double crop = 15.6;
  long long save_every = pretrain.save_every.count();
  std::string exclude_split;
  auto* const p = app.add_subcommand("pretrain", "Train an encoder on speech, without labels, until a budget is spent");
  p->add_option("--model", pretrain.model, "Name of a model; `sotto info` lists them")->required();
  p->add_option("--data", pretrain.data, "A folder of audio files (a folder in it a speaker), or a manifest.tsv")
      ->required();
  std::string device = "cpu", precision = "auto";
  p->add_option("--device", device, "cpu, cuda or cuda:N, the GPU number N")->capture_default_str();
  p->add_option("--precision", precision,
                "Of activations and products: fp32, bf16, or auto: what is faster here, and is said")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
  p->add_option("--budget", pretrain.budget, "1e13flop, 200updates, 2h-audio or 10min-wall")->required();
  p->add_option("--out", pretrain.out, "Directory for checkpoint.safetensors and report.html")->required();
  p->add_flag("--resume", pretrain.resume, "Go on from the checkpoint in --out, to the bit as if never interrupted");
  p->add_flag("--json", pretrain.json, "One JSON object a line; the last has the outcome");
  p->add_option("--seed", pretrain.seed, "Of parameters, masks and the order of data")
      ->capture_default_str()
      ->check(seed);
  p->add_option("--threads", pretrain.threads, "0: all cores")->check(natural);
  p->add_option("--slots", pretrain.slots,
                "Gradient buffers; the same slots give the same bits on any threads. 0: as many as threads")
      ->check(natural);
  p->add_option("--memory", pretrain.memory_gib, "GiB of decoded audio kept")
      ->capture_default_str()
      ->check(CLI::Range(.001, 1e5, "above 0"));
  p->add_option("--save-every", save_every, "Seconds between checkpoints")->capture_default_str()->check(natural);
  p->add_option("--batch-rows", pretrain.batch.rows,
                "Frames of 20 ms a step. 0: 1500 for models narrower than 256, 8000 for others")
      ->check(natural);
  p->add_option("--lane-rows", pretrain.batch.lane_rows, "Frames that go through the network at once")
      ->capture_default_str()
      ->check(positive);
  p->add_option("--crop", crop, "Seconds of the longest piece of an utterance")
      ->capture_default_str()
      ->check(CLI::Range(.1, 600., "0.1 to 600"));
  p->add_option("--learning-rate", pretrain.optimizer.learning_rate, "The highest")->capture_default_str();
  p->add_option("--warmup", pretrain.optimizer.warmup, "Part of the budget in which the rate rises")
      ->capture_default_str();
  p->add_option("--weight-decay", pretrain.optimizer.weight_decay, "Decoupled, on weights")->capture_default_str();
  p->add_option("--clip", pretrain.optimizer.clip, "Largest norm of the gradient; 0: unclipped")->capture_default_str();
  p->add_option("--dropout", pretrain.encoder.dropout, "Probability, on the input and residual branches")
      ->capture_default_str();
  p->add_option("--layer-drop", pretrain.encoder.layer_drop, "Probability that a step skips a layer")
      ->capture_default_str();
  p->add_option("--mask-probability", pretrain.mask.probability, "Expected starts of masks times their length")
      ->capture_default_str();
  p->add_option("--mask-length", pretrain.mask.length, "Frames of a mask")->capture_default_str();
  p->add_option("--held-out-speakers", pretrain.held_out.speakers,
                "Part of the speakers held out beside those of the split val")
      ->capture_default_str();
  p->add_option("--held-out-every", pretrain.held_out.every, "Evaluate each time this part of the budget is spent")
      ->capture_default_str();
  p->add_option("--held-out-rows", pretrain.held_out.rows, "Frames evaluated at most")
      ->capture_default_str()
      ->check(positive);
  p->add_option("--exclude-split", exclude_split, "Leave this split of the manifest out of training too: test")
      ->check(CLI::IsMember({"test"}));
  p->footer(
      std::string("Example: ten minutes of training on a folder of recordings, then how to go on after Ctrl-C\n"
                  "  sotto pretrain --model tiny --data speech/ --budget 10min-wall --out run\n"
                  "  sotto pretrain --model tiny --data speech/ --budget 10min-wall --out run --resume\n\n"
                  "Ctrl-C or SIGTERM finishes the step, saves and says how to go on; a second one ends at once.\n") +
      exit_codes);

  program::ProbeRequest probe;
  auto* const q =
      app.add_subcommand("probe", "Measure what features know: how well a linear classifier tells words apart");
  q->add_option("--task", probe.task, "words")->capture_default_str();
  q->add_option("--data", probe.data, "A manifest with labels and speakers (and splits, if it has them)")->required();
  q->add_option("--features", probe.features, "A checkpoint or the directory of a run, logmel, or untrained:NAME")
      ->required();
  q->add_option("--seed", probe.seed, "Of untrained parameters, and of what chance decides in the probe")
      ->capture_default_str()
      ->check(seed);
  q->add_option("--threads", probe.threads, "0: all cores")->check(natural);
  q->add_flag("--json", probe.json, "One JSON object: accuracy, low, high, layer and more");
  q->footer(
      std::string("The classifier learns on training speakers, layer and regularisation are chosen on validation\n"
                  "speakers, and the accuracy is of test speakers. Compare it with logmel and untrained:NAME.\n"
                  "Example:\n"
                  "  sotto probe --task words --data speech/manifest.tsv --features run\n") +
      exit_codes);

  program::InfoRequest info;
  auto* const i = app.add_subcommand("info", "Shape, price and memory of a model; without a name, a table of all");
  i->add_option("model", info.model, "Name of a model");
  i->add_option("--device", info.device, "Bounds of a training step on a GPU: h100, a100, rtx4090 or l4");
  i->add_flag("--json", info.json, "One JSON object a model");
  i->add_option("--batch-rows", info.batch.rows, "Frames of 20 ms a step; 0: the model's default")->check(natural);
  i->add_option("--lane-rows", info.batch.lane_rows, "Frames that go through the network at once")
      ->capture_default_str()
      ->check(positive);
  i->add_option("--slots", info.slots, "Gradient buffers; 0: as many as threads")->check(natural);
  i->add_option("--threads", info.threads, "0: all cores")->check(natural);
  i->footer("Example: what 1e15 FLOP buy\n  sotto info slim");

  program::DemoRequest demo;
  auto* const d =
      app.add_subcommand("demo", "Pretrain a tiny encoder on bundled speech and show what it learnt, in three minutes");
  d->add_option("--data", demo.data, "Your own speech instead: a folder, or a manifest.tsv");
  d->add_option("--budget", demo.budget, "1e13flop, 200updates, 2h-audio or 10min-wall");
  d->add_option("--out", demo.out, "Directory for the checkpoint and report.html (default: demo-run)");
  d->add_option("--seed", demo.seed, "Of everything that is random")->capture_default_str()->check(seed);
  d->add_option("--threads", demo.threads, "0: all cores")->check(natural);
  d->footer(std::string("Example:\n  sotto demo --data speech/manifest.tsv --budget 2e13flop\n\n") + exit_codes);

  const std::string_view command = argc > 1 ? argv[1] : "-";
  constexpr std::array<std::string_view, 4> commands{"pretrain", "probe", "info", "demo"};
  if (!command.starts_with('-') && std::find(commands.begin(), commands.end(), command) == commands.end()) {
    std::fprintf(stderr, "sotto: there is no command '%s': pretrain, probe, info or demo; see `sotto --help`\n",
                 argv[1]);
    return program::usage_error;
  }
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const& help) {
    const int code = app.exit(help);
    program::check_output();
    return code;
  } catch (CLI::CallForVersion const& version) {
    return app.exit(version);
  } catch (CLI::ParseError const& error) {
    auto const chosen = app.get_subcommands();
    std::fprintf(stderr, "sotto: %s; see `sotto %s--help`\n", error.what(),
                 chosen.empty() ? "" : (chosen.front()->get_name() + " ").c_str());
    return program::usage_error;
  }
  pretrain.command = command_line(argc, argv);
  pretrain.batch.crop = std::chrono::milliseconds(std::lround(crop * 1000));
  pretrain.save_every = std::chrono::seconds(save_every);
  pretrain.exclude_test_split = !exclude_split.empty();
  if (precision != "auto") pretrain.precision = precision == "bf16" ? sotto::Precision::bf16 : sotto::Precision::fp32;
  if (device != "cpu") {
    int number = 0;
    const std::string_view digits = device.size() > 5 ? std::string_view(device).substr(5) : "0";
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (!(device == "cuda" || device.starts_with("cuda:")) || device == "cuda:" || read.ec != std::errc{} ||
        read.ptr != digits.data() + digits.size() || number < 0) {
      std::fprintf(stderr, "sotto: --device is cpu, cuda or cuda:N, not '%s'; see `sotto pretrain --help`\n",
                   device.c_str());
      return program::usage_error;
    }
    pretrain.gpu = number;
  }
  if (p->parsed()) return program::guarded<program::PretrainRequest, program::pretrain>(pretrain);
  if (q->parsed()) return program::guarded<program::ProbeRequest, program::probe>(probe);
  if (i->parsed()) return program::guarded<program::InfoRequest, program::info>(info);
  return program::guarded<program::DemoRequest, program::demo>(demo);
}

}  // namespace

int main(int argc, char** argv) {
  program::prepare_streams();
  struct Arguments {
    int argc;
    char** argv;
  } arguments{argc, argv};
  return program::guarded(
      [](void const* a) {
        auto const& given = *static_cast<Arguments const*>(a);
        return run(given.argc, given.argv);
      },
      &arguments);
}
