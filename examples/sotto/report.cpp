#include "report.hpp"

#include <sotto/study/format.hpp>
#include <sotto/study/report.hpp>

#include "console.hpp"
#include "run.hpp"

namespace program {

namespace {

sotto::study::Curve curve(std::string name, std::vector<sotto::History::Point> const& points,
                          double sotto::History::Point::*value) {
  sotto::study::Curve curve{std::move(name), {}, {}};
  for (auto const& point : points) {
    curve.x.push_back(point.flops);
    curve.y.push_back(point.*value);
  }
  return curve;
}

sotto::study::Chart against_flops(std::string title, std::string y_label, RunEnd const& end,
                                  double sotto::History::Point::*value, bool percent) {
  sotto::study::Chart chart;
  chart.title = std::move(title);
  chart.x_label = "model FLOPs spent";
  chart.x_unit = "FLOP";
  chart.y_label = std::move(y_label);
  chart.percent = percent;
  chart.curves.push_back(curve("training", end.history.training(), value));
  if (!end.history.held_out().empty())
    chart.curves.push_back(curve("held-out speakers", end.history.held_out(), value));
  return chart;
}

}  // namespace

std::string interval_text(sotto::probe::WordScore const& score) {
  return text("%.1f %% (%.1f to %.1f)", 100 * score.accuracy, 100 * score.low, 100 * score.high);
}

void write_report(std::filesystem::path const& path, std::string const& title, RunEnd const& end,
                  std::vector<ProbeRow> const& probes, std::vector<std::string> const& notes) {
  sotto::study::Report report("sotto: " + title, "Pretraining within a compute budget");
  std::vector<std::pair<std::string, std::string>> facts{
      {"outcome", end.outcome == sotto::Outcome::budget_spent ? "budget spent" : outcome_name(end.outcome)},
      {"steps", std::to_string(end.step)},
      {"spent", sotto::format_flops(static_cast<double>(end.spent.count))},
      {"audio seen", sotto::format_duration(end.audio_seconds)},
      {"time", sotto::format_duration(end.seconds)}};
  if (end.held_out) {
    facts.emplace_back("held-out loss", sotto::format_fixed(end.held_out->loss, 3));
    facts.emplace_back("held-out masked accuracy", sotto::format_percent(end.held_out->masked_accuracy));
  }
  report.facts(facts);
  if (!end.history.training().empty()) {
    report.chart(against_flops("Loss", "cross-entropy of masked frames", end, &sotto::History::Point::loss, false));
    report.chart(against_flops("Masked accuracy", "masked frames predicted", end,
                               &sotto::History::Point::masked_accuracy, true));
  }
  if (!probes.empty()) {
    auto const& first = probes.front().result;
    report.heading("Words");
    report.paragraph(
        text("How many of %d words a linear classifier recognises from %d speakers it never heard "
             "(%d utterances; chance %.1f %%).",
             first.classes, first.test_speakers, first.test_utterances, 100 * first.chance));
    sotto::study::IntervalChart chart;
    chart.title = "Words on 20 resampled frames";
    chart.x_label = "accuracy on test speakers, 95 % interval over speakers";
    std::vector<std::vector<std::string>> rows;
    for (auto const& row : probes) {
      auto const& score = row.result.frames20;
      chart.rows.push_back({row.features, score.accuracy, score.low, score.high, score.layer_name, row.pretrained});
      rows.push_back({row.features, interval_text(score), sotto::format_percent(1 - score.accuracy), score.layer_name,
                      interval_text(row.result.mean_std), row.result.mean_std.layer_name});
    }
    report.chart(chart);
    report.table({"features", "20 frames", "error", "layer", "mean and deviation", "layer"}, rows,
                 "Accuracy on test speakers; layer and regularisation chosen on validation speakers");
  }
  for (auto const& note : notes) report.paragraph(note);
  report.write(path);
}

}  // namespace program
