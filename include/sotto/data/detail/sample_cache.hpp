// Decoded utterances in memory, the least recently used going first when a limit is reached.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <sotto/config.hpp>

namespace sotto::detail::inline SOTTO_ABI {

/// Samples of numbered utterances, 16 bits each. Thread-safe; find() allocates nothing. Whoever
/// holds a handle keeps its samples alive beyond their eviction.
class SampleCache {
 public:
  using Handle = std::shared_ptr<std::vector<std::int16_t> const>;

  SampleCache(std::size_t utterances, std::size_t limit)
      : entries_(utterances), neighbours_(utterances + 1), end_(utterances), limit_(limit) {
    neighbours_[end_] = {end_, end_};
  }

  /// Null if utterance i is not here.
  Handle find(std::size_t i) const {
    std::lock_guard lock(mutex_);
    if (entries_[i]) {
      unlink(i);
      link_first(i);
    }
    return entries_[i];
  }

  /// Keeps the samples of utterance i, unless they alone exceed the limit.
  void insert(std::size_t i, Handle samples) {
    std::lock_guard lock(mutex_);
    std::size_t const size = bytes_of(samples);
    if (entries_[i] || size > limit_) return;
    while (bytes_ + size > limit_) {
      std::size_t const oldest = neighbours_[end_].previous;
      unlink(oldest);
      bytes_ -= bytes_of(entries_[oldest]);
      entries_[oldest].reset();
    }
    entries_[i] = std::move(samples);
    link_first(i);
    bytes_ += size;
  }

  std::size_t bytes() const {
    std::lock_guard lock(mutex_);
    return bytes_;
  }

 private:
  // A ring through all kept entries, newest first; entry `end_` closes it.
  struct Neighbours {
    std::size_t previous, next;
  };
  static std::size_t bytes_of(Handle const& samples) { return samples->size() * sizeof(std::int16_t); }
  void unlink(std::size_t i) const {
    auto const [previous, next] = neighbours_[i];
    neighbours_[previous].next = next;
    neighbours_[next].previous = previous;
  }
  void link_first(std::size_t i) const {
    std::size_t const first = neighbours_[end_].next;
    neighbours_[i] = {end_, first};
    neighbours_[first].previous = i;
    neighbours_[end_].next = i;
  }

  mutable std::mutex mutex_;
  std::vector<Handle> entries_;
  mutable std::vector<Neighbours> neighbours_;
  std::size_t end_, limit_, bytes_ = 0;
};

}  // namespace sotto::detail::inline SOTTO_ABI
