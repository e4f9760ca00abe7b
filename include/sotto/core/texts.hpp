// Named texts.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_ABI {

/// A few texts, each with a name of its own, in the order in which they were named.
class Texts {
 public:
  using Entry = std::pair<std::string, std::string>;

  bool empty() const { return entries_.empty(); }
  std::size_t size() const { return entries_.size(); }
  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }
  /// nullptr if there is none of that name.
  SOTTO_COLD std::string const* find(std::string_view name) const {
    for (Entry const& entry : entries_)
      if (entry.first == name) return &entry.second;
    return nullptr;
  }
  /// A later text of a name replaces the earlier.
  SOTTO_COLD void set(std::string_view name, std::string_view text) {
    for (Entry& entry : entries_)
      if (entry.first == name) {
        entry.second = text;
        return;
      }
    entries_.push_back({std::string(name), std::string(text)});
  }

 private:
  std::vector<Entry> entries_;
};

}  // namespace sotto::inline SOTTO_ABI
