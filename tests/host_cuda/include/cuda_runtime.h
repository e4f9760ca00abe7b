// A shadow of NVIDIA's <cuda_runtime.h>, first on the include path of tests: it lets device code compile with a host
// compiler and run there. Types and signatures are the toolkit's own, from the header of the same name; what a kernel
// may call is defined here over the engine, and bodies of the runtime are in runtime.cpp.
#pragma once
#pragma GCC system_header
#ifdef __CUDACC__
#error "tests/host_cuda is for host compilers: nvcc must see the toolkit's own cuda_runtime.h"
#endif
#define cudaLaunchKernelEx host_cuda_hidden_launch  // replaced below by one that knows the kernel's parameters
#include_next <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <host_cuda/engine.hpp>

#undef __launch_bounds__
#define __launch_bounds__(...)
// In checked builds the engine's own helpers must not be seen by the race checker.
#define HOST_CUDA_UNSEEN __attribute__((no_sanitize("thread"), noinline))
// The place of a call in device code, as default arguments.
#define HOST_CUDA_SITE char const *site_file = __builtin_FILE(), int site_line = __builtin_LINE()
#define HOST_CUDA_HERE \
  host_cuda::Site { site_file, site_line }

extern uint3 threadIdx, blockIdx;  // rewritten each time a fibre is resumed
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace host_cuda {

/// A kernel as the engine calls it.
struct Kernel {
  char const* name;
  void (*invoke)(void const* function, void** arguments);
  int parameters;
  std::size_t const* sizes;
  bool const* pointers;
};
void know(void const* function, Kernel const& kernel);
cudaError_t launch(cudaLaunchConfig_t const& config, void const* function, void** arguments);

template <class... P> void know_kernel(void (*kernel)(P...)) {
  static constexpr std::size_t sizes[] = {sizeof(P)..., 0};
  static constexpr bool pointers[] = {std::is_pointer_v<P>..., false};
  know(reinterpret_cast<void const*>(kernel), {__PRETTY_FUNCTION__,
                                               [](void const* function, void** arguments) {
                                                 [&]<std::size_t... I>(std::index_sequence<I...>) {
                                                   reinterpret_cast<void (*)(P...)>(const_cast<void*>(function))(
                                                       *static_cast<std::remove_cvref_t<P>*>(arguments[I])...);
                                                 }
                                                 (std::index_sequence_for<P...>{});
                                               },
                                               static_cast<int>(sizeof...(P)), sizes, pointers});
}

// Shuffles and votes.
template <class T> struct LaneValue {
  T value;
  int source;
};
void report_foreign_lane(int lane, int source, unsigned mask);
template <class T> HOST_CUDA_UNSEEN void exchange(WarpView const& warp) {
  for (int l = 0; l < 32; ++l) {
    if ((warp.mask >> l & 1) == 0) continue;
    auto const* const mine = static_cast<LaneValue<T> const*>(warp.in[l]);
    if ((warp.mask >> mine->source & 1) == 0)
      report_foreign_lane(l, mine->source, warp.mask);
    else
      *static_cast<T*>(warp.out[l]) = static_cast<LaneValue<T> const*>(warp.in[mine->source])->value;
  }
}
template <class T> T shuffle(unsigned mask, T value, int source, Site where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  const LaneValue<T> in{value, source};
  T out = value;
  collective(mask, &in, &out, &exchange<T>, false, where);
  return out;
}
HOST_CUDA_UNSEEN inline void take_ballot(WarpView const& warp) {
  unsigned votes = 0;
  for (int l = 0; l < 32; ++l)
    if ((warp.mask >> l & 1) != 0 && *static_cast<int const*>(warp.in[l]) != 0) votes |= 1u << l;
  for (int l = 0; l < 32; ++l)
    if ((warp.mask >> l & 1) != 0) *static_cast<unsigned*>(warp.out[l]) = votes;
}
HOST_CUDA_UNSEEN inline void take_nothing(WarpView const&) {}

/// Fibres are never interrupted, so a load and a store are atomic; the builtins tell checkers that they are meant to
/// be.
template <class T, class F> T update_atomically(T* p, F next) {
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  after = next(before);
  __atomic_store(p, &after, __ATOMIC_RELAXED);
  return before;
}

}  // namespace host_cuda

template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(cudaLaunchConfig_t const* config, void (*kernel)(P...), A&&... arguments) {
  host_cuda::know_kernel(kernel);
  return [&](P... typed) {
    void* pointers[] = {const_cast<void*>(static_cast<void const*>(&typed))..., nullptr};
    return host_cuda::launch(*config, reinterpret_cast<void const*>(kernel), pointers);
  }(std::forward<A>(arguments)...);
}
template <class... P> cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), attribute, value);
}

