// Randomness as a function: Philox 4x32-10 (Salmon et al., SC 2011), keyed by (seed, purpose, cursor, item).
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// What a random number is for: two purposes never share a number.
enum class Purpose : std::uint32_t {
  initialise,
  epoch,
  crop,
  mask,
  dropout,
  layer_drop,
  clusters,
  held_out,
  augment,
  synthetic,
  probe,
  negatives,
  noise,
  user = 1000  ///< and above: a program's own
};

/// Philox's block function: 128 random bits of a counter and a key.
struct Philox {
  std::uint32_t key0, key1;

  SOTTO_HOST_DEVICE constexpr Philox(std::uint64_t seed, Purpose purpose) : key0(0), key1(0) {
    // splitmix64's finaliser over (seed, purpose), so that neighbouring seeds have unrelated keys
    std::uint64_t z = seed + 0x9e3779b97f4a7c15ull * (static_cast<std::uint64_t>(purpose) + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    key0 = static_cast<std::uint32_t>(z);
    key1 = static_cast<std::uint32_t>(z >> 32);
  }

  struct Block {
    std::uint32_t word[4];
  };
  SOTTO_HOST_DEVICE constexpr Block operator()(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                                               std::uint32_t c3) const {
    std::uint32_t k0 = key0, k1 = key1;
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
      const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0,
                          n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
  }
};

/// A sequence of random numbers that is a function of (seed, purpose, cursor, item). Copies go on independently.
class Random {
 public:
  SOTTO_ALWAYS_INLINE constexpr Random(std::uint64_t seed, Purpose purpose, std::uint32_t cursor = 0,
                                       std::uint64_t item = 0)
      : philox_(seed, purpose), cursor_(cursor), item_(item) {}

  /// 32 uniform bits.
  SOTTO_ALWAYS_INLINE constexpr std::uint32_t next() {
    if (used_ == 4) {
      block_ = philox_(index_++, static_cast<std::uint32_t>(item_), static_cast<std::uint32_t>(item_ >> 32), cursor_);
      used_ = 0;
    }
    return block_.word[used_++];
  }
  /// Uniform in [0, 1), 53 bits.
  SOTTO_ALWAYS_INLINE constexpr double uniform() {
    const std::uint64_t high = next() >> 5, low = next() >> 6;
    return static_cast<double>(high * 67108864ull + low) * 0x1p-53;
  }
  /// Uniform in [0, n), without bias (Lemire 2019). n >= 1.
  SOTTO_ALWAYS_INLINE constexpr std::uint32_t below(std::uint32_t n) {
    std::uint64_t product = static_cast<std::uint64_t>(next()) * n;
    if (static_cast<std::uint32_t>(product) < n) {
      const std::uint32_t floor = (0u - n) % n;
      while (static_cast<std::uint32_t>(product) < floor) product = static_cast<std::uint64_t>(next()) * n;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }
  /// Standard normal (Box-Muller; one of each pair is used).
  SOTTO_ALWAYS_INLINE double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }

 private:
  Philox philox_;
  std::uint32_t cursor_, index_ = 0;
  std::uint64_t item_;
  Philox::Block block_{};
  int used_ = 4;
};

/// A keyed permutation of 0..size-1 that needs no memory: a four-round Feistel network over Philox, walked until
/// it lands inside (Black & Rogaway 2002). The order of an epoch is Permutation(size, seed, Purpose::epoch, epoch).
class Permutation {
 public:
  SOTTO_ALWAYS_INLINE constexpr Permutation(std::uint64_t size, std::uint64_t seed, Purpose purpose,
                                            std::uint32_t cursor = 0)
      : philox_(seed, purpose), size_(size), cursor_(cursor) {
    while ((1ull << (2 * half_)) < size_) ++half_;
  }
  SOTTO_ALWAYS_INLINE constexpr std::uint64_t size() const { return size_; }
  /// Where i goes. i < size().
  SOTTO_ALWAYS_INLINE constexpr std::uint64_t operator()(std::uint64_t i) const {
    do i = once(i);
    while (i >= size_);
    return i;
  }

 private:
  SOTTO_ALWAYS_INLINE constexpr std::uint64_t once(std::uint64_t i) const {
    const std::uint64_t mask = (1ull << half_) - 1;
    std::uint64_t left = i >> half_, right = i & mask;
    for (std::uint32_t round = 0; round < 4; ++round) {
      const auto block =
          philox_(static_cast<std::uint32_t>(right), static_cast<std::uint32_t>(right >> 32), round, cursor_);
      const std::uint64_t f = (static_cast<std::uint64_t>(block.word[1]) << 32 | block.word[0]) & mask;
      const std::uint64_t swapped = left ^ f;
      left = right;
      right = swapped;
    }
    return left << half_ | right;
  }
  Philox philox_;
  std::uint64_t size_;
  std::uint32_t cursor_;
  int half_ = 1;
};

}  // namespace sotto::inline SOTTO_API
