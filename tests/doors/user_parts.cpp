// A user's attention and a user's objective, each one file, go through every door.
#include "../encoder/gradients.hpp"
#include "balanced_reconstruction.hpp"
#include "chunked_attention.hpp"

using namespace sotto;

namespace {
struct UserAttention : Spec {
  static constexpr EncoderShape shape{.width = 12, .depth = 2, .heads = 2, .feed_forward = 10};
  using Frontend = frontend::LogMel<3, 2>;
  using Position = position::Convolution<2, 3>;
  using Attention = ChunkedCapped;
  using Objective = objective::Hubert<5, objective::Cosine<6>>;
};
struct UserObjective : UserAttention {
  using Objective = BalancedReconstruction;
};
}  // namespace

TEST_CASE("a user's attention trains by exact gradients that nobody wrote") {
  CHECK(test::check_gradients<UserAttention>({}, Noise::off(), {13, 5}) < 1e-9);
}

TEST_CASE("a user's objective with batch statistics trains by exact gradients") {
  CHECK(test::check_gradients<UserObjective>({}, Noise::off(), {13, 5}) < 1e-9);
}
