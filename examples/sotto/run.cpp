#include "run.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <set>
#include <system_error>

#include <sotto/budget/units.hpp>
#include <sotto/core/error.hpp>
#include <sotto/progress/terminal.hpp>
#include <sotto/study/format.hpp>

namespace program {

using sotto::Error;
using sotto::ErrorCode;
using sotto::format_duration;

namespace {

ModelFacts facts_of(PretrainRequest const& request, int threads) {
  InfoRequest asked;
  asked.batch = request.batch;
  asked.slots = request.slots;
  asked.threads = threads;
  return sotto::presets::All::visit(request.model, [&]<class S>() { return facts<S>(asked); });
}

void describe_model(ModelFacts const& model) {
  print(text(
      "model    %s: %d layers of width %d, %d heads, feed-forward %d, %s-norm; %s parameters; %s a second of audio",
      model.name.c_str(), model.shape.depth, model.shape.width, model.shape.heads, model.shape.feed_forward,
      model.pre_norm ? "pre" : "post", count_text(static_cast<double>(model.parameters)).c_str(),
      sotto::format_flops(model.flops_per_second).c_str()));
  print(text("memory   %s for parameters and %d gradients, %s for activations of %d threads; batches of %d frames (%s)",
             bytes_text(static_cast<double>(model.parameter_bytes)).c_str(), model.slots,
             bytes_text(static_cast<double>(model.activation_bytes)).c_str(), model.threads, model.batch_rows,
             format_duration(model.batch_rows * .02).c_str()));
}

std::string budget_text(sotto::Budget const& budget) {
  const double amount = budget.amount();
  switch (budget.kind()) {
    case sotto::Budget::Kind::flops:
      return sotto::format_flops(amount);
    case sotto::Budget::Kind::updates:
      return text("%.0f updates", amount);
    case sotto::Budget::Kind::audio:
      return format_duration(amount) + " of audio";
    case sotto::Budget::Kind::wall:
      return format_duration(amount) + " of wall clock";
  }
  return {};
}

/// What the whole run will be, if all its steps are like the next.
std::string price_text(sotto::Budget const& budget, RunStart const& start) {
  const double step = static_cast<double>(start.next_step.count), labels = static_cast<double>(start.labels.count);
  double steps = budget.amount();
  if (budget.kind() == sotto::Budget::Kind::audio)
    steps = budget.amount() / start.next_step_seconds;
  else if (budget.kind() != sotto::Budget::Kind::updates)
    steps = (static_cast<double>(start.budget.count) - labels) / step;
  return text("labels %s, a step %s: in all about %.0f steps, %s, %s of audio", sotto::format_flops(labels).c_str(),
              sotto::format_flops(step).c_str(), steps, sotto::format_flops(labels + steps * step).c_str(),
              format_duration(steps * start.next_step_seconds).c_str());
}

char const* phase_name(sotto::Preparation::Phase phase) {
  switch (phase) {
    case sotto::Preparation::Phase::clusters:
      return "learning clusters of MFCC frames";
    case sotto::Preparation::Phase::labels:
      return "labelling frames";
    case sotto::Preparation::Phase::calibration:
      return "measuring the speed";
  }
  return "";
}

/// A line for each step that a reader of the file would miss: every 2 % or 10 s, and all held-out losses.
class JsonProgress {
 public:
  void step(sotto::Step const& step) {
    if (step.held_out) held_out_ = step.held_out;
    if (!step.held_out && step.warning.empty() && step.fraction < shown_fraction_ + .02 &&
        step.seconds < shown_seconds_ + 10)
      return;
    shown_fraction_ = step.fraction;
    shown_seconds_ = step.seconds;
    JsonLine line;
    line.add("event", "step").add("step", step.step).add("flops", step.spent.count).add("spent", step.fraction);
    line.add("loss", step.loss).add("masked_accuracy", step.masked_accuracy);
    line.add("heldout_loss", held_out_ ? std::optional(held_out_->loss) : std::nullopt);
    line.add("heldout_masked_accuracy", held_out_ ? std::optional(held_out_->masked_accuracy) : std::nullopt);
    line.add("code_perplexity", step.code_perplexity).add("target_perplexity", step.target_perplexity);
    line.add("learning_rate", step.learning_rate).add("gradient_norm", step.gradient_norm);
    line.add("audio_seconds", step.audio_seconds).add("seconds", step.seconds);
    line.add("waited_seconds", step.waited_seconds).add("gflops", step.gflops);
    line.add("times_real_time", step.times_real_time).add("left_seconds", step.left_seconds);
    if (!step.warning.empty()) line.add("warning", step.warning);
    print(line.str());
  }