inline void __syncthreads(HOST_CUDA_SITE) { host_cuda::barrier(0, host_cuda::Vote::none, HOST_CUDA_HERE); }
inline int __syncthreads_count(int p, HOST_CUDA_SITE) {
  return host_cuda::barrier(p, host_cuda::Vote::count, HOST_CUDA_HERE);
}
inline int __syncthreads_and(int p, HOST_CUDA_SITE) {
  return host_cuda::barrier(p, host_cuda::Vote::all, HOST_CUDA_HERE);
}
inline int __syncthreads_or(int p, HOST_CUDA_SITE) {
  return host_cuda::barrier(p, host_cuda::Vote::any, HOST_CUDA_HERE);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, HOST_CUDA_SITE) {
  host_cuda::collective(mask, nullptr, nullptr, &host_cuda::take_nothing, true, HOST_CUDA_HERE);
}
inline unsigned __ballot_sync(unsigned mask, int p, HOST_CUDA_SITE) {
  unsigned votes = 0;
  host_cuda::collective(mask, &p, &votes, &host_cuda::take_ballot, false, HOST_CUDA_HERE);
  return votes;
}
inline int __any_sync(unsigned mask, int p, HOST_CUDA_SITE) {
  return __ballot_sync(mask, p, site_file, site_line) != 0;
}
inline int __all_sync(unsigned mask, int p, HOST_CUDA_SITE) {
  return __ballot_sync(mask, p, site_file, site_line) == mask;
}
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, HOST_CUDA_SITE) {
  const int l = static_cast<int>(host_cuda::lane());
  return host_cuda::shuffle(mask, v, (l & ~(width - 1)) | (source & (width - 1)), HOST_CUDA_HERE);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, HOST_CUDA_SITE) {
  const int l = static_cast<int>(host_cuda::lane()), source = l ^ x;
  return host_cuda::shuffle(mask, v, source >= (l & ~(width - 1)) + width ? l : source, HOST_CUDA_HERE);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, HOST_CUDA_SITE) {
  const int l = static_cast<int>(host_cuda::lane()), source = l + static_cast<int>(d);
  return host_cuda::shuffle(mask, v, source >= (l & ~(width - 1)) + width ? l : source, HOST_CUDA_HERE);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, HOST_CUDA_SITE) {
  const int l = static_cast<int>(host_cuda::lane()), source = l - static_cast<int>(d);
  return host_cuda::shuffle(mask, v, source < (l & ~(width - 1)) ? l : source, HOST_CUDA_HERE);
}
inline void __threadfence() { host_cuda::fence(); }

template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) {
  return host_cuda::update_atomically(p, [=](T x) { return static_cast<T>(x + v); });
}
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) {
  return host_cuda::update_atomically(p, [=](T x) { return x < v ? v : x; });
}
template <class T> T atomicMin(T* p, std::type_identity_t<T> v) {
  return host_cuda::update_atomically(p, [=](T x) { return v < x ? v : x; });
}
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) {
  return host_cuda::update_atomically(p, [=](T) { return v; });
}
template <class T> T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return host_cuda::update_atomically(p, [=](T x) { return x == expected ? v : x; });
}

// What device code has and hosts lack.
template <class T> T __ldg(T const* p) { return *p; }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float sinpif(float x) { return static_cast<float>(std::sin(3.14159265358979323846 * static_cast<double>(x))); }
inline float cospif(float x) { return static_cast<float>(std::cos(3.14159265358979323846 * static_cast<double>(x))); }
inline double sinpi(double x) { return std::sin(3.14159265358979323846 * x); }
inline double cospi(double x) { return std::cos(3.14159265358979323846 * x); }
inline void sincospif(float x, float* sine, float* cosine) {
  *sine = sinpif(x);
  *cosine = cospif(x);
}
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<std::uint64_t>(a) * b >> 32);
}
template <class T, class U> constexpr std::common_type_t<T, U> min(T a, U b) {
  using C = std::common_type_t<T, U>;
  return static_cast<C>(b) < static_cast<C>(a) ? static_cast<C>(b) : static_cast<C>(a);
}
template <class T, class U> constexpr std::common_type_t<T, U> max(T a, U b) {
  using C = std::common_type_t<T, U>;
  return static_cast<C>(a) < static_cast<C>(b) ? static_cast<C>(b) : static_cast<C>(a);
}
