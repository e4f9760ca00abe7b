// The seam: everything that kernels need and plain C++ cannot say. No other file of the library has an asm statement, a
// launch, a __shared__ array or a compiler's #if. The same text is compiled by nvcc for GPUs and, with tests/host_cuda
// first on the include path, by a host compiler.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include <sotto/core/bf16.hpp>
#include <sotto/core/error.hpp>

#ifndef __CUDACC__
#include <host_cuda/device_twins.hpp>  // tests/host_cuda: what follows as a host executes it
#endif

namespace sotto::cuda::inline SOTTO_ABI {

/// Throws Error(device) for anything but success. what: "copying a batch".
inline void check(cudaError_t error, char const* what) {
  if (error == cudaSuccess) return;
  throw_error(ErrorCode::device,
              {"CUDA failed while ", what, ": ", cudaGetErrorString(error), " (", static_cast<int>(error), ")"});
}

/// Blocks and threads of a launch, and the bytes of its dynamic shared memory.
struct Grid {
  dim3 blocks, threads;
  unsigned shared_bytes = 0;
};

/// Enqueues a kernel; arguments are converted to its parameters' types.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), Grid grid, cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  if (grid.shared_bytes > 48u * 1024u)
    check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes)),
        "asking for shared memory");
  check(cudaLaunchKernelEx(&config, kernel, Parameters(std::forward<Arguments>(arguments))...), "launching a kernel");
}

#ifdef __CUDACC__
/// A block's static shared T. One a type and kernel: two of the same type would be the same memory.
template <class T> __device__ __forceinline__ T& shared() {
  __shared__ T storage;
  return storage;
}
/// A block's dynamic shared memory, at a multiple of 16 bytes.
template <class T> __device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}
/// e^x, fast: 2 ulp and range as __expf.
__device__ __forceinline__ float fast_exp(float x) { return __expf(x); }
/// a / b to 2 ulp, for |b| up to 2^126. IEEE's division has a slow path, a call that makes kernels spill.
__device__ __forceinline__ float fast_divide(float a, float b) { return __fdividef(a, b); }
/// 2^x, in one instruction: 2 ulp; results below 2^-126 are 0.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// d += a b: [16, 8] += [16, 16] [16, 8], bf16 times bf16 in fp32, by the 32 lanes of a warp together (PTX ISA, "Matrix
/// fragments for mma.m16n8k16"). With g = lane / 4 and t = lane % 4, and pairs of neighbours in a register, low half
/// first: a[0] holds (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 2t + 8..), a[3] (g + 8, 2t + 8..); b[0] (k = 2t.., n = g),
/// b[1] (k = 2t + 8.., n = g); d[0], d[1] (g, 2t..), d[2], d[3] (g + 8, 2t..).
__device__ __forceinline__ void mma_16816(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// Four 8 x 8 matrices of 16-bit numbers from shared memory. Lane l gives the address of row l % 8 of matrix l / 8, at
/// a multiple of 16 bytes; it receives in r[i] columns 2 (lane % 4) and + 1 of row lane / 4 of matrix i.
__device__ __forceinline__ void load_matrices(std::uint32_t (&r)[4], bf16 const* row) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
/// The same of the matrices' transposes: in r[i] rows 2 (lane % 4) and + 1 of column lane / 4 of matrix i.
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&r)[4], bf16 const* row) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
/// Begins to copy 16 bytes from global to shared memory, both at multiples of 16; zeros where `real` is false, and
/// `from` then is not read. Done after commit_copies() and wait_for_copies().
__device__ __forceinline__ void copy_16(void* to, void const* from, bool real) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(real ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until all but the last `Pending` groups that this thread committed are there; other threads see them after a
/// __syncthreads.
template <int Pending> __device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
/// Two numbers as a register of a fragment: the first in the low half. Rounded as bf16::of rounds, NaNs but for their
/// bits.
__device__ __forceinline__ std::uint32_t packed_pair(float low, float high) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
/// The same of one number.
__device__ __forceinline__ bf16 rounded(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
#else
inline bf16 rounded(float x) { return bf16::of(x); }
inline float fast_divide(float a, float b) { return a / b; }
inline float fast_exp2(float x) { return exp2f(x); }
inline std::uint32_t packed_pair(float low, float high) {
  return static_cast<std::uint32_t>(bf16::of(low).bits) | static_cast<std::uint32_t>(bf16::of(high).bits) << 16;
}
using host_cuda::commit_copies;
using host_cuda::copy_16;
using host_cuda::dynamic_shared;
using host_cuda::fast_exp;
using host_cuda::load_matrices;
using host_cuda::load_matrices_transposed;
using host_cuda::mma_16816;
using host_cuda::shared;
using host_cuda::wait_for_copies;
#endif

/// 16 bytes of T: what one instruction loads or stores.
template <class T> struct alignas(16) Pack {
  static constexpr int size = 16 / sizeof(T);
  T value[size];
};
/// at: a multiple of 16 bytes.
template <class T> __device__ __forceinline__ Pack<T> load_pack(T const* at) {
  return *reinterpret_cast<Pack<T> const*>(at);
}
template <class T> __device__ __forceinline__ void store_pack(T* at, Pack<T> const& pack) {
  *reinterpret_cast<Pack<T>*>(at) = pack;
}

/// Four numbers, by one store: at a multiple of their size.
template <class T> struct alignas(4 * sizeof(T)) Four { T value[4]; };
template <class T> __device__ __forceinline__ void store_four(T* at, Four<T> const& four) {
  *reinterpret_cast<Four<T>*>(at) = four;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return static_cast<float>(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return rounded(x); }

/// Sum, or maximum, over the 32 lanes, in every lane; the same bits whatever the order of execution.
__device__ __forceinline__ float warp_sum(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  return x;
}
/// Sum over a block of 256 threads, in the first of them, in a fixed order. Once a kernel.
__device__ __forceinline__ double block_sum(double x) {
  struct Sums {
    double of_warp[8];
  };
  Sums& sums = shared<Sums>();
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) sums.of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int w = 1; w < 8; ++w) x += sums.of_warp[w];
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
  for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
  return x;
}

}  // namespace sotto::cuda::inline SOTTO_ABI
