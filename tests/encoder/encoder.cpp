#include "gradients.hpp"

#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>

using namespace sotto;

namespace {

struct Tiny : Spec {
  static constexpr EncoderShape shape{.width = 12, .depth = 2, .heads = 2, .feed_forward = 10};
  using Frontend = frontend::LogMel<3, 2>;
  using Position = position::Convolution<2, 3, 4>;
  using Objective = objective::Hubert<5, objective::Cosine<6>>;
};
struct TinyPre : Tiny {
  using Norm = norm::Pre;
};
struct TinyWindowed : TinyPre {
  using Attention = attention::Windowed<1>;
};
struct TinyBias : TinyPre {
  using Attention = attention::RelativeBias<8, 4>;
};
struct TinyWavLm : Tiny {
  using Attention = attention::RelativeBias<8, 4, true, true>;
};
struct TinySinusoidal : Tiny {
  using Position = position::Sinusoidal;
  using Objective = objective::Hubert<5, objective::Plain>;
};
struct TinyUneven : TinyPre {
  static constexpr EncoderShape shape{.width = 15, .depth = 1, .heads = 3, .feed_forward = 7};
  using Position = position::Convolution<5, 2>;
};

}  // namespace

TEST_CASE_TEMPLATE("every gradient of a model is the derivative of its loss", Model, Tiny, TinyPre, TinyWindowed,
                   TinyBias, TinyWavLm, TinySinusoidal, TinyUneven) {
  CHECK(test::check_gradients<Model>() < 1e-9);
}

TEST_CASE("gradients stay exact with dropout, a skipped layer and unmasked frames in the loss") {
  typename Tiny::Objective::Options options;
  options.unmasked_weight = .3f;
  Noise noise = Noise::of({.dropout = .25f}, 2, 11, 4);
  CHECK(test::check_gradients<Tiny>(options, noise) < 1e-9);
  noise.skipped = 1;
  CHECK(test::check_gradients<TinyPre>(options, noise) < 1e-9);
}
