// Specs by name: the paper's shapes, its ladder, the deep-and-wide pair, and a tiny one to begin with.
#pragma once

#include <sotto/encoder/spec.hpp>

namespace sotto::presets::inline SOTTO_API {

/// 4 x 192, pre-norm: learns words from ten minutes of one core.
struct Tiny : Spec {
  static constexpr char const* name = "tiny";
  static constexpr EncoderShape shape{.width = 192, .depth = 4, .heads = 3, .feed_forward = 768};
  using Norm = norm::Pre;
  using Position = position::Convolution<16, 31, 65>;
};

/// arXiv 2409.16295: 12 x 384. At the parameters and FLOPs of `small`, it learns more.
struct Slim : Spec {
  static constexpr char const* name = "slim";
  static constexpr EncoderShape shape{.width = 384, .depth = 12, .heads = 8, .feed_forward = 768};
};
/// arXiv 2409.16295: 3 x 640.
struct Small : Spec {
  static constexpr char const* name = "small";
  static constexpr EncoderShape shape{.width = 640, .depth = 3, .heads = 8, .feed_forward = 2048};
};

/// The paper's size sweep at constant FLOPs, in percent of Slim's parameters (its experiments' configuration files).
struct Ladder30 : Spec {
  static constexpr char const* name = "ladder-30";
  static constexpr EncoderShape shape{.width = 192, .depth = 4, .heads = 4, .feed_forward = 320};
};
struct Ladder50 : Spec {
  static constexpr char const* name = "ladder-50";
  static constexpr EncoderShape shape{.width = 320, .depth = 5, .heads = 8, .feed_forward = 768};
};
struct Ladder60 : Spec {
  static constexpr char const* name = "ladder-60";
  static constexpr EncoderShape shape{.width = 320, .depth = 7, .heads = 8, .feed_forward = 768};
};
struct Ladder70 : Spec {
  static constexpr char const* name = "ladder-70";
  static constexpr EncoderShape shape{.width = 384, .depth = 7, .heads = 8, .feed_forward = 768};
};
struct Ladder90 : Spec {
  static constexpr char const* name = "ladder-90";
  static constexpr EncoderShape shape{.width = 352, .depth = 12, .heads = 8, .feed_forward = 768};
};
struct Ladder130 : Spec {
  static constexpr char const* name = "ladder-130";
  static constexpr EncoderShape shape{.width = 416, .depth = 13, .heads = 8, .feed_forward = 1024};
};
struct Ladder160 : Spec {
  static constexpr char const* name = "ladder-160";
  static constexpr EncoderShape shape{.width = 496, .depth = 13, .heads = 16, .feed_forward = 1024};
};
struct Ladder190 : Spec {
  static constexpr char const* name = "ladder-190";
  static constexpr EncoderShape shape{.width = 512, .depth = 15, .heads = 16, .feed_forward = 1024};
};
struct Ladder200 : Spec {
  static constexpr char const* name = "ladder-200";
  static constexpr EncoderShape shape{.width = 528, .depth = 15, .heads = 12, .feed_forward = 1024};
};
struct Base : Spec {
  static constexpr char const* name = "base";
  static constexpr EncoderShape shape{.width = 768, .depth = 12, .heads = 12, .feed_forward = 3072};
};
struct Large : Spec {
  static constexpr char const* name = "large";
  static constexpr EncoderShape shape{.width = 1024, .depth = 24, .heads = 16, .feed_forward = 4096};
};

/// "Deep versus wide" (Ashihara et al., arXiv 2207.06867): 12 x 384 x 1536 against 3 x 768 x 3072.
struct Deep : Spec {
  static constexpr char const* name = "deep";
  static constexpr EncoderShape shape{.width = 384, .depth = 12, .heads = 6, .feed_forward = 1536};
};
struct Wide : Spec {
  static constexpr char const* name = "wide";
  static constexpr EncoderShape shape{.width = 768, .depth = 3, .heads = 12, .feed_forward = 3072};
};

}  // namespace sotto::presets::inline SOTTO_API
