// A pretraining run of the program: what it prints before, while and after it trains.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <sotto/core/parallel.hpp>
#include <sotto/data/corpus.hpp>

#include "commands.hpp"
#include "console.hpp"
#include "models.hpp"

namespace program {

/// Prints how many utterances, hours and speakers a corpus has, and what was left out of it.
void describe_corpus(sotto::Corpus const& corpus);
/// Decodes what fits in memory, showing how far it is. Throws StoppedEarly if the token asks for it.
void decode(sotto::Corpus const& corpus, sotto::Executor& executor, bool quiet, std::stop_token stop);
/// The directory of a run: made, this run's alone, cleared of what a killed one left half-written, and tried. Throws
/// Error(file).
class OutDirectory {
 public:
  explicit OutDirectory(std::filesystem::path const& directory);
  ~OutDirectory();
  OutDirectory(OutDirectory const&) = delete;
  OutDirectory& operator=(OutDirectory const&) = delete;

 private:
  int descriptor_ = -1;  // locked while it is open
};

/// Prints the model and the budget, trains, shows progress, prints how it ended.
RunEnd run(PretrainRequest const& request, sotto::Corpus const& corpus, sotto::Executor& executor,
           SignalWatch& signals);

ExitCode exit_code(sotto::Outcome outcome);
char const* outcome_name(sotto::Outcome outcome);

}  // namespace program
