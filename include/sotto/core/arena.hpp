// One buffer, carved into views: layers own no memory.
#pragma once

#include <cstddef>

#include <sotto/core/views.hpp>

namespace sotto::detail::inline SOTTO_API {
template <class T> struct ValueOf { using type = T; };
template <class T> struct ValueOf<OnDevice<T>> { using type = T; };
}  // namespace sotto::detail::inline SOTTO_API

namespace sotto::inline SOTTO_API {

/// Carves arrays from one buffer, each at a multiple of 64 bytes. Begun at nullptr it only measures, also in a
/// constant expression: used() then is what the buffer must hold.
class Arena {
 public:
  constexpr Arena() = default;
  SOTTO_ALWAYS_INLINE constexpr explicit Arena(std::byte* begin) : begin_(begin) {}

  template <class E> SOTTO_ALWAYS_INLINE constexpr E* take(std::size_t n) {
    E* at = nullptr;
    if (begin_ != nullptr) at = reinterpret_cast<E*>(begin_ + used_);
    used_ += (n * sizeof(typename detail::ValueOf<E>::type) + 63) / 64 * 64;
    return at;
  }
  template <class E, int Width> SOTTO_ALWAYS_INLINE constexpr Rows<E, Width> rows(int n) {
    return {take<E>(static_cast<std::size_t>(n) * Width), n};
  }
  /// Bytes carved so far.
  SOTTO_ALWAYS_INLINE constexpr std::size_t used() const { return used_; }

 private:
  std::byte* begin_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace sotto::inline SOTTO_API
