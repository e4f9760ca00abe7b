// What a core can do at most, a loop of fused multiply-adds in registers, and which samples of a shared machine count.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <vector>

#include <sotto/backend/cpu/simd.hpp>

namespace sotto::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds of `rounds` times 12 fused multiply-adds of vectors.
inline double fma_seconds(int rounds) {
  using cpu::Vec;
  Vec sums[12], factor = cpu::splat(.999f), term = cpu::splat(.001f);
  for (int i = 0; i < 12; ++i) sums[i] = cpu::splat(static_cast<float>(i));
  const double start = now();
  for (int round = 0; round < rounds; ++round)
    for (auto& sum : sums) sum = sum * factor + term;  // twelve chains: more than the latency of one
  const double seconds = now() - start;
  Vec total{};
  for (auto const& sum : sums) total += sum;
  asm volatile("" : : "m"(total));  // somebody might have read it
  return seconds;
}

/// GF/s of this thread, over about so many seconds.
inline double fma_rate(double seconds) {
  constexpr int rounds = 10'000;
  const double start = now();
  double taken = 0, flops = 0;
  do {
    fma_seconds(rounds);
    flops += 24. * cpu::lanes * rounds;
    taken = now() - start;
  } while (taken < seconds);
  return flops / taken * 1e-9;
}

/// GF/s of fp32 fused multiply-adds, on `threads` threads at once, over about 2 ms.
inline double fma_peak(int threads) {
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::atomic<int> missing{threads};
  const auto run = [&](int i) {
    for (--missing; missing > 0;) std::this_thread::yield();  // all at once, or a core might run alone, and faster
    rates[static_cast<std::size_t>(i)] = fma_rate(2e-3);
  };
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i) team.emplace_back(run, i);
  run(0);
  for (auto& thread : team) thread.join();
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

/// Seconds that this program's threads were ready to run and did not; 0 where the kernel does not say.
inline double waited() {
  double nanoseconds = 0;
  std::error_code none;
  for (auto const& task : std::filesystem::directory_iterator("/proc/self/task", none)) {
    double ran = 0, waiting = 0;
    if (std::ifstream(task.path() / "schedstat") >> ran >> waiting) nanoseconds += waiting;
  }
  return nanoseconds * 1e-9;
}

/// Whether the cores were ours: the loop before and after a sample reaches 93 % of the best seen.
class Gate {
 public:
  explicit Gate(int threads) : threads_(threads) {
    for (int i = 0; i < 5; ++i) rate();
  }
  double rate() {
    const double peak = fma_peak(threads_);
    best_ = std::max(best_, peak);
    return peak;
  }
  bool passes(double before, double after) const { return std::min(before, after) >= .93 * best_; }

 private:
  int threads_;
  double best_ = 0;
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

}  // namespace sotto::bench
