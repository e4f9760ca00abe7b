// Speakers of a probe dealt into training, validation and test, so that no voice is on two sides.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/philox.hpp>

namespace sotto::probe::detail::inline SOTTO_ABI {

enum class Part { train, validation, test, none };

/// A manifest's word for a part; none if it is empty or unknown.
inline Part part_of(std::string_view split) {
  if (split == "train") return Part::train;
  if (split == "val" || split == "valid" || split == "validation" || split == "dev") return Part::validation;
  if (split == "test") return Part::test;
  return Part::none;
}

struct SpeakerSplit {
  std::map<std::string, Part, std::less<>> part;  ///< of every speaker
  std::vector<std::string> notes;                 ///< what was decided here rather than by the manifest
};

/// Moves `share` of the speakers (at least one, and never all) from one part to another.
inline int move_share(std::vector<std::string> const& order, SpeakerSplit& split, Part from, Part to, double share) {
  const auto held =
      std::count_if(order.begin(), order.end(), [&](auto const& name) { return split.part[name] == from; });
  int left = std::min(static_cast<int>(held) - 1,
                      std::max(1, static_cast<int>(std::lround(share * static_cast<double>(held)))));
  int moved = 0;
  for (auto const& name : order)
    if (moved < left && split.part[name] == from) {
      split.part[name] = to;
      ++moved;
    }
  return moved;
}

/// The part of each speaker. `seen` gives the parts that the manifest names for a speaker's
/// utterances (a bit each). Speakers it leaves out or puts in several parts are dealt out in an
/// order that depends on the seed alone: 15 % to test and to validation, the rest to training. A
/// part that is still empty then gets 15 % of the training speakers.
inline SpeakerSplit split_speakers(std::map<std::string, unsigned, std::less<>> const& seen, std::uint64_t seed) {
  SpeakerSplit split;
  std::vector<std::string> order;
  for (auto const& [name, parts] : seen) order.push_back(name);
  {
    const Permutation permutation(order.size(), seed, Purpose::probe);
    std::vector<std::string> shuffled(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) shuffled[static_cast<std::size_t>(permutation(i))] = order[i];
    order = std::move(shuffled);
  }
  std::vector<std::string> open;
  int several = 0;
  for (auto const& name : order) {
    const unsigned parts = seen.find(name)->second;
    split.part[name] = parts == 1u   ? Part::train
                       : parts == 2u ? Part::validation
                       : parts == 4u ? Part::test
                                     : Part::none;
    if (split.part[name] != Part::none) continue;
    several += parts != 0;
    open.push_back(name);
  }
  if (!open.empty()) {
    const auto dealt = [&](double share) {
      return static_cast<std::size_t>(std::lround(share * static_cast<double>(open.size())));
    };
    const std::size_t test = dealt(.15), validation = dealt(.15);
    for (std::size_t i = 0; i < open.size(); ++i)
      split.part[open[i]] = i < test ? Part::test : i < test + validation ? Part::validation : Part::train;
    split.notes.push_back(several == 0 ? "the manifest gives no split for " + std::to_string(open.size()) +
                                             " speakers; they were dealt out 70/15/15 by speaker"
                                       : std::to_string(open.size()) +
                                             " speakers have no split or are in several; they were dealt "
                                             "out 70/15/15, so that "
                                             "no speaker is on two sides");
  }
  const auto has = [&](Part part) {
    return std::any_of(split.part.begin(), split.part.end(), [&](auto const& entry) { return entry.second == part; });
  };
  for (const Part part : {Part::test, Part::validation}) {
    if (has(part)) continue;
    if (const int moved = move_share(order, split, Part::train, part, .15); moved > 0)
      split.notes.push_back(std::to_string(moved) + " training speaker" + (moved > 1 ? "s" : "") + " became " +
                            (part == Part::test ? "test" : "validation") + " speaker" + (moved > 1 ? "s" : "") +
                            ", since there were none");
  }
  return split;
}

}  // namespace sotto::probe::detail::inline SOTTO_ABI
