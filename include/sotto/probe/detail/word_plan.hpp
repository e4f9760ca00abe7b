// Which utterances take part in the words probe, and on which side.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>
#include <sotto/data/source.hpp>
#include <sotto/probe/detail/speaker_split.hpp>
#include <sotto/probe/word_result.hpp>

namespace sotto::probe::detail::inline SOTTO_ABI {

// An utterance of the probe.
struct WordItem {
  std::size_t index;
  int label;
  int speaker;
  Part part;
  char const* trouble = nullptr;
};

// Everything known before any sound is read.
struct WordPlan {
  std::vector<WordItem> items;  // training, validation, test, in this order
  std::vector<std::string> classes, speakers;
  std::array<int, 3> utterances{};
  std::vector<int> truth;  // [items] label

  // Drops items with trouble and counts the rest; says what is missing for a probe.
  void settle(ProbeResult& result);
};

inline void skip(ProbeResult& result, std::string const& why) {
  for (auto& entry : result.skipped)
    if (entry.why == why) return void(++entry.utterances);
  result.skipped.push_back({why, 1});
}

inline void WordPlan::settle(ProbeResult& result) {
  std::erase_if(items, [&](WordItem const& item) {
    if (item.trouble) skip(result, item.trouble);
    return item.trouble != nullptr;
  });
  utterances = {};
  truth.clear();
  std::array<std::vector<char>, 3> heard;
  heard.fill(std::vector<char>(speakers.size(), 0));
  std::vector<int> examples(classes.size(), 0);
  for (auto const& item : items) {
    const auto part = static_cast<std::size_t>(item.part);
    ++utterances[part];
    heard[part][static_cast<std::size_t>(item.speaker)] = 1;
    if (item.part == Part::train) ++examples[static_cast<std::size_t>(item.label)];
    truth.push_back(item.label);
  }
  constexpr char const* names[] = {"train", "val", "test"};
  for (std::size_t part = 0; part < 3; ++part)
    if (utterances[part] == 0)
      throw_error(ErrorCode::data, {"words probe: no usable utterance is left in the split ", names[part],
                                    "; give some speakers this split, or leave the column `split` empty"});
  std::vector<char> wanted(classes.size(), 0);
  for (auto const& item : items) wanted[static_cast<std::size_t>(item.label)] = 1;
  int absent = 0;
  std::string first;
  for (std::size_t c = 0; c < classes.size(); ++c)
    if (wanted[c] && examples[c] == 0) {
      if (absent++ == 0) first = classes[c];
    }
  if (absent > 0)
    throw_error(ErrorCode::data,
                {"words probe: ", absent, " of ", classes.size(), " words have no training example (the first is \"",
                 first, "\"); remove them or give training speakers that say them"});
  // Words whose every utterance was skipped: close the gap, since a class needs an example.
  std::vector<int> renumbered(classes.size(), -1);
  std::vector<std::string> kept;
  for (std::size_t c = 0; c < classes.size(); ++c)
    if (wanted[c]) {
      renumbered[c] = static_cast<int>(kept.size());
      kept.push_back(classes[c]);
    }
  classes = std::move(kept);
  for (auto& item : items) item.label = renumbered[static_cast<std::size_t>(item.label)];
  for (auto& label : truth) label = renumbered[static_cast<std::size_t>(label)];
  if (classes.size() < 2)
    throw_error(ErrorCode::data, {"words probe: all usable utterances are of one word (\"",
                                  classes.empty() ? "" : classes[0], "\"); at least two are needed"});
  const auto count = [](std::vector<char> const& set) {
    return static_cast<int>(std::count(set.begin(), set.end(), 1));
  };
  result.classes = static_cast<int>(classes.size());
  result.train_utterances = utterances[0];
  result.validation_utterances = utterances[1];
  result.test_utterances = utterances[2];
  result.train_speakers = count(heard[0]);
  result.validation_speakers = count(heard[1]);
  result.test_speakers = count(heard[2]);
}

inline WordPlan plan_words(AnySource const& source, WordOptions const& options, ProbeResult& result) {
  WordPlan plan;
  const auto size = static_cast<std::size_t>(source.size());
  std::map<std::string, unsigned, std::less<>> seen;  // speaker → parts the manifest names
  std::map<std::string, int, std::less<>> class_of, speaker_of;
  std::vector<std::size_t> usable;
  for (std::size_t i = 0; i < size; ++i) {
    const std::string label(source.label(i)), speaker(source.speaker(i));
    if (label.empty()) {
      skip(result, "no label");
      continue;
    }
    if (speaker.empty()) {
      skip(result, "no speaker");
      continue;
    }
    usable.push_back(i);
    const Part part = part_of(std::string(source.split(i)));
    seen[speaker] |= part == Part::none ? 0u : 1u << static_cast<unsigned>(part);
    class_of.emplace(label, 0);
    speaker_of.emplace(speaker, 0);
  }
  if (usable.empty())
    throw_error(ErrorCode::data, {size == 0 ? "words probe: there are no utterances"
                                            : "words probe: none of the " + std::to_string(size) +
                                                  " utterances has both a label and a speaker; give a manifest whose "
                                                  "columns `label` and `speaker` are filled"});
  if (class_of.size() < 2)
    throw_error(ErrorCode::data,
                {"words probe: all labels are \"", class_of.begin()->first, "\"; at least two words are needed"});
  if (seen.size() < 2)
    throw_error(ErrorCode::data, {"words probe: all utterances are of the speaker \"", seen.begin()->first,
                                  "\"; at least two are needed, since the test is on other speakers"});
  for (auto& [label, number] : class_of) {
    number = static_cast<int>(plan.classes.size());
    plan.classes.push_back(label);
  }
  for (auto& [speaker, number] : speaker_of) {
    number = static_cast<int>(plan.speakers.size());
    plan.speakers.push_back(speaker);
  }
  SpeakerSplit split = split_speakers(seen, options.seed);
  const bool validation = std::any_of(split.part.begin(), split.part.end(),
                                      [](auto const& entry) { return entry.second == Part::validation; });
  std::vector<int> taken(plan.classes.size(), 0);
  for (const std::size_t i : usable) {
    const std::string speaker(source.speaker(i));
    const int label = class_of[std::string(source.label(i))];
    Part part = split.part[speaker];
    if (!validation && part == Part::train && taken[static_cast<std::size_t>(label)]++ % 5 == 4)
      part = Part::validation;
    plan.items.push_back({i, label, speaker_of[speaker], part});
  }
  if (!validation)
    split.notes.push_back(
        "there are too few speakers for validation ones; every fifth training utterance of a word "
        "chose layer and ridge");
  std::stable_sort(plan.items.begin(), plan.items.end(),
                   [](WordItem const& a, WordItem const& b) { return a.part < b.part; });
  result.notes.insert(result.notes.end(), split.notes.begin(), split.notes.end());
  return plan;
}

}  // namespace sotto::probe::detail::inline SOTTO_ABI