 private:
  std::optional<sotto::HeldOut> held_out_;
  double shown_fraction_ = -1, shown_seconds_ = 0;
};

std::string resume_command(PretrainRequest const& request) {
  return request.command + (request.resume ? "" : " --resume");
}

}  // namespace

ExitCode exit_code(sotto::Outcome outcome) {
  switch (outcome) {
    case sotto::Outcome::budget_spent:
      return budget_spent;
    case sotto::Outcome::stopped:
      return stopped_by_signal;
    case sotto::Outcome::diverged:
      return diverged;
  }
  return internal_error;
}

char const* outcome_name(sotto::Outcome outcome) {
  switch (outcome) {
    case sotto::Outcome::budget_spent:
      return "budget_spent";
    case sotto::Outcome::stopped:
      return "stopped";
    case sotto::Outcome::diverged:
      return "diverged";
  }
  return "";
}

void describe_corpus(sotto::Corpus const& corpus) {
  std::set<std::string_view> speakers;
  for (std::size_t i = 0; i < corpus.size(); ++i) speakers.insert(corpus.speaker(i));
  speakers.erase(std::string_view{});
  const std::size_t left_out = corpus.skipped().size();
  print(text("speech   %zu utterances, %s, %s%s", corpus.size(),
             format_duration(static_cast<double>(corpus.total_samples()) / sotto::Corpus::rate).c_str(),
             speakers.empty() ? "speakers unknown" : text("%zu speakers", speakers.size()).c_str(),
             left_out == 0 ? "" : text("; %zu left out", left_out).c_str()));
  constexpr std::size_t shown = 5;
  for (std::size_t i = 0; i < std::min(shown, left_out); ++i)
    print("         left out " + corpus.skipped()[i].path.string() + ": " + corpus.skipped()[i].reason);
  if (left_out > shown) print(text("         and %zu more", left_out - shown));
}

void decode(sotto::Corpus const& corpus, sotto::Executor& executor, bool quiet, std::stop_token stop) {
  sotto::progress::Terminal terminal(stdout);
  if (!quiet) terminal.phase("decoding", 0);
  corpus.preload(executor, [&](std::int64_t done, std::int64_t total) {
    if (stop.stop_requested()) throw StoppedEarly{};
    if (!quiet && done < total) terminal.phase("decoding", static_cast<double>(done) / static_cast<double>(total));
  });
  if (!quiet) terminal.phase("decoding", 1);
  check_output();
}

OutDirectory::OutDirectory(std::filesystem::path const& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    throw Error(ErrorCode::file, "this directory cannot be made (" + error.message() + "); choose another --out",
                directory);
  descriptor_ = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw Error(ErrorCode::file,
                "another run is writing into this directory; wait for its end, or choose another --out", directory);
  // What a killed run was writing is of no use.
  for (auto const& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().filename().string().starts_with(std::string(sotto::Checkpoint::file_name) + ".tmp"))
      std::filesystem::remove(entry.path(), error);
  const auto trial = directory / ".sotto-write-test";
  const bool written = std::ofstream(trial).put('\n').flush().good();
  std::filesystem::remove(trial, error);
  if (!written)
    throw Error(ErrorCode::file,
                "nothing can be written into this directory; choose another --out, or change its "
                "permissions",
                directory);
}
OutDirectory::~OutDirectory() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

RunEnd run(PretrainRequest const& request, sotto::Corpus const& corpus, sotto::Executor& executor,
           SignalWatch& signals) {
  const sotto::Budget budget = sotto::Budget::parse(request.budget);
  const ModelFacts model = facts_of(request, executor.concurrency());
  if (!request.json) {
    describe_model(model);
    print("budget   " + budget_text(budget));
  }
  sotto::progress::Terminal terminal(stdout);
  JsonProgress json;
  std::exception_ptr broken;  // the output: save, then say so
  RunWatch watch;
  watch.executor = &executor;
  watch.stop = signals.token();
  watch.on_preparation = [&](sotto::Preparation const& preparation) {
    if (signals.token().stop_requested()) throw StoppedEarly{};
    if (!request.json) terminal.phase(phase_name(preparation.phase), preparation.fraction);
  };
  watch.on_start = [&](RunStart const& start) {
    if (request.json) {
      print(JsonLine()
                .add("event", "start")
                .add("model", request.model)
                .add("parameters", std::uint64_t{model.parameters})
                .add("utterances", std::uint64_t{start.train})
                .add("heldout_utterances", std::uint64_t{start.held_out})
                .add("skipped_files", std::uint64_t{corpus.skipped().size()})
                .add("step", start.step)
                .add("label_flops", start.labels.count)
                .add("budget", request.budget)
                .add("budget_flops", start.budget.count)
                .add("slots", start.slots)
                .add("precision", name(start.precision))
                .str());
      return;
    }
    if (start.held_out == 0)
      print(text("held out nothing: no held-out loss will be shown; %zu utterances to train on", start.train));
    else
      print(text("held out %zu utterances, of which %s are evaluated; %zu to train on", start.held_out,
                 format_duration(start.held_out_seconds).c_str(), start.train));
    print("price    " + price_text(budget, start));
    if (start.step > 0) print(text("resumed  at step %llu", static_cast<unsigned long long>(start.step)));
  };
  std::optional<sotto::Step> last;
  watch.on_step = [&](sotto::Step const& step) {
    last = step;
    if (broken) return;
    try {
      if (request.json)
        json.step(step);
      else
        terminal.step(step);
      check_output();
    } catch (Error const&) {
      broken = std::current_exception();
      signals.request_stop();
    }
  };
  RunEnd end = request.gpu ? train_on_gpu(request, sotto::AnySource(corpus), watch)
                           : sotto::presets::All::visit(request.model, [&]<class S>() {
                               return train<S>(request, sotto::AnySource(corpus), watch);
                             });
  terminal.close();
  if (last)
    end.training = {
        {static_cast<double>(last->spent.count), static_cast<double>(last->step), last->loss, last->masked_accuracy}};
  if (broken) {
    try {
      std::rethrow_exception(broken);
    } catch (Error const& error) {
      throw Error(error.code(), std::string(error.what()) +
                                    text("; the run was saved at step %llu, go on with: ",
                                         static_cast<unsigned long long>(end.step)) +
                                    resume_command(request));
    }
  }
  if (request.json) return end;
  const std::string done = text("%llu steps, %s, %s of audio, %s", static_cast<unsigned long long>(end.step),
                                sotto::format_flops(static_cast<double>(end.spent.count)).c_str(),
                                format_duration(end.audio_seconds).c_str(), format_duration(end.seconds).c_str());
  switch (end.outcome) {
    case sotto::Outcome::budget_spent:
      print("done     " + (end.reason.empty() ? std::string("the budget is spent") : end.reason) + ": " + done);
      break;
    case sotto::Outcome::stopped:
      print("stopped  after " + done);
      break;
    case sotto::Outcome::diverged:
      print("diverged after " + done);
      break;
  }
  if (end.training)
    print(text("loss     %.3f, masked accuracy %.1f %%%s", end.training->loss, 100 * end.training->masked_accuracy,
               end.held_out
                   ? text("; held out: %.3f, %.1f %%", end.held_out->loss, 100 * end.held_out->masked_accuracy).c_str()
                   : ""));
  if (!end.checkpoint.empty()) print("saved    " + end.checkpoint.string());
  if (end.outcome == sotto::Outcome::stopped) print("go on    " + resume_command(request));
  return end;
}

}  // namespace program
