// sotto demo: from nothing to a table in three minutes.
#include <array>
#include <system_error>

#include <sotto/core/error.hpp>
#include <sotto/study/format.hpp>

#include "features.hpp"
#include "report.hpp"
#include "run.hpp"

namespace program {

namespace {

// What two cores spend in about two minutes; probing takes the rest of three.
constexpr char const* demo_budget = "8e12flop";

/// The speech that comes with sotto: in the checkout this was built from, or where it was installed.
std::filesystem::path bundled_speech() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  for (auto const& place : std::array<std::filesystem::path, 2>{
           SOTTO_DEMO_SPEECH, program.parent_path().parent_path() / "share" / "sotto" / "data"})
    if (std::filesystem::exists(place / "manifest.tsv", error)) return place;
  throw sotto::Error(sotto::ErrorCode::file,
                     "the bundled speech is not where this program was built; name speech of your own with --data",
                     SOTTO_DEMO_SPEECH);
}

}  // namespace

int demo(DemoRequest const& request) {
  SignalWatch signals(true);
  PretrainRequest pretrain;
  pretrain.model = "tiny";
  pretrain.data = request.data.empty() ? bundled_speech() : request.data;
  pretrain.out = request.out.empty() ? "demo-run" : request.out;
  pretrain.budget = request.budget.empty() ? demo_budget : request.budget;
  pretrain.seed = request.seed;
  pretrain.threads = request.threads;
  pretrain.batch.rows = 1000;
  pretrain.precision = sotto::Precision::fp32;  // the same table on every machine
  pretrain.command = text("sotto pretrain --model tiny --batch-rows 1000 --seed %llu --budget ",
                          static_cast<unsigned long long>(pretrain.seed)) +
                     pretrain.budget + " --data '" + pretrain.data.string() + "' --out '" + pretrain.out.string() + "'";
  static_cast<void>(sotto::Budget::parse(pretrain.budget));
  std::error_code error;
  if (!request.out.empty() && std::filesystem::exists(pretrain.out / sotto::Checkpoint::file_name, error))
    throw sotto::Error(sotto::ErrorCode::usage, "a run is saved here already; choose another --out", pretrain.out);
  const auto corpus = sotto::Corpus::open(pretrain.data);
  const OutDirectory out(pretrain.out);
  sotto::ThreadPool threads(request.threads);
  describe_corpus(corpus);
  decode(corpus, threads, false, signals.token());
  const RunEnd end = run(pretrain, corpus, threads, signals);
  if (end.outcome == sotto::Outcome::diverged) throw Diverged{end.reason};
  if (end.outcome == sotto::Outcome::stopped) return stopped_by_signal;

  std::vector<ProbeRow> rows;
  std::vector<std::string> notes;
  print();
  try {
    const std::array<std::pair<char const*, std::string>, 3> compared{
        {{"log-mel", "logmel"},
         {"untrained encoder", "untrained:" + pretrain.model},
         {"pretrained encoder", end.checkpoint.string()}}};
    for (auto const& [name, features] : compared) {
      if (signals.token().stop_requested()) return stopped_by_signal;
      const auto extractor = features_of(features, pretrain.seed);
      rows.push_back({name, probe_words(sotto::AnySource(corpus), *extractor, threads, pretrain.seed),
                      features == end.checkpoint.string()});
      if (rows.size() == 1) {
        auto const& first = rows[0].result;
        print(text("words    %d words, a linear classifier; %d speakers to learn from, %d to choose by, %d never heard",
                   first.classes, first.train_speakers, first.validation_speakers, first.test_speakers));
        print();
        print("features              error    20 resampled frames        mean and deviation");
      }
      auto const& result = rows.back().result;
      print(text("%-20s %5.1f %%   %-26s %s", name, 100 * (1 - result.frames20.accuracy),
                 interval_text(result.frames20).c_str(), interval_text(result.mean_std).c_str()));
    }
    notes = rows[0].result.notes;
    notes.insert(notes.begin(),
                 "Accuracy in percent of the test speakers' words; in brackets, a 95 % interval that "
                 "resamples those speakers; error is of 20 frames. Pretraining heard the audio of all "
                 "splits but val, without labels.");
    print();
    for (auto const& note : notes) print(note);
  } catch (sotto::Error const& reason) {
    if (reason.code() != sotto::ErrorCode::data) throw;
    rows.clear();
    notes = {std::string("No words probe: ") + reason.what()};
    print(notes[0]);
  }
  const auto report = std::filesystem::absolute(pretrain.out / "report.html");
  write_report(report,
               "demo, " + pretrain.model + " within " + sotto::format_flops(static_cast<double>(end.spent.count)), end,
               rows, notes);
  print("report   " + report.string());
  return budget_spent;
}

}  // namespace program
