// Element by element: functors of one or two numbers, and what applies them.
#pragma once

#include <sotto/backend/cuda/device.cuh>
#include <sotto/core/dual.hpp>
#include <sotto/core/views.hpp>

namespace sotto::cuda::inline SOTTO_ABI {

struct Gelu {
  static __device__ __forceinline__ float apply(float x) { return .5f * x * (1.f + erff(x * .70710678f)); }
};
struct GeluSlope {  ///< dy gelu'(before)
  static __device__ __forceinline__ float apply(float before, float dy) {
    return dy * (.5f * (1.f + erff(before * .70710678f)) + before * .39894228f * expf(-.5f * before * before));
  }
};
/// The tanh form, as cuBLASLt's epilogues have it.
struct TanhGelu {
  static __device__ __forceinline__ float apply(float x) {
    return .5f * x * (1.f + tanhf(.79788456f * (x + .044715f * x * x * x)));
  }
};
struct TanhGeluSlope {
  static __device__ __forceinline__ float apply(float x, float dy) {
    const float t = tanhf(.79788456f * (x + .044715f * x * x * x));
    return dy * (.5f * (1.f + t) + .5f * x * (1.f - t * t) * .79788456f * (1.f + .134145f * x * x));
  }
};
struct Plus {
  static __device__ __forceinline__ float apply(float a, float b) { return a + b; }
};
/// A user's functor and its slope.
template <class Functor> struct Mapped {
  static __device__ __forceinline__ float apply(float x) { return Functor::template apply<float>(x); }
};
template <class Functor> struct MappedSlope {
  static __device__ __forceinline__ float apply(float x, float dy) {
    Dual<float, 1> at(x);
    at.by[0] = 1.f;
    return dy * Functor::apply(at).by[0];
  }
};

/// y = F(x): a thread has 16 bytes where everything lies so.
template <class F, class T>
__global__ void __launch_bounds__(256) map_one(T const* x, T* y, std::size_t n, bool packed) {
  const std::size_t i = (static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x) * Pack<T>::size;
  if (packed && i + Pack<T>::size <= n) {
    Pack<T> v = load_pack(x + i);
#pragma unroll
    for (int k = 0; k < Pack<T>::size; ++k) v.value[k] = from_float<T>(F::apply(to_float(v.value[k])));
    store_pack(y + i, v);
  } else {
    for (std::size_t k = i; k < n && k < i + Pack<T>::size; ++k) y[k] = from_float<T>(F::apply(to_float(x[k])));
  }
}
/// y = F(a, b).
template <class F, class T>
__global__ void __launch_bounds__(256) map_two(T const* a, T const* b, T* y, std::size_t n, bool packed) {
  const std::size_t i = (static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x) * Pack<T>::size;
  if (packed && i + Pack<T>::size <= n) {
    const Pack<T> u = load_pack(a + i);
    Pack<T> v = load_pack(b + i);
#pragma unroll
    for (int k = 0; k < Pack<T>::size; ++k)
      v.value[k] = from_float<T>(F::apply(to_float(u.value[k]), to_float(v.value[k])));
    store_pack(y + i, v);
  } else {
    for (std::size_t k = i; k < n && k < i + Pack<T>::size; ++k)
      y[k] = from_float<T>(F::apply(to_float(a[k]), to_float(b[k])));
  }
}
/// y = a + b, row by row.
template <class T>
__global__ void __launch_bounds__(256) sum_strided(Matrix<T const> a, Matrix<T const> b, Matrix<T> y) {
  const int row = static_cast<int>(blockIdx.x);
  for (int c = static_cast<int>(threadIdx.x); c < y.columns; c += 256)
    y.row(row)[c] = from_float<T>(to_float(a.row(row)[c]) + to_float(b.row(row)[c]));
}
/// From fp32 to what activations are kept in.
template <class T> __global__ void __launch_bounds__(256) convert(float const* x, T* y, std::size_t n) {
  const std::size_t i = (static_cast<std::size_t>(blockIdx.x) * 256 + threadIdx.x) * 4;
  if (i + 4 <= n) {
    const Pack<float> v = load_pack(x + i);
    Four<T> to;
#pragma unroll
    for (int k = 0; k < 4; ++k) to.value[k] = from_float<T>(v.value[k]);
    store_four(y + i, to);
  } else {
    for (std::size_t k = i; k < n; ++k) y[k] = from_float<T>(x[k]);
  }
}

}  // namespace sotto::cuda::inline SOTTO_ABI
