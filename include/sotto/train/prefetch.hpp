// Makes the next batches in the background, so that the cores never wait for audio.
#pragma once

#include <array>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include <sotto/data/batch.hpp>

namespace sotto::inline SOTTO_ABI {

/// A ring of two batches: one trained on, one being made. `make(Batch&)` is called on the background thread, in order.
class Prefetch {
 public:
  SOTTO_COLD explicit Prefetch(std::function<void(Batch&)> make)
      : make_(std::move(make)), thread_([this] { serve(); }) {}
  Prefetch(Prefetch const&) = delete;
  Prefetch& operator=(Prefetch const&) = delete;
  SOTTO_COLD ~Prefetch() {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  /// The oldest batch not yet released; waits for it. Rethrows what make threw.
  SOTTO_COLD Batch const& front() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return made_ > taken_ || failure_; });
    if (made_ > taken_) return ring_[taken_ % ring_.size()];
    std::rethrow_exception(failure_);
  }
  /// Done with front().
  SOTTO_COLD void release() {
    {
      std::lock_guard lock(mutex_);
      ++taken_;
    }
    changed_.notify_all();
  }

 private:
  SOTTO_COLD void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return ended_ || made_ - taken_ < ring_.size(); });
      if (ended_) return;
      Batch& batch = ring_[made_ % ring_.size()];
      lock.unlock();
      std::exception_ptr failure;
      try {
        make_(batch);
      } catch (...) {
        failure = std::current_exception();
      }
      lock.lock();
      if (failure) {
        failure_ = failure;
        changed_.notify_all();
        return;
      }
      ++made_;
      changed_.notify_all();
    }
  }

  std::function<void(Batch&)> make_;
  std::array<Batch, 2> ring_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t made_ = 0, taken_ = 0;
  bool ended_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses the others
};

}  // namespace sotto::inline SOTTO_ABI
