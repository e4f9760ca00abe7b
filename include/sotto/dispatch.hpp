// One program for many processors: instruction-set levels, which of them this machine has, and which one runs.
//
// sotto_add_model(target SOURCES model.cpp DISPATCH) compiles model.cpp once a level. Its functions are declared and
// called as ever; the first call of any of them chooses the best level that processor and operating system have, for
// the life of the process. What crosses must look the same under every flag: the standard library's types,
// sotto::Error, sotto::Step, sotto::Outcome and the like, and your own; not Eigen's, nor sotto's options and models,
// which are named after the instruction set. A level's functions and constants, instances of templates and inline
// functions included, are its own; variables are the program's.
//
// The environment variable SOTTO_LEVEL=x86-64-v3 forces a level.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sotto/config.hpp>
#include <sotto/core/error.hpp>

#ifdef __x86_64__
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace sotto::inline SOTTO_ABI {

/// The level that this translation unit is compiled for: the best one whose instructions the compiler may use.
constexpr std::string_view compiled_level() {
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
  return "amx";
#elif defined(__AVX512BF16__)
  return "avx512-bf16";
#else
  return "x86-64-v4";
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__) && defined(__F16C__)
  return "x86-64-v3";
#elif defined(__SSE4_2__) && defined(__POPCNT__)
  return "x86-64-v2";
#elif defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown";
#endif
}

}  // namespace sotto::inline SOTTO_ABI

namespace sotto::detail::inline SOTTO_ABI {

/// What sotto_add_model() can build, the best last; each holds the ones before it.
inline constexpr std::array<std::string_view, 5> levels{"x86-64-v2", "x86-64-v3", "x86-64-v4", "avx512-bf16", "amx"};

#ifdef __x86_64__

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
/// All zero where the processor has no such leaf.
inline Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) r = {};
  return r;
}
/// Which registers the operating system saves for a thread (XCR0).
inline unsigned saved_state() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}
/// Linux gives tiles only to processes that ask for them.
inline bool may_use_tiles() {
#ifdef __linux__
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

/// How many of `levels`, from the first on, processor and operating system have. The lists are those of the x86-64
/// psABI.
inline SOTTO_COLD std::size_t levels_here() {
  const auto all = [](unsigned reg, auto... bits) { return ((reg >> bits & 1u) & ...) != 0; };
  const Registers basic = cpuid(1), extended = cpuid(0x80000001), more = cpuid(7), last = cpuid(7, 1);
  // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF
  if (!all(basic.ecx, 0, 9, 13, 19, 20, 23) || !all(extended.ecx, 0)) return 0;
  // FMA, MOVBE, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT
  if (!all(basic.ecx, 12, 22, 27, 28, 29) || !all(more.ebx, 3, 5, 8) || !all(extended.ecx, 5)) return 1;
  const unsigned saved = saved_state();
  if (!all(saved, 1, 2)) return 1;
  // AVX512F, DQ, CD, BW, VL; their masks and upper halves
  if (!all(more.ebx, 16, 17, 28, 30, 31) || !all(saved, 5, 6, 7)) return 2;
  if (!all(last.eax, 5)) return 3;
  // AMX-BF16, AMX-TILE; tile configuration and data
  if (!all(more.edx, 22, 24) || !all(saved, 17, 18) || !may_use_tiles()) return 4;
  return 5;
}

#else

inline std::size_t levels_here() { return 0; }

#endif

inline SOTTO_COLD bool level_is_here(std::string_view level) {
  const auto here = std::span(levels).first(levels_here());
  for (const std::string_view each : here)
    if (each == level) return true;
  return false;
}

using Function = void (*)();

/// The sources of a model, compiled for a level. Written by sotto_add_model().
struct BuiltLevel {
  std::string_view name;
  std::span<Function const> functions;
  std::span<std::span<Function const> const> constructors, destructors;  // what its static objects need
};

/// The level that SOTTO_LEVEL names, or else the best; `built` has the best last.
inline SOTTO_COLD BuiltLevel const& choose_level(std::span<BuiltLevel const> built) {
  std::string all, here;
  BuiltLevel const* best = nullptr;
  for (BuiltLevel const& level : built) {
    all += (all.empty() ? "" : ", ") + std::string(level.name);
    if (!level_is_here(level.name)) continue;
    here += (here.empty() ? "" : ", ") + std::string(level.name);
    best = &level;
  }
  if (best == nullptr)
    throw_error(ErrorCode::device,
                {"this processor, or its operating system, has none of the instruction-set levels that the program is "
                 "built for: ",
                 all});
  char const* const wanted = std::getenv("SOTTO_LEVEL");
  if (wanted == nullptr || *wanted == '\0') return *best;
  for (BuiltLevel const& level : built) {
    if (level.name != wanted) continue;
    if (level_is_here(wanted)) return level;
    throw_error(ErrorCode::device, {"SOTTO_LEVEL is ", wanted,
                                    ", which this processor, or its operating system, does not have; it has ", here});
  }
  throw_error(ErrorCode::usage, {"SOTTO_LEVEL is '", wanted, "'; the program is built for ", all});
}

/// Chooses a level, makes its static objects and lets `functions` be its functions.
inline SOTTO_COLD void enter_level(std::span<BuiltLevel const> built, Function* functions) {
  BuiltLevel const& level = choose_level(built);
  // at the end of the program they come after what the constructors below register
  for (const auto section : level.destructors)
    for (const Function f : section) std::atexit(f);
  for (const auto section : level.constructors)
    for (const Function f : section) f();
  for (std::size_t i = 0; i < level.functions.size(); ++i)
    std::atomic_ref(functions[i]).store(level.functions[i], std::memory_order_release);
}

}  // namespace sotto::detail::inline SOTTO_ABI

namespace sotto::inline SOTTO_ABI {

/// The levels that sotto_add_model() knows and this processor, with its operating system, has; the best last.
inline SOTTO_COLD std::vector<std::string_view> supported_levels() {
  return {detail::levels.begin(), detail::levels.begin() + static_cast<std::ptrdiff_t>(detail::levels_here())};
}

}  // namespace sotto::inline SOTTO_ABI
