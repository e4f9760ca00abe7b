// From what a user calls features to something that a probe can look at, and what the probe says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <sotto/core/parallel.hpp>
#include <sotto/data/source.hpp>
#include <sotto/probe/features.hpp>
#include <sotto/probe/word_result.hpp>

namespace program {

/// `logmel`, `untrained:NAME`, or a checkpoint: a file, or the directory of a run. seed: of untrained parameters.
std::unique_ptr<sotto::probe::FeatureExtractor> features_of(std::string const& name, std::uint64_t seed);

/// The words probe, compiled once for the commands that use it.
sotto::probe::ProbeResult probe_words(sotto::AnySource const& source, sotto::probe::FeatureExtractor const& features,
                                      sotto::Executor& executor, std::uint64_t seed);

}  // namespace program
