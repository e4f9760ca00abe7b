// Memory on the host, aligned for vectors.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include <sotto/core/error.hpp>

namespace sotto::inline SOTTO_ABI {

/// Bytes at a multiple of 64, zeroed. Moves, never copies.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    begin_.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{64}, std::nothrow)));
    if (!begin_ && bytes > 0)
      throw_error(ErrorCode::device, {"there is no memory for ", bytes >> 20,
                                      " MiB of parameters or activations; use a smaller model, fewer slots or "
                                      "smaller batch.lane_rows"});
    std::memset(begin_.get(), 0, bytes);
  }
  std::byte* begin() const { return begin_.get(); }
  std::size_t size() const { return bytes_; }
  template <class T> T* as() const { return reinterpret_cast<T*>(begin_.get()); }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> begin_;
  std::size_t bytes_ = 0;
};

}  // namespace sotto::inline SOTTO_ABI
