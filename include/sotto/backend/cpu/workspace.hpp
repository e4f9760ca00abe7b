// Memory that kernels work in.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include <sotto/config.hpp>

namespace sotto::cpu::inline SOTTO_ABI {

/// Memory that grows to what its user needs and stays: no allocation once it is big enough.
class Workspace {
 public:
  /// At least n numbers at a multiple of 64 bytes; what they held is lost.
  template <class T> T* take(std::size_t n) { return static_cast<T*>(bytes(n * sizeof(T))); }

 private:
  void* bytes(std::size_t n) {
    if (n > size_) {
      memory_.reset();
      memory_.reset(static_cast<std::byte*>(::operator new (n, std::align_val_t{64})));
      size_ = n;
    }
    return memory_.get();
  }
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

}  // namespace sotto::cpu::inline SOTTO_ABI
