// Memory and a stream for tests of kernels, where a host executes them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include <sotto/backend/cuda/device.cuh>

namespace sotto::test {

inline cudaStream_t stream() {
  static cudaStream_t made = [] {
    cudaStream_t s = nullptr;
    cuda::check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "making a stream");
    return s;
  }();
  return made;
}
/// Memory of the device: NaNs until something is written.
template <class T> class OnGpu {
 public:
  explicit OnGpu(std::size_t n) : size_(n) {
    if (n > 0) cuda::check(cudaMalloc(reinterpret_cast<void**>(&begin_), n * sizeof(T)), "allocating");
  }
  explicit OnGpu(std::vector<T> const& from) : OnGpu(from.size()) { copy(begin_, from.data(), cudaMemcpyHostToDevice); }
  ~OnGpu() { cudaFree(begin_); }
  OnGpu(OnGpu const&) = delete;
  OnGpu& operator=(OnGpu const&) = delete;
  operator T*() const { return begin_; }  // NOLINT
  std::vector<T> numbers() const {
    std::vector<T> to(size_);
    copy(to.data(), begin_, cudaMemcpyDeviceToHost);
    return to;
  }

 private:
  void copy(T* to, T const* from, cudaMemcpyKind kind) const {
    if (size_ > 0) cuda::check(cudaMemcpyAsync(to, from, size_ * sizeof(T), kind, stream()), "copying");
    cuda::check(cudaStreamSynchronize(stream()), "waiting");
  }

  T* begin_ = nullptr;
  std::size_t size_;
};

}  // namespace sotto::test
