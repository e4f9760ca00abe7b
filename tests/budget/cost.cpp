// Prices against a backend that counts as it multiplies.
#include "../encoder/gradients.hpp"

#include "../doors/balanced_reconstruction.hpp"
#include "../doors/chunked_attention.hpp"

#include <sotto/attention/relative_bias.hpp>
#include <sotto/attention/windowed.hpp>
#include <sotto/budget/cost.hpp>

using namespace sotto;
using namespace sotto::literals;

namespace {

struct Priced : Spec {  // head width 5: padding must not be billed
  static constexpr EncoderShape shape{.width = 20, .depth = 3, .heads = 4, .feed_forward = 18};
  using Frontend = frontend::LogMel<6, 2>;
  using Position = position::Convolution<4, 5, 8>;
  using Objective = objective::Hubert<9, objective::Cosine<7>>;
};
struct PricedPre : Priced {
  using Norm = norm::Pre;
  using Attention = attention::Windowed<3, 1>;
  using Objective = objective::Hubert<9, objective::Plain>;
};
struct PricedGates : Priced {
  using Attention = attention::RelativeBias<8, 4, true, true>;
  using Position = position::Sinusoidal;
};
struct PricedUser : Priced {
  using Attention = ChunkedCapped;
  using Objective = BalancedReconstruction;
};

template <class Model>
void agrees(std::vector<int> const& lengths, typename Model::Objective::Options const& options, Noise const& noise) {
  const PackedLane lane = test::random_lane(lengths, Model::Frontend::features, Model::Objective::classes, 4);
  const std::vector<double> values = test::random_parameters<Model>(2);
  std::vector<double> gradients(values.size(), 0);
  test::LossOf<Model, double> model(lane);
  model.loss(values.data(), lane, noise, options, gradients.data());
  int layers = 0;
  for (int i = 0; i < Model::shape.depth; ++i) layers += noise.skips(i) ? 0 : 1;
  const auto masked = static_cast<std::int64_t>(lane.masked.size());
  Flops priced = Cost<Model>::head(masked, lane.rows() - masked, options);
  for (const int length : lengths) priced += Cost<Model>::train(length, layers) - Flops{Model::Frontend::flops(length)};
  CHECK(priced == Flops{2 * model.backend.multiply_adds});
}

}  // namespace

TEST_CASE_TEMPLATE("a step costs what a backend that counts its products has counted", Model, Priced, PricedPre,
                   PricedGates, PricedUser) {
  agrees<Model>({9}, {}, Noise::off());
  agrees<Model>({17, 1, 30, 4}, {}, Noise::off());
  Noise skipping = Noise::off();
  skipping.skipped = 0b010;
  agrees<Model>({12, 8}, {}, skipping);
}
TEST_CASE("predicting unmasked frames too is billed") {
  typename Priced::Objective::Options options;
  options.unmasked_weight = .1f;
  agrees<Priced>({17, 1, 30, 4}, options, Noise::off());
}
TEST_CASE("the expected cost of training is the cost of its crops") {
  constexpr Flops hour = training_cost<Priced>(1h, {.crop = 10s});
  const int frames = Priced::Frontend::frames(160000);
  const double masked = expected_masked({}) * frames;
  const double crops = 360 * (static_cast<double>(Cost<Priced>::train(frames).count) +
                              static_cast<double>(Cost<Priced>::head(1000, 0, {}).count) / 1000 * masked);
  CHECK(static_cast<double>(hour.count) == doctest::Approx(crops).epsilon(1e-4));
}
TEST_CASE("budgets are read as they are written") {
  CHECK(Budget::parse("1e13flop") == Budget(Flops{10'000'000'000'000}));
  CHECK(Budget::parse("200updates") == Budget(updates(200)));
  CHECK(Budget::parse("2h-audio") == Budget(audio(2h)));
  CHECK(Budget::parse("10min-wall") == Budget(wall(10min)));
  for (const Budget budget : {Budget(Flops{123456789012345}), Budget(updates(7)), Budget(audio(90s)), Budget(wall(1h))})
    CHECK(Budget::parse(budget.text()) == budget);
  for (char const* bad :
       {"", "flop", "1e13", "0flop", "-1flop", "nanflop", "2.5updates", "2h", "3days-audio", "1e30flop"})
    CHECK_THROWS_AS(Budget::parse(bad), Error);
}
