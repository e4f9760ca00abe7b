// sotto pretrain
#include <algorithm>

#include <sotto/backend/cpu/precision.hpp>
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

/// The precision that a run trains in, and why.
std::pair<sotto::Precision, std::string> chosen_precision(PretrainRequest const& request) {
  using sotto::Precision;
  if (request.precision) return {*request.precision, "as asked"};
  if (request.resume) {  // written before precisions were said: fp32
    std::string const* const found = sotto::Checkpoint::open(request.out).texts().find("run.precision");
    return {found != nullptr && *found == name(Precision::bf16) ? Precision::bf16 : Precision::fp32, "as before"};
  }
  if (request.gpu) return {Precision::bf16, "a GPU's faster one"};
  const sotto::PrecisionRates rates = sotto::measure_precisions();
  return {rates.faster(), text("a core multiplies at %.0f GFLOP/s in bf16, %.0f in fp32", rates.bf16, rates.fp32)};
}

int train(PretrainRequest const& asked, SignalWatch& signals) {
  check(asked);
  PretrainRequest request = asked;
  if (request.gpu) {
    const std::string gpu = expect_gpu(*request.gpu);
    if (!request.json) print(text("device   GPU %d, %s", *request.gpu, gpu.c_str()));
  }
  const auto [precision, why] = chosen_precision(request);
  request.precision = precision;
  if (!request.json) print(text("numbers  %s: %s", name(precision), why.c_str()));
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
