// Sums that many threads add to, in any order: 64-bit fixed point, 2^-48 a unit.
#pragma once

#include <sotto/backend/cuda/device.cuh>

namespace sotto::cuda::inline SOTTO_ABI {

inline constexpr float fixed_unit = 281474976710656.f;
__device__ __forceinline__ long long to_fixed(float x) { return static_cast<long long>(x * fixed_unit); }
__device__ __forceinline__ float from_fixed(unsigned long long sum) {
  return static_cast<float>(static_cast<double>(static_cast<long long>(sum)) / static_cast<double>(fixed_unit));
}
__device__ __forceinline__ void add_fixed(unsigned long long* sum, float x) {
  atomicAdd(sum, static_cast<unsigned long long>(to_fixed(x)));
}

/// to [n] += sums.
template <class = void>
__global__ void __launch_bounds__(256) add_fixed_sums(unsigned long long const* sums, int n, float* to) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] += from_fixed(sums[i]);
}

}  // namespace sotto::cuda::inline SOTTO_ABI
