// sotto pretrain
#include <algorithm>

#include <sotto/core/error.hpp>

#include "report.hpp"
#include "run.hpp"

namespace program {

namespace {

void check(PretrainRequest const& request) {
  static_cast<void>(sotto::Budget::parse(request.budget));
  sotto::presets::All::visit(request.model, []<class S>() {});
  const auto file = request.out / sotto::Checkpoint::file_name;
  std::error_code error;
  const bool begun = std::filesystem::exists(file, error);
  if (begun && !request.resume)
    throw sotto::Error(sotto::ErrorCode::usage,
                       "a run is saved here already; go on with --resume, or choose another --out", file);
  if (!begun && request.resume)
    throw sotto::Error(sotto::ErrorCode::usage,
                       "there is no checkpoint to go on from; leave out --resume to begin a run", file);
}

void print_end(RunEnd const& end) {
  const auto nothing = std::optional<double>();
  JsonLine line;
  line.add("event", "end").add("outcome", outcome_name(end.outcome)).add("step", end.step);
  line.add("flops", end.spent.count).add("loss", end.training ? std::optional(end.training->loss) : nothing);
  line.add("heldout_loss", end.held_out ? std::optional(end.held_out->loss) : nothing);
  line.add("masked_accuracy", end.training ? std::optional(end.training->masked_accuracy) : nothing);
  line.add("heldout_masked_accuracy", end.held_out ? std::optional(end.held_out->masked_accuracy) : nothing);
  line.add("audio_seconds", end.audio_seconds).add("seconds", end.seconds);
  if (!end.reason.empty()) line.add("reason", end.reason);
  print(line.add("checkpoint", end.checkpoint.string()).str());
}

/// The last line of a run that did not come to an outcome of training.
void print_failure(char const* outcome, std::string const& reason) {
  const auto nothing = std::optional<double>();
  JsonLine line;
  line.add("event", "end").add("outcome", outcome).add("step", nothing).add("flops", nothing).add("loss", nothing);
  line.add("heldout_loss", nothing).add("masked_accuracy", nothing).add("reason", reason).add("checkpoint", "");
  print(line.str());
}

int train(PretrainRequest const& request, SignalWatch& signals) {
  check(request);
  if (request.gpu) {
    const std::string name = expect_gpu(*request.gpu);
    if (!request.json)
      print(text("device   GPU %d, %s, in %s", *request.gpu, name.c_str(), request.wide ? "fp32" : "bf16"));
  }
  sotto::CorpusOptions limits;
  limits.memory = static_cast<std::size_t>(request.memory_gib * static_cast<double>(1ull << 30));
  const sotto::Corpus corpus = sotto::Corpus::open(request.data, limits);
  const OutDirectory out(request.out);
  sotto::ThreadPool threads(request.threads);
  if (!request.json) describe_corpus(corpus);
  decode(corpus, threads, request.json, signals.token());
  const RunEnd end = run(request, corpus, threads, signals);
  const auto report = request.out / "report.html";
  write_report(report, request.model + " on " + request.data.string(), end, {});
  if (request.json)
    print_end(end);
  else
    print("report   " + report.string());
  if (end.outcome == sotto::Outcome::diverged)
    throw Diverged{end.reason + (end.checkpoint.empty() ? std::string()
                                                        : "; the last good checkpoint is " + end.checkpoint.string())};
  return exit_code(end.outcome);
}

}  // namespace

int pretrain(PretrainRequest const& request) {
  SignalWatch signals(true);
  if (!request.json) return train(request, signals);
  try {
    return train(request, signals);
  } catch (StoppedEarly const&) {
    print_failure("stopped", "stopped before training began");
    throw;
  } catch (sotto::Error const& error) {
    print_failure("failed", error.what());
    throw;
  }
}

}  // namespace program
