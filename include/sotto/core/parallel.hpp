// Threads: an executor that a host program may replace by its own pool, and the pool that sotto brings.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// A reference to a callable; owns nothing, allocates nothing.
template <class Signature> class FunctionRef;
template <class Result, class... Arguments> class FunctionRef<Result(Arguments...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>) SOTTO_ALWAYS_INLINE
      FunctionRef(F&& f)  // NOLINT: implicit, like std::function_ref
      : object_(const_cast<void*>(static_cast<void const*>(&f))), call_(call<std::remove_reference_t<F>>) {}
  SOTTO_ALWAYS_INLINE Result operator()(Arguments... arguments) const {
    return call_(object_, static_cast<Arguments>(arguments)...);
  }

 private:
  template <class F> static Result call(void* object, Arguments... arguments) {
    return (*static_cast<F*>(object))(static_cast<Arguments>(arguments)...);
  }
  void* object_;
  Result (*call_)(void*, Arguments...);
};

/// Where sotto's parallel work runs. Derive to lend it a pool of your own.
class Executor {
 public:
  virtual ~Executor() = default;
  /// How many tasks may run at once, the caller's thread included. >= 1.
  virtual int concurrency() const noexcept = 0;
  /// Calls task(0) ... task(tasks - 1), each once, in any order and on any thread; returns when all are done. If tasks
  /// throw, the exception of the lowest-numbered one is rethrown after all have ended. Must not be re-entered.
  virtual void run(int tasks, FunctionRef<void(int)> task) = 0;
};

}  // namespace sotto::inline SOTTO_API

namespace sotto::inline SOTTO_ABI {

/// A fixed team of threads; the caller is one of them.
class ThreadPool final : public Executor {
 public:
  /// threads 0: as many as the machine has cores.
  SOTTO_COLD explicit ThreadPool(int threads = 0) {
    if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
    if (threads < 1) threads = 1;
    team_ = std::vector<std::thread>(static_cast<std::size_t>(threads - 1));
    try {
      for (auto& thread : team_) thread = std::thread([this] { serve(); });
    } catch (...) {  // the machine has no more: those that wait must go before their pool does
      dismiss();
      throw;
    }
  }
  ThreadPool(ThreadPool const&) = delete;
  ThreadPool& operator=(ThreadPool const&) = delete;
  ~ThreadPool() override { dismiss(); }

  int concurrency() const noexcept override { return static_cast<int>(team_.size()) + 1; }

  SOTTO_COLD void run(int tasks, FunctionRef<void(int)> task) override {
    if (tasks <= 0) return;
    if (team_.empty() || tasks == 1) {
      std::exception_ptr failure;
      for (int i = 0; i < tasks; ++i) {
        try {
          task(i);
        } catch (...) {
          if (!failure) failure = std::current_exception();
        }
      }
      if (failure) std::rethrow_exception(failure);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      task_ = &task;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      failed_task_ = tasks;
      failure_ = nullptr;
      busy_ = static_cast<int>(team_.size());
      ++round_;
    }
    wake_.notify_all();
    work();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  SOTTO_COLD void dismiss() {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    for (auto& thread : team_)
      if (thread.joinable()) thread.join();
  }
  SOTTO_COLD void work() {
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) {
      try {
        (*task_)(i);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (i < failed_task_) {
          failed_task_ = i;
          failure_ = std::current_exception();
        }
      }
    }
  }
  SOTTO_COLD void serve() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return ended_ || round_ != seen; });
      if (ended_) return;
      seen = round_;
      lock.unlock();
      work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> team_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  FunctionRef<void(int)> const* task_ = nullptr;
  std::atomic<int> next_{0};
  int tasks_ = 0, busy_ = 0, failed_task_ = 0;
  std::uint64_t round_ = 0;
  bool ended_ = false;
  std::exception_ptr failure_;
};

}  // namespace sotto::inline SOTTO_ABI
