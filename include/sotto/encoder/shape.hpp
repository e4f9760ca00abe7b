// The shape of an encoder.
#pragma once

#include <sotto/config.hpp>

namespace sotto::inline SOTTO_API {

/// Width, depth, heads and feed-forward width of a transformer encoder.
struct EncoderShape {
  int width = 768;
  int depth = 12;
  int heads = 0;         ///< 0: the smallest divisor of width that leaves heads of at most 64
  int feed_forward = 0;  ///< 0: 4 * width

  friend constexpr bool operator==(EncoderShape const&, EncoderShape const&) = default;

  /// The same shape with the zeros filled in.
  SOTTO_ALWAYS_INLINE constexpr EncoderShape resolved() const {
    EncoderShape shape = *this;
    if (shape.feed_forward == 0) shape.feed_forward = 4 * width;
    if (shape.heads == 0 && width > 0)
      for (shape.heads = 1; width % shape.heads != 0 || width / shape.heads > 64;) ++shape.heads;
    return shape;
  }
};

}  // namespace sotto::inline SOTTO_API
