// report.html of a run: losses and accuracy against FLOPs, and what probes found.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <sotto/probe/word_result.hpp>

#include "models.hpp"

namespace program {

/// A row of the probe table.
struct ProbeRow {
  std::string features;
  sotto::probe::ProbeResult result;
  bool pretrained = false;
};

/// Throws Error(file) if it cannot be written.
void write_report(std::filesystem::path const& path, std::string const& title, RunEnd const& end,
                  std::vector<ProbeRow> const& probes, std::vector<std::string> const& notes = {});

/// "54.2 % (50.1 to 58.0)"
std::string interval_text(sotto::probe::WordScore const& score);

}  // namespace program
