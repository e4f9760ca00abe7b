// What tasks compute with: backends and their memory, lent out.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/buffer.hpp>

namespace sotto::inline SOTTO_ABI {

/// As many workers as tasks may run at once. Any task may hold any worker: what is computed does not depend on it.
template <class B> class Workers {
 public:
  struct alignas(64) Worker {  // no two of them write to one cache line
    B backend;
    Buffer arena;
    std::vector<double> histogram;  ///< [classes]
  };

  SOTTO_COLD Workers(int n, std::size_t arena_bytes, int classes) : all_(static_cast<std::size_t>(n)) {
    for (int i = 0; i < n; ++i) {
      (*this)[i].arena = Buffer(arena_bytes);
      (*this)[i].histogram = std::vector<double>(static_cast<std::size_t>(classes));
      idle_.push_back(i);
    }
  }
  int size() const { return static_cast<int>(all_.size()); }
  Worker& operator[](int i) { return all_[static_cast<std::size_t>(i)]; }

  /// A worker that nobody else uses while the lease lives.
  class Lease {
   public:
    /// Takes `preferred` where it is idle: buffers then grow once.
    SOTTO_NOINLINE explicit Lease(Workers& workers, int preferred = 0) : workers_(workers) {
      auto& idle = workers.idle_;
      std::unique_lock lock(workers.mutex_);
      workers.returned_.wait(lock, [&] { return !idle.empty(); });
      const auto wanted = std::find(idle.begin(), idle.end(), preferred);
      if (wanted != idle.end()) std::iter_swap(wanted, idle.end() - 1);
      index_ = idle.back();
      idle.pop_back();
    }
    SOTTO_NOINLINE ~Lease() {
      {
        std::lock_guard lock(workers_.mutex_);
        workers_.idle_.push_back(index_);
      }
      workers_.returned_.notify_one();
    }
    Lease(Lease const&) = delete;
    Lease& operator=(Lease const&) = delete;
    Worker* operator->() const { return &workers_[index_]; }
    Worker& operator*() const { return workers_[index_]; }

   private:
    Workers& workers_;
    int index_;
  };

 private:
  std::vector<Worker> all_;
  std::vector<int> idle_;
  std::mutex mutex_;
  std::condition_variable returned_;
};

}  // namespace sotto::inline SOTTO_ABI
