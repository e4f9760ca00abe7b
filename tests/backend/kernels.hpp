// Every kernel that products may end in on this machine; AMX's as well where it has none: its tiles are loops here.
#pragma once

#include <cstring>
#include <tuple>

#include <sotto/backend/cpu/product.hpp>

namespace sotto::test {

/// What Intel's manual says of the tile instructions, all tiles whole: dot products of pairs, in order, in floats.
struct TilesInLoops {
  struct Session {};
  struct Tile {
    unsigned char bytes[16][64];
  };
  static Tile& at(int t) {
    static thread_local Tile tiles[8];
    return tiles[t];
  }
  template <int T> static void zero() { std::memset(&at(T), 0, sizeof(Tile)); }
  template <int T> static void load(void const* from, std::ptrdiff_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(at(T).bytes[i], static_cast<char const*>(from) + i * stride, 64);
  }
  template <int T> static void stream(void const* from, std::ptrdiff_t stride) { load<T>(from, stride); }
  template <int T> static void store(void* to, std::ptrdiff_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(static_cast<char*>(to) + i * stride, at(T).bytes[i], 64);
  }
  template <int C, int A, int B> static void multiply() {
    for (int m = 0; m < 16; ++m) {
      float sums[16];
      bf16 left[32];
      std::memcpy(sums, at(C).bytes[m], 64);
      std::memcpy(left, at(A).bytes[m], 64);
      for (int k = 0; k < 16; ++k) {
        bf16 right[32];
        std::memcpy(right, at(B).bytes[k], 64);
        for (int n = 0; n < 16; ++n)
          for (int part = 0; part < 2; ++part)
            sums[n] += static_cast<float>(left[2 * k + part]) * static_cast<float>(right[2 * n + part]);
      }
      std::memcpy(at(C).bytes[m], sums, 64);
    }
  }
};

#if defined(__AMX_BF16__)
using Kernels = std::tuple<cpu::Fma, cpu::Pairs, cpu::Tiles<TilesInLoops>, cpu::Tiles<cpu::TileRegisters>>;
#elif defined(__AVX512F__)
using Kernels = std::tuple<cpu::Fma, cpu::Pairs, cpu::Tiles<TilesInLoops>>;
#else
using Kernels = std::tuple<cpu::Fma, cpu::Pairs>;
#endif

/// What a number of E may lose in rounding: a part of itself.
template <class E> inline constexpr double precision = sizeof(E) == 2 ? 0x1p-8 : 0x1p-23;

}  // namespace sotto::test
