// Products of bf16 numbers by AMX tiles: 32 x 32 of the result at once, 32 numbers of k in a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <sotto/backend/cpu/pairs.hpp>
#include <sotto/config.hpp>

#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef __AVX512F__  // as every processor with tiles has: vectors are rows of them

namespace sotto::cpu::inline SOTTO_ABI {

#ifdef __AMX_BF16__

/// The eight tile registers of a processor with AMX, each 16 rows of 64 bytes. In assembler: <immintrin.h> costs a
/// compiler more than the rest of this library.
struct TileRegisters {
  /// Whether the processor and the operating system let this process use them. Linux wants to be asked, once a process.
  static bool available() {
    static const bool granted = [] {
#if defined(__linux__)
      constexpr long request_permission = 0x1023, tile_data = 18;  // arch_prctl(2): ARCH_REQ_XCOMP_PERM, XTILEDATA
      return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
      return false;
#endif
    }();
    return granted;
  }
  /// All of a tile, 16 rows of 64 bytes, for as long as a product computes: a host program may use tiles in other
  /// shapes in between.
  struct Session {
    Session() {
      struct alignas(64) Configuration {
        std::uint8_t palette, start, reserved[14];
        std::uint16_t bytes[16];
        std::uint8_t rows[16];
      } configuration{};
      configuration.palette = 1;
      for (int i = 0; i < 8; ++i) {
        configuration.bytes[i] = 64;
        configuration.rows[i] = 16;
      }
      __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
    }
    ~Session() { __asm__ volatile("tilerelease"); }
    Session(Session const&) = delete;
    Session& operator=(Session const&) = delete;
  };
  template <int T> static SOTTO_ALWAYS_INLINE void zero() { __asm__ volatile("tilezero %%tmm%c0" : : "i"(T)); }
  template <int T> static SOTTO_ALWAYS_INLINE void load(void const* from, std::ptrdiff_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
  }
  /// What is read once: B, which passes through the first-level cache that A's rows live in.
  template <int T> static SOTTO_ALWAYS_INLINE void stream(void const* from, std::ptrdiff_t stride) {
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T> static SOTTO_ALWAYS_INLINE void store(void* to, std::ptrdiff_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
  }
  /// C += A B, pair by pair.
  template <int C, int A, int B> static SOTTO_ALWAYS_INLINE void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
};

#endif

/// By tiles. Registers: TileRegisters, or what tests put in their place. Panels are those of Pairs, with k rounded up.
template <class Registers> struct Tiles : detail::PairUnits {
  using Left = std::uint32_t;
  using Session = typename Registers::Session;
  static constexpr int step = 16, rows = 32, most_units = 512, gradient_units = 384;
  static constexpr int left_stride = gradient_units + 16, left_size = rows * left_stride;

  /// C = A B. 16 or 32 rows of A are read and of C are written, 16 or 32 columns: what is beyond m and n there is
  /// undefined.
  static SOTTO_NOINLINE void multiply(int m, int n, detail::Strip<Left, Unit> const& strip, float* c,
                                      std::ptrdiff_t c_stride) {
    constexpr std::ptrdiff_t unit = sizeof(Unit);
    const std::ptrdiff_t a_bytes = strip.a_stride * unit, b_bytes = strip.b_stride * unit,
                         c_bytes = c_stride * static_cast<std::ptrdiff_t>(sizeof(float));
    const bool lower = m > 16, right = n > 16;
    Registers::template zero<0>();
    if (right) Registers::template zero<1>();
    if (lower) Registers::template zero<2>();
    if (lower && right) Registers::template zero<3>();
    for (int p = 0; p < strip.k; p += step) {
      Left const* const a = strip.a + p;
      Unit const* const b = strip.b + p * strip.b_stride;
      Registers::template load<4>(a, a_bytes);
      Registers::template stream<6>(b, b_bytes);
      Registers::template multiply<0, 4, 6>();
      if (right) {
        Registers::template stream<7>(b + 16, b_bytes);
        Registers::template multiply<1, 4, 7>();
      }
      if (lower) {
        Registers::template load<5>(a + 16 * strip.a_stride, a_bytes);
        Registers::template multiply<2, 5, 6>();
        if (right) Registers::template multiply<3, 5, 7>();
      }
    }
    Registers::template store<0>(c, c_bytes);
    if (right) Registers::template store<1>(c + 16, c_bytes);
    if (lower) Registers::template store<2>(c + 16 * c_stride, c_bytes);
    if (lower && right) Registers::template store<3>(c + 16 * c_stride + 16, c_bytes);
  }
  /// `left` lies transposed already.
  static void multiply_transposed(int m, int n, detail::Strip<Left, Unit> const& strip, float* c,
                                  std::ptrdiff_t c_stride) {
    multiply(m, n, strip, c, c_stride);
  }
  static void copy_row(bf16 const* from, int k, Left* to) {
    const int whole = k / 2;
    std::memcpy(to, from, static_cast<std::size_t>(whole) * sizeof(Left));
    for (int u = whole; 2 * u < (k + 2 * step - 1) / (2 * step) * (2 * step); ++u)
      to[u] = 2 * u < k ? from[2 * u].bits : 0;
  }
  /// Row i of `left` becomes column i of dy [k, n] in units.
  static void copy_columns(bf16 const* dy, std::ptrdiff_t stride, int k, int n, int most, Left* left) {
    for (int t = 0; t < k; t += 2 * step)
      for (int v = 0; v < n; v += lanes) {
        VecBits square[16];
        for (int u = 0; u < 16; ++u)
          square[u] = unit_row(dy + (t + 2 * u) * stride + v, stride, k - t - 2 * u, most - v);
        transpose(square);
        for (int i = 0; i < 16; ++i) std::memcpy(left + (v + i) * left_stride + t / 2, &square[i], sizeof square[i]);
      }
  }
};

}  // namespace sotto::cpu::inline SOTTO_ABI

#endif

namespace sotto::cpu::inline SOTTO_ABI {

/// Whether this process may multiply as BestPairs does.
inline bool bf16_available() {
#ifdef __AMX_BF16__
  return TileRegisters::available();
#else
  return true;
#endif
}
/// The fastest that the target has for bf16.
#ifdef __AMX_BF16__
using BestPairs = Tiles<TileRegisters>;
#else
using BestPairs = Pairs;
#endif

}  // namespace sotto::cpu::inline SOTTO_ABI
