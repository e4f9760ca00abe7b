// Models whose extents are no multiple of anything: what backends are compared on.
#pragma once

#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/encoder/spec.hpp>

namespace sotto::test {

struct Odd : Spec {  // head width 13: padded to 16; nothing is a multiple of a vector
  static constexpr EncoderShape shape{.width = 39, .depth = 2, .heads = 3, .feed_forward = 53};
  using Frontend = frontend::LogMel<5, 2>;
  using Position = position::Convolution<13, 6, 5>;
  using Objective = objective::Hubert<7, objective::Cosine<11>>;
};
struct OddPre : Odd {
  using Norm = norm::Pre;
  using Attention = attention::Windowed<9>;
};
struct OddBias : Odd {
  using Attention = attention::RelativeBias<16, 20, true, true>;
  using Objective = objective::Hubert<7, objective::Plain>;
};
struct OddSines : OddPre {
  using Position = position::Sinusoidal;
  using Attention = attention::RelativeBias<16, 20>;
};
struct Regular : Spec {
  static constexpr EncoderShape shape{.width = 96, .depth = 2, .heads = 2, .feed_forward = 160};
  using Position = position::Convolution<8, 31, 65>;
  using Norm = norm::Pre;
};

}  // namespace sotto::test
