// The few macros of sotto: what a function may run on, and the names that keep two builds of one header apart.
#pragma once

#include <sotto/version.hpp>

#define SOTTO_JOIN_(a, b, c, d) a##_##b##_##c##d
#define SOTTO_JOIN(a, b, c, d) SOTTO_JOIN_(a, b, c, d)

// SOTTO_API: the inline namespace of whatever must look the same under every compiler flag: views, policies, errors.
// Its inline functions are SOTTO_HOST_DEVICE or SOTTO_ALWAYS_INLINE, so that no flag's copy can replace another's.
#define SOTTO_API SOTTO_JOIN(v, SOTTO_VERSION_MAJOR, SOTTO_VERSION_MINOR, )

// SOTTO_ABI: the inline namespace of everything compiled with arithmetic. One digit an instruction-set extension, so
// that two translation units with different -m flags never share a kernel (the linker would keep either).
#ifdef __AVX2__
#define SOTTO_ISA_0 1
#else
#define SOTTO_ISA_0 0
#endif
#ifdef __FMA__
#define SOTTO_ISA_1 1
#else
#define SOTTO_ISA_1 0
#endif
#ifdef __AVX512F__
#define SOTTO_ISA_2 1
#else
#define SOTTO_ISA_2 0
#endif
#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define SOTTO_ISA_3 1
#else
#define SOTTO_ISA_3 0
#endif
#ifdef __AVX512BF16__
#define SOTTO_ISA_4 1
#else
#define SOTTO_ISA_4 0
#endif
#ifdef __AMX_BF16__
#define SOTTO_ISA_5 1
#else
#define SOTTO_ISA_5 0
#endif
#ifdef __AVX__
#define SOTTO_ISA_6 1
#else
#define SOTTO_ISA_6 0
#endif
#ifdef __SSE4_2__
#define SOTTO_ISA_7 1
#else
#define SOTTO_ISA_7 0
#endif
#ifdef __FAST_MATH__
#define SOTTO_ISA_8 1
#else
#define SOTTO_ISA_8 0
#endif
#define SOTTO_ISA_JOIN_(a, b, c, d, e, f, g, h, i) _isa##a##b##c##d##e##f##g##h##i
#define SOTTO_ISA_JOIN(a, b, c, d, e, f, g, h, i) SOTTO_ISA_JOIN_(a, b, c, d, e, f, g, h, i)
#define SOTTO_ISA                                                                                           \
  SOTTO_ISA_JOIN(SOTTO_ISA_0, SOTTO_ISA_1, SOTTO_ISA_2, SOTTO_ISA_3, SOTTO_ISA_4, SOTTO_ISA_5, SOTTO_ISA_6, \
                 SOTTO_ISA_7, SOTTO_ISA_8)
#define SOTTO_ABI SOTTO_JOIN(v, SOTTO_VERSION_MAJOR, SOTTO_VERSION_MINOR, SOTTO_ISA)

#define SOTTO_ALWAYS_INLINE inline __attribute__((always_inline))
// A kernel is compiled once: neither inlined where it is called nor cloned for constant arguments.
#ifdef __clang__
#define SOTTO_NOINLINE __attribute__((noinline))
#else
#define SOTTO_NOINLINE __attribute__((noinline, noclone))
#endif
// What runs seldom, or does nothing but call kernels, is compiled for size: at -O3 most of a compiler's time would go
// into files and messages.
#define SOTTO_COLD __attribute__((cold, noinline))
#ifdef __CUDACC__
#define SOTTO_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SOTTO_HOST_DEVICE SOTTO_ALWAYS_INLINE
#endif
