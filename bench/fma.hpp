// What a core can do at most: a loop of fused multiply-adds in registers, on every thread at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include <sotto/backend/cpu/simd.hpp>

namespace sotto::bench {

inline double fma_seconds(int rounds) {
  using cpu::Vec;
  Vec sum[12], a = cpu::splat(1.0000001f), b = cpu::splat(.9999999f);
  for (int i = 0; i < 12; ++i) sum[i] = cpu::splat(static_cast<float>(i));
  const auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < rounds; ++round) {
    for (auto& s : sum) s = s * a + b;  // twelve chains: more than the latency of one
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  Vec total{};
  for (auto const& s : sum) total += s;
  asm volatile("" : : "m"(total));  // somebody might have read it
  return seconds;
}

/// GF/s of fp32 fused multiply-adds, on `threads` threads at once, over about 2 ms.
inline double fma_peak(int threads) {
  constexpr int rounds = 150'000;
  std::vector<double> seconds(static_cast<std::size_t>(threads));
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i)
    team.emplace_back([&, i] { seconds[static_cast<std::size_t>(i)] = fma_seconds(rounds); });
  seconds[0] = fma_seconds(rounds);
  for (auto& thread : team) thread.join();
  double total = 0;
  for (const double s : seconds) total += 24. * cpu::lanes * rounds / s * 1e-9;
  return total;
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

}  // namespace sotto::bench
