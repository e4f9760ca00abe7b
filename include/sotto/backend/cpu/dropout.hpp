// Dropout on the CPU: the mask of nn/dropout_mask.hpp, several Philox blocks at a time.
#pragma once

#include <cstdint>
#include <cstring>

#include <sotto/backend/cpu/simd.hpp>
#include <sotto/config.hpp>
#include <sotto/core/philox.hpp>
#include <sotto/core/views.hpp>
#include <sotto/nn/dropout_mask.hpp>

namespace sotto::cpu::detail::inline SOTTO_ABI {

inline constexpr int dropout_bytes = 4 * lanes;
inline constexpr int dropout_blocks = dropout_bytes / 8;     // Philox blocks at a time...
inline constexpr int dropout_channels = 4 * dropout_blocks;  // ...and the channels they decide
using DropoutWide = std::uint64_t __attribute__((vector_size(dropout_bytes)));

// The 64-bit products of the lower halves. GNU vectors cannot say that: a plain 64-bit product costs three of these.
SOTTO_ALWAYS_INLINE DropoutWide multiply_low_halves(DropoutWide a, std::uint32_t b) {
  const DropoutWide by = DropoutWide{} + b;
#if defined(__AVX2__)
  __asm__("vpmuludq %2, %1, %0" : "=v"(a) : "v"(a), "v"(by));
  return a;
#elif defined(__SSE2__)
  __asm__("pmuludq %1, %0" : "+x"(a) : "x"(by));
  return a;
#else
  return (a & 0xffffffffull) * by;
#endif
}

SOTTO_ALWAYS_INLINE DropoutWide dropout_lane_numbers() {
#ifdef __AVX512F__
  return DropoutWide{0, 1, 2, 3, 4, 5, 6, 7};
#elif defined(__AVX2__)
  return DropoutWide{0, 1, 2, 3};
#else
  return DropoutWide{0, 1};
#endif
}

// The first or second half of the lanes of a and b, alternating.
template <int First> SOTTO_ALWAYS_INLINE DropoutWide interleave(DropoutWide a, DropoutWide b) {
  constexpr int n = dropout_blocks, f = First;
#ifdef __AVX512F__
  return __builtin_shufflevector(a, b, f, n + f, f + 1, n + f + 1, f + 2, n + f + 2, f + 3, n + f + 3);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, f, n + f, f + 1, n + f + 1);
#else
  return __builtin_shufflevector(a, b, f, n + f);
#endif
}

// Random words of 2 * dropout_bytes / 4 channels in order. Counters ride in the lower halves of
// 64-bit lanes, where one multiplication gives both halves of a product; what the upper halves hold
// does not matter until the end.
SOTTO_ALWAYS_INLINE void dropout_words(Philox key, std::uint32_t first_counter, std::uint32_t frame,
                                       std::uint32_t utterance, std::uint32_t cursor, VecBits& low, VecBits& high) {
  DropoutWide c0 = dropout_lane_numbers() + static_cast<std::uint64_t>(first_counter);
  DropoutWide c1 = DropoutWide{} + frame, c2 = DropoutWide{} + utterance, c3 = DropoutWide{} + cursor;
  std::uint32_t k0 = key.key0, k1 = key.key1;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const DropoutWide p0 = multiply_low_halves(c0, 0xD2511F53u), p1 = multiply_low_halves(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ static_cast<std::uint64_t>(k0);
    c2 = (p0 >> 32) ^ c3 ^ static_cast<std::uint64_t>(k1);
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const DropoutWide first = (c0 & 0xffffffffull) | (c1 << 32), second = (c2 & 0xffffffffull) | (c3 << 32);
  low = reinterpret_cast<VecBits>(interleave<0>(first, second));
  high = reinterpret_cast<VecBits>(interleave<dropout_blocks / 2>(first, second));
}

// scale * x where kept, 0 elsewhere.
SOTTO_ALWAYS_INLINE Vec kept_part(Vec x, VecBits words, std::uint32_t threshold, float scale) {
  const auto mask = reinterpret_cast<VecBits>(words >= (VecBits{} + threshold));
  return reinterpret_cast<Vec>(reinterpret_cast<VecBits>(x * scale) & mask);
}

}  // namespace sotto::cpu::detail::inline SOTTO_ABI

namespace sotto::cpu::inline SOTTO_ABI {

/// Drops numbers of x [lane.rows, width] in place with probability p in [0, 1) and scales the
/// others by 1 / (1 - p). The mask is dropout_kept()'s: a function of key (of the seed), cursor
/// (the step), site (< 2^20: where in the network), utterance, frame and channel (< 16384).
/// Backward: the same call on the gradients.
template <class E>
SOTTO_NOINLINE void dropout(Lane<int> const& lane, Philox key, std::uint32_t cursor, std::uint32_t site, float p,
                            Matrix<E> x) {
  using namespace detail;
  if (!(p > 0)) return;
  const std::uint32_t threshold = dropout_threshold(p);
  const float scale = dropout_scale(p);
  const int half = dropout_channels / 2, whole = x.columns - x.columns % dropout_channels;
  for (int s = 0; s < lane.sequences; ++s) {
    const auto utterance = static_cast<std::uint32_t>(lane.utterances[s]);
    for (int i = lane.offsets[s]; i < lane.offsets[s + 1]; ++i) {
      const auto frame = static_cast<std::uint32_t>(lane.starts[s] + (i - lane.offsets[s]));
      E* const row = x.row(i);
      VecBits words[2];
      for (int j = 0; j < whole; j += dropout_channels) {
        dropout_words(key, dropout_counter(site, static_cast<std::uint32_t>(j) / 4), frame, utterance, cursor, words[0],
                      words[1]);
        store(row + j, kept_part(load(row + j), words[0], threshold, scale));
        store(row + j + half, kept_part(load(row + j + half), words[1], threshold, scale));
      }
      if (whole < x.columns) {
        dropout_words(key, dropout_counter(site, static_cast<std::uint32_t>(whole) / 4), frame, utterance, cursor,
                      words[0], words[1]);
        const int n = x.columns - whole;
        store_part(row + whole, kept_part(load_part(row + whole, n), words[0], threshold, scale), n);
        if (n > half)
          store_part(row + whole + half, kept_part(load_part(row + whole + half, n - half), words[1], threshold, scale),
                     n - half);
      }
    }
  }
}

}  // namespace sotto::cpu::inline SOTTO_ABI
